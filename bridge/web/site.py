"""What every page is built from."""

from __future__ import annotations

from dataclasses import dataclass, field

import redis
import structlog
from flask import g

from bridge.runtime import Runtime
from bridge.web.attempts import Attempts
from bridge.web.audit import AuditLog, Outcome
from bridge.web.delivery_index import DeliveryIndex
from bridge.web.sessions import Sessions
from bridge.web.webhooks import Refusals

log = structlog.get_logger(__name__)


@dataclass
class Site:
    """One process' page."""

    runtime: Runtime
    #: A client that does not wait long: a few requests that wait for a Redis that hangs would occupy every thread.
    asked_first: redis.Redis
    refusals: Refusals = field(default_factory=Refusals)
    #: Which deliveries there are, to filter and count; it reads nothing before somebody looks.
    index: DeliveryIndex = field(init=False)

    def __post_init__(self) -> None:
        store = self.runtime.store
        self.index = DeliveryIndex(store)
        self.runtime.at_end(self.index.close)
        self.sessions = Sessions(store, self.asked_first)
        self.attempts = Attempts(store, self.asked_first)
        self.audit_log = AuditLog(store)

    def audit(self, action: str, *, outcome: Outcome = "done", person: str = "", **what: object) -> None:
        """Writes down that the person who asks now did `action`: in the log, and for the page Activity.

        `person` says who it is where nobody has logged in yet. Raises `redis.RedisError`, after the log has it.
        """
        name = person or (g.person.name if g.get("person") is not None else "nobody")
        address = g.visitor.address
        log.info("action on the page", action=action, outcome=outcome, person=name, address=address, **what)
        self.audit_log.write(name, address, action, outcome, what)
