"""What is due? Enqueues it as soon as its connector has room, most urgent first.

A finished delivery wakes the dispatcher at once; a look once a second is the safety net. Retry, crash recovery and lost
messages are this one mechanism; the queue is only a hint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

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
#: Seconds that the dispatcher's loop may stand still before another process takes over.
PATIENCE = 30.0
#: Messages waiting in Dramatiq's queue above which no more are added: no worker runs, or all are busy.
MOST_QUEUED = 1000


class Dispatcher:
    """Dispatches for all processes, as long as it leads; probes paused connectors beside it."""

    def __init__(
        self,
        store: IdempotencyStore,
        services: Callable[[], Mapping[str, Service]],
        leadership: Leadership,
        prober: Prober,
        enqueue: Callable[[ReportKey, str], None],
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
                    stopping.wait(0.2)
                    continue
                self.look()
                self.store.wait_for_wake(LOOK_EVERY)
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
        if self.backlog() > MOST_QUEUED:
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
        for report_id in reports:
            self.leadership.alive()
            self.enqueue(report_id, service.name)
            log.debug("dispatched", report_id=report_id, connector=service.name)
        return len(reports)

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
