"""Every counter-example ever found, by its name: what happened, step by step, and what must come of it."""

from __future__ import annotations

import pytest

from tests.model.model import MOST_LAPSED, Phase
from tests.model.ticket_system import PSA
from tests.model.world import World


def poison(world: World, restart: float) -> int:
    """One process with three threads dies whenever report 1 is rendered. Returns the most lapses of another report."""
    most = 0
    while world.phase(1) is not Phase.HELD or any(worker.at for worker in world.workers):
        world.dispatch()
        world.hand_out()
        for number, worker in enumerate(world.workers):
            report = worker.claimed[0]
            world.step(number)
            if report == 1 and worker.at == "begin_create":
                for each in range(len(world.workers)):
                    world.crash(each)
                world.wait(restart)
                world.hub.store.prove(PSA)
                break
        most = max(most, *(record.lapsed for report, record in world.records.items() if report != 1))
        world.wait(0.5)
    return most


def kill_at(world: World, step: str) -> int:
    """Whoever comes to a step dies there, until nobody does any more. Returns how many died."""
    died = 0
    for _ in range(500):
        world.dispatch()
        for worker in world.hand_out():
            if world.go_to(worker, step):
                world.crash(worker)
                died += 1
        if world.phase(1) is Phase.HELD:
            break
        world.wait(5)
    return died


# -- creates what it cannot find ---------------------------------------------------------------------------------------


@pytest.fixture
def blind(world: World) -> World:
    """The API user may create but not search: one ticket was made, and the connector paused."""
    world.system.blind = True
    world.open[2] = world.open[3] = "as first seen"
    work(world, 90)
    pause = world.hub.store.paused(PSA)
    assert pause is not None
    assert pause.kind == "unfindable"
    assert len(world.system.tickets) == 1
    return world


def work(world: World, seconds: float) -> None:
    """Everybody works while time passes."""
    until = world.now + seconds
    while world.now < until:
        world.round()
        world.wait(5)


def restart(world: World) -> None:
    """Every process starts anew; the dispatcher probes what is paused."""
    for worker in range(len(world.workers)):
        world.crash(worker)
    world.hub.store.probe_now(PSA)


def test_a_restart_makes_no_second_ticket_that_cannot_be_found(blind: World) -> None:
    """Each start forgot the proof under way, so the probe found nothing to wait for and the connector served again."""
    for _ in range(3):
        restart(blind)
        work(blind, 70)
    assert len(blind.system.tickets) == 1
    blind.system.blind = False
    blind.come_to_rest()
    assert len(blind.system.tickets) == 3


def test_a_restart_while_the_first_ticket_is_looked_up_makes_no_second_one(world: World) -> None:
    world.system.blind = True
    world.open[2] = "as first seen"
    for _ in range(6):
        work(world, 20)
        restart(world)
    assert len(world.system.tickets) == 1
    assert world.hub.store.paused(PSA) is not None


def test_a_night_without_a_dispatcher_makes_no_second_ticket_that_cannot_be_found(blind: World) -> None:
    """The pause ends when nobody confirms it for an hour; what failed to be proven stays unproven."""
    blind.clock.now += 8 * 3600
    blind.wait(1)
    restart(blind)
    work(blind, 120)
    assert len(blind.system.tickets) == 1
    assert blind.hub.store.paused(PSA) is not None


def test_changed_settings_begin_the_proof_anew(blind: World) -> None:
    blind.settings = "as changed"
    restart(blind)
    work(blind, 90)
    assert len(blind.system.tickets) == 2, "one more, to prove it by"
    assert blind.hub.store.paused(PSA) is not None


# -- workers that die again and again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["find", "begin_create", "create"])
def test_a_delivery_that_kills_its_workers_is_held(world: World, step: str) -> None:
    """Each empty look-up of the create in doubt cleared the count, so a create that kills did so for ever."""
    assert kill_at(world, step) == MOST_LAPSED
    assert world.phase(1) is Phase.HELD
    assert world.system.tickets == []
    world.come_to_rest()


@pytest.mark.parametrize("restart", [1, 8, 20])
def test_what_is_in_flight_beside_a_poison_report_is_not_held_with_it(world: World, restart: float) -> None:
    """Taken up a random while apart, another report died beside it four times in about one case of five."""
    world.hub.store.prove(PSA)
    world.open |= dict.fromkeys(range(2, 7), "as first seen")
    world.poll()
    assert poison(world, restart) == 3
    world.come_to_rest()


# -- two tickets -------------------------------------------------------------------------------------------------------


def test_of_two_tickets_the_one_kept_is_completed(world: World) -> None:
    """One worker sends after a freeze longer than `settle`; the other completed its own ticket, which is not kept."""
    world.dispatch()
    world.start(0, world.hints.popleft())
    world.go_to(0, "begin_create")
    world.step(0, times=2)
    world.freeze(0)
    while world.workers[1].at != "create":
        world.wait(5)
        world.dispatch()
        if world.hints:
            world.start(1, world.hints.popleft())
            world.go_to(1, "create")
    world.thaw(0)
    world.finish(0)
    world.finish(1)
    assert [made.late for made in world.system.tickets] == [True, False]
    world.come_to_rest()
    assert world.system.tickets[0].number == "T1"


# -- Redis comes back empty --------------------------------------------------------------------------------------------


def test_a_worker_that_has_not_noticed_yet_sends_after_the_store_was_lost(world: World) -> None:
    """Its lease lets it send for some seconds more, and its ticket shows just within `settle` of that."""
    world.dispatch()
    world.start(0, world.hints.popleft())
    world.go_to(0, "begin_create")
    world.step(0)
    world.freeze(0)
    world.empty()
    world.poll()
    world.wait(6)
    world.thaw(0)
    assert world.go_to(0, "create")
    world.step(0, "late 58")
    world.crash(0)
    for _ in range(60):
        world.wait(1)
        world.round()
    assert [made.late for made in world.system.tickets] == [False]
    world.come_to_rest()
