"""The setup tables of the pretend ConnectWise: boards with what belongs to them, priorities, sources, members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


def _rows(first_id: int, *names: str) -> list[Row]:
    return [{"id": first_id + number, "name": name} for number, name in enumerate(names)]


def _statuses(first_id: int, *names: str) -> list[Row]:
    """Statuses in order; the first is the default, those named `Closed` close a ticket."""
    return [
        {**row, "defaultFlag": number == 0, "inactive": False, "closedStatus": row["name"] == "Closed"}
        for number, row in enumerate(_rows(first_id, *names))
    ]


@dataclass
class Board:
    """A service board. As in the real one, two boards have statuses of the same name with different ids."""

    id: int
    name: str
    statuses: list[Row]
    types: list[Row] = field(default_factory=list)
    subtypes: list[Row] = field(default_factory=list)
    items: list[Row] = field(default_factory=list)
    teams: list[Row] = field(default_factory=list)
    inactive: bool = False
    #: Field names without which this board takes no ticket.
    required: tuple[str, ...] = ()

    def info(self) -> Row:
        return {"id": self.id, "name": self.name, "projectFlag": False, "inactiveFlag": self.inactive}


def default_boards() -> dict[int, Board]:
    service = Board(
        1,
        "Service Desk",
        _statuses(101, "New", "In Progress", "Waiting", "Closed"),
        types=_rows(11, "Service Request", "Incident"),
        teams=_rows(41, "Service Team"),
    )
    security = Board(
        21,
        "Security",
        _statuses(201, "New", "In Progress", "Closed"),
        types=_rows(31, "Security", "False Positive"),
        subtypes=_rows(51, "Malware", "Identity"),
        items=_rows(61, "Endpoint", "Mailbox"),
        teams=_rows(42, "Security Team"),
    )
    return {board.id: board for board in (service, security)}


#: Ids as they often are: in no order that could be guessed from the names.
PRIORITIES = [
    {"id": 6, "name": "Priority 1 - Critical", "level": "Critical", "sortOrder": 1, "defaultFlag": False},
    {"id": 15, "name": "Priority 2 - High", "level": "High", "sortOrder": 2, "defaultFlag": False},
    {"id": 8, "name": "Priority 3 - Medium", "level": "Medium", "sortOrder": 3, "defaultFlag": True},
    {"id": 7, "name": "Priority 4 - Low", "level": "Low", "sortOrder": 4, "defaultFlag": False},
]
SOURCES = _rows(2, "Phone", "Huntress", "Email Connector")
LOCATIONS = _rows(1, "On-Site", "Remote", "In-House")
MEMBERS = [
    {"id": 301, "identifier": "dispatch", "firstName": "Service", "lastName": "Dispatcher", "inactiveFlag": False},
    {"id": 302, "identifier": "former", "firstName": "Former", "lastName": "Member", "inactiveFlag": True},
]
#: Every ticket lists all custom fields, filled or not.
CUSTOM_FIELDS = [{"id": 5, "caption": "Tier", "type": "Text", "entryMethod": "EntryField", "numberOfDecimals": 0}]

#: Most characters of a ticket's texts, from the OpenAPI document 2026.4.
TEXT_LIMITS = {
    "summary": 100,
    "externalXRef": 100,
    "poNumber": 50,
    "siteName": 156,
    "contactName": 62,
    "contactEmailAddress": 250,
    "contactPhoneNumber": 20,
    "automaticEmailCc": 1000,
}
#: Texts that a create takes and no answer gives back.
INITIAL_TEXTS = ("initialDescription", "initialInternalAnalysis", "initialResolution")
REFERENCES = frozenset(
    {"board", "status", "company", "contact", "site", "priority", "type", "subType", "item", "team", "owner", "source"}
    | {"serviceLocation", "location", "department", "agreement", "country", "currency", "opportunity", "sla"}
    | {"workRole", "workType"}
)
FLAGS = frozenset(
    {"automaticEmailContactFlag", "automaticEmailResourceFlag", "automaticEmailCcFlag", "processNotifications"}
    | {"skipCallback", "allowAllClientsPortalView", "customerUpdatedFlag"}
)
#: Every field of a ticket that this pretend system knows; the real one has some more.
TICKET_FIELDS = frozenset(
    {"id", "recordType", "severity", "impact", "closedFlag", "customFields", "requiredDate", "parentTicketId"}
    | {"mergedParentTicket", "hasMergedChildTicketFlag"}
    | {"initialDescriptionFrom", "budgetHours", "integratorTags", "_info", *TEXT_LIMITS, *INITIAL_TEXTS}
    | REFERENCES
    | FLAGS
)
