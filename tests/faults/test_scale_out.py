"""A Redis, two pollers and three workers, each on a host of its own: hosts share the work, fail, and are added."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from tests.end_to_end.conftest import wait_until
from tests.faults.figures import Figures
from tests.faults.ground import BEFORE, Scenario, get_going, late_creates, selected, start_all
from tests.faults.hosts import leading, lose, make_hosts, skip_without_hosts, start
from tests.faults.judge import Load
from tests.faults.network import LINES, Network
from tests.faults.site import Site, wait_until_ready

POLLERS, WORKERS = 2, 3
#: New reports per second while pollers fail.
LOAD = 1.0
#: Reports that come at once, and seconds that each request of theirs takes: a host alone would take long.
CROWD, LATENCY = 18, 0.15
#: Reports whose creates are under way when a host fails.
UNDER_WAY = 4
#: Seconds for another host to take over, or to take work.
PATIENCE = 30.0
#: How often hosts fail in the long form.
LONG_TIMES = 5


def make_cluster(stack: contextlib.ExitStack) -> tuple[Network, Site, list[str], list[str]]:
    """The pollers' hosts and the workers', with one process each, which have delivered their first reports."""
    net, _, site = make_hosts(stack, redis_host=True)
    pollers, workers = ([net.add_host() for _ in range(number)] for number in (POLLERS, WORKERS))
    for role, hosts in (("poller", pollers), ("worker", workers)):
        for host in hosts:
            start(site, net, host, role)
    get_going(site)
    for psa in (site.world.connectwise, site.world.autotask):
        psa.latency = LATENCY
    return net, site, pollers, workers


def creators(site: Site, net: Network, hosts: list[str], first: int) -> list[str]:
    """Of these hosts, one for each create that a PSA received for a report from `first` on, the latest last."""
    by_address = {net.of(host, "world"): host for host in hosts}
    creates = [(psa, create) for psa in site.world.psas().values() for create in psa.creates()]
    numbers = range(first, max(site.judge.numbers(), default=0) + 1)
    return [by_address[each.sender] for psa, each in creates if any(psa.is_create(each, one) for one in numbers)]


def crowd(site: Site, count: int) -> int:
    """So many reports at once. Returns the first one's number."""
    first = max(site.judge.numbers()) + 1
    site.world.reports(count, first=first)
    return first


def wait_until_made(site: Site, first: int) -> None:
    numbers = [number for number in site.judge.numbers() if number >= first]
    site.judge.wait_until_complete(2 * PATIENCE, numbers)
    assert site.judge.missing(numbers) == []


def workers_fail(stack: contextlib.ExitStack, long: bool) -> Figures:
    """All take part; one fails in mid-create; one that is added takes part as well. Who made what, the PSAs tell."""
    net, site, _, workers = make_cluster(stack)
    times = LONG_TIMES if long else 1
    first = crowd(site, CROWD)
    wait_until_made(site, first)
    assert set(creators(site, net, workers, first)) == set(workers), "a host took no part"
    for _ in range(times):
        late_creates(site, times=UNDER_WAY)
        first = crowd(site, UNDER_WAY)
        wait_until(partial(creators, site, net, workers, first), PATIENCE, "a create is under way")
        victim = creators(site, net, workers, first)[-1]
        lose(site, net, victim, POLLERS + workers.index(victim))
        workers.remove(victim)
        wait_until_made(site, first)

        workers.append(net.add_host())
        start(site, net, workers[-1], "worker")
        wait_until_ready(site.bridge, site.processes[-1][1])
        first = crowd(site, CROWD)
        wait_until_made(site, first)
        assert workers[-1] in creators(site, net, workers, first), "the host that was added took no part"
    return site.judged("8 A worker's host fails, another is added", times, f"{WORKERS} workers, each on its host")


def polled(site: Site, net: Network, host: str, after: float) -> bool:
    """Has that host listed reports since then?"""
    huntress = site.world.huntress
    with huntress.lock:
        return any(
            each.at > after and each.sender == net.of(host, "world") and each.path.endswith("/incident_reports")
            for each in huntress.received
        )


def pollers_fail(stack: contextlib.ExitStack, long: bool) -> Figures:
    """The leading poller's host is cut off, later comes back, and leads again when the other one fails for good."""
    net, site, pollers, _ = make_cluster(stack)
    times = LONG_TIMES if long else 1
    took = []
    with Load(site.world, LOAD, 9, first=BEFORE + 1):
        for _ in range(times):
            old = leading(site, pollers, "poller")
            [other] = set(pollers) - {old}
            began = time.monotonic()
            net.cut(old, *LINES)
            wait_until(partial(polled, site, net, other, began), PATIENCE, "the other one polls")
            took.append(time.monotonic() - began)
            net.rejoin(old, *LINES)
        began = time.monotonic()
        lose(site, net, other, pollers.index(other))
        wait_until(partial(polled, site, net, old, began), PATIENCE, "the first one polls again")
        took.append(time.monotonic() - began)
    return site.judged(
        "8 The leading poller's host is cut off, then fails", len(took), f"another polled {max(took):.1f} s later"
    )


SCENARIOS: dict[str, Scenario] = {"workers": workers_fail, "pollers": pollers_fail}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Figures]]]:
    skip_without_hosts()
    names = selected(request)
    with contextlib.ExitStack() as stack:
        wanted = {name: scenario for name, scenario in SCENARIOS.items() if name in names}
        yield start_all(wanted, stack, bool(request.config.getoption("--long")))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scale_out(name: str, started: dict[str, Future[Figures]], report_figures: Callable[[Figures], None]) -> None:
    report_figures(started[name].result())
