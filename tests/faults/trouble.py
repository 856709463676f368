"""Ticket systems that misbehave for a while: what a scene is, and how it is played under load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.demo.server import Fault, Unrest
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.figures import Figures
from tests.faults.judge import Load, connectors
from tests.faults.site import Site
from tests.psa import Psa

#: Last digits of all numbers.
ANY = "0123456789"


def ending_in(digits: str) -> str:
    """A regular expression for the references of reports whose number ends in one of `digits`."""
    return rf"huntress-5-[0-9]*[{digits}](?![0-9])"


@dataclass(frozen=True)
class Span:
    """When a PSA misbehaved, by time.monotonic()."""

    begun: float
    ended: float


@dataclass(frozen=True)
class Trouble:
    """One row: what a PSA does to the reports whose number ends in one of `digits`."""

    fault: str
    #: Lets a PSA misbehave about what matches a regular expression. Returns what counts how often it does.
    begin: Callable[[Psa, str], Sequence[Fault | Unrest]]
    digits: str = ANY
    #: Asserts what is promised of the reports beyond the figures, and returns a remark.
    check: Callable[[Psa, Sequence[int], Span], str] = lambda psa, numbers, span: ""


@dataclass(frozen=True)
class Scene:
    """Troubles that one bridge has at the same time."""

    troubles: tuple[Trouble, ...]
    #: Seconds that they last, in the short and in the long form.
    short: float
    long: float
    #: New reports per second meanwhile.
    per_second: float = 1.0
    #: Of every connector.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Does the operator `retry` at the end of the short form? It saves waiting for back-offs and the next probe.
    retried: bool = False


def end(psa: Psa) -> None:
    """The PSA works again."""
    with psa.server.lock:
        psa.server.faults.clear()
        psa.server.unrest = None
        psa.state.search_lag = 0
        psa.state.search_right = "granted"


def play(scene: Scene, world: World, bridge: Bridge, long: bool) -> list[Figures]:
    """Brings the troubles upon a bridge that works already, and waits until all is well again. One row per trouble."""
    site = Site(world, bridge, ("run",))
    both = world.psas()
    site.wait_until_ready()
    world.reports(2)  # the second waits until the first ticket was found again
    wait_until(lambda: all(len(psa.references()) == 2 for psa in both.values()), 60, "the first tickets are there")
    with Load(world, scene.per_second, seed=1, first=3) as load:
        begun = time.monotonic()
        counters = [
            [counter for psa in both.values() for counter in trouble.begin(psa, ending_in(trouble.digits))]
            for trouble in scene.troubles
        ]
        time.sleep(scene.long if long else scene.short)
    for psa in both.values():
        end(psa)
    span = Span(begun, time.monotonic())
    if scene.retried and not long:
        bridge("retry")
    numbers = [
        [number for number in range(1, load.next) if str(number)[-1] in trouble.digits] for trouble in scene.troubles
    ]
    settled = []
    for some in numbers:
        site.judge.wait_until_complete(1000 if long else 90, some)
        settled.append(time.monotonic() - span.ended)
    site.wait_until_quiet(400 if long else 60)
    site.stop()
    assert site.orderly(), "a traceback in a log"
    missing, doubled = site.judge.missing(), site.judge.doubled()
    return [
        Figures(
            trouble.fault,
            reports=len(some),
            faults=sum(counter.met for counter in counters[index]),
            lost=sum(int(reference.split("-")[-1]) in some for _, reference in missing),
            doubled=sum(int(reference.split("-")[-1]) in some for _, reference in doubled),
            settled=settled[index],
            remarks="; ".join(filter(None, (trouble.check(psa, some, span) for psa in both.values()))),
        )
        for index, (trouble, some) in enumerate(zip(scene.troubles, numbers, strict=True))
    ]


@contextlib.contextmanager
def a_bridge(**settings: Any) -> Iterator[tuple[World, Bridge]]:
    """A world and a bridge that is not started; `settings` are of every connector."""
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        yield world, Bridge.in_folder(stack, world, {"connectors": connectors(world, **settings)})


def staged(scene: Scene, long: bool) -> list[Figures]:
    """Plays a scene with a bridge of its own."""
    with a_bridge(**scene.settings) as (world, bridge):
        return play(scene, world, bridge, long)


@contextlib.contextmanager
def side_by_side(
    plays: Mapping[str, Callable[[bool], list[Figures]]], request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[list[Figures]]]]:
    """Plays what the chosen tests name as `play`, all at the same time; each test takes the rows that it reports."""
    long = bool(request.config.getoption("--long"))
    chosen = {item.callspec.params.get("play") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(len(plays)) as pool:
        yield {name: pool.submit(play, long) for name, play in plays.items() if name in chosen}
