"""A test ticket: the built-in sample report as a ticket that is made, found again by its reference, and closed.

It goes the way of every ticket, templates and pauses included, but belongs to no report and is not kept in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import redis
import structlog

from bridge.delivery import Service, pause_as_asked
from bridge.huntress import SourceError
from bridge.models import Account, CompanyMatch, CompanySource, Ticket, TicketRef
from bridge.preview import sample_agent, sample_organization, sample_report
from bridge.rendering import RenderInput, within_limit
from bridge.runtime import DETAILS_TIMEOUT, Runtime
from bridge.text import size
from connectors.base import Connector, Misconfigured, Outcome, OutcomeUnknown, PsaSettings, TemplatePart, Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Starts the title of every test ticket.
MARK = "[TEST]"
#: Says so in its texts.
SENTENCE = "This is a test ticket. No incident is behind it, and nothing is to be done."
#: Seconds for which a ticket that was made is looked for, and between two looks.
PATIENCE = 60.0
LOOK_EVERY = 3.0


@dataclass(frozen=True, slots=True)
class TrialStep:
    """One thing that was tried: `look up`, `render`, `create`, `complete`, `find again` or `close`."""

    what: str
    ok: bool
    #: What came of it, as a sentence for people. A ticket system's own words may be in it: clean before showing.
    text: str
    #: How long it took.
    seconds: float


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of a test ticket. `ticket` is the one that was made, as far as is known."""

    connector: str
    reference: str
    steps: tuple[TrialStep, ...]
    ticket: TicketRef | None = None
    #: Does a test ticket stay behind in the ticket system, or might it?
    remains: bool = False

    @property
    def ok(self) -> bool:
        """Did every step succeed?"""
        return all(step.ok for step in self.steps)


class _Failed(Exception):
    """A step failed, and no later one makes sense."""


class _Prepared(NamedTuple):
    """What the first steps made ready."""

    ticket: Ticket
    request: object


@dataclass
class _Kept:
    """`connectors.base.Progress` in memory: there is no second attempt that would need it."""

    saved: dict[str, str] = field(default_factory=dict)

    def get(self) -> Mapping[str, str]:
        return self.saved

    def save(self, key: str, value: str) -> None:
        self.saved[key] = value


def send_trial(
    runtime: Runtime,
    connector: str,
    *,
    account: Account | None = None,
    tell: Callable[[TrialStep], None] = lambda step: None,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> TrialResult:
    """Makes a test ticket in `connector`, finds it by its reference, and closes it. Whatever fails is in the result.

    `tell` hears of each step when it is over. `account`: the source's, when the caller knows it. Takes a few requests,
    and up to `PATIENCE` seconds more where the ticket system is slow to show what it made. Raises `KeyError` when there
    is no such connector.
    """
    service = runtime.services[connector]
    account = account or _account(runtime)
    number = f"test{round(now() * 1000)}"
    reference = f"huntress-{account.id}-{number}{service.settings.reference_suffix}"
    trial = _Trial(runtime, service, account, reference, tell, clock, sleep)
    try:
        trial.run()
    except _Failed:
        log.warning("the test ticket failed", connector=connector, step=trial.steps[-1].what)
    return TrialResult(connector, reference, tuple(trial.steps), trial.ref, trial.remains)


def _account(runtime: Runtime) -> Account:
    """As the poller knows it, else as the source says within a short time, else none."""
    known = runtime.account()
    if known is not None:
        return known
    try:
        return runtime.assembly.source.account(wait=DETAILS_TIMEOUT)
    except SourceError:
        return Account(runtime.settings.huntress.account_id)


class _Trial:
    """One test ticket on its way."""

    def __init__(
        self,
        runtime: Runtime,
        service: Service,
        account: Account,
        reference: str,
        tell: Callable[[TrialStep], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.runtime = runtime
        self.service = service
        self.connector = service.connector
        self.account = account
        self.reference = reference
        self.tell = tell
        self.clock = clock
        self.sleep = sleep
        self.steps: list[TrialStep] = []
        self.ref: TicketRef | None = None
        self.remains = False
        #: Has the create request perhaps been carried out?
        self.in_doubt = False

    def run(self) -> None:
        """All steps in order. Raises `_Failed` after one that makes the later ones senseless."""
        self.step("look up", self.look_up)
        prepared = self.step("render", self.render)
        ref = self.step("create", lambda: self.create(prepared))
        with suppress(_Failed):
            ref = self.step("complete", lambda: self.complete(ref, prepared.ticket))
        with suppress(_Failed):
            self.step("find again", lambda: self.find_again(ref))
        with suppress(_Failed):
            self.step("close", lambda: self.close(ref))

    def step(self, what: str, do: Callable[[], tuple[str, T]]) -> T:
        """The result of one step. Raises `_Failed` when it has none."""
        began = self.clock()
        try:
            text, result = do()
        except Outcome as outcome:
            text = str(outcome)
            try:
                pause_as_asked(self.runtime.store, self.service.name, outcome)
            except redis.RedisError as error:
                text += f"; the pause that it asks for could not be kept, as Redis does not answer ({error})"
        except redis.RedisError as error:
            text = f"Redis does not answer ({error}), so nothing more was sent"
        except Exception as error:  # a connector may come from anywhere, and the person who asked needs an answer
            log.exception("an error inside the test ticket", connector=self.service.name, step=what)
            text = f"an error inside the bridge ({type(error).__name__}); the log has its details"
        else:
            self.note(TrialStep(what, True, text, self.clock() - began))
            return result
        self.note(TrialStep(what, False, f"{text.rstrip('.')}{self.left(what)}.", self.clock() - began))
        raise _Failed

    def note(self, step: TrialStep) -> None:
        self.steps.append(step)
        self.tell(step)

    def left(self, what: str) -> str:
        """What a failed step leaves behind, as the end of its sentence."""
        if self.ref is None:
            if self.in_doubt:
                self.remains = True
                return f"; look for a ticket with the reference {self.reference} and close it by hand"
            return "; no test ticket was made"
        if what == "close":
            self.remains = True
            return f"; {_named(self.ref)} stays open, close it by hand"
        return ""

    # -- the steps -----------------------------------------------------------------------------------------------------

    def look_up(self) -> tuple[str, None]:
        if not self.connector.can_find:
            self.connector.context.before_request()
            return f"{self.service.name} cannot be asked what it received, so nothing was looked up.", None
        if self.connector.find(self.reference):
            raise Unavailable(f"a ticket with the reference {self.reference} is there before it was made")
        return "Asked for the reference, and no ticket has it yet.", None

    def render(self) -> tuple[str, _Prepared]:
        report = sample_report()
        report = replace(
            report,
            account_id=self.account.id,
            subject=f"{MARK} Sample incident, nothing to do",
            summary=SENTENCE,
            severity="low",  # whoever is on call sleeps on
        )
        given = RenderInput(
            report=report,
            reference=self.reference,
            organization=sample_organization(report),
            agent=sample_agent(report),
            account=replace(self.account, subdomain=""),  # a link would lead to somebody's report of that number
            company=self.company(),
        )
        rendered = self.service.renderer.render(given)
        ticket = _marked(rendered.ticket, self.connector)
        prepared = self.connector.prepare(ticket)
        if rendered.problems:
            return f"Rendered plainly, because of the templates: {'; '.join(rendered.problems)}", _Prepared(
                ticket, prepared
            )
        where = f" for company {given.company.company.name or given.company.company.id}" if given.company else ""
        return f"Rendered the sample report as {ticket.title!r}{where}.", _Prepared(ticket, prepared)

    def company(self) -> CompanyMatch | None:
        if self.connector.companies() is None:
            return None
        settings = self.service.settings
        default = settings.default_company if isinstance(settings, PsaSettings) else None
        key = f"connectors.{self.service.name}.default_company"
        if default is None:
            raise Misconfigured(f"{key} is not set, and a test ticket needs it: set a catch-all company")
        company = self.connector.company(default)
        if company is None:
            raise Misconfigured(f"{key} = {default!r} is no company, or not a single one; name one that exists")
        return CompanyMatch(company, CompanySource.CATCH_ALL, "this is a test ticket")

    def create(self, prepared: _Prepared) -> tuple[str, TicketRef]:
        self.in_doubt = True
        how = "Created"
        try:
            ref = self.connector.create(prepared.request, _Kept())
        except OutcomeUnknown as unknown:
            if not self.connector.can_find:
                raise
            found = self.wait_for_it()
            if found is None:
                raise OutcomeUnknown(
                    f"{unknown}; it was looked for and not found", retry_after=unknown.retry_after
                ) from unknown
            ref, how = found, f"The answer was lost ({unknown}), but the look-up found"
        except Outcome as outcome:
            self.in_doubt = not self.connector.can_find and not isinstance(outcome, (Unavailable, Misconfigured))
            raise
        self.ref = ref
        return f"{how} {_named(ref)}.", ref

    def complete(self, ref: TicketRef, ticket: Ticket) -> tuple[str, TicketRef]:
        self.ref = self.connector.complete(ref, ticket)
        return f"It is {_named(self.ref)}.", self.ref

    def find_again(self, ref: TicketRef) -> tuple[str, None]:
        if not self.connector.can_find:
            return "A mail that was sent cannot be looked up; look into the mailbox.", None
        found = self.wait_for_it()
        if found is None:
            raise Misconfigured(
                f"{self.service.name} creates what it cannot find: a search for {self.reference} finds nothing; let "
                "the API user see all boards or queues and their tickets"
            )
        if found.id != ref.id:
            raise Misconfigured(f"the search for {self.reference} finds another ticket, {_named(found)}")
        return f"Found again by its reference {self.reference}.", None

    def wait_for_it(self) -> TicketRef | None:
        """The ticket with the reference, as soon as the ticket system shows it."""
        until = self.clock() + min(PATIENCE, self.service.settings.settle)
        while True:
            found = self.connector.find(self.reference)
            if found:
                return found[0]
            if self.clock() + LOOK_EVERY > until:
                return None
            self.sleep(LOOK_EVERY)

    def close(self, ref: TicketRef) -> tuple[str, None]:
        if type(self.connector).close_ticket is Connector.close_ticket:
            self.remains = True
            if not self.connector.can_find:
                return "There is nothing to close: the mail stays where it arrived.", None
            return f"{self.service.name} cannot close tickets: {_named(self.ref or ref)} stays; close it by hand.", None
        self.connector.close_ticket(ref, SENTENCE)
        state = self.connector.look(ref)
        if state is not None and not (state.closed or state.gone):
            raise Misconfigured(f"it was closed, and its status is {state.status_name or state.status!r} again")
        return f"Closed {_named(self.ref or ref)}.", None


def _named(ref: TicketRef) -> str:
    return f"ticket {ref.number or ref.id}{f' ({ref.url})' if ref.url else ''}"


def _marked(ticket: Ticket, connector: Connector) -> Ticket:
    """The ticket with a mark that nobody can overlook, within the connector's limits.

    The host goes: that of a sample is nobody's, and would be linked.
    """
    parts = {part.name: part for part in connector.parts()}

    def within(name: str, text: str) -> str:
        return within_limit(text, parts.get(name, TemplatePart(name, "")), ticket.reference)

    bare = ticket.title.removeprefix(MARK).lstrip()
    return replace(
        ticket,
        title=within("title", f"{MARK} {bare}"),
        text=within("text", f"{SENTENCE}\n\n{ticket.text}") if size(ticket.text) else "",
        notice=within("notice", f"{SENTENCE} {ticket.notice}") if ticket.notice else "",
        agent=None,
    )
