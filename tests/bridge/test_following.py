"""A ticket follows its report to the end: what changed, that it is over, that it is open again; in every system."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.absences import Absences
from bridge.demo.autotask import PretendAutotask
from bridge.demo.server import FaultKind
from bridge.ends import Ends
from bridge.idempotency import LEASE
from bridge.leadership import Leadership
from bridge.models import Delivery, DeliveryState, Remediation
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.psa import PSAS, Psa, reference

#: Seconds after which no status of a new ticket counts as its first any more.
SETTLED = 150.0
#: How either ticket system says no for good.
REFUSAL = {"code": "InvalidObject", "message": "not here", "errors": ["not here"]}


def opened(stage: Stage, **fields: Any) -> None:
    """Report 1 is open and has its ticket, made a while ago."""
    stage.report(1, **fields)
    stage.work()
    stage.work(SETTLED)


def ended(stage: Stage, status: str = "closed", **fields: Any) -> None:
    moment = datetime.fromtimestamp(stage.store.now(), UTC)
    stage.report(1, status=status, closed_at=moment, updated_at=moment, **fields)
    stage.work()


def delivery(stage: Stage, psa: Psa) -> Delivery:
    return stage.delivery(1, psa.name)


def ticket_of(psa: Psa, number: int = 1) -> dict[str, Any]:
    [id] = psa.ids(number)
    with psa.server.lock:
        row: dict[str, Any] = dict(psa.state.tickets[id])
    return row


def status_of(psa: Psa) -> str:
    """Name of the status of report 1's ticket."""
    status = ticket_of(psa)["status"]
    if isinstance(psa.state, PretendAutotask):
        names = {str(each["value"]): each["label"] for each in psa.state.field("status")["picklistValues"]}
        return str(names[str(status)])
    return str(status["name"])


def is_closed(stage: Stage, psa: Psa) -> bool:
    made = delivery(stage, psa).ticket
    assert made is not None
    state = stage.service(psa.name).connector.look(made)
    assert state is not None
    return state.closed


def priority_of(psa: Psa) -> Any:
    priority = ticket_of(psa)["priority"]
    return priority["id"] if isinstance(priority, dict) else priority


def told(psa: Psa, headline: str = "") -> list[str]:
    """Notes of report 1's ticket that tell what became of it."""
    [id] = psa.ids(1)
    kinds = r"\[huntress-5-1/(update|ended|reopened|continued)-[^]]*\]$"
    return [note for note in psa.notes(id) if re.search(kinds, note.rstrip()) and headline in note]


# -- what changed ------------------------------------------------------------------------------------------------------


def test_one_note_says_what_changed(stage: Stage, psa: Psa) -> None:
    step = Remediation(3, action="Delete File", status="unapproved")
    opened(stage, remediations=(step,), status="sent")
    stage.report(1, remediations=(Remediation(3, action="Delete File", status="completed"),), status="auto_remediating")
    stage.work()
    [note] = told(psa)
    assert "unapproved" in note
    assert "completed" in note
    assert "auto remediating" in note
    assert delivery(stage, psa).state is DeliveryState.CREATED
    stage.work(3600)
    assert len(told(psa)) == 1


def test_nothing_is_said_of_what_people_need_not_know(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.report(1, updated_at=datetime(2026, 1, 1, tzinfo=UTC))
    stage.work()
    assert told(psa) == []
    assert stage.store.scheduled(psa.name) == 0


def test_a_severity_that_rises_raises_the_priority(stage: Stage, psa: Psa) -> None:
    opened(stage, severity="low")
    before = priority_of(psa)
    stage.report(1, severity="critical")
    stage.work()
    assert priority_of(psa) != before
    [note] = told(psa)
    assert "low" in note
    assert "critical" in note
    assert "priority was raised" in note


def test_a_severity_that_falls_lowers_nothing(stage: Stage, psa: Psa) -> None:
    opened(stage, severity="critical")
    before = priority_of(psa)
    stage.report(1, severity="low")
    stage.work()
    assert priority_of(psa) == before
    assert len(told(psa)) == 1


def test_each_change_has_a_note_of_its_own(stage: Stage, psa: Psa) -> None:
    opened(stage, severity="low")
    for severity in ("high", "low", "high", "low"):
        stage.report(1, severity=severity)
        stage.work()
    assert len(told(psa)) == 4


def test_what_changes_while_the_ticket_system_is_away_is_told_together(stage: Stage, psa: Psa) -> None:
    opened(stage, severity="low")
    psa.server.fault("status", status=503, times=None)
    stage.report(1, severity="high")
    stage.work()
    waiting = delivery(stage, psa)
    assert waiting.reason.startswith("the ticket exists; ")
    assert waiting.next_attempt_at is not None
    stage.report(1, severity="critical")
    stage.work()
    psa.server.faults.clear()
    stage.wait(600)
    [note] = told(psa)
    assert "critical" in note
    assert delivery(stage, psa).reason == ""


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["closed", "dismissed", "partner_dismissed"])
def test_an_end_is_told_and_closes_the_ticket(stage: Stage, psa: Psa, status: str) -> None:
    opened(stage)
    assert status_of(psa) != "Complete"
    ended(stage, status, remediations=(Remediation(3, action="Delete File", status="completed"),))
    [note] = told(psa)
    assert "This ticket is closed." in note
    assert delivery(stage, psa).state is DeliveryState.CLOSED
    assert is_closed(stage, psa)
    if psa.name == "desk":
        resolution = ticket_of(psa)["resolution"]
        assert status.rpartition("_")[2] in resolution
        assert "Delete File" in note
        assert "Delete File" not in resolution, "contacts may read it"
    stage.work(3600)
    assert len(told(psa)) == 1
    assert stage.store.scheduled(psa.name) == 0


def test_a_report_that_ended_before_its_ticket_was_made_gets_one_and_its_end(stage: Stage, psa: Psa) -> None:
    psa.server.fault("status", status=503, times=None)
    stage.report(1)
    stage.work()
    assert delivery(stage, psa).state is DeliveryState.PENDING
    ended(stage)
    psa.server.faults.clear()
    stage.wait(600)
    assert delivery(stage, psa).state is DeliveryState.CLOSED
    assert len(told(psa)) == 1
    assert is_closed(stage, psa)


def test_what_ended_while_a_connector_was_left_out_is_told_when_it_is_back(make: MakeStage, systems: Systems) -> None:
    stage = make("psa", "desk")
    opened(stage)
    without = make("psa")
    without.store.clock_offset = stage.store.clock_offset
    leadership = Leadership(without.store, "poller", patience=1e9)
    leadership.candidate = "test"  # as `Stage.report` leads
    assert leadership.attempt()
    report = without.store.report(1)
    assert report is not None
    Ends(without.store, without.runtime.routes, leadership).end([replace(report, status="closed")])
    leadership.stop()
    stage.work()
    assert [is_closed(stage, systems.psa(name)) for name in PSAS] == [True, True]


def test_a_ticket_that_a_person_moved_on_gets_the_note_only(stage: Stage, psa: Psa) -> None:
    opened(stage)
    [id] = psa.ids(1)
    psa.state.set_status(id, "In Progress")
    ended(stage)
    [note] = told(psa)
    assert "a person has moved it on (status In Progress)" in note
    assert status_of(psa) == "In Progress"
    over = delivery(stage, psa)
    assert over.state is DeliveryState.CLOSED
    assert "a person has moved it on" in over.reason


def test_a_status_seen_right_after_the_creation_is_no_persons_doing(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.work()
    [id] = psa.ids(1)
    psa.state.set_status(id, "In Progress")  # a workflow rule
    stage.work(100)
    stage.work(3600)
    assert told(psa) == []
    ended(stage)
    assert is_closed(stage, psa)


def test_untouched_statuses_are_closed_all_the_same(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, untouched_statuses=["in progress"])
    opened(stage)
    [id] = psa.ids(1)
    psa.state.set_status(id, "In Progress")
    ended(stage)
    assert is_closed(stage, psa)


@pytest.mark.parametrize(("on_close", "notes"), [("note", 1), ("nothing", 0)])
def test_on_close(make: MakeStage, psa: Psa, on_close: str, notes: int) -> None:
    stage = make(psa.name, on_close=on_close)
    opened(stage)
    before = status_of(psa)
    ended(stage)
    assert len(told(psa)) == notes
    assert status_of(psa) == before
    assert delivery(stage, psa).state is DeliveryState.CLOSED
    assert f"on_close is {on_close}" in delivery(stage, psa).reason


def refuse_closing(psa: Psa) -> None:
    """Closing takes a time entry, which no ticket has."""
    if isinstance(psa.state, PretendAutotask):
        psa.state.rules.refuses_completion = "A time entry is required"
    else:
        psa.state.require_time_entry = True


def test_a_close_that_is_refused_is_one_note_and_one_reason(stage: Stage, psa: Psa) -> None:
    opened(stage)
    refuse_closing(psa)
    ended(stage)
    refused = delivery(stage, psa)
    assert refused.state is DeliveryState.CREATED
    assert "time" in refused.reason
    assert "close it by hand" in refused.reason
    [id] = psa.ids(1)
    notes = [note for note in psa.notes(id) if "did not close this ticket" in note]
    assert len(notes) == 1
    patches = len([request for request in psa.received() if request.method == "PATCH"])
    stage.work(7200)
    assert len([request for request in psa.received() if request.method == "PATCH"]) == patches
    assert [note for note in psa.notes(id) if "did not close this ticket" in note] == notes


def test_a_ticket_that_is_gone_is_not_made_again(stage: Stage, psa: Psa) -> None:
    opened(stage)
    [id] = psa.ids(1)
    psa.add_ticket(99)  # there are others to be seen
    psa.state.delete_ticket(id)
    stage.report(1, severity="critical")
    stage.work()
    gone = delivery(stage, psa)
    assert gone.state is DeliveryState.GONE
    assert "deleted" in gone.reason
    stage.report(1, severity="low")
    ended(stage)
    stage.wait(600)
    assert psa.ids(1) == []
    assert delivery(stage, psa).state is DeliveryState.GONE


def note_fault(psa: Psa, kind: FaultKind, **how: Any) -> None:
    """What happens to the next note on any ticket."""
    psa.server.fault(kind, method="POST", path="(?i)/tickets/[0-9]+/notes$", **how)


def test_a_ticket_deleted_while_its_note_is_in_doubt_is_gone(stage: Stage, psa: Psa) -> None:
    opened(stage)
    note_fault(psa, "commit_drop")
    ended(stage)
    [id] = psa.ids(1)
    psa.add_ticket(99)  # there are others to be seen
    psa.state.delete_ticket(id)
    stage.wait(120)
    gone = delivery(stage, psa)
    assert gone.state is DeliveryState.GONE
    assert "deleted" in gone.reason
    assert gone.next_attempt_at is None


def test_a_ticket_that_takes_neither_the_close_nor_a_note_is_left_with_one_reason(stage: Stage, psa: Psa) -> None:
    opened(stage)
    note_fault(psa, "status", status=400 if psa.name == "psa" else 500, times=None, body=REFUSAL)
    refuse_closing(psa)
    ended(stage)
    refused = delivery(stage, psa)
    assert refused.state is DeliveryState.CREATED
    assert "close it by hand" in refused.reason
    assert refused.next_attempt_at is None
    asked = len(psa.received())
    stage.work(7200)
    assert len(psa.received()) == asked, "there is no second attempt"


def test_a_ticket_deleted_before_it_was_complete_is_gone_when_its_report_ends(
    make: MakeStage, systems: Systems
) -> None:
    """Autotask's internal text follows the create in notes, and fails the same way whether or not there is a ticket."""
    stage, psa = make("desk"), systems.psa("desk")
    note_fault(psa, "status", status=503, times=None)
    opened(stage)
    [id] = psa.ids(1)
    psa.add_ticket(99)  # there are others to be seen
    psa.state.delete_ticket(id)
    psa.server.faults.clear()
    ended(stage)
    stage.wait(900)
    assert delivery(stage, psa).state is DeliveryState.GONE


def close_fault(psa: Psa, **how: Any) -> None:
    """The note of an end arrives, and the change of status does not."""
    psa.server.fault("status", method="PATCH", path="(?i)/tickets", status=503, **how)


def test_a_ticket_that_a_person_takes_up_before_it_could_be_closed_stays_open(stage: Stage, psa: Psa) -> None:
    opened(stage)
    close_fault(psa, times=None)
    ended(stage)
    assert len(told(psa)) == 1
    [id] = psa.ids(1)
    psa.state.set_status(id, "In Progress")
    psa.server.faults.clear()
    stage.wait(600)
    assert not is_closed(stage, psa)
    left = delivery(stage, psa)
    assert left.state is DeliveryState.CLOSED
    assert "a person has moved it on" in left.reason
    assert len(told(psa)) == 1


def test_an_end_that_is_overtaken_closes_nothing(stage: Stage, psa: Psa) -> None:
    opened(stage)
    close_fault(psa, times=None)
    ended(stage)
    stage.report(1, status="sent")
    psa.server.faults.clear()
    before = len([request for request in psa.received() if request.method == "PATCH"])
    stage.wait(600)
    assert len([request for request in psa.received() if request.method == "PATCH"]) == before
    assert not is_closed(stage, psa)
    after = delivery(stage, psa)
    assert (after.state, after.reason) == (DeliveryState.CREATED, "")
    assert [len(told(psa, headline)) for headline in ("closed", "opened again")] == [1, 1]


@pytest.mark.parametrize("jump", [-7200, 7200])
def test_a_clock_that_jumps_lets_no_note_in_doubt_wait_long_nor_go_out_at_once(
    stage: Stage, psa: Psa, jump: float
) -> None:
    opened(stage, severity="low")
    note_fault(psa, "drop")
    stage.report(1, severity="critical")
    stage.work()
    assert told(psa) == []
    stage.work()
    stage.store.clock_offset += jump
    stage.dispatcher.clock = lambda: time.monotonic() + stage.store.clock_offset - jump
    stage.work(6)
    assert told(psa) == [], "it may be on its way"
    stage.wait(120)
    assert len(told(psa)) == 1


# -- open again --------------------------------------------------------------------------------------------------------


def test_a_report_that_is_open_again_opens_its_ticket_again(stage: Stage, psa: Psa) -> None:
    opened(stage)
    before = status_of(psa)
    ended(stage)
    stage.work(3600)
    stage.report(1)
    stage.work()
    assert status_of(psa) == before
    assert delivery(stage, psa).state is DeliveryState.CREATED
    assert len(told(psa)) == 2
    ended(stage)
    assert delivery(stage, psa).state is DeliveryState.CLOSED
    assert len(told(psa)) == 3, "each end is told"


def test_each_end_is_told_also_when_the_source_gives_no_time_of_it(stage: Stage, psa: Psa) -> None:
    opened(stage)
    for count in (1, 2, 3):
        stage.report(1, status="unlisted")
        stage.work()
        assert is_closed(stage, psa)
        assert len(told(psa)) == 2 * count - 1
        stage.report(1)
        stage.work()
        assert len(told(psa)) == 2 * count


@pytest.mark.parametrize(("settings", "days"), [({"reopen": "never"}, 0), ({"reopen_within": "2d"}, 3)])
def test_or_gets_a_new_one_that_links_it(make: MakeStage, psa: Psa, settings: dict[str, str], days: int) -> None:
    stage = make(psa.name, **settings)
    opened(stage)
    [old] = psa.ids(1)
    ended(stage)
    stage.work(days * 86400)
    stage.report(1)
    stage.wait(60)
    made = delivery(stage, psa)
    assert made.reference == f"{reference(1)}-r2"
    assert made.state is DeliveryState.CREATED
    assert made.ticket is not None
    assert psa.references()[f"{reference(1)}-r2"] == 1
    assert psa.ids(1) == [old]
    assert [note for note in told(psa) if made.ticket.number in note or made.ticket.id in note]
    with psa.server.lock:
        row = psa.state.tickets[int(made.ticket.id)]
        texts = [*psa.notes(int(made.ticket.id)), str(row)]
    assert any("Former ticket" in text and str(old) in text for text in texts)
    ended(stage)
    assert delivery(stage, psa).state is DeliveryState.CLOSED


def test_always_opens_again_however_late(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, reopen="always")
    opened(stage)
    ended(stage)
    stage.work(400 * 86400)
    stage.report(1)
    stage.work()
    assert delivery(stage, psa).reference == reference(1)
    assert not is_closed(stage, psa)


# -- killed in between -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """This worker is no more."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 9))
@pytest.mark.parametrize("event", ["update", "end", "reopen"])
def test_a_worker_killed_at_any_request_leaves_one_note(
    stage: Stage, psa: Psa, event: str, nth: int, when: str
) -> None:
    """Killed before its n-th request goes out, or after it was answered and before anything came of it."""
    opened(stage, severity="low")
    if event == "reopen":
        ended(stage, severity="low")
    session: Any = stage.service(psa.name).connector.api._session  # type: ignore[attr-defined]
    seen: list[str] = []
    real = session.request

    def request(*args: Any, **kwargs: Any) -> Any:
        seen.append(str(args[:2]))
        if len(seen) == nth and when == "before":
            raise Killed
        answer = real(*args, **kwargs)
        if len(seen) == nth:
            raise Killed
        return answer

    session.request = request
    with contextlib.suppress(Killed):
        if event == "update":
            stage.report(1, severity="critical")
            stage.work()
        elif event == "end":
            ended(stage, severity="low")
        else:
            stage.report(1, severity="low")
            stage.work()
    assert stage.runtime.keeper.current() is None
    session.request = real
    stage.work(LEASE + 1)
    stage.wait(90)
    after = delivery(stage, psa)
    state = DeliveryState.CLOSED if event == "end" else DeliveryState.CREATED
    assert (after.state, after.reason) == (state, "")
    assert len(told(psa)) == (2 if event == "reopen" else 1)
    assert is_closed(stage, psa) is (event == "end")


# -- e-mail ------------------------------------------------------------------------------------------------------------


def test_by_mail_every_step_is_an_answer_in_the_same_thread(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall")
    opened(stage, severity="low")
    stage.report(1, severity="critical")
    stage.work()
    ended(stage, severity="critical")
    stage.report(1, severity="critical")
    stage.work()
    mails = [mail.message for mail in systems.mailbox.messages]
    first = mails[0]["Message-ID"]
    assert [mail["In-Reply-To"] for mail in mails] == [None, first, first, first]
    assert len({mail["Message-ID"] for mail in mails}) == 4
    assert all(first in mail["References"] for mail in mails)
    assert stage.delivery(1, "oncall").state is DeliveryState.CREATED


def test_a_new_thread_begins_where_the_old_one_is_not_taken_up(make: MakeStage, systems: Systems) -> None:
    stage = make("oncall", reopen="never")
    opened(stage)
    ended(stage)
    stage.report(1)
    stage.wait(60)
    ids = [mail.message["Message-ID"] for mail in systems.mailbox.messages]
    assert any(id.startswith("<huntress-5-1-r2@") for id in ids)
    assert len(ids) == len(set(ids)) == 4, "the ticket, its end, the new ticket, and where it goes on"


# -- around ------------------------------------------------------------------------------------------------------------


def test_quiet_hours_hold_news_back_but_no_critical_ones(make: MakeStage, psa: Psa) -> None:
    now = datetime.now(UTC)
    window = {"from": "00:00", "to": "24:00", "days": [f"{now:%a}".lower()]}
    stage = make(psa.name, quiet=[window])
    stage.report(1, severity="low")
    stage.work()
    held = delivery(stage, psa)
    assert held.state is DeliveryState.PENDING
    assert "quiet hours" in held.reason
    assert psa.ids(1) == []
    stage.report(1, severity="critical")
    stage.work()
    assert delivery(stage, psa).state is DeliveryState.CREATED


def test_a_ticket_linked_by_hand_takes_what_is_now_for_told(stage: Stage, psa: Psa) -> None:
    psa.server.fault("status", status=503, times=None)
    stage.report(1)
    stage.work()
    psa.server.faults.clear()
    id = psa.add_ticket(1)
    stage.wait(300)
    assert psa.ids(1) == [id]
    assert told(psa) == []
    assert Absences(stage.store).missing() == []


def test_a_snapshot_that_this_version_cannot_read_keeps_no_worker_busy(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.report(1, status="closed")
    snapshot = str(stage.store.client.hget(stage.store.key("report:1"), "snapshot"))
    stage.store.client.hset(stage.store.key("report:1"), "snapshot", '{"id": "of another version"}')
    assert len(stage.work()) <= 2, "once to see the change, once to see that it cannot be told"
    waiting = delivery(stage, psa)
    assert (waiting.state, told(psa)) == (DeliveryState.CREATED, [])
    assert "another version" in waiting.reason
    stage.store.client.hset(stage.store.key("report:1"), "snapshot", snapshot)
    stage.work(3600)
    assert delivery(stage, psa).state is DeliveryState.CLOSED
    assert len(told(psa)) == 1
