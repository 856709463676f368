"""What the pretend Autotask tenant is set up with: its fields and their picklists, as entityInformation lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

DEFAULT_COMPANIES: tuple[tuple[int, str], ...] = (
    (0, "Service Provider"),
    (175, "Catch-all"),
    *((175 + number, "Acme Corp" if number == 1 else f"Organization {number}") for number in range(1, 13)),
)

QUEUES = ((29682833, "Post Sale"), (29683354, "Help Desk"), (29683482, "Security"))
#: Autotask's own id of the status of a finished ticket.
COMPLETE = 5
STATUSES = (
    (1, "New"),
    (COMPLETE, "Complete"),
    (7, "Waiting Customer"),
    (8, "In Progress"),
    (9, "Waiting Materials"),
    (11, "Escalated"),
)
PRIORITIES = ((4, "Critical"), (1, "High"), (2, "Medium"), (3, "Low"))
SOURCES = ((-2, "Insourced"), (2, "Phone"), (4, "Email"), (8, "Monitoring Alert"))
TICKET_TYPES = ((1, "Service Request"), (2, "Incident"), (3, "Problem"), (4, "Change Request"), (5, "Alert"))
ISSUE_TYPES = ((10, "Security"), (11, "Hardware"))
#: (id, label, issue type)
SUB_ISSUE_TYPES = ((101, "Malware", 10), (102, "Other", 10), (111, "Disk", 11), (112, "Other", 11))
NOTE_TYPES = ((1, "Task Summary"), (2, "Task Detail"), (3, "Task Notes"))
#: Made by Autotask itself; an integration cannot use them.
SYSTEM_NOTE_TYPES = ((13, "Workflow Rule Note - Task"),)
COMPANY_TYPES = ((1, "Customer"), (2, "Lead"), (3, "Prospect"), (4, "Dead"), (6, "Cancellation"), (7, "Vendor"))
#: People of the tenant who may own a company.
RESOURCES = (4, 29682885)
PUBLISH = ((1, "All Autotask Users"), (2, "Internal Project Team"), (4, "Internal & Co-Managed"))


def field(name: str, data_type: str, length: int = 0, **flags: Any) -> Row:
    """One field as entityInformation describes it; `length` 0 where there is none."""
    return {
        "name": name,
        "dataType": data_type,
        "length": length,
        "isRequired": False,
        "isReadOnly": False,
        "isQueryable": True,
        "isReference": False,
        "referenceEntityType": "",
        "isPickList": False,
        "picklistValues": None,
        "picklistParentValueField": "",
        "isSupportedWebhookField": False,
        **flags,
    }


def choice(number: int, label: str, parent: int | str = "", *, active: bool = True, system: bool = False) -> Row:
    """One value of a picklist; ids are texts there."""
    return {
        "value": str(number),
        "label": label,
        "isDefaultValue": False,
        "sortOrder": 0,
        "parentValue": str(parent),
        "isActive": active,
        "isSystem": system,
    }


def pick_list(name: str, choices: Sequence[Row], **flags: Any) -> Row:
    """A field whose value is the id of one of `choices`."""
    return field(name, "integer", isPickList=True, picklistValues=list(choices), **flags)


def reference(name: str, entity: str, **flags: Any) -> Row:
    """A field whose value is the id of a record of `entity`."""
    return field(name, "integer", isReference=True, referenceEntityType=entity, **flags)


def _choices(pairs: Sequence[tuple[int, str]]) -> list[Row]:
    return [choice(number, label) for number, label in pairs]


def ticket_fields() -> list[Row]:
    """The fields of a ticket. Lengths and required ones are those of live tenants."""
    return [
        field("id", "long", isRequired=True, isReadOnly=True),
        reference("companyID", "Company", isRequired=True),
        reference("configurationItemID", "ConfigurationItem"),
        reference("contactID", "Contact"),
        reference("contractID", "Contract"),
        reference("billingCodeID", "BillingCode"),
        reference("assignedResourceID", "Resource"),
        reference("assignedResourceRoleID", "Role"),
        field("createDate", "datetime", isReadOnly=True),
        field("completedDate", "datetime", isReadOnly=True),
        field("dueDateTime", "datetime"),
        field("estimatedHours", "decimal"),
        field("title", "string", 255, isRequired=True),
        field("description", "string", 8000),
        field("resolution", "string", 32000),
        field("externalID", "string", 50),
        field("purchaseOrderNumber", "string", 50),
        field("rmmAlertID", "string", 50),
        field("ticketNumber", "string", 50, isReadOnly=True),
        pick_list("queueID", _choices(QUEUES)),
        pick_list("status", _choices(STATUSES), isRequired=True),
        pick_list("priority", _choices(PRIORITIES), isRequired=True),
        pick_list("source", _choices(SOURCES)),
        pick_list("ticketType", _choices(TICKET_TYPES)),
        pick_list("issueType", _choices(ISSUE_TYPES)),
        pick_list(
            "subIssueType",
            [choice(number, label, parent) for number, label, parent in SUB_ISSUE_TYPES],
            picklistParentValueField="issueType",
        ),
    ]


def note_fields() -> list[Row]:
    """The fields of a ticket note."""
    return [
        field("id", "long", isRequired=True, isReadOnly=True),
        field("title", "string", 250),
        field("description", "string", 32000, isRequired=True),
        pick_list(
            "noteType",
            [*_choices(NOTE_TYPES), *(choice(number, label, system=True) for number, label in SYSTEM_NOTE_TYPES)],
            isRequired=True,
        ),
        pick_list("publish", _choices(PUBLISH), isRequired=True),
        reference("ticketID", "Ticket", isRequired=True),
    ]


def company_fields() -> list[Row]:
    """The fields of a company, with those required that the vendor's help says are."""
    return [
        field("id", "long", isRequired=True, isReadOnly=True),
        field("companyName", "string", 100, isRequired=True),
        field("companyNumber", "string", 50),
        field("phone", "string", 25, isRequired=True),
        field("city", "string", 50),
        field("isActive", "boolean"),
        pick_list("companyType", _choices(COMPANY_TYPES), isRequired=True),
        reference("ownerResourceID", "Resource", isRequired=True),
    ]


def custom_fields() -> list[Row]:
    """The user-defined fields of a ticket."""
    return [
        {**field("Report Ref", "string", 100), "label": "Report Ref", "type": "string"},
        {
            **pick_list("Handled By", [choice(1, "Night shift"), choice(2, "Day shift")]),
            "label": "Handled By",
            "type": "string",
        },
    ]
