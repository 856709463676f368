"""What a webhook says, as a frozen event. Only verified bodies come here (`bridge.webhook_signature`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.listing import Sieve, is_open_incident, sort_out
from bridge.models import IncidentReport, Kind
from bridge.parsing import ParseError, line, parse_report, text, whole_number, word
from bridge.text import fit
from bridge.webhook_signature import Refused

#: Longest body, in bytes; a report's own is some kB.
LONGEST_BODY = 1_048_576
#: Longest part of a comment that is kept, in characters.
LONGEST_COMMENT = 20_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened at the source. `id` is the message's own, the same whenever it is sent again."""

    id: str
    #: The source's word, e.g. `incident_report.created`.
    type: str
    #: None: nothing that becomes a ticket, e.g. an account notice.
    kind: Kind | None = None
    account_id: int | None = None
    #: As it was when the event was sent; None where the payload carries none that is understood here.
    report: IncidentReport | None = None
    #: Would a listing with this in it show the report as open?
    open: bool = False
    comment: str = ""
    #: Of a notice: what it is about.
    subject: str = ""

    @property
    def wants_poll(self) -> bool:
        """Does a listing tell more of it?"""
        return self.kind is not None and not self.type.endswith(".notification")


def parse(message_id: str, body: bytes) -> Event:
    """Tolerates missing fields and unknown events. Raises `Refused` where there is no event, or no id of its report."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, Mapping) or not word(raw.get("event_type")):
        raise Refused(422, "its body is no JSON object with an event_type")
    event = Event(
        id=message_id,
        type=word(raw["event_type"])[:100],
        account_id=_account_id(raw),
        subject=line(raw.get("subject"))[:200],
    )
    kind = event.type.partition(".")[0]
    if kind not in tuple(Kind):
        return event
    event = replace(event, kind=Kind(kind))
    return _about_incident(event, raw) if event.kind is Kind.INCIDENT_REPORT else event


def _account_id(raw: Mapping[str, Any]) -> int | None:
    account = raw.get("account")
    nested = account.get("id") if isinstance(account, Mapping) else None
    return whole_number(nested, least=1) or whole_number(raw.get("account_id"), least=1)


def _about_incident(event: Event, raw: Mapping[str, Any]) -> Event:
    try:
        report = parse_report(raw)
    except ParseError as error:
        raise Refused(422, str(error)) from None
    # Webhooks leave out the indicators' types, but count them by type.
    types = tuple(name for name, count in report.indicator_counts if count)
    return replace(
        event,
        report=replace(report, indicator_types=report.indicator_types or types),
        open=bool(sort_out([raw], Sieve(is_open_incident, None, needs_sending=True)).reports),
        comment=fit(text(raw.get("comment")).strip(), LONGEST_COMMENT),
    )
