"""Workers that say how late a job started, ours and its peers: `python -m tests.benchmarks.wake_peers KIND`.

`BENCHMARK_REDIS` is the server. A job is given when it was sent, in seconds since the epoch, and adds the seconds until
its start to the list `LATE`; ours, which the store makes due, adds the report's number and the time instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from bridge.broker import WorkerThreads, broker_client, make_broker
from bridge.jobs import deliver_actor
from bridge.models import ReportKey

#: The list of what was measured, in a database of its own.
LATE = "late"
#: Threads or processes that each worker has.
THREADS = 2


def server() -> str:
    return os.environ["BENCHMARK_REDIS"]


def results() -> redis.Redis:
    return redis.Redis.from_url(f"{server()}/9", decode_responses=True)


def note(sent: float) -> None:
    """The job."""
    late = time.time() - sent
    with results() as client:
        client.rpush(LATE, late)


def bare_dramatiq() -> tuple[RedisBroker, Callable[[float], object]]:
    """The broker, and what sends a job."""
    broker = RedisBroker(url=f"{server()}/2")  # type: ignore[no-untyped-call]
    return broker, dramatiq.Actor(note, broker=broker, actor_name="note", queue_name="q", priority=0, options={}).send


def celery() -> Any:
    from celery import Celery

    app = Celery("peer", broker=f"{server()}/3")
    app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
    app.task(note, name="note", ignore_result=True)
    return app


def rq_queue() -> Any:
    import rq

    return rq.Queue("q", connection=redis.Redis.from_url(f"{server()}/4"))


def run_ours() -> None:
    client, _ = broker_client(f"{server()}/0", "")
    broker = make_broker(client, "bridge", maintenance=True)
    found = results()

    def deliver(report: ReportKey, connector: str) -> None:
        found.rpush(LATE, f"{report} {time.time()}")

    deliver_actor(broker, deliver)
    worker = WorkerThreads(broker, THREADS)
    worker.start()
    _until_told()
    worker.stop(5)


def run_dramatiq(timeout: int) -> None:
    worker = dramatiq.Worker(bare_dramatiq()[0], worker_threads=THREADS, worker_timeout=timeout)
    worker.start()
    _until_told()
    worker.stop(5000)


def run_celery() -> None:
    quiet = ["--without-gossip", "--without-mingle", "--loglevel=ERROR"]
    celery().worker_main(["worker", f"--concurrency={THREADS}", *quiet])


def run_rq() -> None:
    import rq

    queue = rq_queue()
    rq.Worker([queue], connection=queue.connection).work(logging_level="ERROR")


def _until_told() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    told.wait()


KINDS: dict[str, Callable[[], None]] = {
    "ours": run_ours,
    "dramatiq": lambda: run_dramatiq(1000),
    "dramatiq 10 ms": lambda: run_dramatiq(10),
    "celery": run_celery,
    "rq": run_rq,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
