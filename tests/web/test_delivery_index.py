"""The page's index of deliveries says what the store says, whatever happens to the store meanwhile."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState, IncidentReport, Kind, TicketRef
from bridge.reading import FEED, Pair
from bridge.web.delivery_filter import Filter
from bridge.web.delivery_index import DeliveryIndex
from bridge.web.delivery_table import Place, named_so
from tests.conftest import RedisServer

CONNECTORS = ("psa", "desk")
NAMES = {1: "Alder Dental", 2: "Bluewater GmbH", 3: "Ångström"}


@pytest.fixture
def store(redis_server: RedisServer, redis_url: str) -> Iterator[IdempotencyStore]:
    with redis_server.client() as client:
        store = IdempotencyStore(client)
        store.open()
        yield store


@pytest.fixture
def index(store: IdempotencyStore) -> Iterator[DeliveryIndex]:
    index = DeliveryIndex(store)
    yield index
    index.close()


def see(store: IdempotencyStore, *reports: IncidentReport, connectors: tuple[str, ...] = CONNECTORS) -> None:
    leader = int(store.script("lead", "poller", "test", 6000))
    store.observe(leader, [(each, [(name, f"huntress-5-{each.key}") for name in connectors]) for each in reports])


def report(number: int, **fields: Any) -> IncidentReport:
    base = IncidentReport(number, organization_id=1, severity="low", subject=f"LOW - Foothold on WS-{number:04d}")
    return replace(base, **fields)


def found(index: DeliveryIndex, wanted: Filter, size: int = 1000) -> list[Pair]:
    return list(index.page(wanted, size, named=named_so(wanted.words(), NAMES)).pairs)


def facts(store: IdempotencyStore) -> dict[Pair, tuple[object, ...]]:
    """Every delivery of the store, by what the index may be asked."""
    pairs = list(store.every_delivery())
    return {
        (each.report_id, each.connector): (str(each.state), each.severity, each.organization_id, each.updated_at)
        for each in store.read_deliveries(pairs)
    }


def indexed(index: DeliveryIndex, store: IdempotencyStore) -> dict[Pair, tuple[object, ...]]:
    """The same, as the index has it: each value by the filter that finds it."""
    known: dict[Pair, list[object]] = {pair: [] for pair in found(index, Filter())}
    for wanted, value in [
        *((Filter(state=str(state)), str(state)) for state in DeliveryState),
        *((Filter(severity=severity), severity) for severity in ("critical", "high", "low")),
        *((Filter(organization=organization), organization) for organization in NAMES),
    ]:
        for pair in found(index, wanted):
            known[pair].append(value)
    at = {pair: float(str(values[-1])) for pair, values in facts(store).items()}
    times = [at[pair] for pair in found(index, Filter())]
    assert times == sorted(times, reverse=True)
    return {pair: (*values, at[pair]) for pair, values in known.items()}


def test_it_says_what_the_store_says_after_a_storm_of_changes(store: IdempotencyStore, index: DeliveryIndex) -> None:
    draw = random.Random(7)
    see(store, *(report(number) for number in range(1, 301)))
    filling = threading.Thread(target=index.fill)
    filling.start()
    for _ in range(600):
        number, connector = draw.randint(1, 400), draw.choice(CONNECTORS)
        step = draw.randrange(5)
        if step == 0:
            severity = draw.choice(["critical", "high", "low"])
            see(store, report(number, severity=severity, organization_id=draw.randint(1, 3)))
        elif step == 1:
            store.handle(number, connector, "by hand")
        elif step == 2:
            store.retry(number, connector)
        else:
            claim = store.claim(number, connector, group=connector, concurrency=1000, settle=60)
            if not isinstance(claim, str):
                state = draw.choice([DeliveryState.REJECTED, DeliveryState.HELD, DeliveryState.PENDING])
                store.release(claim, state=state, reason="a reason", delay=0)
        if draw.randrange(20) == 0:
            index.follow()
    filling.join()
    index.follow()
    assert index.progress.ready
    assert indexed(index, store) == facts(store)
    organizations = Counter(each[2] for each in facts(store).values() if each[2] is not None)
    assert index.counts("organization") == organizations
    assert index.counts("connector") == Counter(connector for _, connector in facts(store))


def test_a_look_takes_over_what_changed_and_what_went(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1), report(2))
    index.fill()
    see(store, report(3, severity="critical"))
    claim = store.claim(2, "psa", group="psa", concurrency=3, settle=60)
    assert not isinstance(claim, str)
    store.release(claim, state=DeliveryState.REJECTED, reason="no")
    assert index.follow()
    assert found(index, Filter(state="attention")) == [(2, "psa")]
    assert set(found(index, Filter(severity="critical"))) == {(3, "psa"), (3, "desk")}
    leader = int(store.script("lead", "poller", "test", 6000))
    over = report(9, status="closed")
    store.observe(leader, [(over, [("psa", "huntress-5-9")])], adopt=True)
    index.follow()
    assert (9, "psa") in found(index, Filter())
    claim = store.claim(9, "psa", group="psa", concurrency=3, settle=60)
    assert not isinstance(claim, str)
    assert index.counts("connector") == {"psa": 4, "desk": 3}
    assert store.drop(claim)
    index.follow()
    assert index.counts("connector") == {"psa": 3, "desk": 3}
    assert index.counts("organization") == {1: 6}
    assert (9, "psa") not in found(index, Filter())


def test_another_store_in_its_place_is_read_anew(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1), report(2))
    index.fill()
    store.client.flushdb()
    store.clock_offset += 5
    store.reborn()
    see(store, report(7))
    assert not index.follow()
    assert not index.progress.ready
    index.fill()
    assert index.progress.ready
    assert set(found(index, Filter())) == {(7, "psa"), (7, "desk")}


def test_a_clock_that_is_set_hides_nothing(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1))
    index.fill()
    for number, seconds in enumerate((-100, -1.5, 86400 * 400, -86400 * 399, -7200), start=2):
        store.clock_offset += seconds
        see(store, report(number))
        assert index.follow()
        assert (number, "psa") in found(index, Filter())
        store.handle(number, "psa", "by hand")
        assert index.follow()
        assert (number, "psa") in found(index, Filter(state="handled"))


def test_a_store_that_was_set_back_is_read_anew(store: IdempotencyStore, index: DeliveryIndex) -> None:
    """Restored from a backup, or a replica took over that had not heard of the last changes."""
    see(store, report(1))
    saved = {key: store.client.dump(key) or b"" for key in store.client.scan_iter()}
    store.clock_offset += 5
    store.handle(1, "psa", "by hand")
    index.fill()
    store.client.flushdb()
    for key, value in saved.items():
        store.client.restore(key, 0, value)
    assert not index.follow()
    index.fill()
    assert found(index, Filter(state="handled")) == []


def forget(store: IdempotencyStore) -> None:
    """So much happens that the feed of changes forgets what was before."""
    top = store.latest_change().at
    store.client.zadd(store.key("changed"), {f"{number}|psa": top + number for number in range(1, FEED + 1)})
    store.handle(1, "psa", "by hand")


def test_what_the_feed_has_forgotten_is_read_anew(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1))
    index.fill()
    forget(store)
    see(store, report(2))
    assert not index.follow()
    index.fill()
    assert len(found(index, Filter())) == 4


def test_a_thread_fills_it_and_fills_it_again_when_the_store_was_lost(
    store: IdempotencyStore, index: DeliveryIndex
) -> None:
    see(store, report(1))
    until(lambda: index.look().ready)
    assert len(found(index, Filter())) == 2
    store.client.flushdb()
    store.clock_offset += 5
    store.reborn()
    see(store, report(2))
    assert not index.follow()
    until(lambda: index.look().ready)
    assert set(found(index, Filter())) == {(2, "psa"), (2, "desk")}


def until(condition: Callable[[], bool]) -> None:
    """Waits on what another thread does; what it waits for is work, not time."""
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came to that")


def test_without_redis_it_says_so_and_gets_on_when_it_is_back(
    make_redis_server: Callable[..., RedisServer],
) -> None:
    server = make_redis_server("--appendonly", "yes")
    with server.client() as client:
        store = IdempotencyStore(client)
        store.open()
        see(store, report(1))
        index = DeliveryIndex(store)
        index.fill()
        server.stop()
        with pytest.raises(redis.RedisError):
            index.follow()
        server.start()
        see(store, report(2))
        assert index.follow()
        assert len(found(index, Filter())) == 4
        index.close()


FILTERS = [
    (Filter(), {1, 2, 3, 4, "e5"}),
    (Filter(severity="critical"), {2}),
    (Filter(severity="other"), {4}),
    (Filter(organization=2), {2}),
    (Filter(organization=99), set()),
    (Filter(state="waiting"), {1, 2, 3, 4, "e5"}),
    (Filter(state="pending"), {1, 2, 3, 4, "e5"}),
    (Filter(state="created"), set()),
    (Filter(connector="psa"), {1, 2, 3, 4, "e5"}),
    (Filter(connector="nobody"), set()),
    (Filter(text="ws-0001"), {1}),
    (Filter(text="FOOTHOLD low"), {1, 4}),
    (Filter(text="foothold nothing"), set()),
    (Filter(text="straße"), {3}),
    (Filter(text="STRASSE"), {3}),
    (Filter(text="ångström"), {3}),
    (Filter(text="bluewater"), {2}),
    (Filter(text="bluewater ransom"), {2}),
    (Filter(text="e5"), {"e5"}),
    (Filter(text="100%"), {2}),
    (Filter(text="%"), {2}),
    (Filter(text="_"), set()),
    (Filter(text="' OR 1 --"), set()),
    (Filter(organization=2, severity="critical", connector="desk", state="waiting", text="ransom"), {2}),
    (Filter(organization=2, severity="low"), set()),
]


@pytest.mark.parametrize(("wanted", "expected"), FILTERS, ids=[each.query() for each, _ in FILTERS])
def test_each_filter_finds_what_it_says(
    store: IdempotencyStore, index: DeliveryIndex, wanted: Filter, expected: set[object]
) -> None:
    see(
        store,
        report(1),
        report(2, severity="critical", organization_id=2, subject="CRITICAL - Ransom note, 100% encrypted"),
        report(3, organization_id=3, severity="high", subject="HIGH - Login from Hauptstraße 5"),
        report(4, severity="apocalyptic"),
        report(5, kind=Kind.ESCALATION, severity="high", organization_id=None, subject="Please call us back"),
    )
    index.fill()
    assert {report_id for report_id, _ in found(index, wanted)} == expected
    assert index.page(wanted, 1, named=named_so(wanted.words(), NAMES)).total == len(found(index, wanted))
    assert list(index.pairs(wanted, named=named_so(wanted.words(), NAMES))) == found(index, wanted)


def test_a_ticket_is_found_by_its_number_or_id(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1))
    claim = store.claim(1, "desk", group="desk", concurrency=3, settle=60)
    assert not isinstance(claim, str)
    store.record(claim, TicketRef("4711", "T20260302.0042"))
    index.fill()
    for text in ("t20260302.0042", "4711"):
        assert found(index, Filter(text=text)) == [(1, "desk")]


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_pages_show_each_delivery_once_in_both_directions(
    store: IdempotencyStore, index: DeliveryIndex, size: int
) -> None:
    see(store, *(report(number) for number in range(1, 11)))  # many with the same time
    index.fill()
    whole = found(index, Filter())
    assert len(whole) == 20
    down: list[Pair] = []
    place: Place | None = None
    pages = []
    while True:
        page = index.page(Filter(), size, named={}, before=place)
        pages.append(page)
        down += page.pairs
        if page.older is None:
            break
        place = Place.read(str(page.older))
    assert down == whole
    assert pages[0].newer is None
    up = list(pages[-1].pairs)
    page = pages[-1]
    while page.newer is not None:
        page = index.page(Filter(), size, named={}, after=page.newer)
        assert page.older is not None
        up = [*page.pairs, *up]
    assert up == whole


@pytest.mark.parametrize("text", ["", "-", "1", "1-", "-1", "a-b", "1-2-3", "²-1", "1" * 40 + "-1"])
def test_a_place_that_is_none_is_none(text: str) -> None:
    assert Place.read(text) is None


def test_incidents_are_counted_by_organization(store: IdempotencyStore, index: DeliveryIndex) -> None:
    see(store, report(1), report(2, organization_id=2), report(3, organization_id=None))
    store.clock_offset += 3600
    since = store.now() - 60
    see(store, report(4, organization_id=2))
    index.fill()
    counted = index.incidents(since)
    assert {each: (of.total, of.recent, of.unsettled) for each, of in counted.items()} == {1: (2, 0, 2), 2: (4, 2, 4)}
    assert index.counts("organization") == {1: 2, 2: 4}
    assert index.unsettled() == {"psa": (4, 0), "desk": (4, 0)}


@pytest.mark.parametrize(
    ("given", "wanted", "problem"),
    [
        ({}, Filter(), ""),
        ({"state": "attention", "text": "  a   b "}, Filter(state="attention", text="a b"), ""),
        ({"state": "lost"}, Filter(), "no state 'lost'"),
        ({"severity": "dire"}, Filter(), "no severity 'dire'"),
        ({"organization": "x"}, Filter(), "no id of an organization"),
        ({"organization": "²"}, Filter(), "no id of an organization"),
        ({"organization": "9" * 30}, Filter(), "no id of an organization"),
        ({"organization": "7"}, Filter(organization=7), ""),
        ({"text": "y" * 300}, Filter(text="y" * 200), "first 200 characters"),
    ],
)
def test_an_address_is_read_as_a_filter(given: dict[str, str], wanted: Filter, problem: str) -> None:
    read, problems = Filter.read(given)
    assert read == wanted
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)
    assert Filter.read(read.arguments()) == (read, [])
