"""Which process polls, which one dispatches: a lease per role, with a number that only rises."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import redis
import structlog

from bridge.idempotency import IdempotencyStore

log = structlog.get_logger(__name__)

#: Seconds a leader leads without renewing; another process takes over after that.
LEADER_LEASE = 6.0
#: Seconds between renewals, and between a candidate's attempts.
RENEW_EVERY = 2.0


class Leadership:
    """Keeps trying to lead `role` from a thread of its own.

    `number` is the fence: scripts refuse a number that is not the newest, so a leader that froze changes nothing when
    it wakes up. A leader whose loop has not called `alive` for `patience` seconds stops renewing; another takes over.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        role: str,
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.role = role
        self.patience = patience
        self.clock = clock
        self.candidate = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._number = 0
        self._renewed_at = 0.0
        self._alive_at = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lead-{role}", daemon=True)

    @property
    def number(self) -> int:
        """The current number, 0 while another process leads or the last renewal is too old to be sure."""
        return self._number if self.clock() - self._renewed_at < LEADER_LEASE else 0

    def alive(self) -> None:
        """The loop that leads says that it moves."""
        self._alive_at = self.clock()

    def attempt(self) -> int:
        """One attempt to lead or to go on leading."""
        if self.clock() - self._alive_at > self.patience:
            if self._number:
                log.error("leadership given up: the loop does not move", role=self.role, patience_seconds=self.patience)
                self._number = 0
            return 0
        asked_at = self.clock()
        number = int(self.store.script("lead", self.role, self.candidate, round(LEADER_LEASE * 1000)))
        if number and number != self._number:
            log.info("leading", role=self.role, number=number)
        self._number, self._renewed_at = number, asked_at
        return number

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        """Does the thread that renews still run?"""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Steps down at once, so that another process need not wait for the lease to end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        try:
            key = self.store.key(f"leader:{self.role}")
            if self._number and self.store.client.get(key) == self.candidate:
                self.store.client.delete(key)
        except redis.RedisError:
            pass  # the lease ends by itself
        self._number = 0

    def _keep(self) -> None:
        while not self._stop.is_set():
            began = self.clock()
            try:
                self.attempt()
            except redis.RedisError as error:
                log.warning("cannot renew leadership: Redis does not answer", role=self.role, error=str(error))
            except Exception:
                log.exception("an error inside leadership", role=self.role)
            # Where an answer takes long, waiting as well would let the lease lapse.
            self._stop.wait(max(0.0, RENEW_EVERY - (self.clock() - began)))
