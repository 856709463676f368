"""How quick the page is with many deliveries stored, and what its index costs. Not a test: prints a table.

Run it with the Python that huntress-bridge is installed for: `python tests/benchmarks/page.py [DELIVERIES]`. It fills a
Redis of its own with 100,000 deliveries unless told otherwise. Memory needs Linux.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask.testing import FlaskClient

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bridge.demo.run import toml
from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState, IncidentReport, Organization, TicketRef
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.web.app import create_app
from bridge.web.delivery_table import Place
from tests.bridge.stage import Systems
from tests.conftest import RedisServer

ORGANIZATIONS = 500
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


def median(client: FlaskClient, path: str) -> tuple[float, float, int]:
    """Milliseconds of the middle and the slowest answer, and bytes of the last."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        answer = client.get(path)
        took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}")
    return statistics.median(took), max(took), len(answer.data)


def busy(store: IdempotencyStore, stopping: threading.Event) -> None:
    """What happens meanwhile: some fifty deliveries a second change."""
    draw = random.Random(8)
    while not stopping.wait(0.02):
        store.retry(draw.randint(1, 1000), "psa")


def show_pages(runtime: Runtime, say: Callable[[str], None]) -> bool:
    app = create_app(runtime)
    app.secret_key = app.secret_key or "of a benchmark"
    client, index = app.test_client(), app.extensions["site"].index
    before = resident()
    began = time.perf_counter()
    client.get("/deliveries")
    say(f"first list, while the index is being filled: {(time.perf_counter() - began) * 1000:.0f} ms")
    while not index.look().ready:
        time.sleep(0.05)
    say(f"index filled in {time.perf_counter() - began:.1f} s, {resident() - before:.1f} MB more memory")
    stopping = threading.Event()
    threading.Thread(target=busy, args=(runtime.store, stopping), daemon=True).start()
    with index._open() as database:
        [(middle,)] = database.execute(
            "SELECT changed FROM delivery ORDER BY changed LIMIT 1 OFFSET ?", [index.progress.total // 2]
        )
    deep = Place(middle, 1)
    pages = [("overview", "/", OVERVIEW), ("overview, 30 days", "/?days=30", OVERVIEW)]
    pages += [(f"list: {name}", f"/deliveries?{query}", LIST) for name, query in LISTS.items()]
    pages += [("list: a page in the middle", f"/deliveries?before={deep}", LIST)]
    pages += [("one delivery", "/deliveries/42/psa", LIST), ("retry all: the question", "/deliveries/retry-all", LIST)]
    good = True
    for name, path, goal in pages:
        typical, slowest, size = median(client, path)
        good = good and slowest <= goal
        say(f"{name:<32} {typical:7.1f} ms, slowest {slowest:7.1f} (goal {goal:.0f}), {size / 1024:.0f} kB")
    stopping.set()
    say(f"memory after all: {resident():.1f} MB, {resident() - before:.1f} more than before")
    return good


def main() -> None:
    deliveries = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        folder = Path(name)
        server = RedisServer(folder, "--appendonly", "no")
        server.start()
        try:
            with Systems().running() as systems:
                tables = {
                    "huntress": systems.huntress.settings(),
                    "redis": {"url": server.url},
                    "connectors": {each: systems.table(each) for each in ("psa", "desk")},
                }
                (folder / "bridge.toml").write_text(toml(tables), "utf-8")
                (folder / "bridge.toml").chmod(0o600)
                with Runtime(load(folder / "bridge.toml", environ={})) as runtime:
                    began = time.perf_counter()
                    fill(runtime.store, deliveries)
                    names = [Organization(each, f"Customer {each} Ltd") for each in range(1, ORGANIZATIONS + 1)]
                    runtime.books.save_organizations(names)
                    print(f"{deliveries:,} deliveries stored in {time.perf_counter() - began:.0f} s")  # noqa: T201
                    good = show_pages(runtime, print)
        finally:
            server.kill()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
