"""Redis Sentinel: the primary dies or freezes under load, and the bridge goes on with the new one by itself."""

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
from tests.end_to_end.conftest import wait_until
from tests.faults.figures import Figures
from tests.faults.ground import BEFORE, Scenario, late_creates, make_server, make_site, selected, start_all
from tests.faults.judge import Load
from tests.sentinel import SentinelServer, sentinel_url, sentinels

#: New reports per second, in the short form and in the long one.
SHORT_LOAD, LONG_LOAD = 0.5, 1.0
#: Seconds without an answer after which a Sentinel counts the primary as down.
DOWN_AFTER = 1.0
#: Seconds for the Sentinels to agree on a new primary, and for one that is back to follow it.
ELECTED_WITHIN = 30.0
#: Seconds that a frozen primary stays frozen: the new one leads by then.
FROZEN = 6.0
#: Fail-overs of the long form.
LONG_FAIL_OVERS = 6


def gave_up(watching: list[SentinelServer], old: int) -> bool:
    return all(one.primary() != old for one in watching)


def fail_over(stack: contextlib.ExitStack, long: bool, *, freeze: bool) -> Figures:
    """Each fail-over meets creates under way. What was the primary comes back as a replica before the next."""
    ports = [free_port(0), free_port(0)]
    options = ("--repl-diskless-sync-delay", "0")
    first = make_server(stack, "--port", str(ports[0]), *options)
    second = make_server(stack, "--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0]), *options)
    servers = dict(zip(ports, (first, second), strict=True))
    watching = stack.enter_context(sentinels(ports[0], number=3, down_after=DOWN_AFTER))
    site = make_site(stack, first, "poller", "worker", "worker", url=sentinel_url(watching))
    dice = random.Random(7)
    times = LONG_FAIL_OVERS if long else 1
    took = []
    with Load(site.world, LONG_LOAD if long else SHORT_LOAD, 7, first=BEFORE + 1) as load:
        for turn in range(times):
            time.sleep(dice.uniform(1, 3))
            old = watching[0].primary()
            late_creates(site)
            time.sleep(dice.uniform(0.5, 1.5))
            began, number = time.monotonic(), load.next
            if freeze:
                os.kill(servers[old].pid, signal.SIGSTOP)
            else:
                servers[old].kill()
            wait_until(partial(gave_up, watching, old), ELECTED_WITHIN, "a new primary")
            if freeze:
                time.sleep(FROZEN)
                os.kill(servers[old].pid, signal.SIGCONT)
            # With one server left: it goes on all the same.
            site.judge.wait_until_complete(60, range(number, number + 1))
            took.append(time.monotonic() - began)
            if turn + 1 < times:
                if not freeze:
                    servers[old].start()
                wait_until(partial(watching[0].follows, old), 2 * ELECTED_WITHIN, "the old one follows")
    site.client = servers[watching[0].primary()].client()
    how = "SIGSTOP of the primary, and back" if freeze else "SIGKILL of the primary"
    return site.judged(f"2 Sentinel: {how}", times, f"a report of that moment had its tickets {max(took):.0f} s later")


SCENARIOS: dict[str, Scenario] = {
    "killed": lambda stack, long: fail_over(stack, long, freeze=False),
    "frozen": lambda stack, long: fail_over(stack, long, freeze=True),
}


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Figures]]]:
    names = selected(request)
    with contextlib.ExitStack() as stack:
        wanted = {name: scenario for name, scenario in SCENARIOS.items() if name in names}
        yield start_all(wanted, stack, bool(request.config.getoption("--long")))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_sentinel(name: str, started: dict[str, Future[Figures]], report_figures: Callable[[Figures], None]) -> None:
    report_figures(started[name].result())
