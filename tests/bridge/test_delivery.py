"""Turns at deliveries, one by one: real Redis, real connectors, pretend ticket systems, and time that is passed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.delivery import _Progress
from bridge.demo.run import free_port
from bridge.demo.server import Received
from bridge.idempotency import LEASE, Deposed
from bridge.leases import Gate
from bridge.models import DeliveryState, Note, Ticket, TicketRef
from bridge.processes import Process
from bridge.reconcile import GIVE_UP_AFTER, PLAIN_AFTER
from connectors.base import (
    Connector,
    ConnectorContext,
    ConnectorSettings,
    Finding,
    Held,
    Misconfigured,
    OutcomeUnknown,
    Progress,
    Rejected,
    TemplatePart,
    Unavailable,
)
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.conftest import RedisServer
from tests.psa import Psa, reference

MakeServer = Callable[..., RedisServer]

#: Everything that may happen to a create, and whether it was carried out.
LOST_ANSWERS = {
    "drop": ({"kind": "drop"}, False),
    "commit_drop": ({"kind": "commit_drop"}, True),
    "500": ({"kind": "status", "status": 500}, False),
    "500 after committing": ({"kind": "commit_status", "status": 500}, True),
    "503": ({"kind": "status", "status": 503}, False),
    "408": ({"kind": "status", "status": 408}, False),
    "garbage": ({"kind": "garbage"}, False),
}


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    """The default for terminals draws every variable of a traceback, which takes seconds."""
    structlog.configure([structlog.processors.add_log_level, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


def proven(stage: Stage, psa: Psa, number: int = 100) -> None:
    """Delivers one report, so that others may be created side by side."""
    stage.report(number)
    stage.turn(number, psa.name)
    assert stage.store.client.hget(stage.store.key(f"proof:{psa.name}"), "state") == "proven"
    stage.store.clock_offset += 100
    stage.turn(number, psa.name)  # its status is looked at, too


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on(psa: Psa, meant: Callable[[Received], bool], do: Callable[[], object]) -> None:
    """Does something once, when a request that is meant has come and is not answered yet."""
    open_ = [True]

    def meanwhile(request: Received) -> None:
        if open_ and meant(request):
            open_.clear()
            do()

    psa.state.meanwhile = meanwhile  # type: ignore[union-attr]


# -- creating ----------------------------------------------------------------------------------------------------------


def test_nothing_is_created_without_asking_and_creating_is_written_in_between(stage: Stage, psa: Psa) -> None:
    seen: list[tuple[str, DeliveryState]] = []

    def meanwhile(request: Received) -> None:
        if psa.is_create(request) or psa.is_look_up(request):
            seen.append(("create" if psa.is_create(request) else "look-up", stage.delivery(1, psa.name).state))

    psa.state.meanwhile = meanwhile  # type: ignore[union-attr]
    stage.report(1)
    stage.turn(1, psa.name)
    assert seen[:2] == [("look-up", DeliveryState.PENDING), ("create", DeliveryState.CREATING)]
    assert psa.references() == {reference(1): 1}
    delivery = stage.delivery(1, psa.name)
    assert (delivery.state, delivery.attempts, delivery.reason) == (DeliveryState.CREATED, 1, "")
    assert delivery.ticket is not None
    assert delivery.ticket.id == str(psa.ids(1)[0])
    assert delivery.todo == ()
    assert stage.scheduled(psa.name) == 0
    stage.work(100)  # its status is looked at
    assert stage.work(3600) == []


def test_what_exists_is_adopted(stage: Stage, psa: Psa) -> None:
    known = psa.add_ticket(1)
    stage.report(1)
    stage.work()
    assert psa.creates() == []
    delivery = stage.delivery(1, psa.name)
    assert (delivery.state, delivery.ticket and delivery.ticket.id) == (DeliveryState.CREATED, str(known))


def test_of_several_tickets_the_lowest_is_kept_and_another_named(stage: Stage, psa: Psa) -> None:
    first, second, *_ = [psa.add_ticket(1) for _ in range(3)]
    stage.report(1)
    stage.work()
    assert psa.creates() == []
    delivery = stage.delivery(1, psa.name)
    assert delivery.ticket is not None
    assert delivery.ticket.id == str(first)
    assert delivery.other_ticket == str(second)
    assert f"ticket {second} carries the same reference" in delivery.reason
    [note] = [note for note in psa.notes(first) if "/duplicate]" in note]
    assert f"Ticket {second} carries the same Huntress reference" in note
    assert psa.notes(second) == []
    assert stage.scheduled(psa.name) == 0


@pytest.mark.parametrize("noticed", [False, True])
def test_a_worker_that_lost_its_lease_after_asking_sends_nothing(stage: Stage, psa: Psa, noticed: bool) -> None:
    """`noticed`: by its own renewals, before it comes to the gate in the store."""

    def lose() -> None:
        stage.store.clock_offset += LEASE + 1
        stage.die(1, psa.name)
        if noticed:
            stage.runtime.keeper.renew()

    proven(stage, psa)
    stage.report(1)
    on(psa, lambda request: psa.is_look_up(request, 1), lose)
    stage.turn(1, psa.name)
    assert psa.creates(1) == []
    stage.work(1)
    assert psa.creates(1) == [], "whoever holds it now goes on"
    stage.wait(LEASE + 5)
    assert psa.references()[reference(1)] == 1
    assert stage.delivery(1, psa.name).attempts == 3


def test_a_worker_that_freezes_on_its_way_to_the_ticket_system_sends_nothing(
    stage: Stage, psa: Psa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every gate, while the connection is being made."""
    asked = Gate.__call__

    def freezes_afterwards(gate: Gate) -> None:
        asked(gate)
        lease = gate.keeper.current()
        if lease and stage.delivery(1, psa.name).state is DeliveryState.CREATING:
            lease.renewed_at -= LEASE

    proven(stage, psa)
    stage.report(1)
    with monkeypatch.context() as patch:
        patch.setattr(Gate, "__call__", freezes_afterwards)
        stage.turn(1, psa.name)
    assert psa.creates(1) == []
    stage.wait(LEASE + 5)
    stage.wait(60)
    assert psa.references()[reference(1)] == 1


def test_a_worker_that_is_told_to_stop_sends_nothing_more(stage: Stage, psa: Psa) -> None:
    stage.report(1, 2)
    on(psa, lambda request: psa.is_look_up(request, 1), stage.runtime.stopping.set)
    stage.turn(1, psa.name)
    stage.turn(2, psa.name)
    assert psa.creates() == []
    assert psa.look_ups(2) == []
    assert stage.delivery(1, psa.name).state is DeliveryState.PENDING
    stage.runtime.stopping.clear()
    stage.work()
    assert psa.references() == {reference(1): 1, reference(2): 1}


def test_messages_about_nothing_do_nothing(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.turn(1, "gone")
    stage.turn(2, psa.name)
    stage.turn(1, psa.name)
    stage.turn(1, psa.name)
    assert psa.references() == {reference(1): 1}
    assert len(psa.look_ups()) == 2, "once before the create, once after the first"


def test_a_refused_ticket_waits_for_a_person(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    no = {"code": "InvalidObject", "message": "no such thing", "errors": ["The title is bad."]}
    psa.fault_create("status", status=400 if psa.name == "psa" else 500, body=no)
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.REJECTED
    assert ("no such thing" if psa.name == "psa" else "The title is bad.") in delivery.reason
    assert stage.work(3600) == []
    assert stage.store.retry(1, psa.name) == "rejected"
    stage.work()
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.references()[reference(1)] == 1


# -- in doubt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", LOST_ANSWERS)
def test_a_lost_answer_never_makes_a_second_ticket(stage: Stage, psa: Psa, lost: str) -> None:
    fault, committed = LOST_ANSWERS[lost]
    proven(stage, psa)
    psa.fault_create(**fault)  # type: ignore[arg-type]
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.CREATING
    assert "is being looked up" in delivery.reason
    assert 4 < stage.waits(1, psa.name) <= 5
    for _ in range(9):
        stage.work(6)
        assert len(psa.creates(1)) == 1
    stage.work(7)
    assert len(psa.creates(1)) == (1 if committed else 2)
    assert psa.references()[reference(1)] == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED


def test_a_create_without_an_answer_in_time_is_in_doubt(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, timeout=0.4)
    proven(stage, psa)
    psa.fault_create("late", delay=0.8)
    stage.report(1)
    stage.work()
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATING
    wait_for(lambda: psa.references()[reference(1)])
    stage.wait(66)
    assert len(psa.creates(1)) == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED


def test_a_doubt_is_looked_up_at_5_15_30_and_settle(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    psa.fault_create("drop")
    stage.report(1)
    stage.work()
    start, before = stage.store.clock_offset, len(psa.look_ups(1))
    for seconds, look_ups, creates in [
        (4, 0, 1),
        (6, 1, 1),
        (14, 1, 1),
        (16, 2, 1),
        (29, 2, 1),
        (31, 3, 1),
        (59, 3, 1),
        (61, 4, 2),
    ]:
        stage.work(start + seconds - stage.store.clock_offset)
        assert (len(psa.look_ups(1)) - before, len(psa.creates(1))) == (look_ups, creates), seconds
    assert psa.references()[reference(1)] == 1


def test_a_clock_set_forward_is_noticed_also_when_the_first_look_after_it_fails(stage: Stage, psa: Psa) -> None:
    """A leader's lease ends with the jump, so that look is refused."""
    psa.fault_create("drop")
    stage.report(1)
    stage.work()
    stage.dispatcher.clock = lambda offset=stage.store.clock_offset: time.monotonic() + offset  # type: ignore[misc]
    stage.dispatcher.look()
    stage.store.clock_offset += 3600
    stage.store.client.delete(stage.store.key("leader:dispatcher"))
    stage.store.script("lead", "dispatcher", "another", 6000)
    with pytest.raises(Deposed):
        stage.dispatcher.look()
    stage.store.client.delete(stage.store.key("leader:dispatcher"))
    stage.work()
    assert len(psa.creates(1)) == 1, "the doubt is a few seconds old, whatever the clock says"


def test_a_delivery_in_doubt_holds_no_place(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, concurrency=1)
    proven(stage, psa)
    psa.fault_create("drop")
    stage.report(1, 2, 3)
    stage.work()
    assert [psa.references()[reference(number)] for number in (1, 2, 3)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "committed"),
    [("drop", True), ("garbage", True), ("500", True), ("503", True), ("401", True), ("500", False), ("401", False)],
)
def test_a_failed_look_up_is_never_not_found(stage: Stage, psa: Psa, kind: str, committed: bool) -> None:
    proven(stage, psa)
    psa.fault_create("commit_drop" if committed else "drop")
    how: dict[str, Any] = {"kind": "status", "status": int(kind)} if kind.isdecimal() else {"kind": kind}
    stage.report(1)
    stage.work()
    psa.fault_look_up(number=1, times=None, **how)
    for _ in range(20):
        stage.work(60)
    assert len(psa.look_ups(1)) >= 5
    assert len(psa.creates(1)) == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATING
    psa.server.faults.clear()
    for _ in range(9):
        stage.work(300)
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.references()[reference(1)] == 1
    assert len(psa.creates(1)) == (1 if committed else 2)


def test_a_search_that_lags_by_less_than_settle_makes_no_second_ticket(stage: Stage, psa: Psa) -> None:
    psa.state.clock = stage.store.now
    proven(stage, psa)
    psa.state.search_lag = 59
    psa.fault_create("commit_drop")
    stage.report(1)
    stage.work()
    for _ in range(12):
        stage.work(5.2)
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.references()[reference(1)] == 1
    assert len(psa.look_ups(1)) == 5


def test_an_answer_asked_for_before_settle_is_no_answer_at_settle(stage: Stage, psa: Psa) -> None:
    """The search was sent 58 s after the create, and its empty answer took 4 s to come."""

    def late() -> None:
        stage.store.clock_offset += 4

    proven(stage, psa)
    psa.fault_create("commit_drop")
    stage.report(1)
    stage.work()
    psa.fault_look_up("status", times=4, status=200, body=[] if psa.name == "psa" else {"items": []})
    stage.wait(45)
    assert len(psa.look_ups(1)) == 4
    stage.store.clock_offset += 13
    stage.store.retry(1, psa.name)
    on(psa, lambda request: psa.is_look_up(request, 1), late)
    stage.work()
    assert len(psa.creates(1)) == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED, "the next one, sent later, found it"


def test_retry_of_a_doubt_only_looks(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    psa.fault_create("drop")
    stage.report(1)
    stage.work()
    assert stage.store.retry(1, psa.name) == "creating"
    stage.work()
    assert (len(psa.look_ups(1)), len(psa.creates(1))) == (2, 1)


def test_a_refused_connection_is_no_doubt(stage: Stage, psa: Psa) -> None:
    """Nothing was sent for certain: tried again after 5 s, doubling to 5 minutes, less a quarter at most."""
    proven(stage, psa)
    stage.report(1)
    psa.server.stop()
    waits = []
    for _ in range(9):
        stage.work()
        assert stage.delivery(1, psa.name).state is DeliveryState.PENDING
        waits.append(stage.waits(1, psa.name))
        stage.store.clock_offset += waits[-1] + 0.01
    expected = [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert all(0.74 * most < wait <= most for wait, most in zip(waits, expected, strict=True)), waits
    assert len(set(waits[-3:])) == 3, "the same waits would make all deliveries come back at once"
    psa.server.start()
    stage.work(1)
    assert psa.references()[reference(1)] == 1


# -- tickets are facts -------------------------------------------------------------------------------------------------


def test_an_answer_after_the_lease_is_recorded_and_a_second_ticket_named(
    make: MakeStage, systems: Systems, psa: Psa
) -> None:
    """The first worker freezes in mid-create; a search that never finds lets the next one create again at `settle`."""
    first, second = make(psa.name), make(psa.name)
    proven(first, psa)
    second.store.clock_offset = first.store.clock_offset
    later = psa.add_ticket(99)
    first.report(1)
    claim = first.die(1, psa.name, creating=True)
    second.work(LEASE + 1)
    second.wait(66)
    [made] = psa.ids(1)
    assert made > later
    first.store.clock_offset = second.store.clock_offset
    with psa.server.lock:
        psa.state.tickets[later][psa.field] = reference(1)
    assert first.store.record(claim, TicketRef(str(later))) == str(later)
    second.work()
    delivery = second.delivery(1, psa.name)
    assert (delivery.ticket and delivery.ticket.id, delivery.other_ticket) == (str(later), str(made))
    assert [note for note in psa.notes(later) if f"Ticket {made} carries" in note]


def test_a_second_ticket_that_is_reported_during_a_follow_up_is_still_named(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("desk"), systems.psa("desk")
    proven(stage, psa)
    stage.report(1)
    claim = stage.die(1, "desk", creating=True)
    older = psa.add_ticket(99)
    stage.work(LEASE + 1)
    psa.state.tickets[older][psa.field] = reference(98)
    on(
        psa,
        lambda request: request.method == "GET" and request.path.endswith("/Notes"),
        lambda: stage.store.record(claim, TicketRef(str(older))),
    )
    stage.wait(66)
    [made] = psa.ids(1)
    delivery = stage.delivery(1, "desk")
    assert (delivery.ticket and delivery.ticket.id, delivery.other_ticket) == (str(older), str(made))
    assert [note for note in psa.notes(older) if f"Ticket {made} carries" in note]
    assert delivery.todo == ()
    stage.work(100)
    assert stage.scheduled("desk") == 0


def test_a_ticket_is_recorded_although_redis_is_away_for_a_moment(
    make: MakeStage, make_redis_server: MakeServer, psa: Psa
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make(psa.name, url=server.url)
    proven(stage, psa)
    stage.report(1)

    def outage() -> None:
        server.stop()
        threading.Timer(0.5, server.start).start()

    on(psa, lambda request: psa.is_create(request, 1), outage)
    stage.turn(1, psa.name)
    delivery = stage.delivery(1, psa.name)
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ())
    assert psa.references()[reference(1)] == 1


def test_a_ticket_that_could_not_be_recorded_is_in_doubt(
    make: MakeStage, make_redis_server: MakeServer, psa: Psa
) -> None:
    """Redis takes no writes until the worker has given up, and the search lags: nothing but the doubt is left."""
    server = make_redis_server("--appendonly", "yes")
    stage = make(psa.name, url=server.url)
    psa.state.clock = stage.store.now
    proven(stage, psa)
    stage.report(1)
    psa.state.search_lag = 50
    naps: list[float] = []
    with server.client() as admin:

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 5:
                admin.config_set("min-replicas-to-write", 0)

        on(psa, lambda request: psa.is_create(request, 1), lambda: admin.config_set("min-replicas-to-write", 1))
        stage.deliverer.sleep = nap
        stage.turn(1, psa.name)
    assert len(naps) == 5
    assert sum(naps) < LEASE - 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATING
    for _ in range(7):
        stage.work(10)
    assert len(psa.creates(1)) == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED


@pytest.mark.parametrize("when", ["look-up", "create", "follow-up", "last of the follow-up"])
def test_while_redis_is_away_a_turn_ends_and_is_taken_again(
    make: MakeStage, make_redis_server: MakeServer, systems: Systems, when: str
) -> None:
    psa = systems.psa("desk")
    server = make_redis_server("--appendonly", "yes")
    stage = make("desk", url=server.url)
    proven(stage, psa)
    stage.report(1)
    meant = {
        "look-up": lambda request: psa.is_look_up(request, 1),
        "create": lambda request: psa.is_create(request, 1),
        "follow-up": lambda request: request.path.endswith("/Notes"),
        "last of the follow-up": lambda request: request.path.endswith("/Notes") and request.method == "POST",
    }
    on(psa, meant[when], server.stop)
    stage.deliverer.sleep = lambda seconds: None
    with contextlib.ExitStack() as patches:
        if when == "create":
            patch = patches.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("time.sleep", lambda seconds: None)  # nor does the client of Redis rest between its attempts
        stage.turn(1, "desk")
    server.start()
    stage.leadership.attempt()
    stage.work(LEASE + 1)
    stage.work(6)
    assert psa.references()[reference(1)] == 1
    assert len(psa.creates(1)) == 1
    delivery = stage.delivery(1, "desk")
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ())


def test_a_report_that_changes_while_it_is_told_stays_due(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    changed = {"subject": "changed"}
    on(psa, psa.is_create, lambda: stage.report(1, **changed))
    stage.turn(1, psa.name)
    assert stage.scheduled(psa.name) == 1
    assert set(stage.work()) == {(1, psa.name)}
    assert stage.scheduled(psa.name) == 0
    stage.work(100)
    stage.report(1, **changed)
    assert stage.work(3600) == []
    assert psa.references() == {reference(1): 1}


def test_what_is_due_without_a_cause_is_let_go(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.work()
    asked = len(psa.received())
    stage.store.client.zadd(stage.store.key(f"ready:{psa.name}"), {"1": 0})
    assert stage.work() == [(1, psa.name)]
    assert stage.scheduled(psa.name) == 0
    assert len(psa.received()) == asked


# -- creates that cannot be found --------------------------------------------------------------------------------------


def test_a_connector_that_cannot_find_what_it_creates_creates_one_and_pauses(stage: Stage, psa: Psa) -> None:
    psa.state.clock = stage.store.now
    psa.state.search_lag = 1e9
    stage.report(1, 2, 3)
    for _ in range(14):
        stage.work(5.2)
    assert psa.references() == {reference(1): 1}
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert (pause.kind, pause.report_id) == ("unfindable", 1)
    assert "creates what it cannot find" in pause.reason
    assert reference(1) in pause.reason
    assert stage.work(30) == []
    asked = len(psa.look_ups())
    stage.probe()
    assert len(psa.look_ups()) == asked, "the first probe comes after a minute"
    stage.probe(31)
    assert len(psa.look_ups()) == asked + 1
    assert psa.references() == {reference(1): 1}
    still = stage.store.paused(psa.name)
    assert still is not None
    assert "creates what it cannot find" in still.reason
    psa.state.clock = lambda: 1e12
    stage.probe(60)
    assert stage.store.paused(psa.name) is not None, "the next one two minutes later"
    stage.probe(61)
    assert stage.store.paused(psa.name) is None
    psa.state.search_lag = 0
    stage.work()
    assert psa.references() == {reference(number): 1 for number in (1, 2, 3)}
    assert {stage.delivery(number, psa.name).todo for number in (1, 2, 3)} == {()}


def test_until_the_first_ticket_is_found_again_the_others_wait(stage: Stage, psa: Psa) -> None:
    psa.state.clock = stage.store.now
    psa.state.search_lag = 20
    stage.report(1, 2, 3)
    stage.work()
    stage.work(15)
    assert psa.references() == {reference(1): 1}
    assert "was found by its reference" in stage.runtime.why_waiting(psa.name)
    assert stage.delivery(1, psa.name).todo == ("verify",)
    stage.turn(2, psa.name)
    assert psa.references() == {reference(1): 1}, "the gate refuses also what slipped past the dispatcher"
    assert "waiting until the first ticket" in stage.delivery(2, psa.name).reason
    for _ in range(3):
        stage.work(15)
    assert stage.store.paused(psa.name) is None
    assert psa.references() == {reference(number): 1 for number in (1, 2, 3)}


def test_another_ticket_proves_when_the_proof_is_forgotten(stage: Stage, psa: Psa) -> None:
    """A change of settings while the first ticket was being looked up."""
    psa.state.clock = stage.store.now
    psa.state.search_lag = 1e9
    stage.report(1, 2)
    stage.work()
    stage.store.unprove(psa.name)
    for _ in range(12):
        stage.work(6)
    assert psa.references() == {reference(1): 1, reference(2): 1}
    assert stage.delivery(1, psa.name).todo == (), "its own search is over: somebody else proves now"
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert pause.report_id == 2


# -- workers that die --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_a_killed_workers_create_is_looked_up_within_20_seconds(stage: Stage, psa: Psa, committed: bool) -> None:
    proven(stage, psa)
    stage.report(1)
    stage.die(1, psa.name, creating=True)
    if committed:
        psa.add_ticket(1)
    assert stage.work(LEASE - 1) == []
    assert stage.work(1.5) == [(1, psa.name)], "its lease is over"
    assert "ended before it could say" in stage.delivery(1, psa.name).reason
    assert psa.look_ups(1) == []
    stage.work(6)
    assert len(psa.look_ups(1)) == 1
    if not committed:
        stage.wait(50)
        assert psa.references()[reference(1)] == 0
        stage.wait(5)
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.CREATED
    assert psa.references()[reference(1)] == 1
    assert len(psa.creates(1)) == (0 if committed else 1)


def test_a_report_that_kills_workers_is_told_plainly_and_then_held(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    stage.report(1, 2)
    for number, deaths in ((1, PLAIN_AFTER), (2, GIVE_UP_AFTER)):
        for _ in range(deaths):
            stage.die(number, psa.name)
            stage.store.clock_offset += LEASE + 1
    stage.wait(320)
    told, held = stage.delivery(1, psa.name), stage.delivery(2, psa.name)
    assert told.state is DeliveryState.CREATED
    assert "plain rendering was used" in told.reason
    assert [note for note in psa.notes(psa.ids(1)[0]) if "workers ended while they rendered this report" in note]
    assert held.state is DeliveryState.HELD
    assert held.reason.startswith(f"{GIVE_UP_AFTER} workers in a row ended while they worked on this delivery")
    assert psa.ids(2) == []
    assert stage.work(3600) == []
    assert stage.store.retry(2, psa.name) == "held"
    stage.work()
    assert stage.delivery(2, psa.name).state is DeliveryState.CREATED
    assert "plain" not in stage.delivery(2, psa.name).reason


def die_in_doubt(stage: Stage, psa: Psa, times: int) -> None:
    """Workers die over report 1: one while it creates, the others while they look it up."""
    proven(stage, psa)
    stage.report(1)
    stage.die(1, psa.name, creating=True)
    stage.store.clock_offset += LEASE + 1
    assert stage.claim(1, psa.name) == "early"
    for _ in range(times - 1):
        stage.store.clock_offset += LEASE + 1
        stage.die(1, psa.name)


def test_a_ticket_that_exists_needs_no_person_however_many_workers_ended(stage: Stage, psa: Psa) -> None:
    die_in_doubt(stage, psa, GIVE_UP_AFTER)
    psa.add_ticket(1)
    stage.wait(LEASE + 5)
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.creates(1) == []


def test_looking_up_that_ends_workers_comes_to_an_end(stage: Stage, psa: Psa) -> None:
    die_in_doubt(stage, psa, 2 * GIVE_UP_AFTER)
    psa.add_ticket(1)
    stage.work(LEASE + 1)
    assert stage.delivery(1, psa.name).state is DeliveryState.HELD
    assert psa.look_ups(1) == []


def test_a_held_doubt_is_looked_up_when_a_person_retries_it(stage: Stage, psa: Psa) -> None:
    die_in_doubt(stage, psa, GIVE_UP_AFTER)
    stage.wait(75)
    assert stage.delivery(1, psa.name).state is DeliveryState.HELD
    assert psa.creates(1) == []
    psa.add_ticket(1)
    stage.store.retry(1, psa.name)
    stage.work()
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.creates(1) == []


# -- good clients ------------------------------------------------------------------------------------------------------


def test_concurrency_holds_across_workers(make: MakeStage, psa: Psa) -> None:
    stages = [make(psa.name, concurrency=2) for _ in range(2)]
    proven(stages[0], psa)
    stages[1].store.clock_offset = stages[0].store.clock_offset
    numbers = range(1, 13)
    stages[0].report(*numbers)
    psa.server.peak_in_flight = 0
    psa.server.latency = 0.01
    waiting = set(numbers)

    def worker(stage: Stage) -> None:
        while waiting:
            for number in sorted(waiting):
                stage.turn(number, psa.name)
                if stage.delivery(number, psa.name).state is DeliveryState.CREATED:
                    waiting.discard(number)

    threads = [threading.Thread(target=worker, args=(stages[place % 2],)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {psa.references()[reference(number)] for number in numbers} == {1}
    assert psa.server.peak_in_flight == 2


def test_there_are_threads_for_everyone_and_two_more(make: MakeStage, systems: Systems) -> None:
    assert make("psa", "desk", "oncall", concurrency=2).runtime.settings.worker_threads >= 8


@pytest.mark.parametrize(
    ("answer", "status", "named", "seconds"),
    [
        ("create", 429, "30", 30),
        ("create", 503, "30", 30),
        ("create", 500, "30", 30),
        ("create", 429, "86400", 900),
        ("look-up", 429, "30", 30),
        ("look-up", 503, "30", 30),
        ("look-up", 503, "86400", 900),
    ],
)
def test_retry_after_is_kept(stage: Stage, psa: Psa, answer: str, status: int, named: str, seconds: float) -> None:
    proven(stage, psa)
    fault = psa.fault_create if answer == "create" else psa.fault_look_up
    fault("status", 1, status=status, headers={"Retry-After": named})
    stage.report(1, 2, 3)
    stage.turn(1, psa.name)
    count = len(psa.received())
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert pause.kind == "rate"
    assert str(status) in pause.reason
    assert seconds - 1 < pause.until - stage.store.now() <= seconds
    stage.turn(2, psa.name)
    assert stage.work(seconds - 2) == []
    assert len(psa.received()) == count, "nothing is asked during the pause"
    assert "paused" in stage.runtime.why_waiting(psa.name)
    stage.wait(120)
    assert {psa.references()[reference(number)] for number in (1, 2, 3)} == {1}


def test_a_429_without_a_time_leaves_the_others_alone(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa"), systems.psa("psa")
    proven(stage, psa)
    psa.fault_create("status", 1, status=429)
    stage.report(1, 2)
    stage.work()
    assert stage.store.paused("psa") is None
    assert [psa.references()[reference(number)] for number in (1, 2)] == [0, 1]
    assert stage.delivery(1).state is DeliveryState.PENDING
    stage.work(5)
    assert psa.references()[reference(1)] == 1


def test_a_pause_stops_a_turn_between_two_requests(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    stage.report(1)
    on(
        psa,
        lambda request: psa.is_look_up(request, 1),
        lambda: stage.store.pause(psa.name, "rate", 30, "the other worker was told to wait"),
    )
    stage.turn(1, psa.name)
    assert psa.received()[-1:] == psa.look_ups(1)
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.PENDING
    assert "paused" in delivery.reason
    stage.work(31)
    assert psa.references()[reference(1)] == 1


def test_a_pause_is_kept_between_any_two_requests(make: MakeStage, psa: Psa) -> None:
    """Another worker is told to wait after the first request of a delivery, after its second, and so on."""
    whole = make(psa.name)
    whole.report(100)
    whole.turn(100, psa.name)
    requests = len(psa.received())
    assert requests > 6
    for number in range(1, requests):
        stage = make(psa.name)  # a process that knows nothing of the PSA yet, so it asks for everything
        stage.store.client.flushall()
        stage.store.open()
        stage.report(number)
        start = len(psa.received())
        on(
            psa,
            lambda request, last=start + number - 1: len(psa.received()) == last,  # type: ignore[misc]
            lambda stage=stage: stage.store.pause(psa.name, "rate", 30, "too many requests"),  # type: ignore[misc]
        )
        stage.turn(number, psa.name)
        assert len(psa.received()) == start + number
        stage.wait(31)
        assert psa.references()[reference(number)] == 1
        assert stage.delivery(number, psa.name).todo == ()


def test_a_pause_during_a_follow_up_leaves_the_rest_for_later(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("desk"), systems.psa("desk")
    proven(stage, psa)
    psa.server.fault("status", method="POST", path="/Notes$", status=429, headers={"Retry-After": "30"})
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, "desk")
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ("complete",))
    assert delivery.reason.startswith("the ticket exists; completing the ticket (number, link, host) waits: ")
    assert stage.work(29) == []
    stage.work(2)
    delivery = stage.delivery(1, "desk")
    assert (delivery.todo, delivery.reason) == ((), "")
    assert len(psa.notes(psa.ids(1)[0])) == 1
    assert len(psa.creates(1)) == 1


def test_what_a_follow_up_is_refused_is_said_and_left(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("desk"), systems.psa("desk")
    proven(stage, psa)
    psa.server.fault("status", method="POST", path="/Notes$", status=500, body={"errors": ["Notes are closed."]})
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, "desk")
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ())
    assert "failed: Autotask refused: Notes are closed." in delivery.reason
    assert stage.scheduled("desk") == 0


def test_one_misconfigured_delivery_does_not_stop_the_others(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    psa.fault_create("status", 1, status=403)
    stage.report(1, 2)
    stage.work()
    assert stage.store.paused(psa.name) is None, "a probe found nothing wrong"
    assert [psa.references()[reference(number)] for number in (1, 2)] == [0, 1]
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.PENDING
    assert "403" in delivery.reason
    assert 44 < stage.waits(1, psa.name) <= 60
    stage.wait(66)
    assert psa.references()[reference(1)] == 1


def break_credentials(psa: Psa) -> None:
    psa.server.fault("status", status=401, times=None)


def test_a_misconfigured_connector_is_probed_until_it_works(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    break_credentials(psa)
    stage.report(1, 2, 3)
    stage.work()
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert pause.kind == "misconfigured"
    assert "401" in pause.reason
    assert stage.store.client.ttl(stage.store.key(f"suspect:{psa.name}")) <= 15
    steps = []
    asked = len(psa.received())
    waited = 0
    for _ in range(2 * 3600 // 30):
        assert stage.work() == []
        stage.probe(30)
        waited += 30
        if len(psa.received()) > asked:
            asked = len(psa.received())
            steps.append(waited)
            waited = 0
    assert steps == [60, 120, 240, 480, 900, 900, 900, 900, 900, 900, 900]
    psa.server.faults.clear()
    stage.probe(900)
    assert stage.store.paused(psa.name) is None
    assert len(stage.work()) == 3, "everything waiting is due"
    assert {psa.references()[reference(number)] for number in (1, 2, 3)} == {1}


@pytest.mark.parametrize(("named", "quiet_until"), [("30", 180), ("600", 660)])
def test_a_probe_is_not_repeated_before_the_time_it_was_told(
    stage: Stage, psa: Psa, named: str, quiet_until: int
) -> None:
    """A probe after one minute is told to wait; the next one would come two minutes later."""
    proven(stage, psa)
    break_credentials(psa)
    stage.report(1)
    stage.work()
    psa.server.faults.clear()
    psa.server.fault("status", status=429, times=None, headers={"Retry-After": named})
    stage.probe(61)
    asked = len(psa.received())
    stage.probe(quiet_until - 61 - 2)
    assert len(psa.received()) == asked
    assert stage.store.paused(psa.name) is not None
    psa.server.faults.clear()
    stage.probe(4)
    assert stage.store.paused(psa.name) is None
    stage.work()
    assert psa.references()[reference(1)] == 1


def test_an_unfindable_connector_stays_paused_while_it_cannot_be_asked(stage: Stage, psa: Psa) -> None:
    psa.state.clock = stage.store.now
    psa.state.search_lag = 1e9
    stage.report(1, 2)
    stage.wait(75)
    assert stage.store.paused(psa.name) is not None
    psa.server.stop()
    stage.probe(61)
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert "no connection" in pause.reason
    psa.server.start()
    stage.store.unprove(psa.name)  # changed settings: their own first ticket will tell
    stage.probe(121)
    assert stage.store.paused(psa.name) is None


def test_where_nothing_is_found_a_lost_answer_costs_one_second_ticket_and_no_more(stage: Stage, psa: Psa) -> None:
    """Nobody can be asked: a ticket that is not seen looks like one that was never made."""
    psa.state.search_right = "sees nothing"
    psa.fault_create("commit_drop", 1)
    stage.report(1, 2, 3)
    stage.wait(150)
    assert psa.references() == {reference(1): 2}
    pause = stage.store.paused(psa.name)
    assert pause is not None
    assert (pause.kind, pause.report_id) == ("unfindable", 1)


@pytest.mark.parametrize(
    ("changed", "lifted"),
    [({}, False), ({"private_key": "another"}, True), ({"private_key": "another", "timeout": 31}, True)],
    ids=["restarted", "credentials", "settings"],
)
def test_a_start_lifts_a_failed_proof_only_with_other_settings_or_credentials(
    make: MakeStage, systems: Systems, changed: dict[str, Any], lifted: bool
) -> None:
    first = make("psa")
    start_and_stop_a_worker(first)
    systems.connectwise.clock = first.store.now
    systems.connectwise.search_lag = 1e9
    first.report(1)
    first.wait(75)
    pause = first.store.paused("psa")
    assert pause is not None
    later = make("psa", **changed)
    start_and_stop_a_worker(later)
    assert (later.store.proving_report("psa") is None) == lifted
    paused = later.store.client.hgetall(later.store.key("pause:psa"))
    assert paused["kind"] == "unfindable", "only a probe ends the pause"
    assert (paused["next_probe"] == "0") == lifted, "which is due at once when something changed"
    assert "another" not in str(later.store.client.hgetall(later.store.key("meta")))


def start_and_stop_a_worker(stage: Stage) -> None:
    process = Process(stage.runtime, ["worker"])
    process.start_worker()
    process.stop()
    stage.runtime.stopping.clear()


def test_changed_settings_are_probed_at_once(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa", board="Nowhere"), systems.psa("psa")
    stage.report(1)
    stage.work()
    pause = stage.store.paused("psa")
    assert pause is not None
    assert pause.reason.startswith("board: ")
    assert "Nowhere" in pause.reason
    stage.config.write_text(stage.config.read_text("utf-8").replace("Nowhere", "Security"), "utf-8")
    assert stage.runtime.reload()
    stage.probe()
    stage.work()
    assert psa.references() == {reference(1): 1}


def test_a_probe_with_settings_that_changed_meanwhile_does_not_count(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa", board="Nowhere"), systems.psa("psa")
    stage.report(1)
    stage.work()
    assert stage.store.paused("psa") is not None
    stage.config.write_text(stage.config.read_text("utf-8").replace("Nowhere", "Security"), "utf-8")
    on(psa, lambda request: True, lambda: stage.runtime.reload())
    stage.probe(61)
    stage.probe()
    stage.work()
    assert psa.references() == {reference(1): 1}


def test_settings_that_are_read_again_are_not_due_before_they_are_in_use(make: MakeStage, systems: Systems) -> None:
    stage = make("psa", board="Nowhere")
    stage.report(1)
    stage.work()
    pause = stage.store.paused("psa")
    stage.store.unprove("psa", "a digest")
    assert stage.store.paused("psa") == pause


def test_an_unreachable_system_is_not_taken_for_a_misconfigured_one(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    psa.fault_create("status", 1, status=401)
    on(psa, psa.is_create, lambda: psa.server.fault("drop", method="GET", times=None))
    stage.report(1)
    stage.work()
    assert stage.store.paused(psa.name) is None
    psa.server.faults.clear()
    stage.wait(66)
    assert psa.references()[reference(1)] == 1


def test_nothing_is_probed_while_the_system_asked_to_be_left_alone(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    psa.fault_create("status", 1, status=403)
    on(
        psa,
        lambda request: psa.is_create(request, 1),
        lambda: stage.store.pause(psa.name, "rate", 30, "another worker was told to wait"),
    )
    stage.report(1)
    stage.turn(1, psa.name)
    assert psa.is_create(psa.received()[-1])
    stage.wait(66)
    assert psa.references()[reference(1)] == 1


# -- an empty store, a replica -----------------------------------------------------------------------------------------


def test_in_a_store_that_came_back_empty_tickets_are_adopted_and_nothing_is_created_for_settle(
    stage: Stage, psa: Psa
) -> None:
    proven(stage, psa)
    stage.store.client.flushall()
    stage.store.reborn()
    stage.report(100, 1)
    stage.work()
    assert stage.delivery(100, psa.name).state is DeliveryState.CREATED
    assert stage.delivery(1, psa.name).state is DeliveryState.PENDING
    assert "came back empty" in stage.delivery(1, psa.name).reason
    stage.work(LEASE + 58)
    assert psa.creates(1) == []
    stage.work(3)
    assert psa.references() == {reference(100): 1, reference(1): 1}


def test_a_store_lost_while_a_create_is_under_way_gets_its_ticket(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    stage.report(1)
    on(psa, lambda request: psa.is_create(request, 1), stage.store.client.flushall)
    stage.turn(1, psa.name)
    stage.report(1)
    stage.work()
    stage.wait(75)
    assert psa.references()[reference(1)] == 1
    assert len(psa.creates(1)) == 1
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    stage.wait(120)
    assert stage.delivery(1, psa.name).todo == ()
    assert stage.scheduled(psa.name) == 0


def test_a_store_lost_before_the_gate_opens_nothing(stage: Stage, psa: Psa) -> None:
    proven(stage, psa)
    stage.report(1)
    on(psa, lambda request: psa.is_look_up(request, 1), stage.store.client.flushall)
    stage.turn(1, psa.name)
    assert psa.creates(1) == []
    stage.report(1)
    stage.wait(75)
    assert psa.references()[reference(1)] == 1


def test_a_job_that_finds_redis_away_is_over_without_an_error(
    make: MakeStage, make_redis_server: MakeServer, systems: Systems
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make("psa", url=server.url)
    stage.report(1)
    server.stop()
    stage.turn(1)
    server.start()
    stage.work(1)
    assert systems.psa("psa").references()[reference(1)] == 1


def test_with_a_replica_that_does_not_confirm_nothing_is_sent(
    make: MakeStage, make_redis_server: MakeServer, systems: Systems
) -> None:
    port = free_port(0)
    primary = make_redis_server("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    replica = make_redis_server("--replicaof", "127.0.0.1", str(port))
    psa = systems.psa("psa")
    stage = make("psa", url=primary.url)
    with replica.client() as admin:
        wait_for(lambda: admin.info("replication")["master_link_status"] == "up")
    proven(stage, psa)
    stage.report(1, 2)
    stage.turn(1)
    assert psa.references()[reference(1)] == 1
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        stage.turn(2)
        assert psa.creates(2) == []
        assert "no replica of Redis confirmed" in stage.delivery(2).reason
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    stage.work(2)
    assert psa.references()[reference(2)] == 1


# -- what a ticket says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "why"),
    [("{{ report.nothing_of_that_kind }}", "nothing_of_that_kind"), ("{% if %}", "text.j2"), ("{{ 1 / 0 }}", "zero")],
)
def test_a_broken_template_never_costs_a_ticket(
    make: MakeStage, psa: Psa, tmp_path: Path, broken: str, why: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.j2").write_text(broken, "utf-8")
    stage = make(psa.name, templates=str(tmp_path / "mine"))
    stage.report(1)
    stage.work()
    assert psa.references() == {reference(1): 1}
    delivery = stage.delivery(1, psa.name)
    assert delivery.state is DeliveryState.CREATED
    assert why in delivery.reason
    [note] = [note for note in psa.notes(psa.ids(1)[0]) if "/plain]" in note]
    assert why in note
    assert delivery.todo == ()


def test_details_that_come_late_follow_as_a_note(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa"), systems.psa("psa")
    systems.huntress.fault("status", path="/agents/", status=500, times=3)
    stage.report(1, agent_id=1)
    stage.work()
    delivery = stage.delivery()
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ("details",))
    host = systems.huntress.agents[1]["hostname"]
    [id] = psa.ids(1)
    assert host not in systems.connectwise.tickets[id]["initialInternalAnalysis"]
    stage.wait(66)
    assert stage.delivery().todo == ("details",)
    for _ in range(3):
        stage.work(120)
    assert stage.delivery().todo == ()
    [note] = [note for note in psa.notes(id) if "/details]" in note]
    assert f"* Host: {host}" in note


def test_details_that_never_come_are_not_waited_for_for_ever(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa"), systems.psa("psa")
    systems.huntress.fault("status", path="/agents/", status=500, times=None)
    stage.report(1, agent_id=1)
    stage.work()
    for _ in range(12):
        stage.work(900)
    assert stage.delivery().todo == ()
    assert stage.scheduled("psa") == 0
    [note] = [note for note in psa.notes(psa.ids(1)[0]) if "/details]" in note]
    assert "* Organization: Acme Corp (id 1)" in note


def test_details_of_what_is_gone_by_then_are_not_noted(make: MakeStage, systems: Systems) -> None:
    stage, psa = make("psa"), systems.psa("psa")
    systems.huntress.fault("status", path="/agents/", status=500, times=2)
    stage.report(1, agent_id=1, organization_id=None)
    stage.work()
    assert stage.delivery().todo == ("details",)
    del systems.huntress.agents[1]
    stage.work(61)
    assert stage.delivery().todo == ()
    assert not [note for note in psa.notes(psa.ids(1)[0]) if "/details]" in note]


# -- e-mail ------------------------------------------------------------------------------------------------------------


def received(systems: Systems, number: int = 1) -> list[str]:
    """Recipients of the mails about a report, in order."""
    start = f"<{reference(number)}@"
    return [m.recipient for m in systems.mailbox.messages if str(m.message["Message-ID"]).startswith(start)]


def on_mail(systems: Systems, meant: str, do: Callable[[], object]) -> None:
    """As `on`, for a step of a mail's transaction."""
    open_ = [True]

    def meanwhile(step: str) -> None:
        if open_ and step == meant:
            open_.clear()
            do()

    systems.mailbox.meanwhile = meanwhile


def test_a_mail_is_sent_without_asking_and_then_left(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall")
    stage.report(1, 2, 3)
    stage.work()
    assert stage.work(3600) == []
    assert [received(systems, number) for number in (1, 2, 3)] == [["oncall@example.com"]] * 3
    delivery = stage.delivery(1, "oncall")
    assert (delivery.state, delivery.ticket) == (
        DeliveryState.CREATED,
        TicketRef(f"{reference(1)}@example.com"),
    )


@pytest.mark.parametrize("kind", ["greylist", "reject_data_451", "reject_mail_451", "drop_before_data", "drop_connect"])
def test_a_mail_that_was_certainly_not_taken_is_sent_once_later(make: MakeStage, systems: Systems, kind: str) -> None:
    stage = make("oncall")
    systems.mailbox.fault(kind)  # type: ignore[arg-type]
    stage.report(1)
    stage.work()
    assert received(systems) == []
    delivery = stage.delivery(1, "oncall")
    assert delivery.state is DeliveryState.PENDING
    assert delivery.reason
    assert stage.work(3) == []
    stage.work(2)
    assert received(systems) == ["oncall@example.com"]
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


@pytest.mark.parametrize("kind", ["drop_after_dot", "garbage_after_dot"])
def test_a_mail_whose_answer_was_lost_is_sent_again_once(make: MakeStage, systems: Systems, kind: str) -> None:
    stage = make("oncall")
    systems.mailbox.fault(kind, times=2)  # type: ignore[arg-type]
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, "oncall")
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATING, ())
    assert "may have arrived" in delivery.reason
    assert "looked up" not in delivery.reason
    stage.work(6)
    delivery = stage.delivery(1, "oncall")
    assert delivery.state is DeliveryState.HELD
    assert "look for Message-ID" in delivery.reason
    assert stage.work(3600) == []
    assert received(systems) == ["oncall@example.com"] * 2
    identities = {str(mail.message["Message-ID"]) for mail in systems.mailbox.messages}
    assert len(identities) == 1
    assert stage.store.retry(1, "oncall") == "held"
    stage.work()
    assert len(received(systems)) == 3
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


def test_with_hold_a_mail_whose_answer_was_lost_is_not_sent_again(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall", on_unknown="hold")
    systems.mailbox.fault("drop_after_dot")
    stage.report(1, 2)
    stage.work()
    assert stage.delivery(1, "oncall").state is DeliveryState.HELD
    assert stage.delivery(2, "oncall").state is DeliveryState.CREATED
    assert stage.work(3600) == []
    assert received(systems) == ["oncall@example.com"]


@pytest.mark.parametrize(("on_unknown", "mails"), [("resend", 2), ("hold", 1)])
def test_a_worker_killed_after_the_final_dot(make: MakeStage, systems: Systems, on_unknown: str, mails: int) -> None:
    """What it wrote down before the dot tells the next one that the mail may have gone."""
    stage = make("oncall", on_unknown=on_unknown)
    systems.mailbox.fault("drop_after_dot")
    stage.report(1)
    claim = stage.die(1, "oncall", creating=True)
    connector = stage.service("oncall").connector
    ticket = Ticket(reference(1), 1, "A title", "Text", "")
    with pytest.raises((OutcomeUnknown, Held)):
        connector.create(connector.prepare(ticket), _Progress(stage.store, claim))
    assert len(received(systems)) == 1
    stage.work(LEASE + 1)
    stage.work(6)
    assert len(received(systems)) == mails
    expected = DeliveryState.CREATED if mails == 2 else DeliveryState.HELD
    assert stage.delivery(1, "oncall").state is expected


@pytest.mark.parametrize("how", ["lease lost", "redis away"])
def test_no_final_dot_without_having_written_it_down(
    make: MakeStage, systems: Systems, make_redis_server: MakeServer, how: str
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make("oncall", url=server.url)
    stage.report(1)

    def lose_lease() -> None:
        stage.store.clock_offset += LEASE + 1
        stage.die(1, "oncall")

    on_mail(systems, "recipient", lose_lease if how == "lease lost" else server.stop)
    stage.turn(1, "oncall")
    assert received(systems) == []
    if how == "redis away":
        server.start()
    stage.wait(LEASE + 15)
    assert received(systems) == ["oncall@example.com"]
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


def test_a_mail_that_went_out_while_redis_was_away_goes_out_once_more_at_most(
    make: MakeStage, systems: Systems, make_redis_server: MakeServer
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make("oncall", url=server.url)
    stage.report(1)
    on_mail(systems, "dot", server.stop)
    stage.turn(1, "oncall")
    server.start()
    stage.wait(LEASE + 15)
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED
    assert received(systems) == ["oncall@example.com"] * 2


def test_a_refused_recipient_keeps_nobody_else_waiting_and_nobody_gets_it_twice(
    make: MakeStage, systems: Systems
) -> None:
    names = ["a@example.com", "b@example.com", "c@example.com"]
    stage = make("oncall", recipients=names)
    refusal = systems.mailbox.fault("reject_rcpt_550", times=None, recipient="b@example.com")
    stage.report(1)
    stage.work()
    delivery = stage.delivery(1, "oncall")
    assert delivery.state is DeliveryState.REJECTED
    assert "b@example.com" in delivery.reason
    assert "user unknown" in delivery.reason
    assert "2 of 3 recipients have it" in delivery.reason
    assert received(systems) == ["a@example.com", "c@example.com"]
    systems.mailbox.faults.remove(refusal)
    stage.store.retry(1, "oncall")
    stage.work()
    assert received(systems) == ["a@example.com", "c@example.com", "b@example.com"]
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


def test_recipients_that_wait_keep_nobody_else_waiting(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall", recipients=["a@example.com", "b@example.com", "c@example.com"])
    systems.mailbox.fault("greylist", recipient="b@example.com")
    systems.mailbox.fault("drop_after_dot", recipient="c@example.com")
    stage.report(1)
    stage.work()
    assert received(systems) == ["a@example.com", "c@example.com"]
    stage.work(6)
    assert sorted(received(systems)) == ["a@example.com", "b@example.com", "c@example.com", "c@example.com"]
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


# -- connectors of other people ----------------------------------------------------------------------------------------


class Scripted(Connector):
    """A connector from elsewhere, that does what the test says. Kept in memory: references and notes."""

    type = "scripted"
    settings_class = ConnectorSettings

    def __init__(self, name: str, settings: ConnectorSettings) -> None:
        super().__init__(name, settings, ConnectorContext())
        #: What the next calls of each method raise; None: nothing.
        self.steps: dict[str, list[Exception | None]] = {}
        self.tickets: list[str] = []
        self.noted: list[Note] = []

    def _step(self, name: str) -> None:
        if self.steps.get(name):
            error = self.steps[name].pop(0)
            if error is not None:
                raise type(error)(*error.args)

    def parts(self) -> Sequence[TemplatePart]:
        return (TemplatePart("title", "title.j2"), TemplatePart("text", "text.j2"), TemplatePart("notice", "notice.j2"))

    def template_folder(self) -> Path:
        return super().template_folder().parent / "connectwise"

    def system(self) -> str:
        return "scripted"

    def check(self) -> list[Finding]:
        self._step("check")
        return []

    def find(self, reference: str) -> list[TicketRef]:
        self._step("find")
        return [TicketRef(str(at)) for at, held in enumerate(self.tickets, 1) if held == reference]

    def prepare(self, ticket: Ticket) -> str:
        self._step("prepare")
        return ticket.reference

    def create(self, prepared: str, progress: Progress) -> TicketRef:
        self._step("before")
        self.tickets.append(prepared)
        self._step("after")
        return TicketRef(str(len(self.tickets)))

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        self._step("complete")
        return replace(ref, number=f"N{ref.id}", url=f"https://example.com/{ref.id}")

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        self._step("note")
        self.noted.append(note)


@pytest.fixture
def scripted(make: MakeStage, systems: Systems) -> tuple[Stage, Scripted]:
    stage = make("psa")
    old = stage.service("psa")
    connector = Scripted("psa", old.settings)
    service = replace(old, connector=connector)
    stage.runtime.assembly = replace(stage.runtime.assembly, services={"psa": service})
    stage.store.prove("psa")
    stage.report(1)
    return stage, connector


BUG = RuntimeError("a bug, with hunter2 in it")


@pytest.mark.parametrize(
    ("step", "error", "state", "tickets_later"),
    [
        ("before", OutcomeUnknown("who knows"), "creating", 1),
        ("after", OutcomeUnknown("who knows"), "creating", 1),
        ("before", BUG, "creating", 1),
        ("after", BUG, "creating", 1),
        ("before", Unavailable("not now"), "pending", 1),
        ("before", Misconfigured("no such board"), "pending", 1),
        ("prepare", BUG, "pending", 1),
        ("prepare", OutcomeUnknown("of a question"), "pending", 1),
        ("prepare", Rejected("never"), "rejected", 0),
        ("before", Rejected("never"), "rejected", 0),
        ("before", Held("nobody knows"), "held", 0),
        ("find", BUG, "pending", 1),
        ("find", Rejected("odd, for a question"), "rejected", 0),
    ],
)
def test_every_outcome_of_a_create(
    scripted: tuple[Stage, Scripted], step: str, error: Exception, state: str, tickets_later: int
) -> None:
    stage, connector = scripted
    connector.steps[step] = [error]
    stage.work()
    delivery = stage.delivery()
    assert delivery.state == state
    assert (str(error) in delivery.reason) is (error is not BUG)
    assert "hunter2" not in delivery.reason
    for _ in range(20):
        stage.work(10)
    assert len(connector.tickets) == tickets_later


@pytest.mark.parametrize("error", [Rejected("odd"), Misconfigured("odd"), Unavailable("odd"), BUG, OutcomeUnknown("x")])
def test_no_failing_look_up_ends_a_doubt(scripted: tuple[Stage, Scripted], error: Exception) -> None:
    stage, connector = scripted
    connector.steps = {"after": [BUG], "find": []}
    stage.work()
    connector.steps["find"] = [error] * 5
    for _ in range(10):
        stage.work(10)
        assert stage.delivery().state in (DeliveryState.CREATING, DeliveryState.CREATED)
    for _ in range(5):
        stage.work(900)
    assert stage.delivery().state is DeliveryState.CREATED
    assert len(connector.tickets) == 1


@pytest.mark.parametrize("error", [Held("?"), Misconfigured("?"), Unavailable("?"), OutcomeUnknown("?"), BUG])
def test_what_a_ticket_still_needs_is_done_later(scripted: tuple[Stage, Scripted], error: Exception) -> None:
    stage, connector = scripted
    connector.steps["complete"] = [error, error]
    stage.work()
    delivery = stage.delivery()
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ("complete",))
    assert delivery.reason
    for _ in range(4):
        stage.work(120)
    delivery = stage.delivery()
    assert (delivery.todo, delivery.reason) == ((), "")
    assert delivery.ticket == TicketRef("1", "N1", "https://example.com/1")
    assert len(connector.tickets) == 1


def test_what_fails_again_and_again_keeps_no_news_from_a_ticket(scripted: tuple[Stage, Scripted]) -> None:
    stage, connector = scripted
    connector.steps["complete"] = [Unavailable("not now")] * 100
    stage.work()
    stage.report(1, subject="LOW - changed")
    stage.wait(30)
    assert connector.noted == [], "a moment's trouble is waited for"
    stage.wait(90)
    assert len(connector.noted) == 1
    stage.wait(600)
    assert len(connector.noted) == 1
    assert stage.delivery().todo == ("complete",)


def test_a_refused_search_proves_nothing(scripted: tuple[Stage, Scripted]) -> None:
    stage, connector = scripted
    stage.store.unprove("psa")
    connector.steps["find"] = [None, Rejected("odd, for a question")]
    stage.work()
    assert stage.delivery().todo == ("verify",)
    assert stage.store.proving_report("psa") == 1
    stage.work(6)
    assert stage.delivery().todo == ()
    assert stage.store.proving_report("psa") is None


def test_a_check_that_fails_does_not_stop_the_prober(scripted: tuple[Stage, Scripted]) -> None:
    stage, connector = scripted
    connector.steps = {"before": [Misconfigured("no such board")], "check": [BUG, BUG]}
    stage.work()
    pause = stage.store.paused("psa")
    assert pause is not None
    assert pause.reason == "its check failed (RuntimeError); the log has the details"
    stage.probe(61)
    assert stage.store.paused("psa") is not None
    stage.probe(121)
    assert stage.store.paused("psa") is None
    stage.work()
    assert stage.delivery().state is DeliveryState.CREATED


def test_a_follow_up_that_kills_workers_is_given_up(scripted: tuple[Stage, Scripted]) -> None:
    stage, connector = scripted
    connector.steps["complete"] = [Unavailable("not yet")]
    stage.work()
    for _ in range(GIVE_UP_AFTER):
        stage.store.clock_offset += 60
        stage.die()
    stage.wait(LEASE + 320)
    delivery = stage.delivery()
    assert (delivery.state, delivery.todo) == (DeliveryState.CREATED, ())
    assert (
        f"{GIVE_UP_AFTER} workers in a row ended over this ticket; not done: completing the ticket" in delivery.reason
    )
    assert stage.work(3600) == []
    assert stage.scheduled("psa") == 0
