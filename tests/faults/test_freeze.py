"""Frozen for longer than lease and `settle`, then thawed: the classic double-writer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from bridge.idempotency import LEASE
from tests.faults.figures import Figures
from tests.faults.judge import Load, wait_until_quiet
from tests.faults.site import Site

#: Seconds of `settle`: short, so that another worker has not only looked the ticket up but created it before the thaw.
SETTLE = 2
#: Freezes of the long form, and sites that share them.
LONG_FREEZES, LONG_SITES = 100, 5
SHORT_FREEZES = 1
#: New reports per second while a worker is about to be frozen.
PER_SECOND = 2.0
#: Two workers in turn: one is frozen while the other goes on.
WORKERS = (1, 2)


@dataclass
class Outcome:
    """What one site came to."""

    reports: int
    #: Deliveries that another worker took over from a frozen one.
    taken_over: int
    settled: float
    lost: int
    doubled: int


def freeze_again_and_again(site: Site, freezes: int, seed: int) -> Outcome:
    dice = random.Random(seed)
    number, taken_over, thawed_at = 1, 0, 0.0
    site.wait_until_ready()
    for _ in range(freezes):
        victim = dice.choice(WORKERS)
        with Load(site.world, PER_SECOND, dice.randrange(2**32), first=number) as load:
            time.sleep(dice.uniform(0.5, 3))
            site.freeze(victim)
            frozen_at, held = time.monotonic(), site.held()
        number = load.next
        time.sleep(LEASE + SETTLE + dice.uniform(1, 6))
        taken_over += sum((site.looked_up(one, frozen_at) or 0) > LEASE / 2 for one in held)
        site.thaw(victim)
        thawed_at = time.monotonic()
    site.judge.wait_until_complete(180)
    settled = time.monotonic() - thawed_at
    wait_until_quiet(site.bridge)
    site.stop()
    assert site.orderly(), "a traceback in a log"
    return Outcome(number - 1, taken_over, settled, len(site.judge.missing()), len(site.judge.doubled()))


@pytest.mark.timeout(3600)
def test_sigstop(make_site: Callable[..., Site], long: bool, report_figures: Callable[[Figures], None]) -> None:
    sites = [make_site("poller", "worker", "worker", settle=SETTLE) for _ in range(LONG_SITES if long else 1)]
    freezes = LONG_FREEZES // LONG_SITES if long else SHORT_FREEZES
    with ThreadPoolExecutor(len(sites)) as pool:
        outcomes = list(pool.map(freeze_again_and_again, sites, [freezes] * len(sites), range(len(sites))))
    report_figures(
        Figures(
            "6 SIGSTOP of a worker for longer than lease and settle, then SIGCONT",
            reports=sum(one.reports for one in outcomes),
            faults=freezes * len(sites),
            lost=sum(one.lost for one in outcomes),
            doubled=sum(one.doubled for one in outcomes),
            settled=max(one.settled for one in outcomes),
            remarks=f"{sum(one.taken_over for one in outcomes)} deliveries were taken over from a frozen worker",
        )
    )
