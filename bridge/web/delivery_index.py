"""An index of the deliveries that one process' page filters and counts by: derived from the store, never the truth.

Redis has deliveries by state and by name, not by organization, severity and words. The index is a private SQLite
database without a name: on disk, so that memory stays flat however many deliveries there are, and gone with the
process. A thread fills it, newest first, and from then on each look takes over what the store's feed of changes tells.
What a page shows of a delivery is read from the store; from here it only knows which ones.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import redis
import structlog

from bridge.idempotency import IdempotencyStore
from bridge.models import Delivery, DeliveryState, report_key
from bridge.reading import Pair
from bridge.text import one_line
from bridge.web.delivery_filter import Filter

log = structlog.get_logger(__name__)

#: Deliveries read in one go while it is filled, and how long it rests after, as a share of the time that took.
BATCH = 500
REST = 0.2
#: Seconds after which a look asks the store what changed, and after which that is done though nobody looks.
FRESH = 1.0
UNWATCHED = 300.0
#: Seconds between attempts while Redis is away or the disk is full.
AGAIN = 5.0

#: KiB of the database that are held in memory.
_CACHE = 8_000
_TABLE = """
CREATE TABLE delivery (
  number INTEGER PRIMARY KEY, report TEXT NOT NULL, connector TEXT NOT NULL, organization INTEGER,
  severity TEXT NOT NULL, state TEXT NOT NULL, changed INTEGER NOT NULL, seen INTEGER NOT NULL, words TEXT NOT NULL,
  filling INTEGER NOT NULL,
  UNIQUE (report, connector)
);
CREATE INDEX by_time ON delivery (changed);
CREATE INDEX by_state ON delivery (state, changed);
CREATE INDEX by_connector ON delivery (connector, changed);
CREATE INDEX by_severity ON delivery (severity, changed);
CREATE INDEX by_organization ON delivery (organization, seen, state, changed);
"""
_WRITE = """
INSERT INTO delivery (report, connector, organization, severity, state, changed, seen, words, filling)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (report, connector) DO UPDATE SET
  organization = excluded.organization, severity = excluded.severity, state = excluded.state,
  changed = excluded.changed, seen = excluded.seen, words = excluded.words, filling = excluded.filling
"""


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


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the list: when the delivery there changed (ms since the epoch), and its number in the index."""

    changed: int
    number: int

    @classmethod
    def read(cls, text: str) -> Place | None:
        """What `str` wrote; None for anything else."""
        changed, _, number = text.partition("-")
        if all(part.isascii() and part.isdecimal() and len(part) < 16 for part in (changed, number)):
            return cls(int(changed), int(number))
        return None

    def __str__(self) -> str:
        return f"{self.changed}-{self.number}"


@dataclass(frozen=True, slots=True)
class Found:
    """One page of the list, latest change first. `newer` and `older` are where others begin; None: there are none."""

    pairs: tuple[Pair, ...]
    total: int
    newer: Place | None
    older: Place | None


@dataclass(frozen=True, slots=True)
class Incidents:
    """What came for one organization, in deliveries."""

    total: int
    #: Since the moment asked for.
    recent: int
    #: Those that wait, were refused or are held.
    unsettled: int


class DeliveryIndex:
    """One process' index. It reads nothing before `start`. Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store
        self._database = threading.RLock()
        self._following = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._filling = 0
        self._moment: float | None = None
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
        if self._thread is not None:
            self._thread.join(10)
        with self._database:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                if not self._progress.ready:
                    self.fill()
                self._ended.wait(UNWATCHED if self._progress.ready else AGAIN)
                self.follow()
            except (redis.RedisError, sqlite3.Error) as error:
                if self._ended.is_set():
                    return
                log.warning("the page's list of deliveries could not be prepared", error=str(error))
                self._progress = Progress(False, self._progress.done, self._progress.total, str(error))
                self._ended.wait(AGAIN)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database, one user at a time; what was written is kept when the block ends well."""
        with self._database:
            if self._connection is None:
                # The empty name: a database of its own on disk that is deleted as soon as it is open.
                self._connection = sqlite3.connect("", check_same_thread=False)
                self._connection.execute(f"PRAGMA cache_size = -{_CACHE}")
                self._connection.execute("PRAGMA journal_mode = MEMORY")
                self._connection.executescript(_TABLE)
            with self._connection:
                yield self._connection

    # -- taking over what the store has --------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        return self._progress

    def fill(self) -> None:
        """Takes over every delivery, those that changed last first; what the store does not have any more goes."""
        begun = self.store.now()
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
        with self._open() as database:
            database.execute("DELETE FROM delivery WHERE filling < ?", [self._filling])
            database.execute("ANALYZE")
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
                return False
            pairs, moment = changes
            for start in range(0, len(pairs), BATCH):
                self._take(pairs[start : start + BATCH])
            self._moment, self._followed_at = moment, time.monotonic()
            return True

    def _take(self, pairs: Sequence[Pair]) -> None:
        found = self.store.read_deliveries(pairs)
        gone = set(pairs) - {(delivery.report_id, delivery.connector) for delivery in found}
        rows = [_row(delivery, self._filling) for delivery in found]
        with self._open() as database:
            database.executemany(_WRITE, rows)
            database.executemany(
                "DELETE FROM delivery WHERE report = ? AND connector = ?",
                [(str(report_id), connector) for report_id, connector in gone],
            )

    # -- asking --------------------------------------------------------------------------------------------------------

    def look(self) -> Progress:
        """Has the index brought up to date, as far as it is filled, for questions that follow."""
        self.start()
        self.follow(FRESH)
        return self._progress

    def page(
        self,
        wanted: Filter,
        size: int,
        *,
        named: Mapping[str, Collection[int]],
        before: Place | None = None,
        after: Place | None = None,
    ) -> Found:
        """The `size` deliveries that changed last, or those next to a place: older `before` it, or newer `after` it."""
        where, values = wanted.where(named)
        place = before or after
        up = place is after and place is not None
        # Every piece of the statements is written here or in `Filter.where`; what people type are parameters.
        order = "changed, number" if up else "changed DESC, number DESC"
        beside = f" AND (changed, number) {'>' if up else '<'} (:changed, :number)" if place else ""
        if place:
            values |= {"changed": place.changed, "number": place.number}
        listing = f"SELECT changed, number, report, connector FROM delivery WHERE {where}{beside}"  # noqa: S608
        with self._open() as database:
            total = database.execute(f"SELECT count(*) FROM delivery WHERE {where}", values).fetchone()[0]  # noqa: S608
            rows = database.execute(f"{listing} ORDER BY {order} LIMIT {size + 1}", values).fetchall()
        more, rows = len(rows) > size, rows[:size]
        if up:
            rows.reverse()
        first, last = (Place(*rows[0][:2]), Place(*rows[-1][:2])) if rows else (None, None)
        return Found(
            pairs=tuple((report_key(report), connector) for _, _, report, connector in rows),
            total=total,
            newer=first if (more if up else before is not None) else None,
            older=last if (more or up) else None,
        )

    def pairs(self, wanted: Filter, *, named: Mapping[str, Collection[int]]) -> Iterator[Pair]:
        """All that fit, latest change first, in the order and number of the moment of the first."""
        where, values = wanted.where(named)
        listing = f"SELECT number FROM delivery WHERE {where} ORDER BY changed DESC, number DESC"  # noqa: S608
        with self._open() as database:
            numbers = [number for (number,) in database.execute(listing, values)]
        for start in range(0, len(numbers), BATCH):
            with self._open() as database:
                rows = [
                    database.execute("SELECT report, connector FROM delivery WHERE number = ?", [number]).fetchone()
                    for number in numbers[start : start + BATCH]
                ]
            yield from ((report_key(row[0]), row[1]) for row in rows if row is not None)

    def counts(self, column: Literal["connector", "state", "severity", "organization"]) -> dict[str | int | None, int]:
        """How many deliveries there are for each value of a column."""
        asked = f"SELECT {column}, count(*) FROM delivery GROUP BY {column}"  # noqa: S608
        with self._open() as database:
            return dict(database.execute(asked).fetchall())

    def incidents(self, since: float) -> dict[int, Incidents]:
        """By organization, what came for it; `since` (seconds since the epoch) is from when on that is recent."""
        asked = (
            "SELECT organization, count(*), sum(seen >= ?), sum(state IN ('pending', 'creating', 'rejected', 'held')) "
            "FROM delivery WHERE organization IS NOT NULL GROUP BY organization"
        )
        with self._open() as database:
            return {row[0]: Incidents(*row[1:]) for row in database.execute(asked, [round(since * 1000)])}


def _row(delivery: Delivery, filling: int) -> tuple[object, ...]:
    ticket = delivery.ticket
    words = [str(delivery.report_id), delivery.subject, *([ticket.number, ticket.id] if ticket else [])]
    return (
        str(delivery.report_id),
        delivery.connector,
        delivery.organization_id,
        delivery.severity,
        str(delivery.state),
        round(delivery.updated_at * 1000),
        round((delivery.created_at or 0.0) * 1000),
        one_line(" ".join(words)).casefold(),
        filling,
    )


def named_so(words: Collection[str], names: Mapping[int, str]) -> dict[str, frozenset[int]]:
    """For each word (casefolded), the organizations whose name contains it."""
    folded = {organization: name.casefold() for organization, name in names.items()}
    return {word: frozenset(each for each, name in folded.items() if word in name) for word in words}
