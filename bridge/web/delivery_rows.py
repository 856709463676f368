"""Deliveries as people read them: with names, clean text, and links that lead only where the configuration does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from bridge.bookkeeping import Bookkeeping
from bridge.models import Account, Delivery, ReportKey, TicketRef, nothing_but
from bridge.printing import SEVERITY_SHOWN, explained
from bridge.runtime import Runtime
from bridge.text import one_line, shorten
from bridge.ticket_view import portal_link
from connectors.addresses import same_site, split_url
from connectors.base import ConnectorSettings

#: Seconds that the organizations' names are held; an account has thousands of them.
NAMES_KEPT = 10.0
#: Longest subject, and longest reason in a list, in characters.
LONGEST_SUBJECT = 300
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One delivery, all text of it clean. Times are seconds since the epoch by Redis' clock."""

    report_id: ReportKey
    connector: str
    state: str
    severity: str
    subject: str
    organization_id: int | None
    #: Its name, else its id; empty when the report has none.
    organization: str
    #: The ticket's number, else its id; empty: there is none.
    ticket: str
    #: Where the ticket is; empty when the address recorded is not one of the connector's own system.
    ticket_url: str
    #: The report at Huntress; empty when that is not known.
    portal_url: str
    #: Why it waits or was refused.
    reason: str
    attempts: int
    next_attempt_at: float | None
    updated_at: float
    first_seen: float | None
    reference: str

    @property
    def name(self) -> str:
        """As a form sends it."""
        return f"{self.report_id}|{self.connector}"


class Names:
    """The organizations' names, which are read anew now and then."""

    def __init__(self, books: Bookkeeping, clock: Callable[[], float] = time.monotonic) -> None:
        self._books = books
        self._clock = clock
        self._read_at: float | None = None
        self._names: dict[int, str] = {}

    def all(self) -> Mapping[int, str]:
        now = self._clock()
        if self._read_at is None or now - self._read_at >= NAMES_KEPT:
            found = self._books.organizations().values()
            self._names = {each.id: shorten(one_line(each.name), 100) or str(each.id) for each in found}
            self._read_at = now
        return self._names


def ticket_url(ticket: TicketRef | None, settings: ConnectorSettings | None) -> str:
    """The ticket's recorded address, if it is one of the system that the connector's settings name; else ''."""
    if ticket is None or settings is None or split_url(ticket.url) is None:
        return ""
    given = (getattr(settings, name) for name in type(settings).model_fields)
    known = [value for value in given if isinstance(value, str) and split_url(value)]
    return ticket.url if any(same_site(each, ticket.url) for each in known) else ""


def portal_url(pattern: str, delivery: Delivery, account: Account | None) -> str:
    """The report at Huntress. The pattern is that of incident reports, so others have none."""
    if not isinstance(delivery.report_id, int):
        return ""
    report = replace(nothing_but(delivery.report_id), organization_id=delivery.organization_id)
    return portal_link(pattern, report, account)


def rows(runtime: Runtime, deliveries: Iterable[Delivery], names: Mapping[int, str]) -> list[Row]:
    """Each delivery with what the page says of it. Asks Redis once per connector, and for the account."""
    account = runtime.account()
    waiting = {name: runtime.why_waiting(name) for name in runtime.services}
    pattern = runtime.settings.huntress.portal_url
    return [_row(runtime, explained(each, waiting), names, portal_url(pattern, each, account)) for each in deliveries]


def _row(runtime: Runtime, delivery: Delivery, names: Mapping[int, str], portal: str) -> Row:
    ticket, organization = delivery.ticket, delivery.organization_id
    return Row(
        report_id=delivery.report_id,
        connector=delivery.connector,
        state=str(delivery.state),
        severity=shorten(one_line(delivery.severity), SEVERITY_SHOWN),
        subject=shorten(one_line(delivery.subject), LONGEST_SUBJECT),
        organization_id=organization,
        organization="" if organization is None else names.get(organization, str(organization)),
        ticket=shorten(one_line(ticket.number or ticket.id), 60) if ticket else "",
        ticket_url=ticket_url(ticket, runtime.settings.connectors.get(delivery.connector)),
        portal_url=portal,
        reason=shorten(one_line(delivery.reason), LONGEST_REASON),
        attempts=delivery.attempts,
        next_attempt_at=delivery.next_attempt_at,
        updated_at=delivery.updated_at,
        first_seen=delivery.created_at,
        reference=delivery.reference,
    )
