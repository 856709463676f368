"""The configuration table of an e-mail connector."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from connectors.addresses import is_loopback
from connectors.base import ConnectorSettings
from connectors.email_message import address, domain_name


def _host(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        return domain_name(value)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


Address = Annotated[str, AfterValidator(address)]


class EmailSettings(ConnectorSettings):
    """The table of an e-mail connector. `proxy` and `insecure_http` concern only the token endpoint."""

    type: Literal["email"]
    host: Annotated[str, AfterValidator(_host)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    #: `starttls`: encryption is required after the greeting; `tls`: from the first byte; `none`: only to loopback.
    security: Literal["starttls", "tls", "none"] = "starttls"
    auth: Literal["password", "xoauth2"] = "password"
    #: Empty: no log-in.
    username: Annotated[str, AfterValidator(_printable)] = ""
    password: SecretStr = SecretStr("")
    #: Microsoft Entra directory (tenant) id or name, for `xoauth2`.
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]*$")] = ""
    client_id: Annotated[str, AfterValidator(_printable)] = ""
    client_secret: SecretStr = SecretStr("")
    #: Token endpoint in place of Microsoft's public one, e.g. of a national cloud.
    token_url: str = ""
    sender: Address
    recipients: Annotated[list[Address], Field(min_length=1)]
    #: What to do when the server took a mail but its answer was lost: `resend` it once, or `hold` it for a person.
    on_unknown: Literal["resend", "hold"] = "resend"
    #: `Auto-Submitted` and `X-Auto-Response-Suppress`; some help desks ignore mail that carries them.
    auto_headers: bool = True
    #: Right-hand side of every `Message-ID`; empty: the sender's domain.
    message_id_domain: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError(
                f'security: "none" is only for a relay on this machine, and {self.host} is not; use "starttls" or "tls"'
            )
        if self.message_id_domain:
            domain_name(self.message_id_domain)
        if self.auth == "xoauth2":
            given = {
                "username": self.username,
                "client_id": self.client_id,
                "client_secret": self.client_secret.get_secret_value(),
                "tenant": self.tenant or self.token_url,
            }
            missing = [key for key, value in given.items() if not value]
            if missing:
                raise ValueError(f'auth: "xoauth2" also needs {", ".join(missing)}')
        elif bool(self.username) != bool(self.password.get_secret_value()):
            raise ValueError("username and password belong together; leave both empty for no log-in")
        return self
