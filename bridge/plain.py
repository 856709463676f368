"""The built-in plain rendering: goes out when a template fails, so it is Python, and short, and cannot fail."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from zoneinfo import ZoneInfo

from bridge.models import Kind
from bridge.note_view import NoteView
from bridge.text import fit, no_bullets, prose, quoted, size
from bridge.ticket_view import NOT_GIVEN, TicketView, local

_NOTICES = {
    Kind.INCIDENT_REPORT: "Security incident report",
    Kind.ESCALATION: "Security escalation",
    Kind.PLATFORM_ACTION: "Platform notice",
}
#: Most characters of the report's own text, in a ticket and in a note.
_FREE_TEXT = 120_000
_FREE_NOTE = 25_000
#: Most organizations that are named.
_ORGANIZATIONS = 50


def plain_part(part: str, view: TicketView, zone: ZoneInfo, limit: int | None) -> str:
    """The text of one part of a ticket, `title`, `text`, `notice` or `html`."""
    if part == "title":
        marks = "".join(f" [{mark}]" for mark in view.marks)
        return f"{view.subject}{marks} [{view.reference}]"
    if part == "notice":
        return f"{_NOTICES[view.report.kind]} {view.report.id} from Huntress."
    if part == "html":
        return _html(plain_text(view, zone), limit)
    return plain_text(view, zone)


def plain_text(view: TicketView, zone: ZoneInfo) -> str:
    lines = _lines if view.report.kind is Kind.INCIDENT_REPORT else _further_lines
    return "\n".join(lines(view, zone))


def _further_lines(view: TicketView, zone: ZoneInfo) -> Iterator[str]:
    """An escalation or platform action."""
    report = view.report
    yield f"Huntress {report.kind.replace('_', ' ')} {report.id}: {view.subject}"
    if view.broken_integration:
        yield "* Huntress says that it cannot send incident reports to a ticket system by itself."
    yield f"* Type: {report.type or NOT_GIVEN}" + (f" ({report.subtype})" if report.subtype else "")
    said = report.given_severity or (report.severity or NOT_GIVEN if view.marks else "")
    yield f"* Severity: {view.severity}" + (f" (Huntress says: {said})" if said else "")
    yield f"* Status at Huntress: {report.status or NOT_GIVEN}"
    yield f"* Opened: {local(report.since, zone)}"
    yield f"* Organizations: {', '.join(view.organizations[:_ORGANIZATIONS]) or 'the whole account'}"
    more = len(view.organizations) - _ORGANIZATIONS
    if more > 0:
        yield f"* Organizations: {more} more in the Huntress portal"
    if view.company and view.company.catch_all:
        yield f"* Filed under the catch-all {view.company.name}"
    yield "* What to do: open it in the Huntress portal and resolve it there."
    yield f"* Reference: {view.reference}"
    if report.summary:
        yield '* What it concerns follows, every line of it after a ">":'
        yield quoted(fit(prose(report.summary), _FREE_TEXT))


def plain_note(view: TicketView, note: NoteView) -> str:
    """The text of a note."""
    return "\n".join(_note_lines(view, note))


def _note_lines(view: TicketView, note: NoteView) -> Iterator[str]:
    yield f"Huntress incident report {view.report.id}: {note.headline}"
    for change in note.changes:
        both = " -> ".join(filter(None, (change.before, change.after)))
        yield f"* {no_bullets(f'{change.what}: {both}')}"
    yield f"* Status at Huntress: {no_bullets(view.report.status) or NOT_GIVEN}"
    if note.fate:
        yield f"* Ticket: {no_bullets(note.fate)}"
    if note.other:
        yield f"* New ticket: {no_bullets(note.other.number or note.other.id)} {no_bullets(note.other.url)}".rstrip()
    yield f"* URL: {view.portal_url or NOT_GIVEN}"
    free = prose(note.comment)
    if note.text_changed:
        free = "\n\n".join(filter(None, (free, prose(view.report.summary), prose(view.report.body))))
    if free:
        yield '* What Huntress writes follows, every line of it after a ">":'
        yield quoted(fit(free, _FREE_NOTE))


def _lines(view: TicketView, zone: ZoneInfo) -> Iterator[str]:
    report, organization, agent = view.report, view.organization, view.agent
    if view.company and view.company.catch_all:
        company = view.company
        yield f"Organization: {_named(organization)}; filed under the catch-all {company.name}: {company.reason}"
    yield f"Huntress incident report {report.id}: {view.subject}"
    yield f"* Severity: {view.severity}" + (f" (Huntress says: {report.severity or NOT_GIVEN})" if view.marks else "")
    yield f"* Status at Huntress: {report.status or NOT_GIVEN}"
    yield f"* Sent: {local(report.since, zone)}"
    yield f"* Organization: {_named(organization)}"
    yield f"* Host: {agent.hostname or NOT_GIVEN} (agent {agent.id})" if agent else f"* Host: {NOT_GIVEN}"
    if agent:
        addresses = ", ".join(filter(None, (agent.ipv4_address, agent.external_ip)))
        yield f"* System: {agent.os or NOT_GIVEN}"
        yield f"* Addresses: {addresses or NOT_GIVEN}"
        yield f"* Serial number: {agent.serial_number or NOT_GIVEN}"
        yield f"* Firewall or isolation state: {agent.firewall_status or NOT_GIVEN}"
    yield f"* Indicators: {', '.join(view.indicators) or NOT_GIVEN}"
    for number, each in enumerate(report.remediations, 1):
        parameters = ", ".join(f'{name} "{value}"'.strip() for name, value in each.parameters)
        yield (
            f"* Asked for, {number}: {each.action or NOT_GIVEN} ({each.type or 'type not given'}), "
            f"state {each.status or NOT_GIVEN}{': ' if parameters else ''}{parameters}"
        )
    more = report.remediations_total - len(report.remediations)
    if more > 0:
        yield f"* Asked for: {more} more in the Huntress portal"
    yield f"* URL: {view.portal_url or NOT_GIVEN}"
    yield f"* Reference: {view.reference}"
    if view.former:
        yield f"* Former ticket: {view.former.number or view.former.id} {view.former.url}".rstrip()
    free = "\n\n".join(filter(None, (prose(report.summary), prose(report.body))))
    if free:
        yield '* The report\'s own text follows, every line of it after a ">":'
        yield quoted(fit(free, _FREE_TEXT))


def _named(organization: object) -> str:
    name, number = getattr(organization, "name", ""), getattr(organization, "id", None)
    return f"{name or NOT_GIVEN} (id {number})" if number is not None else NOT_GIVEN


def _html(text: str, limit: int | None) -> str:
    room = len(text)
    while True:
        document = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Huntress</title></head><body>'
            f'<div style="white-space:pre-wrap;font-family:sans-serif">{escape(fit(text, room))}</div></body></html>'
        )
        if limit is None or size(document) <= limit or room < 2:
            return document
        room //= 2
