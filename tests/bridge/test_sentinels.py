"""Before a create on a server without replicas, most Sentinels must call it the primary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from bridge.broker import store_client
from bridge.demo.run import free_port
from bridge.idempotency import Claim, IdempotencyStore
from bridge.models import IncidentReport
from tests.conftest import RedisServer
from tests.sentinel import SERVICE, SentinelServer, sentinel_url, sentinels

MakeServer = Callable[..., RedisServer]


def claim(store: IdempotencyStore, number: int = 1) -> Claim:
    leader = int(store.script("lead", "poller", "test", 6000))
    store.observe(leader, [(IncidentReport(number, account_id=5), [("psa", f"huntress-5-{number}")])])
    claimed = store.claim(number, "psa", group="psa", concurrency=3, settle=60)
    assert isinstance(claimed, Claim), claimed
    return claimed


def watch(sentinel: SentinelServer, primary: int) -> None:
    """From now on it calls another server the primary."""
    with sentinel.client() as client:
        client.execute_command("SENTINEL", "REMOVE", SERVICE)
        client.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary, 2)


def verdict(store: IdempotencyStore, number: int) -> str:
    return store.begin_create(claim(store, number), proof=False).verdict


def test_a_primary_that_most_sentinels_gave_up_creates_nothing(make_redis_server: MakeServer) -> None:
    old, new = free_port(0), free_port(0)
    make_redis_server("--port", str(old))
    make_redis_server("--port", str(new))
    with sentinels(old, number=3, replicas=0) as started, store_client(sentinel_url(started)) as client:
        store = IdempotencyStore(client)
        store.open()
        assert verdict(store, 1) == "go"
        started[0].kill()
        assert verdict(store, 2) == "go"
        watch(started[1], new)
        # The store's connection still leads to the old primary, which takes every write.
        assert verdict(store, 3) == "unconfirmed"
        assert client.info("server")["tcp_port"] == old


def test_a_primary_that_lost_its_replica_is_asked_for_anew(make_redis_server: MakeServer) -> None:
    ports = [free_port(0), free_port(0)]
    make_redis_server("--port", str(ports[0]), "--repl-diskless-sync-delay", "0")
    replica = make_redis_server("--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0]))
    with sentinels(ports[0], number=1) as started, store_client(sentinel_url(started)) as client:
        store = IdempotencyStore(client)
        store.open()
        assert verdict(store, 1) == "go"
        replica.kill()
        assert verdict(store, 2) == "unconfirmed"
        assert verdict(store, 3) == "go"


@pytest.mark.parametrize("gone", [1, 2])
def test_a_sentinel_that_does_not_answer_counts_as_a_no(make_redis_server: MakeServer, gone: int) -> None:
    port = free_port(0)
    make_redis_server("--port", str(port))
    with sentinels(port, number=3, replicas=0) as started, store_client(sentinel_url(started)) as client:
        store = IdempotencyStore(client)
        store.open()
        for sentinel in started[:gone]:
            sentinel.kill()
        assert verdict(store, 1) == ("go" if gone == 1 else "unconfirmed")


def test_without_sentinels_nobody_is_asked(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        store = IdempotencyStore(client)
        store.open()
        assert verdict(store, 1) == "go"
