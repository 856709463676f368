"""What the configuration says about one ConnectWise PSA."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.base import NameOrId, PsaSettings

#: Domains of the sites that ConnectWise hosts; their API lives on hosts that start with `api-`.
HOSTED_DOMAINS = (".myconnectwise.net", ".connectwisedev.com")

#: Ticket fields that the connector fills itself, and what to set instead.
OWN_FIELDS = {
    "summary": "the title template",
    "initialDescription": "the templates",
    "initialInternalAnalysis": "the templates",
    "board": "board",
    "status": "status",
    "priority": "priorities",
    "company": "default_company and the organizations file",
    "externalXRef": "reference_field",
    "id": "nothing: ConnectWise gives it",
}

#: Flags that would mail a contact, which `visibility = "internal"` keeps off.
CONTACT_MAIL_FLAGS = ("automaticEmailContactFlag", "automaticEmailCcFlag")

#: In `fields`, a custom field is named by its caption: `"customFields.Caption" = "value"`.
CUSTOM_FIELD = "customFields."


class ConnectWiseSettings(PsaSettings):
    """One `[connectors.<name>]` table with `type = "connectwise"`."""

    type: Literal["connectwise"]
    #: The site, such as `https://api-na.myconnectwise.net`; the codebase is discovered.
    url: str
    #: The company id typed in at login.
    company_id: Annotated[str, Field(min_length=1)]
    public_key: Annotated[SecretStr, Field(min_length=1)]
    private_key: Annotated[SecretStr, Field(min_length=1)]
    #: From developer.connectwise.com; required with every request.
    client_id: Annotated[str, Field(min_length=1, repr=False)]
    board: NameOrId
    #: Empty: the board's default.
    status: NameOrId = ""
    #: Empty: the board's first closed one.
    closed_status: NameOrId = ""
    #: Version of the vendor's models to ask for; empty: the server's latest. A server refuses one that it does not
    #: know, so an old server of one's own may need its own version or "".
    api_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.]{0,20}$")] = "2025.16"
    #: A text field of the ticket that nothing else writes to, and that can be searched.
    reference_field: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$")] = "externalXRef"

    @field_validator("url")
    @classmethod
    def _is_a_site(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("give the site as https://host")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("give the site only, as https://host, without a path: the codebase is discovered")
        return f"{parts.scheme}://{parts.netloc}"

    @field_validator("company_id")
    @classmethod
    def _is_a_login_name(cls, value: str) -> str:
        # It becomes part of the Basic user name, which a colon or "+" would cut elsewhere.
        if not re.fullmatch(r"[^\s:+/\\]+", value.strip()):
            raise ValueError("the login company id has no spaces, colons, slashes or plus signs")
        return value.strip()

    @field_validator("reference_field")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value in OWN_FIELDS and value != "externalXRef":
            raise ValueError(f"{value} is filled by the connector; take a free text field such as poNumber")
        return value

    @model_validator(mode="after")
    def _fields_are_free(self) -> Self:
        for name in self.fields:
            if name == self.reference_field:
                raise ValueError(f"fields.{name} carries the reference (reference_field); remove it")
            if name in OWN_FIELDS and name != "externalXRef":
                raise ValueError(f"fields.{name} is filled by the connector; set {OWN_FIELDS[name]} instead")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) and not re.fullmatch(r"customFields\..{1,50}", name):
                raise ValueError(f'fields.{name} is not an API name; custom fields are "{CUSTOM_FIELD}<caption>"')
            if self.visibility == "internal" and name in CONTACT_MAIL_FLAGS:
                raise ValueError(f'fields.{name}: visibility = "internal" mails no contact; remove it')
        return self


def is_hosted(url: str) -> bool:
    """Is this one of ConnectWise's own sites, as opposed to a provider's own server?"""
    return (urlsplit(url).hostname or "").endswith(HOSTED_DOMAINS)


def hosted_hint(url: str) -> str:
    """What is wrong with the host of a hosted site, as a sentence; empty when nothing is."""
    host = urlsplit(url).hostname or ""
    if is_hosted(url) and not host.startswith("api-"):
        return f"Hosted ConnectWise takes API requests only on hosts that start with api-: use https://api-{host}"
    return ""
