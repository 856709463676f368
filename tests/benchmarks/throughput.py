"""Tickets per second when many reports wait, beside bare Dramatiq, Celery and RQ making the same two calls.

Everybody drains the same server (`ticket_server`) on the same Redis with its append-only file on. All jobs are ready
and every worker holds its first one at the server's shut gate when the clock starts; it stops with the last create.
Ours is the installed command: a poller, which dispatches, and workers. Ends with an error where a ticket is missing or
there twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.benchmarks.table import Row
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until

#: Tickets of each drain, and the worker processes that share it.
TICKETS, WORKERS = 1500, 2
#: Requests that ours may have under way, and threads of each Dramatiq process.
CONCURRENCY, THREADS = 16, 8
#: The slow ticket system: seconds that each answer takes, requests at a time that the connector's limit rises by with
#: each worker (a worker never has fewer threads than the limit), tickets for each of those.
SLOW, SLOTS_EACH, PER_SLOT = 0.2, 4, 20
FOLDER = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent

Peer = Sequence[str | Path]
PEERS: Mapping[str, Sequence[Peer]] = {
    "Dramatiq": [[BIN / "dramatiq", "ticket_peers", "-p", str(WORKERS), "-t", str(THREADS)]],
    "Celery": [[BIN / "celery", "-A", "ticket_peers", "worker", "-c", str(WORKERS), "-P", "prefork", "-l", "ERROR"]],
    # One that forks for each job would connect anew for each.
    "RQ": [[BIN / "rq", "worker", "-q", "-w", "rq.worker.SimpleWorker", "-u"]] * WORKERS,
}
#: Jobs that each holds at the gate, at least.
HELD = {"Dramatiq": WORKERS * THREADS, "Celery": WORKERS, "RQ": WORKERS}
LESS = {
    "Dramatiq": "no look at what an earlier try made",
    "Celery": "acknowledges before it runs: a killed worker's job is lost",
    "RQ": "SimpleWorker: a killed worker's job fails, nobody does it again",
}


@dataclass(frozen=True, slots=True)
class Drain:
    """One measured drain; CPU in ms and the others by ticket."""

    rate: float
    cpu: float
    redis_cpu: float
    dispatcher_cpu: float
    requests: float
    round_trips: float
    connections: int


class TicketServer:
    """The server's process."""

    def __init__(self, folder: Path) -> None:
        file = folder / "port"
        self.process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.ticket_server", file])
        wait_until(file.exists, 10)
        self.url = f"http://127.0.0.1:{file.read_text('utf-8')}"
        self._session = requests.Session()

    def steer(self, **order: Any) -> dict[str, Any]:
        said: dict[str, Any] = self._session.post(f"{self.url}/steer", json=order, timeout=10).json()
        return said

    def drained(self, tickets: int, seconds: float = 120) -> dict[str, Any]:
        """Waits for so many tickets, and a moment for what must not follow. Raises when one is there twice."""
        deadline = time.monotonic() + seconds
        while (said := self.steer())["tickets"] < tickets:
            if time.monotonic() > deadline:
                raise SystemExit(f"{said['tickets']} of {tickets} tickets after {seconds} s")
            time.sleep(0.05)
        return said

    def close(self) -> None:
        self._session.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def ground() -> Iterator[tuple[Path, RedisServer, TicketServer]]:
    """A folder, Redis and the server, fresh."""
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "redis").mkdir()
        redis = RedisServer(folder / "redis", "--appendonly", "yes")
        redis.start()
        stack.callback(redis.kill)
        server = TicketServer(folder)
        stack.callback(server.close)
        yield folder, redis, server


def cpu(processes: Sequence[int]) -> float:
    """Seconds of processor time of these processes and their children so far."""
    total = 0.0
    for pid in processes:
        for process in (each := psutil.Process(pid), *each.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def timed(server: TicketServer, redis: RedisServer, tickets: int, workers: Sequence[int], dispatcher: int = 0) -> Drain:
    """Opens the gate and waits until all is made."""
    parts = [list(workers), [redis.pid], [dispatcher] if dispatcher else []]
    with redis.client() as client:
        asked, read = sum(server.steer()["asked"].values()), client.info("stats")["total_reads_processed"]
        before = [cpu(each) for each in parts]
        server.steer(gate=True)
        said = server.drained(tickets)
        after = [cpu(each) for each in parts]
        requests_made = sum(said["asked"].values()) - asked + said["held"]
        round_trips = client.info("stats")["total_reads_processed"] - read
    time.sleep(0.3)
    said = server.steer()
    if said["doubled"] or said["tickets"] != tickets:
        raise SystemExit(f"{said['tickets']} tickets of {tickets}, {said['doubled']} of them twice")
    spent = [(late - early) * 1000 / tickets for early, late in zip(before, after, strict=True)]
    return Drain(
        rate=tickets / said["seconds"],
        cpu=spent[0],
        redis_cpu=spent[1],
        dispatcher_cpu=spent[2],
        requests=requests_made / tickets,
        round_trips=round_trips / tickets,
        connections=said["connections"],
    )


@contextlib.contextmanager
def bridge_at_work(
    folder: Path, redis: RedisServer, server: TicketServer, workers: int, tickets: int, concurrency: int
) -> Iterator[tuple[list[int], int]]:
    """Ours with so many reports ready, as many at the shut gate as may be: the workers' ids and the poller's."""
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        table = {
            "type": "connectwise",
            "url": server.url,
            **dict.fromkeys(("company_id", "public_key", "private_key", "client_id"), "benchmark"),
            "board": "Security",
            "default_company": "Catchall",
            "concurrency": concurrency,
        }
        bridge = Bridge(
            folder,
            world,
            {"connectors": {"psa": table}, "redis": {"url": redis.url}},
        )
        stack.callback(bridge.end)
        world.report(1, agent_id=None)
        processes = [bridge.start("worker").pid for _ in range(workers)]
        poller = bridge.start("poller")
        server.drained(1, 30)  # it proves that what is made is found, and warms up whoever had it
        with redis.client() as client:
            wait_until(lambda: client.hget("bridge:proof:psa", "state") == "proven", 30)
            bridge.stop(poller)
            server.steer(gate=False, forget=True)
            world.reports(tickets, first=2, agent_id=None)
            poller = bridge.start("poller")
            wait_until(lambda: client.zcard("bridge:waiting:psa") == tickets, 60)
        wait_until(lambda: server.steer()["held"] >= concurrency, 30)
        yield processes, poller.pid


def ours(workers: int = WORKERS, tickets: int = TICKETS) -> Drain:
    with (
        ground() as (folder, redis, server),
        bridge_at_work(folder, redis, server, workers, tickets, CONCURRENCY) as (processes, poller),
    ):
        return timed(server, redis, tickets, processes, poller)


def slow(workers: int) -> float:
    """Tickets per second when the ticket system takes its time."""
    slots = SLOTS_EACH * workers
    with ground() as (folder, redis, server):
        server.steer(answer_after=SLOW)
        with bridge_at_work(folder, redis, server, workers, PER_SLOT * slots, slots) as (processes, poller):
            return timed(server, redis, PER_SLOT * slots, processes, poller).rate


def peer(name: str, tickets: int = TICKETS) -> Drain:
    """One of the peers, its jobs enqueued by its own client."""
    with ground() as (folder, redis, server), contextlib.ExitStack() as stack:
        url = f"redis+socket://{redis.socket}" if name == "Celery" else redis.url
        environment = {**os.environ, "PYTHONPATH": str(FOLDER), "TICKETS_URL": server.url, "PEER_REDIS": url}
        environment["PEER"] = name.lower()
        server.steer(gate=False)
        processes = []
        for command in PEERS[name]:
            arguments = [*command, url] if name == "RQ" else command
            process = subprocess.Popen(
                arguments,
                env=environment,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            processes.append(process)
            stack.callback(process.wait, 20)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
        enqueue = [sys.executable, "-m", "tests.benchmarks.ticket_enqueue", name.lower(), str(tickets)]
        subprocess.run(enqueue, env=environment, check=True, cwd=FOLDER.parent.parent)
        wait_until(lambda: server.steer()["held"] >= HELD[name], 30)
        return timed(server, redis, tickets, [each.pid for each in processes])


def measure(runs: int) -> list[Row]:
    """Drains in turn, so that whatever else the machine does meets all of them."""
    found: dict[str, list[Drain]] = {name: [] for name in ("ours", *PEERS)}
    for _ in range(runs):
        found["ours"].append(ours())
        for name in PEERS:
            found[name].append(peer(name))
    own = found["ours"]
    rates = {name: [each.rate for each in drains] for name, drains in found.items()}
    at = f"{WORKERS} worker processes, {TICKETS:,} reports waiting"
    rows = [
        Row(
            f"tickets per second, two requests each, {at}",
            "1/s",
            rates["ours"],
            peers={name: rates[name] for name in PEERS},
            note="; ".join(f"{name}: {text}" for name, text in LESS.items()),
        )
    ]
    for name, goal in (("Dramatiq", 0.8), ("Celery", 1.3), ("RQ", 2.0)):
        ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates[name], strict=True)]
        rows.append(Row(f"the same, as a multiple of {name}'s", "x", ratios, goal, more=True))

    def by_ticket(figure: str, unit: str, field: str, note: str = "") -> Row:
        values = {name: [getattr(each, field) for each in drains] for name, drains in found.items()}
        return Row(figure, unit, values.pop("ours"), peers=values, note=note)

    late = "and one more 90 s later, for the status that the system's own rules gave it"
    rows += [
        by_ticket("requests to the ticket system per ticket, while they are made", "", "requests", late),
        by_ticket("round trips to Redis per ticket", "", "round_trips"),
        by_ticket("processor time per ticket, workers", "ms", "cpu"),
        by_ticket("processor time per ticket, Redis", "ms", "redis_cpu"),
        Row("processor time per ticket, poller and dispatcher", "ms", [each.dispatcher_cpu for each in own]),
        Row(
            "connections to the ticket system", "", [each.connections for each in own], WORKERS * (CONCURRENCY + 1) + 1
        ),
    ]
    for workers in (1, 2, 4, 8):
        slots = SLOTS_EACH * workers
        ideal = slots / (2 * SLOW)
        figure = f"tickets per second, {workers} workers, concurrency {slots}, each answer takes {SLOW} s"
        note = f"{ideal:g} if nothing but the ticket system took time"
        rows.append(Row(figure, "1/s", [slow(workers) for _ in range(runs)], 0.9 * ideal, more=True, note=note))
    return rows


if __name__ == "__main__":
    print(json.dumps([str(each) for each in (ours(), *map(peer, PEERS))], indent=1))  # noqa: T201
