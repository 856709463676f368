"""redis-py repeats a script whose answer was lost: what people read and count of it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from bridge.counters import Counters, Totals
from bridge.history import Event, What
from bridge.idempotency import Claim, IdempotencyStore
from bridge.models import DeliveryState, TicketRef
from tests.bridge.test_idempotency import CONNECTOR, claim, client, observe, report

__all__ = ["client"]  # fixture

TICKET = TicketRef("77", "T77", "")


class Repeating(IdempotencyStore):
    """Every script is carried out twice, and the second answer is the one that comes."""

    def script(self, name: str, *arguments: object, client: Any = None) -> Any:
        if client is None:
            super().script(name, *arguments)
        return super().script(name, *arguments, client=client)


def creating(store: IdempotencyStore) -> Claim:
    owner = claim(store, 1)
    owner.events.append(Event(What.LOOKED_UP))
    assert store.begin_create(owner, proof=False).open
    return owner


def made(store: IdempotencyStore) -> Claim:
    owner = creating(store)
    owner.events.append(Event(What.NOTED, "first"))
    store.record(owner, TICKET, keep=True)
    return owner


def ended(store: IdempotencyStore) -> None:
    owner = made(store)
    owner.events.append(Event(What.NOTED, "ended-1"))
    store.tell(owner, told=1, state=DeliveryState.CLOSED, ended=True)
    owner.events.append(Event(What.NOTED, "ended-2"))
    store.tell(owner, statuses=["5"])
    store.release(owner)


def found(store: IdempotencyStore) -> None:
    owner = claim(store, 1)
    owner.events.append(Event(What.LOOKED_UP))
    store.record(owner, TICKET, found=True, keep=True)
    store.release(owner)


def made_anew(store: IdempotencyStore) -> None:
    owner = made(store)
    store.tell(owner, told=1, state=DeliveryState.CLOSED, ended=True)
    store.anew(owner, "huntress-5-1-r2")
    store.release(owner, delay=0)
    owner = creating(store)
    assert owner.tickets == 2
    store.record(owner, TicketRef("78", "T78", ""))


def refused_and_handled(store: IdempotencyStore) -> None:
    store.release(creating(store), state=DeliveryState.REJECTED, reason="no")
    store.retry(1, CONNECTOR)
    store.release(claim(store, 1), state=DeliveryState.HELD, reason="why")
    store.handle(1, CONNECTOR, "by hand")


def in_doubt(store: IdempotencyStore) -> None:
    owner = creating(store)
    store.release(owner, kind="doubt", reason="unknown", delay=0, doubt=True)
    owner = claim(store, 1)
    owner.events.append(Event(What.LOOKED_UP))
    store.release(owner, kind="doubt", reason="unknown", delay=0, looked=1)
    store.record(creating(store), TICKET)


STORIES = (ended, found, made_anew, refused_and_handled, in_doubt)


def told(store: IdempotencyStore, story: Callable[[IdempotencyStore], None]) -> tuple[list[Any], Totals]:
    store.client.flushdb()
    store.open()
    observe(store, report(1, "critical"))
    story(store)
    totals = Counters(store).totals()
    return [(each.what, each.text, each.times) for each in store.history(1, CONNECTOR)], totals


@pytest.mark.parametrize("story", STORIES)
def test_a_repeated_script_is_remembered_and_counted_once(
    client: redis.Redis, story: Callable[[IdempotencyStore], None]
) -> None:
    once, counted = told(IdempotencyStore(client), story)
    twice, counted_twice = told(Repeating(client), story)
    assert twice == once
    assert counted_twice.deliveries == counted.deliveries
    assert counted_twice.reports == counted.reports
    times = [{name: each.count for name, each in one.since_seen.items()} for one in (counted, counted_twice)]
    assert times[0] == times[1]


def test_what_an_owner_did_is_remembered_once_also_when_its_script_failed_at_first(client: redis.Redis) -> None:
    store = IdempotencyStore(client)
    store.open()
    observe(store, report(1))
    owner = made(store)
    event = Event(What.NOTED, "ended-1")
    owner.events.append(event)
    store.tell(owner, told=1, state=DeliveryState.CLOSED, ended=True)
    owner.events.append(event)  # the answer never came, so it goes with the next script as well
    store.release(owner)
    assert Counters(store).totals().deliveries[CONNECTOR, "noted"] == 2
    assert [each.what for each in store.history(1, CONNECTOR)].count("noted") == 2


def test_a_worker_that_takes_what_comes_next_takes_one(client: redis.Redis) -> None:
    store = Repeating(client)
    store.open()
    observe(store, report(1), report(2))
    first = store.claim(None, CONNECTOR, group=CONNECTOR, concurrency=3, settle=60)
    second = store.claim(None, CONNECTOR, group=CONNECTOR, concurrency=3, settle=60)
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert [first.report_id, first.attempts, second.report_id, second.attempts] == [1, 1, 2, 1]
