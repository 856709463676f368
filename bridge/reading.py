"""The store's reading side: deliveries, their histories, and what changed lately. Nothing here writes."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from bridge import history
from bridge.models import Delivery, DeliveryState, ReportKey, TicketRef, report_key
from bridge.scripts import Scripts

#: Deliveries that the scripts keep in the feed of changes (`FEED` in `lua/common.lua`).
FEED = 50_000
#: Deliveries read in one round trip.
BATCH = 500

#: What of a delivery a list shows, and what of its report's snapshot.
_FIELDS = (
    *("state", "organization", "severity", "reference", "attempts", "reason", "remark", "todo", "next_at"),
    *("ticket_id", "ticket_number", "ticket_url", "other_ticket"),
    *("updated_at", "created_at", "creating_at", "recorded_at"),
)
_OF_SNAPSHOT = ("subject", "agent_id", "sent_at")

#: One report's way to one connector, by name.
Pair = tuple[ReportKey, str]


@dataclass(frozen=True, slots=True)
class FeedPlace:
    """A place in the feed of changes of the store with this birth mark; 0: its beginning."""

    birth: str
    at: int


def number(value: str | None) -> int:
    return int(float(value)) if value else 0


def seconds(value: str | None) -> float | None:
    return int(float(value)) / 1000 if value else None


def ticket_of(fields: Mapping[str, str]) -> TicketRef | None:
    if not fields.get("ticket_id"):
        return None
    return TicketRef(fields["ticket_id"], fields.get("ticket_number", ""), fields.get("ticket_url", ""))


def _pair(member: str) -> Pair:
    report, _, connector = member.partition("|")
    return report_key(report), connector


class Reading(Scripts):
    """What can be read of one store. Methods raise `redis.RedisError` when Redis is away."""

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def deliveries(self, states: Iterable[DeliveryState] = tuple(DeliveryState)) -> Iterator[Delivery]:
        """Deliveries in the given states, in batches, oldest change first."""
        for state in states:
            members = cast("list[str]", self.client.zrange(self.key(f"state:{state}"), 0, -1))
            for start in range(0, len(members), BATCH):
                yield from self._read([_pair(member) for member in members[start : start + BATCH]])

    def delivery(self, report_id: ReportKey, connector: str) -> Delivery | None:
        return next(self._read([(report_id, connector)]), None)

    def read_deliveries(self, pairs: Sequence[Pair]) -> list[Delivery]:
        """Those of the deliveries that exist, with what their reports' snapshots say; one round trip for `BATCH`."""
        return [
            delivery
            for start in range(0, len(pairs), BATCH)
            for delivery in self._read(pairs[start : start + BATCH], snapshots=True)
        ]

    def every_delivery(self, batch: int = BATCH) -> Iterator[Pair]:
        """Every delivery by name, those whose state changed last first; holds no more than a few batches of names.

        What changes meanwhile may be left out: ask `changed_since` for it, from `latest_change` before the first name.
        """
        found = heapq.merge(
            *(self._newest_first(self.key(f"state:{state}"), batch) for state in DeliveryState),
            key=lambda entry: entry[1],
            reverse=True,
        )
        for member, _ in found:
            yield _pair(member)

    def _newest_first(self, key: str, batch: int) -> Iterator[tuple[str, float]]:
        """A sorted set from its top, in batches by score: what is added or leaves meanwhile shifts nothing."""
        top: float | str = "+inf"
        at_top: set[str] = set()
        size = batch
        while True:
            page = cast(
                "list[tuple[str, float]]",
                self.client.zrevrangebyscore(key, top, "-inf", start=0, num=size, withscores=True),
            )
            fresh = [(member, at) for member, at in page if at != top or member not in at_top]
            yield from fresh
            if len(page) < size:
                return
            if page[-1][1] != top:
                top, at_top, size = page[-1][1], set(), batch
            at_top.update(member for member, at in page if at == top)
            size = max(size, 2 * len(at_top))  # more of the same time than a batch holds

    def latest_change(self) -> FeedPlace:
        """Where a reader of the feed of changes begins that reads all deliveries afterwards."""
        pipeline = self.client.pipeline()
        pipeline.hget(self.key("meta"), "birth")
        pipeline.zrange(self.key("changed"), -1, -1, withscores=True)
        birth, newest = pipeline.execute()
        return FeedPlace(birth or "", int(newest[0][1]) if newest else 0)

    def changed_since(self, moment: FeedPlace) -> tuple[list[Pair], FeedPlace] | None:
        """Deliveries of which something that people see changed after `moment`, and the moment to ask for next.

        None: the feed does not reach back that far, or the store is another one by now, or an older state of it; all
        has to be read anew. A delivery that is gone since is among the pairs.
        """
        feed = self.key("changed")
        pipeline = self.client.pipeline()
        pipeline.hget(self.key("meta"), "birth")
        pipeline.zcard(feed)
        pipeline.zrange(feed, 0, 0, withscores=True)
        pipeline.zrange(feed, -1, -1, withscores=True)
        pipeline.zrangebyscore(feed, f"({moment.at}", "+inf")
        birth, kept, oldest, newest, members = pipeline.execute()
        top = int(newest[0][1]) if newest else 0
        forgotten = kept >= FEED and oldest[0][1] > moment.at
        if birth is None or birth != moment.birth or top < moment.at or forgotten:
            return None
        return [_pair(member) for member in members], FeedPlace(moment.birth, top)

    def _read(self, pairs: Sequence[Pair], *, snapshots: bool = False) -> Iterator[Delivery]:
        wanted = _OF_SNAPSHOT if snapshots else ()
        names = (*_FIELDS, "missing_why", *wanted)
        while pairs:
            named = json.dumps([[str(report), connector] for report, connector in pairs])
            answer = self.script("read", named, json.dumps(_FIELDS), json.dumps(wanted))
            rows: list[list[str | bool]] = json.loads(answer)
            for (report, connector), row in zip(pairs, rows, strict=False):
                fields = {name: value for name, value in zip(names, row, strict=True) if isinstance(value, str)}
                if "state" in fields:
                    yield _delivery(report, connector, fields)
            pairs = pairs[len(rows) :]

    # -- states --------------------------------------------------------------------------------------------------------

    def count(self, state: DeliveryState) -> int:
        return self.client.zcard(self.key(f"state:{state}"))

    def waiting(self, connector: str) -> tuple[int, float | None]:
        """How many reports wait for their ticket in `connector`, and since when the first does.

        Without those that quiet hours hold back.
        """
        key = self.key(f"waiting:{connector}")
        first = cast("list[tuple[str, float]]", self.client.zrange(key, 0, 0, withscores=True))
        return self.client.zcard(key), first[0][1] / 1000 if first else None

    def longest_waiting(self, connector: str) -> Delivery | None:
        """The one of `waiting` that waits longest."""
        first = cast("list[str]", self.client.zrange(self.key(f"waiting:{connector}"), 0, 0))
        return self.delivery(report_key(first[0]), connector) if first else None

    def entered(self, state: DeliveryState) -> dict[str, dict[ReportKey, float]]:
        """By connector, the reports in `state` and since when (seconds since the epoch), oldest first."""
        found: dict[str, dict[ReportKey, float]] = {}
        pairs = self.client.zrange(self.key(f"state:{state}"), 0, -1, withscores=True)
        for member, at in cast("list[tuple[str, float]]", pairs):
            report, connector = _pair(member)
            found.setdefault(connector, {})[report] = at / 1000
        return found

    def history(self, report_id: ReportKey, connector: str) -> list[history.HistoryEvent]:
        """What happened to a delivery, oldest first; nothing is known of one that does not exist."""
        entries = self.client.lrange(self.key(f"history:{report_id}:{connector}"), 0, -1)
        return history.read(cast("list[str]", entries))


def _delivery(report_id: ReportKey, connector: str, fields: Mapping[str, str]) -> Delivery:
    other = fields.get("other_ticket", "")
    todo = tuple(json.loads(fields.get("todo") or "[]"))
    second = f"ticket {other} carries the same reference; this one, with the lower id, is kept." if other else ""
    reasons = (fields.get("reason"), second, fields.get("remark"), fields.get("missing_why"))
    return Delivery(
        report_id=report_id,
        connector=connector,
        state=DeliveryState(fields["state"]),
        organization_id=int(fields["organization"]) if fields.get("organization") else None,
        reference=fields.get("reference", ""),
        ticket=ticket_of(fields),
        attempts=number(fields.get("attempts")),
        reason=" ".join(text for text in reasons if text),
        next_attempt_at=None if todo == ("status",) else seconds(fields.get("next_at")),
        updated_at=seconds(fields.get("updated_at")) or 0.0,
        severity=fields.get("severity", ""),
        todo=todo,
        other_ticket=fields.get("other_ticket", ""),
        remark=fields.get("remark", ""),
        created_at=seconds(fields.get("created_at")),
        made_at=seconds(fields.get("creating_at")),
        recorded_at=seconds(fields.get("recorded_at")),
        subject=fields.get("subject", ""),
        agent_id=int(float(fields["agent_id"])) if fields.get("agent_id") else None,
        sent_at=fields.get("sent_at", ""),
    )
