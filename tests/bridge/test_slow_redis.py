"""A Redis that takes two seconds for every answer: leases and leadership hold, no answer is waited for in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from bridge import dispatcher
from bridge.broker import store_client
from bridge.idempotency import LEASE, Claim, IdempotencyStore
from bridge.leadership import Leadership
from bridge.leases import RENEW_EVERY, LeaseKeeper
from bridge.models import IncidentReport, ReportKey
from tests.bridge.stage import Stage, Systems

#: Seconds for one answer.
SLOW = 2.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowStore(IdempotencyStore):
    """Every script takes `SLOW` seconds by the test's clock."""

    def __init__(self, client: redis.Redis, clock: Clock) -> None:
        super().__init__(client)
        self.clock = clock
        self.open()

    def script(self, name: str, *arguments: object, client: object = None) -> object:
        self.clock.now += SLOW
        return super().script(name, *arguments, client=client)


class Rounds(threading.Event):
    """Notes how long a loop means to wait, and ends it after a few rounds."""

    def __init__(self, clock: Clock, rounds: int) -> None:
        super().__init__()
        self.clock = clock
        self.left = rounds
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.clock.now += timeout
        self.left -= 1
        if self.left == 0:
            self.set()
        return self.is_set()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


def claims(store: IdempotencyStore, numbers: Sequence[int]) -> list[Claim]:
    leader = int(store.script("lead", "poller", "test", 6000))
    found = []
    for number in numbers:
        store.observe(leader, [(IncidentReport(number, account_id=5), [("psa", f"huntress-5-{number}")])])
        claimed = store.claim(number, "psa", group="psa", concurrency=10, settle=60)
        assert isinstance(claimed, Claim), claimed
        found.append(claimed)
    return found


def test_renewals_follow_each_other_at_once_when_answers_take_long(client: redis.Redis) -> None:
    clock = Clock()
    store = SlowStore(client, clock)
    keeper = LeaseKeeper(store, clock)
    [claim] = claims(store, [1])
    keeper._stop = rounds = Rounds(clock, 4)
    with keeper.hold(claim, clock()) as lease:
        lease.step(60)
        keeper._keep()
        lease.check()
    assert rounds.waits == [RENEW_EVERY, 0, 0, 0]


def test_a_leader_renews_at_once_when_answers_take_long(client: redis.Redis) -> None:
    clock = Clock()
    leader = Leadership(SlowStore(client, clock), "poller", patience=60, clock=clock)
    leader._stop = rounds = Rounds(clock, 4)
    leader._keep()
    assert rounds.waits == [0, 0, 0, 0]
    assert leader.number


def test_all_leases_are_renewed_by_one_command(client: redis.Redis) -> None:
    store = IdempotencyStore(client)
    store.open()
    mine = claims(store, [1, 2, 3])
    store.clock_offset += LEASE + 1
    other = store.claim(2, "psa", group="psa", concurrency=10, settle=60)
    assert isinstance(other, Claim)
    assert store.renew_all(mine) == [True, False, True]

    def scripts() -> int:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    before = scripts()
    assert store.renew_all(mine) == [True, False, True]
    assert scripts() - before == 1


def test_a_new_connection_asks_for_little_before_its_first_command(redis_url: str) -> None:
    with store_client(redis_url) as client:
        connection = client.connection_pool.make_connection()
        sent: list[str] = []
        send = connection.send_command

        def note(*arguments: str, **options: object) -> None:
            sent.append(str(arguments[0]))
            send(*arguments, **options)

        connection.send_command = note
        connection.connect()
        connection.disconnect()
    assert sent.count("CLIENT") == 1


def test_a_dispatcher_that_enqueues_slowly_still_moves(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with Systems().running() as systems, Stage(redis_url, tmp_path, systems, {"desk": systems.table("desk")}) as stage:
        stage.report(1)
        stage.work()
        stage.report(2, 3, 4)
        stage.leadership.clock, stage.leadership.patience = clock, 30

        def enqueue(jobs: Sequence[tuple[ReportKey, str]]) -> None:
            clock.now += 20

        stage.dispatcher.enqueue = enqueue
        monkeypatch.setattr(dispatcher, "BATCH", 1)
        stage.leadership.alive()
        assert stage.leadership.attempt()
        assert stage.dispatcher.look() == 3
        assert stage.leadership.attempt()
