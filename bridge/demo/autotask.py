"""A pretend Autotask PSA, zone service and tenant in one, with the real one's habits.

Errors come as status 500, further pages are asked for by POST, an object endpoint takes three requests at a time.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from bridge.demo import autotask_tables as tables
from bridge.demo.autotask_records import Refused, checked, matching, refused
from bridge.demo.autotask_rules import Rules
from bridge.demo.autotask_tables import DEFAULT_COMPANIES, Row
from bridge.demo.server import Fault, PretendServer, Received, Reply

SECRET = "pretend-Secret-4711"  # noqa: S105 - opens nothing
INTEGRATION_CODE = "PRETENDTRACKINGIDENTIFIER27"

#: Requests that one integration may have under way at one object endpoint.
THREADS = 3
#: Most records of one page.
PAGE = 500

_ROOT = r"(?i)/atservicesrest/v1\.0"


class PretendAutotask(PretendServer):
    """State is public for tests to look at and to change; hold `lock` while requests may be under way."""

    def __init__(
        self,
        companies: Sequence[tuple[int, str]] = DEFAULT_COMPANIES,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        **server: Any,
    ) -> None:
        super().__init__(host, port, **server)
        #: Names its tenant, so two pretend ones are two systems.
        self.username = f"bridge@tenant{self.url.rpartition(':')[2]}.example"
        self.secret = SECRET
        self.integration_code = INTEGRATION_CODE
        self.companies: list[Row] = [
            {"id": number, "companyName": name, "companyNumber": f"C{number}", "isActive": True}
            for number, name in companies
        ]
        self.configuration_items: list[Row] = []
        self.ticket_fields = tables.ticket_fields()
        self.note_fields = tables.note_fields()
        self.custom_fields = tables.custom_fields()
        self.company_fields = tables.company_fields()
        self.rules = Rules()
        #: Ticket fields that exist but are missing in entityInformation.
        self.unlisted: set[str] = set()
        #: By id, as stored.
        self.tickets: dict[int, Row] = {}
        #: By ticket id.
        self.notes: dict[int, list[Row]] = {}
        #: Where the zone service says that the tenant lives; None: here.
        self.zone: PretendAutotask | None = None
        #: What the zone service answers instead, when set.
        self.zone_answer: Row | None = None
        #: Requests beyond `THREADS` at one endpoint.
        self.thread_violations = 0
        #: Most records of one page, whatever was asked for.
        self.page_size = PAGE
        #: Duplicate Ticket Handling: id of the ticket that every new one is taken for; None: off.
        self.duplicate_of: int | None = None
        #: Seconds for which a created ticket is invisible to queries, by `clock`; by its id it is there at once.
        self.search_lag = 0.0
        #: The API user may create tickets and read them by id, but its queries find none: an empty list, or a 403.
        self.search_right: Literal["granted", "sees nothing", "forbidden"] = "granted"
        #: What the tenant says of the API user's right to view tickets; None: nothing.
        self.user_access: Any = "All"
        self.clock = clock
        self._visible_at: dict[int, float] = {}
        self._last_id = 7000
        self._busy: dict[str, int] = {}
        self._thread = threading.local()
        self._add_routes()

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """A connector table for this system, as it would stand in the configuration."""
        table = {
            "type": "autotask",
            "zone_url": self.url,
            "username": self.username,
            "secret": self.secret,
            "integration_code": self.integration_code,
            "queue": "Security",
            "status": "New",
            "closed_status": "Complete",
            "default_company": 175,
            "priorities": {"critical": "Critical", "high": "High", "low": "Low"},
        }
        return {**table, **overrides}

    def field(self, name: str) -> Row:
        """The description of a ticket field, to be changed by tests."""
        return next(field for field in self.ticket_fields if field["name"] == name)

    def add_configuration_item(self, company_id: int, name: str, serial_number: str = "", **more: Any) -> int:
        """Puts a machine on a company's list; returns its id."""
        with self.lock:
            number = self._next_id()
            row = {"id": number, "companyID": company_id, "referenceTitle": name, "serialNumber": serial_number}
            self.configuration_items.append({**row, "rmmDeviceAuditHostname": "", "isActive": True, **more})
        return number

    def add_ticket(self, **values: Any) -> int:
        """Makes a ticket as a person would; returns its id."""
        base = {"companyID": 175, "title": "By hand", "status": 1, "priority": 3, "queueID": 29683482}
        with self.lock:
            return self._store({**base, **values})

    def delete_ticket(self, number: int) -> None:
        """Deletes a ticket, as a person may."""
        with self.lock:
            del self.tickets[number], self.notes[number]

    def set_status(self, number: int, label: str) -> None:
        """Gives a ticket another status, as a person may; no rule refuses it."""
        choices = self.field("status")["picklistValues"]
        with self.lock:
            ticket = self.tickets[number]
            ticket["status"] = next(int(choice["value"]) for choice in choices if choice["label"] == label)
            self.rules.date(ticket)

    def merge_ticket(self, number: int, into: int) -> None:
        """Merges a ticket into another, as a person may: it is completed and stays."""
        self.set_status(number, "Complete")
        text = f"Merged into {self.tickets[into]['ticketNumber']}"
        with self.lock:
            note = {"title": "Ticket Merge", "description": text, "noteType": 13, "publish": 1}
            self.notes[number].append({"id": self._next_id(), "ticketID": number, **note})

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _add_routes(self) -> None:
        self.route("GET", r"(?i)/atservicesrest/v?1\.0/zoneInformation", self._zone_information)
        self.route("GET", r"(?i)/Mvc/ServiceDesk/TicketDetail\.mvc", self._page_of_ticket)
        self._api("GET", "/ThresholdInformation", self._threshold)
        self._api("POST", "/Tickets", self._create)
        self._api("PATCH", "/Tickets", self._patch)
        self._api("GET", r"/Tickets/(\d+)", self._ticket)
        self._api("GET", r"/Tickets/(\d+)/Notes", self._list_notes)
        self._api("POST", r"/Tickets/(\d+)/Notes", self._add_note)
        self._api("GET", r"/Companies/(\d+)", lambda _, number: _item(self.companies, int(number)))
        self._api("POST", "/Companies", self._create_company)
        self._api("GET", "/Tickets/entityInformation", self._rights)
        for path, fields in (
            ("Tickets/entityInformation/fields", self._listed_fields),
            ("Tickets/entityInformation/userDefinedFields", lambda: self.custom_fields),
            ("TicketNotes/entityInformation/fields", lambda: self.note_fields),
            ("Companies/entityInformation/fields", lambda: self.company_fields),
        ):
            self._api("GET", f"/{path}", lambda _, fields=fields: Reply(200, {"fields": deepcopy(fields())}))
        self._query("Tickets", self._visible_tickets)
        self._query("Companies", lambda: self.companies)
        self._query("ConfigurationItems", lambda: self.configuration_items)

    def _api(self, method: str, path: str, handler: Callable[..., Reply]) -> None:
        def guarded(request: Received, *groups: str) -> Reply:
            if self._thread.excess:
                return Reply(500, {"errors": ["Itgenatr005: the thread threshold of 3 threads has been exceeded."]})
            if not self._authorized(request):
                return Reply(401, {"errors": []})
            try:
                return handler(request, *groups)
            except Refused as no:
                return no.reply

        self.route(method, f"{_ROOT}{path}", guarded)

    def _query(self, entity: str, rows: Callable[[], Sequence[Row]]) -> None:
        self._api("POST", f"/{entity}/query(?:/next)?", lambda request: self._page(request, entity, rows()))

    def _authorized(self, request: Received) -> bool:
        wanted = {"ApiIntegrationCode": self.integration_code, "UserName": self.username, "Secret": self.secret}
        return all(request.headers.get(name) == value for name, value in wanted.items())

    # Threads are counted from a request's arrival to the end of its answer, on the connection's own thread.

    def _arrived(self, request: Received) -> Fault | None:
        match = re.match(rf"{_ROOT}/(\w+)", request.path)
        endpoint = match[1].lower() if match else ""
        self._thread.endpoint = endpoint
        self._thread.excess = False
        if endpoint not in ("", "zoneinformation", "thresholdinformation"):
            with self.lock:
                self._busy[endpoint] = self._busy.get(endpoint, 0) + 1
                self._thread.excess = self._busy[endpoint] > THREADS
                self.thread_violations += self._thread.excess
        return super()._arrived(request)

    def _left(self) -> None:
        with self.lock:
            if self._thread.endpoint in self._busy:
                self._busy[self._thread.endpoint] -= 1
        super()._left()

    # Zone and pages for people

    def _zone_information(self, request: Received) -> Reply:
        if self.zone_answer is not None:
            return Reply(200, self.zone_answer)
        if request.query.get("user", "").lower() != self.username.lower():
            return Reply(500, {"errors": ["The user was not found."]})
        home = self.zone or self
        answer = {"zoneName": "Pretend Zone", "url": f"{home.url}/ATServicesRest/", "webUrl": f"{home.url}/", "ci": 1}
        return Reply(200, answer)

    def _page_of_ticket(self, request: Received) -> Reply:
        number = request.query.get("ticketId", "")
        ticket = self.tickets.get(int(number)) if number.isdecimal() else None
        if ticket is None:
            return Reply(404, "There is no such ticket.")
        notes = "".join(f"\n\n--- {note['title']}\n{note['description']}" for note in self.notes[ticket["id"]])
        choices = self.field("status")["picklistValues"]
        status = next(choice["label"] for choice in choices if choice["value"] == str(ticket["status"]))
        head = f"{ticket['ticketNumber']}: {ticket['title']}\nStatus: {status}"
        if ticket["resolution"]:
            head += f"\nResolution: {ticket['resolution']}"
        return Reply(200, f"{head}\n\n{ticket['description'] or ''}{notes}\n")

    def _threshold(self, _: Received) -> Reply:
        count = len(self.received)
        numbers = {"externalRequestThreshold": 10000, "requestThresholdTimeframe": 60}
        return Reply(200, numbers | {"currentTimeframeRequestCount": count})

    # Tickets

    def _known(self) -> dict[str, set[int]]:
        return {
            "Company": {row["id"] for row in self.companies if row["isActive"]},
            "ConfigurationItem": {row["id"] for row in self.configuration_items},
        }

    def _listed_fields(self) -> list[Row]:
        return [field for field in self.ticket_fields if field["name"] not in self.unlisted]

    def _rights(self, _: Received) -> Reply:
        info = {"name": "Ticket", "canCreate": True, "canDelete": False, "canQuery": True, "canUpdate": True}
        return Reply(
            200, {"info": info | ({} if self.user_access is None else {"userAccessForQuery": self.user_access})}
        )

    def _create(self, request: Received) -> Reply:
        record = checked(request.json, self.ticket_fields, "creating", complete=True, known=self._known())
        if self.duplicate_of is not None:
            return Reply(200, {"itemId": self.duplicate_of})
        number = self._store(record)
        self.tickets[number]["status"] = self.rules.status_after_create or self.tickets[number]["status"]
        return Reply(200, {"itemId": number})

    def _store(self, record: Row) -> int:
        number, now = self._next_id(), datetime.now(UTC)
        blank: Row = {field["name"]: None for field in self.ticket_fields}
        own = {
            "id": number,
            "ticketNumber": f"T{now:%Y%m%d}.{len(self.tickets) + 1:04d}",
            "createDate": now.isoformat().replace("+00:00", "Z"),
        }
        self.tickets[number] = blank | {"userDefinedFields": []} | record | own
        self.rules.date(self.tickets[number])
        self.notes[number] = []
        self._visible_at[number] = self.clock() + self.search_lag
        return number

    def _patch(self, request: Received) -> Reply:
        body = request.json if isinstance(request.json, dict) else {}
        ticket = self.tickets.get(body.get("id", -1))
        if ticket is None:
            raise refused("No matching records found.", "updating")
        record = checked(body, self.ticket_fields, "updating", complete=False, known=self._known())
        custom = {field["name"]: field for field in ticket["userDefinedFields"]}
        custom |= {field["name"]: field for field in record.pop("userDefinedFields", [])}
        self.rules.change(ticket, {**record, "userDefinedFields": list(custom.values())})
        return Reply(200, {"itemId": ticket["id"]})

    def _ticket(self, _: Received, number: str) -> Reply:
        return _item(self.tickets.values(), int(number))

    def _visible_tickets(self) -> list[Row]:
        if self.search_right == "forbidden":
            raise Refused("The logged in Resource does not have the adequate permissions to query.", status=403)
        now = self.clock()
        granted = self.search_right == "granted"
        return [row for number, row in self.tickets.items() if granted and self._visible_at[number] <= now]

    # Notes

    def _list_notes(self, request: Received, number: str) -> Reply:
        _item(self.tickets.values(), int(number))
        return self._slice(request, deepcopy(self.notes[int(number)]), self.page_size, f"Tickets/{number}/Notes")

    def _add_note(self, request: Received, number: str) -> Reply:
        _item(self.tickets.values(), int(number))
        body = request.json | {"ticketID": int(number)} if isinstance(request.json, dict) else None
        note = checked(body, self.note_fields, "creating", complete=True, known={})
        note["id"] = self._next_id()
        self.notes[int(number)].append(note)
        return Reply(200, {"itemId": note["id"]})

    # Queries

    def _page(self, request: Received, entity: str, rows: Sequence[Row]) -> Reply:
        found = matching(rows, request.json)
        size = min(int(request.json.get("maxRecords", PAGE)), self.page_size)
        if not 1 <= size <= PAGE:
            raise Refused("maxRecords must be between 1 and 500.")
        include = {str(name).lower() for name in request.json.get("includeFields", [])}
        items = [{key: value for key, value in row.items() if not include or key.lower() in include} for row in found]
        return self._slice(request, items, size, f"{entity}/query/next")

    def _slice(self, request: Received, items: Sequence[Row], size: int, following: str) -> Reply:
        start = int(json.loads(request.query.get("paging", "0")))
        address = ""
        if start + size < len(items):
            address = f"{self.url}/ATServicesRest/V1.0/{following}?paging={quote(str(start + size))}"
        page = items[start : start + size]
        return Reply(200, {"items": page, "pageDetails": _details(len(page), address)})

    # Companies

    def _create_company(self, request: Received) -> Reply:
        known = {"Resource": set(tables.RESOURCES)}
        record = checked(request.json, self.company_fields, "creating", complete=True, known=known)
        number = self._next_id()
        self.companies.append({"companyNumber": None, "isActive": False} | record | {"id": number})
        return Reply(200, {"itemId": number})


def _details(count: int, following: str = "") -> Row:
    return {"count": count, "requestCount": PAGE, "prevPageUrl": None, "nextPageUrl": following or None}


def _item(rows: Any, number: int) -> Reply:
    """The record; what is not there is a status 500 too."""
    found = [row for row in rows if row["id"] == number]
    if not found:
        raise Refused("No matching records found.")
    return Reply(200, {"item": deepcopy(found[0])})
