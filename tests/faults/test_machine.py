"""`run` and its embedded Redis: killed while they start or stop, on a full disk, started twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Bridge, World
from tests.faults.figures import Figures
from tests.faults.judge import Judge, Load, connectors, slow, wait_until_quiet
from tests.faults.site import wait_until_ready

#: Kills during start-up and as many during shutdown.
LONG_KILLS, SHORT_KILLS = 25, 2
#: Bytes of the disk that runs full: enough for an append-only file of a few reports.
DISK = 16 * 1024 * 1024

Report = Callable[[Figures], None]
MakeBridge = Callable[..., Bridge]


@pytest.fixture
def bridge(world: World, make_bridge: MakeBridge) -> Bridge:
    slow(world)
    return make_bridge(world, connectors=connectors(world))


def settle(world: World, bridge: Bridge, since: float) -> tuple[float, int, int]:
    """Seconds since `since` until every report has its tickets, lost, doubled."""
    judge = Judge(world)
    judge.wait_until_complete(600)
    settled = time.monotonic() - since
    wait_until_quiet(bridge)
    return settled, len(judge.missing()), len(judge.doubled())


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moment", ["start-up", "shutdown"])
def test_killed_while_it_starts_or_stops(
    moment: str, world: World, bridge: Bridge, long: bool, report_figures: Report
) -> None:
    dice = random.Random(moment)
    kills = LONG_KILLS if long else SHORT_KILLS
    with Load(world, 2, seed=1):
        for _ in range(kills):
            process = bridge.start("run")
            if moment == "shutdown":
                wait_until_ready(bridge, process)
                time.sleep(dice.uniform(0, 2))
                process.send_signal(signal.SIGTERM)
            time.sleep(dice.uniform(0, 2))
            bridge.kill(process)
    killed_at = time.monotonic()
    process = bridge.start("run")
    held = [row for row in wait_until_quiet(bridge, 180) if row["state"] == "held"]
    if held:  # too many workers in a row ended over it: a person is called, and does what the README says
        assert all("workers in a row ended" in row["reason"] for row in held)
        assert bridge("retry", "--state", "held").returncode == 0
    settled, lost, doubled = settle(world, bridge, killed_at)
    reports, remarks = len(Judge(world).numbers()), f"{len(held)} held for a person, who let them go on with `retry`"
    report_figures(Figures(f"6 SIGKILL of `run` during {moment}", reports, kills, lost, doubled, settled, remarks))
    assert bridge.stop(process) == 0


def test_a_second_run_on_one_data_folder_says_so_and_ends(world: World, bridge: Bridge, report_figures: Report) -> None:
    process = bridge.start("run")
    wait_until_ready(bridge, process)
    world.reports(5)
    started_at = time.monotonic()
    second = bridge("run")
    assert second.returncode != 0
    assert str(bridge.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    settled, lost, doubled = settle(world, bridge, started_at)
    report_figures(Figures("6 a second `run` on one data folder", 5, 1, lost, doubled, settled))
    assert bridge.stop(process) == 0


@pytest.fixture
def small_disk(bridge: Bridge) -> Iterator[Path]:
    """The bridge's data folder on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    bridge.data_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(bridge.data_dir)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this system does not let a small disk be mounted")
    yield bridge.data_dir
    for process in bridge.processes:
        if process.poll() is None:
            bridge.stop(process)
    subprocess.run(["umount", str(bridge.data_dir)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all that was free."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.timeout(1800)
def test_a_full_disk_under_the_embedded_redis(
    world: World, bridge: Bridge, small_disk: Path, long: bool, report_figures: Report
) -> None:
    process = bridge.start("run")
    wait_until_ready(bridge, process)
    with Load(world, 2, seed=1):
        for _ in range(3 if long else 1):
            time.sleep(2)
            filler = fill(small_disk)
            time.sleep(30 if long else 5)
            filler.unlink()
    freed_at = time.monotonic()
    settled, lost, doubled = settle(world, bridge, freed_at)
    faults = 3 if long else 1
    report_figures(
        Figures("6 disk full under the embedded Redis", len(Judge(world).numbers()), faults, lost, doubled, settled)
    )
    assert "Traceback" not in bridge.log()
    assert bridge.stop(process) == 0
