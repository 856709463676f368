"""The open reports as the poller sees them: the same listings, in the dialect and scope that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bridge.huntress import Dialect, HuntressClient, SourceError
from bridge.idempotency import IdempotencyStore
from bridge.models import IncidentReport, severity_rank
from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class ReportSource:
    """How the reports are listed. `by_organization`: each organization by itself, which takes a request each."""

    client: HuntressClient
    dialect: Dialect
    by_organization: bool

    @classmethod
    def chosen(cls, client: HuntressClient, settings: Settings, store: IdempotencyStore) -> ReportSource:
        """As configured, else as the poller decided, else as the source is now. Raises `SourceError`."""
        dialect = settings.huntress.dialect
        if dialect == "auto":
            kept = store.recall("dialect")
            if kept in ("incident_reports", "reports"):
                dialect = "incident_reports" if kept == "incident_reports" else "reports"
            else:
                dialect = client.detect_dialect() or "reports"
        return cls(client, dialect, settings.poll.scope_for(dialect) == "organization")

    def scopes(self, organization_id: int | None, served: Sequence[int]) -> list[int | None]:
        """What is listed, one after the other: organizations, or None for the whole account."""
        if organization_id is not None:
            return [organization_id]
        return list(served) if self.by_organization else [None]

    def reports(self, scopes: Sequence[int | None], problem: Callable[[str], None]) -> Iterator[IncidentReport]:
        """The open reports, by organization and then by urgency. `problem` is told what cannot be listed or read.

        Raises `SourceError` when it would be the same for the other scopes, or there are none.
        """
        for scope in scopes:
            try:
                listing = self.client.open_reports(self.dialect, scope)
            except SourceError as error:
                if error.fatal or len(scopes) == 1:
                    raise
                problem(f"organization {scope}: {error}")
                continue
            for bad in listing.unparsable:
                problem(f"report {bad.report_id or 'without an id'} cannot be read: {bad.reason}")
            yield from sorted(listing.reports, key=_place)


def _place(report: IncidentReport) -> tuple[int, int, int]:
    return report.organization_id or 0, severity_rank(report.severity), report.id
