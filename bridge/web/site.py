"""What every page is built from."""

from __future__ import annotations

from dataclasses import dataclass, field

import redis
import structlog

from bridge.runtime import Runtime
from bridge.web.webhooks import Refusals

log = structlog.get_logger(__name__)


@dataclass
class Site:
    """One process' page."""

    runtime: Runtime
    #: A client that does not wait long: a few requests that wait for a Redis that hangs would occupy every thread.
    asked_first: redis.Redis
    refusals: Refusals = field(default_factory=Refusals)

    def audit(self, action: str, **what: object) -> None:
        """Writes down that the person who asks now did `action`."""
        log.info("action on the page", action=action, **what)
