"""What is the next thing for a delivery? Pure decisions, no network, no clock of its own.

A delivery is level-triggered: whatever happened before, the answer follows from what the report wants and what is known
of its ticket.
"""

from __future__ import annotations

import random
from enum import StrEnum

from bridge.idempotency import Claim, look_up_offsets
from bridge.models import DeliveryState

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


class Step(StrEnum):
    """What a turn does."""

    #: Ask for the reference (where that is possible), then create.
    CREATE = "create"
    #: An earlier create is in doubt: ask for the reference, create only once `settle` is over.
    LOOK_UP = "look up"
    #: The ticket exists; something is still to be done to it.
    FOLLOW_UP = "follow up"
    #: The ticket exists and the report changed since.
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
    if claim.state is DeliveryState.CREATED:
        if claim.todo:
            return Step.GIVE_UP if claim.lapsed >= GIVE_UP_AFTER else Step.FOLLOW_UP
        if claim.version > max(claim.told, claim.considered):
            return Step.CONSIDER
    return Step.NOTHING


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
