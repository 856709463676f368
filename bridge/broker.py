"""Connections to Redis, and Dramatiq on it.

Dramatiq carries hints and no promise: no retries, no delayed messages, no results. A message that is lost, run twice or
run late changes nothing, because the store knows what is due and `deliver` claims it there first.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import dramatiq
import redis
import structlog
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from bridge.wake import LOOK_EVERY, HintBroker, HintConsumer, WorkQueue

#: Seconds to wait for one answer; a server that needs two for every command is still served.
ANSWER_TIMEOUT = 4.0
#: Seconds to wait for a connection.
CONNECT_TIMEOUT = 3.0
#: How often a command is repeated by itself. Few, since a caller that holds a lease must learn of an outage in time.
REPEATS = 2
#: Seconds for the one attempt of `quick_client`.
QUICK_TIMEOUT = 1.0
#: Seconds after which an idle connection is checked before it is used.
IDLE_CHECK = 30

#: Seconds after which an idle worker thread looks whether it is to stop; work and the end wake it at once.
STOP_LOOK = 60.0
#: Milliseconds without a sign of life until another worker's messages are queued again.
HEARTBEAT_TIMEOUT = 60_000
#: Milliseconds that a message for an actor nobody knows is kept for a look at it.
UNKNOWN_ACTOR_TTL = 86_400_000
#: Dramatiq looks for dead workers' messages at this many of a million commands: about once in one to two minutes.
MAINTENANCE_CHANCE = 1_000

_SENTINEL_URL = re.compile(
    r"redis\+sentinel://(?:(?P<user>.*)@)?(?P<hosts>[^@/?]+)/(?P<service>[^/?]+)(?:/(?P<db>\d*))?/?(?:\?(?P<query>.*))?"
)
_SENTINEL_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d*)?")

log = structlog.get_logger()

T = TypeVar("T")


class RedisURLError(ValueError):
    """A Redis URL that cannot be understood. The text carries no secret."""


class ServerRefused(Exception):
    """A Redis server that cannot keep what the bridge promises; the text says why and what to set."""


class _Repeats(Retry):
    """Repeats that are not multiplied: what runs inside another repeated call, as a connection does, is tried once.

    redis-py would try to connect three times for every repeat of a command: 22 s for one to a server that swallows
    packets, and only the next command asks the Sentinels for the new primary.
    """

    _thread = threading.local()

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """As redis-py's, whose words the arguments are."""
        if getattr(self._thread, "repeating", False):
            once = Retry(NoBackoff(), 0, self._supported_errors)
            return once.call_with_retry(do, fail, is_retryable, with_failure_count)
        self._thread.repeating = True
        try:
            return super().call_with_retry(do, fail, is_retryable, with_failure_count)
        finally:
            self._thread.repeating = False


class _BrokerRedis(redis.Redis):
    """For Dramatiq, which waits and repeats on `ConnectionError` only; anything else makes it give up what it did."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (redis.TimeoutError, redis.ReadOnlyError, redis.exceptions.OutOfMemoryError) as error:
            raise redis.ConnectionError(str(error)) from error
        except redis.ResponseError as error:
            if str(error).startswith("UNBLOCKED"):  # a primary that became a replica while it was waited upon
                raise redis.ConnectionError(str(error)) from error
            raise


def store_client(url: str, *, decode: bool = True) -> redis.Redis:
    """A client for `redis://`, `rediss://`, `unix://` or `redis+sentinel://[user:password@]host:port,…/service/db`.

    The sentinels' own password goes into `?sentinel_password=`. Nothing is connected yet. A command is repeated by
    itself, also one whose answer was lost: scripts must be safe to run twice. Raises `RedisURLError`.
    """
    return _client(url, redis.Redis, decode)


def quick_client(url: str) -> redis.Redis:
    """A client that asks once and does not wait long, to find out whether Redis answers at all."""
    return _client(url, redis.Redis, decode=True, quick=True)


def broker_client(store_url: str, broker_url: str) -> tuple[redis.Redis, bool]:
    """The client for Dramatiq, and whether it *shares* the store's database; then maintenance must be off.

    Without `broker_url` it is the next logical database of the store's server, or the same one where the server has no
    other. Raises `RedisURLError`, and `redis.RedisError` when the server cannot be asked.
    """
    client = _client(broker_url or store_url, _BrokerRedis, decode=False)
    if broker_url:
        return client, _place(client) == _place(_client(store_url, redis.Redis, decode=False))
    beside = _client(store_url, _BrokerRedis, decode=False)
    # Options in a URL win over arguments, so the number is set where the URL's was.
    beside.connection_pool.connection_kwargs["db"] = 1 + (client.connection_pool.connection_kwargs.get("db") or 0)
    try:
        beside.ping()
    except redis.ResponseError:  # out of range, not permitted, or a proxy that knows only one
        beside.close()
        return client, True
    return beside, False


def check_server(client: redis.Redis) -> list[str]:
    """Warnings, one sentence each. Raises `ServerRefused`, and `redis.RedisError` when the server cannot be asked.

    Everything is read from `INFO`, which managed servers allow where they forbid `CONFIG`.
    """
    try:
        info = client.info()
    except redis.exceptions.NoPermissionError:
        return ["Redis does not let this user run INFO, so nobody checked whether it evicts keys or keeps its data."]
    mode = info.get("redis_mode") or info.get("server_mode")  # Valkey's word for it
    if mode == "sentinel":
        raise ServerRefused("redis.url leads to a Sentinel; write redis+sentinel://host:port/service/database.")
    if mode == "cluster" or info.get("cluster_enabled"):
        raise ServerRefused("Redis Cluster is not supported; set redis.url to a server that is not in cluster mode.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ServerRefused(
            f"this Redis evicts keys when its memory is full (maxmemory-policy {policy}), and with them the memory of "
            "what was ticketed. Set maxmemory-policy to noeviction."
        )
    warnings = []
    if not info.get("aof_enabled"):
        warnings.append(
            "Redis keeps no append-only file: after a crash it comes back without the latest deliveries, and mail "
            "may go out twice. Set appendonly to yes."
        )
    if info.get("role") == "slave":
        warnings.append("This Redis is a replica and takes no writes; nothing moves until it is made the primary.")
    return warnings


def make_broker(client: redis.Redis, namespace: str, *, maintenance: bool) -> HintBroker:
    """Dramatiq without any middleware: a job that raises is logged and done with, the store makes it due again.

    `maintenance` lets workers queue again what a killed one held, by `KEYS` over the whole database.
    """
    return HintBroker(
        client=client,
        namespace=_dramatiq(namespace),
        middleware=[],
        maintenance_chance=MAINTENANCE_CHANCE if maintenance else 0,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        dead_message_ttl=UNKNOWN_ACTOR_TTL,
    )


def queued(client: redis.Redis, namespace: str, queue: str) -> int:
    """Messages in `queue` that no worker has fetched yet; `client` is Dramatiq's."""
    return int(client.llen(f"{_dramatiq(namespace)}:{queue}"))


def _dramatiq(namespace: str) -> str:
    return f"{namespace}:dramatiq"


class WorkerThreads:
    """Dramatiq's worker in this process. It outlives every outage of Redis."""

    def __init__(self, broker: HintBroker, threads: int, *, look_every: int = LOOK_EVERY) -> None:
        self._broker = broker
        self._middleware = list(broker.middleware)
        self._worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=look_every)
        self._queue = self._worker.work_queue = WorkQueue()
        # One message per thread and not two: what waits here is out of reach for an idle worker elsewhere.
        self._worker.queue_prefetch = threads

    def start(self) -> None:
        """Actors must be declared by now."""
        self._broker.stopping.clear()
        self._queue.begin()
        self._worker.start()
        self._settle_threads()

    def resize(self, threads: int) -> None:
        """Adds threads where there are fewer; spare ones stay and cost nothing."""
        for _ in range(threads - len(self._worker.workers)):
            self._worker._add_worker()
        self._worker.queue_prefetch = len(self._worker.workers)
        for consumer in self._worker.consumers.values():
            consumer.prefetch = self._worker.queue_prefetch
            if isinstance(consumer.consumer, HintConsumer):
                consumer.consumer.resize(self._worker.queue_prefetch)
        self._settle_threads()

    def stop(self, timeout: float) -> None:
        """Takes no more work, waits up to `timeout` seconds for what runs, and gives back what waits."""
        with suppress(redis.RedisError):  # then it ends a look later
            self._broker.stop_waiting(self._worker.consumers)
        for thread in self._worker.consumers.values():
            if isinstance(thread.consumer, HintConsumer):
                thread.consumer.look()
        for worker in self._worker.workers:
            worker.stop()
        self._queue.end()
        try:
            self._worker.stop(timeout=int(timeout * 1000))
        except redis.RedisError as error:
            log.warning("waiting jobs were not given back to Redis; they are due again by themselves", error=str(error))
        self._broker.middleware = self._middleware

    def alive(self) -> bool:
        """Every thread runs; whether one of them hangs is not seen here."""
        threads = [*self._worker.workers, *self._worker.consumers.values()]
        return bool(threads) and all(thread.is_alive() for thread in threads)

    def _settle_threads(self) -> None:
        # Dramatiq wakes every idle thread at the queue's pause, which is most of what an idle process would cost.
        for thread in self._worker.workers:
            thread.timeout = STOP_LOOK


def redact_url(url: str) -> str:
    """The URL for logs and errors. Whatever might be a secret is left out, also where the URL is malformed."""
    scheme, mark, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    _, at, place = rest.rpartition("@")
    address = place.partition("/")[0]
    known = all(_ADDRESS.fullmatch(part) for part in address.split(",")) if address else scheme == "unix"
    if not mark or not known:
        return "***"
    return f"{scheme}://{'***@' if at else ''}{place}{'?***' if query else ''}"


def _client(url: str, kind: type[redis.Redis], decode: bool, *, quick: bool = False) -> redis.Redis:
    options: dict[str, Any] = {
        "decode_responses": decode,
        "socket_timeout": QUICK_TIMEOUT if quick else ANSWER_TIMEOUT,
        "socket_connect_timeout": QUICK_TIMEOUT if quick else CONNECT_TIMEOUT,
        "health_check_interval": IDLE_CHECK,
        "retry": _Repeats(ExponentialWithJitterBackoff(cap=0.5, base=0.05), 0 if quick else REPEATS),
        # After a fail-over behind one name, the old primary refuses writes until we connect anew and find the new one.
        "retry_on_error": [redis.ReadOnlyError],
        "client_name": "huntress-bridge",
        "driver_info": None,  # two more answers to wait for before a new connection's first command
        "protocol": 2,
    }
    try:
        if url.startswith("redis+sentinel://"):
            return _sentinel_client(url, kind, options)
        client = kind.from_url(url, **options)
        client.connection_pool.make_connection()  # takes the options, connects nothing: unknown ones are found here
    except (ValueError, TypeError) as error:
        # Without the cause: urllib's and redis-py's own words repeat parts of the URL.
        kinds = "redis://, rediss://, unix:// or redis+sentinel://host:port/service/database"
        raise RedisURLError(f"{redact_url(url)} is not a Redis URL ({type(error).__name__}); write {kinds}.") from None
    return client


def _sentinel_client(url: str, kind: type[redis.Redis], options: dict[str, Any]) -> redis.Redis:
    parts = _SENTINEL_URL.fullmatch(url)
    hosts = [_SENTINEL_HOST.fullmatch(host) for host in parts["hosts"].split(",")] if parts else []
    if not parts or not all(hosts):
        raise ValueError
    query = parse_qs(parts["query"] or "")
    if query.keys() - {"sentinel_username", "sentinel_password"}:
        raise ValueError
    username, _, password = (parts["user"] or "").partition(":")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(host["host"].strip("[]"), int(host["port"] or 26379)) for host in hosts if host],
        sentinel_kwargs={
            "socket_timeout": 1.0,
            "socket_connect_timeout": 1.0,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **{name.removeprefix("sentinel_"): values[0] for name, values in query.items()},
        },
    )
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        unquote(parts["service"]),
        redis_class=kind,
        db=int(parts["db"] or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        **options,
    )
    return client


def _place(client: redis.Redis) -> tuple[object, ...]:
    """Which database of which server, as far as the URL tells."""
    pool = client.connection_pool
    options = {"host": "", "port": 6379, "path": "", "db": 0, **pool.connection_kwargs}
    if isinstance(pool, SentinelConnectionPool):
        return pool.service_name, options["db"]
    return options["host"], options["port"], options["path"], options["db"]
