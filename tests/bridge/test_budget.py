"""The source's request budget: one sliding window in Redis for everybody. Waiting moves the store's clock, not ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from bridge.broker import store_client
from bridge.budget import LONGEST_REST, CommandBudget, RedisBudget
from bridge.huntress import BudgetExhausted
from bridge.idempotency import IdempotencyStore


class Skipping(threading.Event):
    """Instead of waiting, moves the store's clock on."""

    def __init__(self, store: IdempotencyStore) -> None:
        super().__init__()
        self.store = store
        self.waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self.waited += timeout or 0.0
            self.store.clock_offset += timeout or 0.0
        return self.is_set()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def make(client: redis.Redis) -> Callable[..., RedisBudget]:
    """A budget of a process of its own, on the same Redis."""

    def make(requests_per_minute: int) -> RedisBudget:
        store = IdempotencyStore(client)
        return RedisBudget(store, requests_per_minute, stopping=Skipping(store))

    return make


def waited(budget: RedisBudget) -> float:
    assert isinstance(budget.stopping, Skipping)
    return budget.stopping.waited


def test_what_the_budget_allows_goes_at_once(make: Callable[..., RedisBudget]) -> None:
    budget = make(30)
    for _ in range(30):
        budget.acquire("listing")
    assert waited(budget) == 0
    assert budget.used() == 30


def test_no_sixty_seconds_hold_more_than_the_budget(make: Callable[..., RedisBudget]) -> None:
    budget = make(5)
    sent = []
    for _ in range(23):
        budget.acquire("listing")
        sent.append(budget.store.now())
    assert all(later - earlier > 59.9 for earlier, later in zip(sent, sent[5:], strict=False))
    assert 235 < waited(budget) < 245, "and it is used up, too"


def test_requests_made_early_make_room_early(make: Callable[..., RedisBudget]) -> None:
    budget = make(2)
    budget.acquire("listing")
    budget.store.clock_offset += 40
    budget.acquire("listing")
    budget.acquire("listing")
    assert 19 < waited(budget) < 21, "the window slides, it does not start anew each minute"


def test_details_take_at_most_half_and_listings_all(make: Callable[..., RedisBudget]) -> None:
    budget = make(10)
    for _ in range(5):
        budget.acquire("detail", wait=0)
    with pytest.raises(BudgetExhausted):
        budget.acquire("detail", wait=0)
    for _ in range(5):
        budget.acquire("listing", wait=0)
    with pytest.raises(BudgetExhausted):
        budget.acquire("listing", wait=0)


def test_listings_leave_nothing_over_for_details(make: Callable[..., RedisBudget]) -> None:
    budget = make(4)
    for _ in range(4):
        budget.acquire("listing")
    with pytest.raises(BudgetExhausted):
        budget.acquire("detail", wait=5)
    assert waited(budget) == 0, "who would wait in vain does not wait at all"


def test_a_budget_of_one_still_lets_details_through(make: Callable[..., RedisBudget]) -> None:
    budget = make(1)
    budget.acquire("detail", wait=0)
    budget.acquire("detail")
    assert 59 < waited(budget) < 61


def test_all_processes_share_it(make: Callable[..., RedisBudget]) -> None:
    one, other = make(6), make(6)
    for _ in range(3):
        one.acquire("listing")
        other.acquire("listing")
    for budget in (one, other):
        with pytest.raises(BudgetExhausted, match="6 requests a minute"):
            budget.acquire("listing", wait=1)
        assert budget.used() == 6


def test_after_too_many_requests_nobody_asks_until_the_time_is_over(make: Callable[..., RedisBudget]) -> None:
    one, other = make(30), make(30)
    one.penalize(90)
    with pytest.raises(BudgetExhausted):
        other.acquire("detail", wait=5)
    other.acquire("listing")
    assert 89 < waited(other) < 91


def test_a_penalty_is_capped(make: Callable[..., RedisBudget]) -> None:
    budget = make(30)
    began = budget.store.now()
    budget.penalize(86400)
    budget.acquire("listing")
    # By the store's clock, in which a slow machine's own seconds count as well.
    assert LONGEST_REST - 0.01 < budget.store.now() - began < LONGEST_REST + 60


def test_who_waits_says_that_it_moves_and_stops_when_told(client: redis.Redis) -> None:
    store = IdempotencyStore(client)
    stopping = threading.Event()
    moved = []

    def moving() -> None:
        moved.append(True)
        stopping.set()

    budget = RedisBudget(store, 1, stopping=stopping, moving=moving)
    budget.acquire("listing")
    with pytest.raises(BudgetExhausted):
        budget.acquire("listing")
    assert moved == [True]


def test_a_clock_that_jumped_back_blocks_nobody_for_long(make: Callable[..., RedisBudget]) -> None:
    budget = make(2)
    budget.store.clock_offset = 86400
    budget.acquire("listing")
    budget.acquire("listing")
    budget.penalize(900)
    budget.store.clock_offset = 0
    budget.acquire("listing")
    assert waited(budget) == 0


def test_a_command_takes_at_most_half_also_for_listings_and_says_when_it_waits(
    make: Callable[..., RedisBudget],
) -> None:
    budget = make(4)
    told: list[str] = []
    command = CommandBudget(budget, told.append, clock=budget.store.now)
    for _ in range(2):
        command.acquire("listing")
    assert (waited(budget), told) == (0, [])
    command.acquire("listing")
    assert waited(budget) == pytest.approx(60, abs=2)
    assert told == [
        "waiting: the budget of 4 requests a minute to Huntress is used up (60 s); commands take at most half of it"
    ]
    command.acquire("detail")  # in the same minute there is room for a second one
    budget.store.clock_offset += 1  # certainly more than a minute after it was said
    command.acquire("detail")
    assert len(told) == 2
    budget.acquire("listing", wait=0)  # the poller's half


def test_a_command_that_may_wait_no_longer_is_told_so(make: Callable[..., RedisBudget]) -> None:
    command = CommandBudget(make(2), lambda sentence: None)
    command.acquire("detail")
    with pytest.raises(BudgetExhausted):
        command.acquire("detail", wait=5)
    command.penalize(30)
    assert make(100).store.client.exists("bridge:budget:rest")
