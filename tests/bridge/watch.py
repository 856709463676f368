"""A stage that polls as well: cycle after cycle against the pretend Huntress, and turns at what they make due."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.budget import RedisBudget
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import DeliveryState, ReportKey
from bridge.poller import Cycle, Poller
from bridge.runtime import make_routes, make_source
from tests.bridge.stage import Stage, Systems

#: Starts a process with the connectors named, else one PSA.
MakeWatch = Callable[..., "Watch"]


class Skipping(threading.Event):
    """Instead of waiting for the request budget, moves the store's clock on."""

    def __init__(self, store: IdempotencyStore) -> None:
        super().__init__()
        self.store = store

    def wait(self, timeout: float | None = None) -> bool:
        self.store.clock_offset += timeout or 0.0
        return self.is_set()


class Watch(Stage):
    """One process of the bridge that leads, without threads."""

    def __init__(
        self, redis_url: str, folder: Path, systems: Systems, connectors: dict[str, Any], **tables: Any
    ) -> None:
        super().__init__(redis_url, folder, systems, connectors, **tables)
        self.huntress = systems.huntress

    def __enter__(self) -> Watch:
        super().__enter__()
        runtime = self.runtime
        self.store.client.delete(self.store.key("leader:poller"), self.store.key("leader:dispatcher"))
        settings = runtime.settings
        minute = settings.huntress.requests_per_minute
        budget = RedisBudget(self.store, minute, stopping=Skipping(self.store), clock=self.store.now)
        self.source = make_source(settings, budget)
        self.polling = Leadership(self.store, "poller", patience=1e9, clock=lambda: 0.0)  # no thread renews it
        self.poller = Poller(
            self.store,
            runtime.books,
            lambda: self.source,
            lambda: settings,
            lambda: make_routes(settings, self.store),
            self.polling,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.polling.stop()
        self.source.close()
        super().__exit__()

    def cycle(self, seconds: float = 15) -> Cycle:
        """Lets time pass, then polls once."""
        self.store.clock_offset += seconds
        assert self.polling.attempt()
        return self.poller.cycle()

    def deliver_all(self, *waiting: str) -> None:
        """Takes every turn that is due, however many, until all tickets are made but those of connectors `waiting`."""
        while True:
            assert self.leadership.attempt()
            while self.dispatcher.look():
                turns, self.enqueued[:] = list(self.enqueued), []
                for number, connector in turns:
                    self.turn(number, connector)
            if {each.connector for each in self.store.deliveries([DeliveryState.PENDING])} <= {*waiting}:
                return
            self.store.clock_offset += 1  # the others wait until the first ticket was found again

    def over(self, *numbers: ReportKey) -> list[ReportKey]:
        """Those of the reports that are known to be over."""
        return [number for number in numbers if (report := self.store.report(number)) is not None and report.over]

    def missing(self) -> set[ReportKey]:
        """Reports that are no longer listed, and not known to be over."""
        return {missing.key for missing in self.poller.ends.absences.missing()}

    def states(self, connector: str = "psa") -> dict[ReportKey, DeliveryState]:
        """Where each delivery of a connector stands."""
        return {each.report_id: each.state for each in self.store.deliveries() if each.connector == connector}

    def reason(self, number: ReportKey, connector: str = "psa") -> str:
        """What `deliveries` says about a report."""
        (reason,) = {
            each.reason for each in self.store.deliveries() if (each.report_id, each.connector) == (number, connector)
        }
        return reason


def ticket_closed(systems: Systems, name: str, number: int, again: str = "") -> list[bool]:
    """Whether each ticket with the report's reference is closed."""
    psa = systems.psa(name)
    reference = f"huntress-5-{number}{again}"
    with psa.server.lock:
        tickets = [ticket for ticket in psa.state.tickets.values() if ticket[psa.field] == reference]
    return [ticket["closedFlag"] if name == "psa" else ticket["status"] == 5 for ticket in tickets]


def end_notes(systems: Systems, name: str, number: int) -> int:
    """How many notes tell the report's tickets that it is over."""
    psa = systems.psa(name)
    return sum("Outcome: " in note for id in psa.ids(number) for note in psa.notes(id))
