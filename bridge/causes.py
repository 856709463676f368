"""What needs a person? Reads the store; says nothing to anybody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

from bridge.bookkeeping import Bookkeeping, overdue_after
from bridge.idempotency import IdempotencyStore
from bridge.models import Delivery, DeliveryState

Kind = Literal["rejected", "held", "paused", "unpolled"]

#: Seconds that a connector may be paused before a person hears of it.
PAUSED_FOR = 900.0
#: Seconds between the first refusal and its notice: what is refused meanwhile is in the same notice.
GATHER = 20.0
#: Deliveries that a notice names; the others are counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason to call a person. Times are seconds since the epoch by Redis' clock."""

    kind: Kind
    #: Empty for `unpolled`.
    connector: str
    since: float
    #: When it last grew: the newest of its deliveries.
    newest: float = 0.0
    #: Its deliveries, and the oldest of them.
    count: int = 0
    deliveries: tuple[Delivery, ...] = ()
    reason: str = ""
    next_probe: float | None = None

    @property
    def name(self) -> str:
        """The same for the same trouble, also after a restart."""
        return f"{self.kind}:{self.connector}"


def find_causes(store: IdempotencyStore, books: Bookkeeping, connectors: Iterable[str]) -> Iterator[Cause]:
    """Everything that needs a person now, of the given connectors."""
    names = list(connectors)
    now = store.now()
    for kind, state in (("rejected", DeliveryState.REJECTED), ("held", DeliveryState.HELD)):
        entered = store.entered(state)
        for name in names:
            at = entered.get(name, {})
            if not at or now - min(at.values()) < GATHER:
                continue
            named = (store.delivery(report_id, name) for report_id in list(at)[:NAMED])
            yield Cause(
                cast(Kind, kind),
                name,
                since=min(at.values()),
                newest=max(at.values()),
                count=len(at),
                deliveries=tuple(delivery for delivery in named if delivery is not None),
            )
    for name in names:
        pause = store.paused(name)
        if pause is not None and now - pause.since >= PAUSED_FOR:
            yield Cause("paused", name, since=pause.since, reason=pause.reason, next_probe=pause.next_probe)
    poll = books.poll()
    since = poll.last_complete_at or poll.first_started_at or store.born_at()
    if now - since > overdue_after(poll):
        yield Cause("unpolled", "", since=since, reason=poll.error)
