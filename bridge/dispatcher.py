"""What is due? Enqueues it as soon as its connector has room, most urgent first.

A finished delivery wakes the dispatcher at once; a look once a second is the safety net. Retry, crash recovery and lost
messages are this one mechanism; the queue is only a hint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import redis
import structlog

from bridge.delivery import Service
from bridge.idempotency import Deposed, IdempotencyStore
from bridge.leadership import Leadership
from bridge.probe import Prober

log = structlog.get_logger(__name__)

#: Seconds between looks when nothing wakes the dispatcher.
LOOK_EVERY = 1.0
#: Seconds that the dispatcher's loop may stand still before another process takes over.
PATIENCE = 30.0


class Dispatcher:
    """Dispatches for all processes, as long as it leads; probes paused connectors beside it."""

    def __init__(
        self,
        store: IdempotencyStore,
        services: Callable[[], Mapping[str, Service]],
        leadership: Leadership,
        prober: Prober,
        enqueue: Callable[[int, str], None],
    ) -> None:
        self.store = store
        self.services = services
        self.leadership = leadership
        self.prober = prober
        self.enqueue = enqueue

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
                log.warning("cannot dispatch: Redis does not answer", error=str(error))
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
        count = 0
        for service in self.services().values():
            reports = self.store.dispatch(
                number,
                service.name,
                service.group,
                service.settings.concurrency,
                proof=service.connector.can_find,
            )
            for report_id in reports:
                self.enqueue(report_id, service.name)
            count += len(reports)
        return count

    def _probe(self, stopping: threading.Event) -> None:
        while not stopping.wait(LOOK_EVERY):
            try:
                if self.leadership.number:
                    self.prober.probe_due(self.services(), stopping)
            except redis.RedisError:
                pass  # said by the dispatcher's own loop
            except Exception:
                log.exception("an error inside the prober")
