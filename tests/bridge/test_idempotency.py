"""The store on a real Redis: every transition, seen through what claims and listings say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from bridge.absences import Absences
from bridge.broker import store_client
from bridge.idempotency import (
    LEASE,
    LOOK_UP_AFTER,
    RESERVATION,
    SCHEMA,
    Claim,
    Deposed,
    IdempotencyStore,
    StoreError,
)
from bridge.models import DeliveryState, IncidentReport, ReportKey, TicketRef

CONNECTOR = "psa"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(client: redis.Redis) -> IdempotencyStore:
    store = IdempotencyStore(client, "bridge", settle=60)
    store.open()
    return store


def lead(store: IdempotencyStore, role: str, candidate: str = "a") -> int:
    return int(store.script("lead", role, candidate, 6000))


def report(number: int, severity: str = "low", **fields: object) -> IncidentReport:
    return replace(IncidentReport(number, account_id=5, organization_id=4, severity=severity), **fields)  # type: ignore[arg-type]


def observe(
    store: IdempotencyStore, *reports: IncidentReport, connectors: tuple[str, ...] = (CONNECTOR,)
) -> list[tuple[ReportKey, str]]:
    names = {one.id: [(name, f"huntress-5-{one.id}") for name in connectors] for one in reports}
    return store.observe(lead(store, "poller"), [(one, names[one.id]) for one in reports])


def unfinished(store: IdempotencyStore) -> set[str]:
    """What is to do to the ticket of report 1."""
    return set(json.loads(store.client.hget(store.key(f"delivery:1:{CONNECTOR}"), "todo") or "[]"))


def dispatch(store: IdempotencyStore, concurrency: int = 3, *, proof: bool = False) -> list[ReportKey]:
    return store.dispatch(lead(store, "dispatcher"), CONNECTOR, CONNECTOR, concurrency, proof=proof)


def miss(store: IdempotencyStore, started: float) -> list[ReportKey]:
    """What complete listings since `started` no longer showed."""
    absences = Absences(store)
    unseen = [key for key, _ in absences.unseen(started)]
    assert absences.miss(lead(store, "poller"), started, unseen) == len(unseen)
    assert [each.key for each in absences.missing()] == unseen
    return unseen


def claim(store: IdempotencyStore, number: ReportKey, concurrency: int = 3) -> Claim:
    claimed = store.claim(number, CONNECTOR, group=CONNECTOR, concurrency=concurrency, settle=60)
    assert isinstance(claimed, Claim), claimed
    return claimed


def refused(store: IdempotencyStore, number: int, concurrency: int = 3) -> str:
    answer = store.claim(number, CONNECTOR, group=CONNECTOR, concurrency=concurrency, settle=60)
    assert isinstance(answer, str)
    return answer


def state(store: IdempotencyStore, number: int) -> DeliveryState:
    delivery = store.delivery(number, CONNECTOR)
    assert delivery is not None
    return delivery.state


def pass_time(store: IdempotencyStore, seconds: float) -> None:
    store.clock_offset += seconds


def creating(store: IdempotencyStore, number: int = 1) -> Claim:
    observe(store, report(number))
    claimed = claim(store, number)
    assert store.begin_create(claimed, proof=False).verdict == "go"
    return claimed


# -- observing ---------------------------------------------------------------------------------------------------------


def test_a_new_report_makes_one_delivery_per_connector(store: IdempotencyStore) -> None:
    assert observe(store, report(1), connectors=("psa", "desk")) == [(1, "psa"), (1, "desk")]
    assert observe(store, report(1), connectors=("psa", "desk")) == []
    assert observe(store, report(1), connectors=("psa", "desk", "oncall")) == [(1, "oncall")]


def test_a_changed_report_has_a_new_version_and_its_snapshot(store: IdempotencyStore) -> None:
    observe(store, report(1, subject="one"))
    observe(store, report(1, subject="one"))
    observe(store, report(1, subject="two"))
    claimed = claim(store, 1)
    assert claimed.version == 2
    assert claimed.report == report(1, subject="two")


def test_reports_not_listed_any_more_leave_the_open_set_but_not_the_deliveries(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2))
    pass_time(store, 10)
    started = store.now()
    observe(store, report(2))
    assert miss(store, started) == [1]
    assert store.open_reports() == 1
    assert state(store, 1) is DeliveryState.PENDING


def test_a_deposed_poller_writes_nothing(store: IdempotencyStore) -> None:
    old = lead(store, "poller", "a")
    store.client.delete(store.key("leader:poller"))
    assert lead(store, "poller", "b") > old
    with pytest.raises(Deposed):
        store.observe(old, [(report(1), [(CONNECTOR, "huntress-5-1")])])
    assert store.delivery(1, CONNECTOR) is None


def test_a_deposed_dispatcher_takes_nothing(store: IdempotencyStore) -> None:
    observe(store, report(1))
    old = lead(store, "dispatcher", "a")
    store.client.delete(store.key("leader:dispatcher"))
    lead(store, "dispatcher", "b")
    with pytest.raises(Deposed):
        store.dispatch(old, CONNECTOR, CONNECTOR, 3, proof=False)


# -- dispatching -------------------------------------------------------------------------------------------------------


def test_critical_goes_before_high_and_unknown_before_low_then_by_age(store: IdempotencyStore) -> None:
    observe(store, report(1, "low"))
    pass_time(store, 1)
    observe(store, report(2, "high"))
    pass_time(store, 1)
    observe(store, report(3, "extreme"), report(4, "critical"))
    assert dispatch(store, 10) == [4, 2, 3, 1]


def test_no_more_is_dispatched_than_there_is_room(store: IdempotencyStore) -> None:
    observe(store, *(report(number) for number in range(1, 6)))
    assert len(dispatch(store, 2)) == 2
    assert dispatch(store, 2) == []


def test_critical_reports_overtake_a_waiting_backlog(store: IdempotencyStore) -> None:
    observe(store, *(report(number) for number in range(1, 301)))
    running = dispatch(store, 3)
    claims = [claim(store, number) for number in running]
    observe(store, report(901, "critical"), report(902, "critical"), report(903, "critical"))
    started = []
    for claimed in claims:
        store.release(claimed, state=DeliveryState.REJECTED)
        started += dispatch(store, 3)
    assert started == [901, 902, 903]


def test_a_lost_message_is_dispatched_again(store: IdempotencyStore) -> None:
    observe(store, report(1))
    assert dispatch(store) == [1]
    assert dispatch(store) == []
    pass_time(store, RESERVATION + 0.1)
    assert dispatch(store) == [1]


def test_a_paused_connector_is_not_dispatched(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.pause(CONNECTOR, "rate", 30, "too many requests")
    assert dispatch(store) == []
    pass_time(store, 30.1)
    assert dispatch(store) == [1]


def test_until_a_create_is_proven_findable_one_delivery_at_a_time_may_create(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2), report(3))
    assert dispatch(store, proof=True) == [1]
    first = claim(store, 1)
    assert store.begin_create(first, proof=True).verdict == "prove"
    assert dispatch(store, proof=True) == []
    store.record(first, TicketRef("77"), told=1, todo={"verify"})
    assert dispatch(store, proof=True) == [1], "only the proof itself goes on"
    store.prove(CONNECTOR)
    assert dispatch(store, proof=True) == [2, 3]


def test_another_delivery_proves_when_the_first_was_refused(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2))
    first = claim(store, 1)
    assert store.begin_create(first, proof=True).verdict == "prove"
    second = claim(store, 2)
    assert store.begin_create(second, proof=True).verdict == "proving"
    store.release(first, state=DeliveryState.REJECTED, reason="no")
    assert store.begin_create(second, proof=True).verdict == "prove"


# -- claiming ----------------------------------------------------------------------------------------------------------


def test_only_one_worker_claims(store: IdempotencyStore) -> None:
    observe(store, report(1))
    claim(store, 1)
    assert refused(store, 1) == "busy"


def test_the_connectors_concurrency_holds_across_workers(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2), report(3))
    claim(store, 1, 2)
    claim(store, 2, 2)
    assert refused(store, 3, 2) == "full"


def test_what_is_not_due_or_not_there_is_not_claimed(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.release(claim(store, 1), state=DeliveryState.PENDING, delay=30)
    assert refused(store, 1) == "early"
    assert refused(store, 99) == "missing"
    pass_time(store, 30.1)
    assert claim(store, 1).attempts == 2


def test_a_paused_connector_is_not_claimed_and_nothing_gets_lost(store: IdempotencyStore) -> None:
    observe(store, report(1))
    dispatch(store)
    store.pause(CONNECTOR, "rate", 30, "too many requests")
    assert refused(store, 1) == "paused"
    pass_time(store, 30.1)
    assert dispatch(store) == [1]
    claim(store, 1)


def test_a_renewed_lease_holds_and_an_unrenewed_one_ends(store: IdempotencyStore) -> None:
    observe(store, report(1))
    first = claim(store, 1)
    pass_time(store, LEASE - 1)
    assert store.renew(first)
    pass_time(store, LEASE - 1)
    assert refused(store, 1) == "busy"
    pass_time(store, 1.1)
    second = claim(store, 1)
    assert second.lapsed == 1
    assert not store.renew(first)
    assert not store.release(first, state=DeliveryState.REJECTED)
    assert state(store, 1) is DeliveryState.PENDING


def test_a_result_forgets_lapsed_leases(store: IdempotencyStore) -> None:
    observe(store, report(1))
    for expected in range(2):
        assert claim(store, 1).lapsed == expected
        pass_time(store, LEASE + 0.1)
    store.release(claim(store, 1), state=DeliveryState.PENDING, delay=0)
    assert claim(store, 1).lapsed == 0


def test_what_lapsed_three_times_waits_longer_and_longer(store: IdempotencyStore) -> None:
    observe(store, report(1))
    for lapsed, seconds in enumerate((0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300)):
        if seconds:
            assert refused(store, 1) == "early"
            pass_time(store, seconds - 0.5)
            assert refused(store, 1) == "early"
            pass_time(store, 0.6)
        assert claim(store, 1).lapsed == lapsed
        pass_time(store, LEASE + 0.1)
    assert refused(store, 1) == "early"
    pass_time(store, 301)
    store.release(claim(store, 1), state=DeliveryState.PENDING, delay=0)
    assert claim(store, 1).lapsed == 0


@pytest.mark.parametrize("began", ["claimed", "creating"])
def test_what_a_worker_left_under_way_goes_before_what_nobody_began(store: IdempotencyStore, began: str) -> None:
    observe(store, report(1))
    owned = claim(store, 1)
    if began == "creating":
        store.begin_create(owned, proof=False)
    observe(store, report(2, "critical"), report(3, "critical"))
    pass_time(store, LEASE + 0.1)
    assert dispatch(store, 1) == [1]
    pass_time(store, 60)  # nobody claimed it; it comes first again
    observe(store, report(1, "medium"))
    assert dispatch(store, 1) == [1]


def test_of_what_was_left_under_way_the_most_urgent_goes_first(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2, "critical"))
    for number in (1, 2):
        claim(store, number)
    pass_time(store, LEASE + 0.1)
    assert dispatch(store, 1) == [2]


def test_of_what_lapsed_three_times_one_is_taken_up_at_a_time(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2), report(3))
    for lapsed in range(3):
        for number in (1, 2):
            assert claim(store, number).lapsed == lapsed, "what lapsed less often is taken up at once"
        pass_time(store, LEASE + 0.1)
    for number in (1, 2):
        assert refused(store, number) == "early"
    pass_time(store, 5.1)
    first = claim(store, 1)
    assert first.lapsed == 3
    assert refused(store, 2) == "early"
    assert claim(store, 3).lapsed == 0, "what did not lapse need not wait"
    pass_time(store, 1.1)
    assert refused(store, 2) == "early"
    store.release(first, state=DeliveryState.PENDING, delay=60)
    pass_time(store, 1.1)
    second = claim(store, 2)
    assert second.lapsed == 3
    pass_time(store, LEASE + 300)
    assert refused(store, 2) == "early"
    pass_time(store, 10.1)
    assert claim(store, 2).lapsed == 4, "one that lapsed again is in nobody's way, nor in its own"


# -- creating ----------------------------------------------------------------------------------------------------------


def test_only_the_owner_of_a_live_lease_may_begin_to_create(store: IdempotencyStore) -> None:
    observe(store, report(1))
    first = claim(store, 1)
    pass_time(store, LEASE + 0.1)
    assert store.begin_create(first, proof=False).verdict == "lost"
    second = claim(store, 1)
    assert store.begin_create(first, proof=False).verdict == "lost"
    assert store.begin_create(second, proof=False).verdict == "go"


def test_an_interrupted_create_is_in_doubt_from_the_lapse_of_its_lease_and_looked_up_on_schedule(
    store: IdempotencyStore,
) -> None:
    creating(store)
    pass_time(store, LEASE + 0.1)
    assert refused(store, 1) == "early", "the first look-up comes 5 s after the last moment of sending"
    pass_time(store, 5)
    second = claim(store, 1)
    assert second.state is DeliveryState.CREATING
    assert second.doubt_at is not None
    assert abs(store.now() - second.doubt_at - 5.1) < 0.5


def test_a_doubt_outlives_further_deaths_without_moving(store: IdempotencyStore) -> None:
    creating(store)
    pass_time(store, LEASE + 5.1)
    first = claim(store, 1)
    pass_time(store, LEASE + 0.1)
    second = claim(store, 1)
    assert second.doubt_at == first.doubt_at


def test_a_pause_is_checked_at_the_gate(store: IdempotencyStore) -> None:
    observe(store, report(1))
    claimed = claim(store, 1)
    store.pause(CONNECTOR, "misconfigured", 3600, "wrong board", probe_in=60)
    gate = store.begin_create(claimed, proof=False)
    assert gate.verdict == "paused"
    assert gate.until is not None
    assert gate.until > store.now()


def test_a_ticket_is_recorded_even_by_an_owner_whose_lease_lapsed(store: IdempotencyStore) -> None:
    first = creating(store)
    pass_time(store, LEASE + 5.1)
    second = claim(store, 1)
    store.record(first, TicketRef("42", "42", "https://psa/42"), told=1)
    assert state(store, 1) is DeliveryState.CREATED
    assert store.begin_create(second, proof=False).verdict == "lost"
    assert store.release(second, state=DeliveryState.PENDING, delay=30)
    assert state(store, 1) is DeliveryState.CREATED, "a fact is not undone by an older opinion"


@pytest.mark.parametrize(("first", "second"), [("9", "10"), ("10", "9")])
def test_of_two_tickets_the_lower_id_is_kept_and_the_other_named(
    store: IdempotencyStore, first: str, second: str
) -> None:
    claimed = creating(store)
    store.record(claimed, TicketRef(first), told=1)
    assert store.record(claimed, TicketRef(second), told=1) == "9"
    delivery = store.delivery(1, CONNECTOR)
    assert delivery is not None
    assert delivery.ticket is not None
    assert (delivery.ticket.id, delivery.other_ticket, delivery.todo) == ("9", "10", ("duplicate",))


@pytest.mark.parametrize(("found", "other", "kept", "named"), [("9", "10", "9", "10"), ("77", "78", "42", "77")])
def test_two_tickets_that_were_found_are_recorded_at_once(
    store: IdempotencyStore, found: str, other: str, kept: str, named: str
) -> None:
    """In one step: whoever dies right after it has not forgotten the second one."""
    claimed = creating(store)
    if kept != found:
        store.record(claimed, TicketRef(kept), told=1)
    assert store.record(claimed, TicketRef(found), told=1, todo={"complete"}, other=other) == kept
    delivery = store.delivery(1, CONNECTOR)
    assert delivery is not None
    assert delivery.ticket is not None
    assert (delivery.ticket.id, delivery.other_ticket, delivery.todo) == (kept, named, ("complete", "duplicate"))


def test_recording_twice_is_recording_once(store: IdempotencyStore) -> None:
    claimed = creating(store)
    for _ in range(2):
        assert store.record(claimed, TicketRef("42"), told=1) == "42"
    delivery = store.delivery(1, CONNECTOR)
    assert delivery is not None
    assert (delivery.state, delivery.other_ticket) == (DeliveryState.CREATED, "")
    assert store.scheduled(CONNECTOR) == 0


def test_a_ticket_is_recorded_into_a_store_that_lost_its_delivery(store: IdempotencyStore) -> None:
    claimed = creating(store)
    store.client.flushdb()
    store.record(claimed, TicketRef("42"), told=1)
    assert state(store, 1) is DeliveryState.CREATED


def test_what_a_lost_store_counted_hides_no_change_from_the_next(store: IdempotencyStore) -> None:
    claimed = creating(store)
    store.client.flushdb()
    store.record(claimed, TicketRef("42"), told=7, facts="as of then")
    store.reborn()
    for subject in ("as it was", "changed"):
        observe(store, report(1, subject=subject))
        assert dispatch(store) == [1]
        again = claim(store, 1)
        assert again.facts == "as of then"
        assert again.version > max(again.told, again.considered)
        store.release(again, considered=again.version)


def test_a_report_that_changed_while_it_was_told_stays_due(store: IdempotencyStore) -> None:
    claimed = creating(store)
    observe(store, report(1, subject="changed"))
    store.record(claimed, TicketRef("42"), told=claimed.version)
    assert dispatch(store) == [1]
    again = claim(store, 1)
    assert (again.told, again.version) == (1, 2)
    store.release(again, considered=again.version)
    assert dispatch(store) == []


def test_a_report_that_changes_while_quiet_hours_are_looked_up_is_looked_at_again(store: IdempotencyStore) -> None:
    observe(store, report(1))
    claimed = claim(store, 1)
    observe(store, report(1, "critical"))
    store.release(claimed, state=DeliveryState.PENDING, kind="quiet", delay=3600, version=claimed.version)
    assert dispatch(store) == [1]
    again = claim(store, 1)
    store.release(again, state=DeliveryState.PENDING, kind="quiet", delay=3600, version=again.version)
    assert dispatch(store) == []


def test_a_comment_that_comes_while_a_new_ticket_is_decided_on_is_for_that_one(store: IdempotencyStore) -> None:
    first = creating(store)
    comment = "comment-000001700000000-abc"
    store.record(first, TicketRef("42"), told=1, todo=["complete", comment], keep=True)
    assert store.anew(first, "huntress-5-1-r2")
    store.release(first, delay=0)
    again = claim(store, 1)
    assert again.reference == "huntress-5-1-r2"
    assert again.todo == {comment}


def test_comments_are_for_the_ticket_that_is_kept_and_are_added_once(store: IdempotencyStore) -> None:
    comment = "comment-000001700000000-abc"
    store.client.hset(store.key("comments:1"), "abc", "000001700000000 before the delivery was there")
    late = creating(store)
    pass_time(store, LEASE + 5.1)
    owner = claim(store, 1)
    assert owner.todo == set()
    assert store.begin_create(owner, proof=False).open
    for _ in range(2):  # as when the answer is lost
        assert store.record(owner, TicketRef("77"), todo=["complete"], keep=True) == "77"
    store.release(owner, done={"complete", comment})
    store.record(owner, TicketRef("77"), todo=[])
    assert unfinished(store) == set()
    assert store.record(late, TicketRef("55"), todo=["complete"]) == "55"
    assert unfinished(store) == {"complete", "duplicate", comment}
    store.release(claim(store, 1), done=unfinished(store))
    assert store.record(owner, TicketRef("77"), todo=[]) == "55", "nothing more for the one that has its comments"
    assert unfinished(store) == {"duplicate"}


def test_progress_is_kept_for_the_next_owner_and_refused_to_the_former(store: IdempotencyStore) -> None:
    first = creating(store)
    assert store.save_progress(first, "a@example.com", "sent")
    pass_time(store, LEASE + 5.1)
    second = claim(store, 1)
    assert second.progress == {"a@example.com": "sent"}
    assert not store.save_progress(first, "b@example.com", "sent")


# -- a store that came back empty --------------------------------------------------------------------------------------


def test_a_store_that_came_back_empty_is_noticed_and_nothing_is_created_for_settle(store: IdempotencyStore) -> None:
    observe(store, report(1))
    before = store.birth
    store.remember({"account_id": "5"})
    store.client.flushdb()
    observe(store, report(1))
    assert store.birth != before
    assert store.client.hget("bridge:meta", "account_id") == "5", "what is remembered is written into the new store"
    claimed = claim(store, 1)
    gate = store.begin_create(claimed, proof=False)
    assert gate.verdict == "hold"
    assert gate.until is not None
    assert 63 < gate.until - store.now() <= 68
    store.release(claimed, state=DeliveryState.PENDING, delay=gate.until - store.now())
    pass_time(store, 68.1)
    assert store.begin_create(claim(store, 1), proof=False).verdict == "go"


def test_a_running_process_holds_creates_back_also_in_a_store_that_a_fresh_one_took_into_use(
    store: IdempotencyStore, client: redis.Redis
) -> None:
    client.flushdb()
    fresh = IdempotencyStore(client, "bridge", settle=60)
    fresh.open()
    observe(fresh, report(1))
    claimed = claim(fresh, 1)
    assert store.renew(claimed) is False
    assert refused(store, 1) == "busy"
    assert store.birth == fresh.birth
    assert fresh.begin_create(claimed, proof=False).verdict == "hold"


def test_a_create_that_begins_after_the_store_was_lost_is_not_sent(store: IdempotencyStore) -> None:
    observe(store, report(1))
    claimed = claim(store, 1)
    store.client.flushdb()
    assert store.begin_create(claimed, proof=False).verdict == "lost"


def test_a_store_of_a_newer_version_is_refused(client: redis.Redis) -> None:
    client.hset("bridge:meta", "schema", str(SCHEMA + 1))
    with pytest.raises(StoreError, match=f"schema version {SCHEMA + 1}"):
        IdempotencyStore(client, "bridge").open()


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1800, 7200])
def test_a_clock_that_is_set_back_lets_nothing_wait_longer(store: IdempotencyStore, jump: float) -> None:
    pass_time(store, jump)
    observe(store, report(1), report(2), report(3))
    claim(store, 1)
    store.release(claim(store, 2), state=DeliveryState.PENDING, delay=30)
    assert dispatch(store) == [3]
    store.pause("desk", "rate", 900, "too many requests")
    store.dispatch(lead(store, "dispatcher"), "desk", "desk", 3, proof=False)
    pass_time(store, -jump)
    assert dispatch(store) == []
    pass_time(store, RESERVATION + 0.1)
    assert sorted(dispatch(store)) == [1, 3], "a dead lease and a lost message wait no longer than without the jump"
    claim(store, 1)
    pass_time(store, 20)
    assert 2 in dispatch(store, 10)
    claim(store, 2)
    store.dispatch(lead(store, "dispatcher"), "desk", "desk", 3, proof=False)
    pass_time(store, 900)
    assert store.paused("desk") is None


def test_a_clock_that_is_set_forward_settles_no_doubt(store: IdempotencyStore) -> None:
    store.release(creating(store), doubt=True, delay=5)
    leader = lead(store, "dispatcher")
    store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False)
    pass_time(store, 3600)
    assert store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False, passed=1) == [1]
    doubt_at = claim(store, 1).doubt_at
    assert doubt_at is not None
    assert store.now() - doubt_at < 3


def test_a_clock_that_is_set_forward_ends_no_lease(store: IdempotencyStore) -> None:
    """Its owner may be in the middle of a create: taken from it, the create would be in doubt for an hour already."""
    claimed = creating(store)
    leader = lead(store, "dispatcher")
    store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False)
    pass_time(store, 3600)
    assert store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False, passed=1) == []
    assert store.renew(claimed), "it is still the owner's"
    pass_time(store, LEASE + 0.1)
    assert store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False, passed=LEASE) == [1]
    assert refused(store, 1) == "early", "in doubt since the end of its lease, no longer"
    pass_time(store, LOOK_UP_AFTER[0])
    assert dispatch(store) == [1]
    doubt_at = claim(store, 1).doubt_at
    assert doubt_at is not None
    assert store.now() - doubt_at < LOOK_UP_AFTER[0] + 1


def test_a_lease_that_lapsed_just_before_the_clock_was_set_forward_is_no_older_for_it(store: IdempotencyStore) -> None:
    creating(store)
    leader = lead(store, "dispatcher")
    store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False)
    pass_time(store, 3600 + LEASE + 6)
    assert store.dispatch(leader, CONNECTOR, CONNECTOR, 3, proof=False, passed=LEASE + 6) == [1]
    doubt_at = claim(store, 1).doubt_at
    assert doubt_at is not None
    assert 5 < store.now() - doubt_at < 8


def test_a_clock_that_is_set_back_leaves_a_renewed_lease_to_its_owner(store: IdempotencyStore) -> None:
    pass_time(store, 3600)
    claimed = creating(store)
    dispatch(store)
    pass_time(store, -3600)
    assert store.renew(claimed)
    assert dispatch(store) == []
    assert refused(store, 1) == "busy"
    pass_time(store, RESERVATION + 0.1)
    assert dispatch(store) == [1], "unless its owner is dead"


def test_what_is_due_is_due_also_after_the_clock_was_set_back(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.release(claim(store, 1), state=DeliveryState.PENDING, delay=3590)
    pass_time(store, 3600)
    assert dispatch(store, 0) == [], "it waits for room"
    pass_time(store, -3600)
    assert dispatch(store) == [1]
    claim(store, 1)


def test_a_clock_that_is_set_back_during_a_listing_takes_nothing_for_closed(store: IdempotencyStore) -> None:
    observe(store, report(9))
    started = store.now() + 3600
    observe(store, report(1))
    assert miss(store, started) == []
    assert store.open_reports() == 2


def test_what_was_seen_before_the_clock_was_set_back_can_be_taken_for_closed(store: IdempotencyStore) -> None:
    pass_time(store, 3600)
    observe(store, report(9))
    pass_time(store, -3600)
    started = store.now()
    observe(store, report(1))
    assert miss(store, started) == [9]
    assert store.open_reports() == 1


def test_a_clock_that_jumps_ahead_only_brings_things_forward(store: IdempotencyStore) -> None:
    claimed = creating(store)
    pass_time(store, 3600)
    second = claim(store, 1)
    assert second.state is DeliveryState.CREATING
    assert store.begin_create(claimed, proof=False).verdict == "lost"


# -- what a review found ----------------------------------------------------------------------------------------------


def test_a_create_whose_owner_let_go_without_an_answer_is_in_doubt(store: IdempotencyStore) -> None:
    store.release(creating(store), delay=0)
    assert claim(store, 1).doubt_at is not None


def test_the_proof_goes_on_behind_any_backlog(store: IdempotencyStore) -> None:
    observe(store, report(1, "low"))
    assert dispatch(store, proof=True) == [1]
    first = claim(store, 1)
    assert store.begin_create(first, proof=True).verdict == "prove"
    store.record(first, TicketRef("42"), told=1, todo={"verify"})
    observe(store, *(report(number, "critical") for number in range(2, 1203)))
    assert dispatch(store, proof=True) == [1]


def test_a_proof_that_nobody_finishes_any_more_is_none(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2))
    assert dispatch(store, proof=True) == [1]
    first = claim(store, 1)
    assert store.begin_create(first, proof=True).verdict == "prove"
    store.record(first, TicketRef("42"), told=1, todo={"verify"}, keep=True)
    store.release(first, done={"verify"})
    assert dispatch(store, proof=True) == [2]


def test_a_ticket_linked_by_hand_while_it_was_to_prove_still_proves(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2))
    first = claim(store, 1)
    assert store.begin_create(first, proof=True).verdict == "prove"
    store.release(first, doubt=True, delay=5)
    store.record(replace(first, token=""), TicketRef("42"))
    assert dispatch(store, proof=True) == [1]
    assert claim(store, 1).todo == {"verify"}


def test_what_was_added_during_a_turn_stays_due(store: IdempotencyStore) -> None:
    first = creating(store)
    store.record(first, TicketRef("9"), told=1, todo={"complete"}, keep=True)
    store.record(replace(first, token="a late owner"), TicketRef("10"), told=1)
    store.release(first, done={"complete"})
    assert dispatch(store) == [1]
    assert claim(store, 1).todo == {"duplicate"}


def test_the_poller_schedules_what_fell_through_everything_else(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.client.delete(store.key("ready:psa"), store.key("due:psa"))
    assert dispatch(store) == []
    observe(store, report(1))
    assert dispatch(store) == [1]


def test_number_zero_leads_nothing(store: IdempotencyStore) -> None:
    store.client.flushdb()
    store.open()
    with pytest.raises(Deposed):
        store.observe(0, [(report(1), [(CONNECTOR, "huntress-5-1")])])


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [DeliveryState.REJECTED, DeliveryState.HELD])
def test_retry_brings_back_what_a_person_was_needed_for(store: IdempotencyStore, given: DeliveryState) -> None:
    observe(store, report(1))
    store.release(claim(store, 1), state=given, reason="no")
    assert dispatch(store) == []
    assert store.retry(1, CONNECTOR) == given
    assert dispatch(store) == [1]


def test_retry_of_a_create_in_doubt_only_looks_up(store: IdempotencyStore) -> None:
    claimed = creating(store)
    store.release(claimed, doubt=True, delay=5, kind="doubt")
    store.retry(1, CONNECTOR)
    again = claim(store, 1)
    assert again.state is DeliveryState.CREATING
    assert again.doubt_at is not None


def test_retry_leaves_what_is_created(store: IdempotencyStore) -> None:
    store.record(creating(store), TicketRef("42"), told=1)
    assert store.retry(1, CONNECTOR) == "created"
    assert dispatch(store) == []
    assert store.retry(2, CONNECTOR) == ""


def test_resuming_makes_everything_due_but_what_is_in_doubt(store: IdempotencyStore) -> None:
    claimed = creating(store, 1)
    store.release(claimed, doubt=True, delay=15, kind="doubt")
    observe(store, *(report(number) for number in range(2, 1300)))
    for number in range(2, 1300):
        store.release(claim(store, number), state=DeliveryState.PENDING, delay=900, kind="misconfigured")
    store.pause(CONNECTOR, "misconfigured", 3600, "wrong board", probe_in=60)
    assert store.resume(CONNECTOR) == 1298
    assert store.paused(CONNECTOR) is None
    assert refused(store, 1) == "early"
    assert len(dispatch(store, 2000)) == 1298


def test_what_quiet_hours_held_back_counts_as_waiting_once_it_waits_for_something_else(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.release(claim(store, 1), delay=0, kind="quiet")
    assert store.waiting(CONNECTOR)[0] == 0
    store.release(claim(store, 1), delay=5, kind="unavailable")
    assert store.waiting(CONNECTOR)[0] == 1


def test_what_is_awaited_is_found_in_however_many_batches(store: IdempotencyStore) -> None:
    observe(store, *(report(number) for number in range(1, 252)))
    store.record(claim(store, 1), TicketRef("42"), told=1, todo=["status"])
    assert sorted(store.awaited(CONNECTOR, ["status"]), key=int) == list(range(2, 252))
    assert sorted(store.awaited(CONNECTOR, []), key=int) == list(range(1, 252))


@pytest.mark.parametrize("move", ["to a worker", "up in the order"])
def test_what_moves_while_it_is_looked_for_is_awaited_all_the_same(
    store: IdempotencyStore, monkeypatch: pytest.MonkeyPatch, move: str
) -> None:
    observe(store, *(report(number) for number in range(1, 252)))
    for number in range(1, 251):
        store.record(claim(store, number, 1000), TicketRef(str(number)), told=1, todo=["status"])
    due, ready = store.key(f"due:{CONNECTOR}"), store.key(f"ready:{CONNECTOR}")
    first = 251 if move == "to a worker" else 252
    for number in range(1, first):
        store.client.zrem(ready, str(number))
        store.client.zadd(due, {str(number): (store.now() + 600 + number) * 1000})
    read, looks, moved = store.client.zrange, 0, False

    def moving(key: str, *arguments: Any, **options: Any) -> Any:
        nonlocal looks, moved
        looks += 1
        if not moved and (key == ready if move == "to a worker" else looks == 3):
            moved = True
            if move == "to a worker":
                assert dispatch(store, 1000) == [251]
            else:
                store.client.zremrangebyrank(due, 0, 99)
        return read(key, *arguments, **options)

    monkeypatch.setattr(store.client, "zrange", moving)
    assert list(store.awaited(CONNECTOR, ["status"])) == [251]
    assert moved


def test_deliveries_are_listed_by_state(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2), report(3))
    store.record(claim(store, 1), TicketRef("42", "T42", "https://psa/42"), told=1)
    store.release(claim(store, 2), state=DeliveryState.REJECTED, reason="The board is closed")
    by_state = {delivery.report_id: delivery for delivery in store.deliveries()}
    assert {number: found.state for number, found in by_state.items()} == {
        1: DeliveryState.CREATED,
        2: DeliveryState.REJECTED,
        3: DeliveryState.PENDING,
    }
    assert by_state[1].ticket == TicketRef("42", "T42", "https://psa/42")
    assert by_state[2].reason == "The board is closed"
    assert [found.report_id for found in store.deliveries([DeliveryState.REJECTED])] == [2]
    assert store.count(DeliveryState.PENDING) == 1


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_a_misconfigured_connector_stays_so_whatever_rate_limits_say(store: IdempotencyStore) -> None:
    assert store.pause(CONNECTOR, "misconfigured", 3600, "wrong board", probe_in=60)
    assert not store.pause(CONNECTOR, "rate", 10, "too many requests")
    pause = store.paused(CONNECTOR)
    assert pause is not None
    assert (pause.kind, pause.reason) == ("misconfigured", "wrong board")
    assert pause.next_probe is not None
    assert 58 < pause.next_probe - store.now() <= 60


def test_probes_come_after_one_minute_doubling_to_fifteen(store: IdempotencyStore) -> None:
    store.pause(CONNECTOR, "misconfigured", 3600, "wrong board", probe_in=60)
    waits = []
    for _ in range(6):
        store.probe_failed(CONNECTOR, "still wrong", longest=900, pause=3600)
        pause = store.paused(CONNECTOR)
        assert pause is not None
        assert pause.next_probe is not None
        waits.append(round(pause.next_probe - store.now()))
    assert waits == [120, 240, 480, 900, 900, 900]


def test_a_wake_up_ends_the_dispatchers_wait(store: IdempotencyStore) -> None:
    store.client.delete(store.key("wake"))
    observe(store, report(1))
    began = time.monotonic()
    store.wait_for_wake(30)
    assert time.monotonic() - began < 5
