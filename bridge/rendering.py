"""From a report to a `Ticket` or a `Note`: Jinja templates in a sandbox, and the plain rendering for each that fails.

Templates are the operator's; report data comes in only as variables (`bridge.ticket_view`, `bridge.note_view`) and is
never compiled. They are searched in the connector's override folder, in the connector's own folder, and then in
`templates/`, so that `_shared/incident.j2` is one file for all, can be replaced like any other, and an override of
`text.j2` can still `{% extends "connectwise/text.j2" %}`. The template of a note is `<kind>.j2`, else
`_shared/<kind>.j2`. What templates may use and take is said in `bridge.sandbox`, which runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from zoneinfo import ZoneInfo

from bridge.models import Account, Agent, CompanyMatch, IncidentReport, Note, Organization, Ticket, TicketRef
from bridge.news import News, NoteKind
from bridge.note_view import NoteView, make_note_view, sample_notes
from bridge.plain import plain_note, plain_part
from bridge.render_guard import GUARD, RenderGuard, TicketRendering
from bridge.sandbox import Job, TemplateFailure, Templates
from bridge.template_files import TemplateFile, TemplateFiles
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
    #: The ticket that this one follows upon, when the report was opened again after its end.
    former: TicketRef | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A ticket, and one sentence for each template that failed and was replaced by the plain rendering."""

    ticket: Ticket
    problems: tuple[str, ...] = ()


#: Numbers the renderers of this process.
_editions = count()
#: Characters of a note's text; Autotask takes 32,000 and needs some for the marker.
NOTE_LIMIT = 30_000


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
        self._files = TemplateFiles(settings.templates, connector.template_folder())
        self._templates = Templates(self._files.folders, timezone, next(_editions))
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
            if rendering is not None:
                rendering.ahead([self._job(part, view) for part in parts])
            for part in parts:
                texts[part.name] = self._part(part, rendering, view, problems)
            fields = self._render_fields(rendering, view, problems)
        return Rendered(self._ticket(given, view, texts, fields), tuple(problems))

    def note(
        self,
        kind: NoteKind,
        given: RenderInput,
        *,
        key: str,
        news: News | None = None,
        fate: str = "",
        other: TicketRef | None = None,
        comment: str = "",
        plain: bool = False,
    ) -> tuple[Note, tuple[str, ...]]:
        """A note on the report's ticket, and one sentence for each template that failed, as in `Rendered`.

        `fate`: what becomes of the ticket, as a sentence. `other`: the ticket that continues it. `plain` uses no
        template. Outcomes pass through.
        """
        view = self._view(given)
        about = make_note_view(kind, view, news=news, fate=fate, other=other, comment=comment)
        problems: list[str] = []
        replies = self._connector.notes_are_replies
        subject = next((part for part in self._connector.parts() if part.name == "title"), None) if replies else None
        with nullcontext() if plain else self._guard.ticket() as rendering:
            text = self._part(self._note_part(kind), rendering, view, problems, about)
            title = f"Re: {self._part(subject, rendering, view, problems)}" if subject else about.headline
        # A text that quotes a marker must not pass for the note with that marker.
        text = text.replace(f"[{given.reference}/", f"[{given.reference} /")
        return Note(key, title, text, given.recipients), tuple(problems)

    def check(self) -> list[Finding]:
        """Renders every template on every sample, strictly, and looks for override files that nothing uses."""
        try:
            parts = list(self._connector.parts())
        except Outcome as outcome:
            return [Finding("templates", f"cannot be tried: {outcome}")]
        parts_of_notes = [(kind, self._note_part(kind)) for kind in NoteKind]
        names = [part.file for part in (*parts, *(part for _, part in parts_of_notes))]
        findings = [Finding("templates", problem) for problem in self._files.unused(names)]
        failures: dict[str, Finding] = {}  # by place: the same mistake reads differently on another sample
        attempts: list[tuple[str, Callable[[TicketRendering, TicketView], str]]] = [
            *(("templates", partial(self._render_part, part)) for part in parts),
            *(("templates", partial(self._render_sample_notes, kind, part)) for kind, part in parts_of_notes),
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
        """The files in use by part and kind of note, with those they include. The connector's outcomes pass through."""
        parts = [*self._connector.parts(), *(self._note_part(kind) for kind in NoteKind)]
        return list(dict.fromkeys(file for part in parts for file in self._files.of(part.name, part.file)))

    # Templates.

    def _note_part(self, kind: NoteKind) -> TemplatePart:
        own = f"{kind}.j2"
        return TemplatePart(f"{kind} note", own if self._files.has(own) else f"_shared/{own}", NOTE_LIMIT)

    def _part(
        self,
        part: TemplatePart,
        rendering: TicketRendering | None,
        view: TicketView,
        problems: list[str],
        note: NoteView | None = None,
    ) -> str:
        """The text of a part, or of a note; from no template when there is no `rendering`, or the template fails."""
        text = ""
        if rendering is not None:
            try:
                text = self._render_part(part, rendering, view, note)
            except TemplateFailure as failure:
                problems.append(f"connector {self._connector.name}: {failure}; the plain rendering took its place")
        if not text:
            plain = plain_note(view, note) if note else plain_part(part.name, view, self._zone, part.limit)
            text = _finished(plain, part)
        return within_limit(text, part, view.reference)

    def _render_part(
        self, part: TemplatePart, rendering: TicketRendering, view: TicketView, note: NoteView | None = None
    ) -> str:
        job = self._job(part, view, note)
        text = _finished(rendering.render(job), part)
        if not text:
            raise TemplateFailure(job.what, "it rendered nothing")
        if job.html and part.limit is not None and size(text) > part.limit:
            raise TemplateFailure(job.what, f"{size(text):,} characters where {part.limit:,} fit")
        return text

    def _job(self, part: TemplatePart, view: TicketView, note: NoteView | None = None) -> Job:
        what = f"template {self._files.where(part.file)}"
        return Job(self._templates, view, what, file=part.file, html=part.name == "html", limit=part.limit, note=note)

    def _render_sample_notes(
        self, kind: NoteKind, part: TemplatePart, rendering: TicketRendering, view: TicketView
    ) -> str:
        return "\n".join(self._render_part(part, rendering, view, note) for note in sample_notes(kind, view))

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
            former=given.former,
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
            former=given.former,
        )


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
            former=TicketRef("41", "T-41", "https://tickets.example.com/41"),
        )
        yield alone


def _finished(text: str, part: TemplatePart) -> str:
    if part.single_line:
        return one_line(text)
    return "\n".join(line.rstrip() for line in clean(text).split("\n")).strip("\n")


def within_limit(text: str, part: TemplatePart, reference: str) -> str:
    """`text`, cut to what the part takes; a reference at the end of a single line stays there."""
    if part.limit is None or size(text) <= part.limit:
        return text
    if not part.single_line:
        return fit(text, part.limit)
    tail = f" [{reference}]"
    if text.endswith(tail) and part.limit > size(tail):
        return shorten(text.removesuffix(tail), part.limit - size(tail)) + tail
    return shorten(text, part.limit)
