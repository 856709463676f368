"""What is not as it should be, may mend itself, and so needs no person yet: all is not well, and nobody is called."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.bookkeeping import overdue_after
from bridge.runtime import Runtime
from bridge.web.times import lasted
from bridge.web.troubles import LATE, passing, waiting, why

#: Seconds that a ticket may be on its way before the page says why it takes long.
SLOW = 60.0


def find_concerns(runtime: Runtime) -> Iterator[str]:
    """One sentence for each, as it stands within a text; none that `find_troubles` has. Raises `redis.RedisError`."""
    store, poll, now = runtime.store, runtime.books.poll(), runtime.store.now()
    since = poll.last_complete_at or poll.first_started_at
    if since is not None and now - since <= overdue_after(poll):
        if poll.error:
            when = "none was complete yet" if poll.last_complete_at is None else f"for {lasted(now - since)}"
            yield f"Polls fail ({when}), so what is new is not seen: {poll.error}"
        elif poll.last_complete_at is None:
            yield "The first poll is under way"
    held_back = store.held_back()
    if held_back:
        yield f"Redis came back empty: no ticket is made for {lasted(held_back)} more, those that exist are looked for"
    for name in runtime.services:
        pause = store.paused(name)
        if pause is not None and passing(pause, now):
            yield f"Connector {name} was asked to wait, {lasted(pause.until - now)} more: {pause.reason}"
    for each in waiting(runtime):
        if SLOW < each.longest <= LATE:
            yield f"{each}{why(runtime, each)}"
