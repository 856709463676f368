"""Leases of this process: kept while the work moves, and asked before every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import redis
import structlog

from bridge.idempotency import LEASE, Claim, IdempotencyStore
from connectors.base import Unavailable

log = structlog.get_logger(__name__)

#: Why a worker does not go on with a delivery that another one may have by now.
LEASE_LOST = "this worker lost its lease on the delivery; whoever holds it now goes on"
#: Seconds between renewals.
RENEW_EVERY = 2.0
#: Seconds before a lease's end from which on nothing new is sent under it.
MARGIN = 1.0
#: Seconds for which a script's word that a connector is served is as good as asking again right before a request.
SERVED = 0.1
#: Seconds beyond a request's own time-out after which a step counts as hung.
STEP_MARGIN = 5.0


#: Seconds that go on while the machine is suspended, where the system has such a clock: leases do so as well.
since_boot: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Lease:
    """One claim's lease as this process knows it."""

    def __init__(self, claim: Claim, asked_at: float, clock: Callable[[], float]) -> None:
        self.claim = claim
        self.clock = clock
        self.renewed_at = asked_at
        self.lost = False
        self.overdue = False
        self.deadline = asked_at + LEASE
        self._served_at: float | None = asked_at

    def served(self, asked_at: float) -> None:
        """A script that was asked at `asked_at` found the claim's connector served, as the claim itself did."""
        self._served_at = asked_at

    def still_served(self, connector: str) -> bool:
        """Was `connector` found served a moment ago? Good for one request, whose answer may pause the connector."""
        asked_at, self._served_at = self._served_at, None
        return connector == self.claim.connector and asked_at is not None and self.clock() - asked_at < SERVED

    def step(self, seconds: float) -> None:
        """A new step begins; when it outlives `seconds`, the lease is no longer renewed."""
        self.deadline = self.clock() + seconds

    def check(self) -> None:
        """Raises `Unavailable` unless the lease holds for certain: a worker that froze or was cut off sends nothing."""
        if self.lost or self.clock() - self.renewed_at > LEASE - MARGIN:
            raise Unavailable(
                "this worker lost its lease on the delivery; nothing was sent, whoever holds it now goes on"
            )


class LeaseKeeper:
    """Renews the leases of this process from one thread."""

    def __init__(self, store: IdempotencyStore, clock: Callable[[], float] = since_boot) -> None:
        self.store = store
        self.clock = clock
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._current = threading.local()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @contextmanager
    def hold(self, claim: Claim, asked_at: float) -> Iterator[Lease]:
        """Keeps the claim's lease; `asked_at` is the time by `clock` just before the claim was asked for."""
        lease = Lease(claim, asked_at, self.clock)
        with self._lock:
            self._leases.add(lease)
        self._current.lease = lease
        try:
            yield lease
        finally:
            self._current.lease = None
            with self._lock:
                self._leases.discard(lease)

    def current(self) -> Lease | None:
        """The lease that the calling thread works under."""
        return getattr(self._current, "lease", None)

    def overdue(self) -> int:
        """Steps that have outlived their deadline and still run: threads that hang."""
        now = self.clock()
        with self._lock:
            return sum(1 for lease in self._leases if now > lease.deadline)

    def renew(self) -> None:
        """One round of renewals."""
        with self._lock:
            leases = list(self._leases)
        moving: list[Lease] = []
        for lease in leases:
            now = self.clock()
            if lease.lost:
                continue
            if now > lease.deadline:
                if not lease.overdue:
                    lease.overdue = True
                    log.error(
                        "a step takes longer than it may; its lease is given up",
                        report_id=lease.claim.report_id,
                        connector=lease.claim.connector,
                    )
                continue
            moving.append(lease)
        if not moving:
            return
        asked_at = self.clock()
        for lease, held in zip(moving, self.store.renew_all([lease.claim for lease in moving]), strict=True):
            if held:
                lease.renewed_at = asked_at
            else:
                lease.lost = True

    def alive(self) -> bool:
        """Does the thread that renews still run?"""
        return self._thread.is_alive()

    def _keep(self) -> None:
        pause = RENEW_EVERY
        while not self._stop.wait(pause):
            began = self.clock()
            try:
                self.renew()
            except redis.RedisError as error:
                log.warning("cannot renew leases: Redis does not answer", error=str(error))
            except Exception:
                log.exception("an error inside the renewal of leases")
            # Where an answer takes long, waiting as well would let leases lapse that Redis would have prolonged.
            pause = max(0.0, RENEW_EVERY - (self.clock() - began))


class Gate:
    """What a connector asks before every request: is the lease held, is the connector served?"""

    def __init__(self, store: IdempotencyStore, keeper: LeaseKeeper, connector: str, timeout: float = 30) -> None:
        self.store = store
        self.keeper = keeper
        self.connector = connector
        #: Seconds a request may take; each one moves the deadline of the step it belongs to.
        self.timeout = timeout
        self._thread = threading.local()

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Lets this thread's requests pass although the connector is paused: they find out whether it works again."""
        self._thread.probing = True
        try:
            yield
        finally:
            self._thread.probing = False

    def before_send(self) -> None:
        """The last look, with nothing between it and the bytes that leave. Raises `Unavailable`."""
        lease = self.keeper.current()
        if lease is not None:
            lease.check()

    def __call__(self) -> None:
        lease = self.keeper.current()
        if lease is not None:
            lease.check()
            lease.step(self.timeout + STEP_MARGIN)
            if lease.still_served(self.connector):
                return
        if getattr(self._thread, "probing", False):
            return
        try:
            pause = self.store.paused(self.connector)
        except redis.RedisError as error:
            raise Unavailable("the store (Redis) does not answer; nothing was sent") from error
        if pause is not None:
            raise Unavailable(f"connector {self.connector} is paused: {pause.reason}")
