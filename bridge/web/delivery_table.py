"""The table of deliveries that the page's index is kept in: a private SQLite database of one process.

It has no name: it is on disk, so that memory stays flat however many deliveries there are, and gone with the process.
Every statement is written here or in `Filter.where`; what people type reaches it as parameters only.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from bridge.models import Delivery, report_key
from bridge.reading import Pair
from bridge.text import one_line
from bridge.web.delivery_filter import ANY, Filter

#: Deliveries read in one go where all that fit are asked for.
BATCH = 500
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
# How many there are, kept while they are written: to count a million rows takes longer than all else on a page.
_TALLY = """
CREATE TABLE tally (
  kind TEXT NOT NULL, value NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (kind, value)
) WITHOUT ROWID;
CREATE TRIGGER came AFTER INSERT ON delivery BEGIN
  INSERT INTO tally VALUES ('connector', new.connector, 1) ON CONFLICT DO UPDATE SET number = number + 1;
  INSERT INTO tally SELECT 'organization', new.organization, 1 WHERE new.organization IS NOT NULL
    ON CONFLICT DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER went AFTER DELETE ON delivery BEGIN
  UPDATE tally SET number = number - 1 WHERE kind = 'connector' AND value = old.connector;
  UPDATE tally SET number = number - 1 WHERE kind = 'organization' AND value = old.organization;
END;
CREATE TRIGGER moved AFTER UPDATE OF organization ON delivery WHEN old.organization IS NOT new.organization BEGIN
  UPDATE tally SET number = number - 1 WHERE kind = 'organization' AND value = old.organization;
  INSERT INTO tally SELECT 'organization', new.organization, 1 WHERE new.organization IS NOT NULL
    ON CONFLICT DO UPDATE SET number = number + 1;
END;
"""
_WRITE = """
INSERT INTO delivery (report, connector, organization, severity, state, changed, seen, words, filling)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (report, connector) DO UPDATE SET
  organization = excluded.organization, severity = excluded.severity, state = excluded.state,
  changed = excluded.changed, seen = excluded.seen, words = excluded.words, filling = excluded.filling
"""


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


class DeliveryTable:
    """Rows of deliveries, one user at a time. Methods raise `sqlite3.Error`, e.g. when the disk is full."""

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database; what was written is kept when the block ends well."""
        with self._turn:
            if self._connection is None:
                # The empty name: a database of its own on disk that is deleted as soon as it is open.
                self._connection = sqlite3.connect("", check_same_thread=False)
                self._connection.execute(f"PRAGMA cache_size = -{_CACHE}")
                self._connection.execute("PRAGMA journal_mode = MEMORY")
                self._connection.executescript(_TABLE + _TALLY)
            with self._connection:
                yield self._connection

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, deliveries: Sequence[Delivery], gone: Collection[Pair], filling: int) -> None:
        """Takes these deliveries over, in place of what is known of them, and drops those that are gone.

        `filling`: number of the filling that is under way, see `keep`.
        """
        with self._open() as database:
            database.executemany(_WRITE, [_row(delivery, filling) for delivery in deliveries])
            database.executemany(
                "DELETE FROM delivery WHERE report = ? AND connector = ?",
                [(str(report_id), connector) for report_id, connector in gone],
            )

    def keep(self, filling: int) -> None:
        """Drops what was not written since this filling began."""
        with self._open() as database:
            database.execute("DELETE FROM delivery WHERE filling < ?", [filling])
            database.execute("ANALYZE")

    # -- asking --------------------------------------------------------------------------------------------------------

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
        order = "changed, number" if up else "changed DESC, number DESC"
        beside = f" AND (changed, number) {'>' if up else '<'} (:changed, :number)" if place else ""
        if place:
            values |= {"changed": place.changed, "number": place.number}
        listing = f"SELECT changed, number, report, connector FROM delivery WHERE {where}{beside}"  # noqa: S608
        with self._open() as database:
            rows = database.execute(f"{listing} ORDER BY {order} LIMIT {size + 1}", values).fetchall()
            if place is None and len(rows) <= size:
                total = len(rows)
            elif where == ANY:
                total = sum(self.counts("connector").values())
            else:
                total = database.execute(f"SELECT count(*) FROM delivery WHERE {where}", values).fetchone()[0]  # noqa: S608
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
            numbers = array("q", (number for (number,) in database.execute(listing, values)))
        for start in range(0, len(numbers), BATCH):
            with self._open() as database:
                rows = [
                    database.execute("SELECT report, connector FROM delivery WHERE number = ?", [number]).fetchone()
                    for number in numbers[start : start + BATCH]
                ]
            yield from ((report_key(row[0]), row[1]) for row in rows if row is not None)

    def counts(self, column: Literal["connector", "organization"]) -> dict[str | int, int]:
        """How many deliveries there are for each value of a column, those without one left out."""
        with self._open() as database:
            asked = database.execute("SELECT value, number FROM tally WHERE kind = ? AND number > 0", [column])
            return dict(asked.fetchall())

    def incidents(self, since: float) -> dict[int, Incidents]:
        """By organization, what came for it; `since` (seconds since the epoch) is from when on that is recent."""
        asked = (
            "SELECT organization, count(*), sum(seen >= ?), sum(state IN ('pending', 'creating', 'rejected', 'held')) "
            "FROM delivery WHERE organization IS NOT NULL GROUP BY organization"
        )
        with self._open() as database:
            return {row[0]: Incidents(*row[1:]) for row in database.execute(asked, [round(since * 1000)])}

    def unsettled(self) -> dict[str, tuple[int, int]]:
        """By connector, how many deliveries wait, and how many were refused or are held."""
        asked = (
            "SELECT connector, sum(state IN ('pending', 'creating')), sum(state IN ('rejected', 'held')) FROM delivery "
            "WHERE state IN ('pending', 'creating', 'rejected', 'held') GROUP BY connector"
        )
        with self._open() as database:
            return {name: (waiting, stuck) for name, waiting, stuck in database.execute(asked)}


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
