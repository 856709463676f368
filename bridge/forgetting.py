"""What is long over is forgotten, little by little: first a report's snapshot, much later its deliveries.

A report is over when the source said so, every ticket was told, and nothing is scheduled for it, owned or in doubt.
What is listed as open is never forgotten. A report that comes back open without its snapshot is followed as before; one
whose delivery is forgotten as well has its ticket looked up by reference, as after the loss of a store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import redis
import structlog

from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.settings import Settings

log = structlog.get_logger(__name__)

#: Deliveries looked at in one script, which nothing else runs beside, and scripts after one cycle.
BATCH = 50
BATCHES = 20
#: Seconds from the start of one round over all deliveries to that of the next.
ROUND_EVERY = 86400.0
_DAY = 86400.0


class Forgetting:
    """For the leading poller; its number fences it."""

    def __init__(self, store: IdempotencyStore, settings: Callable[[], Settings], leadership: Leadership) -> None:
        self.store = store
        self.settings = settings
        self.leadership = leadership

    def sweep(self) -> None:
        """The next part of the round, if it is time for one.

        Raises `redis.RedisError` when Redis is away, `bridge.idempotency.Deposed` when another process leads. A
        damaged store is no reason not to poll: what cannot be read is logged.
        """
        try:
            self._sweep()
        except redis.ResponseError as error:
            log.error("what is long over cannot be forgotten; `store check` says what is wrong", error=str(error))

    def _sweep(self) -> None:
        kept = self.settings().store
        snapshots = deliveries = 0
        for _ in range(BATCHES):
            answer = self.store.answer(
                "forget",
                self.leadership.number,
                BATCH,
                round(kept.keep_snapshots * _DAY * 1000),
                round(kept.keep_deliveries * _DAY * 1000),
                round(ROUND_EVERY * 1000),
            )
            if not answer:  # the store was born anew a moment ago
                return
            _, reports, forgotten, goes_on = cast("list[int]", answer)
            snapshots, deliveries = snapshots + reports, deliveries + forgotten
            if not goes_on:
                break
        if snapshots or deliveries:
            log.info("what is long over is forgotten", snapshots=snapshots, deliveries=deliveries)
