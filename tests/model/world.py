"""The real store and the real delivery code under a scheduler: one step at a time, in any order, with every fault.

A *step* is one command to Redis or one request to the ticket system. Each worker takes its turn in a thread that waits
for permission before every step, so whoever drives the `World` decides the order, and where a worker dies, freezes or
is lied to. Time stands still unless it is passed; a run is the same each time it is driven the same way.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import redis
import structlog

from bridge import idempotency
from bridge.bookkeeping import Bookkeeping
from bridge.companies import Companies
from bridge.delivery import Deliverer, Service, Surroundings
from bridge.details import Details
from bridge.dispatcher import Dispatcher
from bridge.idempotency import IdempotencyStore, script_text
from bridge.leadership import Leadership
from bridge.leases import RENEW_EVERY, Gate, LeaseKeeper
from bridge.models import Account, IncidentReport, Note, Organization, Ticket, TicketRef
from bridge.probe import Prober
from bridge.rendering import Rendered, Renderer, RenderInput
from connectors.base import (
    Connector,
    ConnectorContext,
    ConnectorSettings,
    Finding,
    Misconfigured,
    OutcomeUnknown,
    Progress,
    Rejected,
    TemplatePart,
    Unavailable,
)
from tests.model.model import FIELDS, RESTING, SETTLE, Command, Phase, Seen, check_move, check_record, require, seen

#: The one connector.
PSA = "psa"
#: Seconds since the epoch when every run begins.
BEGINNING = 1_700_000_000
#: Seconds that the scheduler waits for a worker to come to its next step.
PATIENCE = 20.0

#: What may go wrong with a command to Redis: it is not carried out; it is, and the answer is lost; or it is carried out
#: twice, as redis-py repeats a command whose answer was lost.
REDIS_FAULTS = ("away", "answer lost", "twice")
#: What may go wrong with a request that asks, or changes what is safe to repeat.
REQUEST_FAULTS = ("refused", "time-out", "misconfigured")
#: What may go wrong with a create: beside those, it is carried out and the answer is lost, at once or after so many
#: seconds; it is carried out and no search shows it for so many seconds; or the system says no.
CREATE_FAULTS = (*REQUEST_FAULTS, "answer lost", "late 5", "late 29", "late 58", "hidden 20", "hidden 58", "rejected")


def faults_of(step: str) -> tuple[str, ...]:
    """What may go wrong with a step."""
    if step in ("", "answer"):
        return ()
    if step in ("find", "complete", "note", "check"):
        return REQUEST_FAULTS
    return CREATE_FAULTS if step == "create" else REDIS_FAULTS


class Crash(BaseException):
    """The process of this worker is no more."""


class Turnstile:
    """Lets a thread take one step at a time."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._doomed = False
        self._fault = ""
        #: The step that waits for permission; '' when the thread has come to its end.
        self.at = ""

    def run(self, work: Callable[[], None]) -> None:
        """Starts a thread and waits for its first step."""

        def whole() -> None:
            try:
                work()
            except (Crash, redis.RedisError):
                pass  # dead, or Redis was away when the delivery was claimed: the message is lost
            finally:
                self.at = ""
                self._arrived.release()

        self._thread = threading.Thread(target=whole, daemon=True)
        self._thread.start()
        self._wait()

    def __call__(self, step: str) -> str:
        """In the thread: waits for permission; returns the fault to suffer. Elsewhere steps need no permission."""
        if threading.current_thread() is not self._thread:
            return ""
        if self._doomed:
            raise Crash
        self.at = step
        self._arrived.release()
        self._go.acquire()
        if self._doomed:
            raise Crash
        return self._fault

    def let(self, fault: str = "") -> None:
        """Permits one step and waits for the next to come."""
        self._fault = fault
        self._go.release()
        self._wait()

    def end(self) -> None:
        """The thread ends where it stands and does nothing more."""
        self._doomed = True
        if self.at:
            self.let()

    def _wait(self) -> None:
        assert self._arrived.acquire(timeout=PATIENCE), f"no step came after {self.at!r}"
        if not self.at and self._thread is not None:
            self._thread.join(PATIENCE)


class SteppedRedis(redis.Redis):
    """A client whose commands are steps, on a server whose clock stands still; the store's `clock_offset` moves it."""

    turnstile: Turnstile
    world: World

    def setup(self, turnstile: Turnstile, world: World) -> None:
        self.turnstile, self.world = turnstile, world

    def register_script(self, script: Any) -> Any:
        frozen = cast(str, script).replace("redis.call('TIME')", f"{{'{BEGINNING}', '0'}}")
        assert frozen != script
        registered = super().register_script(frozen)
        if registered.sha not in self.world.loaded:
            super().execute_command("SCRIPT LOAD", frozen)  # type: ignore[no-untyped-call]
            self.world.loaded[registered.sha] = next(name for name, text in SCRIPTS.items() if script == text)
        return registered

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "TIME":
            return (BEGINNING, 0)
        if args[0] == "INFO":
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        command = self._command(args)
        fault = self.turnstile(command.name)
        if fault == "away":
            raise redis.ConnectionError("Redis is away")
        if args[0] == "EVALSHA":  # time may have passed since this step was asked for
            args = (*args[:4], round((self.world.now - BEGINNING) * 1000), *args[5:])
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if fault == "twice":
            answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.world.carried_out(command)
        if fault == "answer lost":
            raise redis.ConnectionError("the answer was lost")
        if command.name in ("claim", "begin_create"):
            self.turnstile("answer")  # what a lease allows must not depend on when its answer is read
        return answer

    def _command(self, args: Sequence[Any]) -> Command:
        """Arguments of a script: EVALSHA, digest, 1, prefix, offset, birth mark, then the script's own."""
        if args[0] != "EVALSHA":
            return Command(str(args[0]).lower())
        name = self.world.loaded[args[1]]
        own = args[6:]
        if name not in ("claim", "begin_create", "record", "release", "progress", "renew"):
            return Command(name)
        return Command(name, int(own[0]), own[2], int(own[3]) if name == "record" else None)


#: Scripts by name, as the store hands them over.
SCRIPTS = {path.stem: script_text(path.stem) for path in Path(idempotency.__file__).parent.glob("lua/*.lua")}


@dataclass
class Made:
    """A ticket in the ticket system. Times are seconds by the world's clock."""

    id: int
    reference: str
    #: When a search shows it.
    visible_at: float
    #: When its worker last made sure of its lease before it sent the request.
    checked_at: float
    number: str = ""

    @property
    def late(self) -> bool:
        """It shows later than `settle` after it was sent: nothing is promised then but that the lower id is kept."""
        return self.visible_at > self.checked_at + SETTLE


class TicketSystem:
    """What the ticket system holds. Ids rise with the time a ticket is made."""

    def __init__(self) -> None:
        self.tickets: list[Made] = []
        self.requests: list[tuple[str, str]] = []
        #: Creates that are carried out later: (when, reference, checked at).
        self.late: list[tuple[float, str, float]] = []
        #: The user may create but not search.
        self.blind = False
        #: Seconds until a search shows what was made.
        self.lag = 0.0

    def create(self, reference: str, now: float, checked_at: float, hidden: float = 0) -> Made:
        made = Made(len(self.tickets) + 1, reference, now + max(self.lag, hidden), checked_at)
        self.tickets.append(made)
        return made

    def find(self, reference: str, now: float) -> list[Made]:
        if self.blind:
            return []
        return [made for made in self.tickets if made.reference == reference and made.visible_at <= now]

    def pass_to(self, now: float) -> None:
        """Carries out what comes late."""
        for at, reference, checked_at in sorted(each for each in self.late if each[0] <= now):
            self.create(reference, at, checked_at)
        self.late = [each for each in self.late if each[0] > now]


class PretendConnector(Connector):
    """A worker's way to the ticket system: each request is a step, and so is the way of a create's answer."""

    type = "pretend"
    settings_class = ConnectorSettings

    def __init__(self, world: World, step: Turnstile, context: ConnectorContext) -> None:
        super().__init__(PSA, None, context)
        self.world = world
        self.step = step

    def parts(self) -> Sequence[TemplatePart]:
        return []

    def system(self) -> str:
        return "pretend"

    def _request(self, what: str, about: str = "") -> str:
        """One request; returns a fault that is the caller's own business."""
        self.context.before_request()
        fault = self.step(what)
        self.world.system.requests.append((what, about))
        match fault:
            case "refused":
                raise Unavailable("connection refused")
            case "time-out":
                raise OutcomeUnknown("no answer in time")
            case "misconfigured":
                raise Misconfigured("no such board")
        return fault

    def check(self) -> list[Finding]:
        self._request("check")
        return []

    def find(self, reference: str) -> list[TicketRef]:
        self._request("find", reference)
        found = self.world.system.find(reference, self.world.now)
        self.step("answer")
        return [TicketRef(str(made.id), made.number) for made in found]

    def prepare(self, ticket: Ticket) -> str:
        return ticket.reference

    def create(self, prepared: str, progress: Progress) -> TicketRef:
        system, checked_at = self.world.system, self.world.now
        fault, _, seconds = self._request("create", prepared).partition(" ")
        match fault:
            case "rejected":
                raise Rejected("not this one")
            case "late":
                system.late.append((self.world.now + float(seconds), prepared, checked_at))
                self.step("answer")
                raise OutcomeUnknown("no answer in time")
        made = system.create(prepared, self.world.now, checked_at, float(seconds) if fault == "hidden" else 0)
        self.step("answer")
        if fault == "answer":
            raise OutcomeUnknown("no answer in time")
        return TicketRef(str(made.id))

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        self._request("complete", ref.id)
        self.world.system.tickets[int(ref.id) - 1].number = f"T{ref.id}"
        return replace(ref, number=f"T{ref.id}")

    def note(self, ref: TicketRef, reference: str, note: Note) -> None:
        self._request("note", ref.id)


class PlainRenderer:
    """In the place of `Renderer`: what a ticket says is nothing to this."""

    def render(self, given: RenderInput, *, plain: bool = False) -> Rendered:
        return Rendered(Ticket(given.reference, given.report.id, "title", "text", "notice"))


class NoDetails:
    """In the place of `Details`: there are none."""

    def of(self, report: IncidentReport) -> tuple[Organization | None, None, bool]:
        return None, None, False


class Process:
    """One process of the bridge that holds the real store, leases, prober and deliverer, but no threads of its own."""

    def __init__(self, world: World) -> None:
        self.turnstile = Turnstile()
        self.client = SteppedRedis(connection_pool=world.pool)
        self.client.setup(self.turnstile, world)
        self.store = IdempotencyStore(self.client, settle=SETTLE, clock_offset=world.now - BEGINNING)
        self.store.open()
        self.keeper = LeaseKeeper(self.store, clock=lambda: world.now)
        gate = Gate(self.store, self.keeper, PSA)
        self.prober = Prober(self.store, lambda name: gate.probing())
        connector = PretendConnector(world, self.turnstile, ConnectorContext(before_request=gate))
        settings = ConnectorSettings(type="pretend", settle=SETTLE)
        self.service = Service(PSA, connector, settings, cast(Renderer, PlainRenderer()), limit=2)
        around = Surroundings(
            {PSA: self.service}, Companies(None, "off"), cast(Details, NoDetails()), lambda: Account(5)
        )
        self.deliverer = Deliverer(
            self.store, self.keeper, self.prober, lambda: around, draw=random.Random(1), sleep=lambda _: None
        )
        self.store.unprove(PSA, world.settings, changed=False)
        #: Stopped in the middle of whatever it does; its leases are not renewed.
        self.frozen = False

    @property
    def claimed(self) -> tuple[int | None, str]:
        """Report and token of the claim it holds, or held."""
        leases = list(self.keeper._leases)
        return (leases[0].claim.report_id, leases[0].claim.token) if leases else (None, "")

    @property
    def at(self) -> str:
        """The step this process' turn waits for; '' when it takes none."""
        return self.turnstile.at


class World:
    """Workers, a process that polls and dispatches, the ticket system, the source, the time. To be closed after use."""

    def __init__(self, url: str, *, workers: int = 3) -> None:
        self.now = float(BEGINNING)
        self.system = TicketSystem()
        self.pool = redis.ConnectionPool.from_url(url, decode_responses=True)
        self.eye = redis.Redis(connection_pool=self.pool)
        self.eye.flushdb()
        #: Scripts that Redis knows, by their digests.
        self.loaded: dict[str, str] = {}
        self.errors: list[str] = []
        #: What stands for the connector's settings when a process starts.
        self.settings = "as first configured"
        #: Reports open at the source, with what they say.
        self.open: dict[int, str] = {}
        self.records: dict[int, Seen] = {}
        self.hints: deque[int] = deque()
        self.steps = 0
        self.done: Command | None = None
        self._failure: BaseException | None = None
        self._stack = ExitStack()
        self._stack.enter_context(mock.patch("secrets.randbelow", lambda most: most - 1))
        structlog.configure(processors=[self._logged], wrapper_class=structlog.make_filtering_bound_logger(40))
        self._stack.callback(structlog.reset_defaults)
        self.hub = Process(self)
        self.books = Bookkeeping(self.hub.store)
        self.leadership = Leadership(self.hub.store, "dispatcher", patience=1e9, clock=lambda: self.now)
        self.dispatcher = Dispatcher(
            self.hub.store,
            lambda: {PSA: self.hub.service},
            self.leadership,
            self.hub.prober,
            lambda report, _: self.hints.append(report),
            clock=lambda: self.now,
        )
        self.workers = [Process(self) for _ in range(workers)]

    def close(self) -> None:
        for worker in self.workers:
            worker.turnstile.end()
        self._stack.close()
        self.pool.disconnect()

    def _logged(self, _: Any, __: str, event: Mapping[str, Any]) -> str:
        if "inside the bridge" in str(event["event"]):
            self.errors.append(f"{event['event']}: {event.get('exc_info')!r}")
        raise structlog.DropEvent

    # -- the model looks on --------------------------------------------------------------------------------------------

    def carried_out(self, command: Command) -> None:
        """Checks what a command did to the records against the model."""
        if command.name in ("hgetall", "hget", "hmget", "exists"):
            return
        self.check(command)

    def check(self, *commands: Command) -> None:
        """Is every record in a phase, did each come there by a legal move? `commands`: one, or several of one name."""
        pipeline = self.eye.pipeline(transaction=False)
        known = sorted({*self.open, *self.records})
        for report in known:
            pipeline.hmget(f"bridge:delivery:{report}:{PSA}", FIELDS)
            pipeline.zscore(f"bridge:due:{PSA}", str(report))
            pipeline.zscore(f"bridge:ready:{PSA}", str(report))
        answers = iter(pipeline.execute())
        try:
            for report, record, due, ready in zip(known, answers, answers, answers, strict=False):
                after = seen(record, scheduled=due is not None or ready is not None)
                before = self.records.get(report, Seen())
                mine = [each for each in commands if each.report == report]
                owners = [each for each in mine if each.token == before.owner]
                command = next(iter(owners or mine), Command(commands[0].name))
                check_move(before, after, command, self.now)
                check_record(after)
                self.records[report] = after
        except AssertionError as failure:
            self._failure = self._failure or failure
        self._check_tickets()

    def _check_tickets(self) -> None:
        try:
            for reference in {made.reference for made in self.system.tickets}:
                made = [each for each in self.system.tickets if each.reference == reference]
                require(sum(not each.late for each in made) <= 1, "one report makes one ticket", *made)
            require(not self.errors, "no error of the bridge's own", *self.errors)
        except AssertionError as failure:
            self._failure = self._failure or failure

    def _judge(self) -> None:
        """Raises what was found; a worker's thread cannot."""
        self._check_tickets()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def phase(self, report: int) -> Phase:
        return self.records.get(report, Seen()).phase

    # -- workers -------------------------------------------------------------------------------------------------------

    def start(self, worker: int, report: int) -> None:
        """An idle worker gets a message, whether or not the delivery is due."""
        process = self.workers[worker]
        if not process.at:
            process.turnstile.run(lambda: process.deliverer.deliver(report, PSA))
            self._judge()

    def step(self, worker: int, fault: str = "", *, times: int = 1) -> int:
        """Lets a worker take steps, the last one with a fault. Returns how many there were to take."""
        process = self.workers[worker]
        for taken in range(times):
            if not process.at or process.frozen:
                return taken
            process.turnstile.let(fault if taken == times - 1 else "")
            self.steps += 1
            self._judge()
        return times

    def go_to(self, worker: int, step: str) -> bool:
        """Lets a worker go on until it comes to `step`. False when it does not come there in this turn."""
        process = self.workers[worker]
        while process.at and process.at != step and self.step(worker):
            pass
        return process.at == step and not process.frozen

    def finish(self, worker: int) -> None:
        """Lets a worker end its turn."""
        assert self.step(worker, times=300) < 300, "a turn never ends"

    def crash(self, worker: int) -> None:
        """A worker's process dies where it stands; another starts in its place."""
        self.workers[worker].turnstile.end()
        self.workers[worker] = Process(self)
        self._judge()

    def freeze(self, worker: int) -> None:
        self.workers[worker].frozen = True

    def thaw(self, worker: int) -> None:
        self.workers[worker].frozen = False

    # -- everything else -----------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Time passes; whoever runs renews its leases meanwhile."""
        until = self.now + seconds
        while self.now < until:
            moving = [one for one in self.workers if one.at and not one.frozen]
            self.now = min(until, self.now + 2 * RENEW_EVERY) if moving else until
            self.system.pass_to(self.now)
            for process in (self.hub, *self.workers):
                process.store.clock_offset = self.now - BEGINNING
            for process in moving:
                process.keeper.renew()
            if moving:
                self.check(*(Command("renew", *process.claimed) for process in moving))
        self.eye.delete(f"bridge:suspect:{PSA}")  # it would have ended by itself, on Redis' own clock
        self._judge()

    def poll(self) -> None:
        """The poller lists what is open. It notices a rebirth as the real one does: in its next cycle."""
        store, started = self.hub.store, self.hub.store.now()
        leader = int(store.script("lead", "poller", "hub", 6000))
        reports = [IncidentReport(id, account_id=5, subject=text, severity="low") for id, text in self.open.items()]
        store.observe(leader, [(report, [(PSA, reference(report.id))]) for report in reports])
        self.check(Command("observe"))
        store.forget_unlisted(started)
        self._judge()

    def dispatch(self) -> None:
        """The dispatcher enqueues what is due."""
        assert self.leadership.attempt()
        self.dispatcher.look()
        self._judge()

    def hand_out(self) -> list[int]:
        """Idle workers fetch messages. Returns the workers that did."""
        fetched = []
        for number, process in enumerate(self.workers):
            if self.hints and not process.at and not process.frozen:
                self.start(number, self.hints.popleft())
                fetched.append(number)
        return fetched

    def probe(self) -> None:
        self.hub.prober.probe_due({PSA: self.hub.service}, threading.Event())
        self._judge()

    def retry(self, report: int) -> None:
        """A person wants it tried again."""
        self.hub.store.retry(report, PSA)
        self.check(Command("retry"))
        self._judge()

    def empty(self) -> None:
        """Redis loses everything."""
        self.eye.flushdb()
        self.check(Command("empty"))
        self._judge()

    # -- the end -------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Everybody does what there is to do now."""
        self.poll()
        self.probe()
        while True:
            self.dispatch()
            fetched = self.hand_out()
            if not fetched:
                return
            for worker in fetched:
                self.finish(worker)

    def come_to_rest(self, rounds: int = 80) -> None:
        """No more faults: everything runs fairly until nothing moves any more."""
        for number, process in enumerate(self.workers):
            process.frozen = False
            self.finish(number)
        for _ in range(rounds):
            self.round()
            if self._rests():
                break
            for report, record in self.records.items():
                if record.phase in (Phase.REJECTED, Phase.HELD):
                    self.retry(report)
            self.wait(self._until_next())
        else:
            raise AssertionError(f"it never comes to rest: {self.records}")
        self.wait(SETTLE)
        self.round()
        self._promised()

    def _rests(self) -> bool:
        """Nothing is under way: not in the records, not in the ticket system."""
        still = all(record.phase is Phase.TOLD for record in self.records.values() if record.phase is not Phase.ABSENT)
        return still and not self.system.late and not self.eye.exists(f"bridge:due:{PSA}", f"bridge:ready:{PSA}")

    def _until_next(self) -> float:
        """Seconds until something is due, at least five."""
        pause = self.hub.store.paused(PSA)
        if pause is not None:
            return max((pause.next_probe or pause.until) - self.now, 5.0)
        due = cast("list[tuple[str, float]]", self.eye.zrange(f"bridge:due:{PSA}", 0, 0, withscores=True))
        return max(due[0][1] / 1000 - self.now if due else 0.0, 5.0)

    def _promised(self) -> None:
        """Nothing is lost, nothing is doubled, and what the store says is true."""
        for report in self.open:
            require(self.phase(report) is Phase.TOLD, "an open report is told", report, self.records)
        for report, record in self.records.items():
            made = [each for each in self.system.tickets if each.reference == reference(report)]
            if record.phase is Phase.ABSENT:
                continue
            require(record.phase in RESTING, "everything comes to rest", report, record)
            require(sum(not each.late for each in made) <= 1 <= len(made), "one report makes one ticket", *made)
            assert record.ticket is not None
            require(record.ticket in [each.id for each in made], "the record names a ticket that exists", record, *made)
            delivery = self.hub.store.delivery(report, PSA)
            if delivery and "not done" not in delivery.remark:
                kept = self.system.tickets[record.ticket - 1]
                require(kept.number != "", "the ticket was completed", kept)
            if not any(each.late for each in made):
                require(record.other_ticket is None, "no second ticket is named where there is none", record)
        require(not self.eye.zcount(f"bridge:slots:{PSA}", self.now * 1000, "inf"), "no slot is kept")


def reference(report: int) -> str:
    return f"huntress-5-{report}"
