"""Keeps a template that never ends, or takes all memory, from doing harm: templates are rendered in other processes.

Each process of the bridge that renders has a helper process (`bridge.sandbox`) with limits that the kernel enforces:
no call of Python or C gets around them. Whatever happens in there, this process, its threads and its leases go on, and
nobody else's work is lost. A helper takes 22 MB and 0.1 s to start, and adds 0.3 ms to a template. One is started with
the process, another when a ticket waits for it too long or it ended over a template. However a template fails, it is a
`TemplateFailure`, and the plain rendering takes its place at once.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path

from bridge.sandbox import MAX_OUTPUT, NO_MEMORY, TOO_MUCH_MEMORY, Job, TemplateFailure, too_slow
from connectors.base import Unavailable

#: Seconds of processor time for one template: a report of 4 MB of HTML takes 1, any other a few thousandths. The load
#: of the machine does not count.
TEMPLATE_SECONDS = 3.0
#: The same for what is left of a ticket after a template of it was stopped: other parts may include the culprit.
LATER_SECONDS = 1.0
#: Seconds by the clock for the templates of one ticket. Only a machine that hardly moves needs as many.
TICKET_SECONDS = 40.0
#: Seconds by the clock that a ticket waits for a helper while all of them are at work on others.
WAIT_SECONDS = 10.0
#: Helpers at the same time.
MOST_HELPERS = 6
#: Seconds that a ticket waits for a helper at work before one more is started: a quick one is back before another would
#: be ready, and a slow one keeps nobody waiting for long.
PATIENCE_SECONDS = 1.0
#: Idle helpers that are kept.
KEPT_HELPERS = 2

#: Run by a helper. The folder that holds this package comes last, where it shadows nothing.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from bridge.sandbox import serve; serve(int(sys.argv[2]))"
_ROOT = Path(__file__).resolve().parent.parent


class _Ended(Exception):
    """A helper ended before it answered; `status` as `subprocess.Popen.returncode` gives it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Helper:
    """One helper process. It ends by itself when this process does."""

    def __init__(self) -> None:
        """Starts it, without waiting until it is ready. Raises `OSError`."""
        self._connection, theirs = Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this very Python
                    [sys.executable, "-P", "-c", _PROGRAM, _ROOT, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Without the bridge's own variables, which may be secrets.
                    env={name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")},
                    start_new_session=True,
                )
            except BaseException:
                self._connection.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, message: bytes, wait: float) -> bytes:
        """The answer to a message. Raises `TimeoutError` after `wait` seconds, and `_Ended`; both end the helper."""
        try:
            self._connection.send_bytes(message)
            if not self._connection.poll(wait):
                raise TimeoutError
            return self._connection.recv_bytes(8 * MAX_OUTPUT)
        except (EOFError, ConnectionError):
            raise _Ended(self.close()) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> int:
        """Ends it. Returns its exit status."""
        self._connection.close()
        self._process.kill()
        return self._process.wait()


class RenderGuard:
    """Renders templates in helpers, a few at most, which are kept. Shared by threads.

    `template_seconds`, `later_seconds`, `ticket_seconds`, `wait_seconds`, `patience_seconds`: as the constants of this
    module.
    """

    def __init__(
        self,
        *,
        template_seconds: float = TEMPLATE_SECONDS,
        later_seconds: float = LATER_SECONDS,
        ticket_seconds: float = TICKET_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.template_seconds = template_seconds
        self.later_seconds = later_seconds
        self.ticket_seconds = ticket_seconds
        self._wait_seconds = wait_seconds
        self._patience_seconds = patience_seconds
        self._idle: list[_Helper] = []
        self._at_work = 0
        self._last_start = 0.0
        #: Held to look at the helpers; told when a ticket is done with one.
        self._done = threading.Condition()

    def warm_up(self) -> None:
        """Starts a helper, so that the first ticket need not wait for it. Does nothing when that fails."""
        with self._done, suppress(OSError):
            if not self._idle:
                self._idle.append(_Helper())

    @contextmanager
    def ticket(self) -> Iterator[TicketRendering]:
        """For the templates of one ticket. Raises `Unavailable` when every helper is at work on others for too long."""
        rendering = TicketRendering(self, self._take())
        try:
            yield rendering
        finally:
            self._give_back(rendering.helper)

    def close(self) -> None:
        """Ends the helpers that are not at work."""
        with self._done:
            while self._idle:
                self._idle.pop().close()

    def _take(self) -> _Helper | None:
        """A helper for a ticket; None: the ticket may start one. Raises `Unavailable`."""
        asked_at = now = time.monotonic()
        with self._done:
            while self._at_work and not self._idle:
                room = self._at_work < MOST_HELPERS
                wait = asked_at + self._wait_seconds - now
                if room:
                    wait = min(wait, max(asked_at, self._last_start) + self._patience_seconds - now)
                if wait <= 0:
                    if room:
                        break
                    raise Unavailable("other reports keep every process that renders templates busy; nothing was sent")
                self._done.wait(wait)
                now = time.monotonic()
            self._at_work += 1
            if self._idle:
                return self._idle.pop()
            self._last_start = now
            return None

    def _give_back(self, helper: _Helper | None) -> None:
        with self._done:
            self._at_work -= 1
            if helper is not None and len(self._idle) < KEPT_HELPERS:
                self._idle.append(helper)
                helper = None
            self._done.notify_all()
        if helper is not None:
            helper.close()


class TicketRendering:
    """Renders the templates of one ticket, one after the other."""

    def __init__(self, guard: RenderGuard, helper: _Helper | None) -> None:
        self.helper = helper
        self._guard = guard
        self._seconds = guard.template_seconds
        self._until = time.monotonic() + guard.ticket_seconds
        #: What was rendered ahead of being asked for.
        self._ahead: list[tuple[Job, str]] = []

    def ahead(self, jobs: Sequence[Job]) -> None:
        """Renders all of these in one go, a trip to the helper for each being dear; `render` hands them out.

        From the first that fails on, whatever the reason, `render` does each by itself.
        """
        with suppress(_Ended, OSError):  # a TimeoutError is one, too
            answers = json.loads(self._ask(pickle.dumps((list(jobs), self._seconds))))
            self._ahead = [(job, answer[0]) for job, answer in zip(jobs, answers, strict=False) if len(answer) == 1]

    def render(self, job: Job) -> str:
        """The text that a template makes. Raises `TemplateFailure`."""
        for done, text in self._ahead:
            if done == job:
                return text
        message = pickle.dumps(([job], self._seconds))
        try:
            try:
                answer = self._ask(message)
            except _Ended as end:
                if end.status in (-signal.SIGVTALRM, NO_MEMORY):
                    raise
                answer = self._ask(message)  # somebody else may have ended it
        except TimeoutError:
            failure = TemplateFailure(job.what, "its ticket takes too long", overdue=True)
        except _Ended as end:
            failure = self._failure(job, end)
        except OSError as error:
            failure = TemplateFailure(job.what, f"the process that renders it cannot be started: {error}")
        else:
            text, *failed = json.loads(answer)[0]
            if not failed:
                return str(text)
            failure = TemplateFailure(text, failed[0], overdue=failed[1])
        if failure.overdue:
            self._seconds = self._guard.later_seconds
        raise failure

    def _ask(self, message: bytes) -> bytes:
        helper, self.helper = self.helper or _Helper(), None
        answer = helper.ask(message, max(0.0, self._until - time.monotonic()))
        self.helper = helper
        return answer

    def _failure(self, job: Job, end: _Ended) -> TemplateFailure:
        if end.status == NO_MEMORY:
            return TemplateFailure(job.what, TOO_MUCH_MEMORY)
        if end.status == -signal.SIGVTALRM:
            return TemplateFailure(job.what, too_slow(self._seconds), overdue=True)
        return TemplateFailure(job.what, f"the process that rendered it ended, twice (exit status {end.status})")


#: The one of this process.
GUARD = RenderGuard()
atexit.register(GUARD.close)
