"""Told to stop at random moments, under load: each process hands over within ten seconds, and nothing is in doubt."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.figures import Figures, total
from tests.faults.judge import Load
from tests.faults.site import LONG_PATIENCE, Site

#: Seconds within which a process that is told to stop is gone.
HANDED_OVER_WITHIN = 10.0
#: SIGTERMs of the long form, and sites that share them.
LONG_STOPS, LONG_SITES = 100, 4
SHORT_STOPS = 2
#: New reports per second while something is about to be stopped.
PER_SECOND = 2.0


def stop_again_and_again(site: Site, stops: int, seed: int) -> tuple[Figures, float, int]:
    """What it came to, the longest time that a process took to end, and creates sent beyond one for each ticket."""
    dice = random.Random(seed)
    number, slowest, stopped_at = 1, 0.0, 0.0
    site.wait_until_ready()
    for _ in range(stops):
        with Load(site.world, PER_SECOND, dice.randrange(2**32), first=number) as load:
            site.wait_until_busy()
            time.sleep(dice.uniform(0, 2))
            victim = dice.randrange(len(site.processes))
            process = site.processes[victim][1]
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code, log = process.wait(40), site.bridge.log(site.bridge.processes.index(process))
            # Before it has said a word, Python itself is still starting, and ends as any program does.
            assert code == 0 or (code == -signal.SIGTERM and not log), log[-2000:]
            stopped_at = time.monotonic()
            slowest = max(slowest, stopped_at - began)
            site.again(victim)
            time.sleep(dice.uniform(0, 3))  # at times in the middle of the start of the next one
        number = load.next
    figures = site.judged("", stops, since=stopped_at, patience=LONG_PATIENCE)
    sent = [request for psa in site.world.psas().values() for request in psa.creates()]
    doubted = len(sent) - sum(len(psa.references()) for psa in site.world.psas().values())
    return figures, slowest, doubted


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("fault", "roles"),
    [
        ("1 SIGTERM of `run`", ("run",)),
        ("1 SIGTERM of a poller or worker, two of each", ("poller", "poller", "worker", "worker")),
    ],
    ids=["run", "processes"],
)
def test_sigterm(
    fault: str,
    roles: tuple[str, ...],
    make_site: Callable[..., Site],
    long: bool,
    report_figures: Callable[[Figures], None],
) -> None:
    sites = [make_site(*roles) for _ in range(LONG_SITES if long else 1)]
    stops = LONG_STOPS // LONG_SITES if long else SHORT_STOPS
    with ThreadPoolExecutor(len(sites)) as pool:
        outcomes = list(pool.map(stop_again_and_again, sites, [stops] * len(sites), range(len(sites))))
    rows, ended, in_doubt = zip(*outcomes, strict=True)
    slowest, doubted = max(ended), sum(in_doubt)
    report_figures(total(fault, rows, f"ended after {slowest:.1f} s at worst; {doubted} in doubt"))
    assert doubted == 0
    assert slowest < HANDED_OVER_WITHIN
