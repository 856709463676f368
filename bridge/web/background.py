"""Work that a person starts on the page and that may take longer than a page may: it goes on while they look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import redis
import structlog

from connectors.base import Outcome

log = structlog.get_logger(__name__)

#: Seconds that the answer to a press of a button waits, so that what is quick is shown at once.
PATIENCE = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Run(Generic[Result]):
    """One piece of work. `began_at` is in seconds since the epoch, `seconds` how long it took; None: it goes on.

    `problem` says why it has no result. `result` is that of an earlier one until there is another.
    """

    began_at: float
    seconds: float | None = None
    result: Result | None = None
    problem: str = ""

    @property
    def under_way(self) -> bool:
        return self.seconds is None

    @property
    def ended_at(self) -> float:
        """Seconds since the epoch; for one that goes on, when it began."""
        return self.began_at + (self.seconds or 0)


class Background(Generic[Result]):
    """Work of one sort, one at a time for each name. The last of each is kept while the process lives."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        """`what`: names the work in the log. `clock` gives seconds since the epoch, as the page shows them."""
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[str, Run[Result]] = {}
        self._done: dict[str, threading.Event] = {}

    def last(self, name: str) -> Run[Result] | None:
        return self._runs.get(name)

    def start(self, name: str, work: Callable[[], Result]) -> bool:
        """Does the work in a thread. False: one is under way under this name, and no second is started."""
        began_at = self._clock()
        with self._lock:
            before = self._runs.get(name)
            if before is not None and before.under_way:
                return False
            self._runs[name] = run = Run(began_at, result=before.result if before else None)
            done = self._done[name] = threading.Event()
        threading.Thread(
            target=self._do, args=(name, run, work, done), name=f"{self._what}-{name}", daemon=True
        ).start()
        return True

    def wait(self, name: str) -> bool:
        """Waits a moment for the work under this name; False: it goes on."""
        done = self._done.get(name)
        return done is None or done.wait(PATIENCE)

    def _do(self, name: str, run: Run[Result], work: Callable[[], Result], done: threading.Event) -> None:
        began = time.monotonic()
        result, problem = run.result, ""
        try:
            result = work()
        except Outcome as outcome:
            problem = str(outcome)
        except redis.RedisError:
            problem = "Redis does not answer; try again when it does"
        except Exception as error:  # a connector may come from anywhere
            log.exception("work started on the page failed", what=self._what, name=name)
            problem = f"an error inside it ({type(error).__name__}); the log has the details"
        self._runs[name] = replace(run, seconds=time.monotonic() - began, result=result, problem=problem)
        done.set()
