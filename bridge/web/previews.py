"""The page Templates: what a report would be in a connector, beside the templates that say so."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, request

from bridge.demo import scenario
from bridge.models import CompanySource, IncidentReport, Kind, report_key
from bridge.news import NoteKind
from bridge.parsing import parse_escalation, parse_report
from bridge.preview import SAMPLE_ACCOUNT, Known, Rehearsal, rehearse, report_from
from bridge.runtime import Runtime
from bridge.settings import ConfigurationError
from bridge.text import one_line, shorten, visible
from bridge.web.delivery_filter import Filter
from bridge.web.site import Site
from bridge.web.template_sources import sources
from connectors.base import ConnectorSettings, Outcome, PsaSettings

#: Previews that are made at the same time.
AT_ONCE = 2
#: Reports that are suggested, of those that changed last.
SUGGESTED = 20
#: The built-in samples by name, with the words for them.
SAMPLES = {
    "full": "an incident with everything",
    "minimal": "an incident with as little as Huntress may say",
    "hostile": "an incident that attacks",
    "identity": "an incident of an identity, without a host",
    "escalation": "an escalation",
    "platform_action": "a platform action: Huntress cannot send tickets",
}
#: What may be previewed, with the words for it.
WRITTEN = {
    "ticket": "the ticket",
    NoteKind.UPDATE.value: "the note on an update",
    NoteKind.ENDED.value: "the note at the end",
    NoteKind.REOPENED.value: "the note when it is open again",
    NoteKind.CONTINUED.value: "the note when a new ticket continues it",
    NoteKind.COMMENT.value: "the note with a comment from Huntress",
}


class NoReport(Exception):
    """There is nothing to preview. `str()` is a sentence; `status` is what the page answers with."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Subject:
    """The report to preview, and what is known beside it."""

    report: IncidentReport
    known: Known


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person chose."""

    connector: str
    what: str
    sample: str
    #: Id of a stored report; '' for a sample.
    stored: str = ""
    pasted: str = ""
    kind: str = ""


def sample(name: str) -> Subject:
    if name in scenario.SAMPLES:
        report = parse_report(scenario.SAMPLES[name])
    else:
        raw = next(raw for kind, raw in scenario.FURTHER_SAMPLES if kind == name)
        report = parse_escalation(raw, Kind(name))
    return Subject(report, Known.sample(report))


def stored(runtime: Runtime, text: str) -> Subject:
    """A report of the store, with what the processes know of its organization and agent. Raises `NoReport`."""
    try:
        report = runtime.store.report(report_key(text))
    except ValueError as error:
        raise NoReport(f"{error}.", 400) from None
    if report is None:
        raise NoReport(f"No report {text} is in the store. One that Huntress no longer lists may have left it.", 404)
    books = runtime.books
    organization = None if report.organization_id is None else books.organization(report.organization_id)
    agent = None if report.agent_id is None else books.agent(report.agent_id)
    return Subject(report, Known(organization, agent, runtime.account() or SAMPLE_ACCOUNT))


def pasted(text: str, kind: str) -> Subject:
    """A report as JSON. Raises `NoReport`."""
    if not text.strip():
        raise NoReport("Nothing was pasted. Paste the JSON of one report.", 422)
    try:
        report = report_from(text.encode("utf-8", "surrogatepass"), Kind(kind) if kind in set(Kind) else None)
    except ValueError as error:
        raise NoReport(f"What was pasted cannot be read: {error}", 422) from None
    return Subject(report, Known.sample(report))


def facts(settings: ConnectorSettings, rehearsal: Rehearsal) -> list[tuple[str, str]]:
    """What the ticket would carry beside its texts."""
    ticket = rehearsal.rendered.ticket
    found = [("Reference", ticket.reference), ("Severity", ticket.severity)]
    if isinstance(settings, PsaSettings):
        priority = settings.priority_for(ticket.source_severity)
        found.append(("Priority", "the ticket system's own default" if priority is None else str(priority)))
        found.append(("Company", _company(rehearsal)))
        found.append(("Visibility", settings.visibility))
    if ticket.recipients:
        found.append(("Recipients", ", ".join(ticket.recipients)))
    return found + [(f"Field {name}", str(value)) for name, value in ticket.fields.items()]


def _company(rehearsal: Rehearsal) -> str:
    match = rehearsal.rendered.ticket.company
    if match is not None and match.source is CompanySource.FILE:
        return f"{match.company.name or match.company.id}, from the organizations file"
    return "the one of the organization's name, else default_company; the ticket system is asked when a ticket is made"


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("previews", __name__)
    room = threading.BoundedSemaphore(AT_ONCE)

    def suggested() -> list[tuple[str, str]]:
        """Ids and subjects of reports that changed lately."""
        site.index.look()
        pairs = site.index.page(Filter(), SUGGESTED, named={}).pairs
        first = {report_id: (report_id, connector) for report_id, connector in reversed(pairs)}
        found = site.runtime.store.read_deliveries(list(first.values())[::-1])
        return [(str(each.report_id), shorten(one_line(each.subject), 80)) for each in found]

    def page(asked: Asked, subject: Subject | None, problem: str = "", status: int = 200) -> tuple[str, int]:
        rehearsal: Rehearsal | None = None
        if subject is not None:
            # Templates may take seconds, and the page has few threads.
            if not room.acquire(blocking=False):
                return page(asked, None, "Other previews are being made just now; try again in a few seconds.", 503)
            try:
                note = None if asked.what == "ticket" else NoteKind(asked.what)
                rehearsal = rehearse(
                    site.runtime.settings, asked.connector, subject.report, known=subject.known, note=note
                )
            except (Outcome, ConfigurationError) as error:
                problem, status = f"This cannot be previewed now: {error}", 503
            finally:
                room.release()
        more: dict[str, Any] = {}
        if rehearsal is not None:
            ticket, note_written = rehearsal.rendered.ticket, rehearsal.note
            problems = rehearsal.rendered.problems
            more = {
                "texts": [("Title", note_written.title), ("Text", note_written.text)]
                if note_written
                else [(name, text) for name, text in _texts(ticket.title, ticket.text, ticket.notice) if text],
                "markup": "" if note_written else visible(ticket.html),
                "facts": facts(site.runtime.settings.connectors[asked.connector], rehearsal),
                "problems": problems,
                "sources": sources(rehearsal.files, problems),
            }
        return (
            render_template(
                "previews.html",
                asked=asked,
                connectors=list(site.runtime.services),
                samples=SAMPLES,
                written=WRITTEN,
                kinds=list(Kind),
                suggested=suggested(),
                problem=problem,
                shown=rehearsal is not None,
                **more,
            ),
            status,
        )

    def asked() -> Asked:
        """The choice, from the address or the form; what makes no sense is the first there is."""
        given, names = request.values, list(site.runtime.services)
        connector, what, name = given.get("connector", ""), given.get("what", ""), given.get("sample", "")
        return Asked(
            connector=connector if connector in names else next(iter(names), ""),
            what=what if what in WRITTEN else "ticket",
            sample=name if name in SAMPLES else "full",
            stored=given.get("report", "").strip()[:40],
            pasted=request.form.get("json", ""),
            kind=request.form.get("kind", ""),
        )

    @pages.get("/templates")
    def show() -> tuple[str, int]:
        chosen = asked()
        if not chosen.connector:
            return page(chosen, None)
        try:
            return page(chosen, stored(site.runtime, chosen.stored) if chosen.stored else sample(chosen.sample))
        except NoReport as error:
            return page(chosen, None, str(error), error.status)

    @pages.post("/templates")
    def show_pasted() -> tuple[str, int]:
        chosen = asked()
        if not chosen.connector:
            return page(chosen, None)
        try:
            return page(chosen, pasted(chosen.pasted, chosen.kind))
        except NoReport as error:
            return page(chosen, None, str(error), error.status)

    return pages


def _texts(title: str, text: str, notice: str) -> list[tuple[str, str]]:
    return [("Title", title), ("Text", text), ("Notice, where a customer's contact may read it", notice)]
