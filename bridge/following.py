"""Tells an existing ticket what became of its report: what changed, that it is over, that it is open again.

What a ticket is about to be told is written down first (`Plan`), so that a turn after a crash tells the same: its note
is looked up by its marker before it is sent again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bridge import notes, reconcile
from bridge.history import What
from bridge.leases import LEASE_LOST
from bridge.models import DeliveryState, IncidentReport, Note, TicketRef, TicketState
from bridge.news import News, NoteKind, compare, facts
from bridge.reconcile import Step
from bridge.routing import reference
from connectors.base import Misconfigured, PsaSettings, Rejected, Unavailable

if TYPE_CHECKING:
    from bridge.delivery import Turn


class Gone(Exception):
    """A person deleted, merged or converted the ticket; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a ticket is about to be told. Kept in the store until it is done."""

    #: `update`, `end` or `reopen`.
    step: str
    #: Version of the report that the ticket knows afterwards, and what that says.
    version: int
    facts: str
    #: The note; without a key there is none.
    key: str = ""
    title: str = ""
    text: str = ""
    #: Is the ticket closed after the note?
    close: bool = False
    #: What people should know of the ticket afterwards.
    remark: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Plan:
        return cls(**json.loads(text))


def _joined(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


class Following:
    """The part of a turn that follows a report to its end."""

    def __init__(self, turn: Turn, ref: TicketRef, report: IncidentReport) -> None:
        self.turn = turn
        self.store = turn.store
        self.connector = turn.connector
        self.settings = turn.service.settings
        self.claim = turn.claim
        self.log = turn.log
        self.ref = ref
        self.report = report

    def take(self, step: Step) -> None:
        """Does `step`, one of `RESUME`, `UPDATE`, `END`, `REOPEN`, and ends the turn. Outcomes pass through."""
        plan = Plan.read(self.claim.plan) if step is Step.RESUME else None
        self.turn.doing = notes.STEPS[plan.step if plan else step]
        try:
            if plan is not None:
                self.carry_out(plan, resumed=True)
            elif step is Step.UPDATE:
                self.update()
            elif step is Step.END:
                self.end()
            else:
                self.reopen()
        except Gone as gone:
            if self.claim.over or self.claim.ended_at is None:
                self.give_up(str(gone))
            else:
                self.anew()  # a person's doing ended with the incident; this is one more

    # -- what changed --------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """One note that says what changed; a higher priority when the severity rose."""
        news = compare(self.claim.facts, self.report)
        if news is None:
            if not self.claim.facts:  # made or linked without a word on what it was told: what is now counts as told
                self.store.tell(self.claim, told=self.claim.version, facts=facts(self.report))
            self.store.release(self.claim, considered=self.claim.version)
            return
        state = self.look()
        fate = self.raise_priority(news, state)
        self.carry_out(self.note_plan("update", NoteKind.UPDATE, news, fate))

    def raise_priority(self, news: News, state: TicketState | None) -> str:
        """Sets the ticket's priority when the severity rose. What became of it, as a sentence; '': nothing to say."""
        if not news.severity_rose or state is None or state.closed:
            return ""
        self.turn.request_step()
        try:
            raised = self.connector.raise_priority(self.ref, news.severity_before, self.report.severity)
        except Rejected as refused:
            return f"The ticket system did not let its priority be raised: {refused}"
        if raised:
            self.log.info("priority raised", ticket_id=self.ref.id, severity=self.report.severity)
            return "The ticket's priority was raised."
        return "The ticket's priority was left as a person set it."

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """One note with the outcome, and the closed status, as `on_close` and what people did to the ticket allow."""
        if self.settings.on_close == "nothing":
            self.finish(
                Plan("end", self.claim.version, facts(self.report), remark="left as it is: on_close is nothing")
            )
            return
        state = self.look()
        if state is not None and state.closed and self.claim.adopt:
            self.finish(Plan("end", self.claim.version, facts(self.report)))  # it was told before the store was lost
            return
        close, left = False, ""
        if state is not None and not state.closed:
            left = "on_close is note" if self.settings.on_close == "note" else self.moved_on(state)
            close = not left
        fate = "This ticket is closed." if close else f"It is left open, because {left}." if left else ""
        remark = f"left open: {left}" if left else ""
        news = compare(self.claim.facts, self.report)
        plan = self.note_plan("end", NoteKind.ENDED, news, fate)
        self.carry_out(replace(plan, close=close, remark=_joined(remark, plan.remark)))

    # -- open again ----------------------------------------------------------------------------------------------------

    def reopen(self) -> None:
        """The old ticket is opened again, or a new one made that links it."""
        if not reconcile.takes_up_again(self.claim, self.settings, self.store.now()):
            self.anew()
            return
        state = self.look()
        fate = ""
        if state is not None and state.closed:
            self.turn.request_step()
            try:
                status = self.connector.reopen_ticket(self.ref, next(iter(self.claim.statuses), ""))
            except Rejected as refused:
                self.log.warning("the ticket cannot be opened again; a new one is made", reason=str(refused))
                self.anew()
                return
            self.log.info("ticket opened again", ticket_id=self.ref.id, status=status)
            # Who closes it now is a person again, until the bridge does.
            self.store.tell(self.claim, statuses=[status], forget=state.status if state.status != status else "")
            fate = "This ticket is opened again."
        self.carry_out(self.note_plan("reopen", NoteKind.REOPENED, compare(self.claim.facts, self.report), fate))

    def anew(self) -> None:
        fresh = reference(self.report, self.settings.reference_suffix, self.claim.tickets + 1)
        self.log.info("the report is open again and gets a new ticket", former=self.ref.id, reference=fresh)
        self.store.anew(self.claim, fresh)
        self.store.release(self.claim, delay=0)

    # -- carrying out --------------------------------------------------------------------------------------------------

    def note_plan(self, step: str, kind: NoteKind, news: News | None, fate: str) -> Plan:
        """The plan for a note; its key follows from what it tells, so that it is the same whenever it is made."""
        now = facts(self.report)
        if step == "end":  # also when the store was lost meanwhile
            told: tuple[str, ...] = (self.report.status, str(self.report.closed_at), str(self.claim.ends))
        else:
            moment = self.report.updated_at or self.report.closed_at
            told = (self.claim.facts, now, str(moment), str(self.claim.version))
        digest = hashlib.sha256("\0".join(told).encode("utf-8", "surrogatepass")).hexdigest()
        note, problems = self.turn.rendered_note(kind, key=f"{kind}-{digest[:8]}", news=news, fate=fate)
        return Plan(step, self.claim.version, now, note.key, note.title, note.text, remark=problems)

    def carry_out(self, plan: Plan, *, resumed: bool = False) -> None:
        if plan.key:
            told = self.send(plan, resumed=resumed)
            if told is None:
                return
            plan = told
        if plan.close and resumed and (why := self.overtaken()):
            plan = replace(plan, close=False, remark=_joined(f"left open: {why}", plan.remark))
        if plan.close:
            self.turn.request_step()
            try:
                status = self.connector.close_ticket(self.ref, self.resolution(plan))
            except Rejected as refused:
                self.refused(plan, refused)
                return
            self.log.info("ticket closed", ticket_id=self.ref.id, status=status)
            self.store.tell(self.claim, statuses=[status])
        self.finish(plan)

    def send(self, plan: Plan, *, resumed: bool) -> Plan | None:
        """Adds the plan's note; None: whether it was added is not known yet, and the turn is over."""
        claim = self.claim
        if resumed and claim.planned_at is not None:
            self.turn.request_step()
            try:
                present = self.connector.has_note(self.ref, claim.reference, plan.key)
            except Rejected:
                self.look()  # a ticket that is gone shows no notes; what one that is there refuses, its next note says
                present = None
            if present:
                self.turn.did(What.NOTED, plan.key)
                return plan
            left = claim.planned_at + self.settings.settle - self.store.now()
            if present is False and left > 0:
                self.log.info("waiting", reason="whether the note was added is being looked up", seconds=round(left, 1))
                self.store.release(
                    claim,
                    reason=f"the ticket exists; whether {self.turn.doing} was done is being looked up",
                    kind="doubt",
                    delay=min(left, reconcile.back_off(claim.failures, reconcile.UNAVAILABLE_WAIT, self.turn.draw)),
                    failures=claim.failures + 1,
                )
                return None
        if not self.store.plan(claim, plan.as_json(), sending=True):
            raise Unavailable(LEASE_LOST)
        try:
            self.turn.note(self.ref, Note(plan.key, plan.title, plan.text))
        except Rejected as refused:
            self.look()  # a ticket that is gone takes no note either
            self.log.warning("note refused", ticket_id=self.ref.id, reason=str(refused))
            remark = f"{self.turn.doing} failed: {refused}"
            self.turn.did(What.REJECTED, remark)
            return replace(plan, remark=_joined(plan.remark, remark))
        except (Unavailable, Misconfigured):
            self.store.plan(claim, plan.as_json(), sending=False)
            raise
        return plan

    def overtaken(self) -> str:
        """Why the ticket is not closed after all: what came up since that was planned. '': nothing did."""
        if not self.claim.over:
            return "the report is open again"
        state = self.look()
        return "" if state is None or state.closed else self.moved_on(state)

    def moved_on(self, state: TicketState) -> str:
        """Why a ticket that is not closed is left to a person; '': nobody touched it."""
        untouched = self.connector.untouched(state)
        if reconcile.moved_on(self.claim, state, untouched=untouched, now=self.store.now()):
            return f"a person has moved it on (status {state.status_name or state.status})"
        return ""

    def resolution(self, plan: Plan) -> str:
        """What the customer's contacts may read of the end; the note tells what was found on whose host."""
        told = isinstance(self.settings, PsaSettings) and self.settings.visibility == "customer"
        return plan.text if told else plan.title

    def refused(self, plan: Plan, refused: Rejected) -> None:
        """A close that the ticket system does not take: one note and one reason, and no second attempt."""
        self.log.warning("the ticket system does not close the ticket", ticket_id=self.ref.id, reason=str(refused))
        try:
            self.turn.note(self.ref, notes.close_refused(plan.key, str(refused)))
        except Rejected as no_note:
            self.look()  # a ticket that is gone takes neither
            self.log.warning("note refused", ticket_id=self.ref.id, reason=str(no_note))
        remark = f"the report is over, but the ticket system did not close the ticket ({refused}); close it by hand"
        self.turn.did(What.REJECTED, remark)
        self.store.tell(
            self.claim,
            told=plan.version,
            facts=plan.facts,
            ended=True,
            remark=_joined(remark, plan.remark),
            told_note=plan.key,
        )
        self.store.release(self.claim)

    def finish(self, plan: Plan) -> None:
        self.log.info("done", step=plan.step, ticket_id=self.ref.id, remark=plan.remark or None)
        self.store.tell(
            self.claim,
            told=plan.version,
            facts=plan.facts,
            state={"end": DeliveryState.CLOSED, "reopen": DeliveryState.CREATED}.get(plan.step),
            ended={"end": True, "reopen": False}.get(plan.step),
            remark=plan.remark if plan.remark or plan.step == "reopen" else None,
            told_note=plan.key,
        )
        self.store.release(self.claim)

    def give_up(self, why: str) -> None:
        """The ticket is no longer there to be followed; it is not made again."""
        self.log.warning("the ticket is gone", ticket_id=self.ref.id, why=why)
        self.store.tell(self.claim, told=self.claim.version, state=DeliveryState.GONE, remark=why)
        self.store.release(self.claim)

    def look(self) -> TicketState | None:
        """How the ticket stands; None: its system cannot be asked. Raises `Gone`."""
        self.turn.request_step()
        state = self.connector.look(self.ref)
        if state is not None and state.gone:
            made_at = self.claim.made_at
            if made_at is not None and 0 <= self.store.now() - made_at < self.settings.settle:
                raise Unavailable(f"the ticket, made just now, is not shown yet ({state.gone})")
            raise Gone(state.gone)
        return state
