"""How long Redis is held up by one script when 100,000 deliveries wait, as after a connector's pause of a day.

Everybody waits while Redis runs a script: claims, leases, the page. So none may take long, whatever waits. Each figure
is what 99 in 100 scripts of one operation stay under, by Redis' own slow log, which goes by the clock: the longest of
some thousands, named beside it, is as long as the machine kept Redis off its processors.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bridge.absences import Absences
from bridge.broker import store_client
from bridge.idempotency import IdempotencyStore
from bridge.models import IncidentReport
from bridge.reconcile import LATER
from bridge.store_check import StoreCheck
from tests.benchmarks.table import Row
from tests.conftest import RedisServer

BACKLOG = 100_000
PSA = "psa"
#: Milliseconds that one script may take.
GOAL = 10.0
#: Seconds by which the clock is set.
JUMP = 1800.0


def measure(runs: int) -> list[Row]:
    found: dict[str, list[list[float]]] = {}
    with _store() as store:
        _fill(store)
        leader = int(store.script("lead", "dispatcher", "benchmark", 600_000))
        for _ in range(runs):
            _wait(store)
            for name, operation in _operations(store, leader):
                found.setdefault(name, []).append(_scripts(store, operation))
        if store.scheduled(PSA) != BACKLOG:
            raise SystemExit(f"{store.scheduled(PSA)} of {BACKLOG} deliveries are scheduled")
    return [
        Row(
            f"a script with {BACKLOG:,} waiting, p99: {name}",
            "ms",
            [each[int(0.99 * len(each))] for each in runs_of],
            GOAL,
            note=f"{max(map(len, runs_of)):,} scripts of 0.1 ms or more; the longest {max(map(max, runs_of)):.1f}",
        )
        for name, runs_of in found.items()
    ]


def _operations(store: IdempotencyStore, leader: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each as it comes in a run's life; what one leaves behind is what the next one meets."""

    looked_at = 0.0

    def look() -> None:
        nonlocal looked_at
        now = time.monotonic()
        store.dispatch(leader, PSA, PSA, 3, proof=True, most=0, passed=now - looked_at if looked_at else None)
        looked_at = now

    def set_clock(by: float) -> None:
        store.clock_offset += by
        for _ in range(1 + BACKLOG // 100):
            look()

    yield "a look", look
    yield "the clock is set back", lambda: set_clock(-JUMP)
    yield "the clock is set forward", lambda: set_clock(JUMP)
    yield "what is awaited", lambda: list(store.awaited(PSA, LATER))
    _wait(store)
    yield "a pause ends", lambda: store.release_waiting(PSA)
    yield "a look at what is ready", look
    yield "what is missing", lambda: Absences(store).missing(due=True)
    yield "store check", lambda: _all_well(store)


def _all_well(store: IdempotencyStore) -> None:
    if found := list(StoreCheck(store).findings()):
        raise SystemExit(f"{len(found)} findings, the first: {found[0].sentence()}")


def _scripts(store: IdempotencyStore, operation: Callable[[], object]) -> list[float]:
    """Milliseconds of each script of 0.1 ms or more that Redis ran meanwhile, the longest last."""
    client = store.client
    client.config_set("slowlog-max-len", 10_000)
    client.config_set("slowlog-log-slower-than", 100)  # any less, and each command of a script has an entry of its own
    client.slowlog_reset()
    operation()
    client.config_set("slowlog-log-slower-than", -1)
    entries = client.slowlog_get(10_000)
    return sorted(int(entry["duration"]) / 1000 for entry in entries if b"EVALSHA" in entry["command"]) or [0.0]


@contextlib.contextmanager
def _store() -> Iterator[IdempotencyStore]:
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder:
        server = RedisServer(Path(folder), "--appendonly", "no")
        server.start()
        try:
            store = IdempotencyStore(store_client(server.url), "bridge", settle=60)
            store.open()
            yield store
            store.client.close()
        finally:
            server.kill()


def _fill(store: IdempotencyStore) -> None:
    base = IncidentReport(0, account_id=5, organization_id=4, severity="low", subject="LOW - something")
    leader = int(store.script("lead", "poller", "benchmark", 600_000))
    for start in range(1, BACKLOG + 1, 500):
        numbers = range(start, start + 500)
        store.observe(leader, [(replace(base, id=number), [(PSA, f"huntress-5-{number}")]) for number in numbers])


def _wait(store: IdempotencyStore) -> None:
    """Every delivery waits for a time within the next hour, as each does that met a paused connector."""
    for start in range(1, BACKLOG + 1, 1000):
        store.client.eval(_WAITING, 0, store.prefix, PSA, start, round(store.now() * 1000))


#: Puts 1000 of them where the end of a turn leaves what is tried again later.
_WAITING = """
for n = ARGV[3], ARGV[3] + 999 do
  local at = string.format('%.0f', ARGV[4] + 60000 + n * 30)
  redis.call('HSET', ARGV[1] .. 'delivery:' .. n .. ':' .. ARGV[2], 'next_at', at)
  redis.call('ZREM', ARGV[1] .. 'ready:' .. ARGV[2], n)
  redis.call('ZADD', ARGV[1] .. 'due:' .. ARGV[2], at, n)
end
"""
