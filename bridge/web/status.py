"""How all is going, as JSON, for uptime monitors and scripts."""

from __future__ import annotations

from typing import Any

import redis
from flask import Blueprint, Response, jsonify

from bridge.absences import Absences
from bridge.arrivals import Arrivals
from bridge.bookkeeping import overdue_after
from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState
from bridge.notices import NoticeBook
from bridge.printing import moment
from bridge.runtime import Runtime
from bridge.web.site import Site
from bridge.web.troubles import find_troubles
from bridge.web.webhooks import Refusal

#: Reports shown of those that are no longer listed and not known to be over.
UNLISTED_SHOWN = 5


def status(runtime: Runtime, refusal: Refusal | None = None) -> dict[str, Any]:
    """How all is going, as plain data. `ok` is False when a person should look. Raises `redis.RedisError`.

    `refusal`: the last webhook that this process refused.
    """
    store, books = runtime.store, runtime.books
    poll = books.poll()
    streams = {kind: books.stream(kind) for kind in runtime.settings.sources.kinds}
    connectors = {}
    for name, service in runtime.services.items():
        pause = store.paused(name)
        connectors[name] = {
            "type": service.connector.type,
            "state": "serving" if pause is None else "paused",
            "reason": "" if pause is None else pause.reason,
            "until": None if pause is None else moment(pause.until),
            "next_probe": None if pause is None else moment(pause.next_probe),
            "scheduled": store.scheduled(name),
        }
    outstanding = NoticeBook(store).outstanding() if runtime.settings.alerts.connectors else []
    problems = [trouble.text for trouble in find_troubles(runtime)]
    return {
        "ok": not problems,
        "problems": problems,
        "poll": {
            "last_complete_at": moment(poll.last_complete_at),
            "cycle_seconds": poll.cycle_seconds,
            "expected_cycle_seconds": poll.expected_cycle_seconds,
            "overdue_after_seconds": overdue_after(poll),
            "dialect": poll.dialect,
            "scope": poll.scope,
            "error": poll.error,
            "requests_last_minute": runtime.budget.used(),
            "requests_per_minute": runtime.settings.huntress.requests_per_minute,
        },
        "streams": {
            kind.value: {"last_complete_at": moment(stream.last_complete_at), "error": stream.problem}
            for kind, stream in streams.items()
        },
        "alerts": {
            "heartbeat_at": moment(poll.heartbeat_at),
            "heartbeat_problem": poll.heartbeat_problem,
            "notices": [
                {
                    "cause": each.cause,
                    "since": moment(each.since),
                    "told_at": moment(each.told_at),
                    "problem": each.problem,
                }
                for each in outstanding
            ],
        },
        "webhooks": {
            "configured": bool(runtime.settings.webhooks.secret.get_secret_value()),
            "last_taken_at": moment(Arrivals(store).taken_at()),
            "last_refusal": refusal and {"at": moment(refusal.at), "status": refusal.status, "reason": refusal.reason},
        },
        "reports": {"open": store.open_reports(), "no_longer_listed": no_longer_listed(store)},
        "deliveries": {str(state): store.count(state) for state in DeliveryState},
        "connectors": connectors,
        "quarantine": [
            {"report_id": entry.report_id, "reason": entry.reason, "seen_at": moment(entry.seen_at)}
            for entry in books.quarantined()
        ],
        "configuration_problems": books.configuration_problems(),
    }


def no_longer_listed(store: IdempotencyStore) -> dict[str, Any]:
    """Reports that the source lists no longer and that are not known to be over, those first that left first."""
    missing = sorted(Absences(store).missing(), key=lambda each: each.last_listed_at)
    return {
        "count": len(missing),
        "first": [
            {
                "report_id": each.key,
                "organization_id": each.organization_id,
                "last_listed_at": moment(each.last_listed_at),
                "reason": each.why or "Huntress no longer lists this report; whether it is over is asked next.",
            }
            for each in missing[:UNLISTED_SHOWN]
        ],
    }


def blueprint(site: Site) -> Blueprint:
    """`/status`: 503 when a person should look."""
    pages = Blueprint("status", __name__)

    @pages.get("/status")
    def show() -> tuple[Response, int]:
        try:
            site.asked_first.ping()
            answer = status(site.runtime, site.refusals.last)
        except redis.RedisError:
            return jsonify(ok=False, problems=["Redis does not answer"]), 503
        return jsonify(answer), 200 if answer["ok"] else 503

    return pages
