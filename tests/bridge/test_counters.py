"""What is counted, on a real Redis: exact, also when a script runs twice or a process goes away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from bridge.broker import quick_client
from bridge.counters import BUCKETS, COUNTED_SEVERITIES, Counters, Histogram
from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState, TicketRef
from bridge.request_counts import RequestCounts
from bridge.scripts import script_text
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.bridge.test_following import ended, opened
from tests.bridge.test_idempotency import CONNECTOR, claim, client, observe, report, store
from tests.conftest import RedisServer
from tests.psa import Psa

__all__ = ["client", "store"]  # fixtures

TICKET = TicketRef("77", "T77", "")


def outcomes(stage: Stage, psa: Psa) -> dict[str, int]:
    return {what: n for (name, what), n in Counters(stage.store).totals().deliveries.items() if name == psa.name}


# -- deliveries and reports --------------------------------------------------------------------------------------------


def test_each_outcome_is_counted_once(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.work(130)
    ended(stage)
    stage.work()
    assert outcomes(stage, psa) == {"created": 1, "noted": 1, "closed": 1}
    psa.add_ticket(2)
    psa.fault_create("status", 3, status=400, body={"message": "no", "errors": ["no"]})
    stage.report(2, 3, 4)
    stage.work()
    stage.store.retry(3, psa.name)
    stage.work()
    stage.store.handle(4, psa.name, "done")
    assert outcomes(stage, psa) == {"created": 3, "noted": 1, "closed": 1, "found": 1, "rejected": 1, "retried": 1}
    assert len(psa.state.tickets) == 4  # created and found
    assert Counters(stage.store).totals().requests == {}, "nothing was flushed yet"
    stage.runtime.requests.flush()
    requests = Counters(stage.store).totals().requests
    assert sum(n for (system, _), n in requests.items() if system == f"connector:{psa.name}") == len(psa.received())
    assert requests[f"connector:{psa.name}", "400"] == 1


def test_a_create_in_doubt_that_is_found_counts_as_found_and_is_timed(stage: Stage, psa: Psa) -> None:
    psa.fault_create("commit_drop")
    stage.report(1)
    stage.work()
    stage.work(6)
    assert outcomes(stage, psa) == {"found": 1}
    assert Counters(stage.store).totals().since_seen[psa.name].count == 1


@pytest.mark.parametrize("script", ["record", "release", "tell", "handle"])
def test_a_script_that_runs_twice_counts_once(store: IdempotencyStore, script: str) -> None:
    """redis-py repeats a command whose reply was lost."""
    observe(store, report(1))
    owner = claim(store, 1)
    if script == "tell":
        store.record(owner, TICKET, keep=True)
    if script == "handle":
        store.release(owner, state=DeliveryState.REJECTED, reason="no")
    steps: dict[str, Callable[[], object]] = {
        "record": lambda: store.record(owner, TICKET),
        "release": lambda: store.release(owner, state=DeliveryState.HELD, reason="no"),
        "tell": lambda: store.tell(owner, state=DeliveryState.CLOSED, ended=True),
        "handle": lambda: store.handle(1, CONNECTOR, "done"),
    }
    counted = {"record": "created", "release": "held", "tell": "closed", "handle": "handled"}[script]
    for _ in range(2):
        steps[script]()
    totals = Counters(store).totals()
    assert totals.deliveries[CONNECTOR, counted] == 1
    if script == "record":
        assert totals.since_seen[CONNECTOR].count == 1


def test_a_refusal_that_came_too_late_is_no_outcome(store: IdempotencyStore) -> None:
    """Somebody recorded the ticket meanwhile, and that stands."""
    observe(store, report(1))
    late = claim(store, 1)
    store.clock_offset += 20
    owner = claim(store, 1)
    store.record(late, TICKET)
    store.release(owner, state=DeliveryState.REJECTED, reason="no")
    assert Counters(store).totals().deliveries == {(CONNECTOR, "created"): 1}
    assert "rejected" in [each.what for each in store.history(1, CONNECTOR)]


def test_reports_are_counted_once_by_severity_and_day(store: IdempotencyStore) -> None:
    both = (CONNECTOR, "desk")
    observe(store, report(1, "critical"), report(2), connectors=both)
    observe(store, report(1, "low"), connectors=both)
    store.clock_offset += 86400
    observe(store, report(3, "dire:\n" * 9), connectors=both)
    store.observe(int(store.script("lead", "poller", "a", 6000)), [(report(4, status="closed"), [])])
    counters = Counters(store)
    assert counters.totals().reports == {"critical": 1, "low": 1, "other": 1}
    today = datetime.fromtimestamp(store.now(), UTC).date()
    none = dict.fromkeys(COUNTED_SEVERITIES, 0)
    assert counters.reports_per_day(3) == {
        today - timedelta(days=2): none,
        today - timedelta(days=1): none | {"critical": 1, "low": 1},
        today: none | {"other": 1},
    }
    assert list(counters.reports_per_day(3)) == sorted(counters.reports_per_day(3))
    left = store.client.ttl(store.key(f"day:{int(store.now() // 86400)}"))
    assert 399 * 86400 < left <= 400 * 86400


# -- times -------------------------------------------------------------------------------------------------------------


def test_times_are_taken_from_sent_and_from_seen(store: IdempotencyStore) -> None:
    sent = datetime.fromtimestamp(store.now() - 40, UTC)
    observe(store, report(1, sent_at=sent), report(2), report(3, sent_at=sent + timedelta(hours=1)))
    store.clock_offset += 8
    for number in (1, 2, 3):
        store.record(claim(store, number), TicketRef(str(number)))
    counters = Counters(store)
    totals = counters.totals()
    sent_times, seen_times = totals.since_sent[CONNECTOR], totals.since_seen[CONNECTOR]
    assert sent_times.counts[BUCKETS.index(60)] == 1
    assert sent_times.counts[0] == 1, "a source whose clock is ahead"
    assert sent_times.count == 2
    assert sent_times.sum == pytest.approx(48, abs=3)
    assert seen_times.counts[BUCKETS.index(10)] == 3
    [(_, today)] = counters.delivery_times(1).items()
    assert today.counts == sent_times.counts
    assert counters.delivery_times(1, "seen").popitem()[1].count == 3


def test_what_was_found_or_made_anew_is_not_timed(stage: Stage, psa: Psa) -> None:
    psa.add_ticket(1)
    stage.report(1)
    stage.work()
    assert Counters(stage.store).totals().since_seen == {}


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.5),
        ({0: 10}, 1.0, 1.0),
        ({1: 1}, 0.5, 1.5),
        ({0: 1, 3: 1}, 0.95, 9.5),
        ({5: 19, 8: 1}, 0.5, pytest.approx(22.5)),
        ({len(BUCKETS): 1}, 0.5, 86400.0),
        ({0: 1, len(BUCKETS): 9}, 0.95, 86400.0),
    ],
)
def test_quantiles(counts: dict[int, int], share: float, seconds: float | None) -> None:
    histogram = Histogram(tuple(counts.get(number, 0) for number in range(len(BUCKETS) + 1)))
    if counts == {5: 19, 8: 1}:
        share = 0.475
    assert histogram.quantile(share) == seconds


def test_the_scripts_have_the_same_buckets() -> None:
    listed = script_text("seen").partition("BUCKETS = {")[2].partition("}")[0]
    assert [int(bound) / 1000 for bound in listed.split(",")] == list(BUCKETS)


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_added_once_also_when_its_answer_was_lost(store: IdempotencyStore) -> None:
    counts = RequestCounts(store)
    answered = counts.counter("connector:psa")
    for status in ("200", "200", "none"):
        answered(status)
    counts.flush()
    counts._batch = {"connector:psa:200": 2, "connector:psa:none": 1}  # as if the reply had not come
    answered("200")
    counts.flush()
    expected = {("connector:psa", "200"): 3, ("connector:psa", "none"): 1}
    assert Counters(store).totals().requests == expected
    another = RequestCounts(store)
    another.counter("source")("429")
    another.flush()
    another.flush()
    assert Counters(store).totals().requests == expected | {("source", "429"): 1}


def test_what_was_counted_while_redis_was_away_is_added_later(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server("--appendonly", "yes")
    store = IdempotencyStore(quick_client(server.url))
    counts = RequestCounts(store)
    answered = counts.counter("source")
    answered("200")
    counts.flush()
    server.kill()
    for _ in range(3):
        answered("200")
        counts.flush()
    server.start()
    counts.flush()
    assert Counters(store).totals().requests == {("source", "200"): 4}


def test_mails_are_counted_by_how_they_end(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall", recipients=["one@example.com", "two@example.com"])
    systems.mailbox.fault("greylist", recipient="two@example.com", times=1)
    stage.report(1)
    stage.work()
    stage.wait(60)
    stage.runtime.requests.flush()
    counted = Counters(stage.store).totals().requests
    assert counted["connector:oncall", "250"] == len(systems.mailbox.messages)
    assert counted["connector:oncall", "451"] == 1
    assert {status for system, status in counted if system != "source"} == {"250", "451"}
