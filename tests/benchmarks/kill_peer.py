"""A bare Dramatiq actor that makes one HTTP request, the peer of `kill.py`; its workers are Dramatiq's own command."""

from __future__ import annotations

import os

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker


def set_up() -> None:
    """For the command: the broker that the variable `PEER_REDIS` leads to."""
    declare(os.environ["PEER_REDIS"])


def declare(url: str) -> dramatiq.Actor[[str], None]:
    """The actor, on a broker with Dramatiq's own defaults."""
    broker = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    dramatiq.set_broker(broker)
    return dramatiq.Actor(ask, broker=broker, actor_name="ask", queue_name="default", priority=0, options={})


def ask(url: str) -> None:
    requests.get(url, timeout=120)
