"""Reports that are listed as they were: nothing is done twice for them, and nothing that must happen is left out."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import bridge.poller
import bridge.unchanged
from bridge.demo.server import Received
from bridge.idempotency import snapshot_of
from bridge.models import IncidentReport, ReportKey
from bridge.parsing import parse_report
from bridge.poller import FEW
from bridge.routing import Routes
from bridge.unchanged import MOST, Unchanged, raw_digest
from tests.bridge.watch import MakeWatch
from tests.bridge.watched_huntress import WatchedHuntress

ROUTES = Routes({}, frozenset(), frozenset(), {})


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[ReportKey]:
    """Reports whose snapshots the poller rendered, in order."""
    keys: list[ReportKey] = []

    def counted(report: IncidentReport) -> tuple[str, str]:
        keys.append(report.key)
        return snapshot_of(report)

    monkeypatch.setattr(bridge.poller, "snapshot_of", counted)
    return keys


def test_only_what_changed_is_read_rendered_and_written(
    make_watch: MakeWatch, source: WatchedHuntress, rendered: list[ReportKey]
) -> None:
    source.add(*range(1, 41))
    watch = make_watch()
    watch.cycle()
    assert sorted(rendered, key=int) == list(range(1, 41))
    rendered.clear()
    assert watch.cycle().reports == 40
    assert rendered == []
    with source.lock:
        source.reports[7]["summary"] = "Seen again."  # `updated_at` stays as it was
    before = watch.store.delivery(7, "psa")
    assert watch.cycle().reports == 40
    assert rendered == [7]
    report, after = watch.store.report(7), watch.store.delivery(7, "psa")
    assert report is not None
    assert report.summary == "Seen again."
    assert before is not None
    assert after is not None
    assert after.updated_at >= before.updated_at


def test_a_report_that_is_unchanged_is_still_open(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    for _ in range(4):
        watch.cycle(600)
    assert watch.store.open_reports() == 3
    assert watch.missing() == set()
    source.end(2)
    watch.cycle()
    assert watch.over(1, 2, 3) == [2]


def test_a_report_that_is_opened_again_unchanged_is_open_again(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1)
    watch = make_watch()
    watch.cycle()
    listed = dict(source.reports[1])
    source.end(1)
    watch.cycle()
    assert watch.over(1) == [1]
    with source.lock:
        source.reports[1] = listed
    watch.cycle()
    assert watch.over(1) == []


def test_a_lost_store_gets_what_it_lacks(
    make_watch: MakeWatch, source: WatchedHuntress, rendered: list[ReportKey]
) -> None:
    source.add(1, 2)
    watch = make_watch()
    watch.cycle()
    watch.cycle()
    client, store = watch.store.client, watch.store
    client.delete(store.key("report:1"), store.key("delivery:2:psa"))
    rendered.clear()
    assert watch.cycle().new == ((2, "psa"),)
    assert sorted(rendered, key=int) == [1, 2]
    assert store.report(1) is not None


def test_what_a_process_of_another_version_wrote_is_written_again(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(1)
    watch = make_watch()
    watch.cycle()
    key = watch.store.key("report:1")
    ours = watch.store.client.hgetall(key)
    watch.store.client.hset(key, mapping={"digest": "by another rule", "snapshot": "{}"})
    watch.cycle()
    assert watch.store.client.hmget(key, ["digest", "snapshot"]) == [ours["digest"], ours["snapshot"]]


def test_new_routes_make_new_deliveries_of_what_is_unchanged(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1, 2)
    watch = make_watch("psa", "desk")
    settings = watch.runtime.settings
    only = {"psa": settings.connectors["psa"]}
    whole = watch.poller.routes
    watch.poller.routes = lambda: Routes(only, frozenset(), frozenset(), {})
    assert set(watch.cycle().new) == {(1, "psa"), (2, "psa")}
    watch.cycle()
    watch.poller.routes = whole
    assert set(watch.cycle().new) == {(1, "desk"), (2, "desk")}
    watch.poller.routes = lambda: Routes(settings.connectors, frozenset(), frozenset({1}), {})
    assert watch.cycle().new == ()
    assert watch.store.open_reports() == 2, "one that nobody takes any more is open all the same"


@pytest.mark.parametrize("reports", [2, 2 * FEW])
def test_what_nobody_takes_is_not_written(make_watch: MakeWatch, source: WatchedHuntress, reports: int) -> None:
    source.add(*range(1, reports + 1))
    watch = make_watch()
    settings = watch.runtime.settings.connectors
    without = Routes(settings, frozenset(), frozenset({source.reports[1]["organization_id"]}), {})
    watch.poller.routes = lambda: without
    taken = {key for key, _ in watch.cycle().new}
    assert taken == {key for key, raw in source.reports.items() if without.serves(raw["organization_id"])}
    assert 0 < watch.store.open_reports() == len(taken) < reports
    assert not watch.store.client.exists(watch.store.key("report:1"))


@pytest.mark.parametrize("reports", [2, 2 * FEW])
def test_what_nobody_takes_any_more_keeps_what_is_known(
    make_watch: MakeWatch, source: WatchedHuntress, reports: int
) -> None:
    source.add(*range(1, reports + 1))
    watch = make_watch()
    watch.cycle()
    key = watch.store.key("report:1")
    before = watch.store.client.hgetall(key)
    settings = watch.runtime.settings.connectors
    without = Routes(settings, frozenset(), frozenset({source.reports[1]["organization_id"]}), {})
    watch.poller.routes = lambda: without
    with source.lock:
        source.reports[1]["summary"] = "Seen again."
    watch.cycle()
    assert watch.store.client.hgetall(key) == before
    assert watch.store.open_reports() == reports


@pytest.mark.parametrize("reports", [2, 2 * FEW])
def test_what_lost_its_place_is_due_again_after_a_restart(
    make_watch: MakeWatch, source: WatchedHuntress, reports: int
) -> None:
    source.add(*range(1, reports + 1))
    store = make_watch().store
    make_watch().cycle()
    for schedule in ("due:psa", "ready:psa"):
        store.client.delete(store.key(schedule))
    assert make_watch().cycle().new == ()
    assert store.scheduled("psa") == reports


def test_what_is_no_longer_shown_is_forgotten(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(*range(1, 11))
    watch = make_watch()
    watch.cycle()
    assert len(watch.poller.unchanged) == 10
    with source.lock:
        for number in range(2, 11):
            del source.reports[number]
    watch.cycle()
    assert len(watch.poller.unchanged) == 1


def test_what_is_remembered_has_an_end() -> None:
    unchanged = Unchanged()
    unchanged.hold_for(ROUTES, 5)
    for cycle in range(3):
        for number in range(MOST):
            unchanged.remember(cycle * MOST + number, b"", "", ())
        unchanged.remember(-1, b"", "", ())
        unchanged.turn(complete=False)
        assert len(unchanged) == MOST


def test_what_is_remembered_has_an_end_also_where_all_of_it_is_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.unchanged, "MOST", 10)
    unchanged = Unchanged()
    unchanged.hold_for(ROUTES, 5)
    for cycle in range(3):
        for number in range(10):  # those that are new are listed first
            unchanged.remember(cycle * 10 + number, b"", "", ())
        for number in range(cycle * 10):
            with contextlib.suppress(KeyError):  # it was forgotten
                unchanged.keep(number)
        unchanged.turn(complete=True)
        assert len(unchanged) == 10


def test_an_item_nested_too_deeply_to_be_compared_is_read_anew() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    raw, unchanged = {"id": 1, "more": deep}, Unchanged()
    unchanged.hold_for(ROUTES, 5)
    unchanged.remember(1, raw_digest(raw, None), "digest", ("psa",))
    assert unchanged.find(raw, None) is None


def test_what_follows_from_the_account_or_the_routes_holds_for_no_other() -> None:
    unchanged = Unchanged()
    raw = {"id": 1, "subject": "x"}
    unchanged.hold_for(ROUTES, 5)
    unchanged.remember(1, raw_digest(raw, None), "digest", ("psa",))
    unchanged.hold_for(Routes({}, frozenset(), frozenset(), {}), 5)
    assert unchanged.find(raw, None) == 1, "equal routes"
    assert unchanged.find(raw, 3) is None, "listed of an organization"
    assert unchanged.find(raw | {"new": None}, None) is None
    assert unchanged.find({"id": "one"}, None) is None
    unchanged.hold_for(ROUTES, 6)
    assert unchanged.find(raw, None) is None
    unchanged.remember(1, raw_digest(raw, None), "digest", ("psa",))
    unchanged.hold_for(Routes({}, frozenset({1}), frozenset(), {}), 6)
    assert unchanged.find(raw, None) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"id": 1}, {"id": True}),
        ({"id": 1}, {"id": 1.0}),
        ({"id": 1}, {"id": "1"}),
        ({"a": [1, 2]}, {"a": [[1], 2]}),
        ({"a": None}, {"a": "None"}),
        ({"a": "b"}, {"a": "b", "b": None}),
        ({"a": "\ud800"}, {"a": "\ud801"}),
    ],
)
def test_any_difference_is_a_change(one: Any, other: Any) -> None:
    assert raw_digest(one, None) != raw_digest(other, None)
    assert raw_digest(one, None) == raw_digest(dict(one), None)


def test_equal_texts_make_equal_digests_whoever_else_holds_them() -> None:
    raw = {"id": 1, "subject": "ab" * 20, "body": "ab" * 20}
    shared = "ab" * 20
    assert raw_digest(raw, None) == raw_digest({"id": 1, "subject": shared, "body": "".join(["ab"] * 20)}, None)


def test_of_two_copies_of_a_report_the_first_counts(
    make_watch: MakeWatch, source: WatchedHuntress, rendered: list[ReportKey]
) -> None:
    """As while it moves from one status to the other between the two listings."""
    source.add(1, 2)
    both = dict(source.reports[1])
    source.reports[99] = both | {"status": "auto_remediating", "summary": "other"}
    watch = make_watch()
    assert watch.cycle().reports == 2
    report = watch.store.report(1)
    assert report is not None
    assert report == parse_report(both)
    rendered.clear()
    watch.cycle()
    assert rendered == []


def test_what_is_new_on_a_page_does_not_wait_for_the_next(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.page_size_cap = 2
    source.add(1, 2, 3, 4)
    watch = make_watch()
    found: list[int] = []

    def arrived(request: Received) -> None:
        if request.path.endswith("/incident_reports") and "page_token" in request.query:
            found.append(len(list(watch.store.deliveries())))

    source.trouble = arrived
    watch.cycle()
    assert found[0] == 2


@pytest.mark.parametrize(
    ("fields", "scheduled"),
    [
        ({}, True),
        ({"state": "creating"}, True),
        ({"state": "created", "told": "1"}, False),
        ({"state": "closed", "told": "0", "considered": "1"}, False),
        ({"state": "created", "told": "0"}, True),
        ({"state": "created", "told": "1", "todo": '["verify"]'}, True),
        ({"state": "created", "told": "1", "plan": "note"}, True),
        ({"state": "closed", "told": "1", "ended_at": "5"}, True),
        ({"state": "rejected"}, False),
        ({"state": "held"}, False),
    ],
)
def test_what_has_something_to_do_is_scheduled_again(
    make_watch: MakeWatch, source: WatchedHuntress, fields: dict[str, str], scheduled: bool
) -> None:
    source.add(1)
    watch = make_watch()
    watch.cycle()
    client, key = watch.store.client, watch.store.key
    if fields:
        client.hset(key("delivery:1:psa"), items=[word for pair in fields.items() for word in pair])
    client.delete(key("ready:psa"), key("due:psa"))
    watch.cycle()
    assert (client.zscore(key("ready:psa"), "1") is not None) is scheduled


def test_a_delivery_that_waits_is_among_those_that_wait(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1)
    watch = make_watch()
    watch.cycle()
    client, key = watch.store.client, watch.store.key("waiting:psa")
    client.delete(key)
    watch.cycle()
    assert client.zscore(key, "1") is not None
