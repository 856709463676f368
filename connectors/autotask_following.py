"""Following a ticket of Autotask: how it stands, its priority, closing and reopening it.

Facts are from the vendor's developer help (Tickets, entityInformation) and its help on merging tickets; that PATCH
changes only what it is given is from its OpenAPI document and public clients. Where a PATCH was answered, with 200 or
with a refusal, the ticket is read once more: a workflow rule may undo what was answered with 200, and an error may
come from a rule that ran after the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.models import TicketRef, TicketState
from connectors.autotask_api import AutotaskApi, Missing
from connectors.autotask_catalog import Catalog
from connectors.autotask_fields import NotOffered, fit, fold
from connectors.autotask_settings import AutotaskSettings
from connectors.base import Misconfigured, OutcomeUnknown, Rejected, Unavailable

#: Id of Autotask's own status for a finished ticket, whatever a tenant calls it.
COMPLETE = "5"
#: Length where the tenant names none, from field information of live tenants.
RESOLUTION_LENGTH = 32000
#: `userAccessForQuery` that shows every ticket; the help has numbers, public clients saw names.
SEES_ALL = ("all", "1")

Item = Mapping[str, Any]


class Following:
    """The life of one tenant's tickets after they were made. Every method may ask Autotask and raise its outcomes."""

    def __init__(self, api: AutotaskApi, catalog: Catalog, settings: AutotaskSettings) -> None:
        self._api = api
        self._catalog = catalog
        self._settings = settings

    def look(self, ref: TicketRef) -> TicketState:
        """How the ticket stands.

        A ticket that a person merged into another stays in Autotask, completed: it is closed, not gone. Nothing that
        the API shows tells it from one that was completed otherwise.
        """
        item = self._read(ref)
        if item is None:
            return TicketState(gone=self._why_gone(ref))
        status = _status(item)
        return TicketState(status, self._catalog.status_name(status), closed=self._closed(item))

    def _read(self, ref: TicketRef) -> Item | None:
        item = self._api.item(f"Tickets/{int(ref.id)}")
        if item is not None and item.get("id") != int(ref.id):
            raise Unavailable(f"Autotask was asked for ticket {ref.id} and answered with another")
        return item

    def ticket(self, ref: TicketRef) -> Item:
        """The ticket as Autotask has it now. Raises `Unavailable` when it shows none."""
        item = self._read(ref)
        if item is None:
            raise Unavailable(
                f"Autotask does not show ticket {ref.id}: it was deleted, or the API user's security level hides it"
            )
        return item

    def _why_gone(self, ref: TicketRef) -> str:
        # An API user who may not see a ticket gets the same answer as for one that was deleted, so what the user may
        # see decides.
        shown = f"Autotask does not show ticket {ref.number or ref.id}"
        remedy = "give the API user's security level the right to view all tickets"
        access = self._access()
        if access and access not in SEES_ALL:
            raise Misconfigured(f"{shown}, and its API user may see only some tickets, or none: {remedy}")
        if not self._api.any("Tickets"):
            raise Misconfigured(f"{shown}, nor any other ticket: {remedy}")
        return f"{shown} any more, though it shows others: it was deleted"

    def _access(self) -> str:
        try:
            info = self._api.get("Tickets/entityInformation").get("info")
        except Missing:
            return ""
        access = info.get("userAccessForQuery") if isinstance(info, dict) else None
        return "" if access is None else fold(str(access))

    def _closed(self, item: Item) -> bool:
        status = _status(item)
        if status in self._closed_statuses():
            return True
        # A tenant's own finished statuses are told by the date, which one that was reopened may still carry.
        return bool(item.get("completedDate")) and status != self._new_status()

    def _closed_statuses(self) -> tuple[str, ...]:
        try:
            return COMPLETE, self._catalog.status("closed_status", self._settings.closed_status)
        except NotOffered:
            return (COMPLETE,)

    def _new_status(self) -> str:
        return self._catalog.status("status", self._settings.status)

    def untouched(self, state: TicketState) -> bool:
        """As `Connector.untouched`."""
        return any(
            fold(value) == fold(state.status_name) if isinstance(value, str) else str(value) == state.status
            for value in [self._settings.status, *self._settings.untouched_statuses]
        )

    # Changing

    def raise_priority(self, ref: TicketRef, before: str, now: str) -> bool:
        """Sets the priority of severity `now`, where the ticket still has that of `before`.

        A severity without a priority of its own leaves it to Autotask; then nobody knows whether a person changed it.
        """
        old, new = self._priority(before), self._priority(now)
        if old == new:
            return True
        if old is None or new is None:
            return False
        item = self.ticket(ref)
        if item.get("priority") == new:
            return True
        if item.get("priority") != old:
            return False
        self._change(ref, {"priority": new}, lambda after: after.get("priority") == new)
        return True

    def _priority(self, severity: str) -> int | str | None:
        priority = self._settings.priority_for(severity)
        return None if priority is None else self._catalog.pick(f"priorities ({severity})", "priority", priority)

    def close(self, ref: TicketRef, resolution: str) -> str:
        """Sets the closed status, and the resolution where the ticket has none; returns the status' id."""
        item = self.ticket(ref)
        if self._closed(item):
            return _status(item)
        changes: dict[str, Any] = {
            "status": self._catalog.pick("closed_status", "status", self._settings.closed_status)
        }
        field = self._catalog.ticket_fields().get("resolution")
        if resolution and field and not field.read_only and not str(item.get("resolution") or "").strip():
            changes["resolution"] = fit(resolution, field.length or RESOLUTION_LENGTH)
        return _status(self._change(ref, changes, self._closed))

    def reopen(self, ref: TicketRef, status: str) -> str:
        """Sets the status with id `status`, or that of new tickets where it is '', closed or no more; returns its id.

        A ticket that is open already stays as it is.
        """
        item = self.ticket(ref)
        if not self._closed(item):
            return _status(item)
        fits = status and status not in self._closed_statuses() and self._catalog.offers_status(status)
        wanted = status if fits else self._new_status()
        after = self._change(
            ref, {"status": int(wanted)}, lambda after: _status(after) == wanted or not self._closed(after)
        )
        return _status(after)

    def _change(self, ref: TicketRef, changes: Mapping[str, Any], done: Callable[[Item], bool]) -> Item:
        """Sends `changes` as one PATCH and returns the ticket after it. Raises `Rejected` unless it is `done`."""
        refused: Rejected | None = None
        try:
            self._api.change("PATCH", "Tickets", {"id": int(ref.id), **changes})
        except Rejected as no:
            refused = no
        after = self._after(ref, refused)
        if done(after):
            return after
        names = " and ".join(changes)
        raise refused or Rejected(
            f"Autotask said that it changed {names} of ticket {ref.number or ref.id}, but the ticket stayed as it was: "
            "a workflow rule there may have changed it back"
        )

    def _after(self, ref: TicketRef, refused: Rejected | None) -> Item:
        try:
            return self.ticket(ref)
        except Unavailable as failed:
            said = refused or f"Autotask was told to change ticket {ref.number or ref.id}"
            raise OutcomeUnknown(
                f"{said}; whether it did so could not be asked: {failed}", failed.retry_after
            ) from None


def _status(item: Item) -> str:
    status = item.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise Unavailable(f"Autotask answered with ticket {item.get('id')} without a status")
    return str(status)
