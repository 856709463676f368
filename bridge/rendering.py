"""From a report to a `Ticket`: Jinja templates in a sandbox, and the plain rendering for each one that fails.

Templates are the operator's; report data comes in only as variables (`bridge.ticket_view`) and is never compiled. They
are searched in the connector's override folder, in the connector's own folder, and then in `templates/`, so that
`_shared/incident.j2` is one file for all, can be replaced like any other, and an override of `text.j2` can still
`{% extends "connectwise/text.j2" %}`.

Filters beyond Jinja's own: `given` (a value on one line, or "not given"), `local` (a time in the configured zone),
`prose` (HTML as text), `quoted` (`> ` before every line), `fit(n)` and `shorten(n)` (cut at a word, with a note of what
is missing or an ellipsis), `words` (underscores as spaces). Variables beyond the view's: `limit`, of the part, or none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.models import Account, Agent, CompanyMatch, IncidentReport, Organization, Ticket
from bridge.plain import plain_part
from bridge.text import clean, fit, one_line, prose, quoted, shorten, size
from bridge.ticket_view import NOT_GIVEN, TicketView, local, make_view
from connectors.base import Connector, ConnectorSettings, Finding, Outcome, PsaSettings, TemplatePart

#: Characters; a template that produces more is taken for broken.
MAX_OUTPUT = 4_000_000

FieldValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class RenderInput:
    """What is known of a report when its ticket is written; None stands for what was not at hand."""

    report: IncidentReport
    reference: str
    organization: Organization | None
    agent: Agent | None
    account: Account | None
    company: CompanyMatch | None
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A ticket, and one sentence for each template that failed and was replaced by the plain rendering."""

    ticket: Ticket
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A file that has a say in one part of a ticket."""

    part: str
    path: Path
    #: Does it come from the connector's override folder?
    overridden: bool


class _Failure(Exception):
    """A template failed: `where`, with file and line, and why."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where


def sandbox(folders: Sequence[Path], zone: ZoneInfo, *, autoescape: bool = False) -> Environment:
    """The environment of all templates, which are searched in `folders`; times are shown in `zone`."""
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folders),
        autoescape=autoescape,  # by part: `select_autoescape` overlooks names that end in `.html.j2`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "given": _given,
        "local": partial(local, zone=zone),
        "prose": prose,
        "quoted": quoted,
        "fit": fit,
        "shorten": shorten,
        "words": lambda text: str(text).replace("_", " "),
    }
    return environment


class Renderer:
    """Renders tickets for one connector. Shared by threads; keeps compiled templates until it is made anew."""

    def __init__(self, connector: Connector, settings: ConnectorSettings, *, timezone: str, portal_url: str) -> None:
        self._connector = connector
        self._zone = ZoneInfo(timezone)
        self._portal_pattern = portal_url
        self._override = Path(settings.templates).resolve() if settings.templates else None
        built_in = [connector.template_folder(), Path(__file__).resolve().parent.parent / "templates"]
        self._folders = [self._override, *built_in] if self._override else built_in
        self._text = sandbox(self._folders, self._zone)
        self._html = sandbox(self._folders, self._zone, autoescape=True)
        self._fields: Mapping[str, FieldValue] = settings.fields if isinstance(settings, PsaSettings) else {}
        self._compiled_fields: dict[str, Template | _Failure] = {
            name: self._compile_field(name, value)
            for name, value in self._fields.items()
            if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))
        }

    def render(self, given: RenderInput, *, plain: bool = False) -> Rendered:
        """The ticket; `plain` uses no template. Outcomes pass through: a connector may have to ask for its limits."""
        view = self._view(given)
        problems: list[str] = []
        texts: dict[str, str] = {}
        for part in self._connector.parts():
            text = ""
            if not plain:
                try:
                    text = self._render_part(part, view)
                except _Failure as failure:
                    problems.append(f"connector {self._connector.name}: {failure}; the plain rendering took its place")
            text = text or _finished(plain_part(part.name, view, self._zone, part.limit), part)
            texts[part.name] = _within_limit(text, part, view.reference)
        fields = self._render_fields(view, problems, plain)
        return Rendered(self._ticket(given, view, texts, fields), tuple(problems))

    def check(self) -> list[Finding]:
        """Renders every template on every sample, strictly, and looks for override files that nothing uses."""
        try:
            parts = list(self._connector.parts())
        except Outcome as outcome:
            return [Finding("templates", f"cannot be tried: {outcome}")]
        findings = [Finding("templates", problem) for problem in self._unused(parts)]
        failures: dict[str, Finding] = {}  # by place: the same mistake reads differently on another sample
        for given in samples():
            view = self._view(given)
            for part in parts:
                try:
                    self._render_part(part, view)
                except _Failure as failure:
                    failures.setdefault(failure.where, Finding("templates", str(failure)))
            for name in self._compiled_fields:
                try:
                    self._render_field(name, view)
                except _Failure as failure:
                    failures.setdefault(failure.where, Finding(f"fields.{name}", str(failure)))
        return findings + list(failures.values())

    def files(self) -> list[TemplateFile]:
        """The files in use by part, with those they include. The connector's outcomes pass through."""
        found = [
            TemplateFile(part.name, path, self._override is not None and path.is_relative_to(self._override))
            for part in self._connector.parts()
            for path in self._used(part.file)
        ]
        return list(dict.fromkeys(found))

    # Templates.

    def _render_part(self, part: TemplatePart, view: TicketView) -> str:
        environment = self._html if part.name == "html" else self._text
        what = f"template {self._where(part.file)}"
        text = self._run(lambda: environment.get_template(part.file), view, part.limit, what)
        text = _finished(text, part)
        if not text:
            raise _Failure(what, "it rendered nothing")
        if part.name == "html" and part.limit is not None and size(text) > part.limit:
            raise _Failure(what, f"{size(text):,} characters where {part.limit:,} fit")
        return text

    def _run(self, template: Callable[[], Template], view: TicketView, limit: int | None, what: str) -> str:
        pieces, length = [], 0
        try:
            for piece in template().generate(**view.variables(), limit=limit):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_OUTPUT:
                    raise _Failure(what, f"it produces more than {MAX_OUTPUT:,} characters")
        except _Failure:
            raise
        except Exception as error:  # a template may raise anything
            raise self._failure(error, what) from error
        return "".join(pieces)

    def _failure(self, error: Exception, what: str) -> _Failure:
        where = what
        file, line = _origin(error, self._folders)
        if file:
            where = f"template {file}"
        if line:
            where += f", line {line}"
        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        message = error.message if isinstance(error, TemplateSyntaxError) else str(error)
        return _Failure(where, kind + shorten(one_line(message or "no reason given"), 300))

    def _compile_field(self, name: str, value: FieldValue) -> Template | _Failure:
        try:
            return self._text.from_string(str(value))
        except TemplateError as error:
            return self._failure(error, f"fields.{name}")

    def _render_field(self, name: str, view: TicketView) -> str:
        compiled = self._compiled_fields[name]
        if isinstance(compiled, _Failure):
            raise compiled
        return clean(self._run(lambda: compiled, view, None, f"fields.{name}")).strip()

    def _render_fields(self, view: TicketView, problems: list[str], plain: bool) -> dict[str, FieldValue]:
        fields: dict[str, FieldValue] = {}
        for name, value in self._fields.items():
            if name not in self._compiled_fields:
                fields[name] = value
                continue
            try:
                if plain:
                    raise _Failure(f"fields.{name}", "the plain rendering uses no templates")
                fields[name] = self._render_field(name, view)
            except _Failure as failure:
                problems.append(f"connector {self._connector.name}: {failure}; the field was left out")
        return fields

    def _view(self, given: RenderInput) -> TicketView:
        return make_view(
            report=given.report,
            reference=given.reference,
            organization=given.organization,
            agent=given.agent,
            account=given.account,
            company=given.company,
            portal_pattern=self._portal_pattern,
        )

    def _ticket(
        self, given: RenderInput, view: TicketView, texts: Mapping[str, str], fields: Mapping[str, FieldValue]
    ) -> Ticket:
        return Ticket(
            reference=given.reference,
            report_id=given.report.id,
            title=texts.get("title", ""),
            text=texts.get("text", ""),
            notice=texts.get("notice", ""),
            html=texts.get("html", ""),
            severity=view.severity,
            source_severity=view.report.severity,
            organization=view.organization if given.organization else None,
            agent=view.agent if given.agent else None,
            company=given.company,
            fields=fields,
            recipients=given.recipients,
        )

    # Files.

    def _where(self, name: str) -> str:
        return str(next((folder / name for folder in self._folders if (folder / name).is_file()), name))

    def _used(self, name: str, seen: tuple[str, ...] = ()) -> Iterator[Path]:
        path = Path(self._where(name))
        yield path
        try:
            referenced = meta.find_referenced_templates(self._text.parse(path.read_text("utf-8")))
            for other in referenced:
                if other and other not in (name, *seen):
                    yield from self._used(other, (name, *seen))
        except (OSError, UnicodeDecodeError, TemplateError):
            return  # said by `check`

    def _unused(self, parts: list[TemplatePart]) -> Iterator[str]:
        if self._override is None:
            return
        if not self._override.is_dir():
            yield f"{self._override} is not a folder; without it the built-in templates are used"
            return
        files = [part.file for part in parts]
        used = {path for name in files for path in self._used(name)}
        for path in sorted(self._override.glob("*.j2")):
            if path not in used:
                near = difflib.get_close_matches(path.name, files, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the parts are {', '.join(files)}"
                yield f"{path} is used by no part of a ticket; {hint}"


def samples() -> Iterator[RenderInput]:
    """The demo's samples, each with everything known and with nothing known beside the report."""
    from bridge.demo import scenario
    from bridge.models import Company, CompanySource
    from bridge.parsing import parse_account, parse_agent, parse_organization, parse_report

    organization = parse_organization(scenario.SAMPLE_ORGANIZATION)
    agent = parse_agent(scenario.SAMPLE_AGENT)
    account = parse_account(scenario.ACCOUNT)
    company = CompanyMatch(Company("1", "Catchall"), CompanySource.CATCH_ALL, "no company has its name")
    for raw in scenario.SAMPLES.values():
        report = parse_report(raw)
        reference = f"huntress-{account.id}-{report.id}"
        alone = RenderInput(report, reference, None, None, None, None)
        yield replace(
            alone,
            organization=organization if report.organization_id else None,
            agent=agent if report.agent_id else None,
            account=account,
            company=company,
        )
        yield alone


def _origin(error: Exception, folders: list[Path]) -> tuple[str, int | None]:
    """The template file and line where `error` arose; no file for text that comes from the configuration."""
    if isinstance(error, TemplateSyntaxError):
        return error.filename or "", error.lineno
    found: tuple[str, int | None] = ("", None)
    trace = error.__traceback__
    while trace is not None:  # Jinja rewrites the frames so that they point into its templates
        name = trace.tb_frame.f_code.co_filename
        if name == "<template>":
            found = ("", trace.tb_lineno)
        elif any(Path(name).is_relative_to(folder) for folder in folders):
            found = (name, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _given(value: Any) -> str:
    """`value` on one line, or "not given". A ` * ` in it cannot pass for the start of a field once lines are joined."""
    if isinstance(value, tuple | list):
        value = ", ".join(str(each) for each in value)
    text = shorten(one_line("" if value is None else str(value)), 1000)
    return re.sub(r"(?<!\S)\*(?!\S)", "∗", text) or NOT_GIVEN


def _finished(text: str, part: TemplatePart) -> str:
    if part.single_line:
        return one_line(text)
    return "\n".join(line.rstrip() for line in clean(text).split("\n")).strip("\n")


def _within_limit(text: str, part: TemplatePart, reference: str) -> str:
    if part.limit is None or size(text) <= part.limit:
        return text
    if not part.single_line:
        return fit(text, part.limit)
    tail = f" [{reference}]"
    if text.endswith(tail) and part.limit > size(tail):
        return shorten(text.removesuffix(tail), part.limit - size(tail)) + tail
    return shorten(text, part.limit)
