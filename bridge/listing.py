"""From the raw items of a listing to the reports that are open, in either dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.models import FINISHED_STATUSES, FURTHER_OPEN_STATUSES, OPEN_STATUSES, IncidentReport, ReportKey
from bridge.parsing import ParseError, parse_report
from bridge.source_errors import SourceError


@dataclass(frozen=True, slots=True)
class Unparsable:
    """An item of a listing that cannot be taken for a report, open or over. `raw` is its JSON as it came."""

    raw: Any
    reason: str
    report_id: ReportKey | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is open; everything, when `complete`."""

    reports: tuple[IncidentReport, ...] = ()
    unparsable: tuple[Unparsable, ...] = ()
    #: Ids of reports that the SOC has not sent yet; they will be listed again.
    unsent: tuple[int, ...] = ()
    #: False: the listing broke off, so that what it does not show may be open all the same.
    complete: bool = True


def no_summary(raw: Any) -> bool:
    """Is this anything but one of the vendor's monthly summaries?"""
    return not (isinstance(raw, Mapping) and (raw.get("type") or raw.get("period")))


def is_open_incident(report: IncidentReport) -> bool:
    # A status may be missing; a closed one comes when a server ignores the filter on later pages.
    return not report.status or report.status in OPEN_STATUSES


def is_open_further(report: IncidentReport) -> bool:
    return not report.status or report.status in FURTHER_OPEN_STATUSES


def is_open_report(report: IncidentReport) -> bool:
    return report.status not in FINISHED_STATUSES


def sort_out(
    items: Iterable[Any],
    is_open: Callable[[IncidentReport], bool],
    organization_id: int | None,
    needs_sending: bool,
    parse: Callable[[Any], IncidentReport] = parse_report,
) -> Listing:
    """Parses what was listed. What cannot be parsed is kept apart; it never stops the others.

    When the listing breaks off, the `SourceError` carries what it had shown.
    """
    reports: dict[int, IncidentReport] = {}
    unparsable: list[Unparsable] = []
    unsent: set[int] = set()
    broke_off: SourceError | None = None
    try:
        for raw in items:
            try:
                report = parse(raw)
            except ParseError as error:
                unparsable.append(Unparsable(raw, str(error)))
                continue
            if report.status in FINISHED_STATUSES:
                continue
            if needs_sending and not raw.get("sent_at"):
                unsent.add(report.id)
                continue
            if not is_open(report):
                reason = f"its status {report.status[:60]!r} is not known, so it may be open or over"
                unparsable.append(Unparsable(raw, reason, report.key))
                continue
            if report.organization_id is None:
                report = replace(report, organization_id=organization_id)
            reports.setdefault(report.id, report)
    except SourceError as error:
        broke_off = error
    listing = Listing(tuple(reports.values()), tuple(unparsable), tuple(sorted(unsent - reports.keys())))
    if broke_off is not None:
        broke_off.shown = replace(listing, complete=False)
        raise broke_off
    return listing
