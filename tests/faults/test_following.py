"""Killed between any two steps of following a report: every ticket ends as it should, with one note per change.

A round is one kill. One report rises in severity and has another text, one ends, one is open again, and for each of
them one request to either PSA is held until the kill: not carried out, carried out and not answered, or answered this
moment. The mail on each is at that point as well.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from bridge.demo.mailbox import MailFaultKind
from tests.end_to_end.conftest import Bridge, wait_until
from tests.faults.figures import Figures
from tests.faults.ground import make_server, start_all
from tests.faults.judge import connectors
from tests.faults.site import PATIENCE, Site, wait_until_ready
from tests.faults.stories import CONNECTORS, ENDS, KINDS, REOPENS, RISES, Stories
from tests.faults.trap import TrappedWorld, When

pytestmark = pytest.mark.timeout(3600)

SETTLE = 5
#: Seconds after an answer within which the kill comes, at most: the step after it may have begun.
RIGHT_AFTER = 0.01
#: Chunks of rounds that a site has in the long form.
LONG_CHUNKS = 20

#: Which request on each report is held.
Steps = Mapping[str, str]
LOOKS: Steps = dict.fromkeys(KINDS, "look")
NOTES: Steps = dict.fromkeys(KINDS, "note")
CHANGES: Steps = {RISES: "priority", ENDS: "status", REOPENS: "status"}

#: What keeps mails at the same point as the requests.
MAIL_FAULTS: Mapping[When, MailFaultKind] = {When.BEFORE: "hang_rcpt", When.DURING: "hang_after_dot"}


@dataclass(frozen=True)
class Round:
    """One kill, and what is under way then."""

    steps: Steps
    when: When
    #: Does each report turn again before the next process is there? Only what was written down by then is told by
    #: itself, so this is for notes.
    turned: bool = False


def kill_in(
    round: Round, stories: Stories, numbers: Mapping[str, int], dice: random.Random, *, redis_too: bool
) -> float:
    """Lets everything happen and kills the last process where `round` says; returns when, by time.monotonic()."""
    site, world = stories.site, stories.world
    assert isinstance(world, TrappedWorld)
    moments = {
        (name, psa.ids(number)[0], round.steps[kind]): round.when
        for name, psa in world.psas().items()
        for kind, number in numbers.items()
    }
    trap = world.set_trap(moments)
    before = len(world.mailbox.asked), len(world.mailbox.messages)
    if kept := MAIL_FAULTS.get(round.when):
        world.mailbox.fault(kept, times=len(numbers))
    stories.happen(numbers)

    def mails_are_there() -> bool:
        asked, taken = len(world.mailbox.asked) - before[0], len(world.mailbox.messages) - before[1]
        return (asked if round.when is When.BEFORE else taken) >= len(numbers)

    wait_until(lambda: trap.sprung() and mails_are_there(), 20, f"all are on the point of {round}")
    trap.answer()
    time.sleep(dice.uniform(0, RIGHT_AFTER))
    victim = len(site.processes) - 1
    at, _ = site.kill(victim, redis_too=redis_too)
    trap.release()
    if round.turned:
        stories.happen({ENDS: numbers[RISES], REOPENS: numbers[ENDS], RISES: numbers[REOPENS]})
    site.again(victim)
    wait_until_ready(site.bridge, site.processes[victim][1])
    return at


def play(
    roles: tuple[str, ...],
    fault: str,
    rounds: tuple[Round, ...],
    stack: contextlib.ExitStack,
    long: bool,
    *,
    redis_too: bool = False,
) -> Figures:
    """One site; its last process is the one that is killed."""
    world = TrappedWorld()
    world.start(stack)
    server = None if "run" in roles else make_server(stack, "--appendonly", "yes")
    tables: dict[str, Any] = {"connectors": connectors(world, *CONNECTORS, settle=SETTLE)}
    if server:
        tables["redis"] = {"url": server.url}
    site = Site(world, Bridge.in_folder(stack, world, tables), roles, server)
    site.wait_until_ready()
    stories = Stories(site)
    dice = random.Random(fault)
    kills, last, settled = 0, 0, 0.0
    for chunk in random_chunks(dice) if long else [rounds]:
        cast = [{kind: last + 3 * index + place for place, kind in enumerate(KINDS, 1)} for index in range(len(chunk))]
        last += 3 * len(chunk)
        for number in (number for numbers in cast for number in numbers.values()):
            stories.begin(number)
        wait_until(lambda: not stories.lost() and stories.at_rest(), 60, "every report has its tickets")
        for numbers in cast:
            stories.happen({ENDS: numbers[REOPENS]})
        wait_until(lambda: not stories.lost() and stories.at_rest(), 60, "those to be opened again are over")
        for round, numbers in zip(chunk, cast, strict=True):
            at = kill_in(round, stories, numbers, dice, redis_too=redis_too)
            stories.wait_until_told(PATIENCE if long else 60)
            kills, settled = kills + 1, max(settled, time.monotonic() - at)
    lost, doubled, repeated = stories.lost(), stories.doubled(), stories.repeated_mails()
    assert stories.at_rest(), f"not everything is told: {lost}"
    site.stop()
    assert site.orderly(), "a traceback in a log"
    changes = sum(story.notes.total() for story in stories.told.values())
    return Figures(
        fault,
        reports=len(stories.told),
        faults=kills,
        lost=len(lost),
        doubled=len(doubled) + repeated,
        settled=settled,
        remarks="; ".join((f"{changes} changes, each told by three connectors", *lost[:5], *doubled[:5])),
        excepted=repeated,
    )


def random_chunks(dice: random.Random) -> Iterator[tuple[Round, ...]]:
    """What a site goes through in the long form; the tickets of a chunk are made right before it."""
    every = [Round(steps, when) for steps in (LOOKS, NOTES, CHANGES) for when in When]
    every += [Round(NOTES, when, turned=True) for when in When]
    for _ in range(LONG_CHUNKS):
        yield tuple(dice.sample(every, 3))


SITES = {
    "run": partial(
        play,
        ("run",),
        "1 SIGKILL of `run` while it follows reports",
        (Round(NOTES, When.DURING, turned=True), Round(LOOKS, When.AFTER)),
    ),
    "redis": partial(
        play,
        ("run",),
        "1 SIGKILL of `run` and its Redis while it follows reports",
        (Round(CHANGES, When.AFTER), Round(NOTES, When.BEFORE)),
        redis_too=True,
    ),
    "worker": partial(
        play,
        ("poller", "worker"),
        "1 SIGKILL of a worker while it follows reports",
        (Round(CHANGES, When.DURING), Round(NOTES, When.AFTER, turned=True)),
    ),
}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Figures]]]:
    with contextlib.ExitStack() as stack:
        yield start_all(SITES, stack, bool(request.config.getoption("--long")))


@pytest.mark.parametrize("site", SITES)
def test_sigkill_between_two_steps(
    site: str, played: dict[str, Future[Figures]], report_figures: Callable[[Figures], None]
) -> None:
    report_figures(played[site].result())
