"""Workers are woken and do not poll: here the safety net comes so late that a test would fail before it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import dramatiq.worker
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from bridge import broker as subject
from bridge.broker import broker_client, make_broker
from bridge.wake import MOST_TOKENS, TOKENS_LAST, HintConsumer
from tests.bridge.test_broker import Jobs, MakeServer, wait_until
from tests.conftest import RedisServer

#: Milliseconds; a test gives up within 10 s.
NEVER = 60_000
TOKENS = "bridge:dramatiq:deliveries.tokens"

MakeJobs = Callable[..., Jobs]


@pytest.fixture
def make_jobs(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeJobs]:
    """Starts a worker that looks into the queue by itself every `look_every` ms."""
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.05)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.05)
    monkeypatch.setattr(subject, "ANSWER_TIMEOUT", 2 * NEVER / 1000)
    started = []

    def make(url: str = redis_url, *, threads: int = 3, look_every: int = NEVER) -> Jobs:
        jobs = Jobs(url, threads, look_every=look_every)
        started.append(jobs)
        before = waiting(jobs.client)
        jobs.worker.start()
        if look_every == NEVER:
            wait_until(lambda: waiting(jobs.client) > before, "it waits")
        return jobs

    yield make
    for jobs in started:
        jobs.close()


def waiting(client: redis.Redis) -> int:
    """Processes that wait for a token."""
    return int(client.info("clients")["blocked_clients"])


def called(client: redis.Redis, command: str) -> int:
    """How often the server was given `command`."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_job_wakes_an_idle_worker(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    for number in range(5):
        jobs.send(number)
        wait_until(lambda number=number: number in jobs.done, "the job ran")  # type: ignore[misc]
    wait_until(lambda: waiting(jobs.client) == 1, "it waits again")
    assert jobs.client.keys("*") == [b"bridge:dramatiq:__heartbeats__"]


@pytest.mark.parametrize("processes", [3, MOST_TOKENS + 2])
def test_every_idle_process_is_woken(make_jobs: MakeJobs, processes: int) -> None:
    every = [make_jobs(threads=1) for _ in range(processes)]
    for jobs in every:
        jobs.may_end.clear()
    every[0].broker.enqueue_all([every[0].actor.message(number) for number in range(processes)])
    wait_until(lambda: [len(jobs.done) for jobs in every] == [1] * processes, "each runs one")


def test_a_process_without_room_takes_no_token_and_asks_for_nothing(make_jobs: MakeJobs) -> None:
    busy = make_jobs(threads=1)
    busy.may_end.clear()
    busy.send(1)
    wait_until(lambda: busy.done == [1], "its thread is taken")
    waited = called(busy.client, "blpop")
    for number in (2, 3):
        busy.send(number)
    assert busy.client.llen(TOKENS) == 2
    idle = make_jobs(threads=3)
    wait_until(lambda: sorted(idle.done) == [2, 3], "the idle process takes what the busy one has no room for")
    # The idle one takes the two tokens that were left, and waits; the busy one has not asked once.
    assert called(busy.client, "blpop") <= waited + 3
    busy.may_end.set()
    busy.send(4)
    wait_until(lambda: 4 in busy.done + idle.done, "the next job runs in either")


def test_a_thread_that_gets_free_fetches_at_once(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(threads=1)
    for number in range(30):
        jobs.send(number)
    wait_until(lambda: len(jobs.done) == 30, "all ran, one after the other")


def test_a_worker_that_grows_fetches_at_once(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(threads=1)
    jobs.may_end.clear()
    for number in (1, 2, 3):
        jobs.send(number)
    wait_until(lambda: jobs.done == [1], "its thread is taken")
    jobs.worker.resize(3)
    wait_until(lambda: sorted(jobs.done) == [1, 2, 3], "the new threads take the others")


def test_tokens_are_few_and_do_not_last(redis_url: str) -> None:
    jobs = Jobs(redis_url)
    jobs.broker.enqueue_all([jobs.actor.message(number) for number in range(50)])
    jobs.send(50)
    assert jobs.client.llen(TOKENS) == MOST_TOKENS
    assert 0 < jobs.client.pttl(TOKENS) <= TOKENS_LAST
    assert jobs.client.llen("bridge:dramatiq:deliveries") == 51
    jobs.close()


def test_a_token_that_went_down_with_its_taker_costs_a_look_and_no_job(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(look_every=50)
    with jobs.client.pipeline() as at_once:
        for number in (1, 2):
            message = jobs.actor.message(number)
            at_once.evalsha(jobs.broker.scripts["dispatch"].sha, 1, "bridge:dramatiq", *jobs.broker._enqueuing(message))
        at_once.execute()
    wait_until(lambda: sorted(jobs.done) == [1, 2], "both were found without a token")


def test_processes_of_a_version_without_tokens_work_beside_this_one(make_jobs: MakeJobs, redis_url: str) -> None:
    jobs = make_jobs(look_every=50)
    with broker_client(redis_url, "")[0] as client:
        older = RedisBroker(client=client, namespace="bridge:dramatiq", middleware=[])  # type: ignore[no-untyped-call]
        older.enqueue(jobs.actor.message(1))
        wait_until(lambda: jobs.done == [1], "its job runs here")
        jobs.worker.stop(5)
        jobs.send(2)
        message = next(older.consume("deliveries", prefetch=1, timeout=10))
        assert message is not None
        assert message.args == (2,)


def test_many_are_enqueued_in_one_round_trip(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(redis_url)
    jobs.send(0)
    sent = []
    send: Callable[..., None] = redis.connection.AbstractConnection.send_packed_command

    def count(connection: redis.Connection, *arguments: object, **options: object) -> None:
        sent.append(connection)
        send(connection, *arguments, **options)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", count)
    jobs.broker.enqueue_all([jobs.actor.message(number) for number in range(1, 4)])
    assert len(sent) == 1
    monkeypatch.undo()
    consumer = jobs.broker.consume("deliveries", prefetch=10, timeout=10)
    found = [next(consumer) for _ in range(4)]
    assert [message.args for message in found if message is not None] == [(0,), (1,), (2,), (3,)]
    jobs.close()


def test_a_server_that_forgot_the_scripts_is_told_again(make_jobs: MakeJobs) -> None:
    jobs = make_jobs()
    jobs.client.script_flush()
    jobs.send(1)
    wait_until(lambda: jobs.done == [1], "the job ran")


def test_nothing_is_delayed(redis_url: str) -> None:
    jobs = Jobs(redis_url)
    with pytest.raises(ValueError, match="the store knows what is due later"):
        jobs.actor.send_with_options(args=(1,), delay=1000)
    jobs.close()


def test_a_primary_that_becomes_a_replica_while_it_is_waited_upon(
    make_redis_server: MakeServer, make_jobs: MakeJobs, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis_server()
    jobs = make_jobs(server.url)
    with server.client() as admin:
        admin.replicaof("127.0.0.1", 1)
        wait_until(lambda: "connection error" in caplog.text, "the worker notices")
        admin.replicaof("NO", "ONE")
    jobs.send(1)
    wait_until(lambda: jobs.done == [1], "the job ran")
    assert "unexpected error" not in caplog.text
    assert jobs.worker.alive()


def test_a_server_that_swallows_packets_is_left_and_waited_upon_again(
    make_redis_server: MakeServer,
    make_jobs: MakeJobs,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "ANSWER_TIMEOUT", 0.2)
    server: RedisServer = make_redis_server()
    jobs = make_jobs(server.url, look_every=50)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: "connection error" in caplog.text, "the worker notices")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    jobs.send(1)
    wait_until(lambda: jobs.done == [1], "the job ran")
    assert "unexpected error" not in caplog.text


def test_what_is_given_back_wakes_another_process(make_jobs: MakeJobs, redis_url: str) -> None:
    leaving = Jobs(redis_url)
    leaving.send(1)
    consumer = leaving.broker.consume("deliveries", prefetch=1, timeout=10)
    assert isinstance(consumer, HintConsumer)
    message = next(consumer)
    staying = make_jobs()
    consumer.requeue([message])
    wait_until(lambda: staying.done == [1], "it runs elsewhere")
    leaving.close()


def test_a_stopping_worker_fetches_nothing_more_and_leaves_the_tokens_to_others(make_jobs: MakeJobs) -> None:
    stopping = make_jobs(threads=2)
    stopping.may_end.clear()
    stopping.send(1)
    wait_until(lambda: stopping.done == [1], "one job hangs")
    stopping.broker.stop_waiting(["deliveries"])
    wait_until(lambda: waiting(stopping.client) == 0, "it waits no more")
    stopping.send(2)
    client, _ = broker_client(stopping.worker_url, "")
    with client:
        fetched = make_broker(client, "bridge", maintenance=False).consume("deliveries", prefetch=5, timeout=10)
        message = next(fetched)
    assert message is not None
    assert message.args == (2,)
    assert stopping.client.llen(TOKENS) == 1


@pytest.mark.parametrize("threads_taken", [0, 1])
def test_a_worker_that_waits_ends_when_told(make_jobs: MakeJobs, threads_taken: int) -> None:
    jobs = make_jobs(threads=1)
    jobs.may_end.clear()
    for number in range(threads_taken):
        jobs.send(number)
    wait_until(lambda: len(jobs.done) == threads_taken, "it waits for a token, or for room")
    jobs.may_end.set()
    jobs.worker.stop(5)
    assert not jobs.worker.alive()
