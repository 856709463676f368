"""What came by webhook, in the store: reports before a listing shows them, and comments, which no listing shows.

The poller stays the truth: it writes over the snapshot of a report that came here first, and finds what never came.

Redis lay-out, beside that of `bridge.idempotency`

===================================  ===================================================================================
``webhook:<digest of its id>``       this message was taken; as long as its signature could be shown again
``comments:<report>``                by digest of the message's id, a comment behind the time it came (ms)
``webhook_taken``                    when an event was last taken (ms)
``poll:wanted``                      when an event last came that a listing tells more of (ms)
===================================  ===================================================================================
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import cast

import redis

from bridge.idempotency import IdempotencyStore, notified, snapshot_of
from bridge.models import IncidentReport, ReportKey, severity_rank
from bridge.routing import Routes
from bridge.webhook_signature import TOLERANCE
from bridge.webhooks import Event

#: Seconds that a comment is kept for tickets that are still to be made, or reached.
COMMENT_KEPT = 30 * 86_400.0
#: Start of the name of each comment in what is to do to a ticket.
COMMENT = "comment-"


class Arrivals:
    """Takes events into the store, for any process. Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store

    def arrive(self, event: Event, routes: Routes) -> str:
        """What was made of it: `replayed` (nothing), `new`, `known` or `noted` (its report has no delivery yet)."""
        report = event.report
        snapshot, digest = snapshot_of(report) if report else ("", "")
        arguments = (
            _digest(event.id),
            secrets.token_hex(8),
            round(2 * TOLERANCE * 1000),
            1 if event.wants_poll else 0,
            report.key if report else "",
            digest,
            snapshot,
            report.organization_id or "" if report else "",
            report.severity if report else "",
            severity_rank(report.severity) if report else 0,
            json.dumps(_deliveries(event, report, routes) if report else []),
            event.comment,
            round(COMMENT_KEPT * 1000),
            json.dumps(list(routes.connectors_settings)),
            notified(report) if report else "",
        )
        for _ in range(2):
            answer = cast(str, self.store.script("arrive", *arguments))
            if answer != "reborn":
                return answer
            self.store.reborn()
        raise redis.RedisError("Redis came back with another store, twice")

    def polling_wanted(self) -> float | None:
        """When an event last came that a listing tells more of, in seconds since the epoch."""
        at = cast("str | None", self.store.client.get(self.store.key("poll:wanted")))
        return int(at) / 1000 if at else None

    def taken_at(self) -> float | None:
        """When an event was last taken, in seconds since the epoch."""
        at = cast("str | None", self.store.client.get(self.store.key("webhook_taken")))
        return int(at) / 1000 if at else None

    def comment(self, report_id: ReportKey, item: str) -> tuple[str, str]:
        """Key of the note and text of a comment; the text is empty when it is not kept any more."""
        event = item.rpartition("-")[2]
        kept = cast("str | None", self.store.client.hget(self.store.key(f"comments:{report_id}"), event))
        return COMMENT + event, (kept or "").partition(" ")[2]


def _digest(message_id: str) -> str:
    return hashlib.sha256(message_id.encode()).hexdigest()[:24]


def _deliveries(event: Event, report: IncidentReport, routes: Routes) -> list[tuple[str, str]]:
    """The deliveries to make at once. None where only a listing tells where the report goes."""
    by_indicator = any(table.only.indicator_types for table in routes.connectors_settings.values())
    if not event.open or (by_indicator and not report.indicator_types):
        return []
    return [(name, routes.reference(report, name)) for name in routes.connectors(report)]
