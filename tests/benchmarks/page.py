"""How quick the page is with many deliveries stored and some fifty changing each second, and what its index costs."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from bridge.demo.run import toml
from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState, IncidentReport, Organization, TicketRef
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.web.app import create_app
from bridge.web.delivery_table import Place
from tests.benchmarks.table import Row
from tests.bridge.stage import Systems
from tests.conftest import RedisServer

DELIVERIES, ORGANIZATIONS = 100_000, 500
#: Goals of one answer, in milliseconds.
OVERVIEW, LIST = 300.0, 500.0
#: How often each page is asked for.
TIMES = 7

LISTS = {
    "everything": "",
    "one state": "state=created",
    "a rare state": "state=rejected",
    "needs a person": "state=attention",
    "waiting": "state=waiting",
    "severity": "severity=critical",
    "other severities": "severity=other",
    "connector": "connector=desk",
    "organization": "organization=77",
    "rare text": "text=ws-004242",
    "common text": "text=foothold",
    "text that is nowhere": "text=zzzzzz",
    "one letter": "text=q",
    "organization's name": "text=customer+123",
    "ticket": "text=4711",
    "many words": "text=foothold+ws+customer+4",
    "everything at once": "state=created&severity=low&connector=psa&organization=9&text=ws",
    "state and text": "state=waiting&text=zzzz",
    "severity and connector": "severity=low&connector=psa",
}


def fill(store: IdempotencyStore, deliveries: int) -> None:
    """Reports for two connectors each, most of which have their ticket."""
    draw = random.Random(5)
    leader = int(store.script("lead", "poller", "benchmark", 3_600_000))
    begun = datetime(2026, 3, 2, tzinfo=UTC)
    base = IncidentReport(1, account_id=5, status="sent", summary="summary " * 30, body="line of the body\n" * 60)
    for start in range(0, deliveries // 2, 500):
        numbers = range(start + 1, start + 501)
        reports = [
            replace(
                base,
                id=number,
                organization_id=draw.randint(1, ORGANIZATIONS),
                severity=draw.choice(["low", "low", "low", "high", "critical", "odd"]),
                subject=f"{draw.choice(['Foothold', 'Ransomware canary', 'Inbox rule'])} on WS-{number:06d}",
                sent_at=begun + timedelta(seconds=number),
            )
            for number in numbers
        ]
        store.observe(leader, [(each, [("psa", f"h-5-{each.id}"), ("desk", f"h-5-{each.id}")]) for each in reports])
        for number in numbers:
            for connector in ("psa", "desk"):
                finish(store, number, connector, draw)


def finish(store: IdempotencyStore, number: int, connector: str, draw: random.Random) -> None:
    fate = draw.random()
    if fate < 0.01:
        return
    claim = store.claim(number, connector, group=connector, concurrency=1_000_000, settle=60)
    assert not isinstance(claim, str), claim
    if fate < 0.015:
        state = draw.choice([DeliveryState.REJECTED, DeliveryState.HELD])
        store.release(claim, state=state, reason="board: the field summary is too long", result=True)
    else:
        store.record(claim, TicketRef(str(100_000 + number), f"T{number:08d}", f"https://psa.example/{number}"))


def resident() -> float:
    """Megabytes of this process now."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def slowest(client: FlaskClient, path: str) -> float:
    """Milliseconds of the slowest of some answers."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        answer = client.get(path)
        took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}")
    return max(took)


@contextmanager
def busy(store: IdempotencyStore) -> Iterator[None]:
    """What happens meanwhile: some fifty deliveries a second change."""
    stopping, draw = threading.Event(), random.Random(8)

    def change() -> None:
        while not stopping.wait(0.02):
            store.retry(draw.randint(1, 1000), "psa")

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def stored() -> Iterator[Runtime]:
    """A process of the bridge beside a Redis with the deliveries."""
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as name, Systems().running() as systems:
        folder = Path(name)
        server = RedisServer(folder, "--appendonly", "no")
        server.start()
        try:
            tables = {
                "huntress": systems.huntress.settings(),
                "redis": {"url": server.url},
                "connectors": {each: systems.table(each) for each in ("psa", "desk")},
            }
            (folder / "bridge.toml").write_text(toml(tables), "utf-8")
            (folder / "bridge.toml").chmod(0o600)
            with Runtime(load(folder / "bridge.toml", environ={})) as runtime:
                fill(runtime.store, DELIVERIES)
                names = [Organization(each, f"Customer {each} Ltd") for each in range(1, ORGANIZATIONS + 1)]
                runtime.books.save_organizations(names)
                yield runtime
        finally:
            server.kill()


def pages(index: Any) -> dict[str, tuple[str, float]]:
    """Path and goal of each page by its name."""
    with index._open() as database:
        query = "SELECT changed FROM delivery ORDER BY changed LIMIT 1 OFFSET ?"
        [(middle,)] = database.execute(query, [index.progress.total // 2])
    return {
        "the overview": ("/", OVERVIEW),
        "the overview, 30 days": ("/?days=30", OVERVIEW),
        **{f"list: {name}": (f"/deliveries?{query}", LIST) for name, query in LISTS.items()},
        "list: a page in the middle": (f"/deliveries?before={Place(middle, 1)}", LIST),
        "one delivery": ("/deliveries/42/psa", LIST),
        "retry all: the question": ("/deliveries/retry-all", LIST),
    }


def measure(runs: int) -> list[Row]:
    at = f"{DELIVERIES:,} deliveries stored"
    with stored() as runtime:
        app = create_app(runtime)
        app.secret_key = app.secret_key or "of a benchmark"
        client, index = app.test_client(), app.extensions["site"].index
        before, began = resident(), time.perf_counter()
        client.get("/deliveries")
        first = time.perf_counter() - began
        while not index.look().ready:
            time.sleep(0.05)
        filled, more = time.perf_counter() - began, resident() - before
        found: dict[str, list[float]] = {}
        wanted = pages(index)
        with busy(runtime.store):
            for _ in range(runs):
                for name, (path, _) in wanted.items():
                    found.setdefault(name, []).append(slowest(client, path))
    lists = {name: max(values) for name, values in found.items() if name.startswith("list")}
    worst = max(lists, key=lambda name: lists[name])
    return [
        *(
            Row(f"{name}, {at}, slowest of {TIMES}", "ms", found[name], goal)
            for name, (_, goal) in wanted.items()
            if name not in lists
        ),
        Row(
            f"any of {len(lists)} lists, {at}, slowest of {TIMES} of each",
            "ms",
            [max(found[name][run] for name in lists) for run in range(runs)],
            LIST,
            note=f"the slowest {worst}",
        ),
        Row(f"first list after a start, {at}", "ms", [first * 1000], LIST, note="it comes before the index is ready"),
        Row(f"until the index is ready, {at}", "s", [filled]),
        Row(f"memory for the index, {at}", "MB", [more]),
    ]
