"""What a soak says when it is over: a summary for people, one for programs, and the picture. Pure."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.curves import Line, Panel, picture
from tests.benchmarks.soak_verdict import Flatness, Sample, at, curves, judged, per_delivery, settled, table

#: Most of the machine that all of it may need, for the figures to be the bridge's own.
MOST_OF_MACHINE = 0.6


@dataclass
class Record:
    """What was seen in one soak. `problems`: what was not as promised."""

    rate: float
    processes: Sequence[str]
    #: Requests a minute to the source.
    budget: int
    #: The process that was killed now and then, and is not judged by its growth; empty: none.
    killed: str = ""
    samples: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: Seconds since the start, and what was done to the bridge then.
    events: list[tuple[float, str]] = field(default_factory=list)
    #: Keys of Redis by kind, at the end.
    kinds: dict[str, Any] = field(default_factory=dict)
    #: As `World.verdict`; empty: it was never asked.
    verdict: dict[str, Any] = field(default_factory=dict)
    #: Lines of each process' log by level (`traceback`: any with one), and the last ones of the worst.
    logged: dict[str, dict[str, int]] = field(default_factory=dict)
    worst: dict[str, list[str]] = field(default_factory=dict)
    #: Figures of Redis before the first report.
    empty: Mapping[str, float] = field(default_factory=lambda: {"keys": 0, "memory": 0})
    #: Seconds for which reports came.
    seconds: float = 0.0

    @property
    def world(self) -> dict[str, Any]:
        """As the pretend systems stood at the last sample."""
        found: dict[str, Any] = self.samples[-1]["world"] if self.samples else {}
        return found

    def judge(self) -> list[Flatness]:
        """Adds what is wrong to `problems`; returns how flat everything was."""
        for name, found in self.verdict.items():
            if found["count"]:
                self.problems.append(f"{name}: {found['count']}, such as {found['first']}")
        if not self.verdict:
            self.problems.append("it was ended before everything could be judged")
        else:
            states = self.samples[-1].get("states", {}) if self.samples else {}
            strange = {state: count for state, count in states.items() if count and state != "closed"}
            if strange:
                self.problems.append(f"the store has deliveries that are not closed: {strange}")
        for name, levels in self.logged.items():
            if levels.get("traceback"):
                self.problems.append(f"{name} logged a traceback: {self.worst.get(name)}")
        asked = self.world.get("most_source_requests_a_minute", 0)
        if asked > self.budget:
            self.problems.append(f"{asked} requests to the source in a minute, of {self.budget}")
        kept = settled(self.samples, self.seconds)
        times = [sample["at"] for sample in kept]
        lasting = [name for name in self.processes if name != self.killed]
        results = [judged(curve, times) for curve in curves(kept, lasting, self.empty)]
        flat = [result for result in results if result is not None]
        self.problems += [f"not flat: {result.curve.name}" for result in flat if not result.flat]
        if not flat:
            self.problems.append("too short to say whether anything is flat")
        return flat

    def load(self) -> dict[str, float]:
        """Share of the machine that each part took while reports came."""
        seen = [sample for sample in self.samples if "processes" in sample and 0 < sample["at"] <= self.seconds]
        if not seen:
            return {}
        total = seen[-1]["at"] * (os.cpu_count() or 1)
        shares = {name: seen[-1]["processes"][name]["cpu"] / total for name in self.processes}
        shares["Redis"] = _rising(seen, "redis", "cpu") / total
        return shares | {"pretend systems": seen[-1]["world"]["cpu"] / total}

    def summary(self, flat: Sequence[Flatness]) -> dict[str, Any]:
        """For programs."""
        return {
            "machine": f"CPython {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}",
            "seconds": round(self.seconds, 1),
            "rate": self.rate,
            "world": self.world,
            "events": self.events,
            "verdict": self.verdict,
            "problems": self.problems,
            "load": {name: round(share, 4) for name, share in self.load().items()},
            "logged": self.logged,
            "worst lines": self.worst,
            "keys": self.kinds,
            "flat": [
                {"curve": e.curve.name, "first": e.first, "last": e.last, "slope": e.slope, "flat": e.flat}
                for e in flat
            ],
            "samples": self.samples,
        }

    def told(self, flat: Sequence[Flatness]) -> str:
        """For people, as Markdown."""
        world, load = self.world, self.load()
        happened = [*world.get("faults", {}).items(), *Counter(name for _, name in self.events).items()]
        lines = [
            f"- {self.seconds / 60:.0f} minutes at {self.rate:g} reports a second, {world.get('psa_requests', 0):,} "
            "requests to the PSA",
            f"- faults: {', '.join(f'{name} {count}' for name, count in happened)}, of the source "
            f"{world.get('source_faults', 0)}; webhooks by answer: {world.get('webhooks')}",
            f"- {world.get('made', 0):,} reports, {world.get('tickets', 0):,} tickets, of which "
            f"{world.get('closed', 0):,} closed; "
            + ", ".join(f"{name} {found['count']}" for name, found in self.verdict.items()),
            f"- most requests to the source in a minute: {world.get('most_source_requests_a_minute')} of {self.budget}",
            "- share of the machine: "
            + ", ".join(f"{name} {share:.1%}" for name, share in load.items())
            + f"; together {sum(load.values()):.1%} (above {MOST_OF_MACHINE:.0%} the figures are not the bridge's own)",
            "",
            table(flat),
            "",
            *(f"NOT AS PROMISED: {problem}" for problem in self.problems),
        ]
        return "\n".join([*lines, *([] if self.problems else ["All as promised."])])

    def picture(self) -> str:
        """The SVG, of the time in which reports came."""
        samples = [sample for sample in self.samples if sample["at"] <= self.seconds]

        def line(name: str, *path: str) -> Line:
            return Line(name, [at(sample, *path) for sample in samples])

        begun = [sample for sample in samples if sample["at"] >= 30]  # before, there is little to divide by
        late = per_delivery(begun, "memory", 1e3, self.empty["memory"])
        each = [*[None] * (len(samples) - len(begun)), *late]
        panels = [
            Panel("memory of each process (MB)", [line(n, "processes", n, "memory") for n in self.processes]),
            Panel("open files of each process", [line(n, "processes", n, "files") for n in self.processes]),
            Panel(
                "shown to ticket (s)", [line("middle", "times", "shown", "p50"), line("95 %", "times", "shown", "p95")]
            ),
            Panel("Redis for each stored delivery (kB)", [Line("memory", each)]),
        ]
        return picture("the soak from beginning to end", [sample["at"] for sample in samples], panels)


def _rising(samples: Sequence[Sample], *path: str) -> float:
    """The sum of a figure that starts at 0 again when its process does."""
    total, before = 0.0, 0.0
    for sample in samples:
        now = at(sample, *path) or 0.0
        total += now - before if now >= before else now
        before = now
    return total
