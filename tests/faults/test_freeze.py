"""Frozen for longer than lease and `settle`, then thawed: the classic double-writer."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import trustme

from bridge.idempotency import LEASE
from tests.faults.figures import Figures, total
from tests.faults.judge import Load
from tests.faults.site import LONG_PATIENCE, Site

#: Seconds of `settle`: short, so that another worker has not only looked the ticket up but created it before the thaw.
SETTLE = 2
#: Seconds that a connection to a PSA takes: what a worker does between the last gate in the store and the bytes.
HANDSHAKE = 0.5
#: Freezes of either long form, and sites that share them.
LONG_FREEZES, LONG_SITES = 100, 5
SHORT_FREEZES, SHORT_SITES = 1, 3
#: New reports per second while a worker is about to be frozen.
PER_SECOND = 2.0
#: Two workers in turn: one is frozen while the other goes on.
WORKERS = (1, 2)


def freeze_again_and_again(site: Site, freezes: int, seed: int) -> tuple[Figures, int]:
    """What it came to, and how many deliveries another worker took over from a frozen one."""
    dice = random.Random(seed)
    number, taken_over, thawed_at = 1, 0, 0.0
    site.wait_until_ready()
    for _ in range(freezes):
        victim = dice.choice(WORKERS)
        with Load(site.world, PER_SECOND, dice.randrange(2**32), first=number) as load:
            site.wait_until_busy()
            time.sleep(dice.uniform(0, 2))
            site.freeze(victim)
            frozen_at, held = time.monotonic(), site.held()
        number = load.next
        time.sleep(LEASE + SETTLE + dice.uniform(1, 6))
        taken_over += sum((site.looked_up(one, frozen_at) or 0) > LEASE / 2 for one in held)
        site.thaw(victim)
        thawed_at = time.monotonic()
    return site.judged("", freezes, since=thawed_at, patience=LONG_PATIENCE), taken_over


def tls_site(make_site: Callable[..., Site], folder: Path) -> Site:
    """A site whose PSAs take `HANDSHAKE` seconds to connect to, for every request."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = folder / f"{uuid4()}.pem"
    authority.cert_pem.write_to_path(ca_file)
    site = make_site("poller", "worker", "worker", tls=context, settle=SETTLE, ca_file=str(ca_file))
    for psa in (site.world.connectwise, site.world.autotask):
        psa.keep_alive, psa.handshake, psa.latency = False, HANDSHAKE, 0.0
    return site


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", ["at any moment", "mostly while it connects to the PSA"])
def test_sigstop(
    moment: str, make_site: Callable[..., Site], tmp_path: Path, long: bool, report_figures: Callable[[Figures], None]
) -> None:
    if moment == "at any moment":
        sites = [
            make_site("poller", "worker", "worker", settle=SETTLE) for _ in range(LONG_SITES if long else SHORT_SITES)
        ]
    else:
        sites = [tls_site(make_site, tmp_path) for _ in range(LONG_SITES if long else SHORT_SITES)]
    freezes = LONG_FREEZES // LONG_SITES if long else SHORT_FREEZES
    with ThreadPoolExecutor(len(sites)) as pool:
        outcomes = list(pool.map(freeze_again_and_again, sites, [freezes] * len(sites), range(len(sites))))
    rows, taken_over = zip(*outcomes, strict=True)
    report_figures(
        total(
            f"6 SIGSTOP of a worker {moment}, SIGCONT after lease and settle",
            rows,
            f"{sum(taken_over)} deliveries were taken over from a frozen worker",
        )
    )
