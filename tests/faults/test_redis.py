"""Redis away, restarted, empty, full, read-only or slow, under load: nobody restarts anything, and nothing doubles."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from bridge.demo.run import free_port
from tests.conftest import RedisServer
from tests.end_to_end.conftest import wait_until
from tests.faults.figures import Figures
from tests.faults.ground import BEFORE, Scenario, late_creates, make_server, make_site, selected, start_all
from tests.faults.judge import Load
from tests.faults.line import Line
from tests.faults.site import Site

#: New reports per second, in the short form and in the long one.
SHORT_LOAD, LONG_LOAD = 1.0, 1.0
#: Reports that wait when the slow server becomes slow.
BACKLOG = 12
#: Seconds of everything that has no duration of its own, in the short form and in the long one.
SHORT, LONG = 6.0, 60.0
#: Seconds that the slow server takes for each command, in the short form and in the long one.
SHORT_SLOW, LONG_SLOW = 0.5, 2.0
#: Restarts of the long form.
RESTARTS = 8


def under_load(site: Site, long: bool, seed: int, *faults: Callable[[], None]) -> None:
    """Brings each fault while creates are under way, with a pause before it."""
    dice = random.Random(seed)
    with Load(site.world, LONG_LOAD if long else SHORT_LOAD, seed, first=BEFORE + 1):
        for fault in faults:
            time.sleep(dice.uniform(5, 20) if long else dice.uniform(1, 3))
            late_creates(site)
            time.sleep(dice.uniform(0.5, 1.5))
            fault()


def stopped(server: RedisServer, seconds: float) -> None:
    """Not there; back with its data."""
    server.stop()
    time.sleep(seconds)
    server.start()


def frozen(server: RedisServer, seconds: float) -> None:
    """There, and answers nothing; then it carries out whatever was sent meanwhile."""
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(server.pid, signal.SIGCONT)


def tickets(site: Site) -> int:
    return sum(len(psa.references()) for psa in site.world.psas().values())


def away(stack: contextlib.ExitStack, long: bool, *, seconds: float) -> Figures:
    server = make_server(stack)
    site = make_site(stack, server, "poller", "worker")
    under_load(site, long, 1, partial(stopped, server, seconds), partial(frozen, server, seconds if long else SHORT))
    return site.judged(f"2 Redis away for {seconds:g} s: stopped, then frozen", 2)


def restarted(stack: contextlib.ExitStack, long: bool) -> Figures:
    server = make_server(stack)
    site = make_site(stack, server, "poller", "worker")

    def killed() -> None:
        server.kill()
        server.start()

    times = RESTARTS if long else 2
    under_load(site, long, 2, *[server.restart, killed] * (times // 2))
    return site.judged("2 Redis restarted or killed, with its data", times)


def empty(stack: contextlib.ExitStack, long: bool) -> Figures:
    server = make_server(stack)
    site = make_site(stack, server, "poller", "worker")
    found: list[int] = []

    def emptied() -> None:
        found.append(tickets(site))
        server.restart(empty=True)

    times = RESTARTS // 2 if long else 1
    under_load(site, long, 3, *[emptied] * times)
    return site.judged("2 Redis restarted empty", times, f"{sum(found)} tickets had to be found again")


def full(stack: contextlib.ExitStack, long: bool) -> Figures:
    server = make_server(stack)
    site = make_site(stack, server, "poller", "worker")

    def filled() -> None:
        with server.client() as admin:
            admin.config_set("maxmemory", 1)
            time.sleep(LONG if long else SHORT)
            admin.config_set("maxmemory", 0)

    under_load(site, long, 4, *[filled] * (2 if long else 1))
    return site.judged("2 Redis full (maxmemory, noeviction)", 2 if long else 1)


def failed_over(stack: contextlib.ExitStack, long: bool) -> Figures:
    """The name leads to the old primary, a read-only replica by now, for a while; then to the new one. And back."""
    ports = [free_port(0), free_port(0)]
    servers = [make_server(stack, "--port", str(port), "--repl-diskless-sync-delay", "0") for port in ports]
    clients = [stack.enter_context(server.client()) for server in servers]

    def follows(index: int) -> bool:
        info = clients[index].info("replication")
        return str(info.get("master_link_status")) == "up"

    clients[1].replicaof("127.0.0.1", ports[0])
    wait_until(lambda: follows(1), 10, "the replica follows")
    line = stack.enter_context(Line(("127.0.0.1", ports[0])))
    site = make_site(stack, servers[0], "poller", "worker", url=line.url)

    def fail_over(old: int, new: int) -> None:
        clients[new].replicaof("NO", "ONE")
        clients[old].replicaof("127.0.0.1", ports[new])
        time.sleep(LONG if long else SHORT)
        line.target = ("127.0.0.1", ports[new])
        wait_until(lambda: follows(old), 20, "the old primary follows the new one")

    faults = [partial(fail_over, 0, 1), partial(fail_over, 1, 0)] if long else [partial(fail_over, 0, 1)]
    under_load(site, long, 5, *faults)
    return site.judged("2 Redis a read-only replica after a fail-over behind one name", len(faults))


def slow_answers(stack: contextlib.ExitStack, long: bool) -> Figures:
    server = make_server(stack)
    line = stack.enter_context(Line(str(server.socket)))
    site = make_site(stack, server, "poller", "worker", url=line.url)
    delay = LONG_SLOW if long else SHORT_SLOW
    site.world.reports(BACKLOG, first=BEFORE + 1)
    before = tickets(site)
    wait_until(lambda: tickets(site) > before, 30, "the backlog is begun")
    with Load(site.world, SHORT_LOAD / 2, 6, first=BEFORE + BACKLOG + 1):
        line.delay = delay
        before = tickets(site)
        time.sleep(2 * LONG if long else 3 * SHORT)
        made = tickets(site) - before
        line.delay = 0.0
    assert made >= (6 if long else 1), f"only {made} tickets were made while Redis was slow"
    return site.judged(f"2 Redis slow, {delay:g} s for every command", 1, f"{made} tickets were made meanwhile")


SCENARIOS: dict[str, Scenario] = {
    "away 2": partial(away, seconds=2),
    "away 20": partial(away, seconds=20),
    "away 60": partial(away, seconds=60),
    "restarted": restarted,
    "empty": empty,
    "full": full,
    "failed over": failed_over,
    "slow": slow_answers,
}
ONLY_LONG = {"away 20", "away 60"}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Figures]]]:
    long = bool(request.config.getoption("--long"))
    names = selected(request) - (set() if long else ONLY_LONG)
    wanted = {name: scenario for name, scenario in SCENARIOS.items() if name in names}
    with contextlib.ExitStack() as stack:
        yield start_all(wanted, stack, long)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_redis(name: str, started: dict[str, Future[Figures]], report_figures: Callable[[Figures], None]) -> None:
    if name not in started:
        pytest.skip("in the long form only")
    report_figures(started[name].result())
