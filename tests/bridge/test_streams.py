"""Escalations and platform actions, from the pretend Huntress to listings, on a real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from bridge.bookkeeping import Bookkeeping, StreamState
from bridge.broker import store_client
from bridge.budget import RedisBudget
from bridge.demo.huntress import PretendHuntress
from bridge.huntress import SourceNotFound
from bridge.idempotency import IdempotencyStore
from bridge.listing import Listing
from bridge.models import Kind
from bridge.runtime import make_source
from bridge.settings import Settings
from bridge.streams import LISTED_EVERY, Streams


class Ground:
    """Streams on a store whose clock a test moves."""

    def __init__(self, client: redis.Redis, source: PretendHuntress, sources: dict[str, bool], **huntress: Any) -> None:
        self.settings = Settings.model_validate({"huntress": source.settings(**huntress), "sources": sources})
        self.store = IdempotencyStore(client, settle=60)
        self.store.open()
        self.books = Bookkeeping(self.store)
        self.client = make_source(self.settings, RedisBudget(self.store, 6000))
        self.streams = Streams(self.books, lambda: self.client, lambda: self.settings)

    def listings(self) -> dict[Kind, Listing]:
        return dict(self.streams.listings(self.store.now()))

    def keys(self) -> list[object]:
        return [report.key for listing in self.listings().values() for report in listing.reports]


@pytest.fixture
def source() -> Iterator[PretendHuntress]:
    with PretendHuntress(organizations=3) as server:
        yield server


Make = Callable[..., Ground]


@pytest.fixture
def make(redis_url: str, source: PretendHuntress) -> Iterator[Make]:
    client = store_client(redis_url)
    made: list[Ground] = []

    def _make(escalations: bool = True, platform_actions: bool = True, **huntress: Any) -> Ground:
        sources = {"escalations": escalations, "platform_actions": platform_actions}
        made.append(Ground(client, source, sources, **huntress))
        return made[-1]

    yield _make
    for ground in made:
        ground.client.close()
    client.close()


def test_both_streams_are_off_unless_asked_for(make: Make, source: PretendHuntress) -> None:
    source.add_escalation([1])
    ground = make(escalations=False, platform_actions=False)
    assert ground.listings() == {}
    assert source.received == []
    assert Settings().sources.kinds == []


def test_each_stream_is_listed_once_a_minute(make: Make, source: PretendHuntress) -> None:
    escalation, action = source.add_escalation([1]), source.add_platform_action()
    ground = make()
    assert ground.keys() == [f"e{escalation}", f"p{action}"]
    ground.store.clock_offset += LISTED_EVERY - 1
    assert ground.listings() == {}
    ground.store.clock_offset += 2
    assert set(ground.listings()) == {Kind.ESCALATION, Kind.PLATFORM_ACTION}
    assert len(source.received) == 8
    # A clock that was set back does not silence the streams.
    ground.store.clock_offset -= 3600
    assert set(ground.listings()) == {Kind.ESCALATION, Kind.PLATFORM_ACTION}


def test_a_stream_that_fails_stops_neither_the_other_nor_itself(make: Make, source: PretendHuntress) -> None:
    source.add_escalation([1])
    action = source.add_platform_action()
    source.fault("status", path="escalations", status=500, body={"message": "try later"}, times=None)
    ground = make()
    found = ground.listings()
    assert [report.id for report in found[Kind.PLATFORM_ACTION].reports] == [action]
    assert found[Kind.ESCALATION] == Listing(complete=False)
    state = ground.books.stream(Kind.ESCALATION)
    assert (state.last_complete_at, state.problem) == (None, "Huntress answered 500: try later.")
    assert ground.books.stream(Kind.PLATFORM_ACTION).problem == ""
    ground.store.clock_offset += LISTED_EVERY
    ground.listings()
    # Since when it fails is kept.
    assert ground.books.stream(Kind.ESCALATION).problem_since == state.problem_since
    source.faults.clear()
    ground.store.clock_offset += LISTED_EVERY
    assert ground.listings()[Kind.ESCALATION].complete
    state = ground.books.stream(Kind.ESCALATION)
    assert state.last_complete_at is not None
    assert state == StreamState(state.last_complete_at)


def test_what_was_shown_before_a_listing_broke_off_is_given_as_incomplete(make: Make, source: PretendHuntress) -> None:
    number = source.add_escalation([1])
    source.fault("status", about="^overdue$", status=500, times=None)
    listing = make(platform_actions=False).listings()[Kind.ESCALATION]
    assert [report.id for report in listing.reports] == [number]
    assert not listing.complete


def test_what_cannot_be_parsed_is_remembered_until_the_next_listing(make: Make, source: PretendHuntress) -> None:
    source.add_escalation([1], id=7, status="being looked at")
    with source.lock:
        source.escalations[7]["status"] = "Open"
        source.escalations[8] = {"id": None, "status": "open"}
        source.escalations[9] = source.escalations[7] | {"id": 9, "status": {"name": "held"}}
    ground = make(platform_actions=False)
    assert ground.keys() == ["e7"]
    assert [(bad.report_id, bad.reason.split(":")[0]) for bad in ground.streams.unparsable()] == [
        ("e9", 'its status \'{"name"'),
        (None, "this escalation has no usable id"),
    ]
    with source.lock:
        del source.escalations[8], source.escalations[9]
    assert ground.listings() == {}
    assert len(list(ground.streams.unparsable())) == 2
    ground.store.clock_offset += LISTED_EVERY
    ground.listings()
    assert list(ground.streams.unparsable()) == []


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_single_read_says_whether_it_is_over(make: Make, source: PretendHuntress, wrapped: bool) -> None:
    source.wrapped = wrapped
    entities = {"total_count": 1, "items": [{"id": 12, "type": "Agent", "details": {"hostname": "laptop01"}}]}
    escalation = source.add_escalation([2], entities=entities)
    action = source.add_platform_action()
    ground = make()
    (listed,) = ground.listings()[Kind.ESCALATION].reports
    assert listed.summary == ""
    found = ground.streams.read(listed.key)
    assert (found.key, found.over, found.summary) == (listed.key, False, "Agent 12: hostname laptop01")
    source.resolve_escalation(escalation)
    source.resolve_platform_action(action)
    over = ground.streams.read(listed.key)
    assert over.over
    assert over.closed_at is not None
    assert ground.streams.read(f"p{action}").over
    ground.store.clock_offset += LISTED_EVERY
    assert ground.keys() == []
    with pytest.raises(SourceNotFound):
        ground.streams.read("e99")


def test_a_resellers_key_is_told_what_it_cannot_have(make: Make, source: PretendHuntress) -> None:
    ground = make(account_id=5)
    assert ground.listings() == {}
    assert source.received == []
    problem = ground.books.stream(Kind.PLATFORM_ACTION).problem
    assert "platform actions to an account's own key only" in problem
    assert "Set [sources] platform_actions = false" in problem
