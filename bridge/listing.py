"""From the raw items of a listing to the reports that are open, in either dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    #: Open reports that were not parsed, because they are as they were when they were last seen.
    unchanged: tuple[ReportKey, ...] = ()
    #: What `reports` and `unchanged` came as, where that is wanted.
    raw: Mapping[ReportKey, Any] = field(default_factory=dict)


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


class Sieve:
    """Sorts the items of one listing as they come. What cannot be parsed is kept apart; it never stops the others.

    `unchanged` answers the key of an item that was seen before as it is now, and was open: it is not parsed again.
    With it, `Listing.raw` has what each open report was parsed from.
    """

    def __init__(
        self,
        is_open: Callable[[IncidentReport], bool],
        organization_id: int | None,
        needs_sending: bool,
        parse: Callable[[Any], IncidentReport] = parse_report,
        unchanged: Callable[[Any], ReportKey | None] | None = None,
    ) -> None:
        self.is_open = is_open
        self.organization_id = organization_id
        self.needs_sending = needs_sending
        self.parse = parse
        self.unchanged = unchanged
        #: Every open report so far: while a listing is read, a report may move to a page or status that is yet to come.
        self._shown: set[ReportKey] = set()
        self._clear()

    def _clear(self) -> None:
        self._reports: list[IncidentReport] = []
        self._same: list[ReportKey] = []
        self._raw: dict[ReportKey, Any] = {}
        self._unparsable: list[Unparsable] = []
        self._unsent: set[int] = set()

    def add(self, raw: Any) -> None:
        """Takes one item."""
        if self.unchanged and (key := self.unchanged(raw)) is not None:
            if self._first(key, raw):
                self._same.append(key)
            return
        try:
            report = self.parse(raw)
        except ParseError as error:
            self._unparsable.append(Unparsable(raw, str(error)))
            return
        if report.status in FINISHED_STATUSES:
            return
        if self.needs_sending and not raw.get("sent_at"):
            self._unsent.add(report.id)
            return
        if not self.is_open(report):
            reason = f"its status {report.status[:60]!r} is not known, so it may be open or over"
            self._unparsable.append(Unparsable(raw, reason, report.key))
            return
        if self._first(report.key, raw):
            if report.organization_id is None:
                report = replace(report, organization_id=self.organization_id)
            self._reports.append(report)

    def _first(self, key: ReportKey, raw: Any) -> bool:
        if key in self._shown:
            return False
        self._shown.add(key)
        if self.unchanged:
            self._raw[key] = raw
        return True

    def take(self) -> Listing:
        """What was added since the last time."""
        listing = Listing(
            tuple(self._reports),
            tuple(self._unparsable),
            tuple(sorted(self._unsent - self._shown)),
            unchanged=tuple(self._same),
            raw=self._raw,
        )
        self._clear()
        return listing


def sort_out(items: Iterable[Any], sieve: Sieve) -> Listing:
    """The whole listing. When it breaks off, the `SourceError` carries what it had shown."""
    try:
        for raw in items:
            sieve.add(raw)
    except SourceError as error:
        error.shown = replace(sieve.take(), complete=False)
        raise
    return sieve.take()
