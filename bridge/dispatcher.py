"""What is due? Enqueues it as soon as its connector has room, most urgent first.

New reports and finished deliveries wake the dispatcher at once; else it sleeps until the next delivery is due. As the
safety net it reads once a second whether anything is. Retry, crash recovery and lost messages are this one mechanism;
the queue is only a hint.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import redis
import structlog

from bridge.delivery import Service
from bridge.idempotency import Deposed, IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import ReportKey
from bridge.probe import Prober

log = structlog.get_logger(__name__)

#: Seconds between looks when nothing wakes the dispatcher, and between readings whether there is reason for one.
LOOK_EVERY = 1.0
#: Seconds between looks when nothing is due: each notices a clock that was set back, and drops what ran out.
IDLE_LOOK = 5.0
#: Seconds between looks of the prober for itself; the dispatcher tells it of a probe that is due, unless it is busy.
PROBE_LOOK = 5.0
#: Seconds until the look after one that found something; only after one that found nothing is it asked what comes next.
LOOK_AGAIN = 0.05
#: Seconds between looks at least, when the next delivery is due by then: where many are, not all come in one look.
SHORTEST_WAIT = 0.005
#: Seconds that the dispatcher's loop may stand still before another process takes over.
PATIENCE = 30.0
#: Messages waiting in Dramatiq's queue above which no more are added: no worker runs, or all are busy.
MOST_QUEUED = 1000
#: Messages enqueued in one round trip.
BATCH = 100


class Dispatcher:
    """Dispatches for all processes, as long as it leads; probes paused connectors beside it."""

    def __init__(
        self,
        store: IdempotencyStore,
        services: Callable[[], Mapping[str, Service]],
        leadership: Leadership,
        prober: Prober,
        enqueue: Callable[[Sequence[tuple[ReportKey, str]]], None],
        backlog: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.services = services
        self.leadership = leadership
        self.prober = prober
        self.enqueue = enqueue
        #: Messages that no worker has fetched yet.
        self.backlog = backlog
        #: As many at most, as far as is known without asking; infinite while another process may have enqueued.
        self._most_queued = math.inf
        self.clock = clock
        self._looked_at: dict[str, float] = {}
        self._probe_due = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Dispatches until `stopping`."""
        probing = threading.Thread(target=self._probe, args=(stopping,), name="prober", daemon=True)
        probing.start()
        while not stopping.is_set():
            self.leadership.alive()
            try:
                if not self.leadership.number:
                    self._most_queued = math.inf  # another process enqueues
                    stopping.wait(0.2)
                    continue
                if self.look():
                    self._wait(LOOK_AGAIN)
                else:
                    self._sleep(stopping)
            except Deposed:
                log.info("another process dispatches now")
                stopping.wait(LOOK_EVERY)
            except redis.RedisError as error:
                log.warning("cannot dispatch: Redis does not answer, or refuses", error=str(error))
                stopping.wait(LOOK_EVERY)
            except Exception:
                log.exception("an error inside the dispatcher")
                stopping.wait(LOOK_EVERY)
        self._probe_due.set()
        probing.join(timeout=5)

    def look(self) -> int:
        """Enqueues everything that is due and has room. Returns how many deliveries that was."""
        number = self.leadership.number
        if not number:
            return 0
        if self._most_queued > MOST_QUEUED:
            self._most_queued = self.backlog()
            if self._most_queued > MOST_QUEUED:
                return 0  # nobody fetches; what is enqueued already says enough
        groups: dict[str, list[Service]] = {}
        for service in self.services().values():
            groups.setdefault(service.group, []).append(service)
        return sum(
            self._take(number, group[0]) if len(group) == 1 else self._take_in_turn(number, group)
            for group in groups.values()
        )

    def _take(self, number: int, service: Service, most: int = 1_000_000) -> int:
        now = self.clock()
        before = self._looked_at.get(service.name)  # kept when the look fails: a clock that was set is told by it
        reports = self.store.dispatch(
            number,
            service.name,
            service.group,
            service.limit,
            proof=service.connector.can_find,
            most=most,
            passed=None if before is None else now - before,
        )
        self._looked_at[service.name] = now
        for first in range(0, len(reports), BATCH):
            self.leadership.alive()
            batch = [(report_id, service.name) for report_id in reports[first : first + BATCH]]
            self._most_queued += len(batch)
            self.enqueue(batch)
            for report_id, name in batch:
                log.debug("dispatched", report_id=report_id, connector=name)
        return len(reports)

    def _sleep(self, stopping: threading.Event) -> None:
        """Until there is reason for a look: a wake, a delivery that is due, or `IDLE_LOOK` seconds without one."""
        began, first = self.clock(), True
        while self.leadership.number and not stopping.is_set():
            upcoming = self.store.upcoming(self.services())
            if upcoming.probe <= 0:
                self._probe_due.set()
            if upcoming.ready and not first:
                return  # whoever was woken for it is gone
            # What is due stays so until a worker fetches, where the queue is too long.
            soon = upcoming.due < LOOK_EVERY and self._most_queued <= MOST_QUEUED
            woken = self._wait(max(SHORTEST_WAIT, upcoming.due) if soon else LOOK_EVERY)
            # Ready, and not taken by the last look: it waits for room, or for its connector's pause or proof to end.
            if woken or soon or upcoming.ready or self.clock() - began >= IDLE_LOOK:
                return
            self.leadership.alive()
            first = False

    def _wait(self, seconds: float) -> bool:
        """Waits for a wake, at most so long. False: nobody sent one."""
        if seconds >= LOOK_EVERY:
            return self.store.wait_for_wake(LOOK_EVERY)
        # An idle Redis ends a wait up to half a second late (it looks so seldom), so this process ends it itself.
        timer = threading.Timer(seconds, self._wake)
        timer.daemon = True
        timer.start()
        try:
            return self.store.wait_for_wake(LOOK_EVERY)
        finally:
            timer.cancel()

    def _wake(self) -> None:
        with suppress(redis.RedisError):  # then the wait ends by itself
            self.store.wake()

    def _take_in_turn(self, number: int, group: list[Service]) -> int:
        """Connectors that share their slots: the most urgent delivery of all goes first."""
        for service in group:
            self._take(number, service, most=0)
        count = 0
        while True:
            heads = [(head, service) for service in group if (head := self.store.head(service.name)) is not None]
            taken = 0
            for _, service in sorted(heads, key=lambda pair: pair[0]):
                taken = self._take(number, service, most=1)
                if taken:
                    break
            if not taken:
                return count
            count += taken

    def _probe(self, stopping: threading.Event) -> None:
        while True:
            self._probe_due.wait(PROBE_LOOK)
            self._probe_due.clear()
            if stopping.is_set():
                return
            try:
                if self.leadership.number:
                    self.prober.probe_due(self.services, stopping)
            except redis.RedisError:
                pass  # said by the dispatcher's own loop
            except Exception:
                log.exception("an error inside the prober")
