"""What was added, renamed or removed among the organizations since last time, and companies for those without one.

Two look, and each keeps what it saw: a person with `organizations diff`, and the poller's process on a schedule.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import redis
import structlog

from bridge.accounts import own_account
from bridge.bookkeeping import Bookkeeping
from bridge.companies import Companies, normalized
from bridge.delivery import Service
from bridge.huntress import HuntressClient, SourceError
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import Organization
from bridge.routing import Routes
from bridge.runtime import Assembly
from connectors.base import Outcome, Rejected

log = structlog.get_logger(__name__)

#: Seconds between looks whether the sync is due.
LOOK_EVERY = 5.0
#: Seconds after its start in which a sync that broke off is begun again, where that is sooner than the schedule. Until
#: then a company that its process was making can be found.
BROKE_OFF_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two lists of organizations, by id. A renaming is (before, now)."""

    added: tuple[Organization, ...] = ()
    renamed: tuple[tuple[Organization, Organization], ...] = ()
    removed: tuple[Organization, ...] = ()

    @classmethod
    def between(cls, before: Mapping[int, Organization], now: Mapping[int, Organization]) -> Changes:
        stayed = sorted(before.keys() & now.keys())
        return cls(
            added=tuple(now[id] for id in sorted(now.keys() - before.keys())),
            renamed=tuple((before[id], now[id]) for id in stayed if before[id].name != now[id].name),
            removed=tuple(before[id] for id in sorted(before.keys() - now.keys())),
        )

    def __bool__(self) -> bool:
        return bool(self.added or self.renamed or self.removed)

    def __str__(self) -> str:
        return f"{len(self.added)} added, {len(self.renamed)} renamed, {len(self.removed)} removed"


def whole_list(source: HuntressClient, store: IdempotencyStore) -> dict[int, Organization]:
    """Every organization by its id, from one complete listing. Raises `SourceError`, also for another account's key."""
    own_account(source, store)
    return {organization.id: organization for organization in source.organizations(whole=True)}


class OrganizationSync:
    """Looks every `[organizations] sync`, on behalf of all processes, in the one that leads the polling."""

    def __init__(
        self,
        store: IdempotencyStore,
        books: Bookkeeping,
        assembly: Callable[[], Assembly],
        routes: Callable[[], Routes],
        leadership: Leadership,
    ) -> None:
        self.store = store
        self.books = books
        self.assembly = assembly
        self.routes = routes
        self.leadership = leadership

    def run(self, stopping: threading.Event) -> None:
        """Looks until `stopping`. Whatever goes wrong is logged, and the next try comes on schedule."""
        while not stopping.wait(LOOK_EVERY):
            try:
                self.look()
            except SourceError as error:
                log.error("cannot compare the organizations; next try on schedule", error=str(error))
            except redis.RedisError as error:
                log.warning("cannot compare the organizations: Redis does not answer", error=str(error))
            except Exception:
                log.exception("an error inside the sync of the organizations")

    def look(self) -> Changes | None:
        """Compares, if this process leads and it is time. None: not compared. Raises `SourceError`."""
        if not self.leadership.number or self.books.poll().last_complete_at is None:
            return None  # the first poll has the whole budget
        tried, every = self.books.sync_tried_at(), self.assembly().settings.organizations.sync
        if self.books.sync_under_way():
            every = min(every, BROKE_OFF_AFTER)
        if tried is not None and 0 <= self.store.now() - tried < every:
            return None
        self.books.sync_tried()
        try:
            return self.sync()
        finally:
            if self.leadership.number:  # else another process does the rest
                self.books.sync_ended()

    def sync(self) -> Changes:
        """Compares, logs, makes missing companies, and remembers what it saw. Raises `SourceError`."""
        assembly = self.assembly()
        now = whole_list(assembly.source, self.store)
        baseline = self.books.baseline("sync")
        before = baseline.organizations if baseline else now
        changes = Changes.between(before, now)
        if baseline is None:
            log.info("organizations listed for the first time", count=len(now))
        for organization in changes.added:
            log.info("organization added", organization_id=organization.id, name=organization.name)
        for former, organization in changes.renamed:
            log.info("organization renamed", organization_id=organization.id, name=organization.name, was=former.name)
        for organization in changes.removed:
            log.info("organization removed", organization_id=organization.id, name=organization.name)
        unsettled: set[int] = set()
        for name in assembly.settings.organizations.create_companies:
            try:
                unsettled |= self._make_missing(assembly.services[name], assembly.companies, before, now)
            except Outcome as outcome:
                log.error("cannot make companies; next try on schedule", connector=name, error=str(outcome))
        self.books.save_baseline("sync", now | {id: before[id] for id in unsettled})
        return changes

    def _make_missing(
        self,
        service: Service,
        companies: Companies,
        before: Mapping[int, Organization],
        now: Mapping[int, Organization],
    ) -> set[int]:
        """Makes a company for each served organization without one. Returns ids whose renaming a person must settle.

        Raises an `Outcome` when the ticket system cannot be asked.
        """
        connector = service.connector
        if not connector.companies(fresh=True):
            log.error(
                "no companies are made: the ticket system shows none at all, so it cannot be told which are missing; "
                "check what the API user may see",
                connector=service.name,
            )
            return set()
        names = Counter(normalized(organization.name) for organization in now.values())
        unsettled, made = set[int](), 0
        for organization in self._without_company(service, companies, now.values()):
            name = normalized(organization.name)
            former = before.get(organization.id, organization)
            if not self.leadership.number:
                break  # another process does the rest
            if normalized(former.name) != name and companies.named(connector, former.name):
                unsettled.add(organization.id)
                self._not_made(service, organization, "it was renamed, and a company has its former name; rename that")
            elif not name or names[name] > 1:
                self._not_made(
                    service,
                    organization,
                    "it has no name, or shares it with another organization; give it one of its own",
                )
            else:
                made += self._make(service, organization)
        if made:
            connector.companies(fresh=True)
        return unsettled

    def _without_company(
        self, service: Service, companies: Companies, organizations: Iterable[Organization]
    ) -> Iterator[Organization]:
        """The served organizations that neither the file nor a company's name gives a place."""
        routes, only = self.routes(), service.settings.only.organizations
        for organization in organizations:
            row = companies.row(service.name, organization.id)
            if (
                not (row and row.company)
                and routes.serves(organization.id)
                and (not only or organization.id in only)
                and not companies.named(service.connector, organization.name)
            ):
                yield organization

    def _not_made(self, service: Service, organization: Organization, why: str) -> None:
        log.warning(
            f"no company is made for an organization: {why}, or add a row to the organizations file",
            connector=service.name,
            organization_id=organization.id,
            name=organization.name,
        )

    def _make(self, service: Service, organization: Organization) -> bool:
        about = {"connector": service.name, "organization_id": organization.id, "name": organization.name}
        try:
            company = service.connector.create_company(organization, f"huntress-org-{organization.id}")
        except Rejected as refused:
            log.error("the company is not made", error=str(refused), **about)
            return False
        if normalized(company.name) == normalized(organization.name):
            log.info("company made", company_id=company.id, **about)
        else:
            log.warning(
                "the company made for this organization has another name; add a row to the organizations file",
                company_id=company.id,
                company_name=company.name,
                **about,
            )
        return True
