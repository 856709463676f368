"""What a pretend Autotask tenant does to its tickets by itself: rules that refuse, workflows that change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bridge.demo.autotask_records import refused
from bridge.demo.autotask_tables import COMPLETE, Row


@dataclass(slots=True)
class Rules:
    """Of one tenant; tests change them."""

    #: A ticket without a resolution is not completed.
    resolution_required: bool = False
    #: With what sentence every completion is refused, e.g. for a missing time entry; "": it is not.
    refuses_completion: str = ""
    #: With what sentence a change is answered after it was made: a rule that runs afterwards fails; "": none does.
    fails_afterwards: str = ""
    #: Id of the status that a workflow gives every ticket right after its create; 0: it stays as sent.
    status_after_create: int = 0
    #: Ticket fields that a workflow sets back at once; a PATCH of them is answered with 200.
    set_back: set[str] = field(default_factory=set)
    #: Does a ticket that is reopened lose its completion date?
    clears_completion: bool = True

    def change(self, ticket: Row, changes: Mapping[str, object]) -> None:
        """Makes `changes`, as far as the rules let it. Raises `Refused`."""
        kept = {name: value for name, value in changes.items() if name not in self.set_back}
        if kept.get("status", ticket["status"]) == COMPLETE != ticket["status"]:
            if self.refuses_completion:
                raise refused(self.refuses_completion, "updating")
            if self.resolution_required and not (kept.get("resolution") or ticket["resolution"]):
                raise refused("Resolution is required to complete this ticket.", "updating")
        ticket.update(kept)
        self.date(ticket)
        if self.fails_afterwards:
            raise refused(self.fails_afterwards, "updating")

    def date(self, ticket: Row) -> None:
        """Gives the ticket its completion date, or takes it away."""
        if ticket["status"] == COMPLETE:
            ticket["completedDate"] = ticket["completedDate"] or datetime.now(UTC).isoformat().replace("+00:00", "Z")
        elif self.clears_completion:
            ticket["completedDate"] = None
