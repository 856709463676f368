"""Which connectors take a report, and the moment that `not_before` means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from bridge.broker import store_client
from bridge.idempotency import IdempotencyStore
from bridge.models import IncidentReport, Kind, Organization
from bridge.routing import Routes, not_before
from connectors.base import ConnectorSettings, Only

SENT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REPORT = IncidentReport(77, account_id=5, organization_id=4, severity="critical", platform="windows", sent_at=SENT)
FOOTHOLD = {"indicator_types": ("Footholds", "process_detections")}
BOTH = (Organization(4), Organization(9))


def routes(
    only: dict[str, dict[str, Any]] | None = None,
    *,
    pilot: tuple[int, ...] = (),
    disabled: tuple[int, ...] = (),
    since: dict[str, datetime] | None = None,
    suffixes: dict[str, str] | None = None,
) -> Routes:
    """Three connectors; `only` is that of each by name."""
    settings = {
        name: ConnectorSettings(
            type="any", only=Only(**(only or {}).get(name, {})), reference_suffix=(suffixes or {}).get(name, "")
        )
        for name in ("psa", "desk", "oncall")
    }
    return Routes(settings, frozenset(pilot), frozenset(disabled), since or {})


@pytest.mark.parametrize(
    ("only", "report", "takers"),
    [
        ({}, {}, ["psa", "desk", "oncall"]),
        ({"oncall": {"severities": ["critical"]}}, {}, ["psa", "desk", "oncall"]),
        ({"oncall": {"severities": ["critical"]}}, {"severity": "low"}, ["psa", "desk"]),
        ({"oncall": {"severities": ["high"]}}, {"severity": "catastrophic"}, ["psa", "desk", "oncall"]),
        ({"oncall": {"severities": ["catastrophic"]}}, {"severity": "catastrophic"}, ["psa", "desk", "oncall"]),
        ({"oncall": {"severities": ["high"]}}, {"severity": ""}, ["psa", "desk", "oncall"]),
        ({"oncall": {"severities": ["critical"]}}, {"severity": "catastrophic"}, ["psa", "desk"]),
        ({"desk": {"organizations": [4]}}, {}, ["psa", "desk", "oncall"]),
        ({"desk": {"organizations": [4]}}, {"organization_id": 5}, ["psa", "oncall"]),
        ({"desk": {"organizations": [4]}}, {"organization_id": None}, ["psa", "oncall"]),
        ({"psa": {"platforms": ["microsoft_365"]}}, {}, ["desk", "oncall"]),
        ({"psa": {"severities": ["critical"], "organizations": [5]}}, {}, ["desk", "oncall"]),
        ({"psa": {"indicator_types": ["footholds"]}}, {}, ["desk", "oncall"]),
        ({"psa": {"indicator_types": ["ransomware_canaries", "Footholds"]}}, FOOTHOLD, ["psa", "desk", "oncall"]),
        ({"psa": {"indicator_types": ["ransomware_canaries"]}}, FOOTHOLD, ["desk", "oncall"]),
        (
            {"psa": {"indicator_types": ["footholds"]}, "desk": {"indicator_types": ["mde_detections"]}},
            {"indicator_counts": (("footholds", 1), ("mde_detections", 0))},
            ["psa", "oncall"],
        ),
        # What concerns several organizations goes where one of them goes.
        ({"desk": {"organizations": [9]}}, {"organizations": BOTH, "organization_id": None}, ["psa", "desk", "oncall"]),
        ({"desk": {"organizations": [7]}}, {"organizations": BOTH, "organization_id": None}, ["psa", "oncall"]),
        # What no connector takes goes to all.
        (
            {name: {"severities": ["critical"]} for name in ("psa", "desk", "oncall")},
            {"severity": "low"},
            ["psa", "desk", "oncall"],
        ),
        (
            {"psa": {"organizations": [1]}, "desk": {"platforms": ["darwin"]}, "oncall": {"severities": ["low"]}},
            {},
            ["psa", "desk", "oncall"],
        ),
    ],
)
def test_who_takes_a_report(only: dict[str, dict[str, Any]], report: dict[str, Any], takers: list[str]) -> None:
    assert routes(only).connectors(replace(REPORT, **report)) == takers


def test_every_decision_has_its_reason() -> None:
    decisions = routes({"desk": {"organizations": [9]}, "oncall": {"severities": ["low"]}}).decide(REPORT)
    assert [(decision.connector, decision.takes, decision.why) for decision in decisions] == [
        ("psa", True, "takes it"),
        ("desk", False, "organization 4 is not in only.organizations"),
        ("oncall", False, "severity critical is not in only.severities"),
    ]


def test_who_takes_it_names_every_entry_that_says_so() -> None:
    only = {
        "severities": ["critical"],
        "organizations": [4],
        "platforms": ["windows"],
        "indicator_types": ["footholds"],
    }
    (decision, *_) = routes({"psa": only}).decide(replace(REPORT, indicator_types=("footholds",)))
    assert decision.why == (
        "takes it: severity critical is in only.severities, organization 4 is in only.organizations, "
        "platform windows is in only.platforms, indicator type footholds is in only.indicator_types"
    )


@pytest.mark.parametrize(
    ("pilot", "disabled", "concerned", "served"),
    [
        ((4,), (), (4, 9), True),
        ((5,), (), (4, 9), False),
        ((), (4,), (4, 9), True),
        ((), (4, 9), (4, 9), False),
        # The account's own troubles concern those that are served, too.
        ((4,), (), (), True),
    ],
)
def test_one_organization_that_is_served_is_enough(
    pilot: tuple[int, ...], disabled: tuple[int, ...], concerned: tuple[int, ...], served: bool
) -> None:
    escalation = IncidentReport(
        9, Kind.ESCALATION, severity="low", organizations=tuple(Organization(number) for number in concerned)
    )
    assert bool(routes(pilot=pilot, disabled=disabled).connectors(escalation)) is served


def test_what_goes_to_all_says_why() -> None:
    (decision, *_) = routes({name: {"severities": ["low"]} for name in ("psa", "desk", "oncall")}).decide(REPORT)
    assert decision.takes
    assert "no connector's `only` takes it" in decision.why


@pytest.mark.parametrize(
    ("pilot", "disabled", "organization", "served"),
    [
        ((), (), 4, True),
        ((), (), None, True),
        ((4,), (), 4, True),
        ((4,), (), 5, False),
        ((4,), (), None, False),
        ((), (4,), 4, False),
        ((), (4,), None, True),
        ((4,), (4,), 4, False),
    ],
)
def test_organizations_that_are_not_served_get_no_ticket_anywhere(
    pilot: tuple[int, ...], disabled: tuple[int, ...], organization: int | None, served: bool
) -> None:
    routing = routes(pilot=pilot, disabled=disabled)
    assert routing.serves(organization) is served
    assert bool(routing.connectors(replace(REPORT, organization_id=organization))) is served


EARLIER, LATER = SENT - timedelta(seconds=1), SENT + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("since", "report", "takers"),
    [
        ({"": SENT}, {}, ["psa", "desk", "oncall"]),
        ({"": LATER}, {}, []),
        ({"desk": LATER}, {}, ["psa", "oncall"]),
        ({"": EARLIER, "desk": LATER}, {}, ["psa", "oncall"]),
        ({"": LATER, "desk": EARLIER}, {}, []),
        ({"": LATER}, {"sent_at": None, "created_at": EARLIER}, []),
        ({"": SENT}, {"created_at": EARLIER}, ["psa", "desk", "oncall"]),
        ({"": LATER}, {"sent_at": None}, ["psa", "desk", "oncall"]),
    ],
)
def test_not_before_leaves_older_reports_alone(
    since: dict[str, datetime], report: dict[str, Any], takers: list[str]
) -> None:
    assert routes(since=since).connectors(replace(REPORT, **report)) == takers


def test_what_no_only_takes_does_not_go_to_a_connector_that_leaves_it_alone() -> None:
    only = {name: {"severities": ["low"]} for name in ("psa", "desk", "oncall")}
    assert routes(only, since={"desk": LATER}).connectors(REPORT) == ["psa", "oncall"]


def test_what_its_only_taker_leaves_alone_goes_to_the_others_rather_than_to_nobody() -> None:
    only = {"psa": {"severities": ["low"]}, "desk": {"severities": ["low"]}}
    assert routes(only, since={"oncall": LATER}).connectors(REPORT) == ["psa", "desk"]


# -- references --------------------------------------------------------------------------------------------------------


def test_the_reference_names_account_and_report_and_the_connectors_suffix() -> None:
    routing = routes(suffixes={"desk": "-b"})
    assert routing.reference(REPORT, "psa") == "huntress-5-77"
    assert routing.reference(REPORT, "desk") == "huntress-5-77-b"


def test_a_reference_never_outgrows_what_every_system_holds() -> None:
    routing = routes(suffixes={"desk": "-twelve-long", "oncall": "-twelve-lonh"})
    huge = replace(REPORT, id=2**63 - 1, account_id=2**63 - 1)
    references = {routing.reference(huge, name) for name in ("psa", "desk", "oncall")}
    assert len(references) == 3
    for reference in references:
        assert re.fullmatch(r"huntress-[A-Za-z0-9-]{1,41}", reference)


# -- the moment --------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(client: redis.Redis) -> IdempotencyStore:
    store = IdempotencyStore(client)
    store.open()
    return store


@pytest.mark.parametrize(
    ("setting", "moment"),
    [
        ("", None),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_date_means_itself(store: IdempotencyStore, setting: str, moment: datetime | None) -> None:
    assert not_before(store, setting, "poll") == moment
    assert store.recall("not_before:poll") == ""


def test_now_is_the_first_start_for_ever(store: IdempotencyStore, client: redis.Redis) -> None:
    first = not_before(store, "now", "poll")
    assert first is not None
    assert abs(first.timestamp() - store.now()) < 5
    store.clock_offset += 86400
    assert not_before(store, "now", "poll") == first
    second_process = IdempotencyStore(client, clock_offset=2 * 86400)
    assert not_before(second_process, "now", "poll") == first


def test_now_is_pinned_for_each_connector_apart(store: IdempotencyStore) -> None:
    first = not_before(store, "now", "poll")
    store.clock_offset += 3600
    later = not_before(store, "now", "psa")
    assert first is not None
    assert later is not None
    assert timedelta(minutes=59) < later - first < timedelta(minutes=61)


def test_now_outlives_the_loss_of_the_store(store: IdempotencyStore, client: redis.Redis) -> None:
    first = not_before(store, "now", "poll")
    client.flushdb()
    store.clock_offset += 3600
    assert not_before(store, "now", "poll") == first
    store.reborn()
    assert not_before(IdempotencyStore(client), "now", "poll") == first, "written into the new store, too"


def test_a_rehearsal_pins_nothing(store: IdempotencyStore) -> None:
    assert not_before(store, "now", "poll", pin=False) is not None
    assert store.recall("not_before:poll") == ""
