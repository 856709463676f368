"""How soon a job starts once it is due, and what waiting for it costs, beside the peers."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import redis
import structlog

from bridge.broker import broker_client, make_broker
from bridge.demo.run import free_port
from bridge.jobs import deliver_actor, enqueue
from tests.benchmarks import wake_peers
from tests.benchmarks.latency import percentile, ready, running
from tests.benchmarks.table import Row
from tests.bridge.stage import Stage, Systems
from tests.conftest import RedisServer

#: Seconds of idleness whose CPU time is taken of `run`, after so many to settle, and of the worker processes.
IDLE, SETTLE, WORKER_IDLE = 20.0, 6.0, 8.0
#: Jobs one by one, ours and each peer's. Each comes so many seconds after the one before: idle for long enough that who
#: polls has slowed down.
JOBS, PEERS_JOBS, REST = 25, 10, (0.5, 1.5)


def measure(runs: int) -> list[Row]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    idle = [_idle() for _ in range(runs)]
    starts = {kind: [_starts(kind) for _ in range(runs)] for kind in wake_peers.KINDS}
    ours = starts.pop("ours")
    peers = [(f"{kind} worker", values) for kind, values in starts.items()]
    return [
        Row("CPU of idle `run` and its Redis", "% of a core", idle, 0.5, note="page, poller, dispatcher, worker"),
        Row(
            "due to actor start, p50",
            "ms",
            [percentile(found, 50) for found, _ in ours],
            5,
            peers={name: [percentile(found, 50) for found, _ in values] for name, values in peers},
            note="ours: due in the store to actor start, dispatcher between; peers: sent to start",
        ),
        Row(
            f"due to actor start, max of {JOBS}",
            "ms",
            [max(found) for found, _ in ours],
            10,
            peers={name: [max(found) for found, _ in values] for name, values in peers},
            note=f"the peers' of {PEERS_JOBS}. Of a killed worker's job: Celery acknowledges before it runs "
            "(`acks_late` is off by default), so it is lost; RQ marks it failed, unless it was given retries; "
            "Dramatiq runs it again after minutes; ours is due again within seconds",
        ),
        Row(
            "CPU of an idle worker process",
            "% of a core",
            [cpu for _, cpu in ours],
            peers={name: [cpu for _, cpu in values] for name, values in peers},
        ),
    ]


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(processes: Sequence[psutil.Process], seconds: float) -> float:
    """Percent of one core that they take together over so many seconds."""

    def spent() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    before, began = spent(), time.monotonic()
    time.sleep(seconds)
    return 100 * (spent() - before) / (time.monotonic() - began)


def _idle() -> float:
    with running(poll={"interval": 15}) as (_, bridge, psa):
        process = bridge.start("run")
        ready(bridge, psa)
        time.sleep(SETTLE)
        redis_pid = int((bridge.data_dir / "redis.pid").read_text("ascii"))
        found = _cpu([*_family(psutil.Process(process.pid)), psutil.Process(redis_pid)], IDLE)
        bridge.stop(process)
        return found


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
        return late, _cpu(_family(psutil.Process(worker.pid)), WORKER_IDLE)


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
    return [float(late) * 1000 for late in _one_by_one(results, PEERS_JOBS, lambda _: send(time.time()))]


def _one_by_one(results: redis.Redis, jobs: int, send: Callable[[int], object]) -> list[str]:
    """Sends jobs, each after the one before has run and a random rest. What each noted; the first is not counted."""
    draw = random.Random(6)
    for count in range(jobs + 1):
        send(count + 1)
        deadline = time.monotonic() + 30
        while results.llen(wake_peers.LATE) <= count:
            if time.monotonic() > deadline:
                return []
            time.sleep(0.25)  # seldom: a server that is kept busy ends the waiting of others sooner
        time.sleep(draw.uniform(*REST))
    found = [str(each) for each in results.lrange(wake_peers.LATE, 1, -1)]
    if len(found) != jobs:
        raise SystemExit(f"{jobs} jobs were sent, {len(found)} ran")
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

    started = [noted.split() for noted in _one_by_one(results, JOBS, becomes_due)]
    return [(float(at) - moments[int(number)]) * 1000 for number, at in started]
