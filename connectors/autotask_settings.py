"""What the configuration says about one Autotask PSA."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.base import NameOrId, PsaSettings

#: Concurrent requests that Autotask allows per object endpoint and tracking identifier (its help on thread limiting).
THREADS = 3

#: In `fields` and `reference_field`, a user-defined field is named like this: `"userDefinedFields.Report Ref" = "x"`.
CUSTOM = "userDefinedFields."

#: Ticket fields that the connector fills itself or that must stay empty, in lower case, and what to set instead.
OWN_FIELDS = {
    "id": "nothing, Autotask gives it",
    "ticketnumber": "nothing, Autotask gives it",
    "title": "the title template",
    "description": "the text and notice templates",
    "companyid": "default_company and the organizations file",
    "queueid": "queue",
    "status": "status",
    "priority": "priorities",
    "configurationitemid": "nothing, it is found by the agent's serial number or name",
    "rmmalertid": "nothing, it would let Autotask's Duplicate Ticket Handling merge tickets",
}


class AutotaskSettings(PsaSettings):
    """One `[connectors.<name>]` table with `type = "autotask"`."""

    type: Literal["autotask"]
    #: Where the zone is discovered. The zone itself may differ in the first label of its host only.
    zone_url: str = "https://webservices.autotask.net"
    #: User name (key) of an API-only user, with its domain.
    username: Annotated[str, Field(min_length=1)]
    secret: Annotated[SecretStr, Field(min_length=1)]
    #: The tracking identifier of the integration (27 characters).
    integration_code: Annotated[SecretStr, Field(min_length=1)]
    #: Empty: left to Autotask, where the tenant allows it.
    queue: NameOrId = ""
    status: NameOrId = "New"
    closed_status: NameOrId = "Complete"
    #: `publish` of our notes; empty: the tenant's choice that only its own staff sees.
    note_publish: NameOrId = ""
    #: `noteType` of our notes; empty: “Task Notes”, else the first that is not Autotask's own.
    note_type: NameOrId = ""
    #: A text field of the ticket that nothing else writes to; may be a user-defined one.
    reference_field: Annotated[str, Field(max_length=100)] = "externalID"
    #: Fields of the companies that the bridge makes, by their API name; names resolve to ids. Autotask requires at
    #: least `ownerResourceID` (the id of a person) and `phone`.
    company_defaults: dict[str, str | int | float | bool] = Field(default_factory=dict)
    concurrency: int = THREADS

    @field_validator("concurrency")
    @classmethod
    def _within_the_vendors_threads(cls, value: int) -> int:
        if not 1 <= value <= THREADS:
            raise ValueError(
                f"Autotask allows an integration at most {THREADS} requests at the same time; give 1 to {THREADS}"
            )
        return value

    @field_validator("zone_url")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("give it as https://host, usually https://webservices.autotask.net")
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("username")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        if not _header(value.strip()):
            raise ValueError("has characters that no Autotask user name has")
        return value.strip()

    @field_validator("secret", "integration_code")
    @classmethod
    def _fits_a_header_too(cls, value: SecretStr) -> SecretStr:
        if not _header(value.get_secret_value()):
            raise ValueError("has blanks or characters that Autotask never uses; was something else pasted?")
        return value

    @field_validator("reference_field")
    @classmethod
    def _is_free(cls, value: str) -> str:
        name = value.strip() or "externalID"
        if name.casefold() in OWN_FIELDS:
            raise ValueError(f"{name} is filled by the connector; take externalID or a free text field")
        return name

    @field_validator("company_defaults")
    @classmethod
    def _leaves_names_alone(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for name in value:
            if name.casefold() in ("id", "companyname", "companynumber"):
                raise ValueError(f"{name} is filled by the connector; remove it")
        return value

    @model_validator(mode="after")
    def _fields_are_free(self) -> Self:
        for name in self.fields:
            if name.casefold() == self.reference_field.casefold():
                raise ValueError(f"fields.{name} carries the reference (reference_field); remove it")
            if name.casefold() in OWN_FIELDS:
                raise ValueError(f"fields.{name} is not for fields; set {OWN_FIELDS[name.casefold()]} instead")
        return self


def _header(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value
