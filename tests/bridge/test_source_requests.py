"""How many requests the poller sends to the source, and when."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import pytest

from bridge.demo import scenario
from bridge.demo.server import Received
from bridge.huntress import BudgetExhausted, SourceUnavailable
from bridge.poller import NAMES_EVERY, ORGANIZATIONS_EVERY, PATIENCE
from tests.benchmarks.poll_source import PAGE, Source
from tests.bridge.watch import MakeWatch, Watch
from tests.bridge.watched_huntress import WatchedHuntress

#: The default share, requests a minute.
SHARE = 30
#: A page of this many items stands for the vendor's 500, so that twenty pages are made quickly.
SMALL_PAGE = 50


def crowd(source: WatchedHuntress, organizations: int, reports: int) -> None:
    source.page_size_cap = SMALL_PAGE
    with source.lock:
        source.organizations.update({raw["id"]: raw for raw in scenario.organizations(organizations)})
    for number in range(1, reports + 1):
        source.add_report(id=number, organization_id=number % organizations + 1)


def asked(source: WatchedHuntress) -> Counter[str]:
    """Requests since the last time, by the last part of their path."""
    found = Counter(request.path.rsplit("/", 1)[1] for request in source.received)
    source.received.clear()
    return found


def test_a_cycle_asks_for_the_pages_of_open_reports_and_for_nothing_else(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    crowd(source, 20 * SMALL_PAGE, 4 * SMALL_PAGE)
    watch = make_watch()
    watch.cycle()
    asked(source)
    for _ in range(3):
        watch.cycle()
        assert asked(source) == {"incident_reports": 5}


def test_the_organizations_are_read_once_an_hour_a_few_pages_at_a_time(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    crowd(source, 20 * SMALL_PAGE, 3)
    watch = make_watch()
    watch.cycle()
    assert asked(source)["organizations"] == 20
    with source.lock:
        source.organizations[9999] = scenario.organization(9999)
    watch.cycle(NAMES_EVERY - 60)
    assert asked(source)["organizations"] == 0
    watch.cycle(61)
    pages = [asked(source)["organizations"]]
    while 9999 not in watch.runtime.books.organization_ids():
        watch.cycle()
        pages.append(asked(source)["organizations"])
        assert len(pages) < 15
    assert sum(pages) == 21
    assert max(pages) == 2
    watch.cycle()
    assert asked(source)["organizations"] == 0


def test_reports_are_listed_before_the_organizations(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1)
    watch = make_watch()
    watch.cycle()
    source.received.clear()
    watch.cycle(NAMES_EVERY + 1)
    paths = [request.path.rsplit("/", 1)[1] for request in source.received]
    assert paths == ["incident_reports", "incident_reports", "organizations"]


def test_an_organizations_list_that_breaks_off_leaves_the_stored_one(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    crowd(source, 3 * SMALL_PAGE, 1)
    watch = make_watch()
    watch.cycle()
    known = watch.runtime.books.organization_ids()
    with source.lock:
        del source.organizations[1]
    watch.cycle(NAMES_EVERY + 1)
    source.fault("status", path="/organizations$")
    watch.cycle()
    assert watch.runtime.books.organization_ids() == known, "two of its three pages are no list"
    watch.cycle()
    assert watch.runtime.books.organization_ids() == known, "it is read from its beginning"
    watch.cycle()
    assert watch.runtime.books.organization_ids() == known - {1}


def test_a_list_that_another_process_read_meanwhile_is_not_replaced_by_an_older_one(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    crowd(source, 5 * SMALL_PAGE, 1)
    watch = make_watch()
    watch.cycle()
    watch.cycle(NAMES_EVERY + 1)
    with source.lock:
        source.organizations = {id: raw | {"name": "Renamed"} for id, raw in source.organizations.items()}
    books = watch.runtime.books
    books.save_organizations(list(watch.source.organizations()))  # that process leads, and ends hours later
    for seconds in (NAMES_EVERY - 100, 15, 15, 200, 15, 15, 15):
        watch.cycle(seconds)
        assert {organization.name for organization in books.organizations().values()} == {"Renamed"}


def test_a_new_organization_is_listed_in_the_middle_of_a_long_cycle(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    with source.lock:
        source.organizations.update({raw["id"]: raw for raw in scenario.organizations(100)})
    watch = make_watch(poll={"scope": "organization"})
    listed: list[int] = []

    def arrived(request: Received) -> None:
        if "organization_id" in request.query and request.query["status"] == "sent":
            listed.append(int(request.query["organization_id"]))
            watch.store.clock_offset += 10
            watch.polling.attempt()
            if len(listed) == 5:
                with source.lock:
                    source.organizations[500] = scenario.organization(500)

    source.trouble = arrived
    watch.cycle()
    assert sorted(listed) == [*range(1, 101), 500]
    assert listed.index(500) < 2 * ORGANIZATIONS_EVERY / 10 + 5
    assert set(watch.runtime.books.listed_at()) == {*range(1, 101), 500}


def test_a_poller_goes_on_leading_while_a_slow_source_gives_page_after_page(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    """As with 50,000 open reports: a hundred pages, at two seconds each."""
    crowd(source, 3, 20 * SMALL_PAGE)
    watch = make_watch()
    watch.polling.patience, watch.polling.clock = PATIENCE, watch.store.now
    watch.polling.alive()

    def arrived(request: Received) -> None:
        watch.store.clock_offset += 20
        watch.polling.attempt()  # as its thread does

    source.trouble = arrived
    result = watch.cycle()
    assert result.complete
    assert result.reports == 20 * SMALL_PAGE


def busiest_minute(at: list[float]) -> int:
    """The most requests in 60 s. A tenth less: what two requests differ in on their way is not the budget's."""
    return max(sum(first <= other < first + 59.9 for other in at[i : i + 200]) for i, first in enumerate(at))


@pytest.mark.parametrize("interval", [2, 10, 15])
def test_the_share_is_kept_whatever_else_is_asked_for(
    make_watch: MakeWatch, source: WatchedHuntress, interval: float
) -> None:
    """Webhooks may ask for a poll every ten seconds; details, ends and commands are asked for as well."""
    crowd(source, 20 * SMALL_PAGE, 4 * SMALL_PAGE)
    watch = make_watch(
        huntress=source.settings(requests_per_minute=SHARE), sources={"escalations": True, "platform_actions": True}
    )
    at: list[float] = []
    source.trouble = lambda request: at.append(watch.store.now())
    began = watch.store.now()
    for turn in range(100):
        watch.cycle(NAMES_EVERY if turn == 50 else interval)
        details(watch)
        if turn % 10 == 0:
            source.end(turn + 1)
            source.end(turn + 2)
    assert busiest_minute(at) <= SHARE
    assert len(at) > 5 * 100
    assert watch.store.now() > began


def details(watch: Watch) -> None:
    """What workers and commands ask for, as far as there is room."""
    with contextlib.suppress(BudgetExhausted):
        for number in range(1, 20):
            with contextlib.suppress(SourceUnavailable):
                watch.source.organization(number, wait=0)


def test_the_source_is_asked_over_one_connection(make_watch: MakeWatch) -> None:
    server = Source(PAGE + 100)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        table = {
            "base_url": f"http://127.0.0.1:{server.server_port}/v1",
            "api_key": "hk_key",
            "api_secret": "hs_secret",
        }
        watch = make_watch(huntress=table | {"requests_per_minute": 6000})
        for _ in range(5):
            assert watch.cycle().reports == PAGE + 100
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.asked["incident_reports"] >= 15
    assert server.connections == 1
