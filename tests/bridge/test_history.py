"""What the store remembers for people: timelines, changes, and what a person took care of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.history import LETTERS, HistoryEvent, What, read
from bridge.idempotency import Claim, IdempotencyStore
from bridge.linking import link_ticket
from bridge.models import DeliveryState, TicketRef
from bridge.scripts import script_text
from tests.bridge.stage import Stage
from tests.bridge.test_following import ended, opened, refuse_closing
from tests.bridge.test_idempotency import CONNECTOR, claim, client, observe, report, store
from tests.psa import Psa, reference

__all__ = ["client", "store"]  # fixtures

TICKET = TicketRef("77", "T77", "")


def timeline(stage: Stage, psa: Psa, number: int = 1) -> list[str]:
    """What happened, with how often where it was not once."""
    events = stage.store.history(number, psa.name)
    return [each.what + (f" x{each.times}" if each.times > 1 else "") for each in events]


def only(stage: Stage, psa: Psa, what: What, number: int = 1) -> HistoryEvent:
    [found] = [each for each in stage.store.history(number, psa.name) if each.what == what]
    return found


# -- timelines ---------------------------------------------------------------------------------------------------------


def test_a_ticket_from_first_sight_to_its_end(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.work(130)
    ended(stage)
    stage.work()
    assert timeline(stage, psa) == [
        *("seen", "claimed", "looked_up", "creating", "created"),
        *("claimed x2", "noted", "closed"),  # the first of them looked at the new ticket's status
    ]
    events = stage.store.history(1, psa.name)
    assert [each.at for each in events] == sorted(each.at for each in events)
    ticket = stage.delivery(1, psa.name).ticket
    assert ticket is not None
    assert only(stage, psa, What.CREATED).text == (ticket.number or ticket.id)
    assert only(stage, psa, What.NOTED).text.startswith("ended-")
    assert (events[0].attempt, events[1].attempt, events[-1].attempt) == (0, 1, stage.delivery(1, psa.name).attempts)


def test_what_waits_says_why_and_counts_instead_of_growing(stage: Stage, psa: Psa) -> None:
    psa.fault_look_up("status", status=503, times=3)
    stage.report(1)
    stage.wait(120)
    assert timeline(stage, psa)[:6] == ["seen", "claimed", "waiting x3", "claimed", "looked_up", "creating"]
    waiting = only(stage, psa, What.WAITING)
    assert "503" in waiting.text
    assert waiting.last_at > waiting.at
    assert waiting.attempt == 3


def test_a_doubtful_create_shows_its_look_ups(stage: Stage, psa: Psa) -> None:
    psa.fault_create("commit_drop")
    stage.report(1)
    stage.work()
    stage.work(6)
    assert timeline(stage, psa)[:7] == ["seen", "claimed", "looked_up", "creating", "doubtful", "claimed", "found"]
    assert "looked up" in only(stage, psa, What.DOUBTFUL).text


def test_a_refusal_is_in_the_ticket_systems_own_words(stage: Stage, psa: Psa) -> None:
    psa.fault_create("status", status=400, body={"message": "Board is closed", "errors": ["Board is closed"]})
    stage.report(1)
    stage.work()
    assert "Board is closed" in only(stage, psa, What.REJECTED).text
    stage.store.retry(1, psa.name)
    stage.work()
    assert timeline(stage, psa)[4:] == ["rejected", "retried", "claimed", "looked_up", "creating", "created"]


def test_a_close_that_is_refused_is_told_in_the_timeline(stage: Stage, psa: Psa) -> None:
    opened(stage)
    refuse_closing(psa)
    ended(stage)
    stage.work()
    assert "did not close the ticket" in only(stage, psa, What.REJECTED).text
    assert "closed" not in timeline(stage, psa)


def test_a_worker_that_died_is_part_of_it(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.die(1, psa.name)
    stage.store.clock_offset += 10
    stage.turn(1, psa.name)
    assert timeline(stage, psa) == ["seen", "claimed", "waiting", "claimed", "looked_up", "creating", "created"]
    stage.report(2)
    stage.die(2, psa.name, creating=True)
    stage.wait(100)
    assert timeline(stage, psa, 2)[:4] == ["seen", "claimed", "creating", "doubtful x4"]


def test_the_end_of_a_delivery_that_is_dropped_leaves_nothing(store: IdempotencyStore) -> None:
    lead = int(store.script("lead", "poller", "a", 6000))
    store.observe(lead, [(report(1, status="closed"), [(CONNECTOR, reference(1))])], adopt=True)
    assert [each.what for each in store.history(1, CONNECTOR)] == ["seen"]
    assert store.drop(claim(store, 1))
    assert store.history(1, CONNECTOR) == []
    assert store.client.keys("*history*") == []


def test_a_history_is_bounded_and_keeps_its_beginning(store: IdempotencyStore) -> None:
    observe(store, report(1))
    for turn in range(200):
        store.clock_offset += 10
        owner = claim(store, 1)
        assert store.release(owner, state=DeliveryState.PENDING, reason=f"no {turn}", delay=0)
    events = store.history(1, CONNECTOR)
    assert len(events) == 60
    assert [each.text for each in events if each.text][:9] == [f"no {turn}" for turn in range(9)]
    assert events[-1].text == "no 199"
    assert events[-1].attempt == 200


HOSTILE = {
    "lines": "a\nb\r\nc",
    "digits first": "12,3,4 x",
    "empty entry": " ",
    "long": "ü" * 1000,
    "zero": "a\0b",
    "like an entry": "w12,3 text",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_any_text_is_kept_as_it_is_but_for_its_length(store: IdempotencyStore, text: str) -> None:
    observe(store, report(1, subject="Malware on ü", agent_id=99_999_999_999))
    for _ in range(2):
        store.clock_offset += 1
        assert store.release(claim(store, 1), state=DeliveryState.PENDING, reason=text, delay=0)
    event = store.history(1, CONNECTOR)[-1]
    assert (event.what, event.times) == ("waiting", 2)
    assert event.text.removesuffix("…") == text[: len(event.text.removesuffix("…"))]
    assert len(event.text) >= min(len(text), 150)
    [listed] = store.read_deliveries([(1, CONNECTOR)])
    delivery = store.delivery(1, CONNECTOR)
    assert delivery is not None
    assert listed == replace(delivery, subject="Malware on ü", agent_id=99_999_999_999)
    assert listed.reason == text


def test_what_cannot_be_read_is_left_out() -> None:
    events = read(["s1000,0", "?5,1 from another version", "broken", "m250,1 T7"])
    assert events == [HistoryEvent(1.0, "seen"), HistoryEvent(1.25, "created", "T7", 1)]


def test_python_and_the_scripts_have_the_same_letters() -> None:
    table = script_text("seen").partition("LETTERS = {")[2].partition("}")[0]
    pairs = dict(pair.strip().split(" = ") for pair in table.replace("\n", " ").split(","))
    assert {letter.strip("'"): name for name, letter in pairs.items()} == {k: v.value for k, v in LETTERS.items()}


def test_a_usual_history_is_small(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.work(130)
    ended(stage)
    stage.work()
    size = stage.store.client.memory_usage(stage.store.key(f"history:1:{psa.name}"))
    assert size is not None
    assert size < 350


# -- handled -----------------------------------------------------------------------------------------------------------


def test_what_a_person_took_care_of_stays_so(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    assert stage.store.handle(1, psa.name, "ticket made by hand") == "pending"
    stage.report(1, severity="critical")
    stage.report(1, status="closed", severity="critical")
    stage.report(1, severity="critical")
    stage.store.release_waiting(psa.name)
    stage.wait(300)
    stage.turn(1, psa.name)
    delivery = stage.delivery(1, psa.name)
    assert (delivery.state, delivery.reason) == (DeliveryState.HANDLED, "ticket made by hand")
    assert psa.creates() == []
    assert stage.scheduled(psa.name) == 0
    assert stage.store.retry(1, psa.name) == "handled"
    stage.work()
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert len(psa.creates(1)) == 1


def test_a_live_owner_is_not_disturbed(store: IdempotencyStore) -> None:
    observe(store, report(1))
    owner = claim(store, 1)
    assert store.handle(1, CONNECTOR, "done") == "busy"
    assert store.begin_create(owner, proof=False).open
    assert store.handle(1, CONNECTOR, "done") == "busy"
    store.record(owner, TICKET)
    assert store.handle(1, CONNECTOR, "done") == "created"
    assert store.handle(2, CONNECTOR, "done") == ""


def test_a_late_owner_creates_nothing_and_its_ticket_is_kept(store: IdempotencyStore) -> None:
    observe(store, report(1), report(2))
    late, creating = claim(store, 1), claim(store, 2)
    assert store.begin_create(creating, proof=False).open
    store.clock_offset += 20
    assert store.handle(1, CONNECTOR, "done") == "pending"
    assert store.handle(2, CONNECTOR, "done") == "creating"
    assert not store.begin_create(late, proof=False).open
    assert not store.release(late, state=DeliveryState.PENDING, delay=0)
    store.record(creating, TICKET, todo={"complete"})
    delivery = store.delivery(2, CONNECTOR)
    assert delivery is not None
    assert (delivery.state, delivery.ticket, delivery.next_attempt_at) == (DeliveryState.HANDLED, TICKET, None)
    assert store.scheduled(CONNECTOR) == 0
    assert store.retry(2, CONNECTOR) == "handled"
    delivery = store.delivery(2, CONNECTOR)
    assert delivery is not None
    assert delivery.state is DeliveryState.CREATED
    assert isinstance(store.claim(2, CONNECTOR, group=CONNECTOR, concurrency=3, settle=60), Claim)


def test_a_create_in_doubt_that_is_taken_up_again_is_looked_up_first(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.die(1, psa.name, creating=True)
    stage.store.clock_offset += 20
    assert stage.store.handle(1, psa.name, "done") == "creating"
    known = psa.add_ticket(1)
    assert stage.store.retry(1, psa.name) == "handled"
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATING
    stage.wait(120)
    ticket = stage.delivery(1, psa.name).ticket
    assert ticket is not None
    assert ticket.id == str(known)
    assert psa.creates() == []


def test_a_clock_that_jumps_while_it_is_handled_settles_no_doubt(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.die(1, psa.name, creating=True)
    stage.store.clock_offset += 20
    assert stage.store.handle(1, psa.name, "done") == "creating"
    stage.store.clock_offset += 3600
    assert stage.store.retry(1, psa.name) == "handled"
    stage.turn(1, psa.name)
    assert psa.creates() == []
    stage.wait(120)
    assert len(psa.creates(1)) == 1


@pytest.mark.parametrize("state", ["rejected", "held", "gone"])
def test_what_waits_for_a_person_can_be_handled(store: IdempotencyStore, state: str) -> None:
    observe(store, report(1))
    store.release(claim(store, 1), state=DeliveryState(state), reason="no")
    assert store.handle(1, CONNECTOR, "seen to") == state
    assert [each.what for each in store.history(1, CONNECTOR)][-1] == "handled"
    assert store.handle(1, CONNECTOR, "seen to") == "handled"


def test_a_ticket_that_is_gone_is_gone_again_when_its_mark_is_taken_back(store: IdempotencyStore) -> None:
    observe(store, report(1))
    owner = claim(store, 1)
    store.record(owner, TICKET, told=1, keep=True)
    store.tell(owner, state=DeliveryState.GONE, remark="deleted")
    store.release(owner)
    assert store.handle(1, CONNECTOR, "seen to") == "gone"
    assert store.retry(1, CONNECTOR) == "handled"
    delivery = store.delivery(1, CONNECTOR)
    assert delivery is not None
    assert (delivery.state, delivery.reason) == (DeliveryState.GONE, "deleted")
    assert store.handle(1, CONNECTOR, "seen to") == "gone"


def test_a_ticket_that_is_linked_to_what_was_handled_is_followed(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    assert stage.store.handle(1, psa.name, "by hand") == "pending"
    link_ticket(stage.runtime, 1, psa.name, str(psa.add_ticket(1)))
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert psa.creates() == []
