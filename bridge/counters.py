"""What happened how often, and how long it took. The scripts that do it count it: exact, whoever is killed.

Redis lay-out: fields of the hash ``counters``, for ever, and of ``day:<days since 1970-01-01>`` (UTC), for 400 days

===================================  ===================================================================================
``delivery:<connector>:<what>``      `bridge.history.What`: created, found, rejected, … (``counters`` only)
``report:<severity>``                reports seen for the first time: critical, high, low or other
``time:sent:<connector>:<bucket>``   tickets made, by how long after the report was sent; ``:sum`` in ms. A day has
``time:seen:<connector>:<bucket>``   no connector here. ``seen``: after the bridge first saw the report
``request:<system>:<status>``        requests answered (``counters`` only); see `bridge.request_counts`
``webhook:<what>``                   events ``taken`` (``counters`` only)
===================================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from typing import Literal, cast

from bridge.models import SEVERITIES
from bridge.reading import Reading

#: Upper ends of the buckets in seconds, as `BUCKETS` in `lua/common.lua`; a last one takes the rest.
BUCKETS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)
#: Days that are kept.
DAYS_KEPT = 400
#: Severities that are counted.
COUNTED_SEVERITIES = (*SEVERITIES, "other")

#: Since when a ticket's time is taken: the source sent the report, or the bridge first saw it.
Since = Literal["sent", "seen"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long tickets took. `counts`: by bucket, one more than `BUCKETS`; `sum` in seconds."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share (0 to 1) was done, as far as buckets tell; None: nothing was done.

        What took longer than the last bound counts as that.
        """
        if not self.count:
            return None
        wanted, before = share * self.count, 0
        for number, reached in enumerate(accumulate(self.counts[:-1])):
            if reached >= wanted and self.counts[number]:
                start = BUCKETS[number - 1] if number else 0
                return start + (BUCKETS[number] - start) * (wanted - before) / self.counts[number]
            before = reached
        return float(BUCKETS[-1])


def _histogram(fields: Mapping[str, str], prefix: str) -> Histogram:
    counts = tuple(int(fields.get(f"{prefix}{number}", 0)) for number in range(1, len(BUCKETS) + 2))
    return Histogram(counts, int(fields.get(f"{prefix}sum", 0)) / 1000)


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything since the store began."""

    #: By connector and `bridge.history.What`.
    deliveries: Mapping[tuple[str, str], int]
    #: By severity.
    reports: Mapping[str, int]
    #: By system (`source` or the connector's name, with `connector:` before it) and status.
    requests: Mapping[tuple[str, str], int]
    #: Events taken.
    webhooks: int
    #: By connector.
    since_sent: Mapping[str, Histogram]
    since_seen: Mapping[str, Histogram]


class Counters:
    """Reads what the scripts counted. Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: Reading) -> None:
        self.store = store

    def totals(self) -> Totals:
        """Everything since the store began, in one round trip."""
        fields = cast("dict[str, str]", self.store.client.hgetall(self.store.key("counters")))
        parts = {tuple(field.split(":")): int(number) for field, number in fields.items()}
        timed = {names[2] for names in parts if names[0] == "time"}
        return Totals(
            deliveries={(names[1], names[2]): number for names, number in parts.items() if names[0] == "delivery"},
            reports={names[1]: number for names, number in parts.items() if names[0] == "report"},
            requests={
                (":".join(names[1:-1]), names[-1]): number for names, number in parts.items() if names[0] == "request"
            },
            webhooks=parts.get(("webhook", "taken"), 0),
            since_sent={name: _histogram(fields, f"time:sent:{name}:") for name in sorted(timed)},
            since_seen={name: _histogram(fields, f"time:seen:{name}:") for name in sorted(timed)},
        )

    def reports_per_day(self, days: int) -> dict[date, dict[str, int]]:
        """Reports seen for the first time, by UTC day (today is the last of them) and severity."""
        return {
            day: {severity: int(fields.get(f"report:{severity}", 0)) for severity in COUNTED_SEVERITIES}
            for day, fields in self._days(days)
        }

    def delivery_times(self, days: int, since: Since = "sent") -> dict[date, Histogram]:
        """How long the tickets took that were made on each UTC day (today is the last), over all connectors."""
        return {day: _histogram(fields, f"time:{since}:") for day, fields in self._days(days)}

    def _days(self, days: int) -> Iterable[tuple[date, dict[str, str]]]:
        today = datetime.fromtimestamp(self.store.now(), UTC).date()
        wanted = [today - timedelta(days=back) for back in range(min(days, DAYS_KEPT) - 1, -1, -1)]
        pipeline = self.store.client.pipeline(transaction=False)
        for day in wanted:
            pipeline.hgetall(self.store.key(f"day:{(day - date(1970, 1, 1)).days}"))
        return zip(wanted, pipeline.execute(), strict=True)
