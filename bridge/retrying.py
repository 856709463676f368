"""What a person can have done to many deliveries at once; the page and the commands share it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from bridge.idempotency import IdempotencyStore
from bridge.models import DeliveryState, ReportKey

#: States out of which `retry` brings a delivery without being asked for that state by name.
RETRIED = (DeliveryState.PENDING, DeliveryState.CREATING, DeliveryState.REJECTED, DeliveryState.HELD)
#: Deliveries made due in one round trip.
BATCH = 200


def retry_all(store: IdempotencyStore, pairs: Iterable[tuple[ReportKey, str]]) -> Counter[str]:
    """Makes deliveries due now, and has the connectors they wait for probed. Returns how many were in which state.

    '' counts those that do not exist. Those in doubt are only looked up, those with a ticket are left as they are.
    """
    before: Counter[str] = Counter()
    connectors: set[str] = set()
    waiting = iter(pairs)
    while batch := list(itertools.islice(waiting, BATCH)):
        pipeline = store.client.pipeline(transaction=False)
        for report_id, connector in batch:
            store.script("retry", report_id, connector, client=pipeline)
        before.update(str(state or "") for state in store.execute(pipeline))
        connectors |= {connector for _, connector in batch}
    for connector in connectors:
        store.probe_now(connector)
    return before
