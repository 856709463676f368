"""The one Dramatiq actor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dramatiq

from bridge.models import ReportKey
from bridge.wake import HintBroker

#: The queue of Dramatiq that carries the jobs.
QUEUE = "deliveries"

#: `deliver(report, connector)`.
DeliverActor = dramatiq.Actor[[ReportKey, str], None]


def deliver_actor(broker: HintBroker, deliver: Callable[[ReportKey, str], None]) -> DeliverActor:
    """Declares the actor on a broker. A message is only a hint: the store knows what is true."""
    return dramatiq.Actor(deliver, broker=broker, actor_name="deliver", queue_name=QUEUE, priority=0, options={})


def enqueue(broker: HintBroker, actor: DeliverActor, jobs: Sequence[tuple[ReportKey, str]]) -> None:
    """Enqueues (report id, connector) pairs in one round trip. Raises `redis.RedisError`; some may be in then."""
    broker.enqueue_all([actor.message(report_id, connector) for report_id, connector in jobs])
