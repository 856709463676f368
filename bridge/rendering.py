"""From a report to a `Ticket`: Jinja templates in a sandbox, and the plain rendering for each one that fails.

Templates are the operator's; report data comes in only as variables (`bridge.ticket_view`) and is never compiled. They
are searched in the connector's override folder, in the connector's own folder, and then in `templates/`, so that
`_shared/incident.j2` is one file for all, can be replaced like any other, and an override of `text.j2` can still
`{% extends "connectwise/text.j2" %}`. What they may use and take is said in `bridge.sandbox`, which runs them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from zoneinfo import ZoneInfo

from jinja2 import Environment, TemplateError, meta

from bridge.models import Account, Agent, CompanyMatch, IncidentReport, Organization, Ticket
from bridge.plain import plain_part
from bridge.render_guard import GUARD, RenderGuard, TicketRendering
from bridge.sandbox import Job, TemplateFailure, Templates
from bridge.text import clean, fit, one_line, shorten, size
from bridge.ticket_view import TicketView, make_view
from connectors.base import Connector, ConnectorSettings, Finding, Outcome, PsaSettings, TemplatePart

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


#: Numbers the renderers of this process.
_editions = count()
#: Finds what a template includes; renders nothing.
_PARSER = Environment(autoescape=True)


class Renderer:
    """Renders tickets for one connector. Shared by threads; keeps compiled templates until it is made anew."""

    def __init__(
        self,
        connector: Connector,
        settings: ConnectorSettings,
        *,
        timezone: str,
        portal_url: str,
        guard: RenderGuard = GUARD,
    ) -> None:
        self._connector = connector
        self._zone = ZoneInfo(timezone)
        self._portal_pattern = portal_url
        self._guard = guard
        self._override = Path(settings.templates).resolve() if settings.templates else None
        built_in = (connector.template_folder(), Path(__file__).resolve().parent.parent / "templates")
        self._folders = (self._override, *built_in) if self._override else built_in
        self._templates = Templates(self._folders, timezone, next(_editions))
        self._fields: Mapping[str, FieldValue] = settings.fields if isinstance(settings, PsaSettings) else {}
        self._template_fields = {
            name: value
            for name, value in self._fields.items()
            if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))
        }

    def render(self, given: RenderInput, *, plain: bool = False) -> Rendered:
        """The ticket; `plain` uses no template.

        Outcomes pass through: a connector may have to ask for its limits, and too many slow renderings be under way.
        """
        view = self._view(given)
        problems: list[str] = []
        texts: dict[str, str] = {}
        parts = self._connector.parts()
        with nullcontext() if plain else self._guard.ticket() as rendering:
            for part in parts:
                text = ""
                if rendering is not None:
                    try:
                        text = self._render_part(part, rendering, view)
                    except TemplateFailure as failure:
                        problems.append(
                            f"connector {self._connector.name}: {failure}; the plain rendering took its place"
                        )
                text = text or _finished(plain_part(part.name, view, self._zone, part.limit), part)
                texts[part.name] = _within_limit(text, part, view.reference)
            fields = self._render_fields(rendering, view, problems)
        return Rendered(self._ticket(given, view, texts, fields), tuple(problems))

    def check(self) -> list[Finding]:
        """Renders every template on every sample, strictly, and looks for override files that nothing uses."""
        try:
            parts = list(self._connector.parts())
        except Outcome as outcome:
            return [Finding("templates", f"cannot be tried: {outcome}")]
        findings = [Finding("templates", problem) for problem in self._unused(parts)]
        failures: dict[str, Finding] = {}  # by place: the same mistake reads differently on another sample
        attempts: list[tuple[str, Callable[[TicketRendering, TicketView], str]]] = [
            *(("templates", partial(self._render_part, part)) for part in parts),
            *((f"fields.{name}", partial(self._render_field, name)) for name in self._template_fields),
        ]
        for given in samples():
            view = self._view(given)
            with self._guard.ticket() as rendering:
                for attempt in list(attempts):
                    setting, render = attempt
                    try:
                        render(rendering, view)
                    except TemplateFailure as failure:
                        failures.setdefault(failure.where, Finding(setting, str(failure)))
                        if failure.overdue:  # it is not tried on every sample
                            attempts.remove(attempt)
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

    def _render_part(self, part: TemplatePart, rendering: TicketRendering, view: TicketView) -> str:
        html = part.name == "html"
        what = f"template {self._where(part.file)}"
        job = Job(self._templates, view, what, file=part.file, html=html, limit=part.limit)
        text = _finished(rendering.render(job), part)
        if not text:
            raise TemplateFailure(what, "it rendered nothing")
        if html and part.limit is not None and size(text) > part.limit:
            raise TemplateFailure(what, f"{size(text):,} characters where {part.limit:,} fit")
        return text

    def _render_field(self, name: str, rendering: TicketRendering, view: TicketView) -> str:
        job = Job(self._templates, view, f"fields.{name}", source=self._template_fields[name])
        return clean(rendering.render(job)).strip()

    def _render_fields(
        self, rendering: TicketRendering | None, view: TicketView, problems: list[str]
    ) -> dict[str, FieldValue]:
        fields: dict[str, FieldValue] = {}
        for name, value in self._fields.items():
            if name not in self._template_fields:
                fields[name] = value
                continue
            try:
                if rendering is None:
                    raise TemplateFailure(f"fields.{name}", "the plain rendering uses no templates")
                fields[name] = self._render_field(name, rendering, view)
            except TemplateFailure as failure:
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
            report_id=given.report.key,
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
            referenced = meta.find_referenced_templates(_PARSER.parse(path.read_text("utf-8")))
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
    from bridge.models import Company, CompanySource, Kind
    from bridge.parsing import parse_account, parse_agent, parse_escalation, parse_organization, parse_report

    organization = parse_organization(scenario.SAMPLE_ORGANIZATION)
    agent = parse_agent(scenario.SAMPLE_AGENT)
    account = parse_account(scenario.ACCOUNT)
    company = CompanyMatch(Company("1", "Catchall"), CompanySource.CATCH_ALL, "no company has its name")
    incidents = map(parse_report, scenario.SAMPLES.values())
    further = (parse_escalation(raw, Kind(kind)) for kind, raw in scenario.FURTHER_SAMPLES)
    for report in (*incidents, *further):
        reference = f"huntress-{account.id}-{report.key}"
        alone = RenderInput(report, reference, None, None, None, None)
        yield replace(
            alone,
            organization=organization if report.organization_id else None,
            agent=agent if report.agent_id else None,
            account=account,
            company=company,
        )
        yield alone


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
