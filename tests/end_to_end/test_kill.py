"""Killed in mid-create: the next one looks before it creates, and there is one ticket.

Two bridges are killed at the same time: a `run` with its embedded Redis, started again on the same folder, and one of
two `worker` processes on a shared Redis. Each is in the middle of two creates in either PSA: one that the PSA will
carry out, and one that it never does.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS, Psa, reference

#: Reports: delivered before the kill; killed in mid-create, which the PSA carried out or not; sent after the kill.
BEFORE, CARRIED_OUT, NEVER_ARRIVED, AFTER = 1, 2, 3, 4
SETTLE = 10
#: Seconds that a living worker's lease has left at least; until its end it might have been sending.
LEASE_LEFT = 5
#: Seconds after which a create that was under way must have been looked up.
CLAIMED_WITHIN = 20


@dataclass
class Killed:
    """What is known after a kill."""

    psas: dict[str, Psa]
    #: When it was killed, by time.monotonic(); the next one was there at once.
    at: float
    deliveries: list[dict[str, Any]]
    logs: str


def make_bridge(stack: contextlib.ExitStack, **tables: Any) -> tuple[World, Bridge, dict[str, Psa]]:
    world = World().start(stack)
    connectors = world.connectors(*PSAS)
    for table in connectors.values():
        table["settle"] = SETTLE
    bridge = Bridge.in_folder(stack, world, {"connectors": connectors} | tables)
    return world, bridge, world.psas()


def get_into_mid_create(world: World, psas: dict[str, Psa]) -> None:
    """Returns when both PSAs have received both creates and answered none."""
    for psa in psas.values():
        psa.fault_create("late", CARRIED_OUT, delay=5)
        psa.fault_create("hang", NEVER_ARRIVED, delay=60)
    world.report(CARRIED_OUT)
    world.report(NEVER_ARRIVED)
    both = (CARRIED_OUT, NEVER_ARRIVED)
    wait_until(lambda: all(psa.creates(number) for psa in psas.values() for number in both), 20)


def first_is_found_again(psas: dict[str, Psa]) -> None:
    wait_until(lambda: all(len(psa.look_ups(BEFORE)) >= 2 for psa in psas.values()), 20, "the first ticket was proven")


def go_on(world: World, bridge: Bridge, psas: dict[str, Psa]) -> list[dict[str, Any]]:
    world.report(AFTER)
    wanted = {reference(number) for number in (BEFORE, CARRIED_OUT, NEVER_ARRIVED, AFTER)}
    wait_until(lambda: all(wanted <= psa.references().keys() for psa in psas.values()), 40, "every report has a ticket")
    deliveries: list[dict[str, Any]] = []

    def settled() -> bool:
        deliveries[:] = bridge.deliveries()
        return {row["state"] for row in deliveries} == {"created"}

    wait_until(settled, 20, "every delivery is recorded")
    return deliveries


def kill_run(stack: contextlib.ExitStack) -> Killed:
    """`run`, with its embedded Redis left behind as an orphan."""
    world, bridge, psas = make_bridge(stack)
    world.report(BEFORE)
    process = bridge.start("run")
    first_is_found_again(psas)
    get_into_mid_create(world, psas)
    bridge.kill(process)
    killed_at = time.monotonic()
    process = bridge.start("run")
    deliveries = go_on(world, bridge, psas)
    assert bridge.stop(process) == 0, bridge.log()
    return Killed(psas, killed_at, deliveries, bridge.log(0) + bridge.log(1))


def kill_worker(stack: contextlib.ExitStack, redis: RedisServer) -> Killed:
    """One of two workers; the other one is frozen until the first has taken everything."""
    world, bridge, psas = make_bridge(stack, redis={"url": redis.url})
    world.report(BEFORE)
    first, other = bridge.start("worker"), bridge.start("worker")
    wait_until(lambda: all('"ready"' in bridge.log(number) for number in (0, 1)), 20, "both workers are ready")
    poller = bridge.start("poller")
    first_is_found_again(psas)
    other.send_signal(signal.SIGSTOP)
    get_into_mid_create(world, psas)
    bridge.kill(first)
    killed_at = time.monotonic()
    other.send_signal(signal.SIGCONT)
    deliveries = go_on(world, bridge, psas)
    for process in (poller, other):
        assert bridge.stop(process) == 0, bridge.log()
    return Killed(psas, killed_at, deliveries, bridge.log(0) + bridge.log(1))


@pytest.fixture(scope="module")
def killed() -> Iterator[dict[str, Killed]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
        redis = RedisServer(Path(folder), "--appendonly", "yes")
        stack.callback(redis.kill)
        redis.start()
        scenarios: dict[str, Callable[[], Killed]] = {
            "run": lambda: kill_run(stack),
            "worker": lambda: kill_worker(stack, redis),
        }
        with ThreadPoolExecutor() as pool:
            futures = {name: pool.submit(scenario) for name, scenario in scenarios.items()}
            yield {name: future.result() for name, future in futures.items()}


@pytest.fixture(params=["run", "worker"])
def after(request: pytest.FixtureRequest, killed: dict[str, Killed]) -> Killed:
    return killed[request.param]


@pytest.fixture(params=PSAS)
def psa(request: pytest.FixtureRequest, after: Killed) -> Psa:
    return after.psas[request.param]


def test_there_is_one_ticket_per_report(after: Killed, psa: Psa) -> None:
    numbers = (BEFORE, CARRIED_OUT, NEVER_ARRIVED, AFTER)
    assert dict(psa.references()) == {reference(number): 1 for number in numbers}
    rows = [row for row in after.deliveries if row["connector"] == psa.name]
    assert {row["report_id"]: row["ticket_id"] for row in rows} == {
        number: str(id) for number in numbers for id in psa.ids(number)
    }


def test_both_are_looked_up_within_20_seconds(after: Killed, psa: Psa) -> None:
    for number in (CARRIED_OUT, NEVER_ARRIVED):
        before, *later = [look_up.at for look_up in psa.look_ups(number)]
        assert before < after.at < later[0]
        assert later[0] - after.at < CLAIMED_WITHIN


def test_what_was_carried_out_is_not_created_again(psa: Psa) -> None:
    assert len(psa.creates(CARRIED_OUT)) == 1


def test_what_never_arrived_is_created_after_settle(after: Killed, psa: Psa) -> None:
    _, again = psa.creates(NEVER_ARRIVED)
    assert again.at - after.at >= LEASE_LEFT + SETTLE
    asked = [look_up.at for look_up in psa.look_ups(NEVER_ARRIVED) if after.at < look_up.at < again.at]
    assert asked, "no create without asking first"


def test_no_log_has_a_traceback(after: Killed) -> None:
    assert "Traceback" not in after.logs
