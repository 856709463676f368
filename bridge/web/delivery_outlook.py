"""What happens next to a delivery, and what a person can do about it, as sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.history import HistoryEvent, What
from bridge.models import Delivery, DeliveryState
from bridge.notes import said
from bridge.text import clean

#: States that `retry`, and `handle`, do something about.
RETRIABLE = frozenset({"pending", "creating", "rejected", "held", "handled"})
HANDLEABLE = frozenset({"pending", "creating", "rejected", "held", "gone"})

#: What happened, for people; the text of an event says more.
_WORDS = {
    What.SEEN: "First seen",
    What.CLAIMED: "Taken up by a worker",
    What.LOOKED_UP: "Looked up by its reference: no ticket yet",
    What.CREATING: "The create request was let out",
    What.FOUND: "Ticket found and taken",
    What.CREATED: "Ticket created",
    What.WAITING: "Waits",
    What.DOUBTFUL: "Outcome not known",
    What.REJECTED: "Refused",
    What.HELD: "Held for a person",
    What.NOTED: "Note added",
    What.CLOSED: "Report over, ticket told",
    What.REOPENED: "Opened again",
    What.CONTINUED: "Goes on in a new ticket",
    What.RETRIED: "Retried by a person",
    What.HANDLED: "Marked as handled by a person",
    What.GONE: "Ticket gone",
}
_KINDS = {
    What.WAITING: "wait",
    What.DOUBTFUL: "wait",
    What.REJECTED: "bad",
    What.HELD: "bad",
    What.GONE: "bad",
}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What happens next by itself, when (seconds since the epoch; None: at no set time), and what a person can do."""

    then: str
    at: float | None
    advice: str


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. `after`: seconds since the line before; None: it is the first."""

    at: float
    words: str
    #: `wait`, `bad` or ''.
    kind: str
    text: str
    after: float | None
    attempt: int
    times: int
    last_at: float | None


def outlook(delivery: Delivery, *, configured: bool, paused: bool) -> Outlook:
    """`configured`: is there still a connector of that name; `paused`: is it not served now."""
    state, at = delivery.state, delivery.next_attempt_at
    name = delivery.connector
    link = f"`huntress-bridge link {delivery.report_id} {name} TICKET`"
    if not configured and state not in (DeliveryState.HANDLED, DeliveryState.CLOSED):
        return Outlook(
            f"Nothing: no connector {name} is configured any more.",
            None,
            f"Configure [connectors.{name}] again, or mark this delivery as handled.",
        )
    if state is DeliveryState.REJECTED:
        return Outlook(
            "Nothing, until a person acts: the ticket system refused this ticket for good.",
            None,
            "Mend what the reason names, then retry. Or make the ticket by hand and take it over with "
            f"{link}, or mark this delivery as handled.",
        )
    if state is DeliveryState.HELD:
        return Outlook(
            "Nothing, until a person acts: a ticket may exist or not, and nobody can be asked.",
            None,
            f"Look for {delivery.reference} where the ticket should be. If it is there, take it over with {link} or "
            "mark this delivery as handled; if not, retry, which makes it.",
        )
    if state is DeliveryState.HANDLED:
        return Outlook(
            "Nothing: a person took care of it.",
            None,
            "Retry takes it up again.",
        )
    if state is DeliveryState.GONE:
        return Outlook(
            "Nothing: the ticket is gone from the ticket system, and a person's doing is not undone.",
            None,
            f"If the incident still needs a ticket, make one and take it over with {link}; else mark this as handled.",
        )
    if paused and state is not DeliveryState.CLOSED:
        return Outlook(
            "It goes on as soon as the connector is served again; that is tried by itself.",
            at,
            f"Mend what the pause of {name} names; nothing has to be done here.",
        )
    if state is DeliveryState.CREATING:
        return Outlook(
            "The create request went out and its outcome is not known yet: the ticket is looked up by its reference, "
            "and only made once that found nothing.",
            at,
            "Nothing has to be done. Retry looks it up now.",
        )
    if state is DeliveryState.PENDING:
        return Outlook(
            "It is tried again." if delivery.attempts else "A worker makes the ticket as soon as its turn comes.",
            at,
            "Nothing has to be done. Retry tries it at once.",
        )
    if delivery.todo and at is not None:
        return Outlook("The ticket exists; what is left to do to it is tried again.", at, "Nothing has to be done.")
    if state is DeliveryState.CLOSED:
        return Outlook("Nothing, unless the report is opened again.", None, "")
    return Outlook("The ticket is followed: what changes in the report, and its end, are told to it.", None, "")


def timeline(events: list[HistoryEvent]) -> list[Moment]:
    """The history as people read it, in order, each with the time since the one before."""
    lines: list[Moment] = []
    before: float | None = None
    for event in sorted(events, key=lambda event: event.at):
        what = What(event.what)
        lines.append(
            Moment(
                at=event.at,
                words=_WORDS[what],
                kind=_KINDS.get(what, ""),
                text=clean(said(event.text) if what is What.NOTED else event.text),
                after=None if before is None else event.at - before,
                attempt=event.attempt,
                times=event.times,
                last_at=event.last_at or None,
            )
        )
        before = max(event.at, event.last_at)
    return lines
