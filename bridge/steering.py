"""What people do to deliveries, and the sentences that answer them; for commands and page alike."""

from __future__ import annotations

from bridge.idempotency import IdempotencyStore
from bridge.models import ReportKey
from bridge.text import one_line, shorten

#: Longest reason that is kept, in characters.
LONGEST_REASON = 500


def handle(store: IdempotencyStore, report_id: ReportKey, connector: str, reason: str) -> str:
    """Marks a delivery as taken care of by a person. Why not, as a sentence; '': it is."""
    state = store.handle(report_id, connector, shorten(one_line(reason), LONGEST_REASON))
    if state == "":
        return f"there is no delivery of report {report_id} to {connector}"
    if state == "busy":
        return (
            f"a worker is at report {report_id} for {connector} right now; nothing was changed. Look at it again in a "
            "few seconds, it may have its ticket by then"
        )
    if state in ("created", "closed"):
        return f"report {report_id} has its ticket in {connector} (state {state}); nothing was changed"
    return ""
