"""Leases of one process: renewed while the work moves, and asked before every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from bridge.broker import store_client
from bridge.idempotency import LEASE, Claim, IdempotencyStore
from bridge.leases import MARGIN, SERVED, Gate, LeaseKeeper
from bridge.models import IncidentReport
from connectors.base import Unavailable
from tests.conftest import RedisServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(client: redis.Redis) -> IdempotencyStore:
    store = IdempotencyStore(client)
    store.open()
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keeper(store: IdempotencyStore, clock: Clock) -> LeaseKeeper:
    return LeaseKeeper(store, clock)


def claim(store: IdempotencyStore, number: int = 1) -> Claim:
    leader = int(store.script("lead", "poller", "test", 6000))
    store.observe(leader, [(IncidentReport(number, account_id=5), [("psa", f"huntress-5-{number}")])])
    claimed = store.claim(number, "psa", group="psa", concurrency=3, settle=60)
    assert isinstance(claimed, Claim), claimed
    return claimed


def pass_time(store: IdempotencyStore, clock: Clock, seconds: float) -> None:
    store.clock_offset += seconds
    clock.now += seconds


def test_a_lease_is_kept_while_the_work_moves(store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock) -> None:
    claimed = claim(store)
    with keeper.hold(claimed, clock()) as lease:
        lease.step(30)
        for _ in range(4):
            pass_time(store, clock, LEASE - 2)
            keeper.renew()
            lease.check()
        assert store.claim(1, "psa", group="psa", concurrency=3, settle=60) == "busy"


def test_a_step_that_outlives_its_deadline_loses_its_lease(
    store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock
) -> None:
    with keeper.hold(claim(store), clock()) as lease:
        lease.step(5)
        pass_time(store, clock, 4)
        keeper.renew()
        assert keeper.overdue() == 0
        pass_time(store, clock, 2)
        keeper.renew()
        assert keeper.overdue() == 1
        pass_time(store, clock, LEASE)
        keeper.renew()
        with pytest.raises(Unavailable, match="lost its lease"):
            lease.check()
        assert isinstance(store.claim(1, "psa", group="psa", concurrency=3, settle=60), Claim)
    assert keeper.overdue() == 0


def test_a_next_step_has_a_deadline_of_its_own(store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock) -> None:
    with keeper.hold(claim(store), clock()) as lease:
        for _ in range(5):
            lease.step(5)
            pass_time(store, clock, 4)
            keeper.renew()
        assert keeper.overdue() == 0
        lease.check()


def test_nothing_is_sent_under_a_lease_about_to_end(store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock) -> None:
    with keeper.hold(claim(store), clock()) as lease:
        pass_time(store, clock, LEASE - MARGIN - 0.1)
        lease.check()
        pass_time(store, clock, 0.2)
        with pytest.raises(Unavailable):
            lease.check()


def test_a_lease_taken_by_another_is_lost_at_the_next_renewal(
    store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock
) -> None:
    with keeper.hold(claim(store), clock()) as lease:
        store.clock_offset += LEASE + 1
        assert isinstance(store.claim(1, "psa", group="psa", concurrency=3, settle=60), Claim)
        keeper.renew()
        with pytest.raises(Unavailable):
            lease.check()


def test_the_gate_knows_the_lease_of_its_thread(store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock) -> None:
    gate = Gate(store, keeper, "psa")
    gate()  # without a lease: a command, a probe
    with keeper.hold(claim(store), clock()):
        gate()
        pass_time(store, clock, LEASE)
        with pytest.raises(Unavailable, match="lost its lease"):
            gate()
    assert keeper.current() is None
    gate()


def test_the_last_look_knows_the_lease_and_asks_nobody(
    store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock
) -> None:
    gate = Gate(store, keeper, "psa")
    gate.before_send()  # without a lease: a command, a probe
    with keeper.hold(claim(store), clock()):
        store.client.close()
        store.pause("psa", "rate", 30, "too many requests")
        gate.before_send()
        clock.now += LEASE
        with pytest.raises(Unavailable, match="lost its lease"):
            gate.before_send()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_leases_run_out_while_the_machine_is_suspended(store: IdempotencyStore) -> None:
    with LeaseKeeper(store).hold(claim(store), 0.0) as lease:
        assert abs(lease.clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


def test_the_gate_holds_back_what_a_paused_connector_would_send(store: IdempotencyStore, keeper: LeaseKeeper) -> None:
    gate, other = Gate(store, keeper, "psa"), Gate(store, keeper, "desk")
    store.pause("psa", "rate", 30, "too many requests")
    with pytest.raises(Unavailable, match="connector psa is paused: too many requests"):
        gate()
    other()
    with gate.probing():
        gate()
    with pytest.raises(Unavailable):
        gate()
    store.clock_offset += 31
    gate()


def test_what_a_script_just_found_served_is_not_asked_for_again(
    store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock
) -> None:
    gate, other = Gate(store, keeper, "psa"), Gate(store, keeper, "desk")
    with keeper.hold(claim(store), clock()) as lease:
        for connector in ("psa", "desk"):
            store.pause(connector, "rate", 30, "too many requests")
        gate()  # by the claim's word
        with pytest.raises(Unavailable, match="paused"):
            gate()  # what the first request was told may have paused it
        lease.served(clock())
        with pytest.raises(Unavailable, match="paused"):
            other()  # nothing was said of this one
        lease.served(clock())
        clock.now += SERVED
        with pytest.raises(Unavailable, match="paused"):
            gate()


def test_a_probe_under_a_lost_lease_sends_nothing(store: IdempotencyStore, keeper: LeaseKeeper, clock: Clock) -> None:
    gate = Gate(store, keeper, "psa")
    with keeper.hold(claim(store), clock()), gate.probing():
        pass_time(store, clock, LEASE)
        with pytest.raises(Unavailable):
            gate()


def test_while_redis_is_away_nothing_is_sent_and_renewing_goes_on_after(
    make_redis_server: Callable[..., RedisServer], clock: Clock
) -> None:
    server = make_redis_server("--appendonly", "yes")
    client = store_client(server.url)
    store = IdempotencyStore(client)
    store.open()
    keeper = LeaseKeeper(store, clock)
    gate = Gate(store, keeper, "psa")
    with keeper.hold(claim(store), clock()) as lease:
        server.stop()
        clock.now += SERVED
        with pytest.raises(Unavailable, match="store"):
            gate()
        with pytest.raises(redis.RedisError):
            keeper.renew()
        lease.check()
        server.start()
        clock.now += 3
        keeper.renew()
        clock.now += LEASE - MARGIN - 0.5
        gate()
    client.close()


def test_the_thread_renews_by_itself(store: IdempotencyStore) -> None:
    keeper = LeaseKeeper(store)
    keeper.start()
    try:
        with keeper.hold(claim(store), time.monotonic()) as lease:
            asked_at = lease.renewed_at
            deadline = time.monotonic() + 5
            while lease.renewed_at == asked_at:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        keeper.stop()
