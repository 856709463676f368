"""A ConnectWise ticket after its creation: how it stands, its status, its priority, the notes on it.

Facts are from the vendor's developer guide and its OpenAPI document 2026.4 unless a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bridge.models import Note, TicketState
from connectors.base import Misconfigured, NameOrId, OutcomeUnknown, Rejected, Unavailable
from connectors.connectwise_api import ConnectWiseApi, Missing, one_line, row_id, text_of
from connectors.connectwise_lookup import Entry, Lookup
from connectors.connectwise_settings import ConnectWiseSettings

#: All that is needed of a ticket.
_FIELDS = "id,recordType,status,closedFlag,board,priority,mergedParentTicket"


class Gone(Rejected):
    """The ticket can be followed no longer; the sentence says what happened to it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One ticket as ConnectWise has it now. Its board may be another than the configured one: people move tickets."""

    number: int
    status: Entry
    board: Entry
    #: Id of the priority.
    priority: int
    #: The system's own word, which follows from the status that the ticket was given last.
    closed_flag: bool
    #: Id of the ticket that it was merged into; 0: none.
    merged_into: int
    record_type: str


def standing(number: int, value: object) -> Standing | None:
    """The ticket `number` as answered; None when this is not that ticket, or nothing to work with."""
    if not isinstance(value, dict) or row_id(value) != number:
        return None
    status, board = _reference(value, "status"), _reference(value, "board")
    if not status or not board:
        return None
    return Standing(
        number=number,
        status=status,
        board=board,
        priority=row_id(value.get("priority")),
        closed_flag=value.get("closedFlag") is True,
        merged_into=row_id(value.get("mergedParentTicket")),
        record_type=text_of(value, "recordType"),
    )


def _reference(row: Mapping[str, Any], field: str) -> Entry | None:
    value = row.get(field)
    return Entry(row_id(value), text_of(value, "name")) if isinstance(value, dict) and row_id(value) else None


class Tickets:
    """Shared by threads; raises outcomes only, `Gone` among them. Everything here is safe to repeat."""

    def __init__(self, api: ConnectWiseApi, lookup: Lookup, settings: ConnectWiseSettings) -> None:
        self._api = api
        self._lookup = lookup
        self._settings = settings

    def look(self, number: int) -> TicketState:
        try:
            ticket = self._read(number)
        except Gone as gone:
            return TicketState(gone=str(gone))
        return TicketState(str(ticket.status.id), ticket.status.name, closed=self._is_closed(ticket))

    def raise_priority(self, number: int, before: str, now: str) -> bool:
        """As `Connector.raise_priority`."""
        settings, lookup = self._settings, self._lookup
        wanted, former = settings.priority_for(now), settings.priority_for(before)
        if wanted is None:
            return True
        new = lookup.priority(wanted)
        # A ticket that was made without a priority got the default one.
        old = lookup.default_priority() if former is None else lookup.priority(former)
        if old == new:
            return True
        ticket = self._read(number)
        if ticket.priority == new.id:
            return True
        if old is None or ticket.priority != old.id:
            return False
        if self._set(number, "priority", new).priority != new.id:
            raise Rejected(
                f"ConnectWise took the priority “{new.name}” of ticket {number} and kept the old one; "
                "a workflow rule of its board may hold it"
            )
        return True

    def close(self, number: int) -> str:
        """Id of the closed status that the ticket has then."""
        ticket = self._read(number)
        if not self._is_closed(ticket):
            ticket = self._set(number, "status", self._closed_status(ticket.board))
            if not self._is_closed(ticket):  # some changes are answered 200 and not made
                raise self._kept(ticket, "a closed status")
        return str(ticket.status.id)

    def reopen(self, number: int, status: str) -> str:
        """Id of the open status that the ticket has then: `status`, where it fits."""
        ticket = self._read(number)
        if self._is_closed(ticket):
            ticket = self._set(number, "status", self._open_status(status, ticket.board))
            if self._is_closed(ticket):
                raise self._kept(ticket, "an open status")
        return str(ticket.status.id)

    def has_note(self, number: int, marker: str) -> bool:
        with self._gone_if_missing(number):
            rows = self._api.all_rows(f"/service/tickets/{number}/notes")
        # The marker stands last and is looked for only there, and only in what contacts cannot write: text from
        # outside that quotes one suppresses nothing.
        return any(
            text_of(row, "text").rstrip().endswith(marker)
            for row in rows
            if row.get("internalAnalysisFlag") is not False
        )

    def add_note(self, number: int, marker: str, note: Note) -> None:
        """Adds the note unless the ticket already has one with its marker."""
        if self.has_note(number, marker):
            return
        body = {
            "text": "\n\n".join(part for part in (note.title, note.text, marker) if part),
            "internalAnalysisFlag": True,
            "detailDescriptionFlag": False,
            "resolutionFlag": False,
            "processNotifications": False,
        }
        with self._gone_if_missing(number):
            self._api.request("POST", f"/service/tickets/{number}/notes", intent="update", json=body)

    def _read(self, number: int) -> Standing:
        with self._gone_if_missing(number):
            answer = self._api.request("GET", f"/service/tickets/{number}", params={"fields": _FIELDS})
        ticket = standing(number, answer.json)
        if ticket is None:
            raise Unavailable(f"ConnectWise was asked for ticket {number} and answered with something else")
        if ticket.merged_into:
            raise Gone(f"ticket {number} was merged into ticket {ticket.merged_into}")
        if ticket.record_type.startswith("Project"):
            raise Gone(_converted(number))
        return ticket

    @contextmanager
    def _gone_if_missing(self, number: int) -> Iterator[None]:
        try:
            yield
        except Missing:
            raise Gone(self._whereabouts(number)) from None

    def _whereabouts(self, number: int) -> str:
        """What happened to a ticket that is answered 404, once it is known that the API member sees others.

        Wrong credentials and a role that lost its rights look the same for one ticket, so both are ruled out first.
        """
        if not self._api.rows("/service/tickets", {"pageSize": 1, "fields": "id"}):
            raise Misconfigured(
                f"ConnectWise answers 404 for ticket {number} and shows the API member no other ticket either; "
                "check its security role"
            )
        self._lookup.forget()
        self._lookup.board(self._settings.board)
        try:
            # A project ticket keeps its number and is answered 404 as a service ticket (seen by others).
            answer = self._api.request("GET", f"/project/tickets/{number}", params={"fields": "id"})
        except Missing:
            return f"ticket {number} was deleted, or moved to where the API member cannot see it"
        except (Misconfigured, Rejected):
            return f"ticket {number} was deleted or converted to a project ticket (the API member may not look there)"
        if row_id(answer.json) != number:
            raise Unavailable(f"ConnectWise was asked for project ticket {number} and answered with something else")
        return _converted(number)

    def _set(self, number: int, field: str, wanted: Entry) -> Standing:
        """The ticket as it is after the change; whether the change was kept is for the caller to see."""
        # Not RFC 6902: the path is the bare field name, and a reference is replaced as a whole.
        change = [{"op": "replace", "path": field, "value": {"id": wanted.id}}]
        with self._gone_if_missing(number):
            answer = self._api.request("PATCH", f"/service/tickets/{number}", intent="update", json=change)
        ticket = standing(number, answer.json)
        if ticket is None:
            raise OutcomeUnknown(f"ConnectWise answered the new {field} of ticket {number} with something else")
        return ticket

    def _is_closed(self, ticket: Standing) -> bool:
        if ticket.closed_flag:
            return True
        try:
            statuses = self._lookup.statuses(ticket.board)
        except Misconfigured:
            # No right to the setup tables, which nothing but closing needs: the ticket's flag must do.
            return False
        return any(status.closed for status in statuses if status.id == ticket.status.id)

    def _closed_status(self, board: Entry) -> Entry:
        """The configured one where `board` has it, else its own; a setting that does not fit its own board is wrong."""
        lookup, settings = self._lookup, self._settings
        try:
            return lookup.closed_status(settings.closed_status, board)
        except Misconfigured:
            if lookup.board(settings.board).id == board.id:
                raise
            return lookup.closed_status("", board)

    def _open_status(self, status: str, board: Entry) -> Entry:
        wishes: list[NameOrId] = [int(status)] if status.isdecimal() else []
        wishes += [self._settings.status] if self._settings.status != "" else []
        for wish in wishes:
            try:
                found = self._lookup.status("status", wish, board)
            except Misconfigured:  # no status of this board, or none any more
                continue
            if not found.closed:
                return found
        return self._lookup.open_status(board)

    def _kept(self, ticket: Standing, wanted: str) -> Rejected:
        return Rejected(
            f"ConnectWise took {wanted} for ticket {ticket.number} and left it “{one_line(ticket.status.name, 60)}”; "
            f"a status or workflow rule of board “{one_line(ticket.board.name, 60)}” may hold it"
        )


def _converted(number: int) -> str:
    return f"ticket {number} was converted to a project ticket"
