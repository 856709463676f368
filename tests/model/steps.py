"""Permission for every step: a thread that waits before each one, and a Redis client whose commands are steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import redis

from bridge import idempotency
from bridge.scripts import script_text
from tests.model.model import Command

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

#: What may go wrong with a note: beside those, it is added and the answer is lost, at once or after so many seconds.
NOTE_FAULTS = (*REQUEST_FAULTS, "answer lost", "late 5", "late 29")


def faults_of(step: str) -> tuple[str, ...]:
    """What may go wrong with a step."""
    if step in ("", "answer"):
        return ()
    if step in ("find", "complete", "has_note", "check"):
        return REQUEST_FAULTS
    if step == "note":
        return NOTE_FAULTS
    return CREATE_FAULTS if step == "create" else REDIS_FAULTS


class Clock:
    """The time of a run, in seconds since the epoch; it stands still unless it is passed."""

    def __init__(self) -> None:
        self.now = float(BEGINNING)


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


#: Scripts by name, as the store hands them over.
SCRIPTS = {path.stem: script_text(path.stem) for path in Path(idempotency.__file__).parent.glob("lua/*.lua")}


class SteppedRedis(redis.Redis):
    """A client whose commands are steps, on a server whose clock stands still; the store's `clock_offset` moves it."""

    turnstile: Turnstile
    clock: Clock
    carried_out: Callable[[Command], None]
    loaded: dict[str, str]

    def setup(
        self, turnstile: Turnstile, clock: Clock, loaded: dict[str, str], carried_out: Callable[[Command], None]
    ) -> None:
        """`loaded`: names of the scripts that the server knows, by digest; `carried_out` is told of every command."""
        self.turnstile, self.clock, self.loaded, self.carried_out = turnstile, clock, loaded, carried_out

    def register_script(self, script: Any) -> Any:
        frozen = cast(str, script).replace("redis.call('TIME')", f"{{'{BEGINNING}', '0'}}")
        assert frozen != script
        registered = super().register_script(frozen)
        if registered.sha not in self.loaded:
            super().execute_command("SCRIPT LOAD", frozen)  # type: ignore[no-untyped-call]
            self.loaded[registered.sha] = next(name for name, text in SCRIPTS.items() if script == text)
        return registered

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "TIME":
            return (BEGINNING, 0)
        if args[0] == "INFO":
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if args[0] == "EVALSHA" and self.loaded[args[1]] == "renew":  # `World.wait` has it made, and checks it
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        command = self._command(args)
        fault = self.turnstile(command.name)
        if fault == "away":
            raise redis.ConnectionError("Redis is away")
        if args[0] == "EVALSHA":  # time may have passed since this step was asked for
            args = (*args[:4], round((self.clock.now - BEGINNING) * 1000), *args[5:])
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if fault == "twice":
            answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if command.name == "claim" and answer[0] == "claimed":
            command = replace(command, report=int(answer[5]))  # it may have been asked for whatever comes next
        self.carried_out(command)
        if fault == "answer lost":
            raise redis.ConnectionError("the answer was lost")
        if command.name in ("claim", "begin_create"):
            self.turnstile("answer")  # what a lease allows must not depend on when its answer is read
        return answer

    def _command(self, args: Sequence[Any]) -> Command:
        """Arguments of a script: EVALSHA, digest, 1, prefix, offset, birth mark, then the script's own."""
        if args[0] != "EVALSHA":
            return Command(str(args[0]).lower())
        name = self.loaded[args[1]]
        own = args[6:]
        if name not in ("claim", "begin_create", "record", "release", "progress", "plan", "tell", "anew", "drop"):
            return Command(name)
        return Command(name, int(own[0]) if own[0] != "" else None, own[2], int(own[3]) if name == "record" else None)
