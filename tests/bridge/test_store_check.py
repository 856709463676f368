"""A store is broken in every way that is known: it is found, mended, and everything is delivered exactly once."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.cli import main
from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState
from bridge.store_check import LAYOUT, StoreCheck, kind_of
from bridge.store_findings import KINDS, Finding
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.psa import reference

ROOT = Path(__file__).resolve().parents[2]

#: Numbers of reports, by what a store of `filled` has of them.
WAITS, REFUSED, MADE, DOUBTFUL, OWNED, LATER = 1, 2, 3, 4, 5, 6


@pytest.fixture
def filled(make: MakeStage, systems: Systems) -> Stage:
    """A store with deliveries in the usual states."""
    stage = make("psa")
    stage.store.unprove("psa")
    stage.store.prove("psa")
    stage.report(MADE)
    stage.work()
    stage.report(REFUSED, DOUBTFUL, OWNED, LATER)
    refused = stage.die(REFUSED)
    stage.store.release(refused, state=DeliveryState.REJECTED, reason="no")
    doubtful = stage.die(DOUBTFUL, creating=True)
    stage.store.release(doubtful, doubt=True, delay=600, kind="doubt")
    stage.store.release(stage.die(LATER), state=DeliveryState.PENDING, delay=600, kind="unavailable")
    stage.die(OWNED)
    stage.report(WAITS)
    return stage


def check(store: IdempotencyStore, *, repair: bool = False) -> list[Finding]:
    walk = StoreCheck(store, repair=repair, reference=lambda report, connector: reference(report.id))
    return list(walk.findings())


def codes(found: list[Finding]) -> set[str]:
    return {finding.code for finding in found}


#: One way to break a store: the command, whose keys are without the namespace.
Break = tuple[str, ...]
DELIVERY = {number: f"delivery:{number}:psa" for number in range(1, 7)}
WAYS: list[tuple[str, Break]] = [
    ("lost", ("DEL", DELIVERY[MADE])),
    ("lost", ("DEL", DELIVERY[WAITS])),
    ("lost", ("DEL", DELIVERY[DOUBTFUL])),
    ("dangling", ("ZADD", "state:created", "5", "77|psa")),
    ("dangling", ("ZADD", "due:psa", "5", "77")),
    ("dangling", ("ZADD", "waiting:psa", "5", "77")),
    ("dangling", ("RPUSH", "history:77:psa", "s1,0")),
    ("dangling", ("HSET", "progress:77:psa", "a", "b")),
    ("no_reference", ("HDEL", DELIVERY[LATER], "reference")),
    ("unreadable", ("HSET", DELIVERY[LATER], "next_at", "soon")),
    ("unreadable", ("HSET", DELIVERY[DOUBTFUL], "doubt_at", "?")),
    ("unreadable", ("HSET", DELIVERY[OWNED], "lease_until", "?")),
    ("unreadable", ("HSET", DELIVERY[MADE], "todo", "{")),
    ("unreadable", ("HSET", DELIVERY[MADE], "statuses", "7")),
    ("unknown_state", ("HSET", DELIVERY[LATER], "state", "lost")),
    ("unknown_state", ("HDEL", DELIVERY[MADE], "state")),
    ("no_ticket", ("HDEL", DELIVERY[MADE], "ticket_id")),
    ("has_ticket", ("HSET", DELIVERY[MADE], "state", "pending")),
    ("has_ticket", ("HSET", DELIVERY[MADE], "state", "rejected")),
    ("maybe_sent", ("HSET", DELIVERY[DOUBTFUL], "state", "pending")),
    ("not_in_state", ("ZREM", "state:created", f"{MADE}|psa")),
    ("in_other_state", ("ZADD", "state:held", "5", f"{WAITS}|psa")),
    ("not_waiting", ("ZREM", "waiting:psa", str(WAITS))),
    ("waits_no_more", ("ZADD", "waiting:psa", "5", str(MADE))),
    ("not_scheduled", ("ZREM", "ready:psa", str(WAITS))),
    ("not_scheduled", ("ZREM", "due:psa", str(DOUBTFUL))),
    ("not_scheduled", ("ZREM", "due:psa", str(OWNED))),
    ("twice_scheduled", ("ZADD", "ready:psa", "5", str(LATER))),
    ("twice_scheduled", ("ZADD", "ready:psa", "5", str(OWNED))),
    ("scheduled_in_vain", ("ZADD", "ready:psa", "5", str(REFUSED))),
    ("too_late", ("ZADD", "due:psa", "9e15", str(LATER))),
    ("wrong_turn", ("ZADD", "ready:psa", "5", str(WAITS))),
    ("no_report", ("DEL", f"report:{WAITS}")),
    ("no_report", ("DEL", f"report:{MADE}")),
    ("open_and_missing", ("ZADD", "missing", "5", str(MADE))),
    ("over_and_open", ("HSET", f"report:{MADE}", "over", "1")),
    ("forgotten", ("ZREM", "open", str(MADE))),
    ("unreadable_report", ("HSET", f"report:{LATER}", "snapshot", "{")),
    ("unreadable_report", ("HSET", f"report:{MADE}", "version", "x")),
    ("no_notice", ("SADD", "notices", "late:psa")),
    ("unlisted_notice", ("HSET", "notice:late:psa", "since", "5")),
    ("vain_slot", ("ZADD", "slots:elsewhere", "5", "77|psa")),
    ("no_name", ("ZADD", "open", "5", "what")),
    ("no_name", ("ZADD", "state:held", "5", "what")),
    ("vain_proof", ("HSET", "proof:psa", "state", "who knows")),
    ("vain_proof", ("HSET", "proof:psa", "state", "proving", "report", "77", "since", "5")),
]


def break_it(store: IdempotencyStore, way: Break) -> None:
    store.client.execute_command(way[0], store.key(way[1]), *way[2:])  # type: ignore[no-untyped-call]


def deliver_all(stage: Stage) -> None:
    """The poller lists everything, workers do what is due, a person has everything tried again."""
    stage.report(WAITS, REFUSED, MADE, DOUBTFUL, OWNED, LATER)
    stage.store.retry(REFUSED, "psa")
    stage.wait(700)
    stage.report(WAITS, REFUSED, MADE, DOUBTFUL, OWNED, LATER)
    stage.wait(90)


def made_once(stage: Stage, systems: Systems) -> None:
    psa = systems.psa("psa")
    assert {number: len(psa.ids(number)) for number in range(1, 7)} == dict.fromkeys(range(1, 7), 1)
    for number in range(1, 7):
        assert stage.delivery(number).state in (DeliveryState.CREATED, DeliveryState.CLOSED)


def test_nothing_is_wrong_with_a_store_in_use(filled: Stage, systems: Systems) -> None:
    assert check(filled.store) == []
    deliver_all(filled)
    made_once(filled, systems)
    assert check(filled.store) == []


@pytest.mark.parametrize(("code", "way"), WAYS, ids=[f"{code}-{' '.join(way[:2])}" for code, way in WAYS])
def test_what_is_broken_is_found_and_mended(filled: Stage, systems: Systems, code: str, way: Break) -> None:
    break_it(filled.store, way)
    assert code in codes(check(filled.store))
    assert code in codes(check(filled.store)), "looking mends nothing"
    mended = check(filled.store, repair=True)
    assert code in codes(mended)
    assert all(finding.mended for finding in mended)
    assert check(filled.store) == []
    deliver_all(filled)
    made_once(filled, systems)
    assert check(filled.store) == []


def test_every_kind_that_can_be_found_is_tried() -> None:
    assert {code for code, _ in WAYS} | {"wrong_type", "unknown_key"} == KINDS.keys()


def test_what_may_have_been_sent_is_looked_up_and_not_made_again(filled: Stage) -> None:
    filled.store.client.delete(filled.store.key(DELIVERY[MADE]))
    check(filled.store, repair=True)
    assert filled.delivery(MADE).state is DeliveryState.CREATING
    claimed = filled.claim(MADE, "psa")
    filled.store.clock_offset += 6
    claimed = filled.claim(MADE, "psa")
    assert not isinstance(claimed, str)
    assert claimed.doubt_at is not None


def test_a_ticket_made_anew_is_looked_up_by_its_own_reference(filled: Stage) -> None:
    claim = filled.die(MADE) if filled.store.retry(MADE, "psa") != "created" else None
    assert claim is None
    filled.store.client.rpush(filled.store.key(f"history:{MADE}:psa"), f"k5,1 {reference(MADE)}-r2")
    filled.store.client.delete(filled.store.key(DELIVERY[MADE]))
    check(filled.store, repair=True)
    assert filled.delivery(MADE).reference == f"{reference(MADE)}-r2"


def test_a_delivery_whose_report_is_lost_as_well_is_left_and_told(filled: Stage) -> None:
    filled.store.client.delete(filled.store.key(DELIVERY[MADE]), filled.store.key(f"report:{MADE}"))
    found = [finding for finding in check(filled.store, repair=True) if finding.code == "lost"]
    assert [(finding.report_id, finding.mended) for finding in found] == [(MADE, False)]
    assert "has nothing of its report" in found[0].sentence()


def test_compacted_records_are_healthy(filled: Stage) -> None:
    """Empty fields may be absent, and the report of what ended long ago is gone."""
    filled.store.client.hdel(filled.store.key(DELIVERY[MADE]), "todo", "statuses", "reason", "remark", "kind")
    filled.store.client.zrem(filled.store.key("open"), MADE)
    filled.store.client.delete(filled.store.key(f"report:{MADE}"))
    assert check(filled.store) == []


def test_unknown_keys_and_wrong_types_are_named_and_left(filled: Stage) -> None:
    store = filled.store
    store.client.set(store.key("what:1"), "x")
    store.client.set(store.key("what:2"), "x")
    assert [(each.code, each.key, each.more) for each in check(store, repair=True)] == [
        ("unknown_key", "what:…", "2 of them")
    ]
    store.client.delete(store.key("open"))
    store.client.set(store.key("open"), "x")
    assert [(each.code, each.key) for each in check(store, repair=True)] == [
        ("wrong_type", "open"),
        ("unknown_key", "what:…"),
    ]
    assert store.client.get(store.key("open")) == "x"


def test_no_more_than_one_namespace_is_looked_at(filled: Stage) -> None:
    filled.store.client.set("bridge2:what", "x")
    filled.store.client.set("b?idge:what", "x")
    assert check(filled.store) == []


def test_a_store_at_work_gives_no_false_alarm(filled: Stage) -> None:
    """Every state is passed through, again and again, while the walk goes on."""
    stage = filled
    numbers = range(100, 160)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            stage.report(*numbers, severity="high")
            stage.report(*numbers, severity="low")
            for number in numbers:
                stage.turn(number)
            stage.work(1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        found = [finding for _ in range(40) for finding in check(stage.store)]
    finally:
        stop.set()
        worker.join(60)
    assert found == []


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["state:pending", "state:creating", "state:created", "state:rejected", "due:psa", "ready:psa"]),
        st.integers(1, 6),
        st.sampled_from(["remove", "add"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(entries=ENTRIES)
def test_whatever_is_done_to_the_indexes_is_mended(
    filled: Stage, systems: Systems, entries: list[tuple[str, int, str]]
) -> None:
    store = filled.store
    for name, number, what in entries:
        member = f"{number}|psa" if name.startswith("state") else str(number)
        if what == "remove":
            store.client.zrem(store.key(name), member)
        else:
            store.client.zadd(store.key(name), {member: 5})
    assert all(finding.mended for finding in check(store, repair=True))
    assert check(store) == []
    deliver_all(filled)
    made_once(filled, systems)


@pytest.mark.usefixtures("logging_restored")
def test_the_command_says_what_it_found_and_mends_it(filled: Stage) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["--config", str(filled.config), "store", "check", *arguments])
        return result.exit_code, result.stdout

    assert run() == (0, "all well\n")
    filled.store.client.zrem(filled.store.key("ready:psa"), WAITS)
    code, said = run()
    assert code == 1
    assert said.startswith(
        "report 1, psa: there is something to do for it, but it is not scheduled; it would never move."
    )
    code, said = run("--json")
    assert code == 1
    (found,) = json.loads(said)
    assert (found["code"], found["report_id"], found["connector"], found["mended"]) == (
        "not_scheduled",
        1,
        "psa",
        False,
    )
    code, said = run("--repair")
    assert code == 0
    assert "mended: it is scheduled" in said
    assert run() == (0, "all well\n")


@pytest.mark.usefixtures("logging_restored")
def test_without_redis_the_command_ends_with_2(filled: Stage, tmp_path: Path) -> None:
    config = filled.config.read_text().replace("redis.sock", "nowhere.sock")
    other = tmp_path / "other.toml"
    other.write_text(config)
    other.chmod(0o600)
    assert CliRunner().invoke(main, ["--config", str(other), "store", "check"]).exit_code == 2


def test_every_key_that_the_project_writes_is_known() -> None:
    """A key that is added belongs into `LAYOUT`."""
    named: set[str] = set()
    for file in (ROOT / "bridge" / "lua").glob("*.lua"):
        named.update(re.findall(r"P \.\. '([a-z_:]+)'", file.read_text("utf-8")))
    for file in (ROOT / "bridge").rglob("*.py"):
        named.update(re.findall(r"(?:store|_store|self)\.key\(f?\"([a-z_:]+)", file.read_text("utf-8")))
    assert len(named) > 40
    assert {name for name in named if kind_of(name if not name.endswith(":") else f"{name}x") is None} == set()
    assert all(kind in ("", "hash", "zset", "set", "list", "string") for kind in LAYOUT.values())
