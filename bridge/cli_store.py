"""The commands about the store itself."""

from __future__ import annotations

import json

import click

from bridge.cli import _clean, _runtime, _settings, command, common_options, main


@main.group("store")
@common_options
def store() -> None:
    """The store in Redis: does everything in it agree?"""


@command("check", group=store)
@click.option("--repair", is_flag=True, help="Mend what can be mended, beside whatever runs.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects, for scripts.")
def check(repair: bool, as_json: bool) -> int:
    """Verifies every record and index of the store.

    Walks in small steps beside a running system. Exit code 1: something is wrong, and not mended.
    """
    from bridge.models import IncidentReport
    from bridge.printing import one_line
    from bridge.progress import Meter
    from bridge.store_check import StoreCheck

    with _runtime(_settings()) as runtime, Meter("store check", "batches of keys") as meter:
        routes = runtime.routes()

        def reference(report: IncidentReport, connector: str) -> str | None:
            return routes.reference(report, connector) if connector in runtime.services else None

        walk = StoreCheck(runtime.store, repair=repair, reference=reference, moves=meter.moves)
        meter.goes_on()
        found = list(walk.findings())
    if as_json:
        click.echo(_clean(json.dumps([finding.as_json() for finding in found], indent=2)))
    else:
        for finding in found:
            click.echo(one_line(_clean(finding.sentence())))
        mended = sum(finding.mended for finding in found)
        click.echo(f"{len(found)} findings, {mended} mended" if found else "all well")
    return 0 if all(finding.mended for finding in found) else 1
