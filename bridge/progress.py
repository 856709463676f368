"""How far a long command is, on standard error: a bar on a terminal, else a plain line now and then.

Standard output stays data. Short commands say nothing where nobody watches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TextIO, TypeVar

from bridge.printing import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

#: Seconds for which a command is no long one, and between two plain lines.
QUIET = 2.0
LINE_EVERY = 10.0


class Meter:
    """How far one thing is. Use as a context manager; the last line is said at its end, if any was."""

    def __init__(
        self,
        what: str,
        unit: str = "pages",
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.unit = unit
        self.total = total
        #: How many of `unit` are done, and how many items they held.
        self.done = 0
        self.items = 0
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began = clock()
        self._expected = False
        self._said_at: float | None = None
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        self._task = self._bar.add_task(what, total=total, state="") if self._bar else None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()
        if self._said_at is not None:
            self._line(f"{self.what}: {self._so_far()}, in {_time(self.seconds)}")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    def goes_on(self) -> None:
        """The next one is being waited for: the bar is shown until `rest`."""
        if self._bar:
            self._bar.start()

    def rest(self) -> None:
        """The bar makes room for other output."""
        if self._bar:
            self._bar.stop()

    def expects(self, total: int) -> None:
        """So many are still to come, whatever `moves` is told."""
        self.total = self.done + total
        self._expected = True

    def moves(self, items: int = 0, total: int | None = None) -> None:
        """One more is done; it held so many items. `total`: how many there are, when that has become known."""
        self.done += 1
        self.items += items
        if not self._expected:
            self.total = total or self.total
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, state=self.state())
            return
        now = self._clock()
        last = now - self._began >= QUIET if self._said_at is None else now - self._said_at >= LINE_EVERY
        if last and self.done != self.total:
            self._said_at = now
            self._line(f"{self.what}: {self.state()}")

    def each(self, things: Iterable[T]) -> Iterator[T]:
        """The `things`, each of which counts as done when the next one is asked for."""
        if isinstance(things, Sized):
            self.total = len(things)
        self.goes_on()
        for thing in things:
            yield thing
            self.moves()

    def says(self, sentence: str) -> None:
        """A sentence on a line of its own, such as why nothing moves."""
        self.rest()
        self._line(sentence)

    def state(self) -> str:
        """How far it is, and how long the rest takes, where that can be told."""
        if self.total and 0 < self.done <= self.total:
            left = self.seconds / self.done * (self.total - self.done)
            return f"{self._so_far()}, about {_time(left)} left"
        rate = f", {self.items / self.seconds:,.0f} a second" if self.items and self.seconds >= 1 else ""
        return f"{self._so_far()}{rate}"

    def _so_far(self) -> str:
        of = f" of {self.total:,}" if self.total and self.done <= self.total else ""
        unit = self.unit.removesuffix("s") if (self.total if of else self.done) == 1 else self.unit
        return f"{self.done:,}{of} {unit}" + (f", {self.items:,} read" if self.items else "")

    def _line(self, text: str) -> None:
        print(one_line(text), file=self._stream, flush=True)


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}", markup=False),
    )
    # What else is written meanwhile goes where it belongs, not through the bar.
    console = Console(file=stream)
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    return f"{round(whole / 60)} min" if whole < 5400 else f"{whole / 3600:.1f} h"
