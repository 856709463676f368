"""How soon work starts, and what waiting for it costs.

Pretend systems, Redis, workers and this process share the machine. Each report's ticket is counted: one, and only one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis

from bridge.broker import broker_client, make_broker
from bridge.demo.run import free_port
from bridge.demo.webhook_sender import SECRET, WebhookSender
from bridge.jobs import deliver_actor, enqueue
from bridge.web.webhooks import PATH
from tests.benchmarks import wake_peers
from tests.benchmarks.table import Row
from tests.bridge.stage import Stage, Systems
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_webhooks import polled, raw
from tests.psa import Psa

#: Reports listed one by one, and seconds between two polls meanwhile.
LISTED, POLL_EVERY = 200, 0.3
#: Seconds of idleness whose CPU time is taken, after as many to settle.
IDLE, SETTLE = 20.0, 6.0
#: Jobs one by one, each so many seconds after the one before: idle for long enough that a poller has slowed down.
JOBS, REST = 40, (0.5, 1.5)
#: Reports at random moments within three polls of 15 s, and within as many seconds with webhooks.
POLLED, HOOKED, HOOKED_WITHIN = 90, 90, 15.0


def measure(runs: int) -> list[Row]:
    listed = [_listed() for _ in range(runs)]
    idle = [_idle() for _ in range(runs)]
    starts = {kind: [_starts(kind) for _ in range(runs)] for kind in wake_peers.KINDS}
    sent = [_sent() for _ in range(runs)]
    ours = starts.pop("ours")
    about = (
        "ours: due in the store to actor start, dispatcher between; peers: sent to start. Celery and RQ acknowledge "
        "before they run: a killed worker's job is lost (RQ's is marked failed)"
    )
    peers = [(f"{kind} worker", values) for kind, values in starts.items()]
    return [
        Row("listed to ticket request, idle system, p50", "ms", [_p(found, 50) for found in listed], 15),
        Row("listed to ticket request, idle system, p99", "ms", [_p(found, 99) for found in listed], 60),
        Row("CPU of idle `run` and its Redis", "% of a core", idle, 0.5),
        Row(
            "due to actor start, p50",
            "ms",
            [_p(found, 50) for found, _ in ours],
            5,
            peers={name: [_p(found, 50) for found, _ in values] for name, values in peers},
            note=about,
        ),
        Row(
            "due to actor start, max",
            "ms",
            [max(found) for found, _ in ours],
            10,
            peers={name: [max(found) for found, _ in values] for name, values in peers},
        ),
        Row(
            "CPU of an idle worker process",
            "% of a core",
            [cpu for _, cpu in ours],
            peers={name: [cpu for _, cpu in values] for name, values in peers},
        ),
        Row("sent_at to ticket, polled every 15 s, p50", "s", [_p(by_poll, 50) for by_poll, _ in sent], 8),
        Row("sent_at to ticket, polled every 15 s, p95", "s", [_p(by_poll, 95) for by_poll, _ in sent], 16),
        Row("sent_at to ticket, with webhook, p50", "s", [_p(by_hook, 50) for _, by_hook in sent], 1),
        Row("sent_at to ticket, with webhook, p95", "s", [_p(by_hook, 95) for _, by_hook in sent], 2),
    ]


def _p(found: Sequence[float], percent: int) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[percent - 1]


# -- the whole `run` ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running(**tables: Any) -> Iterator[tuple[World, Bridge, Psa]]:
    """The pretend systems, and a configuration with one PSA; nothing runs yet."""
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        world.report(1)
        bridge = Bridge.in_folder(stack, world, {"connectors": world.connectors("psa"), **tables})
        yield world, bridge, Psa("psa", world.connectwise)


def _ready(bridge: Bridge, psa: Psa) -> None:
    wait_until(lambda: polled(bridge) and psa.ids(1))
    wait_until(lambda: not bridge.unfinished(), 90, "the first ticket is found by its reference")


def _check(psa: Psa, numbers: Sequence[int]) -> dict[int, float]:
    """When the request for each one's ticket came, by the monotonic clock. Fails unless there was exactly one."""
    wait_until(lambda: all(psa.ids(number) for number in numbers), 120, "every report has its ticket")
    time.sleep(1.0)  # for a second one
    creates = {number: psa.creates(number) for number in numbers}
    if wrong := [number for number, found in creates.items() if len(found) != 1]:
        raise SystemExit(f"reports without exactly one ticket: {wrong}")
    return {number: found[0].at for number, found in creates.items()}


def _listed() -> list[float]:
    """Milliseconds from the request whose answer lists a report to the one that creates its ticket."""
    huntress = {"requests_per_minute": 100_000}
    with _running(poll={"interval": 1}) as (world, bridge, psa):
        bridge.write(huntress=world.huntress.settings() | huntress)
        command = [sys.executable, "-m", "tests.benchmarks.wake_run", str(bridge.config), str(POLL_EVERY)]
        with (bridge.folder / "run.log").open("w") as log:
            process = subprocess.Popen(command, env=bridge.environment(), stdout=log, stderr=log)
        bridge.processes.append(process)  # type: ignore[arg-type]
        try:
            _ready(bridge, psa)
            published: dict[int, float] = {}
            draw = random.Random(6)
            for number in range(2, 2 + LISTED):
                world.report(number)
                published[number] = time.monotonic()
                wait_until(lambda number=number: psa.ids(number), 30)  # type: ignore[misc]
                time.sleep(draw.uniform(0, POLL_EVERY))
            created = _check(psa, list(published))
        finally:
            bridge.stop(process)  # type: ignore[arg-type]
        lists = [
            each.at
            for each in world.huntress.requests_to("/incident_reports$", "GET")
            if each.query.get("status") == "sent"
        ]
        return [
            (created[number] - next(at for at in lists if at >= since)) * 1000 for number, since in published.items()
        ]


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Percent of one core that they take together over `IDLE` seconds."""

    def spent() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    before, began = spent(), time.monotonic()
    time.sleep(IDLE)
    return 100 * (spent() - before) / (time.monotonic() - began)


def _idle() -> float:
    with _running(poll={"interval": 15}) as (_, bridge, psa):
        process = bridge.start("run")
        _ready(bridge, psa)
        time.sleep(SETTLE)
        redis_pid = int((bridge.data_dir / "redis.pid").read_text("ascii"))
        found = _cpu([*_family(psutil.Process(process.pid)), psutil.Process(redis_pid)])
        bridge.stop(process)
        return found


def _sent() -> tuple[list[float], list[float]]:
    """Seconds from a report's `sent_at` to the request for its ticket: by polls, then by webhooks."""
    draw = random.Random(6)
    tables = {"poll": {"interval": 15}, "webhooks": {"secret": SECRET}}
    with _running(**tables) as (world, bridge, psa):
        process = bridge.start("run")
        _ready(bridge, psa)
        sender = WebhookSender(f"http://127.0.0.1:{bridge.port}{PATH}")

        def hook(number: int) -> None:
            world.report(number)
            status = sender.send("incident_report.created", raw(world, number))
            if status != 204:
                raise SystemExit(f"event {number} was answered {status}")

        found = []
        for first, count, within, publish in (
            (2, POLLED, 45.0, world.report),
            (2 + POLLED, HOOKED, HOOKED_WITHIN, hook),
        ):
            published = _at_random_moments(range(first, first + count), within, publish, draw)
            created = _check(psa, list(published))
            found.append([created[number] - at for number, at in published.items()])
        bridge.stop(process)
        return found[0], found[1]


def _at_random_moments(
    numbers: Sequence[int], within: float, publish: Callable[[int], None], draw: random.Random
) -> dict[int, float]:
    began, published = time.monotonic(), {}
    for number, at in zip(numbers, sorted(draw.uniform(0, within) for _ in numbers), strict=True):
        time.sleep(max(0.0, began + at - time.monotonic()))
        published[number] = time.monotonic()
        publish(number)
    return published


# -- ours and its peers ------------------------------------------------------------------------------------------------


def _starts(kind: str) -> tuple[list[float], float]:
    """Milliseconds until each job started, and percent of a core that the worker took while idle."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp")))
        port = free_port(0)
        server = RedisServer(folder, "--port", str(port), "--bind", "127.0.0.1")
        server.start()
        stack.callback(server.stop)
        os.environ["BENCHMARK_REDIS"] = f"redis://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.benchmarks.wake_peers", kind]
        with (folder / "worker.log").open("w") as log:
            worker = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        stack.callback(_end, worker)
        results = stack.enter_context(wake_peers.results())
        late = _ours(stack, results, folder) if kind == "ours" else _peers(kind, results)
        if not late:
            raise SystemExit(f"the worker of {kind} did not run its jobs:\n{(folder / 'worker.log').read_text()}")
        return late, _cpu(_family(psutil.Process(worker.pid)))


def _end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)


def _peers(kind: str, results: redis.Redis) -> list[float]:
    send: Callable[[float], object]
    if kind == "celery":
        app = wake_peers.celery()
        send = lambda sent: app.send_task("note", args=[sent])  # noqa: E731
    elif kind == "rq":
        queue = wake_peers.rq_queue()
        send = lambda sent: queue.enqueue(wake_peers.note, sent)  # noqa: E731
    else:
        send = wake_peers.bare_dramatiq()[1]
    return [float(late) * 1000 for late in _one_by_one(results, lambda _: send(time.time()))]


def _one_by_one(results: redis.Redis, send: Callable[[int], object]) -> list[str]:
    """Sends jobs, each after the one before has run and a random rest. What each noted; the first is not counted."""
    draw = random.Random(6)
    for count in range(JOBS + 1):
        send(count + 1)
        deadline = time.monotonic() + 30
        while results.llen(wake_peers.LATE) <= count:
            if time.monotonic() > deadline:
                return []
            time.sleep(0.25)  # seldom: a server that is kept busy ends the waiting of others sooner
        time.sleep(draw.uniform(*REST))
    found = [str(each) for each in results.lrange(wake_peers.LATE, 1, -1)]
    if len(found) != JOBS:
        raise SystemExit(f"{JOBS} jobs were sent, {len(found)} ran")
    return found


def _ours(stack: contextlib.ExitStack, results: redis.Redis, folder: Path) -> list[float]:
    """As `run` does it: the store makes a delivery due at a random moment, the dispatcher enqueues it."""
    systems = stack.enter_context(Systems().running())
    url = wake_peers.server() + "/0"
    stage = stack.enter_context(Stage(url, folder, systems, {"psa": systems.table("psa", concurrency=5)}))
    client, _ = broker_client(url, "")
    stack.callback(client.close)
    broker = make_broker(client, "bridge", maintenance=False)
    actor = deliver_actor(broker, lambda report, connector: None)
    store = stage.store
    store.prove("psa")
    stage.report(*range(1, JOBS + 2))
    due, ready, slots = (store.key(f"{name}:psa") for name in ("due", "ready", "slots"))
    store.client.delete(ready, due, store.key("wake"))
    stage.dispatcher.enqueue = lambda jobs: enqueue(broker, actor, jobs)
    stage.leadership.start()
    stopping = threading.Event()
    dispatching = threading.Thread(target=stage.dispatcher.run, args=(stopping,))
    dispatching.start()

    def end() -> None:
        stopping.set()
        dispatching.join(10)

    stack.callback(end)
    moments: dict[int, float] = {}
    draw = random.Random(7)

    def becomes_due(number: int) -> None:
        store.client.delete(due, slots)  # what ran before is done with
        moments[number] = round(store.now() + draw.uniform(0.05, 0.3), 3)
        store.client.zadd(due, {str(number): round(moments[number] * 1000)})
        store.wake()

    started = [noted.split() for noted in _one_by_one(results, becomes_due)]
    return [(float(at) - moments[int(number)]) * 1000 for number, at in started]
