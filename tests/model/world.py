"""The real store and the real delivery code under a scheduler: one step at a time, in any order, with every fault.

A *step* is one command to Redis or one request to the ticket system. Each worker takes its turn in a thread that waits
for permission before every step, so whoever drives the `World` decides the order, and where a worker dies, freezes or
is lied to. Time stands still unless it is passed; a run is the same each time it is driven the same way.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, cast

import redis
import structlog

from bridge.absences import Absences
from bridge.companies import Companies
from bridge.counters import Counters
from bridge.delivery import Deliverer, Service, Surroundings
from bridge.details import Details
from bridge.dispatcher import Dispatcher
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.leases import RENEW_EVERY, Gate, LeaseKeeper
from bridge.models import Account, DeliveryState, IncidentReport, ReportKey
from bridge.probe import Prober
from bridge.rendering import Renderer
from connectors.base import ConnectorContext, ConnectorSettings
from tests.model.model import FIELDS, RESTING, SETTLE, Command, Phase, Seen, check_move, check_record, require, seen
from tests.model.steps import BEGINNING, Clock, SteppedRedis, Turnstile
from tests.model.ticket_system import PSA, NoDetails, PlainRenderer, PretendConnector, TicketSystem

#: Seconds after a report's end at which it is forgotten: more than anything of it can still be in doubt.
LONG_OVER = 2 * SETTLE


class Process:
    """One process of the bridge that holds the real store, leases, prober and deliverer, but no threads of its own."""

    def __init__(self, world: World) -> None:
        self.turnstile = Turnstile()
        self.client = SteppedRedis(connection_pool=world.pool)
        self.client.setup(self.turnstile, world.clock, world.loaded, world.carried_out)
        self.store = IdempotencyStore(self.client, settle=SETTLE, clock_offset=world.now - BEGINNING)
        self.store.open()
        self.keeper = LeaseKeeper(self.store, clock=lambda: world.now)
        gate = Gate(self.store, self.keeper, PSA)
        self.prober = Prober(self.store, lambda name: gate.probing())
        connector = PretendConnector(world.system, self.turnstile, ConnectorContext(gate, gate.before_send))
        settings = ConnectorSettings(type="pretend", settle=SETTLE, reopen="always")
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
    def claimed(self) -> tuple[ReportKey | None, str]:
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
        self.clock = Clock()
        self.system = TicketSystem(self.clock)
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
        #: Reports that are over, by when they ended.
        self.over: dict[int, float] = {}
        self.records: dict[ReportKey, Seen] = {}
        #: Since the store began.
        self.tickets_forgotten = 0
        self.hints: deque[ReportKey] = deque()
        self.steps = 0
        self.done: Command | None = None
        self._failure: BaseException | None = None
        self._stack = ExitStack()
        structlog.configure(processors=[self._logged], wrapper_class=structlog.make_filtering_bound_logger(40))
        self._stack.callback(structlog.reset_defaults)
        self.hub = Process(self)
        self.leadership = Leadership(self.hub.store, "dispatcher", patience=1e9, clock=lambda: self.now)
        self.dispatcher = Dispatcher(
            self.hub.store,
            lambda: {PSA: self.hub.service},
            self.leadership,
            self.hub.prober,
            lambda jobs: self.hints.extend(report for report, _ in jobs),
            clock=lambda: self.now,
        )
        self.workers = [Process(self) for _ in range(workers)]

    @property
    def now(self) -> float:
        """Seconds since the epoch, to the millisecond as the store has it."""
        return round(self.clock.now, 3)

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

    def phase(self, report: ReportKey) -> Phase:
        return self.records.get(report, Seen()).phase

    # -- workers -------------------------------------------------------------------------------------------------------

    def start(self, worker: int, report: ReportKey) -> None:
        """An idle worker gets a message, whether or not the delivery is due."""
        process = self.workers[worker]
        if not process.at:
            process.turnstile.run(lambda: process.deliverer.work(report, PSA))
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
            self.clock.now = min(until, self.clock.now + 2 * RENEW_EVERY) if moving else until
            self.system.catch_up()
            for process in (self.hub, *self.workers):
                process.store.clock_offset = self.now - BEGINNING
            for process in moving:
                process.keeper.renew()
                self.check(Command("renew", *process.claimed))
        self.eye.delete(f"bridge:suspect:{PSA}")  # it would have ended by itself, on Redis' own clock
        self._judge()

    def poll(self) -> None:
        """The poller lists what is open. It notices a rebirth as the real one does: in its next cycle."""
        store, started = self.hub.store, self.hub.store.now()
        leader = int(store.script("lead", "poller", "hub", 6000))
        reports = [IncidentReport(id, account_id=5, subject=text, severity="low") for id, text in self.open.items()]
        store.observe(leader, [(report, [(PSA, reference(report.id))]) for report in reports])
        self.check(Command("observe"))
        absences = Absences(store)
        absences.miss(leader, started, [key for key, _ in absences.unseen(started)])
        ended = [
            IncidentReport(id, account_id=5, status="closed", closed_at=datetime.fromtimestamp(at, UTC), severity="low")
            for id, at in self.over.items()
            if store.report(id) is not None or not absences.caught_up()  # nobody asks about what is forgotten
        ]
        pairs = [(report, [(PSA, reference(report.id))]) for report in ended]
        store.observe(leader, pairs, adopt=not absences.caught_up())
        self.check(Command("observe"))
        absences.catch_up()
        self._judge()

    def report(self, report: int, text: str) -> None:
        """A report opens, once more perhaps, or changes."""
        self.open[report] = text
        self.over.pop(report, None)

    def end(self, report: int) -> None:
        """A report is over."""
        if self.open.pop(report, None) is not None:
            self.over[report] = self.now

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
        self.hub.prober.probe_due(lambda: {PSA: self.hub.service}, threading.Event())
        self._judge()

    def retry(self, report: ReportKey) -> None:
        """A person wants it tried again."""
        self.hub.store.retry(report, PSA)
        self.check(Command("retry"))
        self._judge()

    def handle(self, report: ReportKey) -> None:
        """A person took care of it."""
        self.hub.store.handle(report, PSA, "by hand")
        self.check(Command("handle"))
        self._judge()

    def forget(self, *, deliveries: bool) -> None:
        """A round over what is long over: its snapshots go, or all of it."""
        store, before = self.hub.store, self._tickets_known()
        keep = round(LONG_OVER * 1000)
        state: object = 1
        while state:
            leader = int(store.script("lead", "poller", "hub", 6000))
            *_, state = store.answer("forget", leader, 1, keep, keep if deliveries else 0, 0)
        self.tickets_forgotten += before - self._tickets_known()
        for report, record in self.records.items():
            if record.phase is not Phase.ABSENT and store.delivery(report, PSA) is None:
                require(report not in self.open, "what is open is not forgotten", report, record)
        self.check(Command("forget"))
        self._judge()

    def _tickets_known(self) -> int:
        return sum((each.ticket is not None) + (each.other_ticket != "") for each in self.hub.store.deliveries())

    def _forgotten(self, report: ReportKey) -> bool:
        return report not in self.open and self.hub.store.report(report) is None

    def empty(self) -> None:
        """Redis loses everything."""
        self.tickets_forgotten = 0
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
                if record.phase in (Phase.REJECTED, Phase.HELD, Phase.HANDLED):
                    self.retry(report)
            self.wait(self._until_next())
        else:
            raise AssertionError(f"it never comes to rest: {self.records}")
        self.wait(SETTLE)
        self.round()
        self._promised()

    def _rests(self) -> bool:
        """Nothing is under way: not in the records, not in the ticket system."""
        still = all(
            record.phase in (Phase.TOLD, Phase.ABSENT) or (record.phase in RESTING and self._forgotten(report))
            for report, record in self.records.items()
        )
        return (
            still
            and not self.system.late
            and not self.system.late_notes
            and not self.eye.exists(f"bridge:due:{PSA}", f"bridge:ready:{PSA}")
        )

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
        for key, record in self.records.items():
            made = [each for each in self.system.tickets if each.reference == reference(key)]
            if record.phase is Phase.ABSENT:
                continue
            require(record.phase in RESTING, "everything comes to rest", key, record)
            if record.phase is not Phase.TOLD and self._forgotten(key):
                continue
            require(sum(not each.late for each in made) <= 1 <= len(made), "one report makes one ticket", *made)
            assert record.ticket is not None
            require(record.ticket in [each.id for each in made], "the record names a ticket that exists", record, *made)
            delivery = self.hub.store.delivery(key, PSA)
            assert delivery is not None
            if "not done" not in delivery.remark and not self._forgotten(
                key
            ):  # that may be all that a late worker brings
                wanted = DeliveryState.CLOSED if key in self.over else DeliveryState.CREATED
                require(delivery.state is wanted, "the ticket knows whether its report is over", key, delivery)
            if delivery and "not done" not in delivery.remark:
                kept = self.system.tickets[record.ticket - 1]
                require(kept.number != "", "the ticket was completed", kept)
            if not any(each.late for each in made):
                require(record.other_ticket is None, "no second ticket is named where there is none", record)
        told = Counter(each for each in self.system.notes if each[1] not in ("plain", "duplicate", "details"))
        require(not told or max(told.values()) == 1, "no note is there twice", told)
        require(not self.eye.zcount(f"bridge:slots:{PSA}", self.now * 1000, "inf"), "no slot is kept")
        require(not self.eye.exists(f"bridge:waiting:{PSA}"), "nothing waits for a ticket any more")
        self._counted()

    def _counted(self) -> None:
        """Since the store began, each ticket that it knows was counted once; more only where a second one turned up."""
        known = [each for each in self.hub.store.deliveries() if each.ticket is not None]
        counted = Counters(self.hub.store).totals().deliveries
        tickets = counted.get((PSA, "created"), 0) + counted.get((PSA, "found"), 0) - counted.get((PSA, "continued"), 0)
        seconds = sum(each.other_ticket != "" for each in known)
        most = len(known) + seconds + self.tickets_forgotten
        require(len(known) <= tickets <= most, "each ticket is counted once", counted, *known)


def reference(report: ReportKey) -> str:
    return f"huntress-5-{report}"
