"""Who sent a request, as far as that can be known before anybody says a password."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flask import Request

from bridge.text import one_line
from bridge.web_settings import WebSettings
from connectors.addresses import is_loopback

#: Headers by which a proxy shows itself.
_PROXY_MARKS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
#: Most characters of a person's name that a proxy gives.
_LONGEST_NAME = 100

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Visitor:
    """`address` is the client's; `host` what it asked for, perhaps with a port; `person` whom a proxy vouches for."""

    address: str
    host: str
    https: bool
    person: str = ""
    #: Did it come through a proxy, trusted or not?
    by_proxy: bool = False

    @property
    def host_name(self) -> str:
        """Of `host`, without port and brackets, in lower case."""
        name = self.host.lower()
        name = name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
        return name.strip("[]").rstrip(".")

    @property
    def lane(self) -> str:
        """What the client is counted under."""
        return lane(self.address)


def parse(text: str) -> Address | None:
    """The address in `text`, which may have a port or brackets; None: there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def lane(client: str) -> str:
    """What the client with this address is counted under; of IPv6 a whole /64, since one machine has all of it."""
    address = parse(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    return client


def visitor(request: Request, web: WebSettings) -> Visitor:
    """Proxies are believed by their address, never by what they send: `web.trusted_proxies`."""
    peer = request.environ.get("REMOTE_ADDR", "")
    by_proxy = any(name in request.headers for name in _PROXY_MARKS)
    if not trusted(parse(peer), web.trusted_proxies):
        return Visitor(peer, request.host, request.scheme == "https", by_proxy=by_proxy)
    name = request.headers.get(web.trusted_proxy_header, "") if web.trusted_proxy_header else ""
    forwarded_host = _last(request.headers.getlist("X-Forwarded-Host"))
    scheme = _last(request.headers.getlist("X-Forwarded-Proto")) or request.scheme
    return Visitor(
        _client(peer, request.headers.getlist("X-Forwarded-For"), web.trusted_proxies),
        forwarded_host or request.host,
        scheme.lower() == "https",
        # With a comma it is two headers that were joined: the proxy did not strip what the client sent.
        "" if "," in name else one_line(name)[:_LONGEST_NAME],
        by_proxy=True,
    )


def _client(peer: str, forwarded: Iterable[str], proxies: Sequence[str]) -> str:
    """Each proxy appends whom it heard; what stands before the first that is not trusted, anybody may have written."""
    client = peer
    for entry in reversed([each for line in forwarded for each in line.split(",")]):
        address = parse(entry)
        if address is None:
            break
        client = str(address)
        if not trusted(address, proxies):
            break
    return client


def trusted(address: Address | None, proxies: Sequence[str]) -> bool:
    """Is it one of the proxies, which are addresses or networks?"""
    return address is not None and any(address in ipaddress.ip_network(each) for each in proxies)


def _last(lines: Sequence[str]) -> str:
    return ",".join(lines).rpartition(",")[2].strip()


def known_host(visitor: Visitor, web: WebSettings, *, local: bool) -> bool:
    """May the page be asked for by this name? Else another site's name was pointed here (DNS rebinding).

    An address cannot be pointed elsewhere; on a page for this machine alone it must be loopback's all the same.
    """
    name = visitor.host_name
    if is_loopback(name) or name in (web.host.strip("[]").lower(), *web.allowed_hosts):
        return True
    return not local and parse(name) is not None
