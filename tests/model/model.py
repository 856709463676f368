"""The life of a delivery, stated once: its phases, and which command may bring it from one to another.

A delivery is one report's way to one connector. The store keeps it as a record; what matters of that record is its
*phase*:

==============  ========================================================================================
``ABSENT``      the store knows nothing of it
``WAITING``     to be created; nobody works on it
``TAKEN``       to be created; a worker asks, renders, prepares. Nothing was sent
``SENDING``     a worker passed the gate: its create request may be out
``DOUBT``       a create request may have been carried out, nobody knows; nobody works on it
``LOOKING``     as ``DOUBT``, and a worker looks the ticket up (and creates only once `settle` is over)
``UNFINISHED``  the ticket exists and still needs something (its link, a note planned or not); nobody works on it
``FINISHING``   the ticket exists; a worker does what it still needs
``TOLD``        the ticket exists and needs nothing but what the report may become
``REJECTED``    the ticket system said no; a person must act
``HELD``        workers died over it again and again; a person must act
``HANDLED``     a person took care of it, with or without a ticket; nothing is done for it until it is retried
==============  ========================================================================================

A ticket is made in ``SENDING`` alone, so "never twice" is a question of who may come there: out of ``TAKEN`` after an
empty look-up, and out of ``LOOKING`` when nothing was found `settle` after the last moment of the former sending.

What follows the creation is told in ``FINISHING``: that the report changed, is over, or is open again. No note may be
there twice, which `World` counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.models import ReportKey

#: Seconds by which an uncertain create shows in a search, or never was.
SETTLE = 60.0
#: Leases in a row without a result after which a person must look.
MOST_LAPSED = 10


class Phase(StrEnum):
    """Where a delivery stands, and whether somebody works on it."""

    ABSENT = "absent"
    WAITING = "waiting"
    TAKEN = "taken"
    SENDING = "sending"
    DOUBT = "doubt"
    LOOKING = "looking"
    UNFINISHED = "unfinished"
    FINISHING = "finishing"
    TOLD = "told"
    REJECTED = "rejected"
    HELD = "held"
    HANDLED = "handled"


P = Phase
#: Somebody works on it, or did when last heard of.
OWNED = frozenset({P.TAKEN, P.SENDING, P.LOOKING, P.FINISHING})
#: Its ticket is known.
TICKETED = frozenset({P.UNFINISHED, P.FINISHING, P.TOLD})
#: It comes to nothing more without a person or a change of the report.
RESTING = frozenset({P.ABSENT, P.TOLD, P.REJECTED, P.HELD, P.HANDLED})

#: What each command of the store may do to a phase; what is not named here may change none. A command that is executed
#: twice does at its second time what it may do at its first.
MOVES: Mapping[str, frozenset[tuple[Phase, Phase]]] = {
    # The poller saw the report open.
    "observe": frozenset({(P.ABSENT, P.WAITING)}),
    # A worker takes it; or finds that the one who had it never came back, and must wait itself.
    "claim": frozenset(
        {
            (P.WAITING, P.TAKEN),
            (P.TAKEN, P.WAITING),
            (P.DOUBT, P.LOOKING),
            (P.SENDING, P.LOOKING),
            (P.SENDING, P.DOUBT),
            (P.LOOKING, P.DOUBT),
            (P.UNFINISHED, P.FINISHING),
            (P.TOLD, P.FINISHING),
            (P.FINISHING, P.UNFINISHED),
            (P.FINISHING, P.TOLD),
        }
    ),
    # The gate before the create request.
    "begin_create": frozenset({(P.TAKEN, P.SENDING), (P.LOOKING, P.SENDING)}),
    # A ticket exists, whoever brings the news: the owner goes on, or nobody has it, or another one is at it.
    "record": frozenset(
        {(before, P.FINISHING) for before in (P.TAKEN, P.SENDING, P.LOOKING)}
        | {(P.TOLD, P.UNFINISHED)}
        | {
            (before, after)
            for before in (P.ABSENT, P.WAITING, P.DOUBT, P.REJECTED, P.HELD)
            for after in (P.UNFINISHED, P.TOLD)
        }
    ),
    # A turn ends.
    "release": frozenset(
        {
            *((P.TAKEN, after) for after in (P.WAITING, P.REJECTED, P.HELD)),
            *((P.SENDING, after) for after in (P.WAITING, P.DOUBT, P.REJECTED)),
            *((P.LOOKING, after) for after in (P.WAITING, P.DOUBT, P.REJECTED, P.HELD)),
            (P.FINISHING, P.UNFINISHED),
            (P.FINISHING, P.TOLD),
        }
    ),
    # A report that is over has no ticket to take over.
    "drop": frozenset({(P.TAKEN, P.ABSENT)}),
    # A person wants it tried again.
    "retry": frozenset(
        {
            *((before, after) for before in (P.HELD, P.HANDLED) for after in (P.WAITING, P.DOUBT)),
            *((P.HANDLED, after) for after in (P.UNFINISHED, P.TOLD)),
            (P.REJECTED, P.WAITING),
        }
    ),
    # A person took care of it: whatever has no ticket and no owner who lives.
    "handle": frozenset(
        {(before, P.HANDLED) for before in (P.WAITING, P.TAKEN, P.SENDING, P.DOUBT, P.LOOKING, P.REJECTED, P.HELD)}
    ),
    # Its report is long over.
    "forget": frozenset((before, P.ABSENT) for before in (P.TOLD, P.REJECTED, P.HELD, P.HANDLED)),
    # Redis came back empty.
    "empty": frozenset((before, P.ABSENT) for before in Phase),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model looks at in one delivery's record. Times are seconds by the store's clock."""

    phase: Phase = Phase.ABSENT
    owner: str = ""
    lease_until: float = 0.0
    #: Last moment at which an unanswered create could have been sent.
    doubt_at: float | None = None
    ticket: int | None = None
    other_ticket: int | None = None
    lapsed: int = 0
    #: Will it come up again by itself?
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the store that was carried out. `token` is its caller's, `ticket` the id that a `record` brings."""

    name: str
    report: ReportKey | None = None
    token: str = ""
    ticket: int | None = None


class Illegal(AssertionError):
    """The store did what the model does not allow."""


#: Fields of a record that the model looks at.
FIELDS = ("state", "owner", "lease_until", "doubt_at", "todo", "ticket_id", "other_ticket", "lapsed", "plan")


def seen(fields: Sequence[str | None], *, scheduled: bool) -> Seen:
    """A record of the store, by its `FIELDS`, as the model sees it. Raises `Illegal` when it is in no phase."""
    record = {name: value for name, value in zip(FIELDS, fields, strict=True) if value is not None}
    if "state" not in record:
        return Seen(scheduled=scheduled)
    owner = record.get("owner", "")
    doubt = record.get("doubt_at")
    todo = json.loads(record.get("todo") or "[]")
    match record["state"]:
        case "pending":
            phase = P.TAKEN if owner else P.WAITING
        case "creating" if owner:
            phase = P.LOOKING if doubt else P.SENDING
        case "creating":
            phase = P.DOUBT
        case "created" | "closed":
            phase = P.FINISHING if owner else P.UNFINISHED if todo or record.get("plan") else P.TOLD
        case "rejected" | "held" | "handled" as state if not owner:
            phase = P(state)
        case _:
            raise Illegal(f"a record in no phase: {record}")
    if phase is P.DOUBT and not doubt:
        raise Illegal(f"in doubt, but nobody knows since when: {record}")
    return Seen(
        phase=phase,
        owner=owner,
        lease_until=float(record.get("lease_until", 0)) / 1000,
        doubt_at=float(doubt) / 1000 if doubt else None,
        ticket=int(record["ticket_id"]) if record.get("ticket_id") else None,
        other_ticket=int(record["other_ticket"]) if record.get("other_ticket") else None,
        lapsed=int(record.get("lapsed", 0)),
        scheduled=scheduled,
    )


def check_record(now: Seen) -> None:
    """What is true of a record at every moment."""
    if now.phase is not P.HANDLED:
        require((now.phase in TICKETED) == (now.ticket is not None), "exactly what is ticketed names a ticket", now)
    require(now.phase is not P.HANDLED or not now.scheduled, "what a person took care of never comes up again", now)
    require(now.phase in RESTING or now.scheduled, "what is not at rest comes up again by itself", now)
    if now.ticket is not None and now.other_ticket is not None:
        require(now.ticket < now.other_ticket, "of two tickets the lower one is kept", now)


def check_move(before: Seen, after: Seen, command: Command, at: float) -> None:
    """May `command`, carried out at the time `at`, have brought the record from `before` to `after`?"""

    def must(holds: bool, rule: str) -> None:
        require(holds, rule, f"{command} at {at:.3f}", before, after)

    if before.phase is not after.phase:
        moves = MOVES.get(command.name, frozenset())
        must((before.phase, after.phase) in moves, f"{command.name} may not lead {before.phase} -> {after.phase}")
    if command.name == "empty" or (command.name == "forget" and after.phase is P.ABSENT):
        return

    held = bool(before.owner) and before.lease_until > at
    if before.owner != after.owner:
        if after.owner:
            must(command.name == "claim", "only a claim makes an owner")
        must(not held or command.token == before.owner, "who holds a lease loses it to nobody")
    if after.lease_until > before.lease_until and before.owner == after.owner:
        must(command.name in ("claim", "renew", "begin_create"), "a lease is prolonged by what is for that")
        must(command.token == before.owner, "only its owner prolongs a lease")
    if after.phase is P.SENDING and before.phase is not P.SENDING:
        must(held and command.token == before.owner, "the gate opens only for an owner whose lease holds")
    if before.phase in (P.DOUBT, P.LOOKING) and after.phase in (P.SENDING, P.WAITING, P.REJECTED):
        must(ended(before, at), "a doubt ends only after `settle`")
    if before.phase is P.SENDING and after.phase is P.HANDLED:
        must(after.doubt_at is not None, "who handles what is being sent does not forget it")
    if before.phase is P.SENDING and after.phase in (P.DOUBT, P.LOOKING, P.HANDLED) and after.doubt_at is not None:
        sendable = min(before.lease_until, at)
        must(after.doubt_at >= sendable, "a doubt begins when its owner could send for the last time")
    if before.phase in (P.DOUBT, P.LOOKING) and after.phase in (P.DOUBT, P.LOOKING):
        must((after.doubt_at or 0) >= (before.doubt_at or 0), "a doubt does not grow older by being looked at")
    unsettled = before.phase in (P.DOUBT, P.LOOKING, P.HELD, P.HANDLED) and before.ticket is None
    if unsettled and after.phase in (P.HELD, P.HANDLED, P.WAITING) and not ended(before, at):
        kept_so = after.phase in (P.HELD, P.HANDLED) and (after.doubt_at is not None or after.ticket is not None)
        must(kept_so, "who holds, handles or retries a doubt does not forget it")
    if command.name == "release" and before != after:
        must(command.token == before.owner, "only the owner ends a turn")
    if after.phase is P.HELD and before.phase is not P.HELD:
        must(before.lapsed >= MOST_LAPSED, "held only when workers died over it again and again")

    kept = [ticket for ticket in (before.ticket, command.ticket) if ticket is not None]
    must(after.ticket == min(kept, default=None), "a ticket is a fact: the lowest one known is kept")


def ended(delivery: Seen, at: float) -> bool:
    """Is nothing in doubt any more at the time `at`?"""
    return delivery.doubt_at is None or at - delivery.doubt_at >= SETTLE


def require(holds: bool, rule: str, *told: object) -> None:
    """Raises `Illegal` with the rule that was broken."""
    if not holds:
        raise Illegal(f"{rule}\n" + "\n".join(str(each) for each in told))
