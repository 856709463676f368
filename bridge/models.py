"""The small frozen models that everything inside speaks in.

The outside world is parsed into these once, at the edge (`bridge.huntress`, each connector); inside there are no raw
dicts. Times are timezone-aware datetimes in UTC, ids of the source are integers, ids of ticket systems are strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

#: Severities the source documents, most urgent first. Any other value queues and routes as ``high``.
SEVERITIES = ("critical", "high", "low")


#: Statuses of an incident report that is not over, in the vendor's current dialect.
OPEN_STATUSES = ("sent", "auto_remediating")
#: Statuses of an escalation or platform action that is not over; `sent` is in answers only, it cannot be listed by.
FURTHER_OPEN_STATUSES = ("open", "overdue", "sent")
#: Statuses of a report, escalation or platform action that is over, in either dialect; no other is known to mean that.
FINISHED_STATUSES = ("closed", "dismissed", "partner_dismissed", "deleting", "resolved")
#: The bridge's own word for a report that a source without single reads lists no longer (`bridge.poller`).
UNLISTED = "unlisted"

#: What the store keys on: a report's number, `e<number>` for an escalation, `p<number>` for a platform action.
ReportKey = int | str


def report_key(text: str) -> ReportKey:
    """The key that was written as `text`. Raises `ValueError` when it is none."""
    if text.isascii() and text.isdecimal():
        return int(text)
    if re.fullmatch(r"[ep][0-9]{1,19}", text):
        return text
    raise ValueError(
        f"{text!r} is no report id; an escalation's is e and its number, a platform action's p and its number"
    )


def severity_rank(severity: str) -> int:
    """Place in the queue: 0 critical, 1 high and everything unknown, 2 low."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1


@dataclass(frozen=True, slots=True)
class Account:
    """The Huntress account that a key belongs to (`GET /v1/account`)."""

    id: int
    name: str = ""
    subdomain: str = ""


@dataclass(frozen=True, slots=True)
class Organization:
    """A managed tenant of the account: one customer of the service provider."""

    id: int
    name: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """A monitored endpoint. Empty strings and tuples stand for what the source did not give."""

    id: int
    organization_id: int | None = None
    hostname: str = ""
    domain_name: str = ""
    platform: str = ""
    os: str = ""
    serial_number: str = ""
    ipv4_address: str = ""
    external_ip: str = ""
    mac_addresses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    firewall_status: str = ""
    last_callback_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """A person who may use the account, and what for. A person with several roles has several memberships."""

    id: int
    #: The role: `Admin`, `Security Engineer`, `User`, `Read-only`, …
    permissions: str = ""
    name: str = ""
    email: str = ""
    #: The one organization that it is for; None: the whole account.
    organization: Organization | None = None


@dataclass(frozen=True, slots=True)
class Remediation:
    """One thing Huntress asks to be done, with its state (`unapproved`, `approved`, `completed`, …)."""

    id: int | None = None
    type: str = ""
    action: str = ""
    #: (name, value) pairs; the source sends a list, an object or a plain string.
    parameters: tuple[tuple[str, str], ...] = ()
    status: str = ""
    approved_by: str = ""
    completed_at: datetime | None = None


class Kind(StrEnum):
    """What the source sends people. All three become tickets in the same way."""

    INCIDENT_REPORT = "incident_report"
    ESCALATION = "escalation"
    PLATFORM_ACTION = "platform_action"


@dataclass(frozen=True, slots=True)
class IncidentReport:
    """One incident report as the source lists it now. Only `id` is certain; templates cope with the rest missing.

    Escalations and platform actions take the same form; `kind` tells them apart, and `key` is unique among all.
    """

    id: int
    kind: Kind = Kind.INCIDENT_REPORT
    account_id: int | None = None
    organization_id: int | None = None
    agent_id: int | None = None
    subject: str = ""
    summary: str = ""
    body: str = ""
    severity: str = ""
    status: str = ""
    platform: str = ""
    indicator_types: tuple[str, ...] = ()
    indicator_counts: tuple[tuple[str, int], ...] = ()
    remediations: tuple[Remediation, ...] = ()
    #: How many remediations the source has; it lists only the first ten.
    remediations_total: int = 0
    created_at: datetime | None = None
    sent_at: datetime | None = None
    closed_at: datetime | None = None
    status_updated_at: datetime | None = None
    updated_at: datetime | None = None
    #: Of an escalation or platform action: the source's own type and subtype.
    type: str = ""
    subtype: str = ""
    #: Of an escalation or platform action: every organization it names; none: it concerns the account.
    organizations: tuple[Organization, ...] = ()
    #: The source's own severity, where `severity` is another: see `bridge.broken_integration`.
    given_severity: str = ""

    @property
    def key(self) -> ReportKey:
        """What the store keys on."""
        return self.id if self.kind is Kind.INCIDENT_REPORT else f"{self.kind.value[0]}{self.id}"

    @property
    def over(self) -> bool:
        """Does the source say that it is over?"""
        return self.status in FINISHED_STATUSES or self.status == UNLISTED

    @property
    def since(self) -> datetime | None:
        """When the incident was notified: `sent_at`, else `created_at` (the `reports` dialect has no other)."""
        return self.sent_at or self.created_at


def nothing_but(key: ReportKey, severity: str = "") -> IncidentReport:
    """The report of which no more is known than its key, and perhaps its severity."""
    if isinstance(key, int):
        return IncidentReport(key, severity=severity)
    kind = Kind.ESCALATION if key.startswith("e") else Kind.PLATFORM_ACTION
    return IncidentReport(int(key[1:]), kind, severity=severity)


class CompanySource(StrEnum):
    """How a company was found for an organization."""

    FILE = "file"
    NAME = "name"
    CATCH_ALL = "catch-all"


@dataclass(frozen=True, slots=True)
class Company:
    """A customer in a ticket system. `id` is what that system wants in a ticket, as text."""

    id: str
    name: str = ""
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class CompanyMatch:
    """The company chosen for an organization in one connector, and why."""

    company: Company
    source: CompanySource
    #: One sentence for people, e.g. why the catch-all had to be taken.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a connector is asked to create. All text is rendered, cleaned and within the connector's declared limits."""

    reference: str
    report_id: ReportKey
    title: str
    #: The whole incident as plain text.
    text: str
    #: One neutral line without incident text, for fields that a customer contact may see (`visibility = "internal"`).
    notice: str
    #: The whole incident as an HTML document; only for connectors with an `html.j2`.
    html: str = ""
    #: `critical`, `high` or `low`; an unknown severity arrives here as `high`.
    severity: str = "high"
    #: The source's own word for the severity, e.g. to look up in `priorities`.
    source_severity: str = ""
    organization: Organization | None = None
    agent: Agent | None = None
    company: CompanyMatch | None = None
    #: Configured extra ticket fields by their API name, Jinja values already rendered.
    fields: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    #: For e-mail: replaces the configured recipients (column `recipients` of the organizations file).
    recipients: tuple[str, ...] = ()
    #: The ticket that this one follows upon, when the report was opened again after its end.
    former: TicketRef | None = None


@dataclass(frozen=True, slots=True)
class TicketRef:
    """A fact: this ticket exists in the ticket system."""

    id: str
    number: str = ""
    url: str = ""
    #: Id of the status that it was created with, where the answer to the create, or the request, says so.
    status: str = ""


@dataclass(frozen=True, slots=True)
class TicketState:
    """How a ticket stands in its ticket system now."""

    #: Id and name of its status.
    status: str = ""
    status_name: str = ""
    closed: bool = False
    #: Why it can be followed no longer, as a sentence: deleted, merged into another, converted. Empty: it is there.
    gone: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Text to add to an existing ticket. `key` names its cause and makes its marker `[<reference>/<key>]` unique."""

    key: str
    title: str
    text: str
    #: For e-mail: replaces the configured recipients, as in `Ticket`.
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person is told about the bridge itself. All text is cleaned."""

    #: Names this notice for good, also when it has to be sent again.
    key: str
    subject: str
    text: str
    #: Key of the notice that this one takes back; empty: none.
    answers: str = ""


class DeliveryState(StrEnum):
    """Where one report's way to one connector stands."""

    PENDING = "pending"
    CREATING = "creating"
    CREATED = "created"
    REJECTED = "rejected"
    HELD = "held"
    CLOSED = "closed"
    HANDLED = "handled"
    GONE = "gone"


#: Nothing more is to be done for these until a person or the report changes something.
SETTLED = frozenset({DeliveryState.CREATED, DeliveryState.CLOSED, DeliveryState.HANDLED, DeliveryState.GONE})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report's way to one connector, as the store holds it. Times are seconds since the epoch by Redis' clock."""

    report_id: ReportKey
    connector: str
    state: DeliveryState
    organization_id: int | None
    reference: str
    ticket: TicketRef | None
    attempts: int
    reason: str
    next_attempt_at: float | None
    updated_at: float
    severity: str = ""
    #: What is still to be done to the ticket: `complete`, `verify`, `details`, `plain`, `duplicate`, `comment-…`.
    todo: tuple[str, ...] = ()
    #: Id of a second ticket that carries the same reference.
    other_ticket: str = ""
    #: What people should know of a ticket that exists; also part of `reason`.
    remark: str = ""
    #: When the bridge first had this delivery to make.
    created_at: float | None = None
    #: When the create request for the ticket was sent, as far as the bridge sent it, and when the ticket was known.
    made_at: float | None = None
    recorded_at: float | None = None
    #: Of the report as the store has it: subject, agent, when it was notified. Only where a list was read with them.
    subject: str = ""
    agent_id: int | None = None
    sent_at: str = ""
