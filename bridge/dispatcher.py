"""What is due? Enqueues it as soon as its connector has room, most urgent first.

New reports and finished deliveries wake the dispatcher at once; else it sleeps until the next delivery is due. A look
once a second is the safety net. Retry, crash recovery and lost messages are this one mechanism; the queue is only a
hint.
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

#: Seconds between looks when nothing wakes the dispatcher.
LOOK_EVERY = 1.0
#: Seconds until the look after one that found something; only one that finds nothing asks what is due next.
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
                self._wait(LOOK_AGAIN if self.look() else self._until_due())
            except Deposed:
                log.info("another process dispatches now")
                stopping.wait(LOOK_EVERY)
            except redis.RedisError as error:
                log.warning("cannot dispatch: Redis does not answer, or refuses", error=str(error))
                stopping.wait(LOOK_EVERY)
            except Exception:
                log.exception("an error inside the dispatcher")
                stopping.wait(LOOK_EVERY)
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

    def _wait(self, seconds: float) -> None:
        if seconds >= LOOK_EVERY:
            self.store.wait_for_wake(LOOK_EVERY)
            return
        # An idle Redis ends a wait up to 0.1 s late (it looks ten times a second), so this process ends it itself.
        timer = threading.Timer(seconds, self._wake)
        timer.daemon = True
        timer.start()
        try:
            self.store.wait_for_wake(LOOK_EVERY)
        finally:
            timer.cancel()

    def _wake(self) -> None:
        with suppress(redis.RedisError):  # then the wait ends by itself
            self.store.wake()

    def _until_due(self) -> float:
        """Seconds until the next delivery is due; `LOOK_EVERY` at most."""
        if self._most_queued > MOST_QUEUED:
            return LOOK_EVERY  # what is due stays so until a worker fetches
        return max(SHORTEST_WAIT, min(LOOK_EVERY, self.store.next_due(self.services())))

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
        while not stopping.wait(LOOK_EVERY):
            try:
                if self.leadership.number:
                    self.prober.probe_due(self.services, stopping)
            except redis.RedisError:
                pass  # said by the dispatcher's own loop
            except Exception:
                log.exception("an error inside the prober")
