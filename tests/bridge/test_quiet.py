"""Until when deliveries wait: midnight, weeks, clock changes, and which reports do not wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bridge.models import IncidentReport, Kind, Organization
from bridge.quiet import FARTHEST, held_until
from connectors.base import ConnectorSettings
from connectors.quiet_windows import DAYS

BERLIN = ZoneInfo("Europe/Berlin")
REPORT = IncidentReport(77, organization_id=4, severity="low")
NIGHT = {"from": "22:00", "to": "07:00"}
NOON = {"from": "12:00", "to": "13:00"}
WEEKEND: dict[str, Any] = {"days": ["sat", "sun"], "from": "00:00", "to": "24:00"}
MOVE = {"from": "2026-12-01T22:00", "to": "2026-12-02T04:00"}


def settings(*quiet: dict[str, Any], maintenance: tuple[dict[str, Any], ...] = ()) -> ConnectorSettings:
    return ConnectorSettings.model_validate({"type": "any", "quiet": quiet, "maintenance": maintenance})


def held(table: ConnectorSettings, local: str, report: IncidentReport = REPORT, zone: ZoneInfo = BERLIN) -> str | None:
    """The end as local time, of a delivery that comes up at `local`."""
    found = held_until(table, zone, report, datetime.fromisoformat(local).replace(tzinfo=zone))
    return found and f"{found[0].astimezone(zone):%Y-%m-%dT%H:%M%z}"


@pytest.mark.parametrize(
    ("quiet", "now", "end"),
    [
        ([], "2026-11-25T23:00", None),
        ([NIGHT], "2026-11-25T21:59:59", None),
        ([NIGHT], "2026-11-25T22:00", "2026-11-26T07:00+0100"),
        ([NIGHT], "2026-11-26T00:00", "2026-11-26T07:00+0100"),
        ([NIGHT], "2026-11-26T06:59:59", "2026-11-26T07:00+0100"),
        ([NIGHT], "2026-11-26T07:00", None),
        ([NIGHT | {"days": ["wed"]}], "2026-11-26T03:00", "2026-11-26T07:00+0100"),
        ([NIGHT | {"days": ["thu"]}], "2026-11-26T03:00", None),
        ([NOON], "2026-11-26T12:30", "2026-11-26T13:00+0100"),
        # A chain without a gap: Friday night, the weekend, Sunday night.
        ([NIGHT, WEEKEND], "2026-11-27T22:00", "2026-11-30T07:00+0100"),
        ([WEEKEND], "2026-11-28T12:00", "2026-11-30T00:00+0100"),
        ([NOON, {"from": "13:01", "to": "14:00"}], "2026-11-26T12:30", "2026-11-26T13:00+0100"),
        ([NOON, {"from": "13:00", "to": "14:00"}], "2026-11-26T12:30", "2026-11-26T14:00+0100"),
        # The clocks go forward at 02:00 and back at 03:00.
        ([NIGHT], "2026-03-28T23:00", "2026-03-29T07:00+0200"),
        ([NIGHT], "2026-10-24T23:00", "2026-10-25T07:00+0100"),
        ([{"from": "01:00", "to": "02:30"}], "2026-03-29T01:30", "2026-03-29T03:30+0200"),
        ([{"from": "02:30", "to": "04:00"}], "2026-03-29T03:10", None),
        ([{"from": "02:30", "to": "04:00"}], "2026-10-25T02:30", "2026-10-25T04:00+0100"),
        ([{"from": "01:00", "to": "02:30"}], "2026-10-25T01:00", "2026-10-25T02:30+0200"),
    ],
)  # fmt: skip
def test_quiet_hours_last_by_the_clock_on_the_wall(quiet: list[dict[str, Any]], now: str, end: str | None) -> None:
    assert held(settings(*quiet), now) == end


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        (MOVE, "2026-12-01T21:59", None),
        (MOVE, "2026-12-01T22:00", "2026-12-02T04:00+0100"),
        (MOVE, "2026-12-02T04:00", None),
        ({"from": "2026-12-01T22:00Z", "to": "2026-12-02T04:00Z"}, "2026-12-01T22:30", None),
        ({"from": "2026-12-01T22:00Z", "to": "2026-12-02T04:00Z"}, "2026-12-02T04:30", "2026-12-02T05:00+0100"),
        ({"from": datetime(2026, 12, 1), "to": datetime(2026, 12, 3)}, "2026-12-02T04:30", "2026-12-03T00:00+0100"),  # noqa: DTZ001 - as TOML's local times are
    ],
)  # fmt: skip
def test_maintenance_lasts_once(window: dict[str, Any], now: str, end: str | None) -> None:
    assert held(settings(maintenance=(window,)), now) == end


@pytest.mark.parametrize(
    ("window", "report", "waits"),
    [
        ({}, {}, True),
        ({}, {"severity": "high"}, True),
        ({}, {"severity": "critical"}, False),
        ({"except": "high"}, {"severity": "high"}, False),
        ({"except": "high"}, {"severity": "unheard of"}, False),
        ({"except": "critical"}, {"severity": ""}, True),
        ({"except": "nothing"}, {"severity": "critical"}, True),
        ({"organizations": [4]}, {}, True),
        ({"organizations": [5]}, {}, False),
        ({"organizations": [4]}, {"organization_id": None}, False),
        ({"organizations": [4]}, {"organizations": (Organization(4), Organization(5))}, False),
        ({"organizations": [4, 5]}, {"organizations": (Organization(4), Organization(5))}, True),
    ],
)
def test_which_reports_wait(window: dict[str, Any], report: dict[str, Any], waits: bool) -> None:
    listed = replace(REPORT, kind=Kind.ESCALATION, **report)
    assert (held(settings(NIGHT | window), "2026-11-25T23:00", listed) is not None) is waits


@pytest.mark.parametrize(
    ("quiet", "maintenance", "sentence"),
    [
        ([NIGHT], [], "quiet hours until Thu 07:00 Europe/Berlin (critical reports go out)"),
        (
            [NIGHT | {"except": "high"}],
            [],
            "quiet hours until Thu 07:00 Europe/Berlin (critical and high reports go out)",
        ),
        (
            [NIGHT | {"except": "high"}],
            [{"from": "2026-11-26T06:00", "to": "2026-12-06T06:00"}],
            "quiet hours and maintenance until 2026-12-06 07:00 Europe/Berlin (critical reports go out)",
        ),
        (
            [],
            [{"from": "2026-11-25T22:30", "to": "2026-11-26T06:00", "except": "nothing"}],
            "maintenance until Thu 06:00 Europe/Berlin (reports of any severity wait)",
        ),
    ],
)  # fmt: skip
def test_the_reason_names_the_end_and_what_goes_out(
    quiet: list[dict[str, Any]], maintenance: list[dict[str, Any]], sentence: str
) -> None:
    table = settings(*quiet, maintenance=tuple(maintenance))
    found = held_until(table, BERLIN, REPORT, datetime(2026, 11, 25, 22, tzinfo=UTC))
    assert found is not None
    assert found[1] == sentence


CLOCK = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")


def _sunday_is_free(window: dict[str, Any]) -> bool:
    return bool(window["from"] < window["to"] or "sat" not in window["days"])


HOURS: st.SearchStrategy[dict[str, Any]] = (
    st.fixed_dictionaries({"days": st.lists(st.sampled_from(DAYS[:6]), min_size=1), "from": CLOCK, "to": CLOCK})
    .filter(lambda window: window["from"] != window["to"])
    .filter(_sunday_is_free)
)
#: One change of the clocks within an hour of midnight, one by half an hour, ordinary ones, and none.
ZONES = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


@examples(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(HOURS, min_size=1, max_size=3), ZONES, MOMENTS)
def test_an_end_lies_ahead_and_is_one(quiet: list[dict[str, Any]], zone: ZoneInfo, now: datetime) -> None:
    table = settings(*quiet)
    found = held_until(table, zone, REPORT, now)
    if found is None:
        return
    end = found[0]
    # Sundays are free, so nothing waits for a week.
    assert now < end < now + timedelta(days=7)
    assert held_until(table, zone, REPORT, end) is None
    last = held_until(table, zone, REPORT, end - timedelta(seconds=1))
    assert last is not None
    assert last[0] == end


@examples(max_examples=200, deadline=None, derandomize=True, database=None)
@given(HOURS, ZONES, MOMENTS)
def test_away_from_clock_changes_the_wall_clock_decides(window: dict[str, Any], zone: ZoneInfo, now: datetime) -> None:
    there = now.astimezone(zone)
    if len({(there + timedelta(days=days)).utcoffset() for days in (-2, -1, 0, 1)}) > 1:
        return
    day, clock = DAYS[there.weekday()], f"{there:%H:%M}"
    if window["from"] < window["to"]:
        quiet = day in window["days"] and window["from"] <= clock < window["to"]
    else:
        evening = day in window["days"] and clock >= window["from"]
        quiet = evening or (DAYS[there.weekday() - 1] in window["days"] and clock < window["to"])
    assert (held_until(settings(window), zone, REPORT, now) is not None) is quiet


def test_a_far_end_is_asked_for_again() -> None:
    table = settings(
        {"days": list(DAYS), "from": "00:00", "to": "23:59"},
        maintenance=tuple(
            {"from": f"{day:%Y-%m-%d}T23:00", "to": f"{day + timedelta(days=1):%Y-%m-%d}T00:00"}
            for day in (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=days) for days in range(90))
        ),
    )
    now = datetime(2026, 11, 25, tzinfo=UTC)
    found = held_until(table, BERLIN, REPORT, now)
    assert found is not None
    assert FARTHEST <= found[0] - now < FARTHEST + timedelta(days=1)
