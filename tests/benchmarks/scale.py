"""What one Redis spends on a delivery, and how long it takes a standby poller to take over."""

from __future__ import annotations

import contextlib
import time

import redis

from tests.benchmarks.table import Row
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.ground import make_server
from tests.faults.judge import Judge
from tests.faults.site import wait_until_ready

#: Reports of one run, and the worker processes that share them.
REPORTS, WORKERS = 300, 2
#: Requests to the ticket system at a time.
CONCURRENCY = 10
#: Seconds of looking at Redis with nothing to do.
IDLE = 5.0
#: Kills of the leading poller in one run.
KILLS = 2
#: Seconds that anything may take.
PATIENCE = 120.0


class Spent:
    """What a Redis does from now on."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.before = self._read()

    def __call__(self) -> dict[str, float]:
        return {name: value - self.before[name] for name, value in self._read().items()}

    def _read(self) -> dict[str, float]:
        cpu, persistence, stats = (self.client.info(section) for section in ("cpu", "persistence", "stats"))
        commands = self.client.info("commandstats")
        return {
            "seconds": time.monotonic(),
            "cpu": float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]),
            "scripts": sum(one["usec"] for name, one in commands.items() if name.startswith("cmdstat_evalsha")) / 1e6,
            "round trips": float(stats["total_reads_processed"]),
            "bytes": float(persistence["aof_current_size"]),
        }


class Site:
    """Processes of the bridge on one Redis, with one ticket system that answers at once."""

    def __init__(self, stack: contextlib.ExitStack, *roles: str) -> None:
        self.world = World().start(stack)
        server = make_server(stack)
        self.store = stack.enter_context(server.client())
        connector = self.world.connectors("psa")["psa"] | {"concurrency": CONCURRENCY}
        tables = {"redis": {"url": server.url}, "connectors": {"psa": connector}}
        self.bridge = Bridge.in_folder(stack, self.world, tables)
        self.judge = Judge(self.world, "psa")
        self.processes = [self.bridge.start(role) for role in roles]
        for number, process in enumerate(self.processes):
            wait_until_ready(self.bridge, process, number)

    def deliver(self, count: int) -> None:
        """So many new reports, until the last one's ticket is made. Ends if one is missing or double."""
        first = max(self.judge.numbers(), default=0) + 1
        self.world.reports(count, first=first)
        self.judge.wait_until_complete(PATIENCE, range(first, first + count))
        if wrong := self.judge.missing() or self.judge.doubled():
            raise SystemExit(f"missing or double: {wrong}")

    def polls(self) -> int:
        with self.world.huntress.lock:
            return sum(each.path.endswith("/incident_reports") for each in self.world.huntress.received)

    def leads(self, role: str) -> int:
        """The process id of who leads as `role`."""
        return int(str(self.store.get(f"bridge:leader:{role}")).split(":")[1])

    def take_over(self) -> float:
        """Kills the leading poller. Seconds until the other polls and dispatches; a new one stands by from then on."""
        pid = self.leads("poller")
        [victim] = [process for process in self.processes if process.pid == pid]
        self.bridge.kill(victim)
        polls, killed_at = self.polls(), time.monotonic()
        wait_until(lambda: self.polls() > polls, PATIENCE, "the other one polls")
        wait_until(lambda: self.leads("dispatcher") != pid, PATIENCE, "the other one dispatches")
        took = time.monotonic() - killed_at
        self.processes.remove(victim)
        self.processes.append(self.bridge.start("poller"))
        wait_until_ready(self.bridge, self.processes[-1])
        return took


def spent_on_deliveries() -> tuple[dict[str, float], float]:
    """What Redis spends on one delivery while workers do as many as they can; and the share of a core while idle."""
    with contextlib.ExitStack() as stack:
        site = Site(stack, "poller", *["worker"] * WORKERS)
        site.deliver(2)
        idle = Spent(site.store)
        time.sleep(IDLE)
        share = idle()["cpu"] / IDLE
        spent = Spent(site.store)
        site.deliver(REPORTS)
        return {name: value / REPORTS for name, value in spent().items()}, share


def measure(runs: int) -> list[Row]:
    spent, idle = zip(*(spent_on_deliveries() for _ in range(runs)), strict=True)
    with contextlib.ExitStack() as stack:
        site = Site(stack, "poller", "poller", "worker")
        took = [max(site.take_over() for _ in range(KILLS)) for _ in range(runs)]
        site.deliver(2)

    def of(name: str, factor: float) -> list[float]:
        return [each[name] * factor for each in spent]

    return [
        Row(
            "Redis: processor time per delivery", "ms", of("cpu", 1000), note="INFO cpu; poller and dispatcher included"
        ),
        Row("Redis: time in scripts per delivery", "ms", of("scripts", 1000), note="INFO commandstats"),
        Row("Redis: round trips per delivery", "", of("round trips", 1)),
        Row("Redis: append-only file per delivery", "kB", of("bytes", 1 / 1000)),
        Row("Redis: deliveries a core of it could carry", "1/s", [1 / each["cpu"] for each in spent], more=True),
        Row("Redis: a core while nothing happens", "%", [each * 100 for each in idle], note=f"{WORKERS} workers"),
        Row(
            "a standby poller polls and dispatches after SIGKILL of the leader",
            "s",
            took,
            note=f"worst of {KILLS} a run",
        ),
    ]
