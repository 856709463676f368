"""Every interleaving of two workers over one create, within bounds: not drawn but enumerated.

The first worker comes to any of its steps and stops there, dead or frozen; the second one takes over, comes to any of
*its* steps and stops as well; then everybody goes on. Most mistakes of such a mechanism need no more than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from tests.model.model import Phase
from tests.model.steps import faults_of
from tests.model.world import World

#: Steps of a turn that creates the first ticket, and some to spare.
LONGEST_TURN = 22
#: What happens to the first worker's create, beside that it stops somewhere.
FATES = ("", "late 58")
#: Seconds that pass before the second worker begins: enough for a lease, enough for `settle`.
WAITS = (9, 69)


def first_comes_to(world: World, steps: int, fate: str) -> str:
    """Worker 0 takes `steps` steps; returns the step where it stands."""
    world.dispatch()
    world.start(0, world.hints.popleft())
    for _ in range(steps):
        world.step(0, fate if world.workers[0].at == "create" else "")
    return world.workers[0].at


def second_takes(world: World, steps: int) -> int:
    """Worker 1 does what is due, for so many steps or until nothing is. Returns how many it took."""
    world.freeze(2)
    taken = quiet = 0
    while taken < steps and quiet < 15:
        if world.workers[1].at:
            taken += world.step(1)
            continue
        world.dispatch()
        if world.hints:
            world.start(1, world.hints.popleft())
        else:
            quiet += 1
            world.wait(5)
    return taken


def runs(long: bool) -> Iterator[tuple[str, str, str, int]]:
    """(the first worker's end, the second one's, fate of the create, seconds between them); few but with `--long`."""
    if long:
        yield from product(("crash", "freeze", "empty"), ("crash", "freeze", "slow", ""), FATES, WAITS)
        return
    yield "freeze", "freeze", "late 58", 9
    yield "crash", "slow", "late 58", 9
    yield "freeze", "slow", "", 9
    yield "empty", "", "late 58", 9


def stop(world: World, worker: int, how: str) -> None:
    """A worker dies, freezes, or is slow: then it still renews its lease. `empty`: and Redis loses everything."""
    match how:
        case "crash":
            world.crash(worker)
        case "freeze":
            world.freeze(worker)
        case "empty":
            world.empty()
            world.poll()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ends" in metafunc.fixturenames:
        long = bool(metafunc.config.getoption("--long", default=False))
        metafunc.parametrize("ends", list(runs(long)), ids=lambda ends: "-".join(str(end or "none") for end in ends))


@pytest.mark.timeout(1800)
def test_two_workers_and_one_create(
    redis_url: str, request: pytest.FixtureRequest, ends: tuple[str, str, str, int]
) -> None:
    first, second, fate, seconds = ends
    every = 2 if request.config.getoption("--long", default=False) else 4  # the steps that the second stops at
    at, came = "", 0
    for steps in range(LONGEST_TURN):
        for others in range(0, 40 if second else 1, every):
            world = World(redis_url)
            try:
                world.open[1] = "as first seen"
                world.poll()
                at = first_comes_to(world, steps, fate)
                stop(world, 0, first)
                world.wait(seconds)
                came = second_takes(world, others) if second else 0
                if second:
                    stop(world, 1, second)
                    world.wait(31)
                world.thaw(0)
                world.finish(0)
                world.come_to_rest()
            except AssertionError as failure:
                failure.add_note(f"the first stops before step {steps} ({at or 'none'}), the second after {came} steps")
                raise
            finally:
                world.close()
            if came < others:
                break


def begin(world: World, steps: int, *, in_doubt: bool) -> str:
    """As `first_comes_to`, in the turn that creates, or in the one that looks an earlier create up."""
    world.open[1] = "as first seen"
    world.poll()
    if in_doubt:
        first_comes_to(world, LONGEST_TURN, "late 58")
        world.wait(6)
    return first_comes_to(world, steps, "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["crash", "freeze"])
@pytest.mark.parametrize("in_doubt", [False, True], ids=["create", "look-up"])
def test_what_a_person_handles_at_every_step(redis_url: str, how: str, in_doubt: bool) -> None:
    """Whoever worked on it stopped; a person takes care of it, and thinks better of it later."""
    handled = 0
    for steps in range(LONGEST_TURN):
        world = World(redis_url)
        try:
            at = begin(world, steps, in_doubt=in_doubt)
            stop(world, 0, how)
            world.wait(9)
            world.handle(1)
            sent = len(world.system.tickets)
            if world.phase(1) is Phase.HANDLED:
                handled += 1
                for _ in range(8):
                    world.round()
                    world.wait(20)
                world.report(1, "changed")
                world.poll()
                world.thaw(0)
                world.finish(0)
                assert world.phase(1) is Phase.HANDLED
                assert len(world.system.tickets) - sent <= 1  # what was on its way
            world.come_to_rest()
        except AssertionError as failure:
            failure.add_note(f"the first stops before step {steps} ({at or 'none'})")
            raise
        finally:
            world.close()
    assert handled > 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("in_doubt", [False, True], ids=["create", "look-up"])
def test_every_fault_at_every_step(redis_url: str, in_doubt: bool) -> None:
    """One worker, one fault, in the turn that creates or in the one that looks an earlier create up."""
    tried, at = 0, ""
    for steps in range(LONGEST_TURN):
        faults: tuple[str, ...] = ("none yet",)
        which = 0
        while which < len(faults):
            world = World(redis_url)
            try:
                at = begin(world, steps, in_doubt=in_doubt)
                faults = faults_of(at)
                if faults:
                    world.step(0, faults[which])
                    world.come_to_rest()
                    tried += 1
            except AssertionError as failure:
                failure.add_note(f"step {steps} ({at}) suffers {faults[which]}")
                raise
            finally:
                world.close()
            which += 1
    assert tried > 7


@pytest.mark.timeout(600)
@pytest.mark.parametrize("again", [False, True], ids=["over", "open again"])
def test_what_a_worker_that_stopped_at_every_step_finds_forgotten(redis_url: str, again: bool) -> None:
    """It stands still until the report is over and forgotten; then it goes on, and the report may open again."""
    forgotten = 0
    for steps in range(LONGEST_TURN):
        world = World(redis_url)
        try:
            at = begin(world, steps, in_doubt=False)
            world.freeze(0)
            for _ in range(20):
                world.wait(10)
                world.round()
            world.end(1)
            world.round()
            world.wait(130)
            world.round()
            world.forget(deliveries=False)
            world.forget(deliveries=True)
            forgotten += world.phase(1) is Phase.ABSENT
            if again:
                world.report(1, "open again")
            world.thaw(0)
            world.finish(0)
            world.come_to_rest()
            assert len([made for made in world.system.tickets if not made.late]) <= 1 <= len(world.system.tickets)
        except AssertionError as failure:
            failure.add_note(f"the first stops before step {steps} ({at or 'none'})")
            raise
        finally:
            world.close()
    assert forgotten > LONGEST_TURN / 2
