"""One process' dispatcher and worker without threads: real Redis, real connectors, pretend systems; time is passed.

What waits happens when a test lets time pass (`Stage.work`), on the store's clock; requests are real.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.delivery import Deliverer, Service
from bridge.demo import scenario
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.mailbox import MailFaultKind, PretendMailbox
from bridge.demo.run import toml
from bridge.demo.server import Fault, Received
from bridge.dispatcher import Dispatcher
from bridge.idempotency import Claim
from bridge.leadership import Leadership
from bridge.models import Delivery, IncidentReport, ReportKey, report_key
from bridge.runtime import Runtime
from bridge.settings import load
from tests.bridge.watched_huntress import WatchedHuntress
from tests.psa import Psa, reference

#: Starts a process; which arguments it takes is the fixture's business.
MakeStage = Callable[..., "Stage"]


class WatchedConnectWise(PretendConnectWise):
    """Calls `meanwhile` when a request has come and before anything is done about it."""

    meanwhile: Callable[[Received], object] = staticmethod(lambda request: None)

    def _arrived(self, request: Received) -> Fault | None:
        self.meanwhile(request)
        return super()._arrived(request)


class WatchedAutotask(PretendAutotask):
    """As `WatchedConnectWise`."""

    meanwhile: Callable[[Received], object] = staticmethod(lambda request: None)

    def _arrived(self, request: Received) -> Fault | None:
        self.meanwhile(request)
        return super()._arrived(request)


class WatchedMailbox(PretendMailbox):
    """Calls `meanwhile` when a recipient was named, before it is answered, and again when a whole mail has come."""

    meanwhile: Callable[[str], object] = staticmethod(lambda step: None)

    def take(self, *kinds: MailFaultKind, recipient: str = "") -> str:
        if "greylist" in kinds:
            self.meanwhile("recipient")
        if "drop_after_dot" in kinds:
            self.meanwhile("dot")
        return super().take(*kinds, recipient=recipient)


class Systems:
    """The outside world, with three organizations and an agent each."""

    def __init__(self) -> None:
        self.huntress = WatchedHuntress(organizations=3)
        names = [(raw["id"], raw["name"]) for raw in self.huntress.organizations.values()]
        self.connectwise = WatchedConnectWise(
            [(1, "Catchall", "Catchall"), *((9 + id, f"O{id}", n) for id, n in names)]
        )
        self.autotask = WatchedAutotask(companies=[(175, "Catch-all"), *((2000 + id, name) for id, name in names)])
        self.mailbox = WatchedMailbox()
        for number in (1, 2, 3):
            self.huntress.agents[number] = scenario.agent(number, number)

    def psa(self, name: str) -> Psa:
        return Psa(name, self.connectwise if name == "psa" else self.autotask)

    def table(self, name: str, **settings: Any) -> dict[str, Any]:
        """The configuration of one connector."""
        if name == "psa":
            return self.connectwise.settings(**settings)
        return self.autotask.settings(**settings) if name == "desk" else self.mailbox.settings(**settings)

    @contextlib.contextmanager
    def running(self) -> Iterator[Systems]:
        with self.huntress, self.connectwise, self.autotask, self.mailbox:
            yield self
        assert not [*self.huntress.handler_errors, *self.connectwise.handler_errors, *self.autotask.handler_errors]


class Stage:
    """One process of the bridge on a store that others may share. Use as a context manager."""

    def __init__(
        self, redis_url: str, folder: Path, systems: Systems, connectors: dict[str, Any], **tables: Any
    ) -> None:
        config = folder / "bridge.toml"
        huntress = systems.huntress.settings()
        whole = {"huntress": huntress, "redis": {"url": redis_url}, "connectors": connectors} | tables
        config.write_text(toml(whole), "utf-8")
        config.chmod(0o600)
        self.systems = systems
        self.runtime = Runtime(load(config, environ={}), lambda: load(config, environ={}))
        self.config = config

    def __enter__(self) -> Stage:
        runtime = self.runtime.__enter__()
        self.store = runtime.store
        self.store.remember({"account_id": "5"})
        self.leadership = Leadership(self.store, "dispatcher", patience=1e9)
        self.enqueued: list[tuple[ReportKey, str]] = []
        self.deliverer = Deliverer(
            self.store,
            runtime.keeper,
            runtime.prober,
            runtime.surroundings,
            stopping=runtime.stopping.is_set,
            draw=random.Random(1),
        )
        self.dispatcher = Dispatcher(
            self.store,
            lambda: runtime.services,
            self.leadership,
            runtime.prober,
            self.enqueued.extend,
            clock=lambda: time.monotonic() + self.store.clock_offset,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.leadership.stop()
        self.runtime.__exit__()

    def service(self, name: str) -> Service:
        return self.runtime.services[name]

    def report(self, *numbers: int, severity: str = "low", connectors: Sequence[str] = (), **fields: Any) -> None:
        """The poller saw these reports, for all connectors or those named."""
        names = connectors or list(self.runtime.services)
        leader = int(self.store.script("lead", "poller", "test", 6000))
        base = IncidentReport(0, account_id=5, organization_id=1, severity=severity, subject=f"{severity.upper()} - x")
        for number in numbers:
            report = replace(base, id=number, **fields)
            self.store.observe(leader, [(report, [(name, reference(number)) for name in names])])

    def turn(self, number: ReportKey = 1, connector: str = "psa") -> None:
        """A worker gets the message, whether or not it is due."""
        self.deliverer.deliver(number, connector)

    def work(self, seconds: float = 0) -> list[tuple[ReportKey, str]]:
        """Lets time pass, then does all that is due. Returns the turns taken, in order."""
        self.store.clock_offset += seconds
        assert self.leadership.attempt()
        taken: list[tuple[ReportKey, str]] = []
        while self.dispatcher.look():
            assert len(taken) < 500, "it never comes to rest"
            turns, self.enqueued[:] = list(self.enqueued), []
            for number, connector in turns:
                self.turn(number, connector)
            taken += turns
        return taken

    def wait(self, seconds: float) -> list[tuple[ReportKey, str]]:
        """As `work`, in steps of five seconds: one thing follows upon another."""
        taken = []
        while seconds > 0:
            taken += self.work(min(5.0, seconds))
            seconds -= 5
        return taken

    def probe(self, seconds: float = 0) -> None:
        """Lets time pass, then probes the paused connectors that are due for it."""
        self.store.clock_offset += seconds
        self.runtime.prober.probe_due(lambda: self.runtime.services, self.runtime.stopping)

    def die(self, number: int = 1, connector: str = "psa", *, creating: bool = False) -> Claim:
        """A worker claims the delivery, gets as far as the gate if `creating`, and is never heard of again."""
        claim = self.claim(number, connector)
        for seconds in (10, 290):  # after a death the next claim may be put off, after several by minutes
            if claim == "early":
                self.store.clock_offset += seconds
                claim = self.claim(number, connector)
        assert isinstance(claim, Claim), claim
        if creating:
            assert self.store.begin_create(claim, proof=False).open
        return claim

    def claim(self, number: int, connector: str) -> Claim | str:
        """A worker's claim, or why it has none."""
        service = self.service(connector)
        settle = service.settings.settle
        return self.store.claim(number, connector, group=service.group, concurrency=100, settle=settle)

    def delivery(self, number: int = 1, connector: str = "psa") -> Delivery:
        """As the store has it, but for the look at a new ticket's status, which waits for its time (`FRESH`)."""
        found = self.store.delivery(number, connector)
        assert found is not None
        return replace(found, todo=tuple(item for item in found.todo if item != "status"))

    def scheduled(self, connector: str) -> int:
        """Deliveries that something is still to be done for, but for that look."""
        later = self.store.client.zrangebyscore(self.store.key(f"due:{connector}"), self.store.now() * 1000, "+inf")
        waiting = (self.store.delivery(report_key(str(number)), connector) for number in later)
        return self.store.scheduled(connector) - sum(each is not None and each.todo == ("status",) for each in waiting)

    def waits(self, number: int = 1, connector: str = "psa") -> float:
        """Seconds until the delivery is next due."""
        at = self.delivery(number, connector).next_attempt_at
        assert at is not None
        return at - self.store.now()
