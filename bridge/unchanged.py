"""Which of the reports that a listing shows are as they were when the last one showed them?

To parse a report and to render its snapshot takes many times as long as to see that nothing changed. What is remembered
is this process' own, and follows from the item alone: the digest of its snapshot, and who takes it under the present
routes. The store is still asked about each report in each cycle (`IdempotencyStore.seen`): one that was lost, or that a
process of another version wrote to, gets what it lacks.
"""

from __future__ import annotations

import hashlib
import marshal
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.models import ReportKey
from bridge.parsing import whole_number
from bridge.routing import Routes

#: Most reports that are remembered, about 350 bytes each; those beyond are parsed anew in each cycle.
MOST = 50_000


@dataclass(frozen=True, slots=True)
class Known:
    """What follows from one item: `digest` as `bridge.idempotency.snapshot_of` has it, and who takes the report."""

    raw_digest: bytes
    digest: str
    connectors: tuple[str, ...]


def raw_digest(raw: Any, organization_id: int | None) -> bytes:
    """Tells whether an item changed in anything at all: the source may not move `updated_at` with every change.

    `organization_id`: of which organization it was listed; a report that does not say whose it is belongs there.
    """
    # The fastest that writes every kind of JSON value in one way only; up to version 2 identity plays no part.
    try:
        written = marshal.dumps((raw, organization_id), 2)
    except ValueError:  # nested 2,000 deep, which JSON may be from Python 3.13 on
        written = secrets.token_bytes(16)  # like nothing else, not even itself: it is read anew each time
    return hashlib.sha256(written).digest()[:16]


class Unchanged:
    """The reports that the last cycle showed. For one thread, the poller's."""

    def __init__(self) -> None:
        self._before: dict[ReportKey, Known] = {}
        self._now: dict[ReportKey, Known] = {}
        self._holds_for: tuple[Routes, int] | None = None
        #: One tuple for all reports that the same connectors take.
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._before.keys() | self._now.keys())

    def hold_for(self, routes: Routes, account_id: int) -> None:
        """Other routes or another account: nothing that is known holds any more."""
        if self._holds_for != (routes, account_id):
            self._before, self._now, self._names = {}, {}, {}
            self._holds_for = routes, account_id

    def find(self, raw: Any, organization_id: int | None) -> ReportKey | None:
        """The key of an incident report that is as it was; None: it is new, changed, or cannot be read."""
        number = whole_number(raw.get("id"), least=1) if isinstance(raw, Mapping) else None
        known = None if number is None else self._get(number)
        return number if known and known.raw_digest == raw_digest(raw, organization_id) else None

    def keep(self, key: ReportKey) -> Known:
        """What is known of a report that `find` just found; it stays known as long as there is room."""
        known = self._now.get(key) or self._before[key]
        self._add(key, known)
        return known

    def remember(self, key: ReportKey, raw_digest: bytes, digest: str, connectors: tuple[str, ...]) -> None:
        """This one was parsed just now."""
        self._add(key, Known(raw_digest, digest, self._names.setdefault(connectors, connectors)))

    def turn(self, *, complete: bool) -> None:
        """A cycle is over. What a `complete` one did not show is forgotten."""
        fits = len(self._before) + len(self._now) <= MOST
        self._before = self._now if complete or not fits else {**self._before, **self._now}
        self._now = {}

    def _add(self, key: ReportKey, known: Known) -> None:
        if key in self._now or len(self._now) < MOST:
            self._now[key] = known

    def _get(self, key: ReportKey) -> Known | None:
        return self._now.get(key) or self._before.get(key)
