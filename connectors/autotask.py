"""Autotask PSA (Datto/Kaseya): tickets, looked up by `externalID`.

Facts are from the vendor's developer help, its OpenAPI documents and, where those are silent, from what public clients
observed. A ticket's description is shown to contacts in the client portal. With `visibility = "internal"` it is
therefore only the neutral notice, and the incident's text follows as internal notes, in `complete`; so does, with
`visibility = "customer"`, what the description is too short for.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from bridge.models import Agent, Company, Note, Organization, Ticket, TicketRef, TicketState
from connectors.autotask_api import AutotaskApi, Refused, Unanswered, made_despite
from connectors.autotask_catalog import Catalog
from connectors.autotask_check import findings
from connectors.autotask_companies import Companies
from connectors.autotask_fields import fit
from connectors.autotask_following import Following
from connectors.autotask_hosts import find_host
from connectors.autotask_notes import DESCRIPTION_LENGTH, Notes, known
from connectors.autotask_settings import THREADS, AutotaskSettings
from connectors.base import (
    Choice,
    Connector,
    ConnectorContext,
    Finding,
    Misconfigured,
    NameOrId,
    Progress,
    Question,
    Rejected,
    TemplatePart,
    Unavailable,
)
from connectors.questions import PRIORITIES

#: Ticket fields whose picklists hold what a setting may say.
PICK_LISTS = {"queue": "queueID", "status": "status", "closed_status": "status", "priorities": "priority"}
#: Length where the tenant names none, from field information of live tenants.
TITLE_LENGTH = 255

_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,50}")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PreparedTicket:
    """The body of `POST /Tickets`, every name resolved."""

    reference: str
    body: Mapping[str, Any]


class Autotask(Connector):
    """One queue of one Autotask tenant."""

    type = "autotask"
    settings_class = AutotaskSettings
    max_concurrency = THREADS

    def __init__(
        self,
        name: str,
        settings: AutotaskSettings,
        context: ConnectorContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, settings, context)
        self.settings = settings
        self.api = AutotaskApi(name, settings, context, clock)
        self.catalog = Catalog(self.api, settings, clock)
        self.directory = Companies(self.api, settings, clock)
        self.notes = Notes(self.api, self.catalog)
        self.following = Following(self.api, self.catalog, settings)

    def close(self) -> None:
        self.api.close()

    @classmethod
    def questions(cls) -> Sequence[Question]:
        return (
            Question("username", "API user", "User name (key) of an API-only user, with its domain."),
            Question("secret", "Its secret"),
            Question("integration_code", "Integration code", "The user's tracking identifier, 27 characters."),
            Question("queue", "Queue of new tickets", otherwise="left to Autotask", choices=True),
            Question("status", "Status of new tickets", choices=True),
            Question("closed_status", "Status of finished tickets", choices=True),
            Question("default_company", "Company for organizations without one of their own", choices=True),
            *PRIORITIES,
        )

    def choices(self, key: str) -> Sequence[Choice] | None:
        if key == "default_company":
            return [Choice(company.id, company.name) for company in self.companies()]
        name = PICK_LISTS.get(key.partition(".")[0])
        field = self.catalog.ticket_fields().get(name) if name else None
        if field is None:
            return None
        return [Choice(str(choice.id), choice.label) for choice in field.choices if choice.active]

    def parts(self) -> Sequence[TemplatePart]:
        """The limits are the tenant's own, asked for once; while it cannot be asked, the documented ones."""
        fields = known(self.catalog.known_ticket_fields)
        description = fields.length("description", DESCRIPTION_LENGTH)
        text = self.notes.text_room()
        if not self._internal:
            text = description + (text if self.notes.possible() else 0)
        return (
            TemplatePart("title", "title.j2", limit=fields.length("title", TITLE_LENGTH), single_line=True),
            TemplatePart("text", "text.j2", limit=text),
            TemplatePart("notice", "notice.j2", limit=description, single_line=True),
        )

    def system(self) -> str:
        """The tenant, by the domain of the API user's name: the best that is known without asking, in any zone."""
        user, _, domain = self.settings.username.lower().rpartition("@")
        return f"autotask/{domain or user}"

    def slot_group(self) -> str:
        """Autotask counts threads per tracking identifier in a tenant, so connectors alike in both share theirs."""
        identity = f"{self.system()}\n{self.settings.integration_code.get_secret_value()}"
        return f"autotask-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def check(self) -> list[Finding]:
        return findings(self.settings, self.api, self.catalog, self.directory, self.find)

    def companies(self, fresh: bool = False) -> Sequence[Company]:
        return self.directory.all(fresh)

    def company(self, value: NameOrId) -> Company | None:
        return self.directory.named(value)

    def create_company(self, organization: Organization, reference: str) -> Company:
        _assert_plain(reference)
        return self.directory.make(organization, reference)

    @property
    def _internal(self) -> bool:
        return self.settings.visibility == "internal"

    # Finding and creating

    def find(self, reference: str) -> list[TicketRef]:
        _assert_plain(reference)
        field, custom = self.catalog.reference_field()
        wanted: dict[str, Any] = {"op": "eq", "field": field.name, "value": reference}
        if custom:
            items = self.api.query("Tickets", [wanted | {"udf": True}])
        else:
            items = self.api.query("Tickets", [wanted], ["id", "ticketNumber", field.name])
        found = []
        for item in items:
            held = _reference_in(item, field.name, custom)
            if held == reference:
                found.append(self._ref(item))
            elif held.casefold() != reference.casefold():  # its database compares without regard to case
                raise Unavailable(
                    f"Autotask was asked for tickets with {field.name} {reference} and answered with others"
                )
        return sorted(found, key=lambda ref: int(ref.id))

    def prepare(self, ticket: Ticket) -> PreparedTicket:
        _assert_plain(ticket.reference)
        if ticket.company is None:
            raise Misconfigured("no company is known for this report's organization; set default_company")
        settings, catalog = self.settings, self.catalog
        fields = catalog.ticket_fields()
        body: dict[str, Any] = dict(catalog.standard_values(ticket.fields))
        body["companyID"] = _company_id(ticket.company.company)
        body["title"] = fit(ticket.title, fields.length("title", TITLE_LENGTH))
        if self._internal:
            body["description"], more = (
                fit(ticket.notice, fields.length("description", DESCRIPTION_LENGTH)),
                ticket.text,
            )
        else:
            body["description"], more = self.notes.divide(ticket.text)
        if settings.queue != "":
            body["queueID"] = catalog.pick("queue", "queueID", settings.queue)
        body["status"] = catalog.pick("status", "status", settings.status)
        severity = ticket.source_severity or ticket.severity
        priority = settings.priority_for(severity)
        if priority is not None:
            body["priority"] = catalog.pick(f"priorities ({severity})", "priority", priority)
        if custom := catalog.custom_values(ticket.fields):
            body["userDefinedFields"] = custom
        self._write_reference(body, ticket.reference)
        if more:
            self.notes.can_be_made()  # now: a ticket whose text cannot follow must not be made
        return PreparedTicket(ticket.reference, body)

    def _write_reference(self, body: dict[str, Any], reference: str) -> None:
        field, custom = self.catalog.reference_field()
        if field.length is not None and len(reference) > field.length:
            raise Misconfigured(
                f"reference_field: {field.name} takes {field.length} characters, too few for {reference}; "
                "take another field"
            )
        if custom:
            body["userDefinedFields"] = [*body.get("userDefinedFields", []), {"name": field.name, "value": reference}]
        else:
            body[field.name] = reference

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        """One `POST /Tickets`. A refusal comes as a status 500, so it is believed only after a look-up."""
        try:
            made = self._ref({"id": self.api.change("POST", "Tickets", dict(prepared.body), intent="create")})
        except Refused as refused:
            made = made_despite(refused, "ticket", lambda: self.find(prepared.reference))[0]
        return replace(made, status=str(prepared.body["status"]))

    def _ref(self, item: Mapping[str, Any]) -> TicketRef:
        ticket_id = item.get("id")
        if not isinstance(ticket_id, int) or isinstance(ticket_id, bool) or ticket_id <= 0:
            raise Unavailable("Autotask answered with a ticket that has no id")
        number = item.get("ticketNumber")
        url = f"{self.api.zone().web_url}Mvc/ServiceDesk/TicketDetail.mvc?ticketId={ticket_id}"
        return TicketRef(id=str(ticket_id), number=number if isinstance(number, str) else "", url=url)

    # After creating

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        """Number and link, the internal text, the host. Safe to repeat, and to be repeated until it succeeds.

        Autotask's Duplicate Ticket Handling, a setting of the tenant, may answer a create with an older ticket's id.
        Such a ticket carries another reference; that raises `Rejected`: a person must say where the report belongs.
        """
        item = self.following.ticket(ref)
        self._confirm_reference(item, ticket)
        if self._internal:
            self.notes.add_text(ref.id, ticket)
        else:
            self.notes.add_rest(ref.id, ticket, str(item.get("description") or ""))
        if ticket.agent and not item.get("configurationItemID"):
            self._attach_host(item, ticket.agent)
        return replace(self._ref(item), status=ref.status)

    def _confirm_reference(self, item: Mapping[str, Any], ticket: Ticket) -> None:
        field, custom = self.catalog.reference_field()
        held = _reference_in(item, field.name, custom)
        if held == ticket.reference:
            return
        fitted = fit(ticket.title, self.catalog.ticket_fields().length("title", TITLE_LENGTH))
        if not held and item.get("title") == fitted:
            # Ours, but the reference was not kept or was emptied; without it the ticket could not be found again.
            self._patch_reference(item, ticket.reference)
            return
        raise Rejected(
            f"Autotask answered the create with ticket {item.get('ticketNumber') or item.get('id')}, whose "
            f"{field.name} is {held[:60]!r} and not {ticket.reference}: its Duplicate Ticket Handling seems to have "
            "taken the report for a duplicate. Exempt this integration there and retry, or link the right ticket"
        )

    def _patch_reference(self, item: Mapping[str, Any], reference: str) -> None:
        body: dict[str, Any] = {"id": item["id"]}
        self._write_reference(body, reference)
        self.api.change("PATCH", "Tickets", body)

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        """An internal note; one that is there already is not added again."""
        self.notes.add(ref.id, _marker(reference, note.key), note.title, note.text)

    def has_note(self, ref: TicketRef, reference: str, key: str) -> bool:
        return self.notes.has(ref.id, _marker(reference, key))

    def _attach_host(self, item: Mapping[str, Any], agent: Agent) -> None:
        """Sets the configuration item that is this agent; where none is certain, the ticket does without."""
        try:
            host = find_host(self.api, item.get("companyID"), agent)
            if host is not None:
                self.api.change("PATCH", "Tickets", {"id": item["id"], "configurationItemID": host})
        except (Misconfigured, Rejected, Unanswered) as refused:
            log.warning("host not linked", connector=self.name, ticket=item.get("id"), reason=str(refused))

    # Following

    def look(self, ref: TicketRef) -> TicketState:
        return self.following.look(ref)

    def untouched(self, state: TicketState) -> bool:
        return self.following.untouched(state)

    def raise_priority(self, ref: TicketRef, before: str, now: str) -> bool:
        return self.following.raise_priority(ref, before, now)

    def close_ticket(self, ref: TicketRef, resolution: str) -> str:
        return self.following.close(ref, resolution)

    def reopen_ticket(self, ref: TicketRef, status: str) -> str:
        return self.following.reopen(ref, status)

    # Linking

    def link(self, ticket: str, reference: str) -> TicketRef:
        _assert_plain(reference)
        item = self._named_ticket(ticket.strip().removeprefix("#"))
        if item is None:
            raise Rejected(f"Autotask has no ticket {ticket!r}; give its id or its number, such as T20250131.0012")
        field, custom = self.catalog.reference_field()
        held = _reference_in(item, field.name, custom)
        ref = self._ref(item)
        if held == reference:
            return ref
        if held.startswith("huntress-"):
            raise Rejected(f"Autotask's ticket {ref.number or ref.id} belongs to another report ({held})")
        if held:
            log.warning("reference replaced", connector=self.name, ticket=ref.id, field=field.name, before=held[:60])
        self._patch_reference(item, reference)
        return ref

    def _named_ticket(self, name: str) -> Mapping[str, Any] | None:
        if name.isascii() and name.isdecimal():
            return self.api.item(f"Tickets/{int(name)}")
        items = self.api.query("Tickets", [{"op": "eq", "field": "ticketNumber", "value": name}])
        same = [item for item in items if str(item.get("ticketNumber") or "").casefold() == name.casefold()]
        return same[0] if len(same) == 1 else None


def _company_id(company: Company) -> int:
    if not (company.id.isascii() and company.id.isdecimal()):
        raise Misconfigured(f"{company.id!r} is not the id of an Autotask company; check the organizations file")
    return int(company.id)


def _marker(reference: str, key: str) -> str:
    _assert_plain(reference)
    return f"[{reference}/{key}]"


def _assert_plain(reference: str) -> None:
    if not _REFERENCE.fullmatch(reference):
        raise ValueError(f"{reference!r} is not a reference")


def _reference_in(item: Mapping[str, Any], name: str, custom: bool) -> str:
    if not custom:
        return str(item.get(name) or "").strip()
    fields = item.get("userDefinedFields")
    for field in fields if isinstance(fields, list) else []:
        if isinstance(field, dict) and str(field.get("name") or "").casefold() == name.casefold():
            return str(field.get("value") or "").strip()
    return ""
