"""`run` on its embedded Redis: killed, interrupted, and with its server or its data taken away."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_processes import assert_once_each, delivered, references, serves, short

MakeBridge = Callable[..., Bridge]


def redis_pid(bridge: Bridge) -> int:
    return int((bridge.data_dir / "redis.pid").read_text("ascii"))


def runs(pid: int) -> bool:
    """Is this a process that has not ended? A zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_after_a_kill_the_orphaned_redis_is_adopted_and_nothing_is_lost(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world, connectors=short(world))
    world.reports(20)
    world.connectwise.latency = world.autotask.latency = 0.1
    first = bridge.start("run")
    wait_until(lambda: len(world.connectwise.tickets) > 2)
    bridge.kill(first)
    orphan = redis_pid(bridge)
    assert runs(orphan)
    world.connectwise.latency = world.autotask.latency = 0.0
    second = bridge.start("run")
    wait_until(lambda: delivered(world, references(1, 20)), 40)
    assert redis_pid(bridge) == orphan
    wait_until(lambda: {row["state"] for row in bridge.deliveries()} == {"created"})
    assert bridge.stop(second) == 0
    assert_once_each(world, references(1, 20))
    wait_until(lambda: not runs(orphan), 5, "the last user stops the server")


def test_the_embedded_redis_may_die_or_lose_its_folder_while_run_works(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world, connectors=short(world))
    process = bridge.start("run")
    world.reports(5)
    wait_until(lambda: delivered(world, references(1, 5)))
    second = bridge("run")
    assert second.returncode == 2
    assert f"another run works on this data folder (pid {process.pid})" in second.stderr

    os.kill(redis_pid(bridge), signal.SIGKILL)
    world.reports(5, first=6)
    wait_until(lambda: delivered(world, references(6, 10)), 20, "after its server was killed")
    assert bridge.log().count("the embedded Redis had ended and was started again") == 1

    lost = redis_pid(bridge)
    shutil.rmtree(bridge.data_dir)
    world.reports(5, first=11)
    wait_until(lambda: not runs(lost), 20, "a server without its folder keeps nothing, so it is replaced")
    wait_until(lambda: delivered(world, references(11, 15)), 30, "after its folder was deleted")
    wait_until(lambda: serves(bridge), 5)
    assert process.poll() is None
    wait_until(lambda: {row["state"] for row in bridge.deliveries()} == {"created"})
    successor = redis_pid(bridge)
    assert bridge.stop(process) == 0
    assert_once_each(world, references(1, 15))
    wait_until(lambda: not runs(successor), 5)


def test_ctrl_c_ends_cleanly_in_mid_work_and_leaves_no_server_behind(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world, connectors=short(world))
    world.reports(20)
    world.connectwise.latency = world.autotask.latency = 0.3
    process = bridge.start("run")
    wait_until(lambda: len(world.connectwise.tickets) > 2)
    server = redis_pid(bridge)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 0, bridge.log()
    assert "Traceback" not in bridge.log()
    wait_until(lambda: not runs(server), 5)
    made = len(world.connectwise.tickets)
    assert made < 20
    world.connectwise.latency = world.autotask.latency = 0.0
    again = bridge("run", "--once")
    assert again.returncode == 0, again.stdout + again.stderr
    assert_once_each(world, references(1, 20))
