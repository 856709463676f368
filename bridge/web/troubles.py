"""What is wrong with the bridge itself, for which `/status` answers 503 and the overview comes first with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bridge.bookkeeping import OVERDUE, overdue_after
from bridge.notices import NoticeBook
from bridge.printing import moment
from bridge.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that a person should look at."""

    kind: Literal["poll", "stream", "paused", "untold"]
    text: str
    #: Which connector it is about; empty: none.
    connector: str = ""


def find_troubles(runtime: Runtime) -> Iterator[Trouble]:
    """Everything that is wrong now. Raises `redis.RedisError`."""
    store, books = runtime.store, runtime.books
    now, poll = store.now(), books.poll()
    since = poll.last_complete_at or poll.first_started_at
    if since is None or now - since > overdue_after(poll):
        when = "since the start" if poll.last_complete_at is None else f"since {moment(poll.last_complete_at)}"
        yield Trouble("poll", f"no complete poll {when}{': ' + poll.error if poll.error else ''}")
    for kind in runtime.settings.sources.kinds:
        stream = books.stream(kind)
        if stream.problem_since is not None and now - stream.problem_since > OVERDUE:
            name = kind.replace("_", " ")
            yield Trouble("stream", f"{name}s cannot be listed since {moment(stream.problem_since)}: {stream.problem}")
    for name in runtime.services:
        pause = store.paused(name)
        if pause is not None:
            yield Trouble("paused", f"connector {name} is paused: {pause.reason}", name)
    if runtime.settings.alerts.connectors:
        for each in NoticeBook(store).outstanding():
            if each.problem:
                yield Trouble("untold", f"nobody could be told of {each.cause}: {each.problem}")
