"""The pretend Huntress and ConnectWise of the demo, made lean enough for an hour's load, and their faults.

Nothing received is kept, a ticket is found by its reference, and of a report that is over only its times are kept.
"""

from __future__ import annotations

import json
import re
import sys
import time
from array import array
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any

from bridge.demo import scenario
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.connectwise_query import select
from bridge.demo.connectwise_tables import TICKET_FIELDS, Row
from bridge.demo.huntress import PretendHuntress
from bridge.demo.server import Fault, Received, Reply, Unrest

ORGANIZATIONS = 20
AGENTS = 40
#: Requests a minute that the source's owner lets the bridge have: all that the vendor allows.
BUDGET = 60
#: Requests to the PSA at the same time. One that hangs keeps its place for `TIMEOUT` seconds.
CONCURRENCY = 16
#: One report in so many is being remediated by the vendor, which has a listing of its own.
REMEDIATING = 10
#: Seconds that a request to the PSA may take, and after which one that hangs is let go or carried out.
TIMEOUT, TOO_LATE = 5.0, 6.0
#: Changes that the source lists; more than come while one of the bridge's cycles lasts, by far.
CHANGES = 8000

#: What may happen to a request, and how often of a hundred faults. A 429 stops all for a second, so it is rarer.
FAULTS = (
    (22, Fault("drop")),
    (22, Fault("commit_drop")),
    (16, Fault("status", status=500)),
    (16, Fault("commit_status", status=500)),
    (10, Fault("status", status=503)),
    (5, Fault("status", status=429, headers={"Retry-After": "1"})),
    (5, Fault("hang", delay=TOO_LATE)),
    (4, Fault("late", delay=TOO_LATE)),
)
#: The source is asked so seldom that it need not hang as well.
SOURCE_FAULTS = ((1, Fault("drop")), (1, Fault("status", status=500)), (1, Fault("status", status=503)))


class Weather(Unrest):
    """As its base, drawn by weight from the soak's own faults. Counts what happened by its name."""

    def __init__(self, probability: float, seed: int, faults: tuple[tuple[int, Fault], ...]) -> None:
        super().__init__(probability, seed)
        self.names: Counter[str] = Counter()
        self._weights, self._faults = zip(*faults, strict=True)

    def strike(self) -> Fault | None:
        if self._random.random() >= self.probability:
            return None
        self.met += 1
        fault: Fault = self._random.choices(self._faults, self._weights)[0]
        self.names[f"{fault.kind} {fault.status}" if "status" in fault.kind else fault.kind] += 1
        return fault


class LeanHuntress(PretendHuntress):
    """Reports by number from 1: made, shown, over. The incident reports' listings are answered from text made once."""

    def __init__(self) -> None:
        super().__init__(organizations=ORGANIZATIONS)
        for number in range(1, AGENTS + 1):
            self.agents[number] = scenario.agent(number, (number - 1) % ORGANIZATIONS + 1)
        #: By number, a time.time(); 0: not yet. The first place stands for no report.
        self.sent_at, self.shown_at, self.ended_at = array("d", [0]), array("d", [0]), array("d", [0])
        self.open: dict[int, bytes] = {}
        self.changes: deque[tuple[int, int]] = deque()
        self.latest: dict[int, tuple[int, bytes]] = {}
        self.changed = 0
        self.asked: deque[float] = deque()
        #: Most requests in any minute.
        self.most_a_minute = 0

    def _arrived(self, request: Received) -> Fault | None:
        with self.lock:
            self._in_flight += 1
            self.asked.append(request.at)
            while self.asked[0] < request.at - 60:
                self.asked.popleft()
            self.most_a_minute = max(self.most_a_minute, len(self.asked))
            return self.unrest.strike() if self.unrest else None

    def raw(self, number: int) -> dict[str, Any]:
        """The report as it is now; always the same for its number, but for its end."""
        agent = self.agents[number % AGENTS + 1]
        sent, ended = self.sent_at[number], self.ended_at[number]
        status = "auto_remediating" if number % REMEDIATING == 0 else "sent"
        raw = scenario.incident(
            number,
            self.organizations[agent["organization_id"]],
            agent,
            datetime.fromtimestamp(sent, UTC),
            status=status,
        )
        if ended:
            stamp = scenario.stamp(datetime.fromtimestamp(ended, UTC))
            raw |= {"status": "closed", "closed_at": stamp, "status_updated_at": stamp, "updated_at": stamp}
        return raw

    def send(self, now: float) -> tuple[int, dict[str, Any]]:
        """One more report."""
        with self.lock:
            number = len(self.sent_at)
            for times, first in ((self.sent_at, now), (self.shown_at, 0.0), (self.ended_at, 0.0)):
                times.append(first)
            raw = self.raw(number)
            self.open[number] = self._change(number, raw)
            return number, raw

    def end(self, number: int, now: float) -> None:
        with self.lock:
            self.ended_at[number] = now
            del self.open[number]
            self._change(number, self.raw(number))

    def _change(self, number: int, raw: dict[str, Any]) -> bytes:
        text = json.dumps(raw).encode()
        self.changed += 1
        self.changes.append((self.changed, number))
        self.latest[number] = (self.changed, text)
        while len(self.changes) > CHANGES:
            place, old = self.changes.popleft()
            if self.latest[old][0] == place:
                del self.latest[old]
        return text

    def _list_incident_reports(self, request: Received) -> Reply:
        limit, before = int(request.query["limit"]), int(request.query.get("page_token", sys.maxsize))
        status = request.query.get("status")
        page: list[tuple[int, bytes]] = []  # each behind its place, from the highest down
        if status is None:  # the newest changes, each report once
            for place, number in reversed(self.changes):
                if place < before and self.latest[number][0] == place:
                    page.append((place, self.latest[number][1]))
                    if len(page) > limit:
                        break
        else:
            now = time.time()
            for number in reversed(self.open):
                if number < before and (number % REMEDIATING == 0) == (status == "auto_remediating"):
                    page.append((number, self.open[number]))
                    if len(page) > limit:
                        break
                    self.shown_at[number] = self.shown_at[number] or now
        more = json.dumps({"next_page_token": str(page[limit - 1][0])} if len(page) > limit else {}).encode()
        items = b",".join(text for _, text in page[:limit])
        body = b'{"incident_reports":[' + items + b'],"pagination":' + more + b"}"
        return Reply(200, body, {"Content-Type": "application/json"})

    def _incident_reports(self) -> dict[int, Any]:
        return _ByNumber(self)


class _ByNumber(dict[int, Any]):
    """What a single read looks its report up in."""

    def __init__(self, huntress: LeanHuntress) -> None:
        self.huntress = huntress

    def get(self, number: int, otherwise: Any = None) -> Any:
        return self.huntress.raw(number) if 0 < number < len(self.huntress.sent_at) else otherwise


class LeanConnectWise(PretendConnectWise):
    """Tickets by reference. Of texts only the end is kept, where a note has its marker."""

    def __init__(self, huntress: LeanHuntress) -> None:
        names = [(raw["id"], raw["name"]) for raw in huntress.organizations.values()]
        super().__init__([(1, "Catchall", "Catchall"), *((100 + id, f"ORG{id}", name) for id, name in names)])
        self.huntress = huntress
        self.references: dict[str, list[int]] = {}
        self.requests = 0
        self.closed: set[int] = set()
        #: Seconds of what was done since they were last asked for: from shown or sent to ticket, from over to closed.
        self.times: dict[str, list[float]] = {"shown": [], "sent": [], "over": []}
        self._parts: dict[str, Any] = {}

    def _arrived(self, request: Received) -> Fault | None:
        with self.lock:
            self.requests += 1
            self._in_flight += 1
            return self.unrest.strike() if self.unrest else None

    def _search(self, request: Received) -> Reply:
        wanted = re.fullmatch(r'externalXRef="([^"]*)"', request.query.get("conditions", ""))
        numbers = self.references.get(wanted[1], []) if wanted else []
        rows = [self.tickets[number] for number in numbers] if wanted else [self.old_ticket]
        return Reply(200, select(rows, request.query, TICKET_FIELDS)[0])

    def _create(self, request: Received) -> Reply:
        reply = super()._create(request)
        number, reference = reply.body["id"], reply.body["externalXRef"]
        self.tickets[number] = self._lean(self._public(self.tickets[number]))
        self.notes.pop(number, None)
        self._visible_at.clear()
        self.references.setdefault(reference, []).append(number)
        now, report = time.time(), int(reference.rpartition("-")[2])
        shown = self.huntress.shown_at[report]
        if shown and len(self.references[reference]) == 1:
            self.times["shown"].append(now - shown)
            self.times["sent"].append(now - self.huntress.sent_at[report])
        return reply

    def _patch(self, request: Received, number: str) -> Reply:
        reply = super()._patch(request, number)
        changed = self.tickets[int(number)] = self._lean(self.tickets[int(number)])
        if not changed["closedFlag"]:
            self.closed.discard(changed["id"])
        elif changed["id"] not in self.closed:
            self.closed.add(changed["id"])
            ended = self.huntress.ended_at[int(changed["externalXRef"].rpartition("-")[2])]
            if ended:
                self.times["over"].append(time.time() - ended)
        return reply

    def keep_note(self, number: int, body: Row) -> Row:
        return super().keep_note(number, {**body, "text": body["text"][-80:]})

    def _lean(self, ticket: Row) -> Row:
        """Parts that tickets have in common are kept once."""
        return {
            field: self._parts.setdefault(json.dumps(value), value) if isinstance(value, (dict, list)) else value
            for field, value in ticket.items()
            if field != "_info"
        }
