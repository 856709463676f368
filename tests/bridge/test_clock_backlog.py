"""A clock that is set while much waits: no script walks over it all, yet nothing waits longer or settles early."""

from __future__ import annotations

from typing import cast

import pytest
import redis

from bridge.idempotency import LEASE, RESERVATION, SCRIPT_BATCH, Claim, IdempotencyStore
from bridge.models import DeliveryState, ReportKey
from bridge.store_check import StoreCheck
from tests.bridge.test_idempotency import CONNECTOR, claim, client, creating, lead, observe, pass_time, report, store
from tests.bridge.test_store_check import break_it

__all__ = ["client", "store"]  # fixtures

#: More than a few looks' worth.
MANY = 3 * SCRIPT_BATCH + 7
HOUR = 3600.0


def look(store: IdempotencyStore, passed: float = 0, most: int = 0) -> list[ReportKey]:
    return store.dispatch(
        lead(store, "dispatcher"), CONNECTOR, CONNECTOR, MANY + 9, proof=False, most=most, passed=passed
    )


def looks(store: IdempotencyStore) -> int:
    """Looks until none is asked for any more; each finds one thing to do at least."""
    store.client.delete(store.key("wake"))
    for count in range(1, MANY):
        look(store)
        if not store.client.delete(store.key("wake")):
            return count
    raise AssertionError("it never comes to rest")


def waiting(store: IdempotencyStore, delay: float = 900, many: int = MANY) -> None:
    """So many deliveries are tried again after `delay`, all at the same time."""
    observe(store, *(report(number) for number in range(1, many + 1)))
    for number in range(1, many + 1):
        store.release(claim(store, number, many), state=DeliveryState.PENDING, delay=delay)
    look(store)


def due_in(store: IdempotencyStore) -> list[float]:
    """Seconds until each scheduled delivery is due, soonest first; 0: now."""
    pairs = cast("list[tuple[str, float]]", store.client.zrange(store.key(f"due:{CONNECTOR}"), 0, -1, withscores=True))
    ready = store.client.zcard(store.key(f"ready:{CONNECTOR}"))
    return [0.0] * ready + [at / 1000 - store.now() for _, at in pairs]


def test_what_waits_when_the_clock_is_set_back_waits_no_longer(store: IdempotencyStore) -> None:
    waiting(store)
    pass_time(store, -1000)
    assert looks(store) > MANY / SCRIPT_BATCH
    assert len(due_in(store)) == MANY
    assert max(due_in(store)) < 901
    pass_time(store, 901)
    looks(store)
    assert len(look(store, most=MANY)) == MANY
    claim(store, 1, MANY)
    claim(store, MANY, MANY)


def test_a_look_after_the_clock_was_set_back_walks_over_no_more_than_a_batch(store: IdempotencyStore) -> None:
    waiting(store)
    pass_time(store, -1000)
    look(store)
    late = sum(seconds > 901 for seconds in due_in(store))
    assert late == MANY - SCRIPT_BATCH


def test_the_clock_is_set_back_again_before_all_was_moved(store: IdempotencyStore) -> None:
    waiting(store)
    pass_time(store, -1000)
    look(store)
    pass_time(store, -1000)
    looks(store)
    assert len(due_in(store)) == MANY
    assert max(due_in(store)) < 901


def test_what_is_released_while_the_walk_goes_on_stays_within_its_time(store: IdempotencyStore) -> None:
    waiting(store)
    observe(store, report(MANY + 1))
    new = claim(store, MANY + 1, MANY)
    pass_time(store, -1000)
    look(store)
    store.release(new, state=DeliveryState.PENDING, delay=3000)
    looks(store)
    assert len(due_in(store)) == MANY + 1
    assert max(due_in(store)) < 3001


def test_no_doubt_settles_by_a_clock_set_forward_however_many_are_in_doubt(store: IdempotencyStore) -> None:
    for number in range(1, MANY + 1):
        store.release(creating(store, number), doubt=True, delay=0)
    look(store)
    pass_time(store, HOUR)
    taken = look(store, passed=1, most=MANY)
    assert len(taken) == MANY
    for key in taken:
        doubt_at = claim(store, key, MANY).doubt_at
        assert doubt_at is not None
        assert store.now() - doubt_at < 10


def test_a_doubt_is_as_old_as_before_when_the_clock_was_set_forward_and_back(store: IdempotencyStore) -> None:
    store.release(creating(store), doubt=True, delay=30)
    look(store)
    pass_time(store, HOUR)
    look(store, passed=1)
    pass_time(store, 20)
    look(store, passed=20)
    pass_time(store, -HOUR)
    look(store, passed=1)
    pass_time(store, 11)
    assert look(store, passed=11, most=1) == [1]
    doubt_at = claim(store, 1).doubt_at
    assert doubt_at is not None
    assert 30 < store.now() - doubt_at < 35


def test_a_doubt_that_began_between_the_jump_and_the_next_look_does_not_begin_in_the_future(
    store: IdempotencyStore,
) -> None:
    owner = creating(store)
    look(store)
    pass_time(store, HOUR)
    store.release(owner, doubt=True, delay=5)  # before the dispatcher notices
    look(store, passed=1)
    pass_time(store, -HOUR)
    look(store, passed=1)
    doubtful = claim_when_due(store)
    assert doubtful.doubt_at is not None
    assert doubtful.doubt_at <= store.now()


def test_a_doubt_that_began_after_the_clock_was_set_back_is_not_made_older_when_that_is_noticed(
    store: IdempotencyStore,
) -> None:
    """Else it would be settled at once, and its ticket made a second time while the first cannot be found yet."""
    owner = creating(store)
    look(store)
    pass_time(store, -HOUR)
    store.release(owner, doubt=True, delay=5)  # before the dispatcher notices
    look(store, passed=1)
    doubtful = claim_when_due(store)
    assert doubtful.doubt_at is not None
    assert 0 <= store.now() - doubtful.doubt_at < 30


@pytest.mark.parametrize("broken", [("DEL", "delivery:1:psa"), ("HSET", "delivery:1:psa", "state", "?")])
def test_a_doubt_that_a_repair_begins_is_as_old_as_the_repair_though_the_clock_was_set_back_before(
    store: IdempotencyStore, broken: tuple[str, ...]
) -> None:
    observe(store, report(1))
    look(store)
    pass_time(store, -HOUR)
    look(store, passed=1)
    break_it(store, broken)
    assert list(StoreCheck(store, repair=True, reference=lambda report, connector: "huntress-5-1").findings())
    mended = claim_when_due(store)
    assert mended.doubt_at is not None
    assert 0 <= store.now() - mended.doubt_at < 30


def test_a_clock_that_is_set_back_by_less_than_the_dispatcher_notices_gives_no_false_alarm(
    store: IdempotencyStore,
) -> None:
    observe(store, report(1))
    assert look(store, most=1) == [1]
    pass_time(store, -1.9)
    look(store, passed=0.1)
    assert list(StoreCheck(store).findings()) == []


def claim_when_due(store: IdempotencyStore) -> Claim:
    pass_time(store, 6)
    assert look(store, passed=6, most=1) == [1]
    return claim(store, 1)


def test_an_owner_whose_slot_was_taken_before_the_jump_was_noticed_keeps_its_lease(store: IdempotencyStore) -> None:
    owner = creating(store)
    look(store)
    pass_time(store, HOUR)
    observe(store, report(2))
    store.claim(2, CONNECTOR, group=CONNECTOR, concurrency=3, settle=60)  # drops slots that are over by the new clock
    assert look(store, passed=1, most=5) == []
    assert store.client.zcard(store.key(f"slots:{CONNECTOR}")) == 2
    assert store.renew(owner)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_dead_owner_is_found_after_a_jump_as_soon_as_without_one(store: IdempotencyStore, jump: float) -> None:
    pass_time(store, 2 * HOUR)
    creating(store)
    look(store)
    pass_time(store, jump)
    assert look(store, passed=0.5, most=1) == []
    pass_time(store, max(LEASE, RESERVATION) + 0.1)
    assert look(store, passed=10, most=1) == [1]


def test_a_script_carried_out_twice_moves_times_once(store: IdempotencyStore, client: redis.Redis) -> None:
    waiting(store, many=3)
    pass_time(store, -1000)
    look(store)
    once = due_in(store)
    look(store)
    assert [round(seconds) for seconds in due_in(store)] == [round(seconds) for seconds in once]
