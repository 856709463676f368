"""What is open? Lists all open reports each cycle and writes their snapshots and deliveries to the store.

Level-triggered: the poller does not remember what it enqueued. That alone heals lost messages and an empty Redis.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import cast, get_args

import redis
import structlog

from bridge.accounts import own_account
from bridge.arrivals import Arrivals
from bridge.bookkeeping import Bookkeeping
from bridge.ends import PATIENCE as PATIENCE_FOR_ENDS
from bridge.ends import PATIENCE_AFTER_WAITING, Ends
from bridge.forgetting import Forgetting
from bridge.huntress import Dialect, HuntressClient, Listing, SourceError, SourceRefused, Unparsable
from bridge.idempotency import Deposed, IdempotencyStore, snapshot_of
from bridge.leadership import Leadership
from bridge.logs import new_trace, traced
from bridge.models import Account, IncidentReport, Kind, ReportKey, nothing_but
from bridge.organization_reading import OrganizationReading
from bridge.parsing import parse_report
from bridge.routing import Routes
from bridge.settings import Settings
from bridge.streams import Streams
from bridge.unchanged import Unchanged, raw_digest

log = structlog.get_logger(__name__)

#: Seconds between readings of the organizations' list where each is listed by itself: so long waits a new one.
ORGANIZATIONS_EVERY = 300.0
#: The same where one listing has the reports of all: a ticket asks for an organization that is not in the list.
NAMES_EVERY = 3600.0
#: Organizations listed between two looks at what else there is to do.
BETWEEN = 20
#: Seconds between the starts of two cycles, at the least, when webhooks ask for them.
WANTED_EVERY = 10.0
#: Reports written to the store in one go.
BATCH = 500
#: Parsed reports of a page that are written unasked: to ask the store first what it has of them pays for many.
FEW = 10
#: Seconds that the poller's loop may stand still before another process takes over.
PATIENCE = 180.0


def _raw(bad: Unparsable) -> str:
    return json.dumps(bad.raw, default=str)


def _quarantine_key(bad: Unparsable) -> str:
    return str(bad.report_id) if bad.report_id is not None else hashlib.sha256(_raw(bad).encode()).hexdigest()[:16]


def _of_kind(kind: Kind, key: ReportKey, _: int | None) -> bool:
    return nothing_but(key).kind is kind


def _listed(report: IncidentReport, routes: Routes, account: Account, organization_id: int | None) -> _Listed:
    """`organization_id`: of which organization it was listed; None: of the account."""
    if report.organization_id is None and organization_id is not None:
        report = replace(report, organization_id=organization_id)
    if report.account_id is None:
        report = replace(report, account_id=account.id)
    connectors = [(name, routes.reference(report, name)) for name in routes.connectors(report)]
    return _Listed(report, connectors, snapshot_of(report) if connectors else ("", ""))


def _tells_absence(cycle: Cycle, dialect: Dialect) -> bool:
    """May what a complete listing does not show be over?

    Under `reports` nobody is asked about it, and an item that cannot be read may be the one that seems to be absent.
    """
    return dialect == "incident_reports" or not cycle.nameless


@dataclass(frozen=True)
class Cycle:
    """What one cycle found. `complete`: every listing that was to be read was read to its end."""

    complete: bool
    reports: int = 0
    new: tuple[tuple[ReportKey, str], ...] = ()
    quarantined: int = 0
    #: How many of these have no id that can be read: each may be any report.
    nameless: int = 0
    problem: str = ""
    #: The source did not accept the credentials, or they belong to another account.
    refused: bool = False

    def plus(self, part: Cycle) -> Cycle:
        """This cycle, and `part` of it which was listed without trouble."""
        return replace(
            self,
            reports=self.reports + part.reports,
            new=self.new + part.new,
            quarantined=self.quarantined + part.quarantined,
            nameless=self.nameless + part.nameless,
        )


@dataclass(frozen=True, slots=True)
class _Listed:
    """A report as it is to be written: who takes it, by which reference, and its snapshot with its digest."""

    report: IncidentReport
    connectors: list[tuple[str, str]]
    snapshot: tuple[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.connectors)


class Poller:
    """Polls the source on behalf of all processes, as long as it leads."""

    def __init__(
        self,
        store: IdempotencyStore,
        books: Bookkeeping,
        source: Callable[[], HuntressClient],
        settings: Callable[[], Settings],
        routes: Callable[[], Routes],
        leadership: Leadership,
        completed: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.books = books
        self.source = source
        self.settings = settings
        self.routes = routes
        self.leadership = leadership
        #: Called after every complete cycle; must return at once.
        self.completed = completed
        self.ends = Ends(store, routes, leadership)
        self.forgetting = Forgetting(store, settings, leadership)
        self.streams = Streams(books, source, settings)
        self.organizations = OrganizationReading(books)
        self.unchanged = Unchanged()
        self._account: Account | None = None
        self._dialect: Dialect = "reports"
        #: The dialect that `auto` was decided to be, and the birth mark of the store that has it.
        self._decided: tuple[Dialect, str] | None = None
        self._quarantined: set[str] = set()
        #: Birth mark of the store that knows that polling began.
        self._started_in = ""

    def run(self, stopping: threading.Event) -> None:
        """Polls until `stopping`. Nothing that goes wrong in a cycle ends it."""
        while not stopping.is_set():
            self.leadership.alive()
            if not self.leadership.number:
                stopping.wait(0.5)
                continue
            started: float | None = None
            try:
                started = self.store.now()
                self.cycle(stopping)
            except Deposed:
                log.info("another process polls now")
            except redis.RedisError as error:
                log.warning("cannot poll: Redis does not answer, or refuses", error=str(error))
            except Exception:
                log.exception("an error inside the poller")
            self._rest(stopping, started)

    def _rest(self, stopping: threading.Event, started: float | None) -> None:
        left = interval = self.settings().poll.interval if started is not None else 1.0
        with suppress(redis.RedisError):
            if started is not None:
                # At most the interval: the clock may have been set back meanwhile.
                left -= max(0.0, self.store.now() - started)
        while left > 0 and not stopping.is_set():
            self.leadership.alive()
            stopping.wait(min(left, 2.0))
            left -= 2.0
            if started is not None and interval - left >= WANTED_EVERY and self._wanted(started):
                return

    def _wanted(self, started: float) -> bool:
        """Did an event come after the last cycle's start, and is that long enough ago?"""
        with suppress(redis.RedisError):
            at = Arrivals(self.store).polling_wanted()
            if at is not None and started < at:
                now = self.store.now()
                return at <= now and now - started >= WANTED_EVERY
        return False

    def cycle(self, stopping: threading.Event | None = None) -> Cycle:
        """One look at everything. Raises `Deposed` and `redis.RedisError`; the source's errors are in the result."""
        with traced(trace_id=new_trace()):
            return self._traced_cycle(stopping)

    def _traced_cycle(self, stopping: threading.Event | None) -> Cycle:
        started = self.store.now()
        if self._started_in != self.store.birth:
            self.books.poll_started()
            self._started_in = self.store.birth
        self._quarantined.clear()
        try:
            result = self._cycle(stopping or threading.Event(), started)
        except SourceError as error:
            log.error("poll failed", error=str(error))
            self.books.save_poll(error=str(error))
            self._further()
            self._confirm(waited=False)
            return Cycle(complete=False, problem=str(error), refused=isinstance(error, SourceRefused))
        took = self.store.now() - started
        self._further()
        self._confirm(waited=took > PATIENCE_FOR_ENDS)
        if result.complete:
            self.store.seen(self.leadership.number, [])  # refuses a leader deposed meanwhile, if nothing else did
            self.books.poll_completed(started + took, took, self._quarantined)
            self.completed()
            self.forgetting.sweep()
        else:
            self.books.save_poll(error=result.problem)
        log.info(
            "polled",
            reports=result.reports,
            new=len(result.new),
            quarantined=result.quarantined,
            complete=result.complete,
            seconds=round(took, 2),
        )
        return result

    def _cycle(self, stopping: threading.Event, started: float) -> Cycle:
        source = self.source()
        account = self.account(source)
        self.organizations.begin(source)
        dialect, decided = self.dialect(source)
        self._dialect = dialect
        scope = self.settings().poll.scope_for(dialect)
        if scope == "account":
            self._expect(dialect, scope, requests=2)
            self.leadership.alive()
            result = self._list(source, dialect, account, None)
            listed = None if _tells_absence(result, dialect) else frozenset[int]()
        else:
            self.organizations.go_on(source, self.store.now(), ORGANIZATIONS_EVERY)
            result, listed = self._by_organization(source, dialect, account, stopping)
        self.unchanged.turn(complete=result.complete)
        self._miss(source, dialect, started, listed)
        self.ends.catch_up(source, account, dialect)
        if scope == "account":
            self.organizations.go_on(source, started, NAMES_EVERY)
        if not decided and result.reports:
            self._decide(dialect)
        return result

    def _miss(self, source: HuntressClient, dialect: Dialect, started: float, listed: frozenset[int] | None) -> None:
        """What complete listings no longer show may be over. `listed`: organizations listed completely; None: all."""
        if dialect == "reports":
            known = self.books.organization_ids()
            self.ends.unlisted(known if listed is None else listed, known, lambda: self.organizations.whole(source))

        def complete(key: ReportKey, organization_id: int | None) -> bool:
            return isinstance(key, int) and (listed is None or organization_id in listed)

        self.ends.missed(started, complete)

    def _confirm(self, *, waited: bool) -> None:
        """Asks about what is missing of every kind. `waited`: did the listings wait for the request budget?"""
        account = self._account
        if account is None:
            return
        source = self.source()

        def read(key: ReportKey, wait: float) -> IncidentReport:
            return source.report(key, wait) if isinstance(key, int) else self.streams.read(key, wait)

        patience = PATIENCE_AFTER_WAITING if waited else PATIENCE_FOR_ENDS
        self.ends.confirm(source, account, read, incidents=self._dialect == "incident_reports", patience=patience)

    def _further(self) -> None:
        """Escalations and platform actions, when they are to be listed; what goes wrong there stops nothing else."""
        account = self._account
        if account is None or not self.settings().sources.kinds:
            return
        started = self.store.now()
        for kind, listing in self.streams.listings(started):
            self._write(listing, self.routes(), account, None)
            if listing.complete:
                self.ends.missed(started, partial(_of_kind, kind))
            self.leadership.alive()
            started = self.store.now()
        self._quarantined.update(map(_quarantine_key, self.streams.unparsable()))

    def _by_organization(
        self, source: HuntressClient, dialect: Dialect, account: Account, stopping: threading.Event
    ) -> tuple[Cycle, frozenset[int]]:
        """Each organization in turn, the one listed longest ago first, as fast as the budget allows.

        Returns the cycle and the organizations that were listed completely.
        """
        complete: set[int] = set()
        marked: list[int] = []
        routes = self.routes()
        listed_at, known = self.books.listed_at(), self.books.organization_ids()
        wanted = deque(sorted(filter(routes.serves, known), key=lambda organization: listed_at.get(organization, 0.0)))
        self._expect(dialect, "organization", requests=len(wanted) * (2 if dialect == "incident_reports" else 1))
        total = Cycle(complete=True)
        while wanted:
            organization_id = wanted.popleft()
            if stopping.is_set() or not self.leadership.number:
                total = replace(total, complete=False, problem="stopped in the middle of a cycle")
                break
            self.leadership.alive()
            try:
                part = self._list(source, dialect, account, organization_id)
            except SourceError as error:
                log.error("cannot list an organization's reports", organization_id=organization_id, error=str(error))
                problem = f"organization {organization_id}: {error}"
                total = replace(total, complete=False, problem=problem)
                if error.fatal:
                    break
                continue
            if _tells_absence(part, dialect):
                complete.add(organization_id)
            marked.append(organization_id)
            total = total.plus(part)
            if len(marked) == BETWEEN:
                self.books.listed(marked)
                marked.clear()
                if self.organizations.go_on(source, self.store.now(), ORGANIZATIONS_EVERY):
                    added = self.books.organization_ids() - known
                    wanted.extendleft(filter(self.routes().serves, added))
                    known |= added
        self.books.listed(marked)
        return total, frozenset(complete)

    def _expect(self, dialect: Dialect, scope: str, requests: int) -> None:
        settings = self.settings()
        expected = max(settings.poll.interval, requests * 60.0 / settings.huntress.requests_per_minute)
        self.books.save_poll(dialect=dialect, scope=scope, expected_cycle_seconds=expected)

    def _list(self, source: HuntressClient, dialect: Dialect, account: Account, organization_id: int | None) -> Cycle:
        """Lists and writes, page by page: what is new on one does not wait until the budget has room for the next.

        What a listing showed before it broke off is open, and is written, too.
        """
        total = Cycle(complete=True)
        sieve = source.sieve(dialect, organization_id, lambda raw: self.unchanged.find(raw, organization_id))
        for page in source.open_pages(dialect, organization_id):
            self.leadership.alive()  # each may have taken long
            routes = self.routes()
            self.unchanged.hold_for(routes, account.id)
            for raw in page:
                sieve.add(raw)
            total = total.plus(self._write(sieve.take(), routes, account, organization_id))
        return total

    def _write(self, listing: Listing, routes: Routes, account: Account, organization_id: int | None) -> Cycle:
        """Writes what was listed: snapshots, new deliveries, and what could not be parsed."""
        for bad in listing.unparsable:
            name = _quarantine_key(bad)
            self._quarantined.add(name)
            if self.books.quarantine(name, bad.report_id, bad.reason, _raw(bad)):
                log.error("report quarantined: it cannot be parsed", report_id=bad.report_id, reason=bad.reason)
        # Listed, though nothing is to be written of them: what is known of them is not over.
        others: list[ReportKey] = [*listing.unsent, *(bad.report_id for bad in listing.unparsable if bad.report_id)]
        rows: list[tuple[ReportKey, str, tuple[str, ...]]] = [(key, "", ()) for key in others]
        for key in listing.unchanged:
            known = self.unchanged.keep(key)
            rows.append((key, known.digest, known.connectors))
        parsed: dict[ReportKey, _Listed] = {}
        for report in listing.reports:
            listed = parsed[report.key] = _listed(report, routes, account, organization_id)
            if raw := listing.raw.get(report.key):
                digest = raw_digest(raw, organization_id)
                self.unchanged.remember(report.key, digest, listed.snapshot[1], listed.names)
        taken = [listed for listed in parsed.values() if listed.connectors]
        unasked = {listed.report.key: listed for listed in taken} if len(taken) <= FEW else {}
        new = self._put(unasked.values())
        rows += [(key, listed.snapshot[1], listed.names) for key, listed in parsed.items() if key not in unasked]
        for start in range(0, len(rows), BATCH):
            wanted = self.store.seen(self.leadership.number, rows[start : start + BATCH])
            for key in wanted - parsed.keys():
                # Unchanged, but the store was lost, or another version wrote to it, or a delivery is gone.
                parsed[key] = _listed(parse_report(listing.raw[key]), routes, account, organization_id)
            new += self._put([parsed[key] for key, _, _ in rows[start : start + BATCH] if key in wanted])
        for key, connector in new:
            organization = parsed[key].report.organization_id
            log.info("seen", report_id=key, organization_id=organization, connector=connector)
        return Cycle(
            complete=True,
            reports=len(listing.reports) + len(listing.unchanged),
            new=tuple(new),
            quarantined=len(listing.unparsable),
            nameless=sum(bad.report_id is None for bad in listing.unparsable),
        )

    def _put(self, reports: Collection[_Listed]) -> list[tuple[ReportKey, str]]:
        """Writes these; answers the deliveries that are new."""
        return self.store.write(
            self.leadership.number,
            [(listed.report, listed.connectors) for listed in reports],
            {listed.report.key: listed.snapshot for listed in reports},
        )

    # -- what changes rarely -------------------------------------------------------------------------------------------

    def account(self, source: HuntressClient) -> Account:
        """The account the key belongs to; asked for once a process, and again after trouble.

        Raises `SourceError`, as `own_account` does.
        """
        if self._account is not None:
            return self._account
        account = own_account(source, self.store)
        known = {"account_id": str(account.id), "account_name": account.name, "subdomain": account.subdomain}
        self.store.remember(known)
        self._account = account
        return account

    def forget_account(self) -> None:
        """The configuration changed: the key may belong to another account."""
        self._account = None

    def dialect(self, source: HuntressClient) -> tuple[Dialect, bool]:
        """The dialect in use, and whether that is decided for good.

        Under `auto` it is chosen once and kept; while nothing is there to tell it by, the organizations are listed as
        `reports`, which takes no summary for a report.
        """
        configured = self.settings().huntress.dialect
        if configured != "auto":
            return configured, True
        if self._decided is not None and self._decided[1] == self.store.birth:
            return self._decided[0], True
        kept, found = self.store.recall("dialect"), None
        if kept in get_args(Dialect):
            found = cast("Dialect", kept)
        elif found := source.detect_dialect():
            self._decide(found)
        if found is None:
            return "reports", False
        self._decided = (found, self.store.birth)
        return found, True

    def _decide(self, dialect: Dialect) -> None:
        self.store.remember({"dialect": dialect})
        log.info("the source's dialect is decided", dialect=dialect)
