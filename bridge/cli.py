"""The commands: parse, call, print. What they do lies elsewhere and is imported when needed: `--help` is quick."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from bridge.models import IncidentReport, ReportKey
    from bridge.runtime import Runtime
    from bridge.settings import Settings

#: States that `retry` looks at unless told otherwise.
WAITING = ("pending", "creating", "rejected", "held")
STATES = ("pending", "creating", "created", "rejected", "held", "closed", "handled", "gone")
KINDS = ("incident_report", "escalation", "platform_action")


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """An option that stands before or after the command; the nearer one counts."""

    def keep(context: click.Context, _: click.Parameter, value: Any) -> Any:
        context.ensure_object(dict)
        if value is not None:
            context.obj[name] = value
        return value

    return keep


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--log-level`."""
    command = click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        callback=_remember("config"),
        help="Configuration file; else BRIDGE_CONFIG, else ./bridge.toml.",
    )(command)
    return click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        expose_value=False,
        callback=_remember("log_level"),
        help="What is logged to standard error (default: info for processes, warning for other commands).",
    )(command)


class _Key(click.ParamType[Any]):
    """A report's id; an escalation's is `e` and its number, a platform action's `p` and its number."""

    name = "report"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        from bridge.models import report_key

        try:
            return report_key(str(value))
        except ValueError as error:
            self.fail(str(error), parameter, context)


_KEY = _Key()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="huntress-bridge")
@common_options
def main() -> None:
    """Turns every open Huntress incident report into exactly one ticket per destination, and never loses one."""


def command(
    name: str, *, level: str | None = "warning", group: click.Group = main
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declares a command: common options, logging, and every expected failure as a sentence with its exit code.

    `level` is what it logs unless `--log-level` says otherwise; None: what the configuration says.
    """

    def declare(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def wrapped(context: click.Context, /, *args: Any, **kwargs: Any) -> None:
            context.ensure_object(dict)
            context.obj.setdefault("default_log_level", level)
            from bridge import logs

            logs.configure(context.obj.get("log_level") or level or "info", _secrets)
            with _failures():
                code = function(*args, **kwargs)
            sys.exit(code or 0)

        return group.command(name)(common_options(wrapped))

    return declare


@contextmanager
def _failures() -> Iterator[None]:
    """Turns what can go wrong for everybody into a sentence on standard error and exit code 2."""
    import redis

    from bridge.broker import ServerRefused
    from bridge.embedded import DataFolderBusy, EmbeddedRedisError
    from bridge.idempotency import StoreError
    from bridge.settings import ConfigurationError

    try:
        yield
    except ConfigurationError as error:
        _fail("configuration", *error.problems)
    except (ServerRefused, DataFolderBusy, EmbeddedRedisError, StoreError) as error:
        _fail("redis", str(error))
    except redis.RedisError as error:
        _fail(
            "redis", f"Redis does not answer ({_clean(str(error))}); check [redis] url, or the embedded one's data_dir"
        )


def _fail(what: str, *problems: str) -> NoReturn:
    for problem in problems:
        click.echo(f"{what}: {_clean(problem)}", err=True)
    sys.exit(2)


_known_secrets: list[str] = []


def _secrets() -> list[str]:
    return _known_secrets


def _clean(text: str) -> str:
    from connectors.http import redact

    return redact(text, _known_secrets)


def _load() -> Settings:
    """The configuration, read anew at each call."""
    from bridge.settings import load, secrets

    options = click.get_current_context().obj
    settings = load(options.get("config"))
    _known_secrets.extend(secret for secret in secrets(settings) if secret not in _known_secrets)
    if options.get("log_level") is None and options["default_log_level"] is None:
        logging.getLogger().setLevel(settings.log_level.upper())
    return settings


def _settings(*, source: bool = False, connectors: bool = False) -> Settings:
    from bridge.settings import ConfigurationError

    settings = _load()
    problems: list[str] = []
    for wanted, demand in ((source, settings.require_source), (connectors, settings.require_connectors)):
        if wanted:
            try:
                demand()
            except ConfigurationError as error:
                problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return settings


def _reloader() -> Callable[[], Settings]:
    """Reads the configuration again from a thread without a context of click's."""
    from bridge.settings import load, secrets

    path = click.get_current_context().obj.get("config")

    def again() -> Settings:
        settings = load(path)
        _known_secrets.extend(secret for secret in secrets(settings) if secret not in _known_secrets)
        settings.require_source()
        settings.require_connectors()
        return settings

    return again


def _show(connector: str, settings: Settings) -> None:
    from bridge.settings import ConfigurationError

    if connector not in settings.connectors:
        known = ", ".join(settings.connectors) or "none"
        raise ConfigurationError([f"there is no connector named {connector}; configured: {known}"])


# -- processes ---------------------------------------------------------------------------------------------------------


@command("run", level=None)
@click.option("--once", is_flag=True, help="One poll, then work until all is delivered.")
@click.option("--wait", type=click.FloatRange(min=0), default=180.0, show_default=True, help="Seconds --once may take.")
@click.option("--dry-run", is_flag=True, help="With --once: say what would be made; make and write nothing.")
def run(once: bool, wait: float, dry_run: bool) -> int:
    """Poller, dispatcher, workers and page in one process."""
    from contextlib import nullcontext

    from bridge.embedded import exclusive_run

    if dry_run and not once:
        raise click.UsageError("--dry-run goes with --once")
    settings = _settings(source=True, connectors=True)
    if dry_run:
        return _rehearse(settings)
    embedded = not settings.redis.url.get_secret_value()
    with exclusive_run(settings.data_dir) if embedded else nullcontext():
        if once:
            return _once(settings, wait)
        return _process(settings, "poller", "worker", "web")


def _process(settings: Settings, *roles: str) -> int:
    from bridge.processes import Process
    from bridge.runtime import Runtime

    with Runtime(settings, _reloader()) as runtime:
        Process(runtime, roles).run()
    return 0


@command("poller", level=None)
def poller() -> int:
    """Poller and dispatcher; any number may run, one of them works."""
    return _process(_shared(), "poller")


@command("worker", level=None)
def worker() -> int:
    """Delivers; any number may run."""
    return _process(_shared(), "worker")


@command("web", level=None)
def web() -> int:
    """The page, status, metrics and webhooks over HTTP; any number may run."""
    return _process(_shared(), "web")


def _shared() -> Settings:
    from bridge.settings import ConfigurationError

    settings = _settings(source=True, connectors=True)
    if not settings.redis.url.get_secret_value():
        raise ConfigurationError(
            ["redis.url is empty; separate processes need a Redis that they share (`run` alone brings its own)"]
        )
    return settings


def _once(settings: Settings, wait: float) -> int:
    import signal

    from bridge import printing as texts
    from bridge.once import run_once
    from bridge.runtime import Runtime

    with Runtime(settings) as runtime:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runtime.stopping.set())
        result = run_once(runtime, wait)
    click.echo(_clean(texts.once(result)))
    return result.exit_code


def _rehearse(settings: Settings) -> int:
    from bridge import printing as texts
    from bridge.huntress import SourceError, SourceRefused
    from bridge.once import rehearse
    from bridge.runtime import Runtime, undisturbed

    code = 0
    with undisturbed(settings) as quiet, Runtime(quiet, keep_out=True) as runtime:
        try:
            for line in rehearse(runtime):
                click.echo(_clean(texts.rehearsed(line)))
                code = max(code, 1 if line.verdict == "fails" else 0)
        except SourceRefused as error:
            _fail("huntress", str(error))
        except SourceError as error:
            click.echo(_clean(f"huntress: {error}"), err=True)
            return 1
    return code


# -- looking -----------------------------------------------------------------------------------------------------------


@command("check")
@click.option("--online", is_flag=True, help="Also try every credential, board, status, priority and company.")
def check(online: bool) -> int:
    """Reads the configuration and renders every template on samples; finds every mistake at once."""
    from bridge.check import advice, check_offline, check_online
    from bridge.progress import Meter

    settings = _settings(source=True, connectors=True)
    findings = list(check_offline(settings))
    if online:
        with Meter("check", "systems") as meter:
            findings += check_online(settings, meter.each)
    for finding in findings:
        click.echo(_clean(f"{finding.setting}: {finding.message}"))
    warnings = list(advice(settings))
    for sentence in warnings:
        click.echo(f"warning: {_clean(sentence)}", err=True)
    found = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}" if findings else "nothing wrong"
    more = f", {len(warnings)} warning{'s' if len(warnings) != 1 else ''}" if warnings else ""
    click.echo(f"{found}{more}" if findings or warnings else "all well")
    return 1 if findings else 0


def _report_options(function: Callable[..., int]) -> Callable[..., int]:
    """`--report` and `--kind`, as `_report` takes them."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    function = click.option("--kind", type=click.Choice(KINDS), help="What the JSON is; else its keys say it.")(
        function
    )
    return click.option("--report", "file", type=path, help="A report, escalation or platform action as JSON.")(
        function
    )


@command("render")
@click.argument("connector")
@_report_options
def render(connector: str, file: Path | None, kind: str | None) -> int:
    """Shows the ticket that a report would make in CONNECTOR; a built-in sample without --report."""
    from bridge import printing as texts
    from bridge.preview import preview
    from connectors.base import Outcome

    settings = _settings()
    _show(connector, settings)
    try:
        rendered = preview(settings, connector, _report(file, kind))
    except Outcome as outcome:
        click.echo(_clean(f"{connector}: {outcome}"), err=True)
        return 1
    click.echo(_clean(texts.ticket(rendered.ticket)))
    for problem in rendered.problems:
        click.echo(_clean(problem), err=True)
    return 1 if rendered.problems else 0


def _report(file: Path | None, kind: str | None) -> IncidentReport:
    from bridge.models import Kind
    from bridge.preview import read_report, sample_report
    from bridge.settings import ConfigurationError

    if file is None:
        return sample_report()
    try:
        return read_report(file, Kind(kind) if kind else None)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"--report {file}: {error}"]) from None


@command("explain")
@_report_options
@click.option("--organization", type=int, help="Organization id, instead of the report's.")
@click.option("--severity", help="Severity, instead of the report's.")
def explain(file: Path | None, kind: str | None, organization: int | None, severity: str | None) -> int:
    """Which connectors, company, priority and templates apply, and why."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from bridge.explain import explanation

    settings = _settings(connectors=True)
    report = _report(file, kind)
    if organization is not None:
        report = replace(report, organization_id=organization, organizations=())
    if severity is not None:
        report = replace(report, severity=severity.lower(), given_severity="")
    for line in explanation(settings, report, datetime.now(UTC)):
        click.echo(_clean(line))
    return 0


@contextmanager
def _runtime(settings: Settings) -> Iterator[Runtime]:
    from bridge.runtime import Runtime

    with Runtime(settings) as runtime:
        yield runtime


@command("deliveries")
@click.option("--state", type=click.Choice(STATES), help="Only deliveries in this state.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects, for scripts.")
def deliveries(state: str | None, as_json: bool) -> int:
    """What was delivered, what waits, and why."""
    from bridge import printing as texts
    from bridge.models import DeliveryState

    with _runtime(_settings()) as runtime:
        states = [DeliveryState(state)] if state else tuple(DeliveryState)
        found = texts.explained_deliveries(runtime, states)
        if as_json:
            click.echo(_clean(texts.deliveries_json(found)))
            return 0
        pauses = [pause for name in runtime.services if (pause := runtime.store.paused(name))]
        texts.print_deliveries(found, pauses, runtime.books.quarantined(), _clean)
    return 0


@command("healthcheck")
@click.argument("role", required=False, type=click.Choice(["poller", "worker", "web"]))
def healthcheck(role: str | None) -> int:
    """Is this host's process doing its work? For containers: 0 yes, 1 no."""
    from bridge.health import health_problem

    problem = health_problem(_settings(), role)
    click.echo(_clean(problem) if problem else "ok")
    return 1 if problem else 0


@command("diagnostics")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The archive; it must not exist yet.")
@click.option("--with-reports", is_flag=True, help="Also the texts of reports that wait or cannot be parsed.")
@click.option("--with-names", is_flag=True, help="Leave names of organizations and mail addresses as they are.")
def diagnostics(output: Path | None, with_reports: bool, with_names: bool) -> int:
    """Writes a support bundle without secrets: versions, configuration, states, last errors, timings."""
    from bridge import printing as texts
    from bridge.diagnostics import gather, write

    path = click.get_current_context().obj.get("config")
    bundle = gather(path, with_reports=with_reports, with_names=with_names)
    try:
        written = write(bundle, output)
    except OSError as error:
        _fail(
            "diagnostics", f"cannot write {error.filename or output}: {error.strerror}; name another file in --output"
        )
    for name, text in sorted(bundle.files.items()):
        click.echo(f"  {name:22} {len(text.encode()):>8} bytes")
    for problem in bundle.problems:
        click.echo(texts.one_line(problem), err=True)
    click.echo(f"{written} is written, readable for you only. Look through it before you send it to anybody.")
    return 1 if bundle.problems else 0


# -- steering ----------------------------------------------------------------------------------------------------------


@command("retry")
@click.argument("report", required=False, type=_KEY)
@click.option("--connector", help="Only this connector's deliveries.")
@click.option(
    "--state",
    type=click.Choice([*WAITING, "handled"]),
    help="Only deliveries in this state; what was marked as handled is taken up again only by this.",
)
def retry(report: ReportKey | None, connector: str | None, state: str | None) -> int:
    """Makes deliveries due now; what is in doubt is only looked up, what is created is left."""
    from bridge.models import DeliveryState
    from bridge.progress import Meter
    from bridge.retrying import FORGOTTEN, retry_all

    settings = _settings()
    if connector is not None:
        _show(connector, settings)
    states = [DeliveryState(name) for name in ([state] if state else WAITING)]
    with _runtime(settings) as runtime:
        fitting = [
            delivery
            for delivery in runtime.store.deliveries(states)
            if report in (None, delivery.report_id) and connector in (None, delivery.connector)
        ]
        pairs = [(delivery.report_id, delivery.connector) for delivery in fitting]
        with Meter("retry", "deliveries") as meter:
            left = retry_all(runtime.store, meter.each(pairs))[FORGOTTEN]
    if left:
        click.echo(f"{left} left alone: the report is over and no longer in the store", err=True)
    due = len(fitting) - left
    if not due:
        click.echo("nothing fits: no delivery that waits, was refused or is held", err=True)
        return 1
    click.echo(f"{due} due now")
    return 0


@command("handle")
@click.argument("report", type=_KEY)
@click.option("--connector", required=True, help="The connector whose delivery was taken care of.")
@click.option("--reason", required=True, help="What was done; shown with the delivery.")
def handle(report: ReportKey, connector: str, reason: str) -> int:
    """Marks a delivery that has no ticket (any more) as taken care of by a person: none is made for it."""
    from bridge.steering import handle as mark

    if not reason.strip():
        raise click.UsageError("--reason is empty; say what was done")
    settings = _settings()
    _show(connector, settings)
    with _runtime(settings) as runtime:
        problem = mark(runtime.store, report, connector, reason)
    click.echo(_clean(problem or f"report {report} is marked as handled in {connector}"), err=bool(problem))
    return 1 if problem else 0


@command("link")
@click.argument("report", type=_KEY)
@click.argument("connector")
@click.argument("ticket")
def link(report: ReportKey, connector: str, ticket: str) -> int:
    """Takes the existing TICKET as this REPORT's in CONNECTOR and writes the reference into it."""
    from bridge.linking import link_ticket
    from connectors.base import Outcome

    settings = _settings(connectors=True)
    _show(connector, settings)
    with _runtime(settings) as runtime:
        try:
            ref = link_ticket(runtime, report, connector, ticket)
        except Outcome as outcome:
            click.echo(_clean(f"{connector}: {outcome}"), err=True)
            return 1
    click.echo(f"report {report} is ticket {ref.number or ref.id} in {connector}")
    return 0


@command("demo")
@click.option("--for", "seconds", type=click.FloatRange(min=1), help="End after this many seconds, else with ctrl-C.")
@click.option("--serve", is_flag=True, help="Only the pretend systems, without a bridge; for trying containers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --serve: address to listen on.")
def demo(seconds: float | None, serve: bool, host: str) -> int:
    """The whole thing on loopback against pretend systems, with tickets to look at."""
    from bridge.demo.run import run_demo, serve_pretend_systems

    if serve:
        return serve_pretend_systems(host, seconds)
    return run_demo(seconds)


# At the end, because they are declared with what stands above.
import bridge.cli_init  # noqa: E402
import bridge.cli_lists  # noqa: E402
import bridge.cli_store  # noqa: E402, F401

if __name__ == "__main__":
    # As a script this is another module than the one that the lists were declared with.
    from bridge.cli import main as whole

    whole()
