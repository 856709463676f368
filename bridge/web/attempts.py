"""Slows down whoever guesses the page's password, across all processes.

===============================  =======================================================================================
``page:attempts:<lane>``         hash: `count` of attempts that failed, `until` when the next one waits (ms)
``page:attempts``                by time (ms), attempts of the last minute from whom nobody knows
``page:device:<digest>``         a browser that logged in before
===============================  =======================================================================================

A lane is an address (of IPv6 a /64). It has some attempts free, then waits, twice as long each time. All that are
unknown share a number of attempts a minute, for an attacker with many addresses, but for whoever comes from this
machine. A browser that logged in before has a lane of its own, so that no attacker, not even one behind the same
address, can lock its person out.
"""

from __future__ import annotations

import secrets

import redis

from bridge.idempotency import IdempotencyStore
from bridge.web.sessions import digest, new_id

#: Attempts before the first wait, which is one second.
FREE = 5
#: Seconds of the longest wait.
LONGEST_WAIT = 900.0
#: Attempts a minute of all addresses together.
TOGETHER = 20
#: Lanes of this machine, for whom there is no such number: who can reach it by a tunnel is never locked out by others.
HERE = frozenset({"127.0.0.1", "::/64"})
#: Seconds after its last attempt that a lane is forgotten.
REMEMBERED = 3600
#: Seconds that a browser counts as known after its last log-in.
KNOWN_FOR = 90 * 86_400


class Attempts:
    """Methods raise `redis.RedisError` when Redis is away."""

    def __init__(self, store: IdempotencyStore, client: redis.Redis) -> None:
        self._store = store
        self._client = client

    def begin(self, lane: str, device: str) -> tuple[float, float]:
        """Seconds that `lane` has to wait (0: go on, it is counted), and those after this attempt should it fail.

        `device` is what `succeeded` gave the browser, or ''.
        """
        wait, then = self._store.script(
            "page_attempt",
            lane,
            digest(device) if device else "",
            FREE,
            round(LONGEST_WAIT * 1000),
            0 if lane in HERE else TOGETHER,
            REMEMBERED,
            secrets.token_hex(8),
            client=self._client,
        )
        return int(wait) / 1000, int(then) / 1000

    def succeeded(self, lane: str, device: str) -> str:
        """Forgets what was counted. Returns the id by which this browser is known from now on."""
        known = new_id()
        with self._client.pipeline() as pipe:
            pipe.delete(self._store.key(f"page:attempts:{lane}"))
            if device:
                pipe.delete(self._store.key(f"page:device:{digest(device)}"))
            pipe.set(self._store.key(f"page:device:{digest(known)}"), "1", ex=KNOWN_FOR)
            pipe.execute()
        return known
