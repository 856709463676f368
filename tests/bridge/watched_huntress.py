"""The pretend Huntress with what tests of the poller want of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.demo import scenario
from bridge.demo.huntress import PretendHuntress
from bridge.demo.server import Fault, Received

SINGLE_READ = r"/incident_reports/\d+$"
LISTING = r"/(incident_reports|reports)$"


class WatchedHuntress(PretendHuntress):
    """Meets each request with the trouble that a test thinks of, and lists as a test wants it."""

    trouble: Callable[[Received], Fault | None] = staticmethod(lambda request: None)

    def _arrived(self, request: Received) -> Fault | None:
        return super()._arrived(request) or self.trouble(request)

    def add(self, *numbers: int, **fields: Any) -> None:
        """Open reports, of the three organizations in turn."""
        for number in numbers:
            self.add_report(**{"id": number, "organization_id": (number - 1) % 3 + 1} | fields)

    def end(self, number: int, status: str = "closed", days_ago: float = 0, **fields: Any) -> None:
        """Ends a report, some days ago."""
        self.close_report(number, status)
        moment = scenario.stamp(datetime.now(UTC) - timedelta(days=days_ago))
        with self.lock:
            self.reports[number] |= {"closed_at": moment, "updated_at": moment, "status_updated_at": moment} | fields

    def listings(self) -> list[Received]:
        """Listings of what is open that were asked for, page by page."""
        return [request for request in self.requests_to(LISTING) if "status" in request.query]

    def changes(self) -> list[Received]:
        """Pages of the newest changes that were asked for."""
        return [request for request in self.requests_to(LISTING) if "sort_field" in request.query]

    def single_reads(self) -> list[int]:
        """Reports that were read by themselves, in order."""
        return [int(request.path.rsplit("/", 1)[1]) for request in self.requests_to(SINGLE_READ)]
