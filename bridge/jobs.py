"""The one Dramatiq actor."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq.broker import Broker

from bridge.models import ReportKey

#: The queue of Dramatiq that carries the jobs.
QUEUE = "deliveries"


def deliver_actor(broker: Broker, deliver: Callable[[ReportKey, str], None]) -> dramatiq.Actor[[ReportKey, str], None]:
    """Declares `deliver(report, connector)` on a broker. A message is only a hint: the store knows what is true."""
    return dramatiq.Actor(deliver, broker=broker, actor_name="deliver", queue_name=QUEUE, priority=0, options={})
