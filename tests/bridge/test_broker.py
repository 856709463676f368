from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
import redis

from bridge import broker as subject
from bridge.broker import (
    RedisURLError,
    ServerRefused,
    WorkerThreads,
    broker_client,
    check_server,
    make_broker,
    redact_url,
    store_client,
)
from bridge.demo.run import free_port
from tests.conftest import RedisServer
from tests.sentinel import sentinel_url, sentinels

MakeServer = Callable[..., RedisServer]


def wait_until(condition: Callable[[], Any], what: str, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"within {within} s: {what}"
        time.sleep(0.01)


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@cache.example.com:6379/0", "redis://***@cache.example.com:6379/0"),
        ("rediss://bridge:hunter2@[::1]:6379/3", "rediss://***@[::1]:6379/3"),
        ("redis://:hunter2@hunter2@host/0", "redis://***@host/0"),
        ("redis://:hunter2/hunter2@host/0", "redis://***@host/0"),
        ("redis://:hunter2#hunter2@host/0", "redis://***@host/0"),
        ("redis://:hunter2?hunter2@host/0", "***"),
        ("redis://host/0?password=hunter2", "redis://host/0?***"),
        ("redis://host/0?password=x@hunter2", "redis://host/0?***"),
        ("redis://:hunter2", "***"),
        ("redis://host:hunter2", "***"),
        ("hunter2", "***"),
        (":hunter2@host", "***"),
        ("unix:///data/redis.sock?db=1", "unix:///data/redis.sock?***"),
        ("unix://hunter2@/data/redis.sock", "unix://***@/data/redis.sock"),
        ("redis+sentinel://:hunter2@one:26379,two:26379/main/0", "redis+sentinel://***@one:26379,two:26379/main/0"),
        ("redis+sentinel://one,two/main?sentinel_password=hunter2", "redis+sentinel://one,two/main?***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "hunter2" not in redact_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@host",
        "redis://host:hunter2",
        "redis://:hunter2@host:99999999/0",
        "redis://host/0?hunter2=hunter2",
        "redis://host/0?socket_timeout=hunter2",
        "redis://[hunter2",
        "redis+sentinel://:hunter2@host:1",
        "redis+sentinel://:hunter2@host:port/main",
        "redis+sentinel://:hunter2@one:1,,two:2/main",
        "redis+sentinel://:hunter2@host/main/first",
        "redis+sentinel://host/main?hunter2=hunter2",
    ],
)
def test_a_url_that_cannot_be_understood_is_a_sentence_without_its_secret(url: str) -> None:
    with pytest.raises(RedisURLError, match="is not a Redis URL") as caught:
        store_client(url)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "hunter2" not in str(chain)
        chain = None if chain.__suppress_context__ else chain.__context__


def test_a_sentinel_url_names_hosts_service_database_and_both_passwords() -> None:
    url = "redis+sentinel://bridge:p%40ss@one:26380,[::1],two/main%20one/3?sentinel_password=other"
    pool = store_client(url).connection_pool
    assert isinstance(pool, redis.sentinel.SentinelConnectionPool)
    sentinels = [node.connection_pool.connection_kwargs for node in pool.sentinel_manager.sentinels]
    assert [(node["host"], node["port"]) for node in sentinels] == [("one", 26380), ("::1", 26379), ("two", 26379)]
    assert {node["password"] for node in sentinels} == {"other"}
    assert pool.service_name == "main one"
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("bridge", "p@ss")
    assert pool.connection_kwargs["db"] == 3


# -- clients -----------------------------------------------------------------------------------------------------------


def test_the_store_client_names_itself_and_decodes_only_where_asked(redis_url: str) -> None:
    with store_client(redis_url) as text, store_client(redis_url, decode=False) as raw:
        text.set("report", "ünïcode")
        assert text.get("report") == "ünïcode"
        assert raw.get("report") == "ünïcode".encode()
        assert "huntress-bridge" in {connection["name"] for connection in text.client_list()}


def test_a_hung_server_is_given_up_in_time_and_used_again_when_it_goes_on(
    make_redis_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "ANSWER_TIMEOUT", 0.1)
    server = make_redis_server()
    with store_client(server.url) as store, broker_client(server.url, "")[0] as jobs:
        store.ping()
        os.kill(server.pid, signal.SIGSTOP)
        begin = time.monotonic()
        try:
            with pytest.raises(redis.TimeoutError):
                store.ping()
            with pytest.raises(redis.ConnectionError):
                jobs.ping()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert time.monotonic() - begin < 5
        assert store.ping()
        assert jobs.ping()


def test_connecting_for_one_command_is_tried_no_more_often_than_the_command(
    make_redis_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def swallow(connection: redis.Connection) -> None:
        attempts.append(connection.port)
        raise TimeoutError

    monkeypatch.setattr(subject, "ANSWER_TIMEOUT", 0.1)
    port = free_port(0)
    server = make_redis_server("--port", str(port))
    with store_client(f"redis://127.0.0.1:{port}") as store:
        store.ping()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr(redis.Connection, "_connect", swallow)
            with pytest.raises(redis.TimeoutError):
                store.ping()
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert len(attempts) == subject.REPEATS


def test_a_restarted_server_goes_unnoticed(make_redis_server: MakeServer) -> None:
    server = make_redis_server("--appendonly", "yes")
    with store_client(server.url) as store:
        script = store.register_script("return redis.call('INCR', KEYS[1])")
        assert script(keys=["count"]) == 1
        server.restart()
        assert script(keys=["count"]) == 2
        server.restart(empty=True)
        assert script(keys=["count"]) == 1


def test_a_primary_that_became_a_replica_is_asked_again_over_a_new_connection(make_redis_server: MakeServer) -> None:
    server = make_redis_server()
    with store_client(server.url) as store, broker_client(server.url, "")[0] as jobs, server.client() as admin:
        store.set("report", "1001")
        before = int(admin.info("stats")["total_connections_received"])
        admin.replicaof("127.0.0.1", 1)
        with pytest.raises(redis.ReadOnlyError):
            store.set("report", "1002")
        with pytest.raises(redis.ConnectionError):
            jobs.set("report", "1002")
        assert int(admin.info("stats")["total_connections_received"]) >= before + subject.REPEATS
        assert check_server(store)[-1].startswith("This Redis is a replica")
        admin.replicaof("NO", "ONE")
        store.set("report", "1002")


def database(client: redis.Redis) -> int:
    return int(client.client_info()["db"])


@pytest.mark.parametrize(("path_db", "queues_in"), [("0", 1), ("4", 5), ("15", 15)])
def test_dramatiq_gets_the_next_database_or_shares_the_last_one(
    redis_server: RedisServer, path_db: str, queues_in: int
) -> None:
    client, shared = broker_client(f"unix://{redis_server.socket}?db={path_db}", "")
    with client:
        assert database(client) == queues_in
        assert shared == (path_db == "15")


def test_dramatiq_shares_the_database_of_a_server_or_user_that_has_no_other(make_redis_server: MakeServer) -> None:
    client, shared = broker_client(make_redis_server("--databases", "1").url, "")
    with client:
        assert (database(client), shared) == (0, True)
    server = make_redis_server("--user", "one", "on", ">hunter2", "~*", "&*", "+@all", "-select")
    client, shared = broker_client(server.url + "&username=one&password=hunter2", "")
    with client:
        assert (client.ping(), shared) == (True, True)


def test_a_broker_url_is_taken_as_it_is(redis_server: RedisServer) -> None:
    for number, same in ((0, True), (7, False)):
        client, shared = broker_client(redis_server.url, f"unix://{redis_server.socket}?db={number}")
        with client:
            assert (database(client), shared) == (number, same)


# -- the server --------------------------------------------------------------------------------------------------------


def test_a_durable_server_raises_no_warning(make_redis_server: MakeServer) -> None:
    with store_client(make_redis_server("--appendonly", "yes").url) as client:
        assert check_server(client) == []


def test_a_server_without_append_only_file_is_a_warning(redis_url: str) -> None:
    with store_client(redis_url) as client:
        (warning,) = check_server(client)
    assert "Set appendonly to yes" in warning


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(make_redis_server: MakeServer, policy: str) -> None:
    server = make_redis_server("--maxmemory-policy", policy)
    with store_client(server.url) as client:
        with pytest.raises(ServerRefused, match=rf"{policy}.*Set maxmemory-policy to noeviction"):
            check_server(client)
        client.config_set("maxmemory-policy", "noeviction")
        check_server(client)


def test_a_cluster_is_refused(make_redis_server: MakeServer) -> None:
    with (
        store_client(make_redis_server("--cluster-enabled", "yes").url) as client,
        pytest.raises(ServerRefused, match="Redis Cluster is not supported"),
    ):
        check_server(client)


@pytest.mark.parametrize(("rule", "told"), [("-config", "append-only"), ("-info", "nobody checked")])
def test_a_managed_server_that_forbids_commands_is_still_served(
    make_redis_server: MakeServer, rule: str, told: str
) -> None:
    server = make_redis_server("--user", *f"managed on >hunter2 ~* &* +@all {rule}".split())
    with store_client(f"{server.url}&username=managed&password=hunter2") as client:
        (warning,) = check_server(client)
    assert told in warning


# -- Dramatiq ----------------------------------------------------------------------------------------------------------


class Jobs:
    """A worker in this process whose one actor counts what it was given."""

    def __init__(self, url: str, threads: int = 3, look_every: int = 20) -> None:
        self.worker_url = url
        self.client, shared = broker_client(url, "")
        self.broker = make_broker(self.client, "bridge", maintenance=not shared)
        self.done: list[int] = []
        self.may_end = threading.Event()
        self.may_end.set()
        declare = dramatiq.actor(actor_name="deliver", queue_name="deliveries", broker=self.broker)
        self.actor = declare(self.deliver)
        self.worker = WorkerThreads(self.broker, threads, look_every=look_every)

    def deliver(self, number: int) -> None:
        self.done.append(number)
        self.may_end.wait(10)
        if number < 0:
            raise RuntimeError("this job fails")

    def send(self, number: int) -> None:
        self.actor.send(number)

    def close(self) -> None:
        self.may_end.set()
        self.worker.stop(5)
        self.broker.close()
        self.client.close()


@pytest.fixture
def quick_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dramatiq waits 3 and 5 s between two attempts to reach Redis."""
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.05)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.05)


@pytest.fixture
def jobs(redis_url: str, quick_recovery: None) -> Iterator[Jobs]:
    jobs = Jobs(redis_url)
    jobs.worker.start()
    yield jobs
    jobs.close()


def test_a_job_runs_once_and_leaves_nothing_behind(jobs: Jobs) -> None:
    for number in range(20):
        jobs.send(number)
    wait_until(lambda: len(jobs.done) == 20, "all jobs ran")
    wait_until(lambda: jobs.client.keys("*") == [b"bridge:dramatiq:__heartbeats__"], "all jobs were acknowledged")
    assert sorted(jobs.done) == list(range(20))


def test_a_job_that_raises_is_over_and_disturbs_no_other(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    for number in (-1, 1, -2, 2, -3, 3, -4, 4):
        jobs.send(number)
    wait_until(lambda: len(jobs.done) == 8, "all jobs ran")
    wait_until(lambda: jobs.client.keys("*") == [b"bridge:dramatiq:__heartbeats__"], "none is kept or repeated")
    assert sorted(jobs.done) == [-4, -3, -2, -1, 1, 2, 3, 4]
    assert jobs.worker.alive()
    assert "this job fails" in caplog.text


def test_nothing_that_could_repeat_delay_or_interrupt_a_job_is_installed(jobs: Jobs) -> None:
    assert [type(middleware).__name__ for middleware in jobs.broker.middleware] == ["_WorkerMiddleware"]
    assert list(jobs.worker._worker.consumers) == ["deliveries"]
    assert make_broker(jobs.client, "bridge", maintenance=False).maintenance_chance == 0
    assert jobs.broker.maintenance_chance > 0


def test_the_same_database_may_hold_the_store_as_well(make_redis_server: MakeServer, quick_recovery: None) -> None:
    server = make_redis_server("--databases", "1")
    with store_client(server.url) as store:
        store.set("bridge:meta", "the store's")
        jobs = Jobs(server.url)
        jobs.worker.start()
        jobs.send(1)
        wait_until(lambda: jobs.done == [1], "the job ran")
        jobs.close()
        assert jobs.broker.maintenance_chance == 0
        assert store.get("bridge:meta") == "the store's"
        assert set(store.keys("*")) <= {"bridge:meta", "bridge:dramatiq:__heartbeats__"}


@pytest.mark.parametrize("empty", [False, True])
def test_the_worker_outlives_a_redis_that_dies_and_comes_back(
    make_redis_server: MakeServer, quick_recovery: None, empty: bool
) -> None:
    server = make_redis_server("--appendonly", "yes", "--appendfsync", "always")
    jobs = Jobs(server.url)
    jobs.worker.start()
    try:
        jobs.may_end.clear()
        jobs.send(1)
        wait_until(lambda: jobs.done == [1], "the job runs")
        server.kill()
        jobs.may_end.set()  # it ends while there is nobody to tell
        with pytest.raises(redis.ConnectionError):
            jobs.send(2)
        assert jobs.worker.alive()
        server.restart(empty=empty)
        jobs.send(3)
        wait_until(lambda: 3 in jobs.done, "the next job runs")
        wait_until(lambda: jobs.client.keys("*") == [b"bridge:dramatiq:__heartbeats__"], "the first is acknowledged")
        assert jobs.done == [1, 3]
        assert jobs.worker.alive()
    finally:
        jobs.close()


def set_full(admin: redis.Redis, ill: bool) -> None:
    admin.config_set("maxmemory", 1 if ill else 0)


def set_replica(admin: redis.Redis, ill: bool) -> None:
    admin.replicaof(*(("127.0.0.1", 1) if ill else ("NO", "ONE")))


@pytest.mark.parametrize("fall_ill", [set_full, set_replica])
def test_the_worker_outlives_a_redis_that_takes_no_writes(
    make_redis_server: MakeServer, quick_recovery: None, fall_ill: Callable[[redis.Redis, bool], None]
) -> None:
    server = make_redis_server()
    jobs = Jobs(server.url)
    jobs.worker.start()
    try:
        with server.client() as admin:
            jobs.may_end.clear()
            jobs.send(1)
            wait_until(lambda: jobs.done == [1], "the job runs")
            fall_ill(admin, True)
            jobs.may_end.set()
            with pytest.raises(redis.RedisError):
                jobs.send(2)
            assert jobs.worker.alive()
            fall_ill(admin, False)
        jobs.send(3)
        wait_until(lambda: jobs.done == [1, 3], "the next job runs")
        wait_until(lambda: jobs.client.keys("*") == [b"bridge:dramatiq:__heartbeats__"], "both are acknowledged")
    finally:
        jobs.close()


def test_a_stopping_worker_gives_back_what_waits_and_does_not_wait_for_what_hangs(
    redis_url: str, quick_recovery: None
) -> None:
    hanging = Jobs(redis_url, threads=1)
    hanging.may_end.clear()
    hanging.worker.start()
    hanging.send(1)
    wait_until(lambda: hanging.done == [1], "the first job hangs")
    # The one thread is taken, and no more is fetched than there are threads: the others stay for other workers.
    hanging.send(2)
    hanging.send(3)
    other = Jobs(redis_url)
    other.worker.start()
    wait_until(lambda: sorted(other.done) == [2, 3], "another worker takes the rest")
    other.close()
    begin = time.monotonic()
    hanging.worker.stop(0.3)
    assert time.monotonic() - begin < 2
    hanging.close()


def test_a_worker_grows_while_it_runs(redis_url: str, quick_recovery: None) -> None:
    jobs = Jobs(redis_url, threads=1)
    assert not jobs.worker.alive(), "it has not been started"
    jobs.may_end.clear()
    jobs.worker.start()
    jobs.send(1)
    wait_until(lambda: jobs.done == [1], "one thread is taken")
    jobs.worker.resize(3)
    jobs.send(2)
    jobs.send(3)
    wait_until(lambda: sorted(jobs.done) == [1, 2, 3], "the new threads take the others")
    assert jobs.worker.alive()
    jobs.worker.resize(1)
    assert jobs.worker.alive()
    jobs.close()
    assert not jobs.worker.alive()


# -- Sentinel ----------------------------------------------------------------------------------------------------------


def test_the_client_goes_on_with_the_new_primary_after_a_fail_over(
    make_redis_server: MakeServer, quick_recovery: None
) -> None:
    first, second = free_port(0), free_port(0)
    primary = make_redis_server("--port", str(first), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    replica = make_redis_server("--port", str(second), "--bind", "127.0.0.1", "--replicaof", "127.0.0.1", str(first))
    with replica.client() as admin:
        wait_until(lambda: admin.info("replication")["master_link_status"] == "up", "the replica follows")
    with sentinels(first) as started:
        with started[0].client() as asked, pytest.raises(ServerRefused, match=r"redis\+sentinel://"):
            check_server(asked)
        url = sentinel_url(started)
        jobs = Jobs(url)
        jobs.worker.start()
        with store_client(url) as store:
            store.set("report", "1001")
            assert store.wait(1, 1000) == 1
            primary.kill()

            def writes() -> bool:
                try:
                    return bool(store.set("report", "1002"))
                except redis.RedisError:
                    return False

            wait_until(writes, "the new primary is found", within=15)
            jobs.send(1)
            wait_until(lambda: jobs.done == [1], "jobs run there")
            with replica.client() as admin:
                assert admin.get("report") == "1002"
        jobs.close()
