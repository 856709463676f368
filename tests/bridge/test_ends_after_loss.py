"""A store that was lost: tickets are adopted as they stand; those of reports that ended meanwhile are closed, once."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from bridge.demo.server import Fault
from bridge.ends import CATCH_UP_PAGES
from bridge.models import DeliveryState
from tests.bridge.stage import Systems
from tests.bridge.watch import MakeWatch, Watch, end_notes, ticket_closed
from tests.bridge.watched_huntress import WatchedHuntress
from tests.psa import Psa


@pytest.fixture
def make_watch(make_watch: MakeWatch) -> MakeWatch:
    """Each process but the first starts on a store that was lost."""
    started: list[Watch] = []

    def make(*names: str, **tables: Any) -> Watch:
        offset = started[-1].store.clock_offset if started else 0.0
        if started:
            started[-1].store.client.flushall()
        started.append(make_watch(*names, **tables))
        started[-1].store.clock_offset = offset
        return started[-1]

    return make


def settle(watch: Watch) -> None:
    """Polls and works until nothing is left to be done."""
    watch.cycle()
    watch.wait(200)
    watch.cycle()
    watch.wait(15)


def test_an_adopted_ticket_takes_what_is_now_as_told(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa
) -> None:
    source.add(1, severity="low")
    settle(make_watch(psa.name))
    (ticket,) = psa.ids(1)
    before = psa.notes(ticket)
    source.reports[1] |= {"severity": "critical", "summary": "changed while nobody looked"}
    watch = make_watch(psa.name)
    settle(watch)
    assert watch.states(psa.name) == {1: DeliveryState.CREATED}
    assert psa.notes(ticket) == before
    source.reports[1] |= {"summary": "changed again"}
    settle(watch)
    assert len(psa.notes(ticket)) == len(before) + 1
    assert psa.ids(1) == [ticket]


def test_what_ended_in_the_last_days_has_its_ticket_closed_and_none_is_made(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa
) -> None:
    source.add(1, 2, 3, 4, 5)
    settle(make_watch(psa.name))
    source.end(1, "dismissed", days_ago=6)
    source.end(2, days_ago=8)
    source.add(90, 91, status="closed")  # never ticketed
    source.end(3, account_id=9)
    watch = make_watch(psa.name)
    settle(watch)
    assert ticket_closed(systems, psa.name, 1) == [True]
    assert end_notes(systems, psa.name, 1) == 1
    for number in (2, 3, 4, 5):
        assert ticket_closed(systems, psa.name, number) == [False], number
        assert end_notes(systems, psa.name, number) == 0
    assert watch.states(psa.name) == {
        1: DeliveryState.CLOSED,
        4: DeliveryState.CREATED,
        5: DeliveryState.CREATED,
    }, "the others are nobody's delivery"
    assert sum(psa.references().values()) == 5
    assert psa.look_ups(2)[-1].at < psa.look_ups(4)[-1].at, "too long ago to be looked up"
    assert len(source.changes()) == 2, "one page in each store's life"


def test_a_page_of_changes_without_a_time_of_change(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    """The vendor's own example was closed after its last update."""
    source.add(1, 2, 3)
    settle(make_watch())
    source.end(1, updated_at="2026-03-02T08:15:42Z")
    source.end(2, days_ago=30, updated_at=None)
    settle(make_watch())
    assert ticket_closed(systems, "psa", 1) == [True]
    assert ticket_closed(systems, "psa", 2) == [False]


@pytest.mark.parametrize("closed", [True, False])
def test_a_ticket_that_was_told_before_the_loss_is_told_no_more(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa, closed: bool
) -> None:
    """Also when it was closed only by half: the note is there and the status is not set."""
    source.add(1, 2)
    watch = make_watch(psa.name)
    settle(watch)
    source.end(1)
    if not closed:
        path = r"/service/tickets/\d+$" if psa.name == "psa" else "/Tickets$"
        psa.server.fault("status", method="PATCH", path=path, times=None, status=503)
    settle(watch)
    assert end_notes(systems, psa.name, 1) == 1
    assert ticket_closed(systems, psa.name, 1) == [closed]
    psa.server.faults.clear()
    before = psa.notes(psa.ids(1)[0])
    watch = make_watch(psa.name)
    settle(watch)
    assert watch.states(psa.name) == {1: DeliveryState.CLOSED, 2: DeliveryState.CREATED}
    assert ticket_closed(systems, psa.name, 1) == [True]
    assert psa.notes(psa.ids(1)[0]) == before


def test_a_ticket_that_a_person_closed_before_the_loss_is_left_in_peace(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa
) -> None:
    source.add(1, 2)
    settle(make_watch(psa.name))
    (ticket,) = psa.ids(1)
    if psa.name == "psa":
        systems.connectwise.set_status(ticket, "Closed")
    else:
        systems.autotask.set_status(ticket, "Complete")
    source.end(1)
    before = psa.notes(ticket)
    watch = make_watch(psa.name)
    settle(watch)
    assert watch.states(psa.name) == {1: DeliveryState.CLOSED, 2: DeliveryState.CREATED}
    assert psa.notes(ticket) == before


@pytest.mark.parametrize("status", ["New", "In Progress"])
def test_an_adopted_ticket_is_closed_at_its_end_unless_a_person_moved_it_on(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa, status: str
) -> None:
    source.add(1)
    settle(make_watch(psa.name))
    (ticket,) = psa.ids(1)
    watch = make_watch(psa.name)
    settle(watch)
    if status != "New":
        system = systems.connectwise if psa.name == "psa" else systems.autotask
        system.set_status(ticket, status)
    source.end(1)
    settle(watch)
    assert end_notes(systems, psa.name, 1) == 1
    assert ticket_closed(systems, psa.name, 1) == [status == "New"]
    assert ("a person has moved it on" in watch.reason(1, psa.name)) is (status != "New")


@pytest.mark.parametrize(
    ("tables", "left"),
    [
        ({"organizations": {"only": [2]}}, 1),
        ({"organizations": {"disabled": [1]}}, 1),
        ({"poll": {"not_before": "2036-01-01"}}, 1),
    ],
)
def test_what_settings_leave_alone_is_not_looked_up(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, tables: dict[str, Any], left: int
) -> None:
    source.add(1, 2, 3)
    settle(make_watch())
    source.end(1)
    looked_up = len(systems.psa("psa").look_ups(1))
    watch = make_watch(**tables)
    settle(watch)
    assert ticket_closed(systems, "psa", left) == [False]
    assert left not in watch.states()
    assert len(systems.psa("psa").look_ups(1)) == looked_up


def reopened_late(make_watch: MakeWatch, source: WatchedHuntress, psa: Psa) -> Watch:
    """A report that ended, and began again when its ticket was no longer taken up."""
    source.add(1, 2)
    watch = make_watch(psa.name)
    settle(watch)
    source.end(1)
    settle(watch)
    watch.store.clock_offset += 8 * 86400
    with source.lock:
        source.reports[1] |= {"status": "sent", "closed_at": None}
    settle(watch)
    return watch


@pytest.mark.parametrize("ends", [True, False])
def test_the_ticket_made_anew_is_found_and_closed(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress, psa: Psa, ends: bool
) -> None:
    reopened_late(make_watch, source, psa)
    assert ticket_closed(systems, psa.name, 1) == [True]
    assert ticket_closed(systems, psa.name, 1, "-r2") == [False]
    if ends:
        source.end(1, days_ago=-8)  # as the store's clock has it
    watch = make_watch(psa.name)
    settle(watch)
    assert ticket_closed(systems, psa.name, 1) == [True]
    assert ticket_closed(systems, psa.name, 1, "-r2") == [ends]
    assert end_notes(systems, psa.name, 1) == 1, "the old one was told long ago"
    states = watch.states(psa.name)
    assert states == {1: DeliveryState.CLOSED if ends else DeliveryState.CREATED, 2: DeliveryState.CREATED}
    assert len(psa.references()) == 3, "nothing more is made"


def test_mail_is_not_sent_about_what_ended_before_the_loss(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1, 2)
    settle(make_watch("oncall"))
    source.end(1)
    sent = len(systems.mailbox.messages)
    watch = make_watch("oncall")
    settle(watch)
    assert not [each for each in watch.states("oncall") if each == 1]
    about = [str(mail.message["Message-ID"]) for mail in systems.mailbox.messages[sent:]]
    assert not any("huntress-5-1" in each for each in about)


def test_a_look_back_that_fails_is_made_after_the_next_cycle(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1, 2)
    settle(make_watch())
    source.end(1)
    watch = make_watch()
    source.trouble = lambda request: Fault("status", status=500) if "sort_field" in request.query else None
    assert watch.cycle().complete, "what is open is polled all the same"
    watch.wait(60)
    assert 1 not in watch.states()
    source.trouble = lambda request: None
    settle(watch)
    assert ticket_closed(systems, "psa", 1) == [True]


def test_a_look_back_has_an_end(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.page_size_cap = 1
    source.add(*range(1, CATCH_UP_PAGES + 10), status="closed")
    watch = make_watch()
    watch.cycle()
    assert len(source.changes()) == CATCH_UP_PAGES
    watch.cycle()
    assert len(source.changes()) == CATCH_UP_PAGES


def test_a_report_that_opens_again_while_it_is_looked_up_gets_its_ticket(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1)
    source.end(1)
    watch = make_watch()
    watch.cycle()
    with source.lock:
        source.reports[1] |= {"status": "sent", "closed_at": None}
    settle(watch)
    assert ticket_closed(systems, "psa", 1) == [False]
    assert watch.states() == {1: DeliveryState.CREATED}


def test_a_running_process_finds_its_store_lost(
    make_watch: MakeWatch, systems: Systems, source: WatchedHuntress
) -> None:
    source.add(1, 2, 3)
    watch = make_watch()
    settle(watch)
    source.end(1)
    watch.store.client.flushall()
    for _ in range(2):
        with contextlib.suppress(Exception):
            watch.cycle()
        with contextlib.suppress(AssertionError):
            watch.wait(200)
    settle(watch)
    assert [ticket_closed(systems, "psa", number) for number in (1, 2, 3)] == [[True], [False], [False]]
    assert [end_notes(systems, "psa", number) for number in (1, 2, 3)] == [1, 0, 0]
    assert sum(systems.psa("psa").references().values()) == 3
