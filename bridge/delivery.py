"""Does the one next thing for a delivery: look up, create, finish what the ticket still needs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import redis
import structlog

from bridge import notes, reconcile
from bridge.arrivals import COMMENT, Arrivals
from bridge.companies import Companies
from bridge.details import Details
from bridge.following import Following
from bridge.history import Event, What
from bridge.idempotency import Claim, Gate, IdempotencyStore, look_up_offsets, note_prefix
from bridge.leases import LEASE_LOST, STEP_MARGIN, Lease, LeaseKeeper
from bridge.logs import new_trace, traced
from bridge.models import Account, DeliveryState, Note, ReportKey, Ticket, TicketRef, nothing_but
from bridge.news import News, NoteKind, facts
from bridge.probe import Prober
from bridge.quiet import held_until
from bridge.reconcile import Step
from bridge.rendering import Renderer, RenderInput
from bridge.routing import reference
from connectors.base import (
    Connector,
    ConnectorSettings,
    Held,
    Misconfigured,
    Outcome,
    OutcomeUnknown,
    Rejected,
    Unavailable,
)

#: Seconds for the steps that ask for lists (companies, boards), for details, and for rendering, which is bounded by
#: `bridge.render_guard`: 10 of waiting and 40 of work.
PREPARE_SECONDS = 120.0
DETAILS_SECONDS = 20.0
#: Longest seconds for which quiet hours, or a snapshot that cannot be read, hold a delivery back before the next look.
LONGEST_HOLD = 3600.0
#: Steps that quiet hours hold back, and steps that tell an existing ticket what became of its report.
HELD_BACK = frozenset({Step.CREATE, Step.UPDATE, Step.END, Step.REOPEN})
FOLLOWING = frozenset({Step.RESUME, Step.UPDATE, Step.END, Step.REOPEN})
RENDER_SECONDS = 60.0
#: Turns that follow the first one of a job; then the slot is given out anew, maybe to a worker that has less to do.
MOST_IN_A_ROW = 20


@dataclass(frozen=True)
class Service:
    """One configured connector, ready to serve."""

    name: str
    connector: Connector
    settings: ConnectorSettings
    renderer: Renderer
    #: Requests at the same time; the largest of those that share the slot group.
    limit: int = 1

    @property
    def group(self) -> str:
        return self.connector.slot_group()


@dataclass(frozen=True)
class Surroundings:
    """What a turn needs of the process it runs in; replaced as a whole when the configuration changes."""

    services: Mapping[str, Service]
    companies: Companies
    details: Details
    account: Callable[[], Account | None]
    #: For quiet hours.
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))


class _Progress:
    """`connectors.base.Progress` on the store; `prefix` keeps what belongs to one note apart."""

    def __init__(self, store: IdempotencyStore, claim: Claim, prefix: str = "") -> None:
        self.store = store
        self.claim = claim
        self.prefix = prefix
        self.saved = {
            name.removeprefix(prefix): value for name, value in claim.progress.items() if name.startswith(prefix)
        }

    def get(self) -> Mapping[str, str]:
        return self.saved

    def save(self, key: str, value: str) -> None:
        try:
            saved = self.store.save_progress(self.claim, self.prefix + key, value)
        except redis.RedisError as error:
            raise Unavailable("the store (Redis) does not answer; progress cannot be saved") from error
        if not saved:
            raise Unavailable(LEASE_LOST)
        self.saved[key] = value


def pause_as_asked(store: IdempotencyStore, connector: str, outcome: Outcome) -> None:
    """Pauses a connector as long as the ticket system asked for, 15 minutes at most; without such a wish not at all."""
    retry_after = getattr(outcome, "retry_after", None)
    if retry_after:
        store.pause(connector, "rate", min(float(retry_after), 900.0), str(outcome))


class Deliverer:
    """Takes turns at deliveries. Shared by the worker's threads."""

    def __init__(
        self,
        store: IdempotencyStore,
        keeper: LeaseKeeper,
        prober: Prober,
        surroundings: Callable[[], Surroundings],
        *,
        stopping: Callable[[], bool] = lambda: False,
        draw: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.keeper = keeper
        self.prober = prober
        self.surroundings = surroundings
        self.stopping = stopping
        self.draw = draw or random.Random()  # noqa: S311 - jitter, no secret
        self.sleep = sleep

    def work(self, report_id: ReportKey, connector: str) -> None:
        """A turn at this delivery, then at whatever comes first for the same connector, while there is something.

        A slot that is filled again by whoever frees it is empty for a moment only. Connectors that share their slots
        leave it to the dispatcher, which knows what comes first of all that they have.
        """
        took = self.deliver(report_id, connector)
        for _ in range(MOST_IN_A_ROW):
            if not took or not self._alone(connector):
                return
            took = self.deliver(None, connector)

    def _alone(self, connector: str) -> bool:
        services = self.surroundings().services
        service = services.get(connector)
        return service is not None and sum(each.group == service.group for each in services.values()) == 1

    def deliver(self, report_id: ReportKey | None, connector: str) -> bool:
        """One turn, at the most urgent delivery of `connector` where none is named.

        Returns when the delivery was claimed, moved one step and let go, or was not to be had: False.
        """
        around = self.surroundings()
        service = around.services.get(connector)
        if service is None or self.stopping():
            return False
        known: dict[str, object] = {"connector": connector, "trace_id": new_trace()}
        log = structlog.get_logger(__name__).bind(**known)
        asked_at = self.keeper.clock()
        try:
            claim = self.store.claim(
                report_id,
                connector,
                group=service.group,
                concurrency=service.limit,
                settle=service.settings.settle,
                proof=service.connector.can_find,
            )
        except redis.RedisError as error:
            log.warning(
                "not claimed: the store does not answer; the delivery is due again by itself",
                report_id=report_id,
                error=str(error),
            )
            return False
        if isinstance(claim, str):
            log.debug("not claimed", report_id=report_id, why=claim)
            return False
        known |= {
            "report_id": claim.report_id,
            "organization_id": claim.organization_id,
            "attempt": claim.attempts,
        }
        log = log.bind(**known, reference=claim.reference)
        with traced(**known), self.keeper.hold(claim, asked_at) as lease:
            turn = Turn(self, around, service, claim, lease, log)
            try:
                turn.take()
            except Outcome as outcome:
                turn.end_with(outcome)
            except redis.RedisError as error:
                log.warning(
                    "the store does not answer; the lease runs out and the delivery is due again", error=str(error)
                )
                return False
            except Exception as error:
                turn.end_with(turn.internal(error))
        return True


class Turn:
    """One claim, from its step to its release."""

    def __init__(
        self,
        deliverer: Deliverer,
        around: Surroundings,
        service: Service,
        claim: Claim,
        lease: Lease,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.store = deliverer.store
        self.prober = deliverer.prober
        self.stopping = deliverer.stopping
        self.draw = deliverer.draw
        self.sleep = deliverer.sleep
        self.around = around
        self.service = service
        self.connector = service.connector
        self.claim = claim
        self.lease = lease
        self.log = log
        #: Is an earlier create still in doubt, as far as this turn knows?
        self.in_doubt = claim.state is DeliveryState.CREATING and claim.doubt_at is not None and self.connector.can_find
        #: Has this turn passed the gate and may have sent its create?
        self.sending = False
        self.recorded: TicketRef | None = claim.ticket
        #: What is being done to a ticket that exists, for the reason why it waits.
        self.doing = ""
        #: Are details of organization or host still to come?
        self.details_late = False

    def take(self) -> None:
        """Does the next step."""
        step = reconcile.next_step(self.claim, can_find=self.connector.can_find)
        self.log.info("claimed", state=str(self.claim.state), step=str(step), severity=self.claim.severity)
        if step in HELD_BACK and self.is_quiet():
            return
        if step is Step.GIVE_UP and self.claim.ticket is not None:
            self.leave_off()
        elif step is Step.GIVE_UP:
            self.hold()
        elif step is Step.LOOK_UP:
            self.look_up()
        elif step is Step.CREATE:
            if self.adopt():
                return
            if self.claim.adopt:
                self.leave_out()
            else:
                self.create()
        elif step is Step.FOLLOW_UP and self.claim.ticket is not None:
            self.follow_up(self.claim.ticket, set(self.claim.todo))
        elif step in FOLLOWING and self.claim.ticket is not None and self.claim.report is not None:
            Following(self, self.claim.ticket, self.claim.report).take(step)
        elif step is Step.CONSIDER:
            self.store.release(self.claim, considered=self.claim.version)
        elif self._unreadable() and self.claim.over != (self.claim.ended_at is not None):
            reason = "the ticket exists; what the store has of its report was written by another version of the bridge"
            self.store.release(self.claim, reason=reason, kind="unreadable", delay=LONGEST_HOLD)
        else:
            self.store.release(self.claim)

    def _unreadable(self) -> bool:
        """Does the store have a report that cannot be read? One without a version is unknown, or forgotten."""
        return self.claim.report is None and self.claim.version > 0

    def is_quiet(self) -> bool:
        """Do quiet hours or maintenance hold this back? It is asked again at their end, and each hour."""
        report = self.claim.report
        now = datetime.fromtimestamp(self.claim.claimed_at, UTC)
        held = held_until(self.service.settings, self.around.zone, report, now) if report else None
        if held is None:
            return False
        until, why = held
        delay = min((until - now).total_seconds(), LONGEST_HOLD)
        state = DeliveryState.PENDING if self.claim.state is DeliveryState.PENDING else None
        self.log.info("waiting", reason=f"held back by {why}", seconds=round(delay, 1))
        self.store.release(
            self.claim, state=state, reason=f"held back by {why}", kind="quiet", delay=delay, version=self.claim.version
        )
        return True

    def leave_off(self) -> None:
        """Workers end over this ticket: what is to be done to it is not done any more."""
        left = ", ".join([*(notes.what(item) for item in sorted(self.claim.todo)), *self.untold()])
        self.log.error("given up: workers end over this ticket again and again", left=left)
        remark = f"{self.claim.lapsed} workers in a row ended over this ticket; not done: {left}"
        self.store.tell(self.claim, told=self.claim.version, ended=self.claim.over, remark=remark)
        self.store.release(self.claim, done=self.claim.todo, considered=self.claim.version)

    def untold(self) -> list[str]:
        return ["telling it what became of its report"] if self.claim.version > self.claim.told else []

    # -- creating ------------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Asks the ticket system for the reference; what exists is recorded and never made again."""
        if not self.connector.can_find:
            return False
        self.request_step()
        found = self.connector.find(self.claim.reference)
        if not found:
            self.log.info("looked up: there is no ticket yet")
            self.did(What.LOOKED_UP)
            return False
        self.log.info("ticket found by its reference", ticket_id=found[0].id, tickets=len(found))
        if self.is_followed_by_another(found[0]):
            return True
        other = found[1].id if len(found) > 1 else ""
        todo = self.after_creating() if self.claim.made_at is not None else {"complete"}
        kept = self.record(found[0], told=self.claim.version, todo=todo, proven=True, other=other, found=True)
        if kept != found[0].id:
            self.leave_to_the_kept()
            return True
        self.follow_up(found[0], todo | ({"duplicate"} if other else set()))
        return True

    def is_followed_by_another(self, found: TicketRef) -> bool:
        """Was a further ticket made after this one's end, before the store was lost? Then that one is taken over."""
        report = self.claim.report
        if report is None or self.claim.made_at is not None:
            return False
        later = reference(report, self.service.settings.reference_suffix, self.claim.tickets + 1)
        try:
            self.request_step()
            state = self.connector.look(found)
            if state is None or not (state.closed or state.gone):
                return False
            self.request_step()
            if not self.connector.find(later):
                return False
        except Outcome as outcome:
            self.log.warning("cannot tell whether a further ticket was made", ticket_id=found.id, reason=str(outcome))
            return False
        self.store.anew(self.claim, later)
        self.store.release(self.claim, delay=0)
        return True

    def leave_out(self) -> None:
        """No ticket exists for a report that was over when it was first seen: none is made."""
        left = self.store.held_back()
        if left > 0 and self.connector.can_find:  # one that was being made when the store was lost may still appear
            self.store.release(self.claim, state=self.undecided(), reason="looked up again", kind="hold", delay=left)
        elif not self.store.drop(self.claim):
            self.store.release(self.claim, state=self.undecided(), delay=0)

    def after_creating(self) -> set[str]:
        """What a ticket that was just made still needs; comments come with its record."""
        todo = {"complete"}
        if type(self.connector).look is not Connector.look:
            todo.add("status")
        if self.claim.former is not None:
            todo.add("continued")
        return todo

    def look_up(self) -> None:
        """An earlier create is in doubt: adopt what it made, or create once `settle` is over."""
        asked_at = self.store.now()  # an answer that took long knows nothing of what was made meanwhile
        if self.adopt():
            return
        wait = reconcile.wait_after_empty_look_up(self.claim, asked_at, self.service.settings.settle)
        if wait is None:
            self.in_doubt = False
            if not reconcile.may_create(self.claim):
                self.hold()
                return
            self.log.info("the interrupted create never happened; creating")
            self.create()
            return
        delay = max(0.0, wait - (self.store.now() - asked_at))
        reason = self.claim.reason or (
            "the ticket system did not say whether it made the ticket; it is being looked up"
        )
        self.log.info("waiting", reason=reason, seconds=round(delay, 1))
        self.store.release(
            self.claim,
            reason=reason,
            kind="doubt",
            delay=delay,
            looked=self.claim.looked + 1,
            failures=0,
            result=False,  # a create that kills its worker is not cleared by what is found out about it
        )

    def hold(self) -> None:
        """Workers end over this delivery: a person must look."""
        self.log.error("held: workers end over this delivery again and again")
        self.store.release(
            self.claim,
            state=DeliveryState.HELD,
            kind="poison",
            reason=f"{self.claim.lapsed} workers in a row ended while they worked on this delivery, the last with "
            "the plain rendering; look at the report and the workers' logs, then retry it",
        )

    def create(self) -> None:
        """Renders, passes the gate and sends the one create request."""
        ticket, problems = self.ticket()
        self.lease.step(PREPARE_SECONDS)
        prepared = self.connector.prepare(ticket)
        if self.stopping():
            self.store.release(self.claim, state=self.undecided(), reason=self.claim.reason, delay=0, result=False)
            return
        asked_at = self.lease.clock()
        gate = self.store.begin_create(self.claim, proof=self.connector.can_find)
        if not gate.open:
            self.refused(gate)
            return
        self.lease.renewed_at = asked_at  # not the time of the answer: this process may have been frozen in between
        self.lease.served(asked_at)
        self.in_doubt = False
        self.sending = True
        self.log.info("creating")
        self.request_step()
        made = self.connector.create(prepared, _Progress(self.store, self.claim))
        todo = self.after_creating()
        if self.details_late:
            todo.add("details")
        if problems:
            todo.add("plain")
        if gate.verdict == "prove":
            todo.add("verify")
        kept = self.record(made, told=self.claim.version, todo=todo, remark="; ".join(problems))
        self.sending = False
        self.log.info("ticket created", ticket_id=made.id, title=ticket.title)
        if kept != made.id:
            self.leave_to_the_kept()
            return
        self.follow_up(made, todo, ticket)

    def ticket(self) -> tuple[Ticket, list[str]]:
        """The rendered ticket, and what people should know of it: why it is rendered plainly."""
        given = self.given()
        self.lease.step(RENDER_SECONDS)
        plain = reconcile.plainly(self.claim)
        rendered = self.service.renderer.render(given, plain=plain)
        problems = list(rendered.problems)
        if plain:
            problems.append("workers ended while they rendered this report, so the plain rendering was used")
        if problems:
            self.log.warning("rendered plainly", problems=problems)
        return rendered.ticket, problems

    def rendered_note(
        self,
        kind: NoteKind,
        *,
        key: str,
        news: News | None = None,
        fate: str = "",
        other: TicketRef | None = None,
        comment: str = "",
    ) -> tuple[Note, str]:
        """A note on the report, and what people should know of it: why it is rendered plainly."""
        given = self.given()
        if kind is NoteKind.CONTINUED:  # it goes to the former ticket, and a reply has that one's title
            given = replace(given, reference=self.claim.former_reference)
        self.lease.step(RENDER_SECONDS)
        note, problems = self.service.renderer.note(
            kind,
            given,
            key=key,
            news=news,
            fate=fate,
            other=other,
            comment=comment,
            plain=reconcile.plainly(self.claim),
        )
        if problems:
            self.log.warning("note rendered plainly", problems=problems)
        return note, "; ".join(problems)

    def given(self) -> RenderInput:
        """What is known of the report, its host and its company. A ticket that exists needs no company any more."""
        report = self.claim.report or nothing_but(self.claim.report_id, self.claim.severity)
        self.lease.step(DETAILS_SECONDS)
        organization, agent, self.details_late = self.around.details.of(report)
        self.lease.step(PREPARE_SECONDS)
        company = None
        try:
            company = self.around.companies.match(
                self.connector, self.service.settings, report.organization_id, organization
            )
        except Outcome:
            if self.recorded is None:
                raise
        return RenderInput(
            report=report,
            reference=self.claim.reference,
            organization=organization,
            agent=agent,
            account=self.around.account(),
            company=company,
            recipients=self.around.companies.recipients(self.service.name, report.organization_id),
            former=self.claim.former,
        )

    def refused(self, gate: Gate) -> None:
        """The gate did not open: nothing was sent."""
        reasons = {
            "hold": "the store came back empty; nothing is created until tickets in flight can be found",
            "paused": "the connector was paused just before the ticket was sent",
            "proving": "waiting until the first ticket since the start was found again by its reference",
            "unconfirmed": "no replica of Redis confirmed the write, nor did its Sentinels, so nothing was sent",
        }
        if gate.verdict == "lost":
            self.log.info("the delivery belongs to another worker now; nothing was sent")
            self.store.release(self.claim, state=self.undecided(), reason=self.claim.reason, delay=0, result=False)
            return
        wait = 1.0 if gate.until is None else max(0.5, gate.until - self.store.now())
        self.log.info("waiting", reason=reasons[gate.verdict], seconds=round(min(wait, 900), 1))
        self.store.release(
            self.claim, state=self.undecided(), reason=reasons[gate.verdict], kind=gate.verdict, delay=min(wait, 900)
        )

    def undecided(self) -> DeliveryState | None:
        """The state of a delivery that goes on later: what is in doubt stays so."""
        return None if self.in_doubt else DeliveryState.PENDING

    def leave_to_the_kept(self) -> None:
        """Another ticket, with a lower id, is known and kept: the next turn does to that one what is to be done."""
        self.store.release(self.claim, delay=0)

    def record(
        self,
        ref: TicketRef,
        *,
        told: int,
        todo: set[str],
        remark: str = "",
        proven: bool = False,
        other: str = "",
        found: bool = False,
    ) -> str:
        """The ticket is a fact; it must reach the store even when that is away for a moment. Returns the id kept."""
        for attempt in range(5):
            try:
                kept = self.store.record(
                    self.claim,
                    ref,
                    told=told,
                    todo=todo,
                    remark=remark,
                    proven=proven,
                    keep=True,
                    other=other,
                    facts=facts(self.claim.report) if self.claim.report else "",
                    found=found,
                )
            except redis.RedisError as error:
                self.log.warning("a ticket exists but the store does not answer", ticket_id=ref.id, error=str(error))
                self.sleep(0.2 * 2**attempt if attempt < 4 else 0)
            else:
                self.recorded = ref
                return kept
        raise OutcomeUnknown("the ticket was made, but the store did not answer; it will be found by its reference")

    # -- following up --------------------------------------------------------------------------------------------------

    def follow_up(self, ref: TicketRef, todo: set[str], ticket: Ticket | None = None) -> None:
        """Does what the existing ticket still needs; each thing is safe to repeat."""
        done: set[str] = set()
        wait: float | None = None
        problem = ""
        for item in sorted(todo, key=lambda item: (item != "verify", item)):
            try:
                self.request_step()
                wanted = self.follow(item, ref, ticket)
            except redis.RedisError:
                raise
            except Rejected as refusal:
                done.add(item)
                remark = f"{notes.what(item)} failed: {refusal}"
                self.log.warning("refused by the ticket system", doing=notes.what(item), reason=str(refusal))
                self.did(What.REJECTED, remark)
                self.store.record(self.claim, ref, remark=remark, keep=True)
            except Exception as error:
                outcome = error if isinstance(error, Outcome) else self.internal(error)
                wanted = reconcile.back_off(self.claim.failures, self.bounds(outcome), self.draw)
                problem = f"the ticket exists; {notes.what(item)} waits: {outcome}"
                self.pause_for(outcome)
                wait = wanted if wait is None else min(wait, wanted)
            else:
                if wanted is None:
                    done.add(item)
                else:
                    wait = wanted if wait is None else min(wait, wanted)
        failures = self.claim.failures + 1 if problem or todo - done - {"status"} else 0
        left = todo - done
        self.store.release(
            self.claim,
            reason=problem,
            delay=wait,
            done=done,
            failures=failures,
            waiting=left,
            later=left <= reconcile.LATER,
        )
        if problem:
            self.log.warning("ticket not complete yet", ticket_id=ref.id, reason=problem)

    def follow(self, item: str, ref: TicketRef, ticket: Ticket | None) -> float | None:
        """One thing to do to an existing ticket. None: done; else seconds until it should be tried again."""
        if item == "complete":
            whole = self.connector.complete(ref, ticket or self.ticket()[0])
            if whole != ref:
                self.store.record(self.claim, whole, keep=True)
                self.recorded = whole
        elif item == "verify":
            return self.verify(ref)
        elif item == "status":
            return self.look_at_status(ref)
        elif item == "continued" and self.claim.former is not None:
            note, _ = self.rendered_note(
                NoteKind.CONTINUED, key=f"continued-r{self.claim.tickets}", other=self.recorded
            )
            self.note(self.claim.former, note, reference=self.claim.former_reference)
        elif item == "details":
            report = self.claim.report
            organization, agent, late = self.around.details.of(report) if report else (None, None, False)
            if late and self.claim.failures < reconcile.DETAILS_ATTEMPTS:
                return reconcile.back_off(self.claim.failures, reconcile.DETAILS_WAIT, self.draw)
            if organization or agent:
                self.note(ref, notes.details(organization, agent))
        elif item == "plain":
            delivery = self.store.delivery(self.claim.report_id, self.claim.connector)
            self.note(ref, notes.plain(delivery.remark if delivery else self.claim.remark))
        elif item == "duplicate":
            delivery = self.store.delivery(self.claim.report_id, self.claim.connector)
            other = self.claim.other_ticket or (delivery.other_ticket if delivery else "")
            kept = delivery.ticket if delivery and delivery.ticket else ref
            self.note(kept, notes.duplicate(other))
        elif item.startswith(COMMENT):
            key, text = Arrivals(self.store).comment(self.claim.report_id, item)
            if text:
                self.note(ref, self.rendered_note(NoteKind.COMMENT, key=key, comment=text)[0])
        elif item.startswith(notes.RESOLUTION) and not self.claim.over:
            self.note(ref, notes.not_resolved(item, self.store.unresolved(self.claim.report_id)))
        return None

    def note(self, ref: TicketRef, note: Note, reference: str = "") -> None:
        """Adds a note to `ref`, which carries the given reference, else the claim's."""
        organization_id = self.claim.report.organization_id if self.claim.report else None
        recipients = self.around.companies.recipients(self.service.name, organization_id)
        progress = _Progress(self.store, self.claim, note_prefix(note.key))
        self.request_step()
        try:
            self.connector.note(ref, reference or self.claim.reference, replace(note, recipients=recipients), progress)
        except Held as held:  # it is not sent again, so nothing is left to do but to say so
            raise Rejected(str(held)) from held
        self.log.info("ticket told", ticket_id=ref.id, note=note.key)
        self.did(What.NOTED, note.key)

    def look_at_status(self, ref: TicketRef) -> float | None:
        """Workflow rules change a status right after the creation; that says nothing about people."""
        made_at = self.claim.made_at or self.claim.recorded_at  # a store lost meanwhile knows the latter only
        if made_at is None:  # made in this turn
            return reconcile.LOOK_AT_STATUS
        age = self.store.now() - made_at
        if 0 <= age < reconcile.LOOK_AT_STATUS:
            return reconcile.LOOK_AT_STATUS - age
        if 0 <= age <= reconcile.FRESH:
            state = self.connector.look(ref)
            if state is not None and state.status:
                self.store.tell(self.claim, statuses=[state.status])
        return None

    def verify(self, ref: TicketRef) -> float | None:
        """Rule of the first create: a connector that cannot find what it creates must not create more."""
        try:
            found = self.connector.find(self.claim.reference)
        except Rejected as refusal:
            raise Unavailable(str(refusal)) from refusal  # a refused search proves nothing
        if any(ticket.id == ref.id for ticket in found):
            self.store.prove(self.claim.connector)
            return None
        delivery_age = self.store.now() - (self.claim.recorded_at or self.store.now())
        left = self.service.settings.settle - delivery_age
        if left > 0:
            return min(left, reconcile.back_off(self.claim.failures, reconcile.VERIFY_WAIT, self.draw))
        if self.store.proving_report(self.claim.connector) != self.claim.report_id:
            return None
        self.prober.unfindable(self.claim, ref, self.service.settings.settle)
        return 60.0

    # -- ending --------------------------------------------------------------------------------------------------------

    def did(self, what: What, text: str = "") -> None:
        """For the delivery's history, with the next thing that is written."""
        self.claim.events.append(Event(what, text))

    def request_step(self) -> None:
        self.lease.step(self.service.settings.timeout + STEP_MARGIN)

    def bounds(self, outcome: Outcome) -> tuple[float, float]:
        return reconcile.MISCONFIGURED_WAIT if isinstance(outcome, Misconfigured) else reconcile.UNAVAILABLE_WAIT

    def pause_for(self, outcome: Outcome) -> None:
        """What an outcome means for the whole connector."""
        pause_as_asked(self.store, self.claim.connector, outcome)
        if isinstance(outcome, Misconfigured):
            self.prober.suspect(self.service, str(outcome))

    def internal(self, error: Exception) -> Outcome:
        """An error of our own, as an outcome: in doubt when a request may be out."""
        self.log.error("an error inside the bridge", exc_info=error)
        sentence = f"an error inside the bridge ({type(error).__name__}); the log has its details"
        return OutcomeUnknown(sentence) if self.sending else Unavailable(sentence)

    def end_with(self, outcome: Outcome) -> None:
        """Writes down what an outcome means for this delivery."""
        try:
            self._end_with(outcome)
        except redis.RedisError as error:
            self.log.warning(
                "the store does not answer; the lease runs out and the delivery is due again", error=str(error)
            )

    def _end_with(self, outcome: Outcome) -> None:
        reason = str(outcome)
        failures = self.claim.failures + 1
        delay = reconcile.back_off(self.claim.failures, self.bounds(outcome), self.draw)
        self.pause_for(outcome)
        if self.recorded is not None:
            if self.doing:
                reason = f"the ticket exists; {self.doing} waits: {reason}"
            self.log.warning("waiting", reason=reason, seconds=round(delay, 1))
            self.store.release(self.claim, reason=reason, delay=delay, failures=failures)
        elif isinstance(outcome, Held):
            self.log.error("held: a person must decide", reason=reason)
            self.store.release(self.claim, state=DeliveryState.HELD, reason=reason, kind="held")
        elif isinstance(outcome, Rejected) and not self.in_doubt:
            self.log.error("refused by the ticket system", reason=reason)
            self.store.release(self.claim, state=DeliveryState.REJECTED, reason=reason, kind="rejected")
        elif isinstance(outcome, OutcomeUnknown) and self.sending:
            self.log.warning("the outcome of the create is unknown", reason=reason)
            if self.connector.can_find:
                delay = look_up_offsets(self.service.settings.settle)[0]
                reason += "; whether the ticket was made is being looked up"
            self.store.release(
                self.claim, reason=reason, kind="doubt", delay=delay, failures=failures, doubt=self.connector.can_find
            )
        else:
            self.log.warning("waiting", reason=reason, seconds=round(delay, 1))
            kind = "misconfigured" if isinstance(outcome, Misconfigured) else "unavailable"
            self.store.release(
                self.claim, state=self.undecided(), reason=reason, kind=kind, delay=delay, failures=failures
            )
