"""The idempotency store: keys on the report id; under it one delivery per connector, a state machine and not a flag.

Every transition is one atomic Lua script (`bridge/lua`) that checks the owner's token, the store's birth mark and, for
poller and dispatcher, the leader's number. Times are Redis' own; `clock_offset` shifts them, for tests.

Redis lay-out, under the prefix ``<namespace>:``. A key that is not said to go grows only with what is open, or
is one for each connector, organization, process or cause.

===================================  ===================================================================================
``meta``                             schema version, birth mark, `hold_until` after a rebirth, what the source told
                                     once; by connector: when it was last dispatched for, by how much the clock was set
                                     (`jumped:`), how far what is due has been moved back with it (`set_back:`)
``report:<report>``                  snapshot, its digest and version, what each ticket was told of it; why it counts as
                                     open though no longer listed, and what the source said when it was asked to
                                     resolve it (`bridge.resolving`); goes with the snapshot (`bridge.forgetting`)
``delivery:<report>:<connector>``    state, owner and lease, attempts, ticket, what is still to do; in a small form once
                                     all is over (`rest` in `lua/common.lua`); goes later (`bridge.forgetting`)
``patterns``                         what addresses and references have in common, for the small form; 64 at most
``forgetting``                       where the round of `bridge.forgetting` stands
``history:<report>:<connector>``     what happened to it so far (`bridge.history`), 60 entries at most; goes with it
``progress:<report>:<connector>``    what a connector remembers while it creates or notes (recipients served)
``due:<connector>``                  deliveries by the time they are next due (ms): retries, look-ups, ends of leases
``ready:<connector>``                deliveries whose time has come, by urgency, then age
``slots:<group>``                    places in use, each a lease: the connector's concurrency across all workers
``state:<state>``                    index of deliveries by state, and since when (ms); each goes with its delivery
``waiting:<connector>``              reports without a ticket, but what quiet hours hold back, by since when (ms)
``counters``                         what happened how often, ever (`bridge.counters`)
``day:<days since 1970-01-01>``      the same of one day, for 400 days
``counted:<process>``                the last batch of counted requests that a process added, for a day
``changed``                          the 50,000 deliveries that changed last, by when (ms, but always rising)
``pause:<connector>``                why and until when a connector is paused
``proof:<connector>``                has a created ticket been found again by its reference?
``notice:<kind>:<connector>``        what a person was told of one cause, or is being told (`bridge.notices`)
``notices``                          index of these
``open``                             reports that the last listings showed, by when
``missing``                          reports that complete listings no longer show, by when they are asked for next
===================================  ===================================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis
from pydantic import TypeAdapter, ValidationError

from bridge.history import Event, as_sent
from bridge.models import DeliveryState, IncidentReport, ReportKey, TicketRef, report_key, severity_rank
from bridge.reading import Reading, number, seconds, ticket_of
from bridge.sentinels import has_sentinels, most_name

#: Version of the lay-out above; a store with a newer one is refused. 2: deliveries at rest have a small form.
SCHEMA = 2
#: Seconds a claim holds without being renewed.
LEASE = 8.0
#: Seconds after which a message that no worker claimed counts as lost.
RESERVATION = 10.0
#: Seconds after the last possible moment of sending at which an uncertain create is looked up; `settle` is the last.
LOOK_UP_AFTER = (5.0, 15.0, 30.0)
#: Longest seconds that the first create after a start may keep others waiting while it is being proven findable.
LONGEST_PROOF = 600.0

#: Deliveries that one script looks at, of however many: Redis serves nobody else meanwhile.
SCRIPT_BATCH = 100

#: Seconds between looks at whether the server has replicas.
REPLICAS_EVERY = 30.0

_SNAPSHOT = TypeAdapter(IncidentReport)


class StoreError(Exception):
    """The store cannot be used as it is; the sentence says why."""


class Deposed(Exception):
    """Another process leads now; what this one wanted to write was refused."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery, owned for the length of a lease. Times are seconds since the epoch by Redis' clock."""

    report_id: ReportKey
    connector: str
    token: str
    state: DeliveryState
    reference: str
    organization_id: int | None
    severity: str
    order: str
    attempts: int
    #: Attempts in a row that ended in a back-off.
    failures: int
    #: Leases in a row that ended without a result.
    lapsed: int
    reason: str
    remark: str
    #: Last moment at which an unanswered create could have been sent; None: nothing is in doubt.
    doubt_at: float | None
    #: Look-ups made since `doubt_at`.
    looked: int
    recorded_at: float | None
    ticket: TicketRef | None
    other_ticket: str
    todo: frozenset[str]
    #: Version of the report that the ticket was told, and the newest one that was found to need nothing.
    told: int
    considered: int
    version: int
    #: As stored; None: it cannot be read, another version wrote it.
    report: IncidentReport | None
    progress: Mapping[str, str]
    claimed_at: float = 0.0
    #: What the ticket was told, as `bridge.news.facts` wrote it; '': not known.
    facts: str = ""
    #: What this or an earlier turn was about to tell the ticket (`bridge.following`), and since when a request for it
    #: may be out; None: none can be.
    plan: str = ""
    planned_at: float | None = None
    #: Is the report over, as the store has it?
    over: bool = False
    #: When the ticket was told that the report is over.
    ended_at: float | None = None
    #: How often the ticket was told so.
    ends: int = 0
    #: When the ticket was made, as far as the bridge made it.
    made_at: float | None = None
    #: Ids of statuses that say nothing about people: the bridge set them, or saw them right after the ticket was made.
    statuses: tuple[str, ...] = ()
    #: The ticket before this one, with its reference, and how many the report has had in this connector.
    former: TicketRef | None = None
    former_reference: str = ""
    tickets: int = 1
    #: Only to be taken over if it exists: the report was over when it was first seen.
    adopt: bool = False
    #: What its owner did so far that no script has written into the history yet.
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gate:
    """The answer to `begin_create`. `until` is when to ask again (seconds since the epoch), where that is known."""

    verdict: str
    until: float | None = None

    @property
    def open(self) -> bool:
        return self.verdict in ("go", "prove")


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a connector is not served. `kind` is `rate`, `misconfigured` or `unfindable`; times as in `Claim`.

    `since`: of pauses that followed one upon another without a delivery in between, when the first began.
    """

    connector: str
    kind: str
    reason: str
    since: float
    until: float
    next_probe: float | None
    report_id: ReportKey | None


def note_prefix(key: str) -> str:
    """Start of everything that the note with `key` keeps among a delivery's progress."""
    return f"note:{key}:"


def look_up_offsets(settle: float) -> tuple[float, ...]:
    """Seconds after a doubtful create at which to look it up; the last one is `settle`."""
    return (*(offset for offset in LOOK_UP_AFTER if offset < settle), settle)


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def stored_report(snapshot: str | None) -> IncidentReport | None:
    """A stored report; None when there is none, or one that another version wrote and this one cannot read."""
    try:
        return _SNAPSHOT.validate_json(snapshot) if snapshot else None
    except ValidationError:
        return None


def snapshot_of(report: IncidentReport) -> tuple[str, str]:
    """A report as stored, and the digest that tells whether it changed."""
    text = _SNAPSHOT.dump_json(report).decode("utf-8")
    return text, hashlib.sha256(text.encode("utf-8")).hexdigest()[:24]


def notified(report: IncidentReport) -> str:
    """When a report was notified, for the scripts: ms since the epoch; '' where the source does not say."""
    return str(round(report.since.timestamp() * 1000)) if report.since else ""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """What the dispatcher has before it. Times: seconds from now, negative when past, infinite when there is none."""

    #: Until the next delivery of those that wait for a time.
    due: float
    #: Is any delivery due already?
    ready: bool
    #: Until a paused connector is probed.
    probe: float


class IdempotencyStore(Reading):
    """One store, shared by all processes. `settle` is the longest of the connectors', in seconds.

    Methods raise `redis.RedisError` when Redis is away, `Deposed` when the given leader number no longer leads.
    """

    def __init__(
        self, client: redis.Redis, namespace: str = "bridge", *, settle: float = 60, clock_offset: float = 0
    ) -> None:
        super().__init__(client, namespace, clock_offset)
        self.settle = settle
        self._lock = threading.Lock()
        self._replica_count = 0
        self._ask_replicas_at = 0.0
        #: What must not get lost with the store while this process lives; written again after a rebirth.
        self._remembered: dict[str, str] = {}

    # -- plumbing ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes the store into use. Raises `StoreError` when a newer version of this project wrote it."""
        meta = self.key("meta")
        written = self.client.hget(meta, "schema")
        if written is not None and int(cast(str, written)) > SCHEMA:
            raise StoreError(
                f"the store in Redis has schema version {cast(str, written)}, this huntress-bridge knows {SCHEMA}; run "
                "the newer huntress-bridge that wrote it, or use another [redis] namespace"
            )
        if written is None or int(cast(str, written)) < SCHEMA:  # all that an older version wrote is understood
            self.client.hset(meta, "schema", str(SCHEMA))
        self.client.hsetnx(meta, "birth", secrets.token_hex(12))
        self.client.hsetnx(meta, "born_at", str(round(self.now() * 1000)))
        self.birth = cast(str, self.client.hget(meta, "birth"))

    def born_at(self) -> float:
        """When this store was first taken into use, in seconds since the epoch; now, while it does not say."""
        return seconds(cast("str | None", self.client.hget(self.key("meta"), "born_at"))) or self.now()

    def reborn(self) -> None:
        """Redis came back empty, or with another store: says so in it, and goes on with its birth mark.

        A worker that has not noticed yet may still send for the rest of its lease; `settle` counts from there.
        """
        with self._lock:
            fresh = secrets.token_hex(12)
            self.birth = cast(str, self.script("rebirth", fresh, round((LEASE + self.settle) * 1000)))
            meta = self.key("meta")
            self.client.hsetnx(meta, "schema", str(SCHEMA))
            for field, value in self._remembered.items():
                self.client.hset(meta, field, value)

    def remember(self, facts: Mapping[str, str]) -> None:
        """Keeps facts in the store, at once, and while this process lives, beyond the store's loss."""
        self._remembered |= facts
        self.client.hset(self.key("meta"), items=[each for fact in facts.items() for each in fact])

    def recall(self, field: str) -> str:
        value = cast("str | None", self.client.hget(self.key("meta"), field))
        if value is None:
            return self._remembered.get(field, "")
        self._remembered[field] = value
        return value

    def recall_all(self, *fields: str) -> list[str]:
        """As `recall` for each, in one round trip."""
        values = cast("list[str | None]", self.client.hmget(self.key("meta"), list(fields)))
        self._remembered |= {field: value for field, value in zip(fields, values, strict=True) if value is not None}
        return [self._remembered.get(field, "") for field in fields]

    def answer(self, name: str, *arguments: object) -> Any:
        """As `script`, but notices a rebirth (once more with the new mark) and a lost leadership."""
        for _ in range(2):
            answer = self.script(name, *arguments)
            if answer == "reborn" or answer == ["reborn"]:
                self.reborn()
                continue
            if answer == "deposed":
                raise Deposed(name)
            return answer
        return [] if name != "claim" else ["reborn"]

    # -- the poller's side ---------------------------------------------------------------------------------------------

    def observe(
        self,
        leader: int,
        reports: Sequence[tuple[IncidentReport, Sequence[tuple[str, str]]]],
        *,
        adopt: bool = False,
    ) -> list[tuple[ReportKey, str]]:
        """Writes each report's snapshot, and for each (connector, reference) the delivery that an open report lacks.

        Returns the (report id, connector) pairs that are new. Unchanged reports cost no write but their mark as open.
        `adopt`: reports that are over get deliveries, too, which take existing tickets over and make none.
        """
        snapshots = {report.key: snapshot_of(report) for report, _ in reports}
        wanted = self.seen(
            leader,
            [
                (report.key, snapshots[report.key][1], [name for name, _ in connectors])
                for report, connectors in reports
                if not report.over
            ],
        )
        pending = [(report, connectors) for report, connectors in reports if report.over or report.key in wanted]
        return self.write(leader, pending, snapshots, adopt=adopt)

    def seen(self, leader: int, reports: Sequence[tuple[ReportKey, str, Sequence[str]]]) -> set[ReportKey]:
        """Marks reports as open: (key, digest of the snapshot, connectors). Answers those that `write` is needed for.

        A report that no connector takes, or that cannot be read, has no digest: what is known of it stays open.
        """
        rows = [(str(key), digest, connectors) for key, digest, connectors in reports]
        return {report_key(key) for key in self.answer("seen", leader, json.dumps(rows))}

    def write(
        self,
        leader: int,
        reports: Sequence[tuple[IncidentReport, Sequence[tuple[str, str]]]],
        snapshots: Mapping[ReportKey, tuple[str, str]],
        *,
        adopt: bool = False,
    ) -> list[tuple[ReportKey, str]]:
        """As `observe`, with the reports' `snapshot_of`, and without asking first what the store has of them.

        An open report that no connector takes is never written; `seen` marks what is known of it.
        """
        if not reports:
            return []
        for _ in range(2):
            answers = self._write(leader, reports, snapshots, adopt)
            if "reborn" not in answers:
                break
            self.reborn()
        added: list[tuple[ReportKey, str]] = []
        for (report, _), answer in zip(reports, answers, strict=True):
            if answer in ("deposed", "reborn"):
                raise Deposed("observe")
            added.extend((report.key, connector) for connector in answer)
        return added

    def _write(
        self,
        leader: int,
        reports: Sequence[tuple[IncidentReport, Sequence[tuple[str, str]]]],
        snapshots: Mapping[ReportKey, tuple[str, str]],
        adopt: bool,
    ) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        for report, connectors in reports:
            snapshot, digest = snapshots[report.key]
            self.script(
                "observe",
                leader,
                report.key,
                digest,
                snapshot,
                "" if report.organization_id is None else report.organization_id,
                report.severity,
                severity_rank(report.severity),
                json.dumps(connectors),
                1 if report.over else 0,
                1 if adopt else 0,
                notified(report),
                client=pipeline,
            )
        return self.execute(pipeline)

    def connectors(self) -> set[str]:
        """Every connector that this store was ever dispatched for, configured or not."""
        fields = cast("list[str]", self.client.hkeys(self.key("meta")))
        return {field.removeprefix("clock:") for field in fields if field.startswith("clock:")}

    def open_reports(self) -> int:
        return self.client.zcard(self.key("open"))

    # -- the dispatcher's side -----------------------------------------------------------------------------------------

    def dispatch(
        self,
        leader: int,
        connector: str,
        group: str,
        concurrency: int,
        *,
        proof: bool,
        most: int = 1_000_000,
        passed: float | None = None,
    ) -> list[ReportKey]:
        """Report ids to enqueue for `connector` now, most urgent first, as many as it has room for, at most `most`.

        `passed`: seconds that really went by since the caller's last look at `connector`; tells a clock that was set.
        """
        taken = self.answer(
            "dispatch",
            leader,
            connector,
            group,
            concurrency,
            round(RESERVATION * 1000),
            1 if proof else 0,
            round(self._longest_proof() * 1000),
            most,
            -1 if passed is None else round(passed * 1000),
        )
        return [report_key(report_id) for report_id in taken]

    def head(self, connector: str) -> float | None:
        """How urgent the most urgent delivery is that `connector` could start now; lower is more urgent."""
        first = cast(
            "list[tuple[str, float]]", self.client.zrange(self.key(f"ready:{connector}"), 0, 0, withscores=True)
        )
        return first[0][1] if first else None

    def upcoming(self, connectors: Iterable[str]) -> Upcoming:
        """What `connectors` have before them, in one round trip."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.time()
        for connector in connectors:
            pipeline.zrange(self.key(f"due:{connector}"), 0, 0, withscores=True)
            pipeline.exists(self.key(f"ready:{connector}"))
            pipeline.hget(self.key(f"pause:{connector}"), "next_probe")
        time, *found = pipeline.execute()
        now, due = self.moment(time), [at / 1000 for first in found[::3] for _, at in first]
        probes = [int(at) / 1000 for at in found[2::3] if at]
        return Upcoming(min(due, default=math.inf) - now, any(found[1::3]), min(probes, default=math.inf) - now)

    def wait_for_wake(self, seconds: float) -> bool:
        """Returns when something became due, at the latest after `seconds`; False: nobody said that something did."""
        return self.client.blpop([self.key("wake")], timeout=seconds) is not None

    def wake(self) -> None:
        self.client.lpush(self.key("wake"), "1")

    # -- the worker's side ---------------------------------------------------------------------------------------------

    def claim(
        self,
        report_id: ReportKey | None,
        connector: str,
        *,
        group: str,
        concurrency: int,
        settle: float,
        proof: bool = False,
    ) -> Claim | str:
        """The delivery, owned for `LEASE` seconds; or why not: `missing`, `busy`, `early`, `paused`, `full`, `nothing`.

        Without `report_id` the most urgent one that `dispatch`, asked with the same `proof`, could give out now.
        """
        token = secrets.token_hex(8)
        offsets = json.dumps([round(offset * 1000) for offset in look_up_offsets(settle)])
        answer = self.answer(
            "claim",
            "" if report_id is None else report_id,
            connector,
            token,
            round(LEASE * 1000),
            group,
            concurrency,
            offsets,
            1 if proof else 0,
        )
        if answer[0] != "claimed":
            return cast(str, answer[0])
        fields, report, progress = (_pairs(flat) for flat in answer[1:4])
        return Claim(
            report_id=report_key(answer[5]),
            connector=connector,
            token=token,
            state=DeliveryState(fields["state"]),
            reference=fields["reference"],
            organization_id=int(fields["organization"]) if fields.get("organization") else None,
            severity=fields.get("severity", ""),
            order=fields.get("order", "0"),
            attempts=number(fields.get("attempts")),
            failures=number(fields.get("failures")),
            lapsed=number(fields.get("lapsed")),
            reason=fields.get("reason", ""),
            remark=fields.get("remark", ""),
            doubt_at=seconds(fields.get("doubt_at")),
            looked=number(fields.get("looked")),
            recorded_at=seconds(fields.get("recorded_at")),
            ticket=ticket_of(fields),
            other_ticket=fields.get("other_ticket", ""),
            todo=frozenset(json.loads(fields.get("todo") or "[]")),
            told=number(fields.get("told")),
            considered=number(fields.get("considered")),
            version=number(report.get("version")),
            report=stored_report(report.get("snapshot")),
            progress=progress,
            claimed_at=int(answer[4]) / 1000,
            facts=report.get(f"facts:{connector}") or fields.get("facts", ""),
            plan=fields.get("plan", ""),
            planned_at=seconds(fields.get("planned_at")) or None,
            over=report.get("over") == "1",
            ended_at=seconds(fields.get("ended_at")),
            ends=number(fields.get("ends")),
            made_at=seconds(fields.get("creating_at")),
            statuses=tuple(json.loads(fields.get("statuses") or "[]")),
            former=TicketRef(*former[:3]) if (former := json.loads(fields.get("former") or "[]")) else None,
            former_reference=former[3] if former else "",
            tickets=number(fields.get("tickets")) or 1,
            adopt="adopt" in fields,
        )

    def renew(self, claim: Claim) -> bool:
        """Prolongs the lease; False: the delivery belongs to someone else now."""
        return self.renew_all([claim])[0]

    def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        """As `renew` for each, in one round trip."""
        listed = [[str(claim.report_id), claim.connector, claim.token] for claim in claims]
        answer = self.script("renew", round(LEASE * 1000), json.dumps(listed))
        if answer == "reborn":
            self.reborn()
            return [False] * len(claims)
        return [held == 1 for held in answer]

    def begin_create(self, claim: Claim, *, proof: bool) -> Gate:
        """The last gate before a create request; writes `creating`.

        With replicas, confirmed by one of them; with Sentinels and no replica left, by most of the Sentinels.
        """
        arguments = (
            "begin_create",
            claim.report_id,
            claim.connector,
            claim.token,
            round(LEASE * 1000),
            1 if proof else 0,
            round(self._longest_proof() * 1000),
            json.dumps(as_sent(claim.events)),
        )
        if self._replicas():
            answer = self._confirmed(*arguments)
        elif has_sentinels(self.client):
            answer = self._agreed(*arguments)
        else:
            answer = self.script(*arguments)
        if answer is None:
            self._ask_replicas_at = 0.0  # there may be none any more
            return Gate("unconfirmed")
        if answer[0] == "reborn":
            self.reborn()
            return Gate("lost")
        gate = Gate(answer[0], answer[1] / 1000 if len(answer) > 1 else None)
        if gate.open:
            claim.events.clear()
        return gate

    def _longest_proof(self) -> float:
        return max(LONGEST_PROOF, 2 * self.settle)

    def _replicas(self) -> int:
        """Replicas of the server, asked once in a while; a server that does not say counts as having none."""
        if time.monotonic() >= self._ask_replicas_at:
            try:
                self._replica_count = int(self.client.info("replication").get("connected_slaves", 0))
            except redis.ResponseError:
                self._replica_count = 0
            self._ask_replicas_at = time.monotonic() + REPLICAS_EVERY
        return self._replica_count

    def _confirmed(self, *arguments: Any) -> Any:
        """Runs a script and waits up to 1 s until a replica has it; None when none has (WAIT counts per connection)."""
        pipeline = self.client.pipeline(transaction=False)
        self.script(*arguments, client=pipeline)
        pipeline.wait(1, 1000)
        answer, confirmed = self.execute(pipeline)
        return answer if confirmed or answer[0] not in ("go", "prove") else None

    def _agreed(self, *arguments: Any) -> Any:
        """Runs a script; None when most Sentinels do not call the server that ran it the primary."""
        pipeline = self.client.pipeline(transaction=False)
        self.script(*arguments, client=pipeline)
        pipeline.info("server")
        answer, server = self.execute(pipeline)
        return answer if answer[0] not in ("go", "prove") or most_name(self.client, server["run_id"]) else None

    def record(
        self,
        claim: Claim,
        ticket: TicketRef,
        *,
        told: int = 0,
        todo: Iterable[str] = (),
        remark: str = "",
        proven: bool = False,
        keep: bool = False,
        other: str = "",
        facts: str = "",
        found: bool = False,
    ) -> str:
        """A ticket exists, whoever brings the news. Returns the id kept: the lower one when two are known.

        `keep`: the owner goes on with what is to do, its lease stays. `other`: id of a second ticket found with it.
        `facts`: what version `told` says (`bridge.news.facts`). `found`: it was there, this turn did not make it.
        """
        kept = cast(
            str,
            self.script(
                "record",
                claim.report_id,
                claim.connector,
                claim.token,
                ticket.id,
                ticket.number,
                ticket.url,
                told,
                json.dumps(sorted(todo)),
                claim.reference,
                "" if claim.organization_id is None else claim.organization_id,
                claim.severity,
                claim.order,
                remark,
                1 if proven else 0,
                1 if keep else 0,
                other,
                facts,
                ticket.status,
                1 if found else 0,
                json.dumps(as_sent(claim.events)),
            ),
        )
        claim.events.clear()
        return kept

    def held_back(self) -> float:
        """Seconds for which nothing is created yet, because the store came back empty."""
        until = seconds(cast("str | None", self.client.hget(self.key("meta"), "hold_until"))) or 0.0
        left = until - self.now()
        return left if 0 < left <= 3660 else 0.0

    # -- following a report to its end ---------------------------------------------------------------------------------

    def plan(self, claim: Claim, plan: str, *, sending: bool) -> bool:
        """Writes down what the ticket is to be told, so that another turn tells the same. False: the claim is lost.

        `sending`: a request may be out from now on.
        """
        answer = self.script("plan", claim.report_id, claim.connector, claim.token, plan, 1 if sending else 0)
        if answer == -1:
            self.reborn()
        return bool(answer == 1)

    def tell(
        self,
        claim: Claim,
        *,
        told: int | None = None,
        facts: str | None = None,
        state: DeliveryState | None = None,
        ended: bool | None = None,
        remark: str | None = None,
        statuses: Iterable[str] = (),
        forget: str = "",
        told_note: str = "",
    ) -> bool:
        """The ticket was told version `told`, which ends the plan, or seen in `statuses`. False: the claim is lost.

        `forget`: id of a status that is a person's doing from now on.
        `told_note`: key of the note; what was kept while it was sent goes.
        """
        change = {
            "told": told,
            "facts": facts,
            "state": state,
            "ended": ended,
            "remark": remark,
            "statuses": list(statuses) or None,
            "forget": forget or None,
            "progress": note_prefix(told_note) if told_note else None,
            "events": as_sent(claim.events) or None,
        }
        change = {key: value for key, value in change.items() if value is not None}
        answer = self.script("tell", claim.report_id, claim.connector, claim.token, json.dumps(change))
        claim.events.clear()
        return bool(answer)

    def anew(self, claim: Claim, reference: str) -> bool:
        """The report is open again and gets a new ticket, with a reference of its own. False: the claim is lost."""
        return bool(self.script("anew", claim.report_id, claim.connector, claim.token, reference))

    def drop(self, claim: Claim) -> bool:
        """A report that is over has no ticket to take over. False: the claim is lost, or the report open again."""
        return bool(self.script("drop", claim.report_id, claim.connector, claim.token))

    def release(
        self,
        claim: Claim,
        *,
        state: DeliveryState | None = None,
        reason: str = "",
        kind: str = "",
        delay: float | None = None,
        failures: int = 0,
        doubt: bool = False,
        looked: int | None = None,
        considered: int | None = None,
        done: Iterable[str] = (),
        todo: Iterable[str] = (),
        waiting: Iterable[str] = (),
        later: bool = False,
        remark: str | None = None,
        result: bool = True,
        version: int | None = None,
    ) -> bool:
        """Ends the owner's turn. `delay` (seconds) says when the delivery is next due, None that nothing more is.

        `waiting`: things to do that the delay is for; what came up beside them is due now, and with `later` also what
        became of the report. `version`: of the report, which the delay is for; a newer one is due now.
        False: the delivery belongs to someone else by now, nothing was changed.
        """
        change: dict[str, Any] = {
            "state": state,
            "reason": reason,
            "kind": kind,
            "delay": None if delay is None else round(delay * 1000),
            "failures": failures,
            "doubt": doubt or None,
            "looked": looked,
            "considered": considered,
            "done": sorted(done) or None,
            "todo": sorted(todo) or None,
            "waiting": sorted(waiting) or None,
            "later": later or None,
            "remark": remark,
            "result": result or None,
            "version": version,
            "events": as_sent(claim.events) or None,
        }
        change = {key: value for key, value in change.items() if value is not None}
        answer = self.script("release", claim.report_id, claim.connector, claim.token, json.dumps(change))
        claim.events.clear()
        return bool(answer)

    def save_progress(self, claim: Claim, key: str, value: str) -> bool:
        """Remembers one thing about a create in progress; False when the claim was lost."""
        answer = self.script("progress", claim.report_id, claim.connector, claim.token, key, value)
        if answer == -1:
            self.reborn()
        return bool(answer == 1)

    # -- proof that what is created can be found -----------------------------------------------------------------------

    def prove(self, connector: str) -> None:
        self.client.hset(self.key(f"proof:{connector}"), "state", "proven")
        self.wake()

    def unprove(self, connector: str, settings: str = "", *, changed: bool = True) -> None:
        """The next create of this connector is looked up before it creates more (a start, a change of settings).

        `settings` is a digest of its settings; unless they `changed`, a proof that is under way or failed stands.
        """
        self.script("unprove", connector, settings, 1 if changed else 0)

    def proving_report(self, connector: str) -> ReportKey | None:
        state, report = cast("list[str | None]", self.client.hmget(self.key(f"proof:{connector}"), ["state", "report"]))
        return report_key(report) if state == "proving" and report else None

    # -- the operator's side -------------------------------------------------------------------------------------------

    def retry(self, report_id: ReportKey, connector: str) -> str:
        """Makes a delivery due now. Returns the state it had, '' when there is none.

        'forgotten': its report is over and no longer in the store (`bridge.forgetting`), no ticket is made for it.
        """
        return cast(str, self.answer("retry", report_id, connector) or "")

    def handle(self, report_id: ReportKey, connector: str, reason: str) -> str:
        """A person took care of it: nothing more is done for it until it is retried.

        Returns the state it had, '' when there is none. A delivery that has its ticket (`created`, `closed`) is left,
        and one that a worker is at right now, for which the answer is `busy`.
        """
        return cast(str, self.answer("handle", report_id, connector, reason) or "")

    def release_waiting(self, connector: str) -> int:
        """Everything that waits for `connector` is due now, but what is in doubt. Returns how many."""
        offset = moved = 0
        while True:
            looked, freed = cast("list[int]", self.script("release_waiting", connector, SCRIPT_BATCH, offset))
            moved += freed
            offset += looked - freed
            if looked < SCRIPT_BATCH:
                return moved

    def scheduled(self, connector: str) -> int:
        """Deliveries of `connector` that something is still to be done for, now or later."""
        # In one transaction: between two reads a delivery could move from one set to the other, and be in neither.
        pipeline = self.client.pipeline(transaction=True)
        pipeline.zcard(self.key(f"due:{connector}"))
        pipeline.zcard(self.key(f"ready:{connector}"))
        return sum(pipeline.execute())

    def awaited(self, connector: str, later: Iterable[str]) -> Iterator[ReportKey]:
        """Reports that `connector` still has something to do for, now or soon: more than the things in `later`.

        What moves meanwhile may come twice, or not at all beside others. None come only where there were none at one
        moment.
        """
        named = json.dumps(sorted(later))
        # The way that a delivery goes by itself.
        places = [self.key(f"due:{connector}"), self.key(f"ready:{connector}")]
        none = True
        for batch in self._batches(places):
            for report in self.script("awaited", connector, named, json.dumps(batch)):
                none = False
                yield report_key(report)
        if none:
            # Redis serves nobody else while it answers this, so it is asked only then.
            pipeline = self.client.pipeline(transaction=True)
            for place in places:
                pipeline.zrange(place, 0, -1)
            reports = [report for found in pipeline.execute() for report in found]
            for start in range(0, len(reports), SCRIPT_BATCH):
                part = json.dumps(reports[start : start + SCRIPT_BATCH])
                yield from map(report_key, self.script("awaited", connector, named, part))

    def _batches(self, places: Iterable[str]) -> Iterator[list[str]]:
        for place in places:
            offset = 0
            while batch := cast("list[str]", self.client.zrange(place, offset, offset + SCRIPT_BATCH - 1)):
                offset += len(batch)
                yield batch

    def under_way(self, connector: str, group: str) -> int:
        """Deliveries of `connector` that wait for nothing but a worker, and those that its workers are at."""
        now = round(self.now() * 1000)
        return self.client.zcard(self.key(f"ready:{connector}")) + self.client.zcount(
            self.key(f"slots:{group}"), now, "+inf"
        )

    def report(self, report_id: ReportKey) -> IncidentReport | None:
        text = cast("str | None", self.client.hget(self.key(f"report:{report_id}"), "snapshot"))
        return stored_report(text)

    def unresolved(self, report_id: ReportKey) -> str:
        """Why the source did not resolve a report when it was last asked to; '': it did, or was not asked."""
        return cast("str | None", self.client.hget(self.key(f"report:{report_id}"), "unresolved")) or ""

    # -- pauses --------------------------------------------------------------------------------------------------------

    def pause(
        self,
        connector: str,
        kind: str,
        seconds: float,
        reason: str,
        *,
        probe_in: float = 0,
        report_id: ReportKey | None = None,
    ) -> bool:
        """Stops serving a connector. `probe_in` (seconds) starts the doubling probes. True when this is news."""
        return bool(
            self.script(
                "pause",
                connector,
                kind,
                round(seconds * 1000),
                reason,
                round(probe_in * 1000),
                "" if report_id is None else report_id,
            )
        )

    def probe_failed(self, connector: str, reason: str, *, longest: float, pause: float, at_least: float = 0) -> None:
        """The next probe comes after twice the time, `longest` at most but not before `at_least` (seconds)."""
        self.script(
            "probe_failed", connector, reason, round(longest * 1000), round(pause * 1000), round(at_least * 1000)
        )

    def probe_now(self, connector: str) -> None:
        """A paused connector is probed at once (its settings changed)."""
        if self.client.hexists(self.key(f"pause:{connector}"), "next_probe"):
            self.client.hset(self.key(f"pause:{connector}"), "next_probe", "0")

    def resume(self, connector: str) -> int:
        """Ends a pause; everything waiting is due. Returns how many deliveries that is."""
        self.client.delete(self.key(f"pause:{connector}"))
        return self.release_waiting(connector)

    def paused(self, connector: str) -> Pause | None:
        """The pause that holds now, if any."""
        fields = cast("dict[str, str]", self.client.hgetall(self.key(f"pause:{connector}")))
        until = seconds(fields.get("until"))
        if until is None or not 0 < until - self.now() <= 3660:
            return None
        return Pause(
            connector=connector,
            kind=fields.get("kind", ""),
            reason=fields.get("reason", ""),
            since=seconds(fields.get("since")) or 0.0,
            until=until,
            next_probe=seconds(fields.get("next_probe")),
            report_id=report_key(fields["report"]) if fields.get("report") else None,
        )
