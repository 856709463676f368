"""What happened to a delivery so far, as one timeline. The scripts write it (`remember` in `lua/common.lua`).

It is kept small: at most 60 entries, and what is tried again in the same way stays one entry that counts. When there
are more, the first 20 and the newest are kept.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class What(StrEnum):
    """What can happen to a delivery. The text that goes with each says more."""

    #: The bridge first had this delivery to make.
    SEEN = "seen"
    #: A worker took it up.
    CLAIMED = "claimed"
    #: The ticket system was asked for the report's reference, and had no ticket.
    LOOKED_UP = "looked_up"
    #: The create request was let out.
    CREATING = "creating"
    #: A ticket that exists was taken (its number).
    FOUND = "found"
    #: The ticket was made (its number).
    CREATED = "created"
    #: It waits (why, in the ticket system's own words where it said something).
    WAITING = "waiting"
    #: Whether it was done is not known (why).
    DOUBTFUL = "doubtful"
    #: The ticket system said no to the ticket, or to something done to it (its sentence).
    REJECTED = "rejected"
    #: A person must decide (why).
    HELD = "held"
    #: The ticket has a note (its key).
    NOTED = "noted"
    #: The report is over and the ticket was told (why it was left open, if it was).
    CLOSED = "closed"
    REOPENED = "reopened"
    #: The report is open again and gets a new ticket (its reference).
    CONTINUED = "continued"
    #: A person had it tried again.
    RETRIED = "retried"
    #: A person took care of it (the reason given).
    HANDLED = "handled"
    #: A person deleted, merged or converted the ticket (which of these).
    GONE = "gone"


#: As `LETTERS` in `lua/common.lua`.
LETTERS = dict(zip("sclgfmwdxhnzokraq", What, strict=True))

_ENTRY = re.compile(r"([a-z])(-?\d+),(\d+)(?:,(\d+),(-?\d+))?(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of a delivery's timeline. Times are seconds since the epoch by Redis' clock, to the millisecond."""

    at: float
    what: str
    #: The reason, the ticket system's own sentence, the ticket's number, or the note's key; comes from outside.
    text: str = ""
    #: Number of the worker's turn; 0: before the first.
    attempt: int = 0
    #: How often the same happened in a row, and when last; 0: only at `at`.
    times: int = 1
    last_at: float = 0


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Event:
    """What a turn did. Written with its next script, so that it costs no round trip of its own."""

    what: What
    text: str = ""
    #: By this process' monotonic clock.
    moment: float = field(default_factory=time.monotonic)
    #: Rises within the process, so that the scripts know one that comes again because an answer was lost.
    number: int = field(default_factory=lambda: next(_numbers))


def as_sent(events: Iterable[Event]) -> list[tuple[str, str, int, int]]:
    """Events for a script: what, text, how many ms ago, number."""
    now = time.monotonic()
    return [(event.what, event.text, round((now - event.moment) * 1000), event.number) for event in events]


def read(entries: Sequence[str]) -> list[HistoryEvent]:
    """A stored history, oldest entry first; what another version wrote in another form is left out."""
    found: list[HistoryEvent] = []
    start = 0
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] not in LETTERS:
            continue
        at = int(match[2]) + start
        start = start or at
        found.append(
            HistoryEvent(
                at=at / 1000,
                what=LETTERS[match[1]].value,
                text=match[6] or "",
                attempt=int(match[3]),
                times=int(match[4] or 1),
                last_at=(start + int(match[5])) / 1000 if match[5] else 0,
            )
        )
    return found
