"""ConnectWise PSA (formerly Manage): service tickets, looked up by `externalXRef`.

Facts are from the vendor's developer guide and its OpenAPI document 2026.4 unless a comment says otherwise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import structlog

from bridge.models import Company, Note, Organization, Ticket, TicketRef, TicketState
from connectors.base import (
    Choice,
    Connector,
    ConnectorContext,
    Finding,
    Misconfigured,
    NameOrId,
    OutcomeUnknown,
    Progress,
    Question,
    Rejected,
    TemplatePart,
    Unavailable,
)
from connectors.connectwise_api import ConnectWiseApi, Missing, UnknownCompanyId, one_line, row_id, text_of
from connectors.connectwise_companies import Companies
from connectors.connectwise_hosts import attach_host
from connectors.connectwise_lookup import Entry, Lookup
from connectors.connectwise_settings import CUSTOM_FIELD, ConnectWiseSettings, hosted_hint, is_hosted
from connectors.connectwise_tickets import Tickets
from connectors.questions import PRIORITIES

log = structlog.get_logger(__name__)

__all__ = ["ConnectWise", "ConnectWiseSettings", "PreparedTicket"]

#: Most characters of a ticket's `summary`.
SUMMARY_LIMIT = 100
#: Every site answers to this release, so links with it outlive an upgrade of a hosted site.
ANY_RELEASE = "v4_6_release"

T = TypeVar("T")

_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,50}")


@dataclass(frozen=True, slots=True)
class PreparedTicket:
    """The body of `POST /service/tickets`, every name resolved."""

    body: Mapping[str, Any]


class ConnectWise(Connector):
    """One board of one ConnectWise PSA."""

    type = "connectwise"
    settings_class = ConnectWiseSettings

    def __init__(
        self,
        name: str,
        settings: ConnectWiseSettings,
        context: ConnectorContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, settings, context)
        self.settings = settings
        self.api = ConnectWiseApi(name, settings, context)
        self.lookup = Lookup(self.api, clock)
        self._companies = Companies(self.api, clock)
        self._tickets = Tickets(self.api, self.lookup, settings)

    @classmethod
    def questions(cls) -> Sequence[Question]:
        return (
            Question("url", "Site", default="https://api-na.myconnectwise.net"),
            Question("company_id", "Company ID", "What people type in as company when they log in."),
            Question("public_key", "Public key", "Of an API member: System > Members > API Members > API Keys."),
            Question("private_key", "Private key"),
            Question("client_id", "Client ID", "Of your integration, from developer.connectwise.com."),
            Question("board", "Service board of new tickets", choices=True),
            Question("status", "Status of new tickets", otherwise="the board's default", choices=True),
            Question("closed_status", "Status of finished tickets", otherwise="the board's first", choices=True),
            Question("default_company", "Company for organizations without one of their own", choices=True),
            *PRIORITIES,
        )

    def choices(self, key: str) -> Sequence[Choice] | None:
        settings, lookup = self.settings, self.lookup
        if key == "default_company":
            return [Choice(company.id, company.name) for company in self.companies()]
        if key == "board":
            entries = lookup.boards()
        elif key in ("status", "closed_status"):
            entries = lookup.statuses(lookup.board(settings.board))
            entries = [entry for entry in entries if entry.closed == (key == "closed_status")]
        elif key.startswith("priorities."):
            entries = lookup.priorities()
        else:
            return None
        return [Choice(str(entry.id), entry.name, entry.default) for entry in entries]

    def parts(self) -> Sequence[TemplatePart]:
        return (
            TemplatePart("title", "title.j2", limit=SUMMARY_LIMIT, single_line=True),
            TemplatePart("text", "text.j2"),
            TemplatePart("notice", "notice.j2", single_line=True),
        )

    def system(self) -> str:
        return f"{urlsplit(self.settings.url).netloc}/{self.settings.company_id}".lower()

    def companies(self, fresh: bool = False) -> Sequence[Company]:
        return self._companies.listed(younger_than=0) if fresh else self._companies.listed()

    def company(self, value: NameOrId) -> Company | None:
        return self._companies.one(value)

    def find(self, reference: str) -> list[TicketRef]:
        _assert_plain(reference)
        name = self.settings.reference_field
        rows = self.api.rows(
            "/service/tickets",
            {"conditions": f'{name}="{reference}"', "fields": f"id,{name}", "orderBy": "id asc", "pageSize": 25},
        )
        found = []
        for row in rows:
            held = text_of(row, name).strip()
            if held == reference:
                found.append(self._ref(_believable_id(row)))
            elif held.casefold() != reference.casefold():  # its database compares without regard to case
                raise Unavailable(f"ConnectWise was asked for tickets with {name} {reference} and answered with others")
        return sorted(found, key=lambda ref: int(ref.id))

    def prepare(self, ticket: Ticket) -> PreparedTicket:
        _assert_plain(ticket.reference)
        if ticket.company is None:
            raise Misconfigured("no company is known for this report's organization; set default_company")
        settings, lookup = self.settings, self.lookup
        board = lookup.board(settings.board)
        body = self._extra_fields(ticket.fields, board)
        body["summary"] = ticket.title
        body["board"] = {"id": board.id}
        if settings.status != "":
            body["status"] = {"id": lookup.status("status", settings.status, board).id}
        body["company"] = {"id": _company_id(ticket.company.company)}
        priority = settings.priority_for(ticket.source_severity or ticket.severity)
        if priority is not None:
            body["priority"] = {"id": lookup.priority(priority).id}
        body[settings.reference_field] = ticket.reference
        text = _not_like_a_note(ticket.text, ticket.reference)
        if settings.visibility == "internal":
            # The description is what customers see in portal and mail, the internal analysis never is. Technicians
            # are still notified: processNotifications stays as the board has it, only mail to the contact is off.
            body["initialDescription"] = ticket.notice
            body["initialInternalAnalysis"] = text
            body["automaticEmailContactFlag"] = False
            body["automaticEmailCcFlag"] = False
        else:
            body["initialDescription"] = text
        return PreparedTicket(body)

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        answer = self.api.request("POST", "/service/tickets", intent="create", json=dict(prepared.body))
        if not row_id(answer.json):
            raise OutcomeUnknown(f"ConnectWise answered {answer.status} to the new ticket, but without its id")
        status = row_id(answer.json.get("status"))
        return self._ref(row_id(answer.json), str(status) if status else "")

    def _extra_fields(self, fields: Mapping[str, str | int | float | bool], board: Entry) -> dict[str, Any]:
        # A template may render to nothing where a field is not wanted.
        given = {name: value for name, value in fields.items() if value != ""}
        custom = {k.removeprefix(CUSTOM_FIELD): v for k, v in given.items() if k.startswith(CUSTOM_FIELD)}
        body = {k: self.lookup.field(k, v, board) for k, v in given.items() if not k.startswith(CUSTOM_FIELD)}
        if custom:
            body["customFields"] = self.lookup.custom_fields(custom)
        return body

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        """Attaches the configuration that is the report's host, when exactly one fits and the API member may."""
        if ticket.agent is None or ticket.company is None:
            return ref
        try:
            attach_host(self.api, ticket.agent, _company_id(ticket.company.company), _ticket_id(ref.id))
        except (Misconfigured, Rejected) as refused:
            log.warning("host not linked", connector=self.name, ticket=ref.id, reason=str(refused))
        return self._ref(_ticket_id(ref.id), ref.status)

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        """Adds the note unless the ticket already has one with its marker, so that a repeat changes nothing."""
        self._tickets.add_note(_ticket_id(ref.id), _marker(reference, note.key), note)

    def has_note(self, ref: TicketRef, reference: str, key: str) -> bool:
        return self._tickets.has_note(_ticket_id(ref.id), _marker(reference, key))

    def look(self, ref: TicketRef) -> TicketState:
        return self._tickets.look(_ticket_id(ref.id))

    def untouched(self, state: TicketState) -> bool:
        own = Entry(int(state.status or 0), state.status_name)
        statuses = self.settings.untouched_statuses
        if self.settings.status != "":
            statuses = [*statuses, self.settings.status]
        else:
            with suppress(Misconfigured):  # no right to the setup tables
                statuses = [*statuses, self.lookup.open_status(self.lookup.board(self.settings.board)).id]
        return any(
            own.id == status if isinstance(status, int) else own.answers_to(status) or status.strip() == state.status
            for status in statuses
        )

    def raise_priority(self, ref: TicketRef, before: str, now: str) -> bool:
        return self._tickets.raise_priority(_ticket_id(ref.id), before, now)

    def close_ticket(self, ref: TicketRef, resolution: str) -> str:
        """Sets the closed status only: the one field for a resolution is taken with the create alone."""
        return self._tickets.close(_ticket_id(ref.id))

    def reopen_ticket(self, ref: TicketRef, status: str) -> str:
        return self._tickets.reopen(_ticket_id(ref.id), status)

    def create_company(self, organization: Organization, reference: str) -> Company:
        _assert_plain(reference)
        return self._companies.create(organization, reference)

    def link(self, ticket: str, reference: str) -> TicketRef:
        _assert_plain(reference)
        name = self.settings.reference_field
        number = _ticket_id(ticket)
        try:
            answer = self.api.request("GET", f"/service/tickets/{number}", params={"fields": f"id,{name}"})
        except Missing:
            self._try_credentials()  # wrong ones are answered 404 as well
            raise Rejected(f"ConnectWise has no ticket {number}, or the API member cannot see it") from None
        if row_id(answer.json) != number:
            raise Unavailable(f"ConnectWise was asked for ticket {number} and answered with something else")
        held = text_of(answer.json, name).strip()
        if held and held != reference:
            # Also another program's: overwriting it would quietly break that program's link.
            raise Rejected(f"ticket {number} already carries {one_line(held, 60)!r} in {name}; clear it there first")
        if held != reference:
            # Not RFC 6902: the path is the bare field name.
            change = [{"op": "replace", "path": name, "value": reference}]
            answer = self.api.request("PATCH", f"/service/tickets/{number}", intent="update", json=change)
            if isinstance(answer.json, dict) and name in answer.json and text_of(answer.json, name) != reference:
                raise Rejected(f"ticket {number} did not keep {reference} in {name}; is the field read-only?")
        return self._ref(number)

    def check(self) -> list[Finding]:
        self.lookup.forget()
        self._companies.forget()
        settings, lookup = self.settings, self.lookup
        findings: list[Finding] = []

        def attempt(setting: str, step: Callable[..., T], *args: Any) -> T | None:
            try:
                return step(*args)
            except (Misconfigured, Rejected) as error:
                named = "company_id" if isinstance(error, UnknownCompanyId) else setting
                findings.append(Finding(named, str(error)))
                return None

        # Without these two nothing else can be tried.
        if attempt("url", self.api.base) is None or attempt("public_key", self._try_credentials) is None:
            return findings
        if hint := hosted_hint(settings.url):
            findings.append(Finding("url", hint))
        attempt("default_company", self._check_default_company)
        attempt("reference_field", self.find, "huntress-0-0")
        for severity, priority in settings.priorities.items():
            attempt(f"priorities.{severity}", lookup.priority, priority)
        board = attempt("board", lookup.board, settings.board)
        if board is None:
            return findings
        if settings.status != "":
            attempt("status", lookup.status, "status", settings.status, board)
        attempt("closed_status", lookup.closed_status, settings.closed_status, board)
        for status in settings.untouched_statuses:
            attempt("untouched_statuses", lookup.status, "untouched_statuses", status, board)
        for name, value in settings.fields.items():
            if not (isinstance(value, str) and "{" in value):  # Jinja is only known per ticket
                attempt(f"fields.{name}", self._extra_fields, {name: value}, board)
        return findings

    def _try_credentials(self) -> bool:
        # Not /system/info, which a server of one's own was seen to answer without any.
        self.api.rows("/service/tickets", {"pageSize": 1, "fields": "id"})
        return True

    def _check_default_company(self) -> None:
        if self.settings.default_company is None:
            raise Misconfigured(
                "default_company is not set: ConnectWise takes no ticket without a company, so reports of "
                "organizations without one would wait; name a catch-all company"
            )
        self._companies.check("default_company", self.settings.default_company)

    def close(self) -> None:
        self.api.close()

    def _ref(self, ticket_id: int, status: str = "") -> TicketRef:
        return TicketRef(str(ticket_id), number=str(ticket_id), url=self._url(ticket_id), status=status)

    def _url(self, ticket_id: int) -> str:
        """Deep link to the ticket's page (form as public integrations use it); people log in without the `api-`."""
        site = self.settings.url
        if is_hosted(site):
            site = site.replace("://api-", "://", 1)
        query = urlencode(
            {
                "locale": "en_US",
                "companyName": self.settings.company_id,
                "recordType": "ServiceFv",
                "recid": ticket_id,
            },
            quote_via=quote,
        )
        return f"{site}/{ANY_RELEASE}/services/system_io/router/openrecord.rails?{query}"


def _assert_plain(reference: str) -> None:
    if not _REFERENCE.fullmatch(reference):
        raise ValueError("a reference is 1 to 50 characters of [A-Za-z0-9-]")


def _marker(reference: str, key: str) -> str:
    _assert_plain(reference)
    return f"[{reference}/{key}]"


def _not_like_a_note(text: str, reference: str) -> str:
    """`text` of a new ticket, which ConnectWise keeps as a note: its end must not pass for the marker of one."""
    _, quoted, end = text.rstrip().rpartition(f"[{reference}/")
    return f"{text}\n\n[{reference}]" if quoted and end.find("]") == len(end) - 1 else text


def _ticket_id(ticket: str) -> int:
    digits = ticket.strip().removeprefix("#")
    if not re.fullmatch(r"[0-9]{1,10}", digits):
        raise Rejected(f"{one_line(ticket, 40)!r} is no ConnectWise ticket number")
    return int(digits)


def _company_id(company: Company) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", company.id):
        raise Misconfigured(f"company {one_line(company.id, 40)!r} is no ConnectWise company id")
    return int(company.id)


def _believable_id(row: Mapping[str, Any]) -> int:
    if not row_id(row):
        raise Unavailable("ConnectWise answered a search with a ticket without an id")
    return row_id(row)
