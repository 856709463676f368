"""Requests to the PSAs that are held until the process that sent them is killed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum

from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.server import Fault, PretendServer, Received
from tests.end_to_end.conftest import World
from tests.psa import Psa

#: Seconds that a request is held at most; less than a connector's `timeout`.
HELD = 25.0


class When(StrEnum):
    """What has become of a request when its sender is killed."""

    BEFORE = "not carried out"
    DURING = "carried out, not answered"
    AFTER = "answered"


#: (connector, ticket id, what the request is to the ticket).
Moment = tuple[str, int, str]


class Trap:
    """Holds one request for each of `moments`. `sprung`, `answer` and `release` are called in this order."""

    def __init__(self, moments: Mapping[Moment, When]) -> None:
        self._left = dict(moments)
        self._held = 0
        self._wanted = len(moments)
        self._after = sum(when is When.AFTER for when in moments.values())
        self._answering = threading.Event()
        self._answered = threading.Semaphore(0)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._mine = threading.local()

    def sprung(self) -> bool:
        """Has every request come, and been carried out where it should be?"""
        return self._held == self._wanted

    def answer(self) -> None:
        """Answers the requests that are to be answered; returns when the last byte is out."""
        self._answering.set()
        for _ in range(self._after):
            assert self._answered.acquire(timeout=HELD), "a request is not answered"

    def release(self) -> None:
        """Their senders are dead: the others are let go without an answer."""
        self._over.set()

    def hold(self, server: PretendServer, psa: Psa, request: Received) -> Fault | None:
        """Called when a request has come, on its own thread; what happens to it then."""
        step = psa.step(request)
        with self._lock:
            when = self._left.pop((psa.name, *step), None) if step else None
        if when is None:
            return None
        if when is When.DURING:
            server._commit(request)
        with self._lock:
            self._held += 1
        if when is When.AFTER:
            self._answering.wait(HELD)
            self._mine.answered = True
            return None
        self._over.wait(HELD)
        return Fault("drop")

    def left(self) -> None:
        """Called when a request was answered, on its own thread."""
        if getattr(self._mine, "answered", False):
            self._mine.answered = False
            self._answered.release()


class Trapped(PretendServer):
    """A PSA that a trap may be set in."""

    trap = Trap({})
    handle: Psa

    def _arrived(self, request: Received) -> Fault | None:
        return super()._arrived(request) or self.trap.hold(self, self.handle, request)

    def _left(self) -> None:
        super()._left()
        self.trap.left()


class _ConnectWise(Trapped, PretendConnectWise):
    pass


class _Autotask(Trapped, PretendAutotask):
    pass


class TrappedWorld(World):
    """The pretend systems, with PSAs that traps may be set in."""

    connectwise_class = _ConnectWise
    autotask_class = _Autotask

    def __init__(self) -> None:
        super().__init__()
        for psa in self.psas().values():
            assert isinstance(psa.server, Trapped)
            psa.server.handle = psa

    def set_trap(self, moments: Mapping[Moment, When]) -> Trap:
        trap = Trap(moments)
        for psa in self.psas().values():
            assert isinstance(psa.server, Trapped)
            psa.server.trap = trap
        return trap
