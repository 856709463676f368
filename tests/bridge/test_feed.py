"""What a reader of deliveries hears of: each change once, and what a list shows of a delivery."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bridge.idempotency import IdempotencyStore
from bridge.models import ReportKey, TicketRef
from bridge.reading import FEED, FeedPlace
from bridge.scripts import script_text
from tests.bridge.test_idempotency import CONNECTOR, claim, client, observe, report, store

__all__ = ["client", "store"]  # fixtures

TICKET = TicketRef("77", "T77", "")


def _told(store: IdempotencyStore) -> None:
    owner = claim(store, 1)
    store.record(owner, TICKET, told=1)


CHANGES: dict[str, Callable[[IdempotencyStore], Any]] = {
    "seen": lambda store: observe(store, report(1)),
    "severity": lambda store: observe(store, report(1, severity="critical")),
    "claimed": lambda store: claim(store, 1),
    "waits": lambda store: store.release(claim(store, 1), reason="away", delay=5),
    "recorded": _told,
    "handled": lambda store: store.handle(1, CONNECTOR, "by hand"),
    "retried": lambda store: store.retry(1, CONNECTOR),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_reader_of_the_feed_sees_each_change(store: IdempotencyStore, change: str) -> None:
    observe(store, report(2))
    if change != "seen":
        observe(store, report(1))
    moment = store.latest_change()
    assert store.changed_since(moment) == ([], moment)
    CHANGES[change](store)
    pairs, again = store.changed_since(moment) or ([], moment)
    assert pairs == [(1, CONNECTOR)]
    assert store.changed_since(again) == ([], again)


def test_a_reader_at_the_beginning_of_the_feed_misses_nothing(store: IdempotencyStore) -> None:
    moment = store.latest_change()
    store.clock_offset -= 3600
    observe(store, report(1))
    pairs, _ = store.changed_since(moment) or ([], moment)
    assert pairs == [(1, CONNECTOR)]


def test_the_feed_does_not_reach_back_for_ever(store: IdempotencyStore) -> None:
    moment = store.latest_change()
    others = {f"{number}|{CONNECTOR}": number for number in range(2, FEED + 2)}
    store.client.zadd(store.key("changed"), others)
    middle = FeedPlace(moment.birth, FEED // 2)
    assert len((store.changed_since(middle) or ([], moment))[0]) == FEED // 2 + 1
    observe(store, report(1))
    assert store.client.zcard(store.key("changed")) == FEED
    assert store.changed_since(moment) is None
    assert store.changed_since(middle) is not None


def test_a_feed_of_another_store_is_none(store: IdempotencyStore) -> None:
    observe(store, report(1))
    moment = store.latest_change()
    store.client.flushdb()
    assert store.changed_since(moment) is None
    assert store.changed_since(store.latest_change()) is None  # nobody took it into use yet
    store.reborn()
    observe(store, report(2))
    assert store.changed_since(moment) is None
    assert store.changed_since(store.latest_change()) is not None


def test_every_delivery_comes_once_newest_first_also_when_many_came_at_once(store: IdempotencyStore) -> None:
    observe(store, *(report(number) for number in range(1, 40)))
    store.handle(7, CONNECTOR, "done")
    store.clock_offset += 5
    store.handle(3, CONNECTOR, "done")
    same = {f"{number}|{CONNECTOR}": 5000.0 for number in range(10, 35)}
    store.client.zadd(store.key("state:pending"), same)
    found = list(store.every_delivery(batch=4))
    assert found[0] == (3, CONNECTOR)
    assert sorted(found, key=str) == sorted(((number, CONNECTOR) for number in range(1, 40)), key=str)


def test_lists_carry_what_the_report_says(store: IdempotencyStore) -> None:
    observe(store, report(1, subject="Malware on X", agent_id=12), report(2))
    found = store.read_deliveries([(1, CONNECTOR), (9, CONNECTOR), (2, CONNECTOR)])
    assert [(each.report_id, each.subject, each.agent_id) for each in found] == [(1, "Malware on X", 12), (2, "", None)]
    assert found[0].created_at == pytest.approx(time.time(), abs=10)
    assert found[0].made_at is None
    store.record(claim(store, 1), TICKET)
    assert store.read_deliveries([(1, CONNECTOR)])[0].recorded_at is not None


def test_long_reports_do_not_keep_redis_busy(store: IdempotencyStore) -> None:
    """A list reads them in shares, so that whoever works is served in between."""
    observe(store, *(report(number, subject=f"number {number}", body="x" * 100_000) for number in range(20)))
    pairs: list[tuple[ReportKey, str]] = [(number, CONNECTOR) for number in range(20)]
    found = store.read_deliveries(pairs)
    assert [each.subject for each in found] == [f"number {number}" for number in range(20)]
    share = store.script("read", json.dumps([[str(key), name] for key, name in pairs]), '["state"]', '["subject"]')
    assert 0 < len(json.loads(share)) < 10


def test_python_and_the_scripts_keep_the_same_feed() -> None:
    assert f"local FEED = {FEED}\n" in script_text("handle")
