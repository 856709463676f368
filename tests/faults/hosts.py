"""A site on hosts of its own: which process runs where, and who leads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.demo.run import free_port
from tests.conftest import RedisServer
from tests.end_to_end.conftest import World
from tests.faults.ground import make_empty_site, make_server
from tests.faults.network import LINES, Network, NoNetwork, network
from tests.faults.site import Site


def skip_without_hosts() -> None:
    """Skips a test where network namespaces cannot be made."""
    try:
        with network() as tried:
            tried.cut(tried.add_host(), "store")
    except NoNetwork as error:
        pytest.skip(f"no hosts of their own here: {error}")


def make_hosts(
    stack: contextlib.ExitStack, *, redis_host: bool = False, **settings: Any
) -> tuple[Network, RedisServer, Site]:
    """A network, with the servers in it and no processes of the bridge yet.

    `redis_host`: Redis is on a host of its own, which is the first; else beside the pretend systems.
    """
    net = stack.enter_context(network())
    port = free_port(0)
    address, within = net.address["store"], tuple[str, ...]()
    if redis_host:
        host = net.add_host()
        address, within = net.of(host, "store"), net.within(host)
    options = ("--port", str(port), "--bind", address, "--protected-mode", "no")
    server = make_server(stack, *options, within=within)
    world = World(host=net.address["world"])
    url = f"redis://{address}:{port}/0"
    return net, server, make_empty_site(stack, server, url=url, world=world, insecure_http=True, **settings)


def start(site: Site, net: Network, host: str, role: str, *variables: str) -> None:
    """Starts a process on a host, with environment variables of its own."""
    site.processes.append((role, site.bridge.start(role, within=(*net.within(host), "env", *variables))))


def leading(site: Site, pollers: Sequence[str], role: str) -> str:
    """The host whose process leads as `role`; those on `pollers` were the first to be started, in this order."""
    candidate = str(site.client.get(f"bridge:leader:{role}"))
    [host] = [
        host
        for host, (_, process) in zip(pollers, site.processes, strict=False)
        if candidate.split(":")[1] == str(process.pid)
    ]
    return host


def lose(site: Site, net: Network, host: str, index: int) -> None:
    """The host's power fails: nobody hears of it. `index` is that of its only process, which counts no more."""
    net.cut(host, *LINES)
    _, process = site.processes.pop(index)
    site.bridge.kill(process)
