"""Three critical reports behind a long backlog are the next to go out."""

from __future__ import annotations

import re
from collections.abc import Callable

from bridge.demo.server import Received
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import Psa, reference

BACKLOG = 300
CRITICAL = range(1001, 1004)
#: Seconds that the slow connector takes for a ticket.
SLOW = 2.0
CONCURRENCY = 3


def number_in(request: Received) -> int:
    """Which report is this about?"""
    found = re.search("huntress-5-([0-9]+)", f"{request.query} {request.json}")
    assert found
    return int(found[1])


def starts(psa: Psa) -> dict[int, float]:
    """When the turn of each report began, in that order: nothing is created without a look-up first."""
    found: dict[int, float] = {}
    for request in psa.look_ups():
        found.setdefault(number_in(request), request.at)
    return found


def test_critical_reports_overtake_a_backlog(world: World, make_bridge: Callable[..., Bridge]) -> None:
    psa, desk = Psa("psa", world.connectwise), Psa("desk", world.autotask)
    psa.fault_create("late", times=None, delay=SLOW)
    world.reports(BACKLOG, severity="low")
    bridge = make_bridge(world, connectors=world.connectors("psa", "desk"))
    process = bridge.start("run")

    # The first ticket is made alone, as its search is tried out; then three at a time.
    wait_until(lambda: len(psa.creates()) > CONCURRENCY, 40, "the slow one is busy")
    told = len(world.huntress.received)
    for number in CRITICAL:
        world.report(number, severity="critical")

    def listings() -> list[Received]:
        with world.huntress.lock:
            later = world.huntress.received[told:]
        return [request for request in later if request.path.endswith("/incident_reports")]

    # Two make a poll, and the first may still belong to the one before.
    wait_until(lambda: len(listings()) >= 4, 20, "a poll after they were sent is over")
    wait_until(lambda: all(psa.creates(number) for number in CRITICAL), 20, "they are under way")
    known_at = listings()[3].at
    begun = starts(psa)
    order = list(begun)
    first = min(order.index(number) for number in CRITICAL)
    assert set(order[first : first + 3]) == set(CRITICAL)
    overtaken = [number for number in order[:first] if begun[number] > known_at]
    assert overtaken == [], "once the criticals are known, nothing low begins before them"
    assert len(order) < 20, "the backlog is far from over"

    # The other one goes at its own pace all the while.
    wait_until(lambda: all(desk.references()[reference(number)] for number in CRITICAL), 20)
    made = desk.references()
    assert set(made.values()) == {1}
    assert len(made) > 3 * len(psa.creates())
    bridge.kill(process)
