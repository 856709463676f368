"""What is wrong with the bridge itself, for which `/status` answers 503 and the overview comes first with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bridge.bookkeeping import OVERDUE, overdue_after
from bridge.causes import PAUSED_FOR
from bridge.health import STALE
from bridge.idempotency import Pause
from bridge.notices import NoticeBook
from bridge.printing import moment
from bridge.runtime import Runtime
from bridge.web.times import lasted

#: Without these nothing moves.
NEEDED = ("poller", "worker")
#: Seconds after which a report without its ticket is late, as for the alert HuntressBridgeTicketsWaiting.
LATE = 900.0

Kind = Literal["poll", "processes", "stream", "paused", "late", "unserved", "untold"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that a person should look at."""

    kind: Kind
    text: str
    #: Which connector it is about; empty: none.
    connector: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The reports that have no ticket in a connector yet; without those that quiet hours hold back."""

    connector: str
    count: int
    #: Seconds for which the first has waited.
    longest: float

    def __str__(self) -> str:
        what = "one ticket waits" if self.count == 1 else f"{self.count:,} tickets wait"
        return f"{what} in {self.connector}, the first for {lasted(self.longest)}"


def find_troubles(runtime: Runtime) -> Iterator[Trouble]:
    """Everything that is wrong now. Raises `redis.RedisError`."""
    store, books = runtime.store, runtime.books
    now, poll = store.now(), books.poll()
    since = poll.last_complete_at or poll.first_started_at
    if since is None or now - since > overdue_after(poll):
        when = "since the start" if poll.last_complete_at is None else f"since {moment(poll.last_complete_at)}"
        yield Trouble("poll", f"no complete poll {when}{': ' + poll.error if poll.error else ''}")
    yield from (Trouble("processes", text) for text in silent(runtime))
    for kind in runtime.settings.sources.kinds:
        stream = books.stream(kind)
        if stream.problem_since is not None and now - stream.problem_since > OVERDUE:
            name = kind.replace("_", " ")
            yield Trouble("stream", f"{name}s cannot be listed since {moment(stream.problem_since)}: {stream.problem}")
    for name in runtime.services:
        pause = store.paused(name)
        if pause is not None and not passing(pause, now):
            yield Trouble("paused", f"connector {name} is paused: {pause.reason}", name)
    for each in waiting(runtime):
        if each.longest > LATE:
            late: Kind = "late" if each.connector in runtime.services else "unserved"
            yield Trouble(late, f"{each}{why(runtime, each)}", each.connector)
    if runtime.settings.alerts.connectors:
        for notice in NoticeBook(store).outstanding():
            if notice.problem:
                yield Trouble("untold", f"nobody could be told of {notice.cause}: {notice.problem}")


def silent(runtime: Runtime) -> Iterator[str]:
    """Processes that are needed and give no sign of life, or say that they do not do their work."""
    now = runtime.store.now()
    beats = [beat for beat in runtime.books.heartbeats() if abs(now - beat.at) <= STALE]
    for role in NEEDED:
        if role not in {beat.role for beat in beats}:
            yield f"no {role} gives a sign of life"
    for beat in beats:
        if beat.problem:
            yield f"the {beat.role} on {beat.host} (pid {beat.pid}) does not do its work: {beat.problem}"


def passing(pause: Pause, now: float) -> bool:
    """Did a busy ticket system only ask for a rest? That needs nobody, unless it goes on for long."""
    return pause.kind == "rate" and now - pause.since < PAUSED_FOR


def waiting(runtime: Runtime) -> Iterator[Waiting]:
    """Each connector in which reports wait for their ticket, unless it is paused, which says more."""
    store, now = runtime.store, runtime.store.now()
    for name in sorted({*runtime.services, *store.connectors()}):
        count, since = store.waiting(name)
        if since is not None and store.paused(name) is None:
            yield Waiting(name, count, max(0.0, now - since))


def why(runtime: Runtime, each: Waiting) -> str:
    """The reason of the one that has waited longest, as the end of a sentence."""
    if each.connector not in runtime.services:
        return ": no connector of that name is configured any more"
    first = runtime.store.longest_waiting(each.connector)
    return f": {first.reason}" if first is not None and first.reason else ""
