"""A source whose reports appear, change, end, and vanish for a while, and a watch over the tickets made of them."""

from __future__ import annotations

import random
import threading
from types import TracebackType
from typing import Any, Self

from bridge.demo.server import Received
from tests.end_to_end.conftest import World
from tests.psa import reference

#: The status of a completed ticket in the pretend Autotask.
COMPLETE = 5


class Source:
    """What is true of the pretend source's reports. `dice` decides which report something happens to."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.server = world.huntress
        self.next = 1
        #: Listings that were shifted.
        self.shifts = 0
        self._dice = dice
        self._hidden: dict[int, Any] = {}
        self._ended: set[int] = set()

    def open(self) -> set[int]:
        """Reports that are open, also those that the source does not show for the moment."""
        with self.server.lock:
            return ({*self.server.reports, *self._hidden}) - self._ended

    def appear(self, count: int = 1, **fields: Any) -> int:
        """The last one's number."""
        with self.server.lock:
            self.world.reports(count, first=self.next, organizations=3, **fields)
            self.next += count
            return self.next - 1

    def end(self, *, newest: bool = False) -> None:
        """Ends some report that is shown."""
        with self.server.lock:
            if shown := sorted(self.open() - self._hidden.keys()):
                number = shown[-1] if newest else self._dice.choice(shown)
                self.server.close_report(number)
                self._ended.add(number)

    def change(self) -> None:
        with self.server.lock:
            if shown := sorted(self.open() - self._hidden.keys()):
                number = self._dice.choice(shown)
                self.server.reports[number] |= {"severity": self._dice.choice(("low", "high", "critical"))}

    def hide(self, *numbers: int) -> None:
        """Stops showing reports that are open: some report, or these."""
        with self.server.lock:
            shown = sorted(self.open() - self._hidden.keys())
            for number in numbers or (self._dice.choice(shown),) if shown else ():
                self._hidden[number] = self.server.reports.pop(number)

    def show(self) -> None:
        """Shows everything again."""
        with self.server.lock:
            self.server.reports |= self._hidden
            self._hidden.clear()

    def shift(self, request: Received) -> None:
        """For `after_page`: the newest report ends and another comes, so the pages after this one are not what follows.

        Two that end for one that comes: where pages are numbered, open reports fall between them.
        """
        if request.path.endswith("reports") and not {"page", "page_token"} & request.query.keys():
            self.shifts += 1
            if self._dice.random() < 0.5:
                self.end(newest=True)
                self.end(newest=True)
            self.appear()


class Watch:
    """Looks at all tickets again and again while the block runs: which were completed while their report was open?"""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self.wrongly_completed: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def completed(self) -> set[tuple[str, str]]:
        """(connector, reference) of every ticket that is completed."""
        world, both = self._source.world, self._source.world.psas()
        with world.connectwise.lock:
            tickets = list(world.connectwise.tickets.values())
            closed = {("psa", ticket[both["psa"].field]) for ticket in tickets if ticket["closedFlag"]}
        with world.autotask.lock:
            tickets = list(world.autotask.tickets.values())
            return closed | {("desk", ticket[both["desk"].field]) for ticket in tickets if ticket["status"] == COMPLETE}

    def _look_on(self) -> None:
        while not self._stop.wait(0.2):
            completed = self.completed()  # first: what ends in between was rightly completed
            wrong = {reference(number) for number in self._source.open()}
            self.wrongly_completed |= {ticket for ticket in completed if ticket[1] in wrong}
