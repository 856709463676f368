"""Dramatiq on Redis without polling: whoever enqueues leaves a token, and an idle worker process waits for one.

Dramatiq looks into an empty queue again and again, and sleeps in between. Here a process whose last look left the queue
empty blocks on a list of tokens, which Redis hands to whoever has waited longest. A token says only "look": messages
are fetched by Dramatiq's own script, so none is lost with a token. A process without room for more waits for room and
takes no token. A look after `LOOK_EVERY` is the safety net, for a token that went down with its taker, for what
Dramatiq queued again by itself, and for processes of a version that leaves none; it is also Dramatiq's sign of life.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from queue import Empty, PriorityQueue
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed

#: Milliseconds between two looks of an idle worker process, at most; far less than Dramatiq takes for death.
LOOK_EVERY = 1_000
#: Tokens kept while nobody waits. One too many costs whoever takes it a look in vain, so few.
MOST_TOKENS = 8
#: Milliseconds that tokens are kept: whoever waits has looked by then anyway.
TOKENS_LAST = 2 * LOOK_EVERY
#: Seconds between two looks whether to end, once the process is stopping.
END_LOOK = 0.05


class HintBroker(RedisBroker):
    """Dramatiq's broker whose messages wake the workers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        #: Set: workers of this process fetch nothing more.
        self.stopping = threading.Event()

    @property
    def consumer_class(self) -> type[HintConsumer]:
        return HintConsumer

    def get_declared_delay_queues(self) -> set[str]:
        """None: nothing is ever delayed, so no thread needs to look for it."""
        return set()

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Nothing is ever delayed: `delay` raises `ValueError`."""
        if delay is not None:
            raise ValueError("the store knows what is due later, not the queue")
        self.enqueue_all([message])
        return message

    def enqueue_all(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Enqueues all in one round trip and wakes as many workers. Raises `redis.RedisError`; some may be in then."""
        try:
            self._enqueue_all(messages)
        except redis.exceptions.NoScriptError:  # a server that was restarted, or another one
            self.client.script_load(self.scripts["dispatch"].script)
            self._enqueue_all(messages)

    def leave_tokens(self, queue: str, count: int, client: Any = None) -> None:
        """Wakes up to `count` waiting processes; on a pipeline (`client`) it is only queued."""
        tokens = self.tokens(queue)
        commands = client or self.client.pipeline(transaction=False)
        commands.rpush(tokens, *["1"] * min(count, MOST_TOKENS))
        commands.ltrim(tokens, -MOST_TOKENS, -1)
        commands.pexpire(tokens, TOKENS_LAST)
        if client is None:
            commands.execute()

    def stop_waiting(self, queues: Iterable[str]) -> None:
        """From now on this process neither fetches nor waits. Raises `redis.RedisError`; then it may wait once more."""
        self.stopping.set()
        pipeline = self.client.pipeline(transaction=False)
        for queue in queues:
            pipeline.rpush(self.end_token(queue), "1")
            pipeline.pexpire(self.end_token(queue), TOKENS_LAST)
        pipeline.execute()

    def tokens(self, queue: str) -> str:
        """The key of the list of tokens."""
        return f"{self.namespace}:{queue}.tokens"

    def end_token(self, queue: str) -> str:
        """The key that ends the waiting of this process alone."""
        return f"{self.tokens(queue)}.{self.broker_id}"

    def _enqueue_all(self, messages: Iterable[dramatiq.Message[Any]]) -> None:
        # redis-py asks the server for its scripts before each pipeline with one, so the commands are put together here.
        pipeline = self.client.pipeline(transaction=False)
        counts: dict[str, int] = {}
        for message in messages:
            queue = message.queue_name
            counts[queue] = counts.get(queue, 0) + 1
            pipeline.evalsha(self.scripts["dispatch"].sha, 1, self.namespace, *self._enqueuing(message))
        for queue, count in counts.items():
            self.leave_tokens(queue, count, pipeline)
        pipeline.execute()

    def _enqueuing(self, message: dramatiq.Message[Any]) -> list[Any]:
        """What Dramatiq's `do_enqueue` gives to its script."""
        # A message's own id serves: it is Dramatiq's retries that need a second one, and there are none.
        message = message.copy(options={"redis_message_id": message.message_id})
        return [
            "enqueue",
            current_millis(),
            message.queue_name,
            self.broker_id,
            self.heartbeat_timeout,
            self.dead_message_ttl,
            self._should_do_maintenance("enqueue"),
            self._max_unpack_size(),  # type: ignore[no-untyped-call]
            message.message_id,
            message.encode(),
        ]


class HintConsumer(_RedisConsumer):
    """Fetches messages for the threads of one worker process, as soon as there is one and a thread for it."""

    broker: HintBroker

    def __init__(self, broker: HintBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        #: Did the last look take all there was? What came since has left a token.
        self._emptied = False
        self._room = threading.Event()

    def resize(self, prefetch: int) -> None:
        """From now on up to `prefetch` messages are held."""
        self.prefetch = prefetch
        self.look()

    def look(self) -> None:
        """Ends the waiting for room."""
        self._room.set()

    def ack(self, message: Any) -> None:
        try:
            super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._room.set()

    def nack(self, message: Any) -> None:
        try:
            super().nack(message)  # type: ignore[no-untyped-call]
        finally:
            self._room.set()

    def requeue(self, messages: Iterable[Any]) -> None:
        given_back = list(messages)
        super().requeue(given_back)  # type: ignore[no-untyped-call]
        if given_back:
            self.broker.leave_tokens(self.queue_name, len(given_back))

    def __next__(self) -> Any:
        """The next message, or None: there was none in time."""
        if not self.message_cache:
            try:
                self.message_cache = self._fetch()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        return super().__next__() if self.message_cache else None  # type: ignore[no-untyped-call]

    def _fetch(self) -> list[bytes]:
        """One look into the queue, when there is reason for one. Whatever it finds, it is a sign of life."""
        if self.broker.stopping.is_set():
            time.sleep(END_LOOK)
            self.broker.do_fetch(self.queue_name, 0)
            return []
        if self._free() <= 0:
            self._room.wait(self.timeout / 1000)
        elif self._emptied:
            self._wait_for_token()
        self._room.clear()
        wanted = max(0, self._free()) if not self.broker.stopping.is_set() else 0
        found: list[bytes | None] = self.broker.do_fetch(self.queue_name, wanted)
        self._emptied = len(found) < wanted
        return [message for message in found if message is not None]  # None: another process' purge

    def _free(self) -> int:
        # A resize may come between the two looks at `prefetch`, so it is read once.
        return int(self.prefetch) - len(self.queued_message_ids)

    def _wait_for_token(self) -> None:
        tokens = self.broker.tokens(self.queue_name)
        taken = self.broker.client.blpop([tokens, self.broker.end_token(self.queue_name)], timeout=self.timeout / 1000)
        if taken and taken[0] == tokens.encode() and self.broker.stopping.is_set():
            self.broker.leave_tokens(self.queue_name, 1)  # for another process


class WorkQueue(PriorityQueue[Any]):
    """What a worker process has fetched. Its threads wait here, and are told of the end instead of looking for it."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = False

    def begin(self) -> None:
        self._ended = False

    def end(self) -> None:
        """From now on nobody waits here, and who waits now goes without."""
        with self.not_empty:
            self._ended = True
            self.not_empty.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next message. Raises `queue.Empty`, where it is to `block` after `timeout` seconds."""
        with self.not_empty:
            if block:
                self.not_empty.wait_for(lambda: self._qsize() or self._ended, timeout)
            if not self._qsize() or (block and self._ended):
                raise Empty
            item = self._get()
            self.not_full.notify()
            return item
