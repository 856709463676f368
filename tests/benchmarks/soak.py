"""An hour under load with faults: `python -m tests.benchmarks.soak [--minutes 60] [--rate 20] [--out FOLDER]`.

Real processes (a poller, two workers, a page) on a real Redis, between pretend systems in a process of their own.
Reports come all the time and end a while later, each hundredth request fails in one of many ways, a worker is killed
and Redis is restarted now and then. At the end every report has exactly one ticket, all that ended are closed, and
memory, open files, Redis and times are as they were at the beginning; else it ends with 1. Writes `soak.json` and
`soak.svg`. Ctrl-C: no report comes any more, and what came is judged; again: ends at once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psutil
import redis

from tests.benchmarks.soak_report import Record
from tests.benchmarks.soak_site import KILLED, PROCESSES, Outside, Site
from tests.benchmarks.soak_systems import BUDGET
from tests.benchmarks.soak_verdict import middle_and_most

#: Seconds between samples, and between lines of progress.
EVERY, TOLD_EVERY = 10.0, 60.0
#: One request in so many fails.
FAULTS = 0.01
#: When, as shares of the time, a worker is killed and Redis restarted; of a short soak only the first of each.
KILLS, RESTARTS = (0.45, 0.15, 0.3, 0.6, 0.75, 0.9), (0.65, 0.35)
#: Minutes below which a soak is short.
SHORT = 20.0
#: Seconds that everything may take to be delivered and closed once no report comes any more. What met several faults
#: waits for up to five minutes before it is tried again.
PATIENCE = 900.0


class Soak:
    """One run."""

    def __init__(self, minutes: float, rate: float, site: Site, outside: Outside) -> None:
        self.length = minutes * 60
        self.site = site
        self.outside = outside
        self.record = Record(rate, [*PROCESSES], BUDGET, killed=KILLED)
        self.interrupted = threading.Event()
        self.began = time.monotonic()
        number = 1 if minutes < SHORT else None
        plan = [(share * self.length, "a worker killed", site.kill_worker) for share in KILLS[:number]]
        plan += [(share * self.length, "Redis restarted", site.restart_redis) for share in RESTARTS[:number]]
        self.plan: list[tuple[float, str, Callable[[], None]]] = sorted(plan, key=lambda each: each[0])

    def run(self) -> None:
        """Load, samples and faults, until the time is over or a person ends it; then all is worked off and judged."""
        record = self.record
        self.site.start()
        record.empty = self.site.look()["redis"]
        self.began = time.monotonic()
        self.outside.ask("begin", f"http://127.0.0.1:{self.site.port}/webhooks/huntress")
        while self.now() < self.length and not self.interrupted.is_set():
            self.interrupted.wait(self._until_next())
            self._sample()
            record.seconds = self.now()
            while self.plan and self.plan[0][0] <= self.now():
                _, name, do = self.plan.pop(0)
                record.events.append((round(self.now(), 1), name))
                do()
        self.outside.ask("calm")
        click.echo(f"{record.seconds / 60:5.1f} min: no report comes any more; what came is worked off", err=True)
        while not self._complete() and self.now() < record.seconds + PATIENCE:
            time.sleep(self._until_next())
            self._sample()
        record.verdict = self.outside.ask("verdict")
        record.kinds = self.site.kinds()

    def now(self) -> float:
        """Seconds since the first report could come."""
        return time.monotonic() - self.began

    def _until_next(self) -> float:
        return EVERY - self.now() % EVERY

    def _sample(self) -> None:
        self.site.supervise()
        world = self.outside.ask("sample")
        times = {name: middle_and_most(values) for name, values in world.pop("times").items()}
        sample: dict[str, Any] = {
            "at": round(self.now(), 1),
            "world": world,
            "times": times,
        }
        try:
            sample |= self.site.look()
        except (redis.RedisError, psutil.Error) as error:  # it was just killed or restarted
            sample["missed"] = str(error)
        self.record.samples.append(sample)
        if sample["at"] % TOLD_EVERY < EVERY:
            click.echo(_progress(sample), err=True)

    def _complete(self) -> bool:
        world, states = self.record.world, self.record.samples[-1].get("states", {}) if self.record.samples else {}
        there = world and world["open"] == 0 and min(world["tickets"], world["closed"]) >= world["made"]
        # A ticket may be closed, and the answer that says so lost: the bridge looks again, and then knows.
        return bool(there and states.get("closed", 0) >= world["made"])

    def finish(self) -> None:
        """Ends the bridge's processes in order and takes down what they said."""
        record = self.record
        record.problems += self.site.stop()
        record.problems += self.site.surprises
        for role in self.site.roles:
            record.logged[role.name], record.worst[role.name] = dict(role.levels), list(role.worst)


def _progress(sample: dict[str, Any]) -> str:
    world, shown, over = sample["world"], sample["times"]["shown"], sample["times"]["over"]
    parts = [
        f"{sample['at'] / 60:5.1f} min: {world['made']:,} reports, {world['tickets']:,} tickets, "
        f"{world['closed']:,} closed, {sum(world['faults'].values()):,} faults"
    ]
    if shown["p95"] is not None:
        parts.append(f"shown to ticket {shown['p50']:.2f} / {shown['p95']:.2f} s")
    if over["p95"] is not None:
        parts.append(f"over to closed {over['p50']:.0f} / {over['p95']:.0f} s")
    if "redis" in sample:
        parts.append(" ".join(f"{each['memory']:.0f}" for each in sample["processes"].values()) + " MB")
        parts.append(f"Redis {sample['redis']['memory']:.0f} MB, {sample['redis']['keys']:,} keys")
        parts.append(f"{sample['ready']} wait for a slot")
    return "; ".join(parts)


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long reports come.")
@click.option("--rate", default=20.0, show_default=True, help="Reports a second.")
@click.option("--out", default="soak-results", show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--seed", default=1, show_default=True, help="Of the faults and of how long reports are open.")
def main(minutes: float, rate: float, out: Path, seed: int) -> None:
    """Runs the soak, prints a table, writes soak.json and soak.svg."""
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))
        outside = Outside(folder, rate=rate, faults=FAULTS, seed=seed)
        stack.callback(outside.end)
        site = Site(folder, outside.tables)
        stack.callback(site.end)
        soak = Soak(minutes, rate, site, outside)
        record = soak.record

        def interrupt(*_: object) -> None:
            if soak.interrupted.is_set():
                raise KeyboardInterrupt
            soak.interrupted.set()
            click.echo("no report comes any more; once more to end at once", err=True)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        try:
            soak.run()
        except KeyboardInterrupt:
            click.echo("ended at once", err=True)
        except Exception as error:  # a summary of what was seen until then, whatever happened
            record.problems.append(f"the soak itself failed: {type(error).__name__}: {error}")
        soak.finish()
        flat = record.judge()
        click.echo(record.told(flat))
        (out / "soak.json").write_text(json.dumps(record.summary(flat), indent=1), "utf-8")
        (out / "soak.svg").write_text(record.picture(), "utf-8")
    sys.exit(1 if record.problems else 0)


if __name__ == "__main__":
    main()
