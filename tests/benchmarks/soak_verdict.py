"""Is it flat? Compares the first quarter of a soak, after its warm-up, with the last. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

#: Share of the time that is warm-up, and its least seconds: so long takes it until as many reports end as come.
WARM_UP, LEAST_WARM_UP = 0.1, 150.0
#: What is asked of the page at each sample, as its reader and Prometheus do.
PAGES = ("/metrics", "/", "/deliveries")
#: So long it takes, after the warm-up, until caches are full and each kind of fault has met every process once: what a
#: process opened or took then it keeps for the next time.
FILLING = 1 / 3

Sample = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over time; None where it could not be taken. It may grow by `share` of itself or by `amount`."""

    name: str
    unit: str
    values: Sequence[float | None]
    share: float
    amount: float
    #: Share of the values, from the first, in which it may rise to its level and is not judged.
    rising: float = 0.0


@dataclass(frozen=True, slots=True)
class Flatness:
    """What became of a curve: the middle of its first and last quarter, and its slope in units per hour."""

    curve: Curve
    first: float
    last: float
    slope: float

    @property
    def allowed(self) -> float:
        return max(self.first * self.curve.share, self.curve.amount)

    @property
    def flat(self) -> bool:
        return self.last - self.first <= self.allowed


def settled(samples: Sequence[Sample], until: float) -> list[Sample]:
    """The samples after the warm-up, up to `until`, in seconds since the start."""
    since = max(until * WARM_UP, min(LEAST_WARM_UP, until / 2))
    return [sample for sample in samples if since <= sample["at"] <= until]


def at(sample: Sample, *path: str) -> float | None:
    """A figure deep inside a sample."""
    value: Any = sample
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def stored(sample: Sample) -> float:
    """Deliveries in Redis."""
    return float(sum(sample.get("states", {}).values()))


def _each(samples: Sequence[Sample], *path: str) -> list[float | None]:
    return [at(sample, *path) for sample in samples]


def per_delivery(samples: Sequence[Sample], figure: str, times: float, without: float) -> list[float | None]:
    """A figure of Redis, less what it was when empty, for each delivery that it stores."""
    found = []
    for sample in samples:
        value, count = at(sample, "redis", figure), stored(sample)
        found.append(None if value is None or not count else (value - without) * times / count)
    return found


def curves(samples: Sequence[Sample], processes: Sequence[str], empty: Mapping[str, float]) -> list[Curve]:
    """What has to be flat. `empty`: keys and megabytes of Redis before the first report came."""
    found = []
    for name in processes:
        found.append(Curve(f"memory of {name}", "MB", _each(samples, "processes", name, "memory"), 0.05, 4, FILLING))
    for name in processes:
        found.append(Curve(f"open files of {name}", "", _each(samples, "processes", name, "files"), 0, 2, FILLING))
    for name in processes:
        found.append(Curve(f"threads of {name}", "", _each(samples, "processes", name, "threads"), 0, 2, FILLING))
    keys = per_delivery(samples, "keys", 1.0, empty["keys"])
    memory = per_delivery(samples, "memory", 1e6, empty["memory"])
    return [
        *found,
        Curve("Redis: keys for each stored delivery", "", keys, 0.05, 0),
        Curve("Redis: memory for each stored delivery", "bytes", memory, 0.05, 0),
        Curve("Redis: keys of Dramatiq", "", _each(samples, "redis", "broker_keys"), 0, 10),
        Curve("Redis: connections", "", _each(samples, "redis", "clients"), 0, 4),
        Curve("shown to ticket, middle", "s", _each(samples, "times", "shown", "p50"), 0.25, 0.3),
        Curve("shown to ticket, 95 %", "s", _each(samples, "times", "shown", "p95"), 0.25, 1),
        Curve("over to closed, middle", "s", _each(samples, "times", "over", "p50"), 0.25, 3),
        Curve("over to closed, 95 %", "s", _each(samples, "times", "over", "p95"), 0.25, 5),
        Curve("one cycle of the poller", "s", _each(samples, "cycle"), 0.25, 0.3),
        Curve("waiting for a slot", "", _each(samples, "ready"), 0.25, 20),
        *(Curve(f"page {path}", "s", _each(samples, "pages", path), 0.5, 0.1) for path in PAGES),
    ]


def judged(curve: Curve, times: Sequence[float]) -> Flatness | None:
    """None: there are too few values."""
    points = [(when, value) for when, value in zip(times, curve.values, strict=True) if value is not None]
    points = points[int(len(points) * curve.rising) :]
    quarter = len(points) // 4
    if quarter == 0:
        return None
    values = [value for _, value in points]
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    return Flatness(curve, first, last, slope(points) * 3600)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The middle of the slopes between any two points (Theil and Sen): single ones far off do not matter."""
    slopes = [(b - a) / (until - since) for (since, a), (until, b) in combinations(points, 2) if until != since]
    return statistics.median(slopes) if slopes else 0.0


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so large a share of them does not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def middle_and_most(values: Sequence[float]) -> dict[str, float | None]:
    """What a sample keeps of times."""
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "most": max(values, default=None)}


def table(results: Sequence[Flatness]) -> str:
    """As Markdown, as the documents have it."""
    lines = [
        "| curve | first quarter | last quarter | may grow by | slope in an hour | flat |",
        "|---|---|---|---|---|---|",
    ]
    for each in results:
        unit = f" {each.curve.unit}" if each.curve.unit else ""
        lines.append(
            f"| {each.curve.name} | {each.first:.4g}{unit} | {each.last:.4g}{unit} | {each.allowed:.3g}{unit} "
            f"| {each.slope:+.3g}{unit} | {'yes' if each.flat else '**no**'} |"
        )
    return "\n".join(lines)
