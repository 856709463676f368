"""What may be learned from an address before anything is sent to it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit


def split_url(url: str) -> SplitResult | None:
    """The parts of an absolute http(s) address; None for anything that two parsers could read differently."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if re.search(r"[\x00-\x20\x7f\\]", url) or parts.scheme not in ("http", "https") or not port_is_valid:
        return None
    return parts if parts.hostname else None


def is_loopback(host: str) -> bool:
    """Is `host` this machine: `localhost`, 127.0.0.0/8 or ::1? Names are not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


#: Second-level labels under which countries hand out names: `acme.co.uk` and `evil.co.uk` are not one site.
_SHARED_SUFFIXES = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ne", "net", "or", "org"})


def same_site(configured: str, discovered: str) -> bool:
    """May credentials for `configured` go to `discovered`, both of them addresses?

    Equal scheme and port, host equal but for the first label; on loopback equal host, any port. Only names with three
    labels or more may differ in the first (four, where the last two are a country's shared suffix such as `co.uk`).
    User or password in either refuses it.
    """
    known, found = split_url(configured), split_url(discovered)
    if not known or not found or "@" in known.netloc + found.netloc or known.scheme != found.scheme:
        return False
    here, there = ((parts.hostname or "").rstrip(".") for parts in (known, found))
    if is_loopback(here):
        return here == there
    default = 443 if known.scheme == "https" else 80
    if (known.port or default) != (found.port or default):
        return False
    if here == there:
        return True
    if not all(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) for host in (here, there)):
        return False
    labels, others = here.split("."), there.split(".")
    if labels[-1].isdigit():  # an IPv4 address
        return False
    needed = 4 if len(labels[-1]) == 2 and labels[-2] in _SHARED_SUFFIXES else 3
    return len(labels) >= needed and labels[1:] == others[1:]
