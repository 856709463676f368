"""What is the next thing for a delivery? Pure decisions, no network, no clock of its own.

A delivery is level-triggered: whatever happened before, the answer follows from what the report wants and what is known
of its ticket.
"""

from __future__ import annotations

import random
from enum import StrEnum

from bridge.idempotency import Claim, look_up_offsets
from bridge.models import DeliveryState, TicketState
from connectors.base import ConnectorSettings

#: Leases in a row without a result after which the plain rendering is tried, and after which a person must look.
#: Between them lie growing waits (`claim.lua`): what is in flight while workers are killed from outside comes through.
PLAIN_AFTER = 3
GIVE_UP_AFTER = 10

#: Seconds: the shortest and longest back-off of what is unavailable, and of what is misconfigured.
UNAVAILABLE_WAIT = (5.0, 300.0)
MISCONFIGURED_WAIT = (60.0, 900.0)
#: Seconds between look-ups of the ticket that proves a connector finds what it creates.
VERIFY_WAIT = (1.0, 15.0)
#: Seconds between attempts to get late host details, and how many are made.
DETAILS_WAIT = (60.0, 900.0)
DETAILS_ATTEMPTS = 10
#: Seconds after its creation in which every status of a ticket counts as its first, and at which it is looked at.
FRESH = 120.0
LOOK_AT_STATUS = 90.0
#: Things to do to a ticket that wait long, and hold nothing else up.
LATER = frozenset({"details", "status"})
#: Failures in a row after which what is to do to a ticket waits for the news of its report, and not they for it.
PATIENCE = 3


class Step(StrEnum):
    """What a turn does."""

    #: Ask for the reference (where that is possible), then create.
    CREATE = "create"
    #: An earlier create is in doubt: ask for the reference, create only once `settle` is over.
    LOOK_UP = "look up"
    #: The ticket exists; something is still to be done to it.
    FOLLOW_UP = "follow up"
    #: The ticket is to be told what an earlier turn wrote down and may have told already.
    RESUME = "resume"
    #: The ticket exists and the report changed since.
    UPDATE = "update"
    #: The report is over, and the ticket does not know.
    END = "end"
    #: The report is open again after its ticket was told that it is over.
    REOPEN = "reopen"
    #: The report changed in a way that the ticket need not know.
    CONSIDER = "consider"
    #: Workers keep dying over this delivery; a person must look.
    GIVE_UP = "give up"
    NOTHING = "nothing"


def next_step(claim: Claim, *, can_find: bool) -> Step:
    """The one next thing for a claimed delivery."""
    if claim.state in (DeliveryState.PENDING, DeliveryState.CREATING):
        in_doubt = claim.state is DeliveryState.CREATING and claim.doubt_at is not None and can_find
        # A ticket that exists needs no person: what is in doubt is looked up first, unless that ends workers as well.
        if claim.lapsed >= (2 * GIVE_UP_AFTER if in_doubt else GIVE_UP_AFTER):
            return Step.GIVE_UP
        return Step.LOOK_UP if in_doubt else Step.CREATE
    if claim.state in (DeliveryState.CREATED, DeliveryState.CLOSED):
        step = _following_step(claim)
        return Step.GIVE_UP if step is not Step.NOTHING and claim.lapsed >= GIVE_UP_AFTER else step
    return Step.NOTHING


def _following_step(claim: Claim) -> Step:
    """The next thing for a delivery whose ticket exists.

    What may take long, `LATER`, comes after what is news, and so does what fails again and again: the ticket may be
    gone.
    """
    if claim.plan:
        return Step.RESUME
    if claim.todo - LATER and claim.failures < PATIENCE:
        return Step.FOLLOW_UP
    newer = claim.version > max(claim.told, claim.considered)
    if claim.report is not None:
        if claim.over and claim.ended_at is None:
            return Step.END
        if not claim.over and claim.ended_at is not None:
            return Step.REOPEN
        if newer and not claim.over:
            return Step.UPDATE
    if newer:
        return Step.CONSIDER
    return Step.FOLLOW_UP if claim.todo else Step.NOTHING


def moved_on(claim: Claim, state: TicketState, *, untouched: bool, now: float) -> bool:
    """Has a person moved the ticket on? `untouched`: its status is among those that count as no person's doing."""
    fresh = claim.made_at is not None and 0 <= now - claim.made_at <= FRESH
    return not (fresh or untouched or state.status in claim.statuses)


def takes_up_again(claim: Claim, settings: ConnectorSettings, now: float) -> bool:
    """Is the ticket of a report that is open again reopened, or is a new one made?"""
    if settings.reopen == "within":
        return claim.ended_at is not None and now - claim.ended_at <= settings.reopen_within
    return settings.reopen == "always"


def may_create(claim: Claim) -> bool:
    """Is one more create worth a worker, or did too many end over it?"""
    return claim.lapsed < GIVE_UP_AFTER


def plainly(claim: Claim) -> bool:
    """Is the built-in plain rendering to be used, because the templates may be what kills the workers?"""
    return claim.lapsed >= PLAIN_AFTER


def wait_after_empty_look_up(claim: Claim, now: float, settle: float) -> float | None:
    """Seconds until the next look-up of a create in doubt; None: `settle` is over, it never happened.

    `now` is when the empty look-up was *asked*: its answer knows nothing of what came later.
    """
    if claim.doubt_at is None or now - claim.doubt_at >= settle:
        return None
    offsets = look_up_offsets(settle)
    following = next((offset for offset in offsets if claim.doubt_at + offset > now), settle)
    return max(0.0, claim.doubt_at + following - now)


def back_off(failures: int, bounds: tuple[float, float], draw: random.Random) -> float:
    """Seconds to wait after `failures` failures in a row: doubling within bounds, less a jitter of up to a quarter."""
    shortest, longest = bounds
    return float(min(longest, shortest * 2 ** min(failures, 16))) * (1 - 0.25 * draw.random())
