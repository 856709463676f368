"""Reads the source's organizations now and then, so that neither listings nor tickets' details wait for it.

Ten thousand are twenty pages, of the fifteen requests a minute that all reads but listings may use: the list is read a
few pages at a time, and is stored once it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.huntress import BudgetExhausted, HuntressClient, RequestKind, SourceError, SourceThrottled
from bridge.models import Organization
from bridge.paging import PagingError

log = structlog.get_logger(__name__)

#: Most pages read in one go: what else is asked for, such as details for tickets, must find room, too.
PAGES = 2


class OrganizationReading:
    """For one thread, the leading poller's."""

    def __init__(self, books: Bookkeeping) -> None:
        self.books = books
        self._source: HuntressClient | None = None
        self._pages: Iterator[list[Organization]] | None = None
        self._found: list[Organization] = []
        #: When the list was read that the pages are to replace.
        self._replaces: float | None = None
        #: When the stored list was read, as far as is known here, and the birth mark of the store that has it.
        self._read_at: tuple[float, str] | None = None

    def whole(self, source: HuntressClient, kind: RequestKind = "detail") -> frozenset[int]:
        """Reads the whole list now; returns its ids. Raises `SourceError`, and then the stored list stays."""
        organizations = list(source.organizations(kind=kind))
        self.books.save_organizations(organizations)
        self._pages = None
        return frozenset(organization.id for organization in organizations)

    def begin(self, source: HuntressClient) -> None:
        """Reads the list if there is none at all: companies are found by its names. Raises `SourceError`."""
        if self._known() is None:
            self.whole(source, "listing")  # nothing else can go on

    def go_on(self, source: HuntressClient, now: float, every: float) -> bool:
        """Reads some pages if the stored list is older than `every` seconds at `now`; True: it was stored anew.

        Waits for nothing. An error leaves the stored list in use.
        """
        if self._pages is not None and self._known(fresh=True) != self._replaces:
            self._pages = None  # another process led, and what it read is newer than the first pages here
        if self._pages is None or self._source is not source:
            read_at = self._known(fresh=True)  # another process may have read it
            if read_at is not None and abs(now - read_at) < every:
                return False
            self._source, self._pages, self._found = source, source.organization_pages(), []
            self._replaces = read_at
        try:
            for _ in range(PAGES):
                page = next(self._pages, None)
                if page is None:
                    self.books.save_organizations(self._found)
                    self._pages, self._found = None, []
                    return True
                self._found += page
        except (BudgetExhausted, SourceThrottled):
            pass  # there is a next time
        except (SourceError, PagingError) as error:
            log.warning("cannot refresh the organizations; the stored list is used", error=str(error))
            self._pages, self._found = None, []
        return False

    def _known(self, *, fresh: bool = False) -> float | None:
        """When the stored list was read; `fresh`: the store is asked in any case."""
        birth = self.books.store.birth
        if fresh or self._read_at is None or self._read_at[1] != birth:
            read_at = self.books.organizations_at()
            self._read_at = None if read_at is None else (read_at, birth)
        return self._read_at[0] if self._read_at else None
