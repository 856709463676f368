"""Counts one process' requests by status, and adds them to the common counters now and then.

Nothing is sent to Redis for each request. What a process counted since its last beat is lost when it is killed.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable

import redis
import structlog

from bridge.idempotency import IdempotencyStore

log = structlog.get_logger(__name__)

#: What requests to Huntress are counted under, and those of a connector, before its name.
SOURCE, CONNECTOR = "source", "connector:"


class RequestCounts:
    """Shared by all threads of a process."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store
        self._process = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()
        #: What is being added, until Redis says that it has it. Its number lets the script tell a repetition.
        self._batch: dict[str, int] = {}
        self._number = 0
        self._flushing = threading.Lock()

    def counter(self, system: str) -> Callable[[str], None]:
        """What is to be called with the status of each answer of `system`."""

        def answered(status: str) -> None:
            with self._lock:
                self._counted[f"{system}:{status}"] += 1

        return answered

    def flush(self) -> None:
        """Adds what was counted to the common counters; it is kept for the next time while Redis is away."""
        with self._flushing:
            while self._batch or self._next_batch():
                try:
                    self.store.script("count_requests", self._process, self._number, json.dumps(self._batch))
                except redis.RedisError as error:
                    log.debug("requests are counted later: Redis does not answer", error=str(error))
                    return
                self._batch = {}

    def _next_batch(self) -> bool:
        with self._lock:
            self._batch, self._counted = dict(self._counted), Counter()
        self._number += bool(self._batch)
        return bool(self._batch)
