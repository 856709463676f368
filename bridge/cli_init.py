"""The commands of the first steps: `init` and `test-ticket`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bridge.cli import _clean, _runtime, _settings, _show, command

if TYPE_CHECKING:
    from bridge.trial import TrialStep


@command("test-ticket")
@click.argument("connector")
def test_ticket(connector: str) -> int:
    """Makes a ticket marked as a test in CONNECTOR, finds it by its reference, and closes it.

    It is rendered from the built-in sample report, with low severity, for the connector's default_company.
    """
    from bridge.trial import send_trial

    settings = _settings(connectors=True)
    _show(connector, settings)
    with _runtime(settings) as runtime:
        result = send_trial(runtime, connector, tell=show_step)
    return 0 if result.ok else 1


def show_step(step: TrialStep) -> None:
    """One line for a step of a test ticket."""
    from bridge.printing import one_line

    verdict = "ok" if step.ok else "failed"
    click.echo(one_line(_clean(f"{step.what + ':':<11} {verdict}, {step.seconds:.1f} s. {step.text}")))
