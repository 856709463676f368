"""The same two calls as jobs of Dramatiq, Celery and RQ, as their own documentation has them. Not a test.

Each looks the reference up and creates the ticket, over a connection that is kept. None holds a lease, keeps any state
or writes a log: this is the least that the work costs there.

The server's address and Redis are in the variables TICKETS_URL and PEER_REDIS.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import requests

URL = os.environ.get("TICKETS_URL", "") + "/v2026_1/apis/3.0/service/tickets"
REDIS = os.environ.get("PEER_REDIS", "")
_own = threading.local()


def ticket(reference: str) -> None:
    """Looks up, creates."""
    session = getattr(_own, "session", None)
    if session is None:
        session = _own.session = requests.Session()
    found = session.get(URL, params={"conditions": f'externalXRef="{reference}"', "pageSize": "25"}, timeout=30)
    found.raise_for_status()
    if found.json():
        return
    body = {"summary": "Incident", "board": {"id": 1}, "company": {"id": 1}, "externalXRef": reference}
    body["initialDescription"] = "x" * 2000  # about what a rendered report is
    made = session.post(URL, json=body, timeout=30)
    made.raise_for_status()
    assert made.json()["id"]


if os.environ.get("PEER") == "dramatiq":
    import dramatiq
    import redis
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(client=redis.Redis.from_url(REDIS))  # type: ignore[no-untyped-call]
    dramatiq.set_broker(broker)
    dramatiq_ticket: Any = dramatiq.actor(ticket)

if os.environ.get("PEER") == "celery":
    import celery

    app = celery.Celery("ticket_peers", broker=REDIS)
    app.conf.task_ignore_result = True
    celery_ticket: Any = app.task(name="ticket")(ticket)
