"""Quiet hours and maintenance: until when a report's deliveries to one connector are held back.

Pure: the clock is the caller's. Local times follow RFC 5545, 3.3.5: one that the clocks skip is read with the offset
before the change, one that they show twice means the first.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from bridge.models import SEVERITIES, IncidentReport, severity_rank
from connectors.base import ConnectorSettings
from connectors.quiet_windows import DAYS, Maintenance, QuietHours, Window

#: How far ahead an end is looked for; one farther away is asked for again by then.
FARTHEST = timedelta(days=31)
#: Ends nearer than this are told by their day of the week.
_NEAR = timedelta(days=6)


def held_until(
    settings: ConnectorSettings, zone: ZoneInfo, report: IncidentReport, now: datetime
) -> tuple[datetime, str] | None:
    """When a delivery that comes up at `now` may go out, in UTC, and why it waits, as a sentence; None: it may go.

    Where windows overlap or follow without a gap, it is the end of the last.
    """
    windows = [window for window in (*settings.quiet, *settings.maintenance) if _holds(window, report)]
    until, chain = now.astimezone(UTC), list[Window]()
    while until - now < FARTHEST:
        ends = [(end, window) for window in windows if (end := _end(window, zone, until)) is not None]
        if not ends:
            break
        until = max(end for end, _ in ends)
        chain += [window for _, window in ends]
    if not chain:
        return None
    return until, f"{_named(chain)} until {_moment(until, zone, now)} ({_excepted(chain)})"


def _holds(window: Window, report: IncidentReport) -> bool:
    """Is the report held while this window lasts? One that concerns an organization outside of it is not."""
    if window.excepted != "nothing" and severity_rank(report.severity) <= SEVERITIES.index(window.excepted):
        return False
    if report.organizations and window.organizations:
        return all(organization.id in window.organizations for organization in report.organizations)
    return not window.organizations or report.organization_id in window.organizations


def _end(window: Window, zone: ZoneInfo, at: datetime) -> datetime | None:
    """When the window that lasts at `at` ends, in UTC; None: it does not last then."""
    runs: list[tuple[datetime, datetime]] = []
    if isinstance(window, Maintenance):
        runs = [(_utc(window.start, zone), _utc(window.end, zone))]
    elif isinstance(window, QuietHours):
        today = at.astimezone(zone).date()
        days = (today - timedelta(days=1), today)
        runs = [_run(window, zone, day) for day in days if DAYS[day.weekday()] in window.days]
    return max((end for start, end in runs if start <= at < end), default=None)


def _run(window: QuietHours, zone: ZoneInfo, day: date) -> tuple[datetime, datetime]:
    """Start and end of the quiet hours that start on `day`."""
    start = datetime.combine(day, time(), zone) + timedelta(minutes=window.start)
    return start.astimezone(UTC), (start + timedelta(minutes=window.length)).astimezone(UTC)


def _utc(moment: datetime, zone: ZoneInfo) -> datetime:
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def _named(chain: list[Window]) -> str:
    kinds = {"maintenance" if isinstance(window, Maintenance) else "quiet hours": None for window in chain}
    return " and ".join(kinds)


def _moment(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    there = moment.astimezone(zone)
    day = DAYS[there.weekday()].title() if moment - now < _NEAR else f"{there:%Y-%m-%d}"
    return f"{day} {there:%H:%M} {zone.key}"


def _excepted(chain: list[Window]) -> str:
    """What goes out all the same during the whole chain."""
    excepted = {window.excepted for window in chain}
    if "nothing" in excepted:
        return "reports of any severity wait"
    return "critical reports go out" if "critical" in excepted else "critical and high reports go out"
