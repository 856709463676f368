"""What is over? Reports end by the source's own word only, within two cycles, at few requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.demo import scenario
from bridge.demo.server import Fault
from bridge.ends import MOST_PAGES, MOST_SINGLE_READS, NOT_SHOWN, STILL_OPEN
from bridge.models import DeliveryState
from tests.bridge.stage import Systems
from tests.bridge.watch import MakeWatch, end_notes, ticket_closed
from tests.bridge.watched_huntress import WatchedHuntress

# -- within two cycles, at few requests --------------------------------------------------------------------------------


def test_a_hundred_of_five_hundred_end_and_their_tickets_close_within_two_cycles(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(*range(1, 121), severity="critical")
    source.add(*range(121, 501), severity="low")
    source.add(*range(601, 611), status="closed")  # so that one page does not hold everything
    critical, low = ({"only": {"severities": [severity]}} for severity in ("critical", "low"))
    watch = make_watch(connectors={"psa": systems.table("psa", **critical), "oncall": systems.table("oncall", **low)})
    watch.store.pause("oncall", "rate", 900, "the tickets of the others are made later")
    assert watch.cycle().reports == 500
    watch.deliver_all("oncall")
    assert list(watch.states().values()) == [DeliveryState.CREATED] * 120
    for number in range(1, 101):
        source.end(number, ("closed", "dismissed", "partner_dismissed")[number % 3])
    for number in range(1, 6):  # the vendor's own example of a closed report was last updated before it closed
        source.reports[number]["updated_at"] = "2026-03-02T08:15:42Z"
    source.received.clear()

    for _ in range(2):
        assert watch.cycle().complete
        watch.deliver_all("oncall")

    ended = range(1, 101)
    assert watch.over(*range(1, 501)) == list(ended)
    assert watch.missing() == set()
    assert watch.store.open_reports() == 400
    assert [ticket_closed(systems, "psa", number) for number in ended] == [[True]] * 100
    assert [end_notes(systems, "psa", number) for number in ended] == [1] * 100
    assert [ticket_closed(systems, "psa", number) for number in range(101, 121)] == [[False]] * 20
    assert sum(end_notes(systems, "psa", number) for number in range(101, 121)) == 0
    assert [watch.states()[number] for number in ended] == [DeliveryState.CLOSED] * 100
    assert len(source.listings()) == 4, "two a cycle"
    assert len(source.changes()) == 1, "one page of what changed last"
    assert sorted(source.single_reads()) == [1, 2, 3, 4, 5], "and what that page did not show"


def test_twelve_hundred_end_at_once(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(*range(1, 1301))
    watch = make_watch()
    watch.cycle()
    for number in range(1, 1201):
        source.end(number)
    source.received.clear()
    assert watch.cycle().complete
    assert watch.over(*range(1, 1301)) == list(range(1, 1201))
    assert len(source.changes()) == 3
    assert source.single_reads() == []
    assert len(source.listings()) == 2


def test_what_ended_before_many_others_came_is_found_in_the_same_cycle(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    """More than can be read one by one, behind a whole page of newer changes."""
    source.add(*range(1, 61))
    watch = make_watch()
    watch.cycle()
    for number in range(1, 61):
        source.end(number)
    source.add(*range(1001, 1601))
    source.received.clear()
    assert watch.cycle().complete
    assert watch.over(*range(1, 61)) == list(range(1, 61))
    assert (len(source.changes()), source.single_reads()) == (2, [])


def test_what_cannot_be_found_among_the_newest_changes_is_looked_for_in_a_few_pages_only(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(*range(1, 61))
    watch = make_watch()
    watch.cycle()
    with source.lock:
        source.reports.clear()
    source.add(*range(1001, 1301))
    source.page_size_cap = 20
    source.received.clear()
    watch.cycle()
    assert (len(source.changes()), len(source.single_reads())) == (MOST_PAGES, MOST_SINGLE_READS)


def test_one_that_ends_costs_one_single_read_and_no_other_listing(
    make_watch: MakeWatch, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    watch.cycle()
    source.end(2)
    source.received.clear()
    watch.cycle()
    assert watch.over(1, 2, 3) == [2]
    assert (source.single_reads(), source.changes()) == ([2], [])
    source.received.clear()
    watch.cycle()
    assert len(source.received) == 2, "what is over is asked about no more"


def test_single_reads_of_one_cycle_are_few(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """Also when nothing that ended is among the newest changes."""
    source.add(*range(1, 26))
    watch = make_watch()
    watch.cycle()
    with source.lock:
        hidden, source.reports = dict(source.reports), {}
    for number in (1, 2):
        source.reports[number] = hidden[number] | {"status": "closed"}
    source.received.clear()
    watch.cycle()
    assert watch.over(*range(1, 26)) == [1, 2]
    assert len(source.single_reads()) == MOST_SINGLE_READS
    for _ in range(2):
        watch.cycle()
    assert sorted(source.single_reads()) == list(range(3, 26)), "each of the others was asked for, once"


# -- not known to be over ----------------------------------------------------------------------------------------------


def deleted(source: WatchedHuntress) -> None:
    del source.reports[1]


def with_fault(**how: Any) -> Callable[[WatchedHuntress], None]:
    def spoil(source: WatchedHuntress) -> None:
        deleted(source)
        source.trouble = lambda request: Fault(**how) if request.path.endswith("/incident_reports/1") else None

    return spoil


def with_fields(**fields: Any) -> Callable[[WatchedHuntress], None]:
    def change(source: WatchedHuntress) -> None:
        with source.lock:
            source.reports[1] |= fields

    return change


UNFIT = {
    "404": (deleted, "has none such", NOT_SHOWN),
    "403": (with_fault(kind="status", status=403, body={"message": "no"}), "does not let this API key", NOT_SHOWN),
    "an unknown status": (with_fields(status="archived"), "its status is archived", STILL_OPEN),
    "no status": (
        with_fault(kind="status", status=200, body={"incident_report": {"id": 1, "account_id": 5}}),
        "its status is not given",
        STILL_OPEN,
    ),
    "another account": (with_fields(status="closed", account_id=9), "another account (9)", NOT_SHOWN),
    "another report": (
        with_fault(kind="status", status=200, body={"incident_report": {"id": 2, "status": "closed"}}),
        "of another id",
        NOT_SHOWN,
    ),
    "garbage": (with_fault(kind="garbage"), "no JSON", NOT_SHOWN),
    "a list": (with_fault(kind="status", status=200, body={"incident_report": [1]}), "something else", NOT_SHOWN),
    "500": (with_fault(kind="status", status=500), "answered 500", STILL_OPEN),
    "a dropped connection": (with_fault(kind="drop"), "did not answer", STILL_OPEN),
    "401": (with_fault(kind="status", status=401), "(401", STILL_OPEN),
    "429": (with_fault(kind="status", status=429, headers={"Retry-After": "2"}), "(429)", STILL_OPEN),
    "a redirect": (with_fault(kind="status", status=302, headers={"Location": "/"}), "redirect (302)", STILL_OPEN),
}


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("case", UNFIT)
def test_without_the_sources_word_the_ticket_stays_and_says_why(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, case: str, others: int
) -> None:
    spoil, said, first = UNFIT[case]
    source.add(1, 2, 3, 4)
    listed = dict(source.reports[1])
    watch = make_watch()
    watch.cycle()
    watch.deliver_all()
    spoil(source)
    for number in range(2, 2 + others):
        source.end(number)
    watch.cycle()
    watch.cycle()
    watch.deliver_all()
    assert watch.over(1, 2, 3, 4) == list(range(2, 2 + others)), "it holds no other up"
    assert ticket_closed(systems, "psa", 1) == [False]
    assert end_notes(systems, "psa", 1) == 0
    reason = watch.reason(1)
    assert reason.startswith("Huntress no longer lists this report, but ")
    assert said in reason
    assert reason.endswith("; its ticket stays as it is.")
    assert watch.reason(4) == ""

    # Asked again after a time that doubles.
    for wait in (first, 2 * first, 4 * first):
        asked = source.single_reads().count(1)
        (missing,) = watch.poller.ends.absences.missing()
        assert not missing.due
        watch.cycle(wait - 60)
        assert source.single_reads().count(1) == asked
        watch.cycle(60)
        assert source.single_reads().count(1) == asked + 1

    source.trouble = lambda request: None
    with source.lock:
        source.reports[1] = listed
    watch.cycle()
    watch.deliver_all()
    assert watch.reason(1) == "", "listed again"
    assert watch.missing() == set()
    source.end(1)
    source.received.clear()
    watch.cycle()
    watch.deliver_all()
    assert source.single_reads() == [1], "asked for at once: what went before counts no more"
    assert ticket_closed(systems, "psa", 1) == [True]
    assert end_notes(systems, "psa", 1) == 1


def test_no_wait_is_longer_than_a_day(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1, 2)
    watch = make_watch()
    watch.cycle()
    del source.reports[1]
    for _ in range(12):
        watch.cycle(86400)
    assert len(source.single_reads()) == 12
    assert watch.over(1) == []


def test_reports_that_cannot_be_read_hold_no_others_up(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """Neither many at once nor those that were asked for often."""
    source.add(*range(1, 41))
    watch = make_watch()
    watch.cycle()
    for number in range(1, 21):
        del source.reports[number]
    for _ in range(3):
        watch.cycle()
    for number in range(21, 31):
        source.end(number, updated_at="2026-03-02T08:15:42Z")
    watch.cycle(10_000)  # those that could not be read are due again
    watch.cycle()
    watch.cycle()
    assert watch.over(*range(1, 41)) == list(range(21, 31))


@pytest.mark.parametrize("how", [{"kind": "status", "status": 500}, {"kind": "garbage"}, {"kind": "drop"}])
def test_without_the_list_of_changes_each_is_read_by_itself(
    make_watch: MakeWatch, source: WatchedHuntress, how: dict[str, Any]
) -> None:
    source.add(*range(1, 7))
    watch = make_watch()
    watch.cycle()
    for number in (1, 2, 3):
        source.end(number)
    source.trouble = lambda request: Fault(**how) if "sort_field" in request.query else None
    assert watch.cycle().complete
    assert watch.over(*range(1, 7)) == [1, 2, 3]
    assert source.single_reads() == [1, 2, 3]


def test_a_list_of_changes_that_leaves_out_or_lies_ends_nothing(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """It may hold reports of other accounts, in unknown statuses, open ones and what nobody tracks."""
    source.add(*range(1, 7))
    watch = make_watch()
    watch.cycle()
    source.end(1, account_id=9)
    source.reports[2] |= {"status": "archived"}
    source.end(3)
    source.end(4, id=None)
    source.add(90, status="closed")
    watch.cycle()
    assert watch.over(*range(1, 91)) == [3]
    assert watch.missing() == {1, 2, 4}


def test_within_a_used_up_budget_ends_are_confirmed_later(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(*range(1, 4))
    huntress = source.settings(requests_per_minute=6)
    watch = make_watch(huntress=huntress)
    watch.cycle()
    watch.deliver_all()
    source.end(1)
    for _ in range(4):
        watch.source._budget.acquire("listing", None)
    watch.cycle(0)
    assert watch.over(1) == []
    assert watch.states()[1] is DeliveryState.CREATED
    for _ in range(2):
        watch.cycle(60)
    assert watch.over(1, 2, 3) == [1]


def test_a_cycle_that_fills_the_budget_leaves_room_for_ends(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    """Fifteen organizations, two listings each, at thirty requests a minute: no read would ever find room at once."""
    source.organizations.update({raw["id"]: raw for raw in scenario.organizations(15)})
    source.add_report(id=1, organization_id=1)
    source.add_report(id=2, organization_id=2)
    huntress = source.settings(requests_per_minute=30, dialect="incident_reports")
    watch = make_watch(poll={"scope": "organization", "interval": 60}, huntress=huntress)
    watch.cycle()
    source.end(1)
    for _ in range(4):
        watch.cycle(15)
    assert watch.over(1, 2) == [1]
