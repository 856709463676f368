"""The project's share of the source's request budget, one sliding window for all processes, in Redis.

The source allows 60 requests a minute per *account*, shared with everything else its owner runs. Listings come first:
all other reads take at most half of the share.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Literal

from bridge.huntress import Budget, BudgetExhausted
from bridge.idempotency import IdempotencyStore

#: Longest seconds that an answer of the source may keep everybody waiting.
LONGEST_REST = 900.0


class RedisBudget:
    """Implements `bridge.huntress.Budget` for all processes that share a store."""

    def __init__(
        self,
        store: IdempotencyStore,
        requests_per_minute: int,
        *,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        moving: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self.requests_per_minute = requests_per_minute
        self.stopping = stopping or threading.Event()
        self.clock = clock
        #: Called while waiting: the waiting loop is alive.
        self.moving = moving

    def acquire(self, kind: Literal["listing", "detail"], wait: float | None = None) -> None:
        """Returns when one request may be sent. Raises `BudgetExhausted` when that takes longer than `wait` seconds."""
        until = None if wait is None else self.clock() + wait
        while True:
            pause = int(self.store.script("budget", kind, self.requests_per_minute, secrets.token_hex(8))) / 1000
            if pause <= 0:
                return
            self.moving()
            if (until is not None and self.clock() + pause > until) or self.stopping.wait(min(pause, 5.0)):
                raise BudgetExhausted(
                    f"the budget of {self.requests_per_minute} requests a minute to Huntress is used up ({pause:.0f} s)"
                )

    def penalize(self, seconds: float) -> None:
        """The source said "too many requests": nobody asks it anything for `seconds` (at most 15 minutes)."""
        # Down to the millisecond, as the scripts do: more than the longest rest ahead is taken for a clock that jumped.
        rest = int((self.store.now() + min(seconds, LONGEST_REST)) * 1000)
        self.store.client.set(self.store.key("budget:rest"), rest, px=round(LONGEST_REST * 1000))

    def used(self) -> int:
        """Requests of the last 60 s, by all processes."""
        since = round((self.store.now() - 60) * 1000)
        return self.store.client.zcount(self.store.key("budget"), since, "+inf")


class CommandBudget:
    """What a command may use of the budget: at most half, also for listings. Who has to wait is told, once a minute."""

    def __init__(
        self,
        budget: Budget,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        going: Callable[[], None] = lambda: None,
    ) -> None:
        self.budget = budget
        self.say = say
        #: Called when a request may go out.
        self.going = going
        self.clock = clock
        self._told_at: float | None = None

    def acquire(self, kind: Literal["listing", "detail"], wait: float | None = None) -> None:
        """As `RedisBudget.acquire`; `kind` makes no difference."""
        try:
            self.budget.acquire("detail", 0)
        except BudgetExhausted as full:
            now = self.clock()
            if self._told_at is None or now - self._told_at >= 60:
                self._told_at = now
                self.say(f"waiting: {full}; commands take at most half of it")
            self.budget.acquire("detail", wait)
        self.going()

    def penalize(self, seconds: float) -> None:
        self.budget.penalize(seconds)
