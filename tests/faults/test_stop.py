"""Told to stop at random moments, under load: each process hands over within ten seconds, and nothing is in doubt."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.faults.figures import Figures
from tests.faults.judge import Load, psas
from tests.faults.site import Site

#: Seconds within which a process that is told to stop is gone.
HANDED_OVER_WITHIN = 10.0
#: SIGTERMs of the long form, and sites that share them.
LONG_STOPS, LONG_SITES = 100, 4
SHORT_STOPS = 2
#: New reports per second while something is about to be stopped.
PER_SECOND = 2.0


@dataclass
class Outcome:
    """What one site came to."""

    reports: int
    #: The longest time that a process took to end.
    ended: float
    #: References that were sent to a PSA more than once: something was in doubt.
    doubted: int
    settled: float
    lost: int
    doubled: int


def stop_again_and_again(site: Site, stops: int, seed: int) -> Outcome:
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
    site.judge.wait_until_complete(900)
    settled = time.monotonic() - stopped_at
    site.wait_until_quiet()
    site.stop()
    assert site.orderly(), "a traceback in a log"
    sent = [request for psa in psas(site.world).values() for request in psa.creates()]
    doubted = len(sent) - sum(len(psa.references()) for psa in psas(site.world).values())
    return Outcome(number - 1, slowest, doubted, settled, len(site.judge.missing()), len(site.judge.doubled()))


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
    slowest, doubted = max(one.ended for one in outcomes), sum(one.doubted for one in outcomes)
    report_figures(
        Figures(
            fault,
            reports=sum(one.reports for one in outcomes),
            faults=stops * len(sites),
            lost=sum(one.lost for one in outcomes),
            doubled=sum(one.doubled for one in outcomes),
            settled=max(one.settled for one in outcomes),
            remarks=f"ended after {slowest:.1f} s at worst; {doubted} in doubt",
        )
    )
    assert doubted == 0
    assert slowest < HANDED_OVER_WITHIN
