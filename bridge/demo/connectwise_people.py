"""What people and the system's own rules do to tickets of the pretend ConnectWise, for tests and the demo."""

from __future__ import annotations

import threading

from bridge.demo.connectwise_tables import Board, Row
from bridge.demo.connectwise_tickets import invalid, set_closed


class People:
    """Mixed into the pretend system. Each method is one thing that somebody does on a ticket's page."""

    lock: threading.RLock
    boards: dict[int, Board]
    priorities: list[Row]
    tickets: dict[int, Row]
    notes: dict[int, list[Row]]
    ticket_configurations: dict[int, list[int]]

    def __init__(self) -> None:
        #: By id: tickets that were converted.
        self.project_tickets: dict[int, Row] = {}
        #: Does the API member's role reach the project module?
        self.project_right = True
        #: Are tickets closed only with a time entry?
        self.require_time_entry = False
        #: Ids of tickets with a time entry.
        self.time_entries: set[int] = set()
        #: Name of the status that a workflow rule sets right after a create, whose answer still has the one asked for.
        self.status_after_create = ""
        #: Fields whose PATCH is answered 200 and changes nothing.
        self.stubborn_fields: set[str] = set()

    def delete_ticket(self, number: int) -> None:
        with self.lock:
            self._taken(number)

    def convert_ticket(self, number: int) -> None:
        """Into a project ticket, which keeps its number and is a service ticket no longer."""
        with self.lock:
            self.project_tickets[number] = {**self._taken(number), "recordType": "ProjectTicket"}

    def merge_ticket(self, number: int, into: int) -> None:
        """The ticket closes and points to the other; its notes go there too."""
        with self.lock:
            parent, child = self.tickets[into], self.tickets[number]
            board = self.boards[child["board"]["id"]]
            child["mergedParentTicket"] = {"id": into, "summary": parent["summary"]}
            child["status"] = _reference(next(row for row in board.statuses if row["closedStatus"]))
            set_closed(child, board)
            parent["hasMergedChildTicketFlag"] = True
            self.notes.setdefault(into, []).extend(self.notes.get(number, []))

    def set_status(self, number: int, name: str) -> None:
        """A status of the board that the ticket is on."""
        with self.lock:
            ticket = self.tickets[number]
            board = self.boards[ticket["board"]["id"]]
            ticket["status"] = _reference(next(row for row in board.statuses if row["name"] == name))
            set_closed(ticket, board)

    def set_priority(self, number: int, name: str) -> None:
        with self.lock:
            self.tickets[number]["priority"] = _reference(next(r for r in self.priorities if r["name"] == name))

    def move_ticket(self, number: int, board_name: str) -> None:
        """To another board, where it gets the status of the same name, else the default one."""
        with self.lock:
            ticket = self.tickets[number]
            board = next(board for board in self.boards.values() if board.name == board_name)
            same = [row for row in board.statuses if row["name"] == ticket["status"].get("name")]
            default = [row for row in board.statuses if row["defaultFlag"]]
            ticket["board"] = {"id": board.id, "name": board.name}
            ticket["status"] = _reference((same or default)[0])
            set_closed(ticket, board)

    def _taken(self, number: int) -> Row:
        self.notes.pop(number, None)
        self.ticket_configurations.pop(number, None)
        return self.tickets.pop(number)

    def _after_change(self, before: Row, after: Row) -> Row:
        """What becomes of a ticket's change by PATCH. Raises `Refused`."""
        closes = after["closedFlag"] and not before["closedFlag"]
        if self.require_time_entry and closes and before["id"] not in self.time_entries:
            raise invalid("status", "A time entry is required before this ticket can be closed.")
        kept = {field: before[field] for field in self.stubborn_fields & before.keys()}
        return set_closed({**after, **kept}, self.boards[before["board"]["id"]])


def _reference(row: Row) -> Row:
    return {"id": row["id"], "name": row["name"]}
