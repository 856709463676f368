"""What is over? Reports that are no longer listed end only by the source's own word.

Under `incident_reports` the newest changes are listed, whatever their status, and what those do not show is read by
itself. Under `reports`, which documents no single read, absence from two complete listings of an organization that is
still listed ends a report.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from bridge.absences import Absences, Missing
from bridge.huntress import (
    BudgetExhausted,
    Dialect,
    HuntressClient,
    SourceError,
    SourceForbidden,
    SourceGarbled,
    SourceNotFound,
)
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import UNLISTED, Account, IncidentReport, Kind, ReportKey
from bridge.paging import PAGE_SIZE
from bridge.routing import Routes

log = structlog.get_logger(__name__)

#: Seconds by which the source's clock and ours may differ, and by which its listing may lag.
SLACK = 600.0
#: Seconds that one question may wait for the request budget; what is not asked now is asked in the next cycle.
PATIENCE = 5.0
#: The same for a cycle's first questions when its listings had to wait: they leave no room for as long as this.
PATIENCE_AFTER_WAITING = 61.0
#: Reports read by themselves in one cycle.
MOST_SINGLE_READS = 10
#: Pages of the newest changes that are read for more than these: what ended may lie behind many reports that are new.
MOST_PAGES = 10
#: Seconds until a report that the source still calls open is asked for again, and one that it does not show.
STILL_OPEN = 60.0
NOT_SHOWN = 900.0
#: After a store began anew: seconds back, and pages at most, to look for reports that ended meanwhile.
CATCH_UP = 7 * 86400.0
CATCH_UP_PAGES = 20

#: Reads one report, escalation or platform action by itself, and waits so many seconds at most for the request budget.
#: Raises `SourceError`.
Read = Callable[[ReportKey, float], IncidentReport]


class Ends:
    """Finds and records what is over, for the leading poller."""

    def __init__(self, store: IdempotencyStore, routes: Callable[[], Routes], leadership: Leadership) -> None:
        self.store = store
        self.absences = Absences(store)
        self.routes = routes
        self.leadership = leadership

    def missed(self, started: float, listed: Callable[[ReportKey, int | None], bool]) -> None:
        """Notes what complete listings since `started` (epoch seconds) no longer show.

        `listed(key, organization id)`: was the listing complete that would show this report?
        """
        unseen = [key for key, organization_id in self.absences.unseen(started) if listed(key, organization_id)]
        if unseen:
            count = self.absences.miss(self.leadership.number, started, unseen)
            log.info("reports are no longer listed", reports=count)

    def unlisted(
        self, listed: Collection[int], known: Collection[int], organizations: Callable[[], Collection[int]]
    ) -> None:
        """Under `reports`: what was missing before the last complete listings of its organization is over.

        `listed`: organizations whose reports were just listed completely. `known`: those the source listed last;
        `organizations` lists them anew, because with an organization its reports go as well, and end by that no more
        than others. Raises nothing of the source's: without its answer nothing ends.
        """
        missing = [
            each
            for each in self.absences.missing()
            if isinstance(each.key, int)
            and (each.organization_id in listed or (each.due and each.organization_id not in known))
        ]
        if not missing:
            return
        try:
            still = organizations()
        except SourceError as error:
            log.warning("ends cannot be confirmed now", reports=len(missing), error=str(error))
            return
        for each in missing:
            if each.organization_id is None:
                self._not_over(each, "does not say to which organization it belongs")
            elif each.organization_id not in still:
                self._not_over(each, "neither does it list its organization")
            elif (report := self.store.report(each.key)) is not None:
                self.end([replace(report, status=UNLISTED)])

    def confirm(
        self, source: HuntressClient, account: Account, read: Read, *, incidents: bool, patience: float = PATIENCE
    ) -> None:
        """Asks the source about everything that is missing and due. What goes wrong ends nothing.

        `incidents`: does the source tell how a single incident report stands? `patience`: seconds that the first
        question may wait for the request budget.
        """
        due = {
            missing.key: missing
            for missing in self.absences.missing(due=True)
            if incidents or not isinstance(missing.key, int)
        }
        try:
            fresh = [missing for missing in due.values() if isinstance(missing.key, int) and not missing.asked]
            if len(fresh) > 1:
                for ended in self._among_newest(source, account, fresh, patience):
                    self.end(ended)
                    for report in ended:
                        del due[report.key]
                patience = PATIENCE
            for missing in list(due.values())[:MOST_SINGLE_READS]:
                self.leadership.alive()
                self._ask(read, account, missing, patience)
                patience = PATIENCE
        except BudgetExhausted:
            log.info("ends are confirmed later: the request budget is used up", reports=len(due))
        except SourceError as error:
            log.warning("ends cannot be confirmed now", reports=len(due), error=str(error))

    def _among_newest(
        self, source: HuntressClient, account: Account, missing: Sequence[Missing], patience: float
    ) -> Iterator[list[IncidentReport]]:
        """Those of `missing` that the newest changes show to be over, by pages; the others are read one by one."""
        wanted = {each.key for each in missing}
        earliest = min(each.last_listed_at for each in missing) - SLACK
        try:
            for page, reports in enumerate(source.changed_reports(patience), start=1):
                self.leadership.alive()
                ended = [
                    report
                    for report in reports
                    if report.key in wanted and report.over and report.account_id in (None, account.id)
                ]
                wanted.difference_update(report.key for report in ended)
                yield ended
                enough = page > len(missing) / PAGE_SIZE and (len(wanted) <= MOST_SINGLE_READS or page >= MOST_PAGES)
                if not wanted or enough or older(reports, earliest):
                    return
        except SourceError as error:
            if error.fatal:
                raise
            log.warning("the newest changes cannot be listed", error=str(error))

    def _ask(self, read: Read, account: Account, missing: Missing, patience: float) -> None:
        """Reads one missing report; records its end, or why it is not known to be over."""
        try:
            report = read(missing.key, patience)
        except (SourceNotFound, SourceForbidden, SourceGarbled) as error:
            self._not_over(missing, f"does not show it: {error}")
            return
        except BudgetExhausted:
            raise
        except SourceError as error:
            self._not_over(missing, f"cannot be asked about it: {error}", first=STILL_OPEN)  # so that others come first
            raise
        if report.account_id not in (None, account.id):
            self._not_over(missing, f"says that it belongs to another account ({report.account_id})")
        elif report.over:
            self.end([report])
        else:
            self._not_over(missing, f"says that its status is {report.status or 'not given'}", first=STILL_OPEN)

    def _not_over(self, missing: Missing, source_says: str, first: float = NOT_SHOWN) -> None:
        why = f"Huntress no longer lists this report, but {source_says.rstrip('.')}; its ticket stays as it is."
        log.warning("a report is no longer listed and not known to be over", report_id=missing.key, why=why)
        self.absences.ask_later(self.leadership.number, missing.key, why, first=first)

    def end(self, reports: Sequence[IncidentReport]) -> None:
        """Records that reports are over; their tickets are told by the workers."""
        for report in reports:
            log.info("report is over", report_id=report.key, status=report.status)
        self._observe(reports)

    def _observe(self, reports: Sequence[IncidentReport], *, adopt: bool = False) -> None:
        routes = self.routes()
        # Tickets of a connector that is left out for a while hear of it when it is back.
        absent = set[str]() if adopt else self.store.connectors() - routes.connectors_settings.keys()
        ended = []
        for report in map(self._with_what_is_known, reports):
            names = routes.connectors(report) if adopt else list(routes.connectors_settings)
            pairs = [(name, routes.reference(report, name)) for name in names]
            ended.append((report, [*pairs, *((name, "") for name in absent)]))
        self.store.observe(self.leadership.number, ended, adopt=adopt)

    def _with_what_is_known(self, report: IncidentReport) -> IncidentReport:
        """A listing per organization knows more than a report says of itself."""
        known = self.store.report(report.key)
        if known is None:
            return report
        return replace(
            report,
            organization_id=report.organization_id or known.organization_id,
            account_id=report.account_id or known.account_id,
            # Of escalations and platform actions only the single read has one, so that is no news.
            summary=report.summary if report.kind is Kind.INCIDENT_REPORT else known.summary,
        )

    def catch_up(self, source: HuntressClient, account: Account, dialect: Dialect) -> None:
        """Once in a store's life: reports that ended in the last days may have tickets that do not know.

        A store that was lost knew of them; this one has their tickets looked up by reference. None is made.
        """
        if self.absences.caught_up():
            return
        try:
            count = self._look_back(source, account) if dialect == "incident_reports" else 0
        except SourceError as error:
            log.warning("reports that ended lately are looked at after the next cycle", error=str(error))
            return
        self.absences.catch_up()
        if count:
            log.info("tickets of reports that ended lately are looked up", reports=count)

    def _look_back(self, source: HuntressClient, account: Account) -> int:
        """Records what ended in the last days; returns how many reports that is."""
        since = self.store.now() - CATCH_UP
        count = 0
        for page, reports in enumerate(source.changed_reports(), start=1):
            self.leadership.alive()
            ended = []
            for report in reports:
                ended_at = report.closed_at or report.updated_at
                lately = ended_at is None or ended_at.timestamp() >= since
                if lately and report.over and report.sent_at is not None and report.account_id in (None, account.id):
                    ended.append(replace(report, account_id=account.id))
            self._observe(ended, adopt=True)
            count += len(ended)
            if older(reports, since) or page == CATCH_UP_PAGES:
                break
        return count


def older(reports: Sequence[IncidentReport], moment: float) -> bool:
    """Does a page of changes, newest first, reach back behind `moment` (epoch seconds)?"""
    since = datetime.fromtimestamp(moment, UTC)
    return any(report.updated_at is not None and report.updated_at < since for report in reports)
