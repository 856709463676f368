"""Which notices are out? One record for each cause, in the store, so that one notice goes out whoever sends it.

A cause is claimed, its notice is sent, and then it is marked as told. A sender that dies in between loses its claim
when the lease ends, and the notice is sent again: at least once, never not at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import redis

from bridge.idempotency import IdempotencyStore
from connectors.base import Unavailable

#: Seconds that a cause must have been gone before a person is told that it is over.
OVER_FOR = 60.0
#: Seconds between two notices of a cause that goes on growing.
AGAIN_AFTER = 3600.0
#: Seconds that a connector's progress with one notice is remembered.
PROGRESS_KEPT = 86400


@dataclass(frozen=True, slots=True)
class Claim:
    """A notice that this process is to send. `since` as in `Cause`."""

    cause: str
    over: bool
    owner: str
    since: float
    #: Attempts in a row that failed, and why the last one did.
    failures: int
    problem: str
    #: Notices of this cause that were sent already.
    number: int


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A cause that a person was told of (`told_at`), or cannot be told of (`problem`). Times as in `Cause`."""

    cause: str
    since: float
    told_at: float | None
    problem: str


class NoticeBook:
    """The records. Methods raise `redis.RedisError`."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store

    def claim(self, cause: str, *, over: bool, since: float, newest: float, lease: float) -> Claim | str:
        """The right to send this notice for `lease` seconds; or why there is nothing to send."""
        owner = secrets.token_hex(8)
        times = (lease, since, newest, OVER_FOR, AGAIN_AFTER)
        answer = self.store.script("claim_notice", cause, int(over), owner, *(round(each * 1000) for each in times))
        if answer[0] != "claimed":
            return cast(str, answer[0])
        fields = dict(zip(answer[1][::2], answer[1][1::2], strict=True))
        return Claim(
            cause,
            over,
            owner,
            since=float(fields["since"]) / 1000,
            failures=int(fields.get("failures", 0)),
            problem=fields.get("problem", ""),
            number=int(fields.get("number", 0)),
        )

    def sent(self, claim: Claim, knew: float) -> None:
        """A person has the notice, which told everything up to `knew`."""
        self._finish(claim, "", 0.0, knew)

    def failed(self, claim: Claim, problem: str, delay: float) -> None:
        """The notice could not be sent; it is tried again after `delay` seconds."""
        self._finish(claim, problem, delay, 0.0)

    def _finish(self, claim: Claim, problem: str, delay: float, knew: float) -> None:
        times = (round(delay * 1000), round(knew * 1000))
        self.store.script("finish_notice", claim.cause, int(claim.over), claim.owner, problem, *times)

    def outstanding(self) -> list[Outstanding]:
        """Every cause that has a record, by name."""
        found = []
        for name in sorted(cast("set[str]", self.store.client.smembers(self.store.key("notices")))):
            fields = cast("dict[str, str]", self.store.client.hgetall(self.store.key(f"notice:{name}")))
            told_at = float(fields["told_at"]) / 1000 if "told_at" in fields else None
            since = float(fields.get("since", 0)) / 1000
            found.append(Outstanding(name, since, told_at, fields.get("problem", "")))
        return found


class NoticeProgress:
    """`connectors.base.Progress` for one notice over one connector."""

    def __init__(self, store: IdempotencyStore, key: str, connector: str) -> None:
        self.client = store.client
        self.key = store.key(f"notice_progress:{connector}:{key}")

    def get(self) -> Mapping[str, str]:
        try:
            return cast("dict[str, str]", self.client.hgetall(self.key))
        except redis.RedisError as error:
            raise Unavailable("the store (Redis) does not answer; progress cannot be read") from error

    def save(self, key: str, value: str) -> None:
        try:
            self.client.hset(self.key, key, value)
            self.client.expire(self.key, PROGRESS_KEPT)
        except redis.RedisError as error:
            raise Unavailable("the store (Redis) does not answer; progress cannot be saved") from error
