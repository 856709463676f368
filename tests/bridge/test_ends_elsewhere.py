"""What must not be taken for an end: broken listings, other dialects and scopes, settings, clocks, other leaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.demo.server import Fault, Received
from bridge.idempotency import Deposed
from bridge.models import UNLISTED, DeliveryState
from tests.bridge.stage import Systems
from tests.bridge.watch import MakeWatch, end_notes, ticket_closed
from tests.bridge.watched_huntress import WatchedHuntress

BY_ORGANIZATION = {"poll": {"scope": "organization"}}


# -- a listing that fails half-way -------------------------------------------------------------------------------------


class Broken:
    """Trouble on one page of the listing of one status."""

    def __init__(self, listing: str, page: int, **how: Any) -> None:
        self.listing = listing
        self.page = page
        self.how = how
        self.asked = 0

    def __call__(self, request: Received) -> Fault | None:
        if request.query.get("status") != self.listing:
            return None
        self.asked += 1
        return Fault(**self.how) if self.asked == self.page else None


FAILURES: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "404": {"kind": "status", "status": 404},
    "403": {"kind": "status", "status": 403},
    "garbage": {"kind": "garbage"},
    "no list": {"kind": "status", "status": 200, "body": {"pagination": {}}},
    "a dropped connection": {"kind": "drop"},
    "a token without end": {
        "kind": "status",
        "status": 200,
        "body": {"incident_reports": [], "pagination": {"next_page_token": 7}},
    },
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_listing_that_fails_half_way_ends_nothing(
    make_watch: MakeWatch, source: WatchedHuntress, failure: str
) -> None:
    """On each page of each status."""
    source.page_size_cap = 2
    source.add(1, 2, 3, 4, 5)
    source.add(6, 7, 8, 9, 10, status="auto_remediating")
    watch = make_watch(huntress=source.settings(dialect="incident_reports"))
    assert watch.cycle().complete
    for number in (1, 5, 6, 10):
        source.end(number)
    for status in ("sent", "auto_remediating"):
        for page in (1, 2):
            source.received.clear()
            source.trouble = Broken(status, page, **FAILURES[failure])
            if failure == "a token without end":  # from this page on, for ever
                source.trouble = lambda request, status=status: (  # type: ignore[misc]
                    Fault(**FAILURES[failure]) if request.query.get("status") == status else None
                )
            assert not watch.cycle(60).complete
            assert watch.missing() == set()
            assert watch.store.open_reports() == 10
            assert source.single_reads() == []
            assert source.changes() == []
    source.trouble = lambda request: None
    assert watch.cycle(60).complete
    assert watch.over(*range(1, 11)) == [1, 5, 6, 10]


@pytest.mark.parametrize("status", ["sent", "auto_remediating"])
def test_a_page_that_comes_twice_ends_nothing(make_watch: MakeWatch, source: WatchedHuntress, status: str) -> None:
    source.page_size_cap = 2
    source.add(1, 2, 3, 4, 5)
    source.add(6, 7, 8, 9, 10, status="auto_remediating")
    watch = make_watch()
    watch.cycle()
    source.end(1)
    source.end(6)
    last = {"sent": 5, "auto_remediating": 10}[status]
    again = [source.reports[last], source.reports[last - 1]]
    page = {"incident_reports": again, "pagination": {"next_page_token": "x"}}
    source.trouble = Broken(status, 2, kind="status", status=200, body=page)
    cycle = watch.cycle()
    assert not cycle.complete
    assert "repeats" in cycle.problem
    assert watch.missing() == set()


def test_a_listing_cut_short_by_its_server_ends_nothing(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """It answers well, and shows half: each report is asked for before anything is said to a ticket."""
    source.add(*range(1, 7))
    watch = make_watch()
    watch.cycle()
    with source.lock:
        half = [source.reports[number] for number in (1, 2, 3)]
    page = {"incident_reports": half, "pagination": {}}
    source.trouble = Broken("sent", 1, kind="status", status=200, body=page)
    assert watch.cycle().complete
    assert watch.missing() == {4, 5, 6}
    assert watch.over(*range(1, 7)) == []
    watch.cycle()
    assert watch.missing() == set(), "listed again"


# -- one organization at a time ----------------------------------------------------------------------------------------


def test_an_organization_that_cannot_be_listed_ends_nothing_of_its_own(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    watch = make_watch(**BY_ORGANIZATION, huntress=source.settings(dialect="incident_reports"))
    watch.cycle()
    source.end(1)
    source.end(2)
    source.trouble = lambda request: (
        Fault("status", status=500) if request.query.get("organization_id") == "1" else None
    )
    assert not watch.cycle().complete
    assert watch.over(1, 2, 3) == [2]
    assert watch.missing() == set()
    source.trouble = lambda request: None
    watch.cycle()
    assert watch.over(1, 2, 3) == [1, 2]


@pytest.mark.parametrize("tables", [{}, BY_ORGANIZATION])
def test_an_organization_that_goes_ends_nothing(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, tables: dict[str, Any]
) -> None:
    source.add(1, 2, 3)
    watch = make_watch(**tables, huntress=source.settings(dialect="incident_reports"))
    watch.cycle()
    watch.deliver_all()
    with source.lock:
        del source.organizations[1], source.reports[1]
    for _ in range(25):
        watch.cycle()
    watch.deliver_all()
    assert watch.over(1, 2, 3) == []
    assert ticket_closed(systems, "psa", 1) == [False]


# -- the dialect without single reads ----------------------------------------------------------------------------------


@pytest.fixture
def guide(source: WatchedHuntress) -> WatchedHuntress:
    """The source as the guide describes it."""
    source.dialect, source.pagination = "reports", "total_pages"
    return source


@pytest.mark.parametrize("scope", ["organization", "account"])
def test_two_complete_listings_end_a_report_that_cannot_be_read(
    make_watch: MakeWatch, systems: Systems, guide: WatchedHuntress, scope: str
) -> None:
    guide.add(1, 2, 3)
    watch = make_watch(poll={"scope": scope}, huntress=guide.settings(dialect="reports"))
    watch.cycle()
    watch.deliver_all()
    guide.end(1)
    watch.cycle()
    assert watch.over(1, 2, 3) == [], "one listing is not enough"
    watch.cycle()
    assert watch.over(1, 2, 3) == ([1] if scope == "organization" else []), "without an organization nobody can tell"
    watch.deliver_all()
    if scope == "organization":
        report = watch.store.report(1)
        assert report is not None
        assert report.status == UNLISTED
        assert ticket_closed(systems, "psa", 1) == [True]
        assert end_notes(systems, "psa", 1) == 1
    else:
        assert "does not say to which organization it belongs; its ticket stays as it is." in watch.reason(1)
        assert ticket_closed(systems, "psa", 1) == [False]
    assert not guide.requests_to("/incident_reports")


def test_a_report_that_is_listed_again_in_between_is_not_over(make_watch: MakeWatch, guide: WatchedHuntress) -> None:
    guide.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    for _ in range(3):
        with guide.lock:
            hidden = guide.reports.pop(1)
        watch.cycle()
        with guide.lock:
            guide.reports[1] = hidden
        watch.cycle()
    assert watch.over(1, 2, 3) == []


def test_a_listing_that_fails_counts_for_neither(make_watch: MakeWatch, guide: WatchedHuntress) -> None:
    guide.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    guide.end(1)
    watch.cycle()
    guide.trouble = lambda request: Fault("status", status=500) if request.query.get("organization_id") == "1" else None
    for _ in range(3):
        watch.cycle()
    assert watch.over(1, 2, 3) == []
    guide.trouble = lambda request: None
    watch.cycle()
    assert watch.over(1, 2, 3) == [1]


@pytest.mark.parametrize("goes", [True, False])
def test_an_organization_that_is_listed_no_longer_ends_nothing(
    make_watch: MakeWatch, guide: WatchedHuntress, goes: bool
) -> None:
    """Its reports go with it, before the list of organizations is read again. Nor does a list that cannot be read."""
    guide.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    with guide.lock:
        del guide.reports[1]
        if goes:
            del guide.organizations[1]
    if not goes:
        guide.trouble = lambda request: Fault("status", status=500) if request.path.endswith("/organizations") else None
    for _ in range(3):
        watch.cycle()
    assert watch.over(1, 2, 3) == []
    assert ("neither does it list its organization" in watch.reason(1)) is goes
    assert len(guide.requests_to("/organizations$")) <= 4
    guide.trouble = lambda request: None
    watch.cycle(3600)
    assert watch.over(1, 2, 3) == ([] if goes else [1])


def test_an_item_without_an_id_may_be_the_report_that_is_missing(make_watch: MakeWatch, guide: WatchedHuntress) -> None:
    guide.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    with guide.lock:
        good = guide.reports[1]
        guide.reports[1] = good | {"id": None}
    for _ in range(3):
        assert watch.cycle().quarantined == 1
    assert watch.over(1, 2, 3) == []
    with guide.lock:
        del guide.reports[1]
    for _ in range(2):
        watch.cycle()
    assert watch.over(1, 2, 3) == [1]


# -- what is left out by settings, or cannot be read -------------------------------------------------------------------

LEFT_OUT: dict[str, dict[str, Any]] = {
    "disabled": {"organizations": {"disabled": [1]}},
    "only": {"organizations": {"only": [2, 3]}},
    "not_before": {"poll": {"not_before": "2036-01-01"}},
}


@pytest.mark.parametrize(
    ("dialect", "scope"),
    [("incident_reports", "account"), ("incident_reports", "organization"), ("reports", "organization")],
)
@pytest.mark.parametrize("settings", LEFT_OUT)
def test_what_settings_leave_out_is_not_over(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, settings: str, dialect: str, scope: str
) -> None:
    if dialect == "reports":
        source.dialect, source.pagination = "reports", "total_pages"
    source.add(1, 2, 3)
    watch = make_watch(poll={"scope": scope})
    watch.cycle()
    watch.deliver_all()
    tables = {"poll": {"scope": scope}} | LEFT_OUT[settings]
    if settings == "not_before":
        tables["poll"] = {"scope": scope} | LEFT_OUT[settings]["poll"]
    later = make_watch(**tables)
    later.store.clock_offset = watch.store.clock_offset
    for _ in range(3):
        assert later.cycle().complete
    later.deliver_all()
    assert later.over(1, 2, 3) == []
    assert later.missing() == set()
    assert ticket_closed(systems, "psa", 1) == [False]
    if scope == "account":
        source.end(1)
        later.cycle()
        later.deliver_all()
        assert ticket_closed(systems, "psa", 1) == [True], "it has a ticket, which is to stay true"


@pytest.mark.parametrize(
    "spoilt",
    [{"status": "being looked at"}, {"status": ["sent"]}, {"status": None}, {"sent_at": None}, {"severity": 7}],
)
def test_what_is_listed_and_cannot_be_read_is_not_over(
    make_watch: MakeWatch, source: WatchedHuntress, spoilt: dict[str, Any]
) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    spoilt = source.reports[1] | spoilt
    with source.lock:
        listed = [spoilt, source.reports[2], source.reports[3]]
    page = {"incident_reports": listed, "pagination": {}}
    source.trouble = lambda request: (
        Fault("status", status=200, body=page) if request.query.get("status") == "sent" else None
    )
    for _ in range(3):
        assert watch.cycle().complete
    assert watch.missing() == set()
    assert source.single_reads() == []
    assert watch.over(1, 2, 3) == []


def test_a_report_that_became_something_else_is_asked_for_and_stays(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    source.reports[1] = ["a", "list"]
    for _ in range(3):
        watch.cycle()
    assert watch.over(1, 2, 3) == []
    assert "something else" in watch.reason(1)


def test_a_finished_report_in_the_listing_of_open_ones_is_asked_for(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    source.end(1)
    page = {"incident_reports": list(source.reports.values()), "pagination": {}}
    source.trouble = lambda request: (
        Fault("status", status=200, body=page) if request.query.get("status") == "sent" else None
    )
    watch.cycle()
    assert source.single_reads() == [1]
    assert watch.over(1, 2, 3) == [1]


# -- clocks and leaders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-86400, -20, 20, 86400, 40 * 86400])
@pytest.mark.parametrize("dialect", ["incident_reports", "reports"])
def test_a_clock_that_jumps_in_mid_cycle_ends_nothing(
    make_watch: MakeWatch, source: WatchedHuntress, dialect: str, jump: float
) -> None:
    if dialect == "reports":
        source.dialect, source.pagination = "reports", "total_pages"
    source.add(1, 2, 3)
    watch = make_watch(huntress=source.settings(dialect=dialect))
    watch.cycle()

    def jumps(request: Received) -> None:
        if request.query.get("organization_id") == "2" or request.query.get("status") == "auto_remediating":
            watch.store.clock_offset += jump

    for _ in range(3):
        source.trouble = jumps
        watch.cycle()
        assert watch.missing() == set()
        source.trouble = lambda request: None
        watch.cycle()
    assert watch.over(1, 2, 3) == []
    assert watch.missing() == set()
    source.end(1)
    for _ in range(3):
        watch.cycle()
    assert watch.over(1, 2, 3) == [1]


@pytest.mark.parametrize("back", [3600, 86400 * 30])
def test_after_a_clock_was_set_back_what_was_put_off_is_asked_for_soon(
    make_watch: MakeWatch, source: WatchedHuntress, back: float
) -> None:
    source.add(1, 2)
    watch = make_watch()
    watch.cycle()
    with source.lock:
        hidden = source.reports.pop(1)
    watch.cycle()
    assert watch.missing() == {1}
    watch.store.clock_offset -= back
    with source.lock:
        source.reports[1] = hidden | {"status": "closed"}
    watch.cycle(86400)
    assert watch.over(1) == [1]


@pytest.mark.parametrize("step", ["listing", "changes", "single read"])
def test_a_poller_deposed_in_mid_cycle_ends_nothing(make_watch: MakeWatch, source: WatchedHuntress, step: str) -> None:
    source.add(1, 2, 3, 4)
    frozen = make_watch()
    frozen.cycle()
    for number in (1, 2) if step == "changes" else (1,):
        source.end(number)

    meant: dict[str, Callable[[Received], bool]] = {
        "listing": lambda request: request.query.get("status") == "auto_remediating",
        "changes": lambda request: "sort_field" in request.query,
        "single read": lambda request: request.path.endswith("/incident_reports/1"),
    }

    def deposes(request: Received) -> None:
        if meant[step](request):
            source.trouble = lambda request: None
            frozen.store.client.delete(frozen.store.key("leader:poller"))
            assert successor.polling.attempt()

    successor = make_watch()
    source.trouble = deposes
    with pytest.raises(Deposed):
        frozen.cycle()
    assert frozen.over(1, 2, 3, 4) == []
    successor.store.clock_offset = frozen.store.clock_offset
    successor.cycle()
    assert successor.over(1, 2, 3, 4) == ([1, 2] if step == "changes" else [1])


def test_the_last_listing_of_a_deposed_poller_misses_nothing(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """It broke off, so that nothing of it is written which would be refused before."""
    source.add(1, 2, 3)
    tables = BY_ORGANIZATION | {"huntress": source.settings(dialect="incident_reports")}
    frozen, successor = make_watch(**tables), make_watch(**tables)
    frozen.cycle()
    for number in (1, 2, 3):
        source.end(number)
    asked: set[str] = set()

    def deposes(request: Received) -> Fault | None:
        asked.add(request.query.get("organization_id", ""))
        if len(asked) < 3:
            return None
        frozen.store.client.delete(frozen.store.key("leader:poller"))
        assert successor.polling.attempt()
        return Fault("status", status=500)

    source.trouble = deposes
    with pytest.raises(Deposed, match="miss"):
        frozen.cycle()
    assert frozen.missing() == set()


def test_what_is_seen_after_the_listing_was_looked_through_is_not_missed(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    """As when an event tells of a report in that moment."""
    source.add(1, 2)
    watch = make_watch()
    watch.cycle()
    watch.store.clock_offset += 15
    absences, started = watch.poller.ends.absences, watch.store.now()
    unseen = [key for key, _ in absences.unseen(started)]
    assert sorted(unseen) == [1, 2]
    watch.store.seen(watch.polling.number, [(1, "", ())])
    assert absences.miss(watch.polling.number, started, unseen) == 1
    assert watch.missing() == {2}


# -- before and after --------------------------------------------------------------------------------------------------


def test_what_ended_before_its_ticket_could_be_made_gets_one_that_is_closed(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1)
    watch = make_watch()
    systems.connectwise.stop()
    watch.cycle()
    watch.work()
    assert watch.states() == {1: DeliveryState.PENDING}
    source.end(1)
    watch.cycle()
    watch.work()
    assert watch.over(1) == [1]
    assert watch.states() == {1: DeliveryState.PENDING}, "seen open once, it is not forgotten"
    systems.connectwise.start()
    watch.wait(900)
    assert ticket_closed(systems, "psa", 1) == [True]
    assert end_notes(systems, "psa", 1) == 1
    assert watch.states() == {1: DeliveryState.CLOSED}


def test_what_was_over_when_it_was_first_listed_is_nobodys_ticket(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1)
    source.end(1)
    watch = make_watch()
    watch.cycle()
    watch.cycle()
    watch.wait(120)
    assert watch.states() == {}
    assert systems.psa("psa").ids(1) == []


def test_the_end_of_a_report_makes_no_ticket_where_it_had_none(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1, severity="low")
    source.add(2, severity="critical")
    critical, low = ({"only": {"severities": [severity]}} for severity in ("critical", "low"))
    watch = make_watch(connectors={"psa": systems.table("psa", **critical), "desk": systems.table("desk", **low)})
    watch.cycle()
    watch.deliver_all()
    source.end(1)
    source.end(2)
    watch.cycle()
    assert (set(watch.states("desk")), set(watch.states("psa"))) == ({1}, {2})
    watch.deliver_all()
    assert watch.states("desk") == {1: DeliveryState.CLOSED}
    assert watch.states("psa") == {2: DeliveryState.CLOSED}
    assert [systems.psa(name).ids(number) for name, number in (("psa", 1), ("desk", 2))] == [[], []]


SOURCES = {"sources": {"escalations": True, "platform_actions": True}}


def test_escalations_and_platform_actions_end_by_their_own_word(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    escalation, action = source.add_escalation([1]), source.add_platform_action()
    for number in (7, 8):
        source.add_escalation([1], id=number)
    watch = make_watch(**SOURCES)
    watch.cycle()
    watch.deliver_all()
    keys = (f"e{escalation}", f"p{action}", "e7", "e8")
    assert {*keys, 1, 2, 3} == set(watch.states())
    for _ in range(5):
        watch.cycle()
    assert watch.missing() == set(), "each kind has listings of its own"
    source.resolve_escalation(escalation)
    source.resolve_platform_action(action)
    with source.lock:
        del source.escalations[7]
        source.escalations[8] |= {"status": "archived"}
    for _ in range(6):
        watch.cycle()
    watch.deliver_all()
    assert watch.over(*keys, 1, 2, 3) == [*keys[:2]]
    states = watch.states()
    assert [states[key] for key in keys] == [*[DeliveryState.CLOSED] * 2, *[DeliveryState.CREATED] * 2]
    assert "has none such" in watch.reason("e7")
    assert "its status is archived" in watch.reason("e8")
    assert watch.reason(1) == ""


@pytest.mark.parametrize("kind", ["escalations", "platform_actions"])
def test_a_stream_that_cannot_be_listed_ends_nothing_of_its_own(
    make_watch: MakeWatch, source: WatchedHuntress, kind: str
) -> None:
    escalation, action = source.add_escalation([1]), source.add_platform_action()
    watch = make_watch(**SOURCES)
    watch.cycle()
    source.resolve_escalation(escalation)
    source.resolve_platform_action(action)
    source.trouble = lambda request: (
        Fault("status", status=500) if kind in request.path and request.query.get("status") == "overdue" else None
    )
    for _ in range(6):
        watch.cycle()
    mine, other = (f"e{escalation}", f"p{action}") if kind == "escalations" else (f"p{action}", f"e{escalation}")
    assert watch.over(mine, other) == [other]
    source.trouble = lambda request: None
    for _ in range(6):
        watch.cycle()
    assert watch.over(mine, other) == [mine, other]


def test_while_reports_cannot_be_listed_streams_still_end(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1)
    action = source.add_platform_action()
    watch = make_watch(**SOURCES)
    watch.cycle()
    source.resolve_platform_action(action)
    source.end(1)
    source.trouble = lambda request: Fault("status", status=500) if request.path.endswith("reports") else None
    for _ in range(10):
        watch.cycle()
    assert watch.over(f"p{action}", 1) == [f"p{action}"]
