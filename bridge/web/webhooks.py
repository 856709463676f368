"""Takes the source's webhooks: verified before anything else, stored before they are answered.

| answer | when | what the sender does |
|---|---|---|
| 204 | it is in the store, or says nothing that is kept | nothing more |
| 400 | no id or time, or a time too far off | sends it again, under a new time |
| 401 | not signed with our secret | sends it again |
| 404 | no secret is configured | sends it again |
| 409 | this very message is in the store already, nothing was done | see below |
| 413 | longer than any event (by the server, before the body is read) | sends it again |
| 422 | no event, or of another account | sends it again |
| 503 | the store cannot take it, or no poll has found the account yet | sends it again |

A message that was answered 204 is not sent again. If that answer was lost on its way, the sender meets 409 for as long
as a stranger could show the message again (ten minutes), and 204 after that: taking it twice changes nothing, so a real
sender loses nothing by 409, and a replayed message is told from a new one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import redis
import structlog
from flask import Blueprint, Response, request

from bridge.arrivals import Arrivals
from bridge.logs import new_trace, traced
from bridge.models import IncidentReport
from bridge.runtime import Runtime
from bridge.webhook_signature import Refused, verify
from bridge.webhooks import Event, parse

log = structlog.get_logger(__name__)

PATH = "/webhooks/huntress"
#: Seconds between log lines about refusals with the same status: anybody can make them.
LOG_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A webhook that was not taken; `at` is in seconds since the epoch."""

    at: float
    status: int
    reason: str


class Refusals:
    """Logs refusals, so many as a person wants to read, and knows the last one that this process made.

    Nothing of it is in the store: anybody can make them, and what is refused changes nothing there.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last: Refusal | None = None
        self._clock = clock
        self._lock = threading.Lock()
        #: By status: when it was logged last, and how many were not logged since.
        self._logged: dict[int, tuple[float, int]] = {}

    def log(self, refusal: Refused, at: float) -> None:
        """`at` is in seconds since the epoch."""
        self.last = Refusal(at, refusal.status, str(refusal))
        with self._lock:
            now = self._clock()
            at, unlogged = self._logged.get(refusal.status, (float("-inf"), 0))
            quiet = now - at < LOG_EVERY
            self._logged[refusal.status] = (at, unlogged + 1) if quiet else (now, 0)
        if not quiet:
            log.warning("webhook refused", status=refusal.status, reason=str(refusal), not_logged_before=unlogged)


def webhooks(
    runtime: Runtime, asked_first: redis.Redis, refusals: Refusals, clock: Callable[[], float] = time.time
) -> Blueprint:
    """`asked_first` is a client that does not wait long; `clock` gives seconds since the epoch."""
    blueprint = Blueprint("webhooks", __name__)

    @blueprint.post(PATH)
    def take() -> Response:
        now = clock()
        try:
            with traced(trace_id=new_trace()):
                _take(runtime, asked_first, now)
        except Refused as refusal:
            refusals.log(refusal, now)
            return Response(f"refused: {refusal}\n", status=refusal.status, mimetype="text/plain")
        return Response(status=204)

    return blueprint


def _take(runtime: Runtime, asked_first: redis.Redis, now: float) -> None:
    secret = runtime.settings.webhooks.secret.get_secret_value()
    if not secret:
        raise Refused(404, "[webhooks] secret is empty, so no webhook is taken")
    body = request.get_data(cache=False)
    headers = {name.lower(): value for name, value in request.headers.items()}
    event = parse(verify(headers, body, secret, now), body)
    try:
        asked_first.ping()
        event = _of_our_account(runtime, event)
        outcome = Arrivals(runtime.store).arrive(event, runtime.routes())
    except redis.RedisError:
        raise Refused(503, "the store (Redis) does not answer") from None
    if outcome == "replayed":
        raise Refused(409, "this message was taken before")
    log.info(
        "webhook taken",
        webhook_id=event.id,
        type=event.type,
        report_id=event.report.key if event.report else None,
        subject=None if event.report else event.subject,
        outcome=outcome,
    )


def _of_our_account(runtime: Runtime, event: Event) -> Event:
    """The event, its report with the account, part of every reference. Raises `Refused` and `redis.RedisError`."""
    account = runtime.account()
    if account is None:
        raise Refused(503, "no poll has found yet which account this is; the message is wanted again")
    if event.account_id not in (None, account.id):
        raise Refused(422, f"it is of account {event.account_id}, but this is account {account.id}")
    report: IncidentReport | None = event.report and replace(event.report, account_id=account.id)
    return replace(event, report=report)
