"""Names of ConnectWise's setup tables resolved to ids: boards, statuses, priorities and every other reference.

Names are compared here, over whole listings: nothing that came from outside is ever put into a query.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.base import Misconfigured, NameOrId
from connectors.connectwise_api import ConnectWiseApi, one_line, row_id, text_of
from connectors.connectwise_settings import CUSTOM_FIELD

#: Seconds that a listing is believed.
LOOKUP_TTL = 600.0
#: A name that is not found is looked for in a fresh listing, unless the listing is younger than this (seconds).
REFRESH_AFTER = 10.0

#: Ticket fields that are references, by API name, and where their names are listed; `{board}` is the board's id.
#: Empty: names cannot be looked up (they depend on the company, or no listing is documented), so an id is needed.
REFERENCES: Mapping[str, str] = {
    "type": "/service/boards/{board}/types",
    "subType": "/service/boards/{board}/subtypes",
    "item": "/service/boards/{board}/items",
    "team": "/service/boards/{board}/teams",
    "source": "/service/sources",
    "owner": "/system/members",
    "serviceLocation": "/service/locations",
    "location": "/system/locations",
    "department": "/system/departments",
    "agreement": "",
    "contact": "",
    "country": "",
    "currency": "",
    "opportunity": "",
    "site": "",
    "sla": "",
    "workRole": "",
    "workType": "",
}

_PRIORITIES = "/service/priorities"

#: Members are large records; these are all that is needed of them.
_FIELDS = {"/system/members": "id,identifier,firstName,lastName,inactiveFlag"}


def same_name(text: str) -> str:
    """A name in the form in which two are compared: no difference in case or white space."""
    return " ".join(text.split()).casefold()


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a setup table."""

    id: int
    name: str
    aliases: tuple[str, ...] = ()
    closed: bool = False
    default: bool = False

    def answers_to(self, name: str) -> bool:
        return same_name(name) in {same_name(own) for own in (self.name, *self.aliases)}


def parse_entries(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Active rows, in the order in which ConnectWise shows them where it says so."""
    entries = []
    for row in sorted(rows, key=_sort_order):
        # Boards, types and members say `inactiveFlag`, statuses say `inactive`.
        if not row_id(row) or row.get("inactiveFlag") or row.get("inactive") or row.get("projectFlag"):
            continue
        full_name = f"{text_of(row, 'firstName')} {text_of(row, 'lastName')}".strip()
        names = [name for name in (text_of(row, "name"), text_of(row, "identifier"), full_name) if name]
        if names:
            closed, default = row.get("closedStatus") is True, row.get("defaultFlag") is True
            entries.append(Entry(row_id(row), names[0], tuple(names[1:]), closed, default))
    return entries


class Lookup:
    """Cached listings, shared by threads. Every error is a `Misconfigured` that names setting, value and choices."""

    def __init__(self, api: ConnectWiseApi, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self.clock = clock
        self._cached: dict[str, tuple[float, list[Entry]]] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Everything is asked for anew."""
        with self._lock:
            self._cached.clear()

    def board(self, value: NameOrId) -> Entry:
        return self.resolve("board", value, self._board_path())

    def boards(self) -> list[Entry]:
        """The active ones."""
        return self._entries(self._board_path())

    def _board_path(self) -> str:
        # The info listing needs the right to see tickets only, /service/boards that to the setup tables.
        path = "/service/info/boards"
        try:
            self._entries(path)
        except Misconfigured:
            path = "/service/boards"
        return path

    def status(self, setting: str, value: NameOrId, board: Entry) -> Entry:
        return self.resolve(setting, value, f"/service/boards/{board.id}/statuses", f" on board “{board.name}”")

    def statuses(self, board: Entry) -> list[Entry]:
        """The active ones, in the board's order."""
        return self._entries(f"/service/boards/{board.id}/statuses")

    def open_status(self, board: Entry) -> Entry:
        """What the board gives new tickets, else its first open status."""
        usable = [entry for entry in self.statuses(board) if not entry.closed]
        if not usable:
            raise Misconfigured(f"board “{board.name}” has no open status; make one in ConnectWise")
        return next((entry for entry in usable if entry.default), usable[0])

    def closed_status(self, value: NameOrId, board: Entry) -> Entry:
        """The configured status for finished tickets, else the board's first closed one."""
        if value == "":
            closed = [entry for entry in self.statuses(board) if entry.closed]
            if not closed:
                raise Misconfigured(f"board “{board.name}” has no status that closes a ticket; make one in ConnectWise")
            return closed[0]
        status = self.status("closed_status", value, board)
        if not status.closed:
            raise Misconfigured(
                f"closed_status = {shown(value)}: this status does not close a ticket; "
                "take one that is marked as closed in ConnectWise"
            )
        return status

    def priority(self, value: NameOrId) -> Entry:
        return self.resolve("priorities", value, _PRIORITIES)

    def priorities(self) -> list[Entry]:
        """The active ones, in their order."""
        return self._entries(_PRIORITIES)

    def default_priority(self) -> Entry | None:
        """What ConnectWise gives tickets that ask for none."""
        return next((entry for entry in self._entries(_PRIORITIES) if entry.default), None)

    def field(self, name: str, value: str | int | float | bool, board: Entry) -> Any:
        """The JSON value of a configured ticket field: references become `{"id": …}`, everything else passes."""
        if name not in REFERENCES:
            return value
        setting, path = f"fields.{name}", REFERENCES[name]
        if isinstance(value, (bool, float)):
            raise Misconfigured(f"{setting} = {shown(value)}: give a name or an id")
        if path:
            where = f" on board “{board.name}”" if "{board}" in path else ""
            return {"id": self.resolve(setting, value, path.format(board=board.id), where).id}
        if isinstance(value, int) or re.fullmatch(r"[0-9]{1,9}", value):
            return {"id": int(value)}
        raise Misconfigured(f"{setting} = {shown(value)}: its names cannot be looked up; give the id, a number")

    def custom_fields(self, values: Mapping[str, str | int | float | bool]) -> list[dict[str, Any]]:
        """`customFields` for values by caption. Every ticket lists all custom fields, so any ticket tells their ids."""
        rows = self._api.rows("/service/tickets", {"pageSize": 1, "orderBy": "id desc", "fields": "id,customFields"})
        known = rows[0].get("customFields") if rows else None
        entries = [
            Entry(row_id(row), row["caption"])
            for row in (known if isinstance(known, list) else [])
            if row_id(row) and isinstance(row.get("caption"), str)
        ]
        return [
            {"id": self._match(f'fields."{CUSTOM_FIELD}{caption}"', caption, entries).id, "value": value}
            for caption, value in values.items()
        ]

    def resolve(self, setting: str, value: NameOrId, path: str, where: str = "") -> Entry:
        """The row that a configured name or id means. A number that is text is a name first, an id after that."""
        entries = self._entries(path)
        try:
            return self._match(setting, value, entries, where)
        except Misconfigured:
            fresh = self._entries(path, younger_than=REFRESH_AFTER)
            if fresh is entries:
                raise
        return self._match(setting, value, fresh, where)

    def _match(self, setting: str, value: NameOrId, entries: list[Entry], where: str = "") -> Entry:
        found = [e for e in entries if (e.id == value if isinstance(value, int) else e.answers_to(value))]
        if not found and isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            found = [entry for entry in entries if entry.id == int(value)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(entry.id) for entry in found)
            raise Misconfigured(f"{setting} = {shown(value)}: several{where} have this name; give one of the ids {ids}")
        choices = ", ".join(f"“{one_line(entry.name, 60)}” ({entry.id})" for entry in entries[:10]) or "none"
        more = f" and {len(entries) - 10} more" if len(entries) > 10 else ""
        raise Misconfigured(
            f"{setting} = {shown(value)}: ConnectWise has no such entry{where}, or the API member cannot see it. "
            f"There are: {choices}{more}"
        )

    def _entries(self, path: str, younger_than: float = LOOKUP_TTL) -> list[Entry]:
        with self._lock:
            cached = self._cached.get(path)
        if cached and self.clock() - cached[0] < younger_than:
            return cached[1]
        params = {"fields": _FIELDS[path]} if path in _FIELDS else {}
        entries = parse_entries(self._api.all_rows(path, params, max_pages=10))
        with self._lock:
            self._cached[path] = (self.clock(), entries)
        return entries


def _sort_order(row: Mapping[str, Any]) -> int:
    order = row.get("sortOrder")
    return order if isinstance(order, int) else 0


def shown(value: object) -> str:
    """A configured value, quoted; a rendered one may carry inbound text of any length."""
    return repr(one_line(value, 80)) if isinstance(value, str) else repr(value)
