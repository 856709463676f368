"""Asks the source to resolve reports whose tickets people closed (`[huntress] resolve`). Nothing is approved for them.

The source's refusal becomes a note on each ticket. In the store, beside what `bridge.idempotency` describes, a report
keeps `resolve_asked`, the digest of the report as it was when the source answered, and `unresolved`, why it refused.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import redis
import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.delivery import Service, pause_as_asked
from bridge.huntress import (
    HuntressClient,
    SourceDeclined,
    SourceError,
    SourceForbidden,
)
from bridge.idempotency import Deposed, IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import DeliveryState, TicketRef
from bridge.notes import RESOLUTION
from bridge.runtime import Assembly
from connectors.base import Connector, Outcome

log = structlog.get_logger(__name__)

#: Seconds between two rounds, and between looks whether one is due.
ROUND_EVERY = 300.0
LOOK_EVERY = 5.0
#: Tickets that one connector is asked for in a minute; they are spread evenly over it.
LOOKS_PER_MINUTE = 30

#: Waits so many seconds; True: the process is stopping.
Wait = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An open report whose tickets all exist. `digest` is that of its snapshot."""

    report_id: int
    digest: str
    #: By connector, its ticket, and the ids of statuses that say nothing about people.
    tickets: Mapping[str, tuple[TicketRef, frozenset[str]]]


class Resolving:
    """Looks on behalf of all processes, in the one that leads the polling."""

    def __init__(
        self,
        store: IdempotencyStore,
        books: Bookkeeping,
        assembly: Callable[[], Assembly],
        leadership: Leadership,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.books = books
        self.assembly = assembly
        self.leadership = leadership
        self.clock = clock
        self._round_at = float("-inf")
        #: By connector, when it may be asked for the next ticket.
        self._look_at: dict[str, float] = {}
        #: What the present key may not resolve; another key may.
        self._forbidden: set[tuple[int, str]] = set()
        self._forbidden_by: HuntressClient | None = None

    def run(self, stopping: threading.Event) -> None:
        """Looks until `stopping`. Whatever goes wrong is logged, and the next round comes on schedule."""
        while not stopping.wait(LOOK_EVERY):
            try:
                self.look(stopping.wait)
            except SourceError as error:
                log.error("reports cannot be resolved now; next try in the next round", error=str(error))
            except redis.RedisError as error:
                log.warning("reports cannot be resolved: Redis does not answer", error=str(error))
            except Deposed:
                log.info("another process leads the polling now, and resolves reports")
            except Exception:
                log.exception("an error inside the resolving of reports")

    def look(self, wait: Wait) -> None:
        """One round, if this process leads and it is time. Raises `SourceError` when every report would fail."""
        assembly = self.assembly()
        if not (assembly.settings.huntress.resolve and self.leadership.number and self.clock() >= self._round_at):
            return
        poll = self.books.poll()
        if poll.last_complete_at is None:
            return  # the first poll has the whole budget
        self._round_at = self.clock() + ROUND_EVERY
        if poll.dialect != "incident_reports":
            log.warning("[huntress] resolve does nothing: only the dialect incident_reports resolves reports")
            return
        if assembly.source is not self._forbidden_by:
            self._forbidden_by = assembly.source
            self._forbidden.clear()
        for candidate in self.candidates(assembly.services):
            closed = self._all_closed(candidate, assembly.services, wait)
            if not self.leadership.number or self.assembly() is not assembly:
                return
            if closed:
                self._ask(assembly.source, candidate)

    def candidates(self, services: Mapping[str, Service]) -> Iterator[Candidate]:
        """Open incident reports with tickets that can be looked at, none of which is still to be made or told its end.

        E-mail is no ticket that anybody closes, so it is left out. A ticket of a connector that is configured no longer
        cannot be looked at, and might be open.
        """
        followed = {name for name, each in services.items() if type(each.connector).look is not Connector.look}
        made: dict[int, set[str]] = {}
        for name, reports in self.store.entered(DeliveryState.CREATED).items():
            for key in reports:
                if isinstance(key, int):
                    made.setdefault(key, set()).add(name)
        still_open = set(cast("list[str]", self.store.client.zrange(self.store.key("open"), 0, -1)))
        for report_id, names in made.items():
            if str(report_id) in still_open and names & followed and names <= services.keys():
                candidate = self._candidate(report_id, sorted(followed))
                if candidate is not None and (report_id, candidate.digest) not in self._forbidden:
                    yield candidate

    def _candidate(self, report_id: int, followed: list[str]) -> Candidate | None:
        """None: it was asked for as it is now, or one of its tickets is not settled."""
        pipeline = self.store.client.pipeline(transaction=False)
        pipeline.hmget(self.store.key(f"report:{report_id}"), ["digest", "resolve_asked"])
        for name in followed:
            pipeline.hgetall(self.store.key(f"delivery:{report_id}:{name}"))
        (digest, asked), *deliveries = pipeline.execute()
        if not digest or asked == digest:
            return None
        tickets = {}
        for name, fields in zip(followed, deliveries, strict=True):
            if not fields:
                continue
            # One that is about to be told something may be closed by the bridge; without a look at its first status it
            # cannot be told whether a workflow rule closed it.
            over = "ended_at" in fields or "moments" in fields  # the latter stands for it in a delivery at rest
            if fields["state"] != DeliveryState.CREATED or fields.get("plan") or over:
                return None
            if "status" in json.loads(fields.get("todo") or "[]"):
                return None
            ref = TicketRef(fields["ticket_id"], fields.get("ticket_number", ""), fields.get("ticket_url", ""))
            tickets[name] = (ref, frozenset(json.loads(fields.get("statuses") or "[]")))
        return Candidate(report_id, digest, tickets) if tickets else None

    def _all_closed(self, candidate: Candidate, services: Mapping[str, Service], wait: Wait) -> bool:
        """Did people close every ticket? One that cannot be looked at now may be open."""
        for name, (ref, statuses) in candidate.tickets.items():
            if self.store.paused(name) is not None or not self._take_turn(name, wait):
                return False
            try:
                state = services[name].connector.look(ref)
            except Outcome as outcome:
                log.info("a ticket cannot be looked at", connector=name, ticket_id=ref.id, reason=str(outcome))
                pause_as_asked(self.store, name, outcome)
                return False
            except redis.RedisError:
                raise
            except Exception:  # a connector may come from anywhere; one that fails must not stop the others
                log.exception("a connector failed over a ticket", connector=name, ticket_id=ref.id)
                return False
            if state is None or state.gone or not state.closed or state.status in statuses:
                return False
        return True

    def _take_turn(self, name: str, wait: Wait) -> bool:
        """Waits until the connector may be asked for one more ticket. False: the process is stopping."""
        pause = self._look_at.get(name, 0.0) - self.clock()
        if pause > 0 and wait(pause):
            return False
        self._look_at[name] = self.clock() + 60 / LOOKS_PER_MINUTE
        return True

    def _ask(self, source: HuntressClient, candidate: Candidate) -> None:
        """Asks for the report's end, once, unless it is over. What was asked before without an answer shows so, too."""
        about = log.bind(report_id=candidate.report_id)
        try:
            if not self._resolvable(source, candidate.report_id) or not self.leadership.number:
                return
            try:
                source.resolve(candidate.report_id)
            except (SourceDeclined, SourceForbidden) as refused:
                if self._resolvable(source, candidate.report_id):  # else somebody else ended it meanwhile
                    about.warning("Huntress does not resolve a report whose tickets are closed", reason=str(refused))
                    self._refused(candidate, refused)
                return
        except SourceError as error:
            if error.fatal:
                raise
            about.warning("not known to be resolved; it is read before it is asked for again", error=str(error))
        else:
            about.info("report resolved: people closed all its tickets", connectors=sorted(candidate.tickets))
            self._answered(candidate, candidate.digest, "")

    def _resolvable(self, source: HuntressClient, report_id: int) -> bool:
        """Is it ours and in the one status from which the source resolves reports? Raises `SourceError`."""
        report = source.report(report_id)
        account = self.store.recall("account_id")
        return report.status == "sent" and str(report.account_id or account) == account

    def _refused(self, candidate: Candidate, refused: SourceError) -> None:
        """Each ticket gets a note. With what the key may not do, the report itself has nothing to do."""
        digest = candidate.digest
        if isinstance(refused, SourceForbidden):
            self._forbidden.add((candidate.report_id, digest))
            digest = ""
        self._answered(candidate, digest, str(refused))

    def _answered(self, candidate: Candidate, digest: str, why: str) -> None:
        self.store.answer(
            "resolution",
            self.leadership.number,
            candidate.report_id,
            digest,
            why,
            f"{RESOLUTION}{candidate.digest[:8]}",
            json.dumps(list(candidate.tickets)),
        )
