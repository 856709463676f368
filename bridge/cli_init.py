"""The commands of the first steps: `init` and `test-ticket`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli import _clean, _fail, _known_secrets, _runtime, _settings, _show, command

if TYPE_CHECKING:
    from bridge.settings import Settings
    from bridge.setup_draft import Draft
    from bridge.setup_files import Written
    from bridge.trial import TrialStep

_FILE = click.Path(exists=True, allow_dash=False, path_type=str)


@command("init")
@click.option("--huntress-api-key-file", type=_FILE, help="File with the API key.")
@click.option("--huntress-api-secret-file", type=_FILE, help="File with the API secret.")
@click.option("--huntress-account-id", type=click.IntRange(min=1), help="With a reseller's key: the child account.")
@click.option("--huntress-base-url", help="Another address of the API.")
@click.option("--connector", "connectors", multiple=True, metavar="NAME=TYPE", help="A ticket system; repeatable.")
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting, such as psa.board=Security or timezone=UTC; repeatable. Secrets as psa.private_key_file=PATH.",
)
@click.option("--not-before", help='Incidents sent before are left alone: an ISO date, or "now".')
@click.option("--timezone", help="Time zone of times in tickets.")
@click.option("--only-organization", "pilot", type=click.IntRange(min=1), multiple=True, help="A pilot; repeatable.")
@click.option("--data-dir", help="Where the embedded Redis keeps its data.")
@click.option("--force", is_flag=True, help="Replace an existing configuration; a copy of it is kept beside.")
@click.option("--unattended", is_flag=True, help="Ask nothing; so it is when standard input is no terminal.")
@click.option("--test-ticket/--no-test-ticket", default=None, help="Send a test ticket to each connector at the end?")
def init(
    huntress_api_key_file: str | None,
    huntress_api_secret_file: str | None,
    huntress_account_id: int | None,
    huntress_base_url: str | None,
    connectors: tuple[str, ...],
    values: tuple[str, ...],
    not_before: str | None,
    timezone: str | None,
    pilot: tuple[int, ...],
    data_dir: str | None,
    force: bool,
    unattended: bool,
    test_ticket: bool | None,
) -> int:
    """Asks what it needs, tries each answer, and writes bridge.toml and a file for each secret.

    What an option says is not asked. Ends with what `check --online` does, and with a test ticket if wanted.

    Exit code 1: written, and the check or a test ticket found something. 2: nothing is written.
    """
    from bridge.setup_draft import Draft, Unfit

    config = Path(click.get_current_context().obj.get("config") or os.environ.get("BRIDGE_CONFIG") or "bridge.toml")
    if config.exists() and not force:
        _fail("init", f"{config} exists; replace it with --force (a copy is kept), or name another with --config")
    if not config.parent.is_dir():
        _fail("init", f"{config.parent} is no folder; make it first")
    draft = Draft(os.environ)
    beside = config.parent.resolve() == Path.cwd()
    flags = [
        ("huntress.base_url", huntress_base_url),
        ("huntress.account_id", huntress_account_id),
        ("huntress.api_key_file", huntress_api_key_file),
        ("huntress.api_secret_file", huntress_api_secret_file),
        ("poll.not_before", not_before),
        ("timezone", timezone),
        ("data_dir", data_dir or ("data" if beside else str(config.parent.resolve() / "data"))),
        ("organizations.only", ",".join(map(str, pilot)) or None),
    ]
    try:
        for text in connectors:
            draft.add_connector(*_pair("--connector", text))
        for key, value in flags:
            if value is not None:
                _put(draft, key, str(value))
        for text in values:
            _put(draft, *_pair("--set", text))
    except Unfit as error:
        _fail("init", str(error))
    asks = not unattended and sys.stdin.isatty()
    if asks:
        from bridge.setup_interview import Interview
        from bridge.setup_prompts import Prompts

        Interview(draft, Prompts(lambda text: _masked(draft, text))).hold()
    else:
        for key, otherwise in (("timezone", "UTC"), ("poll.not_before", "now")):
            if draft.answer(draft.key(key)) is None:
                _put(draft, key, otherwise)
    written = _write(draft, config)
    return _try_out(config, written, asks, test_ticket)


def _pair(option: str, text: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        form = "NAME=TYPE" if option == "--connector" else "KEY=VALUE"
        raise click.UsageError(f"{option} {left}: give it as {form}")
    return left.strip(), right.strip()


def _put(draft: Draft, path: str, value: str) -> None:
    """Takes one option. A secret itself would stand in the list of processes, so only its file is taken."""
    from bridge.settings_reading import variable
    from bridge.setup_draft import Unfit

    key = draft.key(path)
    if draft.is_secret(key):
        raise Unfit(f"{path} is a secret: give {path}_file=PATH, or the variable {variable(key)}")
    secret = (*key[:-1], key[-1].removesuffix("_file"))
    if key[-1].endswith("_file") and draft.is_secret(secret):
        draft.put_secret_file(secret, value)
    else:
        draft.put(key, value)


def _masked(draft: Draft, text: str) -> str:
    _known_secrets.extend(secret for secret in draft.secrets.values() if secret not in _known_secrets)
    return _clean(text)


def _write(draft: Draft, config: Path) -> Written:
    """All files. Ends with code 2 while something is missing or does not fit, and nothing is written then."""
    from bridge.setup_draft import required
    from bridge.setup_files import Files

    problems = list(draft.problems())
    for name, kind in draft.connectors().items():
        for question in required(kind):
            path = f"connectors.{name}.{question.key}"
            secret = draft.is_secret(draft.key(path))
            flag = f"--set {name}.{question.key}{'_file=PATH' if secret else '=VALUE'}"
            problems = [f"{each}; give {flag}" if each == f"{path} is missing" else each for each in problems]
    for part in ("key", "secret"):
        start = f"huntress.api_{part} is empty"
        problems = [f"{start}; give --huntress-api-{part}-file" if p.startswith(start) else p for p in problems]
    if not draft.connectors():
        problems = [f"{p}; give --connector NAME=TYPE" if p.startswith("no connector is") else p for p in problems]
    if problems:
        _fail("init", *(_masked(draft, problem) for problem in problems), "nothing was written")
    try:
        return Files(config).write(draft)
    except OSError as error:
        _fail("init", f"cannot write {error.filename or config} ({error.strerror}); nothing was written")


def _try_out(config: Path, written: Written, asks: bool, test_ticket: bool | None) -> int:
    """Says what was written, and tries it: the check, and a test ticket for each connector."""
    from bridge.check import check_offline, check_online
    from bridge.progress import Meter
    from bridge.settings import load, secrets

    click.echo()
    click.echo(f"Written: {config}" + (f" and {len(written.secrets)} secret files" if written.secrets else ""))
    if written.backup:
        click.echo(f"The former configuration is kept as {written.backup}")
    settings = load(config)
    _known_secrets.extend(secret for secret in secrets(settings) if secret not in _known_secrets)
    with Meter("check", "systems") as meter:
        findings = [*check_offline(settings), *check_online(settings, meter.each)]
    for finding in findings:
        click.echo(_clean(f"{finding.setting}: {finding.message}"))
    click.echo(f"check: {f'{len(findings)} found, see above' if findings else 'all well'}")
    failed = bool(findings)
    for name in settings.connectors:
        about = ("connectors", f"connectors.{name}")
        if any(each.setting in about or each.setting.startswith(f"{about[1]}.") for each in findings):
            if test_ticket:
                click.echo(f"no test ticket is sent to {name} before that is mended")
        elif test_ticket or (asks and test_ticket is None and click.confirm(f"Send a test ticket to {name}?", True)):
            failed = not _send(settings, name) or failed
    at = "" if config.resolve() == Path("bridge.toml").resolve() else f" --config {config}"
    click.echo(f"Next: huntress-bridge{at} run --once --dry-run says which tickets it would make; then: run")
    return 1 if failed else 0


def _send(settings: Settings, connector: str) -> bool:
    from bridge.trial import send_trial

    with _runtime(settings) as runtime:
        return send_trial(runtime, connector, tell=show_step).ok


@command("test-ticket")
@click.argument("connector")
def test_ticket(connector: str) -> int:
    """Makes a ticket marked as a test in CONNECTOR, finds it by its reference, and closes it.

    It is rendered from the built-in sample report, with low severity, for the connector's default_company.
    """
    settings = _settings(connectors=True)
    _show(connector, settings)
    return 0 if _send(settings, connector) else 1


def show_step(step: TrialStep) -> None:
    """One line for a step of a test ticket."""
    from bridge.printing import one_line

    verdict = "ok" if step.ok else "failed"
    click.echo(one_line(_clean(f"{step.what + ':':<11} {verdict}, {step.seconds:.1f} s. {step.text}")))
