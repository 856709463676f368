"""What the benchmarks measure, as rows of one table: each figure beside its goal and its peers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Ours and each peer's were measured in the same run on the same machine, one value for each time."""

    #: What is measured, in the table's words; unique among all rows.
    figure: str
    unit: str
    #: One value per run.
    ours: Sequence[float]
    #: None: shown, and held against nothing.
    goal: float | None = None
    #: Is more better?
    more: bool = False
    #: By name, one value per run.
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: What a reader needs to know to believe the figure.
    note: str = ""

    def met(self) -> bool:
        """Is the median as good as the goal, or better?"""
        if self.goal is None:
            return True
        median = statistics.median(self.ours)
        return median >= self.goal if self.more else median <= self.goal


def spread(values: Sequence[float]) -> str:
    """Min, median and max with three significant digits; one figure where there is one."""
    if len(values) == 1:
        return _figure(values[0])
    return " – ".join(_figure(value) for value in (min(values), statistics.median(values), max(values)))


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown, as the README has them."""
    lines = ["| figure | unit | huntress-bridge | goal | met | beside it |", "|---|---|---|---|---|---|"]
    for row in rows:
        goal = "" if row.goal is None else f"{'≥' if row.more else '≤'} {_figure(row.goal)}"
        met = "" if row.goal is None else "yes" if row.met() else "**no**"
        beside = "; ".join(f"{name} {spread(values)}" for name, values in row.peers.items())
        beside = "; ".join(text for text in (beside, row.note) if text)
        lines.append(f"| {row.figure} | {row.unit} | {spread(row.ours)} | {goal} | {met} | {beside} |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
