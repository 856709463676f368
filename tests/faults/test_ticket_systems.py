"""Ticket systems that lose answers, are overloaded or refuse: whatever they do, one ticket per report.

`test_ticket_search.py` has the searches that lag, fail or see nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from bridge.demo.server import Fault, Unrest
from tests.bridge.stage import Stage, Systems
from tests.faults.figures import Figures
from tests.faults.judge import SETTLE
from tests.faults.trouble import Scene, Span, Trouble, side_by_side, staged
from tests.psa import PSAS, Psa, reference

pytestmark = pytest.mark.timeout(3600)

#: Seconds of `timeout`, and after which a create is carried out that began to hang: past the time-out and the first
#: look-up, which comes 5 s later, before the one at `SETTLE`.
TIMEOUT = 1
LATE = TIMEOUT + 7


def creates(kind: str, **how: object) -> Callable[[Psa, str], list[Fault]]:
    """Every create meets this fault."""
    return lambda psa, about: [
        psa.server.fault(kind, method="POST", path=psa.create_path, about=about, times=None, **how)  # type: ignore[arg-type]
    ]


def everything(**how: object) -> Callable[[Psa, str], list[Fault]]:
    """Every request is answered so."""
    return lambda psa, about: [psa.server.fault("status", times=None, **how)]


def half(psa: Psa, about: str) -> list[Unrest]:
    psa.server.unrest = Unrest(0.5, seed=PSAS.index(psa.name))
    return [psa.server.unrest]


def created_once(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    assert {number: len(psa.creates(number)) for number in numbers} == dict.fromkeys(numbers, 1)
    return ""


def looked_up_in_vain(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    hung = {number: at for number in numbers if span.begun < (at := psa.creates(number)[0].at) < span.ended}
    vain = [n for n, at in hung.items() if any(at + TIMEOUT < asked.at < at + LATE for asked in psa.look_ups(n))]
    assert vain, "no look-up came back empty before the create was carried out"
    return f"{psa.name}: {len(vain)} of {len(hung)} were looked up in vain first"


def asked_little(psa: Psa, numbers: Sequence[int], span: Span) -> str:
    asked = sum(span.begun < request.at < span.ended for request in psa.received())
    return f"{psa.name} was asked {asked} times in {span.ended - span.begun:.0f} s"


SCENES = {
    "creates": Scene(
        (
            Trouble("3 creates carried out, then dropped", creates("commit_drop"), "0369", created_once),
            Trouble(
                "3 creates carried out, then answered 500", creates("commit_status", status=500), "1247", created_once
            ),
            Trouble(
                "3 creates carried out late, after an empty look-up",
                creates("late", delay=LATE),
                "58",
                looked_up_in_vain,
            ),
        ),
        short=8,
        long=120,
        # One request at a time: what hangs takes up one of the three that Autotask allows.
        settings={"timeout": TIMEOUT, "concurrency": 1},
    ),
    "429s": Scene(
        (
            Trouble(
                "3 everything answered 429 with Retry-After",
                everything(status=429, headers={"Retry-After": "2"}),
                check=asked_little,
            ),
        ),
        short=10,
        long=120,
    ),
    "401s": Scene(
        (Trouble("3 everything answered 401, in processes", everything(status=401), check=asked_little),),
        short=8,
        long=90,
        retried=True,
    ),
    "half": Scene(
        (Trouble("3 half the requests dropped, 500, 503 or 429", half),),
        short=10,
        long=600,
        per_second=0.5,
    ),
}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[Figures]]]]:
    with side_by_side({name: partial(staged, scene) for name, scene in SCENES.items()}, request) as futures:
        yield futures


@pytest.mark.parametrize(
    ("play", "row"), [(name, row) for name, scene in SCENES.items() for row in range(len(scene.troubles))]
)
def test_a_ticket_system_that_misbehaves(
    play: str, row: int, played: dict[str, Future[list[Figures]]], report_figures: Callable[[Figures], None]
) -> None:
    figures = played[play].result()[row]
    report_figures(figures)
    assert figures.faults > 0


def test_401_for_an_hour(redis_url: str, tmp_path: Path, report_figures: Callable[[Figures], None]) -> None:
    """An hour of the bridge's own clock; what waits is done when time is passed."""
    with Systems().running() as systems:
        tables = {name: systems.table(name, settle=SETTLE) for name in PSAS}
        both = [systems.psa(name) for name in PSAS]
        with Stage(redis_url, tmp_path, systems, tables) as stage:
            stage.report(1)
            stage.work()
            faults = [psa.server.fault("status", times=None, status=401) for psa in both]
            for minute in range(60):
                stage.report(2 + minute)
                for _ in range(4):
                    stage.work(15)
                    stage.probe()
            assert [pause.kind for name in PSAS if (pause := stage.store.paused(name))] == ["misconfigured"] * 2
            asked = sum(fault.met for fault in faults)
            for psa in both:
                psa.server.faults.clear()
            wanted = {reference(number): 1 for number in range(1, 62)}
            seconds = 0
            while seconds < 1800 and not all(wanted.keys() <= psa.references().keys() for psa in both):
                stage.work(5)
                stage.probe()
                seconds += 5
            stage.wait(SETTLE + 20)
            report_figures(
                Figures(
                    "3 everything answered 401 for an hour",
                    reports=61,
                    faults=asked,
                    lost=sum(len(wanted.keys() - psa.references().keys()) for psa in both),
                    doubled=sum(count - 1 for psa in both for count in psa.references().values()),
                    settled=seconds,
                    remarks="in one process, an hour of its clock; both connectors paused, probed every 15 min at last",
                )
            )
            assert asked < 200
