"""Scripts in pipelines: one round trip, and a server that does not know them yet."""

from __future__ import annotations

from bridge.idempotency import IdempotencyStore
from tests.bridge.round_trips import round_trips
from tests.bridge.test_idempotency import CONNECTOR, client, lead, observe, report, store

__all__ = ["client", "store"]  # fixtures


def test_writing_many_reports_is_one_round_trip(store: IdempotencyStore) -> None:
    observe(store, report(1))
    leader = lead(store, "poller")
    with round_trips(store.client) as sent:
        store.observe(leader, [(report(number), [(CONNECTOR, f"huntress-5-{number}")]) for number in range(2, 9)])
    assert len(sent) == 2, "which of them are to be written, and those"
    assert store.open_reports() == 8


def test_a_server_that_lost_its_scripts_is_given_them_again(store: IdempotencyStore) -> None:
    observe(store, report(1))
    leader = lead(store, "poller")
    pipeline = store.client.pipeline(transaction=False)
    store.script("seen", leader, '[["1", "", []]]', client=pipeline)
    store.client.script_flush()
    assert store.execute(pipeline) == [[]]
