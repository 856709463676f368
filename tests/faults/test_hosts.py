"""Two of everything on hosts of their own, one of them cut off in mid-create: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from bridge.demo.run import free_port
from tests.conftest import RedisServer
from tests.end_to_end.conftest import World, wait_until
from tests.faults.figures import Figures
from tests.faults.ground import (
    BEFORE,
    Scenario,
    get_going,
    late_creates,
    make_empty_site,
    make_server,
    selected,
    start_all,
)
from tests.faults.hosts import leading, make_hosts, skip_without_hosts, start
from tests.faults.judge import Load
from tests.faults.line import Line
from tests.faults.network import network
from tests.faults.site import Site
from tests.sentinel import SentinelServer, sentinel_url, wait_until_known

#: New reports per second, in the short form and in the long one.
SHORT_LOAD, LONG_LOAD = 0.5, 0.8
#: Seconds that a host is cut off; longer than every lease in the short form.
SHORT_CUT, LONG_CUT = 12.0, 60.0
#: Cuts of the long form, a worker's host and the leading poller's in turn.
LONG_CUTS = 4
#: Seconds for a whole request where a create is to be stuck in a socket.
TIMEOUT = 5.0
#: Seconds after the cut at which a socket repeats what was not taken: at 0.2, 0.6, 1.4, … 25.4, 51 s and so on.
REPEATED = 51.0


def cut_off(stack: contextlib.ExitStack, long: bool, *, lines: tuple[str, ...], what: str) -> Figures:
    net, _, site = make_hosts(stack)
    pollers = [net.add_host() for _ in range(2)]
    workers = [net.add_host() for _ in range(4 if long else 2)]
    for host in pollers:
        start(site, net, host, "poller")
    for host in workers * (2 if long else 1):
        start(site, net, host, "worker")
    get_going(site)
    dice = random.Random(len(what))
    times = LONG_CUTS if long else 1
    with Load(site.world, LONG_LOAD if long else SHORT_LOAD, len(what), first=BEFORE + 1):
        for turn in range(times):
            host = leading(site, pollers, "dispatcher") if turn % 2 else dice.choice(workers)
            time.sleep(dice.uniform(10, 20) if long else 2)
            late_creates(site, times=4)
            time.sleep(dice.uniform(0.5, 1.5))
            net.cut(host, *lines)
            time.sleep(LONG_CUT if long else SHORT_CUT)
            net.rejoin(host, *lines)
    size = f"2 pollers, {len(workers) * (2 if long else 1)} workers on {len(pollers + workers)} hosts"
    return site.judged(f"7 {what}, {LONG_CUT if long else SHORT_CUT:g} s, then rejoined", times, size)


def stuck(stack: contextlib.ExitStack, long: bool) -> Figures:
    """A create leaves the worker and gets no further; the network comes back when another host has made the ticket."""
    net, server, site = make_hosts(stack, timeout=TIMEOUT)
    here, there = net.add_host(), net.add_host()
    # Slow enough for a cut between the last word from Redis and the create.
    line = stack.enter_context(Line(str(server.socket), net.address["store"]))
    start(site, net, here, "worker", f"BRIDGE_REDIS__URL={line.url}")
    start(site, net, there, "poller")
    start(site, net, there, "worker")
    get_going(site)
    other = site.processes[-1][1]
    numbers = range(BEFORE + 1, BEFORE + (6 if long else 2))
    for number in numbers:
        line.delay = 0.5
        os.killpg(other.pid, signal.SIGSTOP)
        site.world.report(number)
        keys = [f"bridge:delivery:{number}:{name}" for name in site.world.psas()]
        wait_until(partial(any_creating, site, keys), 60, "a create is about to be sent")
        net.cut(here, "world")
        began = time.monotonic()
        os.killpg(other.pid, signal.SIGCONT)
        site.judge.wait_until_complete(60, [number])
        line.delay = 0.0
        time.sleep(max(0.0, 20 - (time.monotonic() - began)))
        net.rejoin(here, "world")
        time.sleep(max(0.0, REPEATED * (1.2 if long else 0.55) - (time.monotonic() - began)))
    return site.judged("7 A create stuck in a host's socket until after `settle`", len(numbers))


def split(stack: contextlib.ExitStack, long: bool) -> Figures:
    """The primary is cut off with a poller, a worker and a Sentinel, and all reach the PSAs; the others go on."""
    net = stack.enter_context(network())
    hosts = [net.add_host() for _ in range(3)]
    addresses = [net.of(host, "store") for host in hosts]
    port = free_port(0)
    servers: list[RedisServer] = []
    for host, address in zip(hosts[:2], addresses, strict=False):
        options = ["--port", str(port), "--bind", address, "--protected-mode", "no", "--repl-diskless-sync-delay", "0"]
        options += ["--repl-timeout", "3", "--repl-ping-replica-period", "1"]
        options += ["--replicaof", addresses[0], str(port)] if servers else []
        servers.append(make_server(stack, *options, within=net.within(host)))
    watching = []
    for host, address in zip(hosts, addresses, strict=True):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp")))
        how = {"host": addresses[0], "address": address, "within": net.within(host)}
        watching.append(SentinelServer(folder, port, quorum=2, down_after=1.0, **how))  # type: ignore[arg-type]
        stack.callback(watching[-1].kill)
    wait_until_known(watching, replicas=1)
    world = World(host=net.address["world"])
    site = make_empty_site(stack, servers[0], url=sentinel_url(watching), world=world, insecure_http=True)
    for host in hosts[:2]:
        start(site, net, host, "poller")
        start(site, net, host, "worker")
    get_going(site)
    times = 3
    with Load(site.world, 1.0, 8, first=BEFORE + 1):
        for turn in range(times):
            time.sleep(2)
            late_creates(site)
            time.sleep(1)
            alone = turn % 2
            net.cut(hosts[alone], "store")
            time.sleep(LONG_CUT)
            net.rejoin(hosts[alone], "store")
            wait_until(partial(follows, servers[alone]), 60, "the old primary follows the new one")
    return site.judged("7 Split: the old primary of Sentinel with half of the bridge", times)


def follows(server: RedisServer) -> bool:
    with server.client() as client:
        info = client.info("replication")
    return (str(info["role"]), str(info.get("master_link_status"))) == ("slave", "up")


def any_creating(site: Site, keys: list[str]) -> bool:
    return any(site.client.hget(key, "state") == "creating" for key in keys)


SCENARIOS: dict[str, Scenario] = {
    "redis": partial(cut_off, lines=("store",), what="A host cut off from Redis only"),
    "everything": partial(cut_off, lines=("store", "world"), what="A host cut off from everything"),
    "stuck": stuck,
    "split": split,
}
ONLY_LONG = {"split"}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Figures]]]:
    skip_without_hosts()
    long = bool(request.config.getoption("--long"))
    names = selected(request) - (set() if long else ONLY_LONG)
    with contextlib.ExitStack() as stack:
        wanted = {name: scenario for name, scenario in SCENARIOS.items() if name in names}
        yield start_all(wanted, stack, long)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", SCENARIOS)
def test_hosts(name: str, started: dict[str, Future[Figures]], report_figures: Callable[[Figures], None]) -> None:
    if name not in started:
        pytest.skip("in the long form only")
    report_figures(started[name].result())
