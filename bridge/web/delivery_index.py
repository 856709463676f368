"""An index of the deliveries that one process' page filters and counts by: derived from the store, never the truth.

Redis has deliveries by state and by name, not by organization, severity and words. A thread fills the index, newest
first, and from then on each look takes over what the store's feed of changes tells. What a page shows of a delivery is
read from the store; from here it only knows which ones.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis
import structlog

from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState
from bridge.reading import FeedPlace, Pair
from bridge.web.delivery_table import BATCH, DeliveryTable

log = structlog.get_logger(__name__)

#: How long the filling rests after each batch, as a share of the time that took, so that others have their turn.
REST = 0.2
#: Seconds after which a look asks the store what changed, and after which that is done though nobody looks.
FRESH = 1.0
UNWATCHED = 30.0
#: Seconds between attempts while Redis is away or the disk is full.
AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the index is filled. `problem` says why it does not get on; deliveries may be missing until `ready`."""

    ready: bool
    done: int = 0
    total: int = 0
    problem: str = ""

    @property
    def percent(self) -> int:
        return 100 if self.ready else min(99, 100 * self.done // max(self.total, 1))


class DeliveryIndex(DeliveryTable):
    """One process' index. It reads nothing before `start`. Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: IdempotencyStore) -> None:
        super().__init__()
        self.store = store
        self._following = threading.Lock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._filling = 0
        self._moment: FeedPlace | None = None
        self._followed_at = 0.0
        self._progress = Progress(False)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fills and follows from now on, on a thread. Once is enough."""
        with self._following:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name="delivery-index", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ends the thread and drops the index."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)
        super().close()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                if not self._progress.ready:
                    self.fill()
                self._rest(UNWATCHED if self._progress.ready else AGAIN)
                self.follow()
            except (redis.RedisError, sqlite3.Error) as error:
                if self._ended.is_set():
                    return
                log.warning("the page's list of deliveries could not be prepared", error=str(error))
                self._progress = Progress(False, self._progress.done, self._progress.total, str(error))
                self._rest(AGAIN)

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        if not self._ended.is_set():
            self._wake.clear()

    # -- taking over what the store has --------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        return self._progress

    def fill(self) -> None:
        """Takes over every delivery, those that changed last first; what the store does not have any more goes."""
        begun = self.store.latest_change()
        self._filling += 1
        total = sum(self.store.count(state) for state in DeliveryState)
        self._progress = Progress(False, 0, total)
        with self._following:
            self._moment = begun
        names = self.store.every_delivery(BATCH)
        while batch := list(itertools.islice(names, BATCH)):
            started = time.monotonic()
            self._take(batch)
            self._progress = Progress(False, self._progress.done + len(batch), total)
            if self._ended.wait(REST * (time.monotonic() - started)):
                return
        self.keep(self._filling)
        with self._following:
            # A look meanwhile may have been overtaken by an older reading of the filling: all of it once more.
            self._moment = begun
        if self.follow():
            self._progress = Progress(True, total, total)

    def follow(self, older_than: float = 0) -> bool:
        """Takes over what changed since the last time, if that is more than `older_than` seconds ago.

        False: that is not known any more, so everything has to be read anew.
        """
        with self._following:
            if time.monotonic() - self._followed_at < older_than:
                return True
            if self._moment is None:
                return False
            changes = self.store.changed_since(self._moment)
            if changes is None:
                self._moment = None
                self._progress = Progress(False)
                self._wake.set()
                return False
            pairs, moment = changes
            for start in range(0, len(pairs), BATCH):
                self._take(pairs[start : start + BATCH])
            self._moment, self._followed_at = moment, time.monotonic()
            return True

    def _take(self, pairs: Sequence[Pair]) -> None:
        found = self.store.read_deliveries(pairs)
        gone = set(pairs) - {(delivery.report_id, delivery.connector) for delivery in found}
        self.write(found, gone, self._filling)

    def look(self) -> Progress:
        """Has the index brought up to date, as far as it is filled, for questions that follow."""
        self.start()
        self.follow(FRESH)
        return self._progress
