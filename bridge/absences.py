"""Reports that listings no longer show: which they are, and when the source is asked for each by itself.

Absence from a complete listing is a hint; only the source's own word ends a report (`bridge.ends`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from bridge.idempotency import IdempotencyStore
from bridge.models import ReportKey, report_key
from bridge.reading import BATCH, number, seconds

#: Longest seconds between two questions about a report that is no longer listed and not known to be over.
LONGEST_ASK = 86400.0


@dataclass(frozen=True, slots=True)
class Missing:
    """A report that complete listings no longer show. `asked`: how often it was asked for; times as in `Claim`."""

    key: ReportKey
    due: bool
    organization_id: int | None
    last_listed_at: float
    asked: int
    #: Why it is not known to be over, as a sentence; '' until it was asked for.
    why: str = ""


class Absences:
    """Part of the store, for the leading poller: `leader` is its number.

    Methods raise `redis.RedisError` when Redis is away, `bridge.idempotency.Deposed` when another process leads.
    """

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store
        self.client = store.client
        #: Birth mark of the store that is known to be caught up.
        self._caught_up_in: str | None = None

    def unseen(self, before: float) -> list[tuple[ReportKey, int | None]]:
        """Reports that counted as open and were not listed since `before` (epoch seconds), with their organizations."""
        key, pipeline = self.store.key("open"), self.client.pipeline(transaction=False)
        pipeline.time()
        # Down to the millisecond, as the scripts do: what was seen within the same one must stay.
        pipeline.zrangebyscore(key, "-inf", f"({int(before * 1000)}")
        pipeline.zrange(key, -1, -1, withscores=True)
        time, members, last = pipeline.execute()
        now = self.store.moment(time)
        if now < before:
            return []  # the clock was set back during the listing: the next one tells
        if last and last[0][1] > int(now * 1000):  # and this was seen before the clock was set back
            members += cast("list[str]", self.client.zrangebyscore(key, f"({int(now * 1000)}", "+inf"))
        if not members:
            return []
        pipeline = self.client.pipeline(transaction=False)
        for member in members:
            pipeline.hget(self.store.key(f"report:{member}"), "organization")
        organizations = cast("list[str | None]", pipeline.execute())
        return [
            (report_key(member), int(organization) if organization else None)
            for member, organization in zip(members, organizations, strict=True)
        ]

    def miss(self, leader: int, before: float, keys: Sequence[ReportKey]) -> int:
        """Complete listings since `before` do not show these reports; returns how many were listed the time before."""
        missed = 0
        for start in range(0, len(keys), 500):
            part = json.dumps([str(key) for key in keys[start : start + 500]])
            missed += int(self.store.answer("miss", leader, int(before * 1000), part) or 0)
        return missed

    def count(self) -> int:
        """How many reports complete listings no longer show that are not known to be over."""
        return self.client.zcard(self.store.key("missing"))

    def missing(self, *, due: bool = False) -> list[Missing]:
        """Reports that complete listings no longer show and that are not known to be over, those due first.

        `due`: no others. One round trip for each `BATCH` of them.
        """
        name, pipeline = self.store.key("missing"), self.client.pipeline(transaction=False)
        pipeline.exists(name)
        pipeline.time()
        any_missing, time = pipeline.execute()
        now = self.store.moment(time)
        if not any_missing:
            return []
        if due:
            pipeline = self.client.pipeline()
            pipeline.zrangebyscore(name, "-inf", round(now * 1000), withscores=True)
            pipeline.zrangebyscore(name, f"({round((now + LONGEST_ASK) * 1000)}", "+inf", withscores=True)
            pairs = [pair for found in pipeline.execute() for pair in found]
        else:
            pairs = cast("list[tuple[str, float]]", self.client.zrange(name, 0, -1, withscores=True))
        return [each for start in range(0, len(pairs), BATCH) for each in self._read(pairs[start : start + BATCH], now)]

    def _read(self, pairs: Sequence[tuple[str, float]], now: float) -> Iterator[Missing]:
        pipeline = self.client.pipeline(transaction=False)
        for member, _ in pairs:
            pipeline.hmget(
                self.store.key(f"report:{member}"), ["organization", "last_listed_at", "asked", "missing_why"]
            )
        for (member, at), (organization, listed_at, asked, why) in zip(pairs, pipeline.execute(), strict=True):
            yield Missing(
                key=report_key(member),
                due=not now < at / 1000 <= now + LONGEST_ASK,
                organization_id=int(organization) if organization else None,
                last_listed_at=seconds(listed_at) or 0.0,
                asked=number(asked),
                why=why or "",
            )

    def ask_later(self, leader: int, key: ReportKey, why: str, *, first: float, longest: float = LONGEST_ASK) -> None:
        """A missing report is not known to be over; `why` is shown. It is due again after `first` seconds, doubling."""
        self.store.answer("ask_later", leader, key, why, round(first * 1000), round(longest * 1000))

    def caught_up(self) -> bool:
        """Have the reports that ended before this store began been looked at?"""
        if self._caught_up_in != self.store.birth and self.client.hexists(self.store.key("meta"), "caught_up"):
            self._caught_up_in = self.store.birth
        return self._caught_up_in == self.store.birth

    def catch_up(self) -> None:
        self.client.hset(self.store.key("meta"), "caught_up", "1")
