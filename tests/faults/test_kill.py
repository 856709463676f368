"""Killed at random moments, under load: what was claimed is looked up again within 20 seconds, and nothing doubles."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.conftest import wait_until
from tests.faults.figures import Figures, total
from tests.faults.judge import Load
from tests.faults.site import LONG_PATIENCE, Held, Site

#: Seconds after which a delivery that somebody held at the kill must have been looked up by the next one.
CLAIMED_WITHIN = 20.0
#: Kills of the long form, and sites that share them; in the short form a single site has a few.
LONG_KILLS, LONG_SITES = 104, 8
SHORT_KILLS = 2
#: New reports per second while something is about to be killed.
PER_SECOND = 4.0

Report = Callable[[Figures], None]


def known_again(site: Site, held: set[Held], killed_at: float) -> float:
    """Seconds from a kill until the last of what was held then was looked up, or created by who lived on."""
    wait_until(
        lambda: all(site.looked_up(one, killed_at) is not None or site.created(one) for one in held),
        2 * CLAIMED_WITHIN,
        "what was held at the kill is looked up again",
    )
    return max((seconds for one in held if (seconds := site.looked_up(one, killed_at)) is not None), default=0.0)


def kill_again_and_again(site: Site, kills: int, seed: int) -> tuple[Figures, int, float]:
    """Each kill is a single one: the next comes when what was held at the last is known again.

    What it came to, deliveries that were held at a kill, and the longest time until such a one was looked up again.
    """
    dice = random.Random(seed)
    number, held_in_all, worst, killed_at = 1, 0, 0.0, 0.0
    site.wait_until_ready()
    for _ in range(kills):
        with Load(site.world, PER_SECOND, dice.randrange(2**32), first=number) as load:
            site.wait_until_busy()
            time.sleep(dice.uniform(0, 2))
            victim = dice.randrange(len(site.processes))
            killed_at, held = site.kill(victim, redis_too=site.server is None and dice.random() < 0.25)
            site.again(victim)
        number = load.next
        held_in_all += len(held)
        worst = max(worst, known_again(site, held, killed_at))
    return site.judged("", kills, since=killed_at, patience=LONG_PATIENCE), held_in_all, worst


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("fault", "roles"),
    [
        ("1 SIGKILL of `run`, at times with its Redis", ("run",)),
        ("1 SIGKILL of a poller or worker, two of each", ("poller", "poller", "worker", "worker")),
    ],
    ids=["run", "processes"],
)
def test_sigkill(
    fault: str, roles: tuple[str, ...], make_site: Callable[..., Site], long: bool, report_figures: Report
) -> None:
    sites = [make_site(*roles) for _ in range(LONG_SITES if long else 1)]
    kills = LONG_KILLS // LONG_SITES if long else SHORT_KILLS
    with ThreadPoolExecutor(len(sites)) as pool:
        outcomes = list(pool.map(kill_again_and_again, sites, [kills] * len(sites), range(len(sites))))
    rows, held, looked_up = zip(*outcomes, strict=True)
    remarks = f"{sum(held)} deliveries were held at a kill; looked up again after {max(looked_up):.1f} s at worst"
    report_figures(total(fault, rows, remarks))
    assert max(looked_up) <= CLAIMED_WITHIN
