"""What the source sends beside incident reports: escalations and platform actions, each listed once a minute.

A stream that cannot be listed is told in the log and on the status page, and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.huntress import HuntressClient, Listing, SourceError, Unparsable
from bridge.models import IncidentReport, Kind, ReportKey, nothing_but
from bridge.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two listings of one stream: two requests each, of the 30 a minute that incident reports need too.
LISTED_EVERY = 60.0


class Streams:
    """The further streams, as the configuration turns them on. Used by one thread, the poller's."""

    def __init__(
        self, books: Bookkeeping, source: Callable[[], HuntressClient], settings: Callable[[], Settings]
    ) -> None:
        self.books = books
        self.source = source
        self.settings = settings
        self._listed_at: dict[Kind, float] = {}
        self._unparsable: dict[Kind, tuple[Unparsable, ...]] = {}

    def listings(self, now: float) -> Iterator[tuple[Kind, Listing]]:
        """What is open in each stream whose time has come, at `now` by the store's clock.

        A listing that broke off is given as far as it came, and is not `complete`.
        """
        for kind in self.settings().sources.kinds:
            if 0 <= now - self._listed_at.get(kind, now - LISTED_EVERY) < LISTED_EVERY:
                continue
            self._listed_at[kind] = now
            listing, problem = self._list(kind)
            self.books.save_stream(kind, problem)
            if listing is not None:
                self._unparsable[kind] = listing.unparsable
                yield kind, listing

    def unparsable(self) -> Iterator[Unparsable]:
        """What could not be parsed in the last listing of each stream: it stays in quarantine until the next one."""
        for kind in self.settings().sources.kinds:
            yield from self._unparsable.get(kind, ())

    def read(self, key: ReportKey, wait: float | None = None) -> IncidentReport:
        """The escalation or platform action with this key as it is now. Raises `SourceError`.

        `wait`: seconds at most for the request budget; None: any.
        """
        wanted = nothing_but(key)
        return self.source().one_further(wanted.kind, wanted.id, wait)

    def _list(self, kind: Kind) -> tuple[Listing | None, str]:
        """The listing as far as it could be read, and why it is not whole."""
        try:
            return self.source().further(kind), ""
        except SourceError as error:
            log.error("cannot list a stream", stream=kind.value, error=str(error))
            return error.shown, str(error)
