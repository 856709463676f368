"""`[web]`: where the page listens, and who may use it."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo

from connectors.addresses import is_loopback
from connectors.base import Duration, SettingsModel

#: Fewest characters of the page's password.
SHORTEST_PASSWORD = 12
#: Fewest characters of the token for monitors.
SHORTEST_TOKEN = 16
#: Headers that say nothing of whom a proxy logged in. What stands in one is shown as the person's name.
_BROWSERS_OWN = frozenset({"authorization", "cookie", "host", "origin", "referer", "user-agent"})


def _long_enough(least: int) -> AfterValidator:
    def check(secret: SecretStr) -> SecretStr:
        length = len(secret.get_secret_value())
        if 0 < length < least:
            raise ValueError(
                f"is too short ({length} characters); use at least {least}, best made by a password manager"
            )
        return secret

    return AfterValidator(check)


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("is no address or network such as 10.0.0.5 or 10.0.0.0/24") from None
    return text


def _header(name: str, info: ValidationInfo) -> str:
    if not name:
        return name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name):
        raise ValueError("is no header's name such as X-Forwarded-User")
    if name.lower() in _BROWSERS_OWN:
        raise ValueError(
            "is a header that every browser sends, and may hold what nobody is to read; name the proxy's own"
        )
    if not info.data.get("trusted_proxies"):
        raise ValueError(
            "is believed only from a proxy whose address is known, or anybody could claim to be anybody; give the "
            "proxy's in web.trusted_proxies"
        )
    return name


def _host_name(name: str) -> str:
    if not re.fullmatch(r"(?!-)[A-Za-z0-9.-]{1,253}|\[?[0-9A-Fa-f:.]+\]?", name):
        raise ValueError("is no host's name such as bridge.example.com, without scheme and port")
    return name.strip("[]").lower().rstrip(".")


class WebSettings(SettingsModel):
    """Where page, health and metrics listen, and who may use them."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    #: Of the log-in; empty: none is offered.
    password: Annotated[SecretStr, _long_enough(SHORTEST_PASSWORD)] = SecretStr("")
    #: With which monitors may ask for `/status` and `/metrics`, as `Authorization: Bearer`.
    token: Annotated[SecretStr, _long_enough(SHORTEST_TOKEN)] = SecretStr("")
    #: Addresses or networks of the proxies whose `X-Forwarded-…` is believed. Stands before what needs it.
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(default_factory=list)
    #: Header in which they say who has logged in; empty: none.
    trusted_proxy_header: Annotated[str, AfterValidator(_header)] = ""
    #: Names under which browsers may ask, beside addresses, loopback names and `host`.
    allowed_hosts: list[Annotated[str, AfterValidator(_host_name)]] = Field(default_factory=list)
    #: How long a session lasts that nobody uses, and how long any lasts.
    session_idle: Annotated[Duration, Field(ge=60, le=86400)] = 1800.0
    session_length: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 12 * 3600.0
    #: Are cookies sent over https only? `auto`: when the page was asked for by https.
    secure_cookies: Literal["auto", "always"] = "auto"

    @property
    def has_log_in(self) -> bool:
        """Can people say who they are?"""
        return bool(self.password.get_secret_value() or self.trusted_proxy_header)

    def problem(self) -> str:
        """Why the page must not be served like this; '' when it may."""
        if self.has_log_in or (is_loopback(self.host) and not self.trusted_proxies):
            return ""
        why = (
            f"web.host is {self.host}, which others can reach"
            if not is_loopback(self.host)
            else "web.trusted_proxies lets others reach the page"
        )
        return (
            f"{why}, so people must log in: give a password of at least {SHORTEST_PASSWORD} characters in a file named "
            "by web.password_file (or as web.password, BRIDGE_WEB__PASSWORD), or, behind a proxy that logs people in, "
            'set web.trusted_proxy_header and web.trusted_proxies; or set web.host = "127.0.0.1"'
        )
