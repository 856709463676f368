"""What the commands print."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridge.bookkeeping import Quarantined
from bridge.idempotency import Pause
from bridge.models import SETTLED, Delivery, DeliveryState, Ticket
from bridge.text import shorten

if TYPE_CHECKING:
    from rich.console import Console

    from bridge.once import OnceResult, Rehearsed
    from bridge.runtime import Runtime


#: Characters of a severity that are shown; the source may send any text as one.
SEVERITY_SHOWN = 20
#: Columns of deliveries that are not wrapped; the reason, behind them, is.
_UNBROKEN = ("report", "organization", "connector", "severity", "state", "ticket", "attempts", "next attempt")


def moment(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def one_line(text: str) -> str:
    """Text of the outside world on one line of a terminal, without anything that steers it."""
    return "".join(character if character.isprintable() else " " for character in text)


def terminal() -> Console:
    """Standard output for people; what reads it from a pipe gets lines as long as a wide terminal's."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else max(160, shutil.get_terminal_size().columns))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    clean: Callable[[str], str],
    *,
    unbroken: Collection[str] = (),
) -> None:
    """A table for people; cells of `unbroken` columns are not wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in unbroken)
    for row in rows:
        table.add_row(*(Text(one_line(clean(cell))) for cell in row))
    terminal().print(table)


def _cells(delivery: Delivery) -> tuple[str, ...]:
    ticket = (delivery.ticket.number or delivery.ticket.id) if delivery.ticket else ""
    return (
        str(delivery.report_id),
        str(delivery.organization_id or "not given"),
        delivery.connector,
        shorten(delivery.severity, SEVERITY_SHOWN),
        str(delivery.state),
        ticket,
        str(delivery.attempts),
        moment(delivery.next_attempt_at) or "",
        delivery.reason,
    )


def explained(delivery: Delivery, waiting: Mapping[str, str]) -> Delivery:
    """A delivery without a reason of its own gets its connector's; `waiting` has one for each configured connector."""
    if delivery.state in SETTLED:
        return delivery
    if delivery.connector not in waiting:
        why = f"no connector {delivery.connector} is configured any more"
        return replace(delivery, reason=f"{why}; {delivery.reason}" if delivery.reason else why)
    return delivery if delivery.reason else replace(delivery, reason=waiting[delivery.connector])


def explained_deliveries(runtime: Runtime, states: Iterable[DeliveryState] = tuple(DeliveryState)) -> list[Delivery]:
    """The deliveries in these states, each with why it waits."""
    waiting = {name: runtime.why_waiting(name) for name in runtime.services}
    return [explained(delivery, waiting) for delivery in runtime.store.deliveries(states)]


def deliveries_json(deliveries: Iterable[Delivery]) -> str:
    """The deliveries as the documented JSON array."""
    rows = [
        {
            "report_id": delivery.report_id,
            "organization_id": delivery.organization_id,
            "connector": delivery.connector,
            "state": str(delivery.state),
            "ticket_id": delivery.ticket.id if delivery.ticket else None,
            "ticket_number": (delivery.ticket.number or None) if delivery.ticket else None,
            "ticket_url": (delivery.ticket.url or None) if delivery.ticket else None,
            "attempts": delivery.attempts,
            "reason": delivery.reason or None,
            "next_attempt_at": moment(delivery.next_attempt_at),
            "updated_at": moment(delivery.updated_at),
            "severity": delivery.severity or None,
            "reference": delivery.reference,
        }
        for delivery in deliveries
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def print_deliveries(
    deliveries: Sequence[Delivery],
    pauses: Sequence[Pause],
    quarantined: Sequence[Quarantined],
    clean: Callable[[str], str],
) -> None:
    """A table for people."""
    from rich.text import Text

    console = terminal()
    if deliveries:
        print_table((*_UNBROKEN, "reason"), map(_cells, deliveries), clean, unbroken=_UNBROKEN)
    else:
        console.print("no deliveries")
    for pause in pauses:
        reason = one_line(clean(pause.reason))
        console.print(
            Text(f"connector {pause.connector} is paused until {moment(pause.until)} at the latest: {reason}")
        )
    for entry in quarantined:
        name = f"report {entry.report_id}" if entry.report_id is not None else "a report without an id"
        console.print(Text(f"quarantined: {name} cannot be parsed: {one_line(clean(entry.reason))}"))


def ticket(ticket: Ticket) -> str:
    """A rendered ticket as text."""
    parts = [f"title: {ticket.title}", f"reference: {ticket.reference}"]
    if ticket.company is not None:
        parts.append(f"company: {ticket.company.company.name} ({ticket.company.source})")
    if ticket.notice:
        parts.append(f"notice: {ticket.notice}")
    if ticket.fields:
        parts.append("fields: " + ", ".join(f"{name} = {value}" for name, value in ticket.fields.items()))
    parts += ["", ticket.text]
    if ticket.html:
        parts += ["", "--- html ---", ticket.html]
    return "\n".join(parts)


def once(result: OnceResult) -> str:
    """How `run --once` ended."""
    lines = [f"{result.delivered} delivered, {len(result.waiting)} not"]
    for delivery in result.waiting:
        reason = one_line(delivery.reason) or "not its turn yet"
        lines.append(f"report {delivery.report_id} to {delivery.connector}: {delivery.state}: {reason}")
    if result.quarantined:
        lines.append(
            f"{result.quarantined} reports are quarantined: they cannot be parsed (see `huntress-bridge deliveries`)"
        )
    if result.problem:
        lines.append(f"the poll was not complete: {result.problem}")
    return "\n".join(lines)


def rehearsed(line: Rehearsed) -> str:
    """One line of a rehearsal."""
    about = f"{shorten(line.severity, SEVERITY_SHOWN) or 'severity not given'}, {shorten(line.organization, 100)}"
    text = f"report {line.report_id} ({about}) to {line.connector}: {line.verdict}"
    for name, value in (("company", line.company), ("title", line.title)):
        if value:
            text += f"; {name}: {value}"
    return one_line(text + (f"; {line.detail}" if line.detail else ""))
