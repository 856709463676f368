"""Which process leads: on a real Redis, with clocks that the tests move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from bridge.broker import store_client
from bridge.idempotency import Deposed, IdempotencyStore
from bridge.leadership import LEADER_LEASE, Leadership
from bridge.models import IncidentReport
from tests.conftest import RedisServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Candidate(Leadership):
    """A leadership in a process of its own, whose monotonic clock is the test's."""

    def __init__(self, client: redis.Redis, role: str = "poller", patience: float = 30) -> None:
        self.time = Clock()
        store = IdempotencyStore(client)
        store.open()
        super().__init__(store, role, patience=patience, clock=self.time)

    def observe(self) -> None:
        self.store.observe(self.number, [(IncidentReport(1, account_id=5), [("psa", "huntress-5-1")])])


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def make(client: redis.Redis) -> Callable[..., Candidate]:
    return lambda *arguments, **options: Candidate(client, *arguments, **options)


def lapse(client: redis.Redis, role: str = "poller") -> None:
    """The lease of whoever leads runs out."""
    client.delete(f"bridge:leader:{role}")


def test_one_leads_and_goes_on_leading_under_the_same_number(make: Callable[..., Candidate]) -> None:
    one, other = make(), make()
    number = one.attempt()
    assert number > 0
    assert other.attempt() == 0
    assert other.number == 0
    assert one.attempt() == number == one.number


def test_roles_are_led_apart(make: Callable[..., Candidate]) -> None:
    assert make(role="poller").attempt()
    assert make(role="dispatcher").attempt()


def test_the_lease_is_that_of_a_leader(make: Callable[..., Candidate], client: redis.Redis) -> None:
    make().attempt()
    left = client.pttl("bridge:leader:poller")
    assert LEADER_LEASE * 1000 - 1000 < left <= LEADER_LEASE * 1000


def test_who_takes_over_has_a_higher_number_and_the_old_one_writes_nothing(
    make: Callable[..., Candidate], client: redis.Redis
) -> None:
    frozen, successor = make(), make()
    old = frozen.attempt()
    lapse(client)
    assert successor.attempt() > old
    assert frozen.number == old, "it does not know yet"
    with pytest.raises(Deposed):
        frozen.observe()
    assert frozen.store.delivery(1, "psa") is None
    assert frozen.attempt() == 0
    successor.observe()
    assert successor.store.delivery(1, "psa") is not None


def test_a_leader_that_cannot_renew_stops_leading_by_its_own_clock(make: Callable[..., Candidate]) -> None:
    leader = make()
    assert leader.attempt()
    leader.time.now += LEADER_LEASE - 0.1
    assert leader.number
    leader.time.now += 0.2
    assert leader.number == 0


def test_a_leader_whose_loop_stands_still_steps_aside(make: Callable[..., Candidate], client: redis.Redis) -> None:
    leader, successor = make(patience=30), make(patience=30)
    assert leader.attempt()
    leader.time.now += 29
    assert leader.attempt()
    leader.time.now += 2
    assert leader.attempt() == 0
    assert leader.number == 0
    lapse(client)
    assert successor.attempt()
    lapse(client)
    leader.alive()
    assert leader.attempt(), "a loop that moves again may lead again"


def test_stepping_down_makes_room_at_once(make: Callable[..., Candidate]) -> None:
    one, other = make(), make()
    number = one.attempt()
    one.stop()
    assert one.number == 0
    assert other.attempt() > number


def test_stepping_down_takes_nobody_elses_place(make: Callable[..., Candidate], client: redis.Redis) -> None:
    frozen, successor = make(), make()
    frozen.attempt()
    lapse(client)
    number = successor.attempt()
    frozen.stop()
    assert successor.attempt() == number


def test_a_leader_from_before_the_store_was_lost_does_not_pass_for_the_new_one(
    make: Callable[..., Candidate], client: redis.Redis
) -> None:
    frozen, successor = make(), make()
    old = frozen.attempt()
    client.flushdb()
    successor.store.clock_offset = 1
    assert successor.attempt() > old
    with pytest.raises(Deposed):
        frozen.observe()
    with pytest.raises(Deposed):
        frozen.observe()


def test_a_lease_that_a_jumping_clock_made_endless_is_taken_over(
    make: Callable[..., Candidate], client: redis.Redis
) -> None:
    dead, successor = make(), make()
    old = dead.attempt()
    client.pexpire("bridge:leader:poller", 3_600_000)
    assert successor.attempt() > old
    assert client.pttl("bridge:leader:poller") <= LEADER_LEASE * 1000


def test_its_thread_leads_by_itself_and_survives_an_outage(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server("--appendonly", "yes")
    client = store_client(server.url)
    store = IdempotencyStore(client)
    store.open()
    leadership = Leadership(store, "poller", patience=30)
    leadership.start()
    try:
        wait_for(lambda: leadership.number)
        number = leadership.number
        server.stop()
        server.start()
        wait_for(lambda: leadership.number)
        assert leadership.number >= number
    finally:
        leadership.stop()
        client.close()
    with server.client() as looking:
        assert looking.get("bridge:leader:poller") is None


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
