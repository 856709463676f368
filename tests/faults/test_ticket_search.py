"""Searches that lag, fail, see nothing or find two: an empty answer counts only when it is good and late enough."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from bridge.demo.server import Fault, FaultKind, Received
from tests.end_to_end.conftest import Bridge, wait_until
from tests.faults.figures import Figures
from tests.faults.judge import Judge
from tests.faults.site import Site
from tests.faults.trouble import ANY, Scene, Span, Trouble, a_bridge, ending_in, side_by_side, staged
from tests.psa import PSAS, Psa

pytestmark = pytest.mark.timeout(3600)

#: Seconds that a search lags, and `settle` where one does: the first is less than the second.
LAG, SETTLE_OVER_LAG = 10, 15
#: Seconds of `timeout` and `settle` where searches fail: they go on failing long after `settle`.
TIMEOUT, SETTLE = 1, 3

JSON = {"headers": {"Content-Type": "application/json"}}
#: How a search fails, by the last digit of the report's number.
FAILURES: dict[str, dict[str, Any]] = {
    "0": {"kind": "status", "status": 500},
    "1": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "2": {"kind": "garbage"},
    "3": {"kind": "hang", "delay": TIMEOUT + 1},
    "4": {"kind": "status", "status": 200},
    "5": {"kind": "status", "status": 200, "body": {}},
    "6": {"kind": "status", "status": 200, "body": "null", **JSON},
    "7": {"kind": "status", "status": 200, "body": [None]},
    "8": {"kind": "status", "status": 200, "body": '[{"id": 10', **JSON},
    "9": {"kind": "drop"},
}
#: What Autotask answers beyond that.
DESK_FAILURES: dict[str, dict[str, Any]] = {
    "7": {"kind": "status", "status": 200, "body": {"items": [None]}},
    "8": {"kind": "status", "status": 200, "body": '{"items": [{"id": 70', **JSON},
}


@dataclass
class InDoubt(Fault):
    """Meets look-ups of a report only when a create of it was received before: the one that leads to it must pass."""

    psa: Psa | None = None

    def matches(self, request: Received) -> bool:
        assert self.psa is not None
        if not super().matches(request):
            return False
        texts = " ".join([*request.query.values(), request.body.decode()])
        numbers = [int(number) for number in re.findall("huntress-5-([0-9]+)", texts)]
        return any(self.psa.creates(number) for number in numbers)


def in_doubt(psa: Psa, kind: FaultKind, about: str, **how: Any) -> InDoubt:
    fault = InDoubt(kind, psa.look_up_method, psa.look_up_path, times=None, about=about, psa=psa, **how)
    with psa.server.lock:
        psa.server.faults.append(fault)
    return fault


def lag(psa: Psa, about: str) -> list[Fault]:
    psa.state.search_lag = LAG
    # Late by nothing: this only counts.
    return [psa.server.fault("late", method="POST", path=psa.create_path, about=about, times=None)]


def lag_and_drop(psa: Psa, about: str) -> list[Fault]:
    psa.state.search_lag = LAG
    return [psa.server.fault("commit_drop", method="POST", path=psa.create_path, about=about, times=None)]


def carried_out(number: int) -> bool:
    """Of the creates that get no answer, half are carried out: where the last two digits are both even or both odd."""
    return (number // 10 + number) % 2 == 0


def fail_in_doubt(psa: Psa, about: str) -> list[Fault]:
    """No create is answered, and no search as long as one is in doubt."""
    found: list[Fault] = [
        in_doubt(psa, about=ending_in(digit), **how)
        for digit, how in (FAILURES | (DESK_FAILURES if psa.name == "desk" else {})).items()
        if not (psa.name == "desk" and digit == "4")
    ]
    if psa.name == "desk":  # its first page is empty and names a second one, which fails
        following = f"{psa.server.url}/ATServicesRest/V1.0/Tickets/query/next?paging=0"
        body = {"items": [], "pageDetails": {"count": 0, "nextPageUrl": following}}
        found.append(in_doubt(psa, "status", ending_in("4"), status=200, body=body))
        psa.server.fault("status", path="/query/next", status=500, about=ending_in("4"), times=None)
    alike = r"huntress-5-(([0-9]*[02468])?[02468]|[0-9]*[13579][13579])(?![0-9])"
    psa.server.fault("commit_drop", method="POST", path=psa.create_path, about=alike, times=None)
    psa.server.fault("drop", method="POST", path=psa.create_path, times=None)
    return found


def created_once(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    assert {number: len(psa.creates(number)) for number in numbers} == dict.fromkeys(numbers, 1)
    return ""


def empty_answers(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    """As `created_once`; says how often a search was empty though the ticket was there."""
    created_once(psa, numbers, span)
    made = {number: at for number in numbers if (at := psa.creates(number)[0].at) > span.begun}
    empty = sum(at < one.at < at + LAG for number, at in made.items() for one in psa.look_ups(number))
    return f"{psa.name}: {empty} look-ups were empty though the ticket was there"


def nothing_was_created_in_doubt(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    """Not one create more while searches failed; what was never carried out is created again after a good answer.

    Autotask refuses some that it would have carried out: hanging searches take up the three requests that it allows.
    """
    again = 0
    for number in numbers:
        first, *later = [create.at for create in psa.creates(number)]
        if span.begun < first < span.ended:
            assert psa.name == "desk" or len(later) == (0 if carried_out(number) else 1), number
            assert all(at > span.ended and at > first + SETTLE for at in later), number
            again += len(later)
    return f"{psa.name}: {again} were never carried out, and created again after a good answer"


SCENES = {
    "lag": Scene(
        (
            Trouble("3 search lags 10 s behind", lag, "56789", created_once),
            Trouble(
                "3 search lags 10 s behind, creates are carried out and dropped", lag_and_drop, "01234", empty_answers
            ),
        ),
        short=8,
        long=60,
        settings={"settle": SETTLE_OVER_LAG},
    ),
    "fails": Scene(
        (
            Trouble(
                "3 search fails in ten ways while creates are in doubt",
                fail_in_doubt,
                ANY,
                nothing_was_created_in_doubt,
            ),
        ),
        short=12,
        long=60,
        per_second=2.5,
        retried=True,
        settings={"settle": SETTLE, "timeout": TIMEOUT},
    ),
}


def two_tickets(long: bool) -> list[Figures]:
    """Of three reports one has two tickets before it is seen, and one gets a second while its create is in doubt."""
    count = 60 if long else 12
    numbers = range(2, 2 + count)
    before, later = list(numbers[::3]), list(numbers[1::3])
    with a_bridge() as (world, bridge):
        both = world.psas()
        world.report(1)
        site = Site(world, bridge, ("run",))
        wait_until(lambda: all(len(psa.look_ups(1)) > 1 for psa in both.values()), 60, "the first ticket is proven")
        for psa in both.values():
            for number in before:
                psa.add_ticket(number)
                psa.add_ticket(number)
            for number in later:
                psa.fault_create("commit_drop", number)
        world.reports(count, first=numbers[0])
        for psa in both.values():
            for number in later:
                wait_until(lambda psa=psa, number=number: psa.ids(number), 60)  # type: ignore[misc]
                psa.add_ticket(number)
        ended = time.monotonic()
        site.judge.wait_until_complete(90)
        site.wait_until_quiet()

        def told() -> bool:
            return all(psa.notes(min(psa.ids(number))) for psa in both.values() for number in before + later)

        wait_until(told, 60, "a note on every ticket that is kept")
        settled = time.monotonic() - ended
        rows = {(row["connector"], row["report_id"]): row for row in bridge.deliveries()}
        site.stop()
        for psa in both.values():
            for number in before + later:
                kept, other = sorted(psa.ids(number))
                assert rows[psa.name, number]["ticket_id"] == str(kept)
                assert f"ticket {other} carries the same reference" in rows[psa.name, number]["reason"]
                assert any(f"Ticket {other} carries the same Huntress reference" in note for note in psa.notes(kept))
                assert len(psa.creates(number)) == (1 if number in later else 0)
        assert site.orderly()
        by_hand = 2 * len(before + later)
        return [
            Figures(
                "3 two tickets with one reference",
                reports=count + 1,
                faults=by_hand,
                lost=len(site.judge.missing()),
                doubled=len(site.judge.doubled()) - by_hand,
                settled=settled,
                remarks="the lower id is kept, the reason and a note name the other; those by hand are not counted",
            )
        ]


def paused(bridge: Bridge, sentence: str) -> set[str]:
    """Connectors that the newest process says are paused, once or again."""
    lines = [line for line in bridge.log().splitlines() if sentence in line]
    return {name for name in PSAS if any(re.search(rf"connector\W+{name}\b", line) for line in lines)}


def sees_nothing(rights: dict[str, Any], long: bool) -> list[Figures]:
    """The API users may create but not search. Restarts, orderly ones and kills, make no more of what is not found."""
    restarts, per_start = 3, 10 if long else 4
    with a_bridge(settle=3) as (world, bridge):
        both = world.psas()
        for name, psa in both.items():
            psa.state.search_right = rights[name]
        wanted = {name: 1 if right == "sees nothing" else 0 for name, right in rights.items()}
        world.reports(per_start)
        site = Site(world, bridge, ("run",))
        for start in range(1 + restarts):
            if start:
                site.again(0)
            process = site.processes[0][1]
            sentence = "still paused" if start else "connector paused"
            wait_until(lambda: paused(bridge, sentence) == set(PSAS), 60, "both connectors are paused")  # noqa: B023
            assert {name: len(psa.creates()) for name, psa in both.items()} == wanted, f"start {start}"
            if start == restarts:
                break
            if start % 2:
                assert bridge.stop(process) == 0
            else:
                bridge.kill(process)
            world.reports(per_start, first=1 + (start + 1) * per_start)
        for psa in both.values():
            psa.state.search_right = "granted"
        granted_at = time.monotonic()
        if not long:
            assert bridge("retry").returncode == 0, "saves waiting for the next probe"
        settled = {}
        for name in rights:
            Judge(world, name).wait_until_complete(1000 if long else 60)
            settled[name] = time.monotonic() - granted_at
        site.wait_until_quiet()
        site.stop()
        rows = {"sees nothing": "6 tickets are created and never found", "forbidden": "6 searches are forbidden"}
        return [
            Figures(
                f"{rows[right]} ({name}), restarts",
                reports=per_start * (1 + restarts),
                faults=restarts,
                lost=len(Judge(world, name).missing()),
                doubled=len(Judge(world, name).doubled()),
                settled=settled[name],
                remarks=f"{wanted[name]} tickets until the right was granted, the others then, without a restart",
            )
            for name, right in rights.items()
        ]


RIGHTS = [{"psa": "sees nothing", "desk": "forbidden"}, {"psa": "forbidden", "desk": "sees nothing"}]
PLAYS: dict[str, Callable[[bool], list[Figures]]] = {
    **{name: partial(staged, scene) for name, scene in SCENES.items()},
    "two tickets": two_tickets,
    "rights": partial(sees_nothing, RIGHTS[0]),
    "other rights": partial(sees_nothing, RIGHTS[1]),
}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[Figures]]]]:
    with side_by_side(PLAYS, request) as futures:
        yield futures


@pytest.mark.parametrize(
    ("play", "row"),
    [("lag", 0), ("lag", 1), ("fails", 0), ("two tickets", 0)]
    + [(name, row) for name in ("rights", "other rights") for row in (0, 1)],
)
def test_a_search_that_misleads(
    play: str, row: int, played: dict[str, Future[list[Figures]]], report_figures: Callable[[Figures], None]
) -> None:
    figures = played[play].result()[row]
    report_figures(figures)
    assert figures.faults > 0
