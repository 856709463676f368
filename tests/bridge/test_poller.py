"""One poll after another against the pretend Huntress, on a real store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.arrivals import Arrivals
from bridge.bookkeeping import Bookkeeping
from bridge.broker import store_client
from bridge.budget import RedisBudget
from bridge.demo import scenario
from bridge.demo.huntress import PretendHuntress
from bridge.demo.run import toml
from bridge.demo.server import Received, Reply
from bridge.huntress import HuntressClient
from bridge.idempotency import Deposed, IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import DeliveryState, IncidentReport, ReportKey
from bridge.poller import Cycle, Poller
from bridge.runtime import make_routes, make_source
from bridge.settings import Settings, load
from tests.bridge.round_trips import round_trips

MAIL = {
    "type": "email",
    "host": "127.0.0.1",
    "port": 2525,
    "security": "none",
    "sender": "bridge@example.com",
    "recipients": ["oncall@example.com"],
}


class Source(PretendHuntress):
    """Fails for requests that a test picks."""

    failing: Callable[[Received], bool] = staticmethod(lambda request: False)

    def answer(self, request: Received) -> Reply:
        return Reply(500, {"message": "try later"}) if self.failing(request) else super().answer(request)

    def listed(self) -> list[int]:
        """Organizations whose reports were asked for, in order, each once."""
        asked = [int(r.query["organization_id"]) for r in self.requests_to("reports$") if "organization_id" in r.query]
        return list(dict.fromkeys(asked))


class Skipping(threading.Event):
    """Instead of waiting, moves the store's clock on; set for good once `seconds` were waited."""

    def __init__(self, store: IdempotencyStore, seconds: float = float("inf")) -> None:
        super().__init__()
        self.store = store
        self.seconds = seconds
        self.waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        self.store.clock_offset += timeout or 0.0
        if self.waited >= self.seconds:
            self.set()
        return self.is_set()


class Process:
    """A poller with everything it needs, as a process of its own would have it."""

    def __init__(self, client: redis.Redis, folder: Path, source: Source, tables: dict[str, Any]) -> None:
        config = folder / "bridge.toml"
        config.write_text(toml({"huntress": source.settings(), "connectors": {"oncall": MAIL}} | tables), "utf-8")
        config.chmod(0o600)
        self.settings: Settings = load(config, environ={})
        self.store = IdempotencyStore(client, settle=60)
        self.store.open()
        self.books = Bookkeeping(self.store)
        self.stopping = Skipping(self.store)
        budget = RedisBudget(self.store, self.settings.huntress.requests_per_minute, stopping=self.stopping)
        self.client: HuntressClient = make_source(self.settings, budget)
        self.leadership = Leadership(self.store, "poller", patience=1e9)
        self.poller = Poller(
            self.store,
            self.books,
            lambda: self.client,
            lambda: self.settings,
            lambda: make_routes(self.settings, self.store),
            self.leadership,
        )

    def cycle(self) -> Cycle:
        assert self.leadership.attempt()
        return self.poller.cycle(self.stopping)

    def tickets(self) -> set[ReportKey]:
        """Reports that are to be delivered."""
        return {delivery.report_id for delivery in self.store.deliveries()}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def source() -> Iterator[Source]:
    with Source(organizations=3) as source:
        yield source


@pytest.fixture
def make(client: redis.Redis, source: Source, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def make(**tables: Any) -> Process:
        client.delete("bridge:leader:poller")
        processes.append(Process(client, tmp_path, source, tables))
        return processes[-1]

    yield make
    for process in processes:
        process.client.close()


def add(source: Source, *numbers: int, **fields: Any) -> None:
    for number in numbers:
        source.add_report(**{"id": number, "organization_id": (number - 1) % 3 + 1} | fields)


# -- one account -------------------------------------------------------------------------------------------------------


def test_one_listing_per_status_covers_every_organization(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2, 3)
    add(source, 4, status="auto_remediating")
    add(source, 5, status="closed")
    process = make()
    first = process.cycle()
    assert first == Cycle(complete=True, reports=4, new=first.new)
    assert set(first.new) == {(number, "oncall") for number in (1, 2, 3, 4)}
    assert process.cycle() == Cycle(complete=True, reports=4)
    listings = source.requests_to("/incident_reports$")
    statuses = [request.query.get("status") for request in listings]
    both = ["sent", "auto_remediating"]
    assert statuses == [None, *both, None, *both], "the dialect, each status, once what ended lately, each status"
    assert not any("organization_id" in request.query for request in listings)
    delivery = process.store.delivery(2, "oncall")
    assert delivery is not None
    assert (delivery.organization_id, delivery.reference) == (2, "huntress-5-2")
    poll = process.books.poll()
    assert (poll.dialect, poll.scope, poll.error) == ("incident_reports", "account", "")
    assert poll.last_complete_at is not None


def test_a_page_that_fails_ends_nothing(make: Callable[..., Process], source: Source) -> None:
    source.page_size_cap = 1
    add(source, 1, 2, 3)
    process = make()
    assert process.cycle().complete
    complete_at = process.books.poll().last_complete_at
    source.close_report(2)
    source.failing = lambda request: "page_token" in request.query
    process.store.clock_offset += 60
    cycle = process.cycle()
    assert not cycle.complete
    assert "500" in cycle.problem
    assert process.store.open_reports() == 3, "what a broken listing does not show may still be open"
    poll = process.books.poll()
    assert poll.last_complete_at == complete_at
    assert "try later" in poll.error
    add(source, 4)
    assert not process.cycle().complete
    assert process.tickets() == {1, 2, 3, 4}, "what a listing shows before it breaks off is open"
    source.failing = lambda request: False
    process.store.clock_offset += 60
    assert process.cycle().complete
    assert process.store.open_reports() == 3
    assert process.books.poll().error == ""
    assert process.tickets() == {1, 2, 3, 4}, "what is over keeps its delivery"


def test_a_change_at_the_source_is_a_new_version(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, severity="low")
    process = make()
    process.cycle()
    source.reports[1] |= {"severity": "critical"}
    assert process.cycle().new == ()
    report = process.store.report(1)
    assert report is not None
    assert report.severity == "critical"


def test_a_report_is_ticketed_once_it_was_sent(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2)
    source.reports[1]["sent_at"] = None
    process = make()
    process.cycle()
    assert process.tickets() == {2}
    source.reports[1]["sent_at"] = "2026-03-02T08:15:42Z"
    assert process.cycle().new == ((1, "oncall"),)


def test_what_cannot_be_parsed_is_kept_apart_until_it_can(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2)
    good = dict(source.reports[2])
    source.reports[2] = {"status": "sent", "subject": "no id", "sent_at": "2026-03-02T08:15:42Z"}
    source.reports[3] = ["a", "list"]
    process = make()
    cycle = process.cycle()
    assert (cycle.complete, cycle.reports, cycle.quarantined) == (True, 1, 2)
    assert process.tickets() == {1}
    shown = {entry.raw: entry.reason for entry in process.books.quarantined()}
    assert len(shown) == 2
    assert any("no id" in raw for raw in shown)
    assert all(shown.values())
    process.cycle()
    assert len(process.books.quarantined()) == 2, "the same ones, once"
    source.reports[2] = good
    del source.reports[3]
    assert process.cycle().new == ((2, "oncall"),)
    assert process.books.quarantined() == []


def test_a_broken_listing_frees_nothing_from_quarantine(make: Callable[..., Process], source: Source) -> None:
    source.reports[3] = ["a", "list"]
    process = make()
    process.cycle()
    source.failing = lambda request: request.path.endswith("/incident_reports")
    process.cycle()
    assert len(process.books.quarantined()) == 1


# -- one organization at a time ----------------------------------------------------------------------------------------

BY_ORGANIZATION = {"poll": {"scope": "organization"}}


def test_a_new_organization_is_listed_within_minutes(make: Callable[..., Process], source: Source) -> None:
    process = make(**BY_ORGANIZATION)
    process.cycle()
    source.organizations[9] = scenario.organization(9)
    source.add_report(id=9, organization_id=9)
    process.store.clock_offset += 301
    assert process.cycle().new == ((9, "oncall"),)


def test_each_organization_is_listed(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2, 3)
    process = make(**BY_ORGANIZATION, organizations={"disabled": [2]})
    assert process.cycle().complete
    assert process.tickets() == {1, 3}
    assert sorted(source.listed()) == [1, 3]
    assert set(process.books.listed_at()) == {1, 3}


def test_under_a_small_budget_the_organization_listed_longest_ago_comes_first(
    make: Callable[..., Process], source: Source
) -> None:
    source.organizations.update({raw["id"]: raw for raw in scenario.organizations(8)})
    huntress = source.settings(requests_per_minute=4, dialect="incident_reports")
    process = make(**BY_ORGANIZATION, huntress=huntress)
    # Account and organizations take the first minute's half, each organization two listings: stop in the second minute.
    process.stopping.seconds = 100
    cycle = process.cycle()
    assert not cycle.complete
    listed_at = process.books.listed_at()
    first = sorted(listed_at, key=lambda organization: listed_at[organization])
    assert 0 < len(first) < 8
    assert process.books.poll().last_complete_at is None
    assert process.books.poll().expected_cycle_seconds == 16 * 60 / 4
    source.received.clear()
    process.stopping.clear()
    process.stopping.seconds = float("inf")
    waited = process.stopping.waited
    assert process.cycle().complete
    assert set(source.listed()[: 8 - len(first)]) == set(range(1, 9)) - set(first), "those never listed first"
    assert source.listed()[8 - len(first) :] == first
    assert 180 <= process.stopping.waited - waited <= 300, "sixteen requests at four a minute"
    assert (process.books.poll().cycle_seconds or 0) >= 180


def test_an_organization_that_cannot_be_listed_stops_no_other(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2, 3)
    process = make(**BY_ORGANIZATION)
    source.failing = lambda request: request.query.get("organization_id") == "1"
    cycle = process.cycle()
    assert not cycle.complete
    assert cycle.problem.startswith("organization 1: ")
    assert process.tickets() == {2, 3}
    assert set(process.books.listed_at()) == {2, 3}
    source.failing = lambda request: False
    source.received.clear()
    assert process.cycle().complete
    assert source.listed()[0] == 1, "the one that failed comes first"
    assert process.tickets() == {1, 2, 3}


def test_credentials_refused_in_mid_cycle_end_it(make: Callable[..., Process], source: Source) -> None:
    add(source, 1, 2, 3)
    process = make(**BY_ORGANIZATION)
    process.cycle()
    source.received.clear()
    source.credentials = ("hk_other", "hs_other")
    cycle = process.cycle()
    assert not cycle.complete
    assert "api_key" in cycle.problem
    assert len(source.listed()) == 1, "the others would be refused as well"


# -- whose account -----------------------------------------------------------------------------------------------------


def test_another_accounts_key_is_refused_with_a_sentence(make: Callable[..., Process], source: Source) -> None:
    add(source, 1)
    make().cycle()
    source.account["id"] = 9
    source.reports.clear()
    add(source, 2)
    process = make()
    cycle = process.cycle()
    assert cycle.refused
    assert not cycle.complete
    assert "account 9" in cycle.problem
    assert "account 5" in cycle.problem
    assert "namespace" in cycle.problem
    assert process.tickets() == {1}
    assert process.store.open_reports() == 1
    assert process.books.poll().error == cycle.problem


def test_after_a_change_of_settings_the_account_is_asked_for_again(
    make: Callable[..., Process], source: Source
) -> None:
    process = make()
    assert process.cycle().complete
    source.account["id"] = 9
    assert process.cycle().complete, "asked for once a process"
    process.poller.forget_account()
    assert process.cycle().refused


def test_an_account_without_an_id_is_not_polled(make: Callable[..., Process], source: Source) -> None:
    add(source, 1)
    source.account = {"name": "nobody"}
    process = make()
    cycle = process.cycle()
    assert not cycle.complete
    assert not process.tickets()


def test_wrong_credentials_are_refused(make: Callable[..., Process], source: Source) -> None:
    process = make(huntress=source.settings(api_secret="wrong"))
    cycle = process.cycle()
    assert cycle.refused
    assert "wrong" not in cycle.problem


def test_a_poll_that_finds_nothing_new_asks_the_store_no_more_than_it_has_to(
    make: Callable[..., Process], source: Source
) -> None:
    process = make()
    add(source, *range(1, 20))
    process.cycle()
    process.cycle()
    with round_trips(process.store.client) as sent:
        assert process.poller.cycle(process.stopping).complete
    assert len(sent) == 12, "two of them for the source's budget"


def test_a_poll_that_an_event_asks_for_is_looked_for_only_when_it_may_come(
    make: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = make()
    began = process.store.now()
    looks: list[float] = []
    monkeypatch.setattr(Arrivals, "polling_wanted", lambda _: looks.append(process.store.now() - began))
    process.poller._rest(process.stopping, began)
    assert [round(at) for at in looks] == [10, 12, 14, 15]


# -- which dialect -----------------------------------------------------------------------------------------------------


def test_the_dialect_is_undecided_while_nothing_tells_and_kept_once_it_is(
    make: Callable[..., Process], source: Source
) -> None:
    source.dialect, source.pagination = "reports", "total_pages"
    process = make()
    assert process.cycle() == Cycle(complete=True)
    assert process.store.recall("dialect") == ""
    assert process.books.poll().dialect == "reports"
    source.add_report(id=1, organization_id=2)
    cycle = process.cycle()
    assert cycle.new == ((1, "oncall"),)
    assert process.store.recall("dialect") == "reports"
    report = process.store.report(1)
    assert report is not None
    assert (report.organization_id, report.account_id) == (2, 5)
    source.received.clear()
    other = make()
    assert other.cycle().complete
    assert not source.requests_to("/incident_reports"), "kept, also for the next process"


def test_summaries_are_never_tickets(make: Callable[..., Process], source: Source) -> None:
    source.dialect, source.pagination = "reports", "total_pages"
    source.reports[1] = {
        "id": 1,
        "organization_id": 1,
        "type": "monthly_summary",
        "period": "2026-02",
        "status": "open",
    }
    process = make()
    cycle = process.cycle()
    assert not cycle.complete
    assert "summaries" in cycle.problem
    assert not process.tickets()
    assert process.store.recall("dialect") == ""


@pytest.mark.parametrize("scope", ["account", "organization"])
def test_an_item_without_an_id_may_be_any_report_that_is_missing(
    make: Callable[..., Process], source: Source, scope: str
) -> None:
    source.dialect, source.pagination = "reports", "total_pages"
    add(source, 1)
    process = make(huntress=source.settings(dialect="reports"), poll={"scope": scope})
    process.cycle()
    assert process.tickets() == {1}
    with source.lock:
        source.reports[1]["id"] = "one"
    for _ in range(3):
        process.store.clock_offset += 60
        process.cycle()
    report = process.store.report(1)
    assert report is not None
    assert not report.over
    with source.lock:
        del source.reports[1]
    for _ in range(3):
        process.store.clock_offset += 60
        process.cycle()
    report = process.store.report(1)
    assert report is not None
    assert report.over is (scope == "organization"), "a listing of the account does not say whose it is"


def test_a_configured_dialect_is_not_questioned(make: Callable[..., Process], source: Source) -> None:
    add(source, 1)
    process = make(huntress=source.settings(dialect="incident_reports"))
    process.cycle()
    assert source.requests_to("/incident_reports$")[0].query["status"] == "sent"


# -- what is left alone ------------------------------------------------------------------------------------------------


def test_now_is_pinned_and_outlives_the_loss_of_the_store(
    make: Callable[..., Process], source: Source, client: redis.Redis
) -> None:
    add(source, 1, sent_at="2026-03-02T08:15:42Z", created_at="2026-03-02T08:15:42Z")
    process = make(poll={"not_before": "now"})
    assert process.cycle().new == ()
    add(source, 2)  # sent now, after the first start
    assert process.cycle().new == ((2, "oncall"),)
    pinned = process.store.recall("not_before:poll")
    client.flushdb()
    process.store.clock_offset += 3600
    with pytest.raises(Deposed):
        process.poller.cycle(process.stopping)  # finds the store changed, and itself no longer its leader
    assert process.cycle().new == ((2, "oncall"),), "what was ticketed is found again, what was left alone stays so"
    assert make(poll={"not_before": "now"}).store.recall("not_before:poll") == pinned
    assert process.store.recall("account_id") == "5"


# -- leading -----------------------------------------------------------------------------------------------------------


def test_a_deposed_poller_writes_nothing(make: Callable[..., Process], source: Source) -> None:
    add(source, 1)
    frozen = make()
    assert frozen.leadership.attempt()
    successor = make()
    assert successor.leadership.attempt()
    with pytest.raises(Deposed):
        frozen.poller.cycle()
    assert not frozen.tickets()
    assert successor.cycle().new == ((1, "oncall"),)


def test_a_deposed_poller_marks_no_listing_complete(make: Callable[..., Process], source: Source) -> None:
    """Also one that lists nothing, and so never meets a script that refuses it."""
    frozen = make()
    frozen.cycle()
    add(source, 1)
    successor = make()
    assert successor.cycle().new == ((1, "oncall"),)
    complete_at = successor.books.poll().last_complete_at
    source.reports.clear()
    frozen.store.clock_offset += 60
    with pytest.raises(Deposed):
        frozen.poller.cycle()
    assert successor.store.open_reports() == 1
    assert successor.books.poll().last_complete_at == complete_at


def test_the_loop_outlives_whatever_a_cycle_meets(make: Callable[..., Process], source: Source) -> None:
    add(source, 1)
    process = make(poll={"interval": 1})
    problems: list[Exception] = [RuntimeError("a bug"), Deposed("another"), redis.ConnectionError("away")]
    original = process.poller.cycle
    met: list[str] = []

    def cycle(stopping: threading.Event | None = None) -> Cycle:
        process.leadership.attempt()
        if problems:
            met.append("problem")
            raise problems.pop(0)
        try:
            return original(stopping)
        finally:
            process.stopping.set()

    process.poller.cycle = cycle  # type: ignore[method-assign]
    process.leadership.attempt()
    process.poller.run(process.stopping)
    assert met == ["problem"] * 3
    assert process.tickets() == {1}


def test_a_clock_that_is_set_back_in_mid_cycle_makes_no_pause_longer(
    make: Callable[..., Process], source: Source
) -> None:
    process = make(poll={"interval": 15})
    process.stopping.seconds = 100
    process.poller._rest(process.stopping, process.store.now() + 3600)
    assert process.stopping.waited <= 16


def test_a_delivery_is_made_for_each_connector_that_takes_the_report(
    make: Callable[..., Process], source: Source
) -> None:
    add(source, 1, severity="low")
    add(source, 2, severity="critical")
    second = MAIL | {"sender": "second@example.com", "only": {"severities": ["critical"]}}
    process = make(connectors={"oncall": MAIL, "second": second})
    assert set(process.cycle().new) == {(1, "oncall"), (2, "oncall"), (2, "second")}
    assert process.store.count(DeliveryState.PENDING) == 3
    assert isinstance(process.store.report(1), IncidentReport)
