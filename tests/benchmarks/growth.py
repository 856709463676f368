"""Does anything get slower with what is stored? The same work beside a thousand and beside a million deliveries."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path

from flask.testing import FlaskClient

from bridge.idempotency import Claim
from bridge.web.app import create_app
from tests.benchmarks.stored import CONNECTOR, fill
from tests.benchmarks.table import Row
from tests.bridge.stage import Systems
from tests.bridge.watch import Watch
from tests.conftest import RedisServer

SIZES = (1_000, 10_000, 100_000, 1_000_000)
#: Reports that are open all the time.
OPEN = 200
#: Turns and lists of which one value of a run is the median, and cycles.
TURNS, LISTS, CYCLES = 200, 20, 10
#: The largest may take so many times what the smallest takes.
GOAL = 1.5
WHAT = ("a cycle", "a claim", "the list of deliveries")


def measure(runs: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder, Systems().running() as systems:
        server = RedisServer(Path(folder), "--appendonly", "no")
        server.start()
        try:
            return _measured(runs, Path(folder), server.url, systems)
        finally:
            server.kill()


def _measured(runs: int, folder: Path, url: str, systems: Systems) -> list[Row]:
    times: dict[str, dict[int, list[float]]] = {what: {size: [] for size in SIZES} for what in WHAT}
    systems.huntress.add(*range(1, OPEN + 1), severity="low")
    numbers = itertools.count()
    with Watch(url, folder, systems, {CONNECTOR: systems.table(CONNECTOR)}) as watch:
        if watch.cycle().reports != OPEN:
            raise SystemExit("not every report was listed")
        for size in SIZES:
            fill(watch.store, size)
            app = create_app(watch.runtime)
            app.secret_key = app.secret_key or "of a benchmark"
            page, index = app.test_client(), app.extensions["site"].index
            while not index.look().ready:
                time.sleep(0.05)
            for _ in range(runs):
                for what, took in (
                    ("a cycle", [_cycle(watch) for _ in range(CYCLES)]),
                    ("a claim", [_claim(watch, next(numbers) % OPEN + 1) for _ in range(TURNS)]),
                    ("the list of deliveries", [_list(page) for _ in range(LISTS)]),
                ):
                    times[what][size].append(statistics.median(took) * 1000)
            index.close()
    return [
        Row(
            f"{what}, {SIZES[-1]:,} deliveries stored : {SIZES[0]:,}",
            "times",
            [many / few for many, few in zip(by[SIZES[-1]], by[SIZES[0]], strict=True)],
            GOAL,
            note="ms: " + ", ".join(f"{size:,} {statistics.median(by[size]):.3g}" for size in SIZES),
        )
        for what, by in times.items()
    ]


def _cycle(watch: Watch) -> float:
    began = time.perf_counter()
    result = watch.cycle()
    took = time.perf_counter() - began
    if (result.complete, result.reports) != (True, OPEN):
        raise SystemExit(f"a cycle did not see everything: {result}")
    return took


def _claim(watch: Watch, number: int) -> float:
    """Seconds that the claim of an open report takes; it is let go at once, as it was."""
    began = time.perf_counter()
    claim = watch.store.claim(number, CONNECTOR, group="growth", concurrency=10, settle=60)
    took = time.perf_counter() - began
    if not isinstance(claim, Claim):
        raise SystemExit(f"not claimed: {claim}")
    if not watch.store.release(claim, delay=0):
        raise SystemExit("not let go")
    return took


def _list(page: FlaskClient) -> float:
    began = time.perf_counter()
    answer = page.get("/deliveries")
    took = time.perf_counter() - began
    if answer.status_code != 200 or b"/deliveries/" not in answer.data:
        raise SystemExit(f"the list of deliveries answered {answer.status_code}")
    return took
