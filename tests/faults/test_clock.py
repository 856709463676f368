"""The clock jumps an hour either way while tickets are being created: nothing doubles, nothing waits for an hour."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.figures import Figures, total
from tests.faults.judge import Load, connectors, slow
from tests.faults.site import Site

HOUR = 3600
#: Seconds from a jump within which every report that was on its way then has its ticket: a lease, `settle`, and what
#: creating takes besides.
WITHIN = 60.0
#: Jumps of a site in the two forms.
LONG_JUMPS, SHORT_JUMPS = 24, 1
PER_SECOND = 1.0
SHIM = Path(__file__).with_name("clock.c")

Report = Callable[[Figures], None]


class Clock:
    """The time of day of the processes that are started with its `variables`."""

    def __init__(self, library: Path, file: Path) -> None:
        self.offset = 0
        self._file = file
        self._file.write_bytes(struct.pack("q", 0))
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(file)}

    def move(self, seconds: int) -> None:
        """Sets it forward, or back."""
        self.offset += seconds
        with self._file.open("r+b") as stream:
            stream.write(struct.pack("q", self.offset))


@pytest.fixture(scope="module")
def library(short_tmp_path: Path) -> Path:
    """The clock, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if os.uname().sysname != "Linux" or compiler is None:
        pytest.skip("a clock that can be set needs Linux and a C compiler")
    target = short_tmp_path / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, SHIM, "-ldl"], check=True, timeout=60)
    return target


def wait_until_asked_for(site: Site, *numbers: int) -> None:
    """Returns when both PSAs have received a create for each of these reports."""
    wanted = [(psa, number) for psa in site.world.psas().values() for number in numbers]
    wait_until(lambda: all(psa.creates(number) for psa, number in wanted), WITHIN, "these creates are under way")


def jump_again_and_again(site: Site, clock: Clock, jumps: int, seed: int) -> tuple[Figures, int]:
    """Forward and back in turn, each in mid-create. What it came to, and how many deliveries were held at a jump."""
    dice = random.Random(seed)
    number, under_way, settled = 2, 0, 0.0
    site.world.reports(1)
    wait_until(lambda: all(len(psa.look_ups(1)) >= 2 for psa in site.world.psas().values()), 30, "the first was proven")
    for jump in range(jumps):
        # Two creates that each PSA carries out although nobody hears of it for a while, and one that it never does.
        late, cut_off, never = range(number, number + 3)
        for psa in site.world.psas().values():
            psa.fault_create("late", late, delay=dice.uniform(4, 8))
            psa.fault_create("drop_commit", cut_off, delay=dice.uniform(3, 6))
            psa.fault_create("hang", never, delay=dice.uniform(2, 6))
        site.world.reports(3, first=number, severity="critical")
        with Load(site.world, PER_SECOND, dice.randrange(2**32), first=number + 3) as load:
            wait_until_asked_for(site, late, cut_off, never)
            time.sleep(dice.uniform(0, 2))
            under_way += len(site.held())
            clock.move(HOUR if (jump + seed) % 2 == 0 else -HOUR)
            jumped_at = time.monotonic()
            time.sleep(dice.uniform(1, 3))
        number = load.next
        site.judge.wait_until_complete(WITHIN)
        settled = max(settled, time.monotonic() - jumped_at)
    site.wait_until_quiet()
    site.stop()
    assert site.orderly(), "a traceback in a log"
    return Figures("", number - 1, jumps, len(site.judge.missing()), len(site.judge.doubled()), settled), under_way


@pytest.fixture
def make_site(
    library: Path,
    make_world: Callable[..., World],
    make_bridge: Callable[..., Bridge],
    make_redis_server: Callable[..., RedisServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], tuple[Site, Clock]]:
    """In turn a `run` whose clock is set with its Redis', and one on a Redis elsewhere, whose clock alone is set."""

    def make(place: int) -> tuple[Site, Clock]:
        clock = Clock(library, tmp_path / f"offset{place}")
        world = make_world()
        slow(world)
        if place % 2 == 0:
            bridge = make_bridge(world, connectors=connectors(world))
            bridge.variables = clock.variables
            return Site(world, bridge, ("run",)), clock
        with monkeypatch.context() as patch:
            for name, value in clock.variables.items():
                patch.setenv(name, value)
            server = make_redis_server("--appendonly", "yes")
        bridge = make_bridge(world, connectors=connectors(world), redis={"url": server.url})
        return Site(world, bridge, ("run",), server), clock

    return make


@pytest.mark.timeout(3600)
def test_the_clock_jumps(make_site: Callable[[int], tuple[Site, Clock]], long: bool, report_figures: Report) -> None:
    made = [make_site(place) for place in range(2)]
    sites, clocks = zip(*made, strict=True)
    jumps = LONG_JUMPS if long else SHORT_JUMPS
    with ThreadPoolExecutor(len(sites)) as pool:
        outcomes = list(pool.map(jump_again_and_again, sites, clocks, [jumps] * len(sites), range(len(sites))))
    rows, under_way = zip(*outcomes, strict=True)
    report_figures(
        total(
            "5 the clock set an hour forward or back, of Redis alone or of everything",
            rows,
            f"{sum(under_way)} deliveries were held at a jump",
        )
    )
    assert max(row.settled for row in rows) <= WITHIN
