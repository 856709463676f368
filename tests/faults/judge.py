"""Counts what the pretend systems hold, and brings the load that it counts."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

from tests.end_to_end.conftest import Bridge, World
from tests.psa import PSAS, reference

#: Seconds of `settle` in the fault suite: as short as leaves every look-up before it its place.
SETTLE = 10
#: Seconds that a request to a PSA takes.
LATENCY = 0.3


def connectors(world: World, *names: str, **settings: Any) -> dict[str, Any]:
    """The table `connectors` with these names (none: both PSAs), a `settle` of the suite's, and `settings` in each."""
    return {name: table | {"settle": SETTLE} | settings for name, table in world.connectors(*(names or PSAS)).items()}


def slow(world: World) -> None:
    """Makes every request to either PSA take `LATENCY`."""
    world.connectwise.latency = world.autotask.latency = LATENCY


class Judge:
    """Compares what one destination after the other received with what it should have."""

    def __init__(self, world: World, *names: str) -> None:
        self.world = world
        received: dict[str, Callable[[], Counter[str]]] = {
            "psa": world.connectwise_references,
            "desk": world.autotask_references,
            "oncall": world.mail_references,
        }
        self.received = {name: received[name] for name in names or PSAS}

    def numbers(self) -> set[int]:
        """Reports that the source has."""
        with self.world.huntress.lock:
            return set(self.world.huntress.reports)

    def missing(self, numbers: Collection[int] | None = None) -> list[tuple[str, str]]:
        """(connector, reference) of what should be there and is not."""
        wanted = [reference(number) for number in sorted(self.numbers() if numbers is None else numbers)]
        return [(name, one) for name, count in self.received.items() for one in wanted if one not in count()]

    def doubled(self) -> list[tuple[str, str]]:
        """(connector, reference), once for every ticket beyond the first."""
        return [
            (name, one)
            for name, count in self.received.items()
            for one, times in sorted(count().items())
            for _ in range(times - 1)
        ]

    def wait_until_complete(self, seconds: float, numbers: Collection[int] | None = None) -> float:
        """Seconds until nothing is missing; gives up after `seconds`, for `missing` to tell what is."""
        start = time.monotonic()
        while self.missing(numbers) and time.monotonic() < start + seconds:
            time.sleep(0.1)
        return time.monotonic() - start


def wait_until_quiet(bridge: Bridge, seconds: float = 60) -> list[dict[str, Any]]:
    """The deliveries, when none of them is on its way any more; only then can no second ticket come."""
    deadline = time.monotonic() + seconds
    while True:
        rows = bridge.deliveries()
        if not {row["state"] for row in rows} & {"pending", "creating"}:
            return rows
        assert time.monotonic() < deadline, f"deliveries are on their way after {seconds} s"
        time.sleep(0.2)


class Load:
    """New reports while the block runs, `per_second` on average, at random moments."""

    def __init__(self, world: World, per_second: float, seed: int, first: int = 1) -> None:
        self.next = first
        self._world = world
        self._per_second = per_second
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._bring, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _bring(self) -> None:
        while not self._stop.wait(self._random.expovariate(self._per_second)):
            self._world.reports(1, first=self.next, organizations=len(self._world.huntress.organizations))
            self.next += 1
