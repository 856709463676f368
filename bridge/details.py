"""What a ticket says of the organization and the host: from the store, else from the source within a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import copy_context
from functools import partial
from typing import TypeVar, cast

import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.huntress import HuntressClient, SourceError, SourceNotFound
from bridge.models import Agent, IncidentReport, Organization

log = structlog.get_logger(__name__)

#: Seconds that a ticket waits for details, all together.
PATIENCE = 5.0

#: Seconds for which an organization that was read from the store is not read again.
REMEMBERED = 5.0

Found = TypeVar("Found", Organization, Agent)


def _organization(wanted: int, source: HuntressClient) -> Organization:
    return source.organization(wanted, wait=PATIENCE)


def _agent(wanted: int, source: HuntressClient) -> Agent:
    return source.agent(wanted, wait=PATIENCE)


class Details:
    """Looks details up without ever keeping a ticket waiting for long. What comes late is in the store by then."""

    def __init__(self, source: Callable[[], HuntressClient], books: Bookkeeping) -> None:
        self.source = source
        self.books = books
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="details")
        self._asked: dict[str, Future[Organization | Agent]] = {}
        self._lock = threading.Lock()
        #: By id, with the time at which it was read.
        self._organizations: dict[int, tuple[float, Organization]] = {}

    def of(self, report: IncidentReport, patience: float = PATIENCE) -> tuple[Organization | None, Agent | None, bool]:
        """(organization, agent, are some still to come?). Gone agents are not waited for."""
        until = time.monotonic() + patience
        organization: Organization | None = None
        agent: Agent | None = None
        late = False
        if report.organization_id is not None:
            organization, missing = self._get(
                f"organization {report.organization_id}",
                self._known_organization(report.organization_id),
                partial(_organization, report.organization_id),
                self.books.save_organization,
                until,
            )
            late = late or missing
        if report.agent_id is not None:
            agent, missing = self._get(
                f"agent {report.agent_id}",
                self.books.agent(report.agent_id),
                partial(_agent, report.agent_id),
                self.books.save_agent,
                until,
            )
            late = late or missing
        return organization, agent, late

    def _known_organization(self, organization_id: int) -> Organization | None:
        """As stored, now or some seconds ago: many reports name the same few."""
        at, known = self._organizations.get(organization_id, (0.0, None))
        now = time.monotonic()
        if known is None or now - at > REMEMBERED:
            known = self.books.organization(organization_id)
            if known is not None:
                self._organizations[organization_id] = now, known
        return known

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _get(
        self,
        name: str,
        known: Found | None,
        ask: Callable[[HuntressClient], Found],
        save: Callable[[Found], None],
        until: float,
    ) -> tuple[Found | None, bool]:
        if known is not None:
            return known, False

        def fetch() -> Found:
            found = ask(self.source())
            save(found)
            return found

        with self._lock:
            future = self._asked.get(name)
            if future is None:
                future = self._asked[name] = self._pool.submit(copy_context().run, fetch)
                future.add_done_callback(lambda _: self._asked.pop(name, None))
        try:
            return cast(Found, future.result(timeout=max(0.0, until - time.monotonic()))), False
        except SourceNotFound:
            return None, False
        except (SourceError, FutureTimeout) as error:
            log.info("details come later", of=name, why=str(error) or "no answer yet")
            return None, True
