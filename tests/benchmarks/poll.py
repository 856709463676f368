"""What it costs to look at everything that is open: requests to the source, time, and round trips to Redis.

The source is a process of its own whose pages are made beforehand; Redis is a real one. The day is simulated: the clock
is moved on, the source answers at once, and every request is noted with its time.
"""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.broker import store_client
from bridge.budget import RedisBudget
from bridge.demo import scenario
from bridge.demo.run import toml
from bridge.huntress import BudgetExhausted
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.poller import Poller
from bridge.runtime import make_routes, make_source
from bridge.settings import load
from connectors.verdicts import Answer
from tests.benchmarks.poll_source import ORGANIZATIONS, PAGE, report
from tests.benchmarks.table import Row
from tests.bridge.test_poller import MAIL, Skipping
from tests.conftest import RedisServer

MANY, SOME = 10_000, 2_000
#: Requests a minute by default, and seconds between two polls.
SHARE, INTERVAL = 30, 15
DAY = 86_400
CONNECTORS = {"oncall": MAIL, "second": MAIL | {"sender": "second@example.com"}}


class Process:
    """A poller with what it needs, which leads."""

    def __init__(self, folder: Path, redis_url: str, base_url: str, share: int) -> None:
        config = folder / "bridge.toml"
        huntress = {"base_url": base_url, "api_key": "hk_key", "api_secret": "hs_secret", "requests_per_minute": share}
        config.write_text(toml({"huntress": huntress, "connectors": CONNECTORS}), "utf-8")
        config.chmod(0o600)
        settings = load(config, environ={})
        self.redis = store_client(redis_url)
        self.round_trips = 0
        self._count_round_trips()
        self.store = IdempotencyStore(self.redis)
        self.store.open()
        self.stopping = Skipping(self.store)
        budget = RedisBudget(self.store, share, stopping=self.stopping, clock=self.store.now)
        self.source = make_source(settings, budget)
        leadership = Leadership(self.store, "poller", patience=1e9, clock=lambda: 0.0)  # no thread renews it
        leadership.attempt()
        self.poller = Poller(
            self.store,
            Bookkeeping(self.store),
            lambda: self.source,
            lambda: settings,
            lambda: make_routes(settings, self.store),
            leadership,
        )

    def _count_round_trips(self) -> None:
        process, connection = self, self.redis.connection_pool.connection_class

        class Counting(connection):  # type: ignore[misc, valid-type]
            def send_packed_command(self, *command: Any, **how: Any) -> Any:
                process.round_trips += 1
                return super().send_packed_command(*command, **how)

        self.redis.connection_pool.connection_class = Counting

    def cycle(self, reports: int, new: int = 0) -> None:
        """One look; fails unless it shows this many open reports, and made this many deliveries."""
        cycle = self.poller.cycle(self.stopping)
        if (cycle.complete, cycle.reports, len(cycle.new)) != (True, reports, new):
            raise SystemExit(f"{cycle.reports} reports and {len(cycle.new)} new deliveries: {cycle.problem}")


@contextlib.contextmanager
def redis_server() -> Iterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as name:
        server = RedisServer(Path(name))
        server.start()
        try:
            yield Path(name), server.url
        finally:
            server.stop()


@contextlib.contextmanager
def source(reports: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.poll_source", str(reports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def asked(url: str) -> dict[str, Any]:
    return dict(requests.get(f"{url}/v1/asked", timeout=10).json())


def known(reports: int, runs: int) -> dict[str, list[float]]:
    """Cycles over reports that are all known, after the one that finds them."""
    found: dict[str, list[float]] = {name: [] for name in ("wall", "cpu", "requests", "round_trips", "script")}
    with source(reports) as url, redis_server() as (folder, redis_url):
        process = Process(folder, redis_url, f"{url}/v1", share=60_000)
        process.cycle(reports, new=reports * len(CONNECTORS))
        for run in range(runs):
            # A change that the source's own time does not tell of must not be overlooked among the others.
            requests.post(f"{url}/touch/{run + 1}", timeout=10).raise_for_status()
            version = process.redis.hget(process.store.key(f"report:{run + 1}"), "version")
            process.redis.config_resetstat()
            before, process.round_trips = asked(url)["paths"], 0
            began, cpu = time.perf_counter(), time.process_time()
            process.cycle(reports)
            found["wall"].append(time.perf_counter() - began)
            found["cpu"].append(time.process_time() - cpu)
            sent = sum(asked(url)["paths"].values()) - sum(before.values())
            found["requests"].append(sent)
            found["round_trips"].append(process.round_trips - sent)
            scripts = process.redis.info("commandstats")["cmdstat_evalsha"]
            found["script"].append(scripts["usec"] / 1000 / (reports / PAGE))
            if process.redis.hget(process.store.key(f"report:{run + 1}"), "version") == version:
                raise SystemExit("a change was overlooked")
    return found


class Answering:
    """In the place of the session: answers at once, and notes when it was asked."""

    def __init__(self, store: IdempotencyStore, reports: int) -> None:
        self.store = store
        self.at: list[float] = []
        raws = [report(number) | {"body": ""} for number in range(1, reports + 1)]
        organizations = [scenario.organization(number) for number in range(1, ORGANIZATIONS + 1)]
        self.listings: dict[str, list[Any]] = {"sent": raws, "organizations": organizations}

    def request(self, method: str, url: str, *, params: Any = None, intent: str = "read") -> Answer:
        self.at.append(self.store.now())
        name = urlsplit(url).path.rpartition("/")[2]
        given = params or {}
        if name == "account":
            return _answer({"account": scenario.ACCOUNT})
        if name.isdecimal():
            return _answer({"organization": scenario.organization(int(name))})
        # Reports stand for a hundred each: a page of them has five.
        size = PAGE if name == "organizations" else PAGE // 100
        items = self.listings.get(given.get("status", name), [])
        start = int(given.get("page_token", 0))
        place = {"next_page_token": str(start + size)} if start + size < len(items) else {}
        return _answer({name: items[start : start + size], "pagination": place})

    def close(self) -> None:
        """Nothing is open."""


def _answer(body: Any) -> Answer:
    return Answer(status=200, headers={}, text="", json=body, size=0)


def day() -> list[float]:
    """When requests were sent in a simulated day, with tickets and commands that want details all the time."""
    draw = random.Random(1)
    with redis_server() as (folder, redis_url):
        process = Process(folder, redis_url, "http://127.0.0.1:9/v1", SHARE)
        process.source._session = session = Answering(process.store, SOME // 100)  # type: ignore[assignment]
        process.cycle(SOME // 100, new=SOME // 100 * len(CONNECTORS))
        end = process.store.now() + DAY
        while (now := process.store.now()) < end:
            process.cycle(SOME // 100)
            with contextlib.suppress(BudgetExhausted):
                for _ in range(draw.choice([0, 0, 0, 1, 30])):
                    process.source.organization(draw.randint(1, ORGANIZATIONS), wait=0)
            process.store.clock_offset += max(0.0, now + INTERVAL - process.store.now())
    return session.at


def busiest_minute(at: list[float]) -> int:
    """The most requests in 60 s, less what two requests may differ in on their way."""
    most = first = 0
    for last, moment in enumerate(at):
        while at[first] <= moment - 59.9:
            first += 1
        most = max(most, last - first + 1)
    return most


def measure(runs: int) -> list[Row]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    some, many, sent = known(SOME, runs), known(MANY, runs), day()
    return [
        Row(
            "source requests per cycle, 10,000 organizations, 2,000 open reports",
            "requests",
            some["requests"],
            goal=5,
            peers={"a script that asks for each organization": [ORGANIZATIONS]},
            note="one more per further 500 reports; the organizations themselves once an hour",
        ),
        Row(
            "one cycle over 10,000 known open reports",
            "s",
            many["wall"],
            goal=1.5,
            note="two connectors; one report changed in each cycle, without a newer `updated_at`",
        ),
        Row("processor time of the poller in that cycle", "s", many["cpu"]),
        Row(
            "Redis round trips in that cycle, beside the budget's one per source request",
            "round trips",
            many["round_trips"],
            goal=30,
            note="one per 500 reports",
        ),
        Row("Redis busy with scripts in that cycle, per 500 reports", "ms", many["script"], goal=10),
        Row(
            f"most requests in any minute of a day, of {SHARE} allowed",
            "requests",
            [busiest_minute(sent)],
            goal=SHARE,
            note=f"{len(sent):,} requests in a simulated day of polls each {INTERVAL} s and details at random",
        ),
    ]
