"""Who did what on the page, kept in Redis beside the log's line.

===============================  =======================================================================================
``page:audit``                   list of JSON, newest first: what people did
``page:refused``                 list of JSON, newest first: log-ins and actions that were refused
===============================  =======================================================================================

Two lists, because strangers can be refused as often as they like, and must not push out what people did.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

from bridge.idempotency import IdempotencyStore
from bridge.text import one_line

#: Entries kept of each list.
KEPT = {"page:audit": 10_000, "page:refused": 2_000}
#: Most characters of one thing that is written down.
_LONGEST = 500
#: Entries read at once.
_CHUNK = 500

Outcome = Literal["done", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One action; `at` is in seconds since the epoch, `what` its particulars by name."""

    at: float
    person: str
    address: str
    action: str
    outcome: str
    what: Mapping[str, str] = field(default_factory=dict)

    def matches(self, text: str) -> bool:
        """Does every word of `text` stand somewhere in it?"""
        whole = " ".join([self.person, self.address, self.action, self.outcome, *self.what.values()]).casefold()
        return all(word in whole for word in text.casefold().split())


class AuditLog:
    """Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store

    def write(self, person: str, address: str, action: str, outcome: Outcome, what: Mapping[str, object]) -> Entry:
        """Adds an entry, now."""
        told = {name: one_line(_text(value))[:_LONGEST] for name, value in what.items() if value not in (None, "", [])}
        entry = Entry(self._store.now(), person, address, action, outcome, told)
        name = "page:refused" if outcome == "refused" else "page:audit"
        with self._store.client.pipeline() as pipe:
            pipe.lpush(self._store.key(name), json.dumps(asdict(entry)))
            pipe.ltrim(self._store.key(name), 0, KEPT[name] - 1)
            pipe.execute()
        return entry

    def entries(self) -> Iterator[Entry]:
        """All there are, newest first."""
        return heapq.merge(*map(self._list, KEPT), key=lambda entry: -entry.at)

    def _list(self, name: str) -> Iterator[Entry]:
        for start in range(0, KEPT[name], _CHUNK):
            lines = self._store.client.lrange(self._store.key(name), start, start + _CHUNK - 1)
            for line in cast("list[str]", lines):
                yield Entry(**json.loads(line))
            if len(cast("list[str]", lines)) < _CHUNK:
                return


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple, set, frozenset)) else str(value)
