"""Types of single settings that take more than a bound to check. Messages never hold the value, perhaps a password."""

from __future__ import annotations

import string
import zoneinfo
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, SecretStr, ValidationInfo

from bridge.webhook_signature import signing_key
from connectors.addresses import is_loopback

#: What `huntress.portal_url` may contain in braces.
PORTAL_PLACEHOLDERS = ("account_id", "organization_id", "report_id", "subdomain")


def _zone_name(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError("is not a known time zone; give a name such as UTC or Europe/Berlin") from None
    return name


def _web_address(url: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        well_formed = parts.port != 0 and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        well_formed = False
    if not well_formed or not url.isprintable():
        raise ValueError(f"is not a URL such as {example}")
    return parts


def _no_plain_http(parts: SplitResult, what: str, info: ValidationInfo) -> None:
    if parts.scheme == "http" and not info.data.get("insecure_http") and not is_loopback(parts.hostname or ""):
        raise ValueError(f"would send {what} over plain http; use https, or set insecure_http = true")


def _base_url(url: str, info: ValidationInfo) -> str:
    url = url.strip()
    parts = _web_address(url, "https://api.huntress.io/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a plain URL, without user, query or fragment")
    _no_plain_http(parts, "the API key", info)
    return url.rstrip("/")


def _heartbeat_url(secret: SecretStr, info: ValidationInfo) -> SecretStr:
    url = secret.get_secret_value().strip()
    if not url:
        return SecretStr("")
    parts = _web_address(url, "https://monitor.example.com/ping/token")
    if "@" in parts.netloc or parts.fragment or " " in url:
        raise ValueError("must be a URL without user, fragment or spaces")
    _no_plain_http(parts, "the URL's token", info)
    return SecretStr(url)


def _portal_url(pattern: str) -> str:
    known = ", ".join(f"{{{name}}}" for name in PORTAL_PLACEHOLDERS)
    if pattern and not pattern.startswith(("https://", "http://")):
        raise ValueError("is not a URL that starts with https://")
    try:
        fields = [field[1:] for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError:
        raise ValueError(f"has a brace without its partner; known placeholders are {known}") from None
    # A format such as {report_id.__class__} would reach into the values.
    if any(name not in PORTAL_PLACEHOLDERS or form or conversion for name, form, conversion in fields):
        raise ValueError(f"may only contain the placeholders {known}")
    return pattern


def _redis_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    if not url:
        return secret
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("redis", "rediss")
        well_formed = bool(parts.path) if parts.scheme == "unix" else bool(parts.netloc)
        well_formed = well_formed and (parts.scheme in ("unix", "redis+sentinel") or (plain and parts.port != 0))
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError(
            "is not a Redis URL; it starts with redis://, rediss://, unix:// or redis+sentinel://, and characters such "
            "as / ? # in its password are percent-encoded"
        )
    database = parts.path.strip("/")
    if plain and database and not database.isdecimal():
        raise ValueError("must end in the number of a database, such as /0")
    return secret


def _signing_secret(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value():
        signing_key(secret.get_secret_value())
    return secret


#: An IANA time zone.
ZoneName = Annotated[str, AfterValidator(_zone_name)]
#: Where the source's API is, without a slash at the end. Judged by an `insecure_http` that stands before it.
BaseUrl = Annotated[str, AfterValidator(_base_url)]
#: Pattern of a report's link in the portal; empty: no link.
PortalUrl = Annotated[str, AfterValidator(_portal_url)]
#: Secret, because it may carry a password.
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
#: Where a monitor waits for signs of life; secret, because such a URL carries a token. Judged as `BaseUrl` is.
HeartbeatUrl = Annotated[SecretStr, AfterValidator(_heartbeat_url)]
#: What webhooks are signed with; empty: none are taken.
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
