"""A pretend ConnectWise PSA: service tickets with the real one's checks, query language and error bodies."""

from __future__ import annotations

import base64
import html
import re
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlencode

from bridge.demo import connectwise_tables as tables
from bridge.demo.connectwise_people import People
from bridge.demo.connectwise_query import BadQuery, select
from bridge.demo.connectwise_tables import Board, Row
from bridge.demo.connectwise_tickets import (
    Refused,
    build,
    forbidden,
    invalid,
    missing,
    new_company,
    not_found,
    patched,
    set_closed,
)
from bridge.demo.server import PretendServer, Received, Reply

COMPANY_ID = "bridgedemo"
PUBLIC_KEY = "demoPublicKey"
PRIVATE_KEY = "demoPrivateKey"
CLIENT_ID = "00000000-0000-4000-8000-000000000000"

#: The catch-all first, then a company for each of a dozen organizations: id, identifier, name.
DEFAULT_COMPANIES: tuple[tuple[int, str, str], ...] = (
    (250, "Catchall", "Catchall"),
    *((250 + number, f"ORG{number}", f"Organization {number}") for number in range(1, 13)),
)
#: The release that every site answers to, whatever its own.
ANY_RELEASE = "v4_6_release/"

_CONFIGURATION_FIELDS = frozenset({"id", "name", "serialNumber", "activeFlag", "company"})


class PretendConnectWise(People, PretendServer):
    """State is public for tests to look at and to change; hold `lock` while requests may be under way."""

    def __init__(
        self,
        companies: Sequence[tuple[int, str, str]] = DEFAULT_COMPANIES,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        **server: Any,
    ) -> None:
        PretendServer.__init__(self, host, port, **server)
        People.__init__(self)
        self.companies = list(companies)
        self.boards: dict[int, Board] = tables.default_boards()
        self.priorities: list[Row] = deepcopy(tables.PRIORITIES)
        self.sources: list[Row] = deepcopy(tables.SOURCES)
        self.members: list[Row] = deepcopy(tables.MEMBERS)
        self.custom_fields: list[Row] = deepcopy(tables.CUSTOM_FIELDS)
        self.configurations: list[Row] = []
        #: By id, as stored: with the `initial…` texts, which the real one never gives back.
        self.tickets: dict[int, Row] = {}
        #: No real system is empty: an old ticket that is nobody's here, and found by a search for any ticket.
        self.old_ticket = self._old_ticket()
        #: By ticket id, the initial texts included.
        self.notes: dict[int, list[Row]] = {}
        #: By ticket id: ids of the configurations attached to it.
        self.ticket_configurations: dict[int, list[int]] = {}
        #: What customers' contacts were mailed: (ticket id, text).
        self.contact_mail: list[tuple[int, str]] = []
        #: A hosted upgrade changes it; requests under the old one are answered 404.
        self.codebase = "v2026_4/"
        #: Site that `companyinfo` names; empty: the one it was asked at.
        self.site_url = ""
        #: What wrong credentials are answered with; hosted sites were seen to say 404.
        self.bad_credentials_status = 401
        #: Seconds for which a created ticket is invisible to searches, by `clock`; by its id it is there at once.
        self.search_lag = 0.0
        #: The API user may create tickets and read them by id, but its searches find none: an empty list, or a 403.
        self.search_right: Literal["granted", "sees nothing", "forbidden"] = "granted"
        self.clock = clock
        self._visible_at: dict[int, float] = {}
        self._last_id = 1000
        self._add_routes()

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """A connector table for this system, as it would stand in the configuration."""
        table = {
            "type": "connectwise",
            "url": self.url,
            "company_id": COMPANY_ID,
            "public_key": PUBLIC_KEY,
            "private_key": PRIVATE_KEY,
            "client_id": CLIENT_ID,
            "board": "Security",
            "default_company": "Catchall",
            "priorities": {"critical": "Priority 1 - Critical", "high": "Priority 2 - High", "low": "Priority 4 - Low"},
            "fields": {"type": "Security", "source": "Huntress"},
        }
        return {**table, **overrides}

    def add_configuration(self, company_id: int, name: str, serial_number: str = "", active: bool = True) -> int:
        """Puts a machine on a company's list; returns its id."""
        row: Row = {"id": self._next_id(), "name": name, "serialNumber": serial_number, "activeFlag": active}
        with self.lock:
            self.configurations.append({**row, "company": {"id": company_id}})
        return int(row["id"])

    def _next_id(self) -> int:
        with self.lock:
            self._last_id += 1
            return self._last_id

    def _add_routes(self) -> None:
        self.route("GET", r"/login/companyinfo/(.+)", self._company_info)
        self.route("GET", "/v4_6_release/services/system_io/router/openrecord.rails", self._page_of_ticket)
        self.route("GET", rf"/{self._CODEBASE}/apis/3\.0/system/info", self._system_info)
        tickets, one = "/service/tickets", r"/service/tickets/(\d+)"
        self._api("GET", tickets, self._search)
        self._api("POST", tickets, self._create)
        self._api("GET", one, lambda request, number: self._shown(request, self._ticket(number)))
        self._api("PATCH", one, self._patch)
        self._api("GET", f"{one}/notes", self._list_notes)
        self._api("POST", f"{one}/notes", self._add_note)
        self._api("GET", f"{one}/configurations", self._list_attached)
        self._api("POST", f"{one}/configurations", self._attach)
        self._api(
            "GET", "/service/(?:info/)?boards", lambda r: self._listing(r, [b.info() for b in self.boards.values()])
        )
        self._api("GET", r"/service/boards/(\d+)/(statuses|types|subtypes|items|teams)", self._of_board)
        self._api("GET", "/service/priorities", lambda r: self._listing(r, self.priorities))
        self._api("GET", "/service/sources", lambda r: self._listing(r, self.sources))
        self._api("GET", "/service/locations", lambda r: self._listing(r, tables.LOCATIONS))
        self._api("GET", "/system/members", lambda r: self._listing(r, self.members))
        self._api("GET", r"/project/tickets/(\d+)", self._project_ticket)
        self._api("GET", "/company/companies", self._list_companies)
        self._api("POST", "/company/companies", self._add_company)
        self._api("GET", "/company/configurations", self._list_configurations)

    _CODEBASE = r"([A-Za-z0-9_.]+)"

    def _api(self, method: str, path: str, handler: Callable[..., Reply]) -> None:
        def guarded(request: Received, codebase: str, *groups: str) -> Reply:
            if f"{codebase}/" not in (self.codebase, ANY_RELEASE):
                return Reply(404, "<html><title>404 - File or directory not found.</title></html>")
            try:
                self._check_credentials(request)
                return handler(request, *groups)
            except Refused as refused:
                return refused.reply
            except BadQuery as bad:
                return Reply(400, {"code": "ApiFindCondition", "message": str(bad), "errors": None})

        self.route(method, rf"/{self._CODEBASE}/apis/3\.0{path}", guarded)

    def _check_credentials(self, request: Received) -> None:
        expected = base64.b64encode(f"{COMPANY_ID}+{PUBLIC_KEY}:{PRIVATE_KEY}".encode()).decode()
        if request.headers.get("Authorization", "") != f"Basic {expected}":
            body = {"code": "Unauthorized", "message": "UserNotAuthenticated", "errors": None}
            raise Refused(Reply(self.bad_credentials_status, body))
        if request.headers.get("clientId", "") != CLIENT_ID:
            raise forbidden("A valid clientId is required.")

    # What is answered without credentials.

    def _company_info(self, request: Received, company_id: str) -> Reply:
        if company_id.lower() != COMPANY_ID:
            return Reply(200, "null", {"Content-Type": "application/json"})
        return Reply(
            200,
            {
                "CompanyName": "Bridge Demo",
                "Codebase": self.codebase,
                "VersionCode": self.codebase.rstrip("/").replace("_", "."),
                "VersionNumber": f"{self.codebase.rstrip('/')}.1",
                "CompanyID": COMPANY_ID,
                "IsCloud": True,
                "SiteUrl": self.site_url or request.headers.get("Host", ""),
            },
        )

    def _system_info(self, request: Received, codebase: str) -> Reply:
        return Reply(200, {"version": self.codebase.rstrip("/"), "isCloud": True, "serverTimeZone": "UTC"})

    def _page_of_ticket(self, request: Received) -> Reply:
        wanted = request.query.get("recid", "")
        ticket = self.tickets.get(int(wanted)) if re.fullmatch("[0-9]{1,10}", wanted) else None
        if ticket is None:
            return Reply(404, "no such ticket")
        shown = {
            field: value.get("name", value.get("id")) if isinstance(value, dict) else value
            for field, value in ticket.items()
        }
        lines = "".join(
            f"<dt>{field}</dt><dd><pre>{html.escape(str(value))}</pre></dd>" for field, value in shown.items()
        )
        title = html.escape(f"{ticket['id']}: {ticket['summary']}")
        page = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><dl>{lines}</dl>"
        return Reply(200, page, {"Content-Type": "text/html; charset=utf-8"})

    # Tickets.

    def _search(self, request: Received) -> Reply:
        if self.search_right == "forbidden":
            raise forbidden()
        now = self.clock()
        visible = [
            self._public(ticket)
            for number, ticket in {self.old_ticket["id"]: self.old_ticket, **self.tickets}.items()
            if self.search_right == "granted" and self._visible_at.get(number, now) <= now
        ]
        return self._listing(request, visible, tables.TICKET_FIELDS)

    def _create(self, request: Received) -> Reply:
        ticket = {"id": self._next_id(), **build(request.json, self.boards, self._choices)}
        number = ticket["id"]
        ticket["customFields"] = self._with_all_custom_fields(ticket.get("customFields"))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        ticket["_info"] = {"dateEntered": now, "enteredBy": PUBLIC_KEY, "lastUpdated": now}
        answer = self._public(ticket)
        self.tickets[number] = ticket
        self._visible_at[number] = self.clock() + self.search_lag
        for field, flag in (
            ("initialDescription", "detailDescriptionFlag"),
            ("initialInternalAnalysis", "internalAnalysisFlag"),
        ):
            if ticket.get(field):
                self.keep_note(number, {"text": ticket[field], flag: True})
        if ticket.get("automaticEmailContactFlag", True) and ticket.get("processNotifications", True):
            self.contact_mail.append((number, f"{ticket['summary']}\n{ticket.get('initialDescription', '')}"))
        if self.status_after_create:
            self.set_status(number, self.status_after_create)
        return Reply(201, answer)

    def _old_ticket(self) -> Row:
        board = self.boards[1]
        company = {"id": self.companies[0][0]} if self.companies else None
        ticket = {"id": 7, "summary": "Printer", "board": {"id": 1, "name": board.name}, "company": company}
        ticket["status"] = {"id": board.statuses[-1]["id"], "name": board.statuses[-1]["name"]}
        return set_closed({**ticket, "customFields": self._with_all_custom_fields(None)}, board)

    def _patch(self, request: Received, number: str) -> Reply:
        ticket = self._ticket(number)
        changed = patched(ticket, request.json, self.boards[ticket["board"]["id"]], self._choices)
        changed = self.tickets[ticket["id"]] = self._after_change(ticket, changed)
        return Reply(200, self._public(changed))

    def _ticket(self, number: str) -> Row:
        if int(number) not in self.tickets:
            raise not_found(f"Ticket {number} not found")
        return self.tickets[int(number)]

    def _project_ticket(self, request: Received, number: str) -> Reply:
        if not self.project_right:
            raise forbidden()
        if int(number) not in self.project_tickets:
            raise not_found(f"Ticket {number} not found")
        return self._shown(request, self.project_tickets[int(number)])

    @staticmethod
    def _public(ticket: Row) -> Row:
        return {field: value for field, value in ticket.items() if field not in tables.INITIAL_TEXTS}

    def _with_all_custom_fields(self, given: Any) -> list[Row]:
        values = {row.get("id"): row.get("value") for row in given or [] if isinstance(row, dict)}
        unknown = values.keys() - {row["id"] for row in self.custom_fields}
        if unknown:
            raise invalid("customFields", f"Custom field {unknown.pop()} was not found.")
        return [{**row, "value": values.get(row["id"])} for row in self.custom_fields]

    def _choices(self, field: str, board: Board) -> Sequence[Row] | None:
        known: dict[str, Sequence[Row]] = {
            "status": board.statuses,
            "type": board.types,
            "subType": board.subtypes,
            "item": board.items,
            "team": board.teams,
            "priority": self.priorities,
            "source": self.sources,
            "owner": self.members,
            "serviceLocation": tables.LOCATIONS,
            "company": self._company_rows(),
        }
        return known.get(field)

    def _list_notes(self, request: Received, number: str) -> Reply:
        self._ticket(number)
        return self._listing(request, self.notes.get(int(number), []))

    def _add_note(self, request: Received, number: str) -> Reply:
        ticket, body = self._ticket(number), request.json
        if not isinstance(body, dict) or not isinstance(body.get("text"), str) or not body["text"]:
            raise missing("text", "note")
        if body.get("detailDescriptionFlag") and body.get("processNotifications", True):
            self.contact_mail.append((ticket["id"], body["text"]))
        return Reply(201, self.keep_note(ticket["id"], body))

    def keep_note(self, number: int, body: Row) -> Row:
        """Puts a note on a ticket, whoever writes it; returns it."""
        flags = {"detailDescriptionFlag": False, "internalAnalysisFlag": False, "resolutionFlag": False}
        note = {"id": self._next_id(), "ticketId": number, **flags, **body}
        self.notes.setdefault(number, []).append(note)
        return note

    def _list_attached(self, request: Received, number: str) -> Reply:
        self._ticket(number)
        return self._listing(request, [{"id": row} for row in self.ticket_configurations.get(int(number), [])])

    def _attach(self, request: Received, number: str) -> Reply:
        ticket = self._ticket(number)
        wanted = request.json.get("id") if isinstance(request.json, dict) else None
        if wanted is None:
            raise invalid("id", "id or deviceIdentifier is required.", "MissingRequiredField", "configuration")
        if wanted not in {row["id"] for row in self.configurations}:
            raise not_found(f"Configuration {wanted} not found")
        attached = self.ticket_configurations.setdefault(ticket["id"], [])
        if wanted in attached:
            raise invalid("id", "Configuration is already attached.", "ObjectExists", "configuration")
        attached.append(wanted)
        return Reply(201, {"id": wanted})

    # Companies and setup tables.

    def _company_rows(self) -> list[Row]:
        return [
            {"id": number, "identifier": identifier, "name": name, "deletedFlag": False}
            for number, identifier, name in self.companies
        ]

    def _list_companies(self, request: Received) -> Reply:
        return self._listing(request, self._company_rows())

    def _add_company(self, request: Received) -> Reply:
        identifier, name = new_company(request.json, [identifier for _, identifier, _ in self.companies])
        number = max([self._next_id(), *(taken + 1 for taken, _, _ in self.companies)])
        self.companies.append((number, identifier, name))
        return Reply(201, self._company_rows()[-1])

    def _list_configurations(self, request: Received) -> Reply:
        return self._listing(request, self.configurations, _CONFIGURATION_FIELDS)

    def _of_board(self, request: Received, number: str, table: str) -> Reply:
        board = self.boards.get(int(number))
        if board is None:
            raise not_found(f"Board {number} not found")
        rows: list[Row] = getattr(board, table)
        return self._listing(request, rows)

    def _shown(self, request: Received, row: Row) -> Reply:
        return Reply(
            200, select([self._public(row)], {"fields": request.query.get("fields", "")}, tables.TICKET_FIELDS)[0][0]
        )

    def _listing(self, request: Received, rows: Sequence[Row], known: frozenset[str] | None = None) -> Reply:
        if known is None and not rows:
            return Reply(200, [])
        if known is None:
            known = frozenset({"id", *(field for row in rows for field in row)})
        page, more = select(rows, request.query, known)
        if not more:
            return Reply(200, page)
        following = urlencode({**request.query, "page": int(request.query.get("page", "1")) + 1})
        return Reply(200, page, {"Link": f'<{self.url}{request.path}?{following}>; rel="next"'})
