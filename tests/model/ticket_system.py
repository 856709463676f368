"""A ticket system in memory, a connector to it, and stand-ins for what has no say in whether a ticket is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bridge.models import IncidentReport, Note, Organization, Ticket, TicketRef
from bridge.news import NoteKind
from bridge.rendering import Rendered, RenderInput
from connectors.base import (
    Connector,
    ConnectorContext,
    ConnectorSettings,
    Finding,
    Misconfigured,
    OutcomeUnknown,
    Progress,
    Rejected,
    TemplatePart,
    Unavailable,
)
from tests.model.model import SETTLE
from tests.model.steps import Clock, Turnstile

#: The one connector.
PSA = "psa"


@dataclass
class Made:
    """A ticket in the ticket system. Times are seconds by the world's clock."""

    id: int
    reference: str
    #: When a search shows it.
    visible_at: float
    #: When its worker last made sure of its lease before it sent the request.
    checked_at: float
    number: str = ""

    @property
    def late(self) -> bool:
        """It shows later than `settle` after it was sent: nothing is promised then but that the lower id is kept."""
        return self.visible_at > self.checked_at + SETTLE


class TicketSystem:
    """What the ticket system holds. Ids rise with the time a ticket is made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.tickets: list[Made] = []
        self.requests: list[tuple[str, str]] = []
        #: Creates that are carried out later: (when, reference, checked at).
        self.late: list[tuple[float, str, float]] = []
        #: Notes by ticket and key, and those that are added later: (when, ticket, key).
        self.notes: list[tuple[str, str]] = []
        self.late_notes: list[tuple[float, str, str]] = []
        #: The user may create but not search.
        self.blind = False
        #: Seconds until a search shows what was made.
        self.lag = 0.0

    def create(self, reference: str, checked_at: float, *, hidden: float = 0, at: float = 0) -> Made:
        visible_at = (at or self.clock.now) + max(self.lag, hidden)
        made = Made(len(self.tickets) + 1, reference, visible_at, checked_at)
        self.tickets.append(made)
        return made

    def find(self, reference: str) -> list[Made]:
        if self.blind:
            return []
        return [made for made in self.tickets if made.reference == reference and made.visible_at <= self.clock.now]

    def catch_up(self) -> None:
        """Carries out what comes late and whose time has come."""
        now = self.clock.now
        for _, ticket, key in sorted(each for each in self.late_notes if each[0] <= now):
            self.notes.append((ticket, key))
        self.late_notes = [each for each in self.late_notes if each[0] > now]
        for at, reference, checked_at in sorted(each for each in self.late if each[0] <= now):
            self.create(reference, checked_at, at=at)
        self.late = [each for each in self.late if each[0] > now]


class PretendConnector(Connector):
    """A worker's way to the ticket system: each request is a step, and so is the way of a create's answer."""

    type = "pretend"
    settings_class = ConnectorSettings

    def __init__(self, system: TicketSystem, step: Turnstile, context: ConnectorContext) -> None:
        super().__init__(PSA, None, context)
        self.tickets = system
        self.step = step

    def parts(self) -> Sequence[TemplatePart]:
        return []

    def system(self) -> str:
        return "pretend"

    def _request(self, what: str, about: str = "") -> str:
        """One request; returns a fault that is the caller's own business."""
        self.context.before_request()
        fault = self.step(what)
        self.tickets.requests.append((what, about))
        match fault:
            case "refused":
                raise Unavailable("connection refused")
            case "time-out":
                raise OutcomeUnknown("no answer in time")
            case "misconfigured":
                raise Misconfigured("no such board")
        return fault

    def check(self) -> list[Finding]:
        self._request("check")
        return []

    def find(self, reference: str) -> list[TicketRef]:
        self._request("find", reference)
        found = self.tickets.find(reference)
        self.step("answer")
        return [TicketRef(str(made.id), made.number) for made in found]

    def prepare(self, ticket: Ticket) -> str:
        return ticket.reference

    def create(self, prepared: str, progress: Progress) -> TicketRef:
        system, checked_at = self.tickets, self.tickets.clock.now
        fault, _, seconds = self._request("create", prepared).partition(" ")
        match fault:
            case "rejected":
                raise Rejected("not this one")
            case "late":
                system.late.append((system.clock.now + float(seconds), prepared, checked_at))
                self.step("answer")
                raise OutcomeUnknown("no answer in time")
        made = system.create(prepared, checked_at, hidden=float(seconds) if fault == "hidden" else 0)
        self.step("answer")
        if fault == "answer":
            raise OutcomeUnknown("no answer in time")
        return TicketRef(str(made.id))

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        self._request("complete", ref.id)
        self.tickets.tickets[int(ref.id) - 1].number = f"T{ref.id}"
        return replace(ref, number=f"T{ref.id}")

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        fault, _, seconds = self._request("note", ref.id).partition(" ")
        self.context.before_send()
        if (ref.id, note.key) in self.tickets.notes:
            return
        if fault == "late":
            self.tickets.late_notes.append((self.tickets.clock.now + float(seconds), ref.id, note.key))
        else:
            self.tickets.notes.append((ref.id, note.key))
        if fault:
            raise OutcomeUnknown("no answer in time")

    def has_note(self, ref: TicketRef, reference: str, key: str) -> bool:
        self._request("has_note", ref.id)
        return (ref.id, key) in self.tickets.notes


class PlainRenderer:
    """In the place of `Renderer`: what a ticket says is nothing to this."""

    def render(self, given: RenderInput, *, plain: bool = False) -> Rendered:
        return Rendered(Ticket(given.reference, given.report.id, "title", "text", "notice"))

    def note(self, kind: NoteKind, given: RenderInput, *, key: str, **_: object) -> tuple[Note, tuple[str, ...]]:
        return Note(key, kind, "text"), ()


class NoDetails:
    """In the place of `Details`: there are none."""

    def of(self, report: IncidentReport) -> tuple[Organization | None, None, bool]:
        return None, None, False
