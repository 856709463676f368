"""Signs of life of processes, as the store keeps them."""

from __future__ import annotations

from bridge.bookkeeping import HEARTBEAT_KEPT, Bookkeeping
from bridge.idempotency import IdempotencyStore
from tests.bridge.round_trips import round_trips
from tests.bridge.test_idempotency import client, store

__all__ = ["client", "store"]  # fixtures


def test_all_roles_of_a_process_say_that_they_live_in_one_round_trip(store: IdempotencyStore) -> None:
    books = Bookkeeping(store)
    books.beat("web")
    with round_trips(store.client) as sent:
        books.beat_all({"poller": "", "web": "", "worker": 'a thread "x" ended'})
    assert len(sent) == 1
    beats = books.heartbeats()
    assert [(beat.role, beat.problem) for beat in beats] == [
        ("poller", ""),
        ("web", ""),
        ("worker", 'a thread "x" ended'),
    ]
    assert all(abs(beat.at - store.now()) < 30 for beat in beats)


def test_a_process_that_is_long_gone_is_forgotten(store: IdempotencyStore) -> None:
    books = Bookkeeping(store)
    books.beat("web")
    store.clock_offset += HEARTBEAT_KEPT - 60
    books.beat("poller")
    assert len(books.heartbeats()) == 2
    store.clock_offset += 120
    books.beat("poller")
    assert [beat.role for beat in books.heartbeats()] == ["poller"]
