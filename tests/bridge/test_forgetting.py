"""What is over takes little memory, and is forgotten in the end; what may still be wanted is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.cli import main
from bridge.forgetting import BATCH, ROUND_EVERY
from bridge.history import What
from bridge.idempotency import SCHEMA, Deposed, IdempotencyStore
from bridge.models import DeliveryState, TicketRef
from bridge.news import facts
from bridge.retrying import FORGOTTEN, retry_all
from bridge.store_check import StoreCheck
from bridge.web.delivery_actions import told
from tests.bridge.stage import Stage
from tests.bridge.test_following import ended, opened
from tests.bridge.test_history import timeline
from tests.bridge.test_idempotency import CONNECTOR, claim, client, dispatch, lead, observe, report, store
from tests.bridge.test_store_check import break_it
from tests.bridge.watch import MakeWatch
from tests.bridge.watched_huntress import WatchedHuntress
from tests.psa import Psa

__all__ = ["client", "store"]  # fixtures

DAY = 86400.0
URL = "https://na.example.com/v4_6_release/services/system_io/router/openrecord.rails?recordType=ServiceFv&recid={}"


def ticket(number: int) -> TicketRef:
    return TicketRef(str(7000 + number), f"T20260101.{number}", URL.format(7000 + number))


def over(store: IdempotencyStore, *numbers: int) -> None:
    """These reports have tickets that were told of their end."""
    for number in numbers:
        observe(store, report(number))
        made = report(number)
        store.record(claim(store, number), ticket(number), told=1, facts=facts(made))
        observe(store, report(number, status="closed"))
        owner = claim(store, number)
        store.tell(owner, told=2, facts=facts(report(number, status="closed")), state=DeliveryState.CLOSED, ended=True)
        assert store.release(owner)


def sweep(store: IdempotencyStore, *, snapshots: float = 30, deliveries: float = 400) -> tuple[int, int]:
    """A whole round, after a day's rest: how many snapshots and deliveries are forgotten."""
    store.clock_offset += ROUND_EVERY
    gone = [0, 0]
    leader = str(store.client.get("bridge:leader:poller") or "a")
    while True:
        arguments = [round(each * 1000) for each in (snapshots * DAY, deliveries * DAY, ROUND_EVERY)]
        _, reports, forgotten, more = store.answer("forget", lead(store, "poller", leader), BATCH, *arguments)
        gone = [gone[0] + reports, gone[1] + forgotten]
        if not more:
            return gone[0], gone[1]


def keys_of(store: IdempotencyStore, number: int) -> list[str]:
    return sorted(key for key in store.client.scan_iter("bridge:*") if str(number) in key.split(":"))


# -- the small form ----------------------------------------------------------------------------------------------------


def test_a_delivery_at_rest_is_small_and_reads_as_before(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.record(claim(store, 1), ticket(1), told=1, facts=facts(report(1)))
    observe(store, report(1, status="closed"))
    owner = claim(store, 1)
    assert store.plan(owner, "p" * 500, sending=True), "longer than a listpack takes"
    store.tell(owner, told=2, state=DeliveryState.CLOSED, ended=True, facts=facts(report(1, status="closed")))
    before = store.delivery(1, CONNECTOR)
    store.client.hset("bridge:delivery:1:psa", "updated_at", round(store.now() * 1000))
    assert store.release(owner)
    after = store.delivery(1, CONNECTOR)
    assert before is not None
    assert after is not None
    for name in ("ticket", "reference", "created_at", "made_at", "recorded_at", "state", "severity", "organization_id"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.attempts == 2
    assert store.read_deliveries([(1, CONNECTOR)])[0].ticket == ticket(1)
    key = "bridge:delivery:1:psa"
    assert store.client.object("encoding", key) in ("listpack", "ziplist")
    assert (store.client.memory_usage(key) or 1000) <= 350


def test_addresses_have_what_they_share_kept_once(store: IdempotencyStore) -> None:
    over(store, *range(1, 6))
    assert store.client.llen("bridge:patterns") == 2, "one for addresses, one for references"
    found = [store.delivery(number, CONNECTOR) for number in range(1, 6)]
    assert [each and each.ticket for each in found] == [ticket(number) for number in range(1, 6)]
    assert [each and each.reference for each in found] == [f"huntress-5-{number}" for number in range(1, 6)]


def test_what_is_shared_is_not_kept_without_end(store: IdempotencyStore) -> None:
    store.client.rpush("bridge:patterns", *(f"pattern {number}" for number in range(64)))
    over(store, 1)
    its = store.delivery(1, CONNECTOR)
    assert its is not None
    assert its.ticket == ticket(1)
    assert store.client.llen("bridge:patterns") == 64


def test_a_delivery_at_rest_is_taken_up_as_it_was(store: IdempotencyStore) -> None:
    over(store, 1)
    observe(store, report(1, subject="open again"))
    owner = claim(store, 1)
    assert (owner.ticket, owner.reference) == (ticket(1), "huntress-5-1")
    assert owner.ended_at is not None
    assert not owner.over
    assert owner.facts == facts(report(1, status="closed"))
    assert (owner.told, owner.version, owner.tickets) == (2, 3, 1)


def test_a_delivery_of_the_version_before_becomes_small_in_the_round(store: IdempotencyStore) -> None:
    over(store, 1)
    told = store.client.hget("bridge:report:1", f"facts:{CONNECTOR}")
    store.script("retry", 1, CONNECTOR)  # takes the small form away
    assert told
    assert store.client.hexists("bridge:delivery:1:psa", "ended_at")
    store.client.hset("bridge:delivery:1:psa", "facts", told)
    store.client.hset("bridge:delivery:1:psa", "order", "5")
    store.client.hdel("bridge:report:1", f"facts:{CONNECTOR}")
    assert sweep(store) == (0, 0)
    assert store.client.hexists("bridge:delivery:1:psa", "moments")
    assert not store.client.hexists("bridge:delivery:1:psa", "facts")
    observe(store, report(1))
    assert claim(store, 1).facts == told


def test_a_claim_reads_facts_where_the_version_before_kept_them(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.record(claim(store, 1), ticket(1), told=1)
    store.client.hset("bridge:delivery:1:psa", "facts", "as it was")
    observe(store, report(1, subject="new"))
    assert claim(store, 1).facts == "as it was"


def test_a_store_of_the_version_before_is_taken_into_use(store: IdempotencyStore) -> None:
    store.client.hset("bridge:meta", "schema", "1")
    store.open()
    assert store.client.hget("bridge:meta", "schema") == str(SCHEMA), "the version before would misread it"


# -- what goes, and when -----------------------------------------------------------------------------------------------


def test_the_snapshot_goes_first_and_the_delivery_much_later(store: IdempotencyStore) -> None:
    over(store, 1, 2)
    store.clock_offset += 28 * DAY
    assert sweep(store) == (0, 0)
    moment = store.latest_change()
    store.clock_offset += 2 * DAY
    assert sweep(store) == (2, 0)
    assert store.report(1) is None
    [shown] = store.read_deliveries([(1, CONNECTOR)])
    assert (shown.ticket, shown.subject, shown.agent_id, shown.sent_at) == (ticket(1), "", None, "")
    assert keys_of(store, 1) == ["bridge:delivery:1:psa", "bridge:history:1:psa"]
    assert sweep(store) == (0, 0)
    store.clock_offset += 370 * DAY
    assert sweep(store) == (0, 2)
    assert keys_of(store, 1) == keys_of(store, 2) == []
    assert [store.count(state) for state in DeliveryState] == [0] * len(DeliveryState)
    changes = store.changed_since(moment)
    assert changes is not None
    assert sorted(changes[0]) == [(1, CONNECTOR), (2, CONNECTOR)], "readers hear of it"
    assert store.delivery(1, CONNECTOR) is None
    assert store.history(1, CONNECTOR) == []


@pytest.mark.parametrize(("snapshots", "deliveries", "left"), [(0, 0, 3), (0, 400, 0), (30, 0, 2)])
def test_nothing_is_forgotten_where_that_is_configured(
    store: IdempotencyStore, snapshots: int, deliveries: int, left: int
) -> None:
    over(store, 1)
    store.clock_offset += 5000 * DAY
    sweep(store, snapshots=snapshots, deliveries=deliveries)
    assert len(keys_of(store, 1)) == left


def test_more_than_one_part_of_a_round(store: IdempotencyStore) -> None:
    over(store, *range(1, 2 * BATCH + 10))
    store.clock_offset += 31 * DAY
    assert sweep(store) == (2 * BATCH + 9, 0)
    store.clock_offset += 400 * DAY
    assert sweep(store) == (0, 2 * BATCH + 9)


def test_a_round_begins_once_a_day(store: IdempotencyStore) -> None:
    arguments = [round(each * 1000) for each in (DAY, DAY, ROUND_EVERY)]
    sweep(store)
    over(store, 1)
    assert store.answer("forget", lead(store, "poller"), BATCH, *arguments) == [0, 0, 0, 0]


def open_again(store: IdempotencyStore) -> None:
    observe(store, report(1))


def missing(store: IdempotencyStore) -> None:
    observe(store, report(1))
    store.script("miss", lead(store, "poller"), round((store.now() + 1) * 1000), json.dumps(["1"]))
    assert store.client.zscore("bridge:missing", "1")


def owned(store: IdempotencyStore) -> None:
    store.client.hset("bridge:delivery:1:psa", "owner", "somebody")


def to_be_told(store: IdempotencyStore) -> None:
    store.client.zadd("bridge:due:psa", {"1": 1})


@pytest.mark.parametrize("wanted", [open_again, missing, owned, to_be_told])
def test_what_may_still_be_wanted_is_not_forgotten(
    store: IdempotencyStore, wanted: Callable[[IdempotencyStore], None]
) -> None:
    over(store, 1)
    wanted(store)
    store.clock_offset += 5000 * DAY
    assert sweep(store) == (0, 0)
    assert store.report(1) is not None
    assert store.delivery(1, CONNECTOR) is not None


@pytest.mark.parametrize("state", [DeliveryState.REJECTED, DeliveryState.HELD, DeliveryState.HANDLED])
def test_what_has_no_ticket_is_forgotten_only_when_its_report_is_over(
    store: IdempotencyStore, state: DeliveryState
) -> None:
    observe(store, report(1))
    if state is DeliveryState.HANDLED:
        store.handle(1, CONNECTOR, "by hand")
    else:
        store.release(claim(store, 1), state=state, reason="no")
    store.clock_offset += 5000 * DAY
    assert sweep(store) == (0, 0)
    observe(store, report(1, status="closed"))
    assert sweep(store) == (0, 0), "its end is not long ago"
    store.clock_offset += 30 * DAY
    assert sweep(store) == (1, 0)
    store.clock_offset += 400 * DAY
    assert sweep(store) == (0, 1)


def test_one_connector_that_does_not_know_of_the_end_keeps_the_report(store: IdempotencyStore) -> None:
    observe(store, report(1), connectors=(CONNECTOR, "desk"))
    store.record(claim(store, 1), ticket(1), told=1)
    observe(store, report(1, status="closed"), connectors=(CONNECTOR, "desk"))
    owner = claim(store, 1)
    store.tell(owner, told=2, state=DeliveryState.CLOSED, ended=True)
    store.release(owner)
    store.clock_offset += 5000 * DAY
    assert sweep(store) == (0, 0)


def test_forgetting_twice_forgets_no_more(store: IdempotencyStore) -> None:
    """redis-py repeats a script whose answer was lost."""
    over(store, *range(1, BATCH + 2))
    observe(store, report(BATCH + 2))
    store.clock_offset += 401 * DAY
    leader, arguments = lead(store, "poller"), (BATCH, round(30 * DAY * 1000), round(400 * DAY * 1000), 10**12)
    for _ in range(20):
        store.answer("forget", leader, *arguments)
    assert store.count(DeliveryState.CLOSED) == 0
    assert store.delivery(BATCH + 2, CONNECTOR) is not None


@pytest.mark.parametrize(
    "damage",
    [
        ("HDEL", "delivery:1:psa", "reference"),
        ("HSET", "delivery:1:psa", "created_at", "?"),
        ("HSET", "delivery:1:psa", "recorded_at", "?"),
        ("ZADD", "state:closed", "1", "names nothing"),
    ],
)
def test_what_is_damaged_stays_as_it_is_and_keeps_nothing_else_from_its_rest(
    store: IdempotencyStore, damage: tuple[str, ...]
) -> None:
    over(store, 1, 2)
    for number in (1, 2):
        store.script("retry", number, CONNECTOR)  # takes the small form away
    break_it(store, damage)
    before = store.client.hgetall("bridge:delivery:1:psa")
    assert sweep(store) == (0, 0)
    if damage[1] == "delivery:1:psa":
        assert store.client.hgetall("bridge:delivery:1:psa") == before
    assert store.client.hexists("bridge:delivery:2:psa", "moments")


def test_what_cannot_be_read_keeps_no_cycle_from_its_end(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    watch = make_watch()
    watch.store.client.set("bridge:delivery:1:psa", "no hash")
    watch.store.client.zadd("bridge:state:closed", {"1|psa": 1})
    source.add(2)
    cycle = watch.cycle()
    assert (cycle.complete, cycle.new) == (True, ((2, "psa"),))


def test_a_deposed_leader_forgets_nothing(store: IdempotencyStore) -> None:
    over(store, 1)
    store.clock_offset += 5000 * DAY
    old = lead(store, "poller")
    store.client.set("bridge:fence:poller", old + 1)
    with pytest.raises(Deposed):
        store.answer("forget", old, BATCH, 1, 1, 1000)
    assert store.delivery(1, CONNECTOR) is not None


def test_a_report_that_is_over_and_has_no_ticket_to_take_over_leaves_nothing(store: IdempotencyStore) -> None:
    one = report(1, status="closed")
    store.observe(lead(store, "poller"), [(one, [(CONNECTOR, "huntress-5-1")])], adopt=True)
    store.observe(lead(store, "poller"), [(report(2, status="closed"), [])], adopt=True)
    assert dispatch(store) == [1]
    assert store.drop(claim(store, 1))
    assert keys_of(store, 1) == keys_of(store, 2) == []


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_a_report_that_comes_back_without_its_snapshot_is_followed(stage: Stage, psa: Psa) -> None:
    opened(stage)
    ended(stage)
    stage.store.clock_offset += 2 * DAY
    assert sweep(stage.store, snapshots=1) == (1, 0)
    assert stage.work() == []
    stage.report(1)
    stage.work()
    assert len(psa.ids(1)) == 1, "its ticket is opened again"
    assert stage.delivery(1, psa.name).state is DeliveryState.CREATED
    assert timeline(stage, psa)[-1] == What.REOPENED
    notes = timeline(stage, psa).count(What.NOTED)
    stage.report(1, subject="HIGH - something else")
    stage.work()
    assert timeline(stage, psa).count(What.NOTED) == notes + 1, "one note on what changed, though versions began anew"
    ended(stage)
    assert stage.delivery(1, psa.name).state is DeliveryState.CLOSED
    assert len(psa.ids(1)) == 1


def test_the_first_look_at_a_report_that_came_back_adds_one_note_only(stage: Stage, psa: Psa) -> None:
    opened(stage)
    ended(stage)
    stage.store.clock_offset += 2 * DAY
    sweep(stage.store, snapshots=1)
    before = timeline(stage, psa).count(What.NOTED)
    stage.report(1)
    stage.work(200)
    stage.report(1)
    stage.work(200)
    assert timeline(stage, psa).count(What.NOTED) == before + 1


def test_a_report_that_comes_back_without_its_delivery_makes_no_second_ticket(stage: Stage, psa: Psa) -> None:
    opened(stage)
    ended(stage)
    stage.store.clock_offset += 5 * DAY
    sweep(stage.store, snapshots=1, deliveries=2)
    assert stage.store.delivery(1, psa.name) is None
    stage.report(1)
    stage.work()
    assert len(psa.ids(1)) == 1
    assert timeline(stage, psa)[:3] == [What.SEEN, What.CLAIMED, What.FOUND]


@pytest.mark.parametrize("state", [DeliveryState.REJECTED, DeliveryState.HELD, DeliveryState.HANDLED])
def test_no_ticket_is_made_by_hand_for_a_report_that_is_forgotten(stage: Stage, psa: Psa, state: DeliveryState) -> None:
    """It would not say what it is about, and stay open for ever."""
    stage.report(1)
    if state is DeliveryState.HANDLED:
        stage.store.handle(1, psa.name, "by hand")
    else:
        stage.store.release(stage.die(1, psa.name), state=state, reason="no")
    ended(stage)
    stage.store.clock_offset += 40 * DAY
    assert sweep(stage.store) == (1, 0)
    assert retry_all(stage.store, [(1, psa.name)]) == {FORGOTTEN: 1}
    typed = CliRunner().invoke(main, ["--config", str(stage.config), "retry", "1", "--state", str(state)])
    assert (typed.exit_code, "1 left alone: the report is over" in typed.output) == (1, True)
    assert [sentence for sentence, _ in told(Counter({FORGOTTEN: 1}))] == [
        "1 delivery left alone: the report is over and no longer in the store."
    ]
    assert stage.wait(100) == []
    assert psa.ids(1) == []
    assert stage.delivery(1, psa.name).state is state
    stage.report(1)
    assert retry_all(stage.store, [(1, psa.name)]) == {state: 1}
    stage.work()
    assert len(psa.ids(1)) == 1, "it is open again"


def test_a_comment_on_a_forgotten_report_is_told_and_rests(store: IdempotencyStore) -> None:
    over(store, 1)
    store.clock_offset += 31 * DAY
    sweep(store)
    store.client.hset("bridge:delivery:1:psa", "todo", '["comment-x"]')
    store.client.zadd("bridge:ready:psa", {"1": 1})
    owner = claim(store, 1)
    assert (owner.version, owner.report, owner.facts) == (0, None, "")
    store.release(owner, done=["comment-x"])
    assert store.scheduled(CONNECTOR) == 0
    assert isinstance(store.claim(1, CONNECTOR, group=CONNECTOR, concurrency=1, settle=60), str)


def test_the_leading_poller_forgets_after_a_cycle(make_watch: MakeWatch, source: WatchedHuntress) -> None:
    source.add(1, 2)
    watch = make_watch(store={"keep_snapshots": 1, "keep_deliveries": 2})
    watch.cycle()
    watch.deliver_all()
    source.end(1)
    watch.cycle(seconds=200)
    watch.deliver_all()
    assert watch.store.report(1) is not None
    watch.store.clock_offset += 4 * DAY
    watch.cycle()
    assert watch.store.delivery(1, "psa") is None
    assert watch.store.report(2) is not None
    assert watch.states() == {2: DeliveryState.CREATED}


@pytest.mark.parametrize("instead", [(), (URL.format("\n"), "huntress-5-\n")])
def test_what_was_kept_once_for_all_is_lost(store: IdempotencyStore, instead: tuple[str, ...]) -> None:
    """No look-up may go by what is left of a reference, or a second ticket would be made."""
    over(store, 1)
    store.client.delete("bridge:patterns")
    if instead:
        store.client.rpush("bridge:patterns", *instead)
    walk = StoreCheck(store, repair=True, reference=lambda report, connector: f"huntress-5-{report.id}")
    found = list(walk.findings())
    assert [(finding.code, finding.mended) for finding in found] == [("no_reference", True)]
    its = store.delivery(1, CONNECTOR)
    assert its is not None
    assert its.reference == "huntress-5-1"
    assert its.ticket is not None
    assert its.ticket.id == ticket(1).id
    assert list(StoreCheck(store).findings()) == []


# -- what the poller sees of it ----------------------------------------------------------------------------------------


@given(
    state=st.sampled_from([str(each) for each in DeliveryState]),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "todo": st.sampled_from(["[]", '["status"]']),
            "plan": st.sampled_from(["", "{}"]),
            "told": st.integers(0, 3),
            "considered": st.integers(0, 3),
            "ended_at": st.just(5),
            "moments": st.sampled_from(["1,,,1,", "1,,,1,2"]),
        },
    ),
    version=st.integers(1, 3),
    over=st.booleans(),
)
@example(state="closed", fields={"told": 3, "moments": "1,,,1,2"}, version=3, over=False)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_quick_look_at_a_listed_report_finds_what_the_thorough_one_does(
    store: IdempotencyStore, state: str, fields: dict[str, object], version: int, over: bool
) -> None:
    store.client.delete("bridge:ready:psa", "bridge:waiting:psa")
    store.client.delete("bridge:delivery:1:psa", "bridge:report:1")
    store.client.hset("bridge:report:1", mapping={"version": version, "digest": "d", "over": int(over)})
    record = {"state": state, "created_at": 1, "reference": "huntress-5-1", **fields}
    store.client.hset("bridge:delivery:1:psa", mapping={name: str(value) for name, value in record.items()})
    assert store.seen(lead(store, "poller"), [(1, "d", [CONNECTOR])]) == set()
    scheduled = store.client.zscore("bridge:ready:psa", "1") is not None
    store.client.zadd("bridge:ready:psa", {"1": 1})
    assert scheduled == bool(list(store.awaited(CONNECTOR, [])))
