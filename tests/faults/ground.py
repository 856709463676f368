"""Sites outside a single test's fixtures: several scenarios of a file run at once, and each test judges one of them."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World
from tests.faults.figures import Figures
from tests.faults.judge import connectors, psas, slow, wait_until_quiet
from tests.faults.site import Site

#: Seconds after which a create that a fault must meet under way is carried out and answered; well below `SETTLE`.
LATE = 4.0
#: Seconds for a site to deliver everything once the last fault is over.
PATIENCE = 300.0

#: Reports that a site has delivered before anything happens to it; the load begins with the next number.
BEFORE = 4

Scenario = Callable[[contextlib.ExitStack, bool], Figures]


def make_server(stack: contextlib.ExitStack, *options: str, within: Sequence[str] = ()) -> RedisServer:
    """A Redis of the scenario's own, running, with its data on disk."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
    server = RedisServer(Path(folder), "--appendonly", "yes", *options, within=within)
    stack.callback(server.kill)
    server.start()
    return server


def make_site(
    stack: contextlib.ExitStack, server: RedisServer, *roles: str, url: str = "", world: World | None = None
) -> Site:
    """A site that has delivered `BEFORE` reports. `url`: how its processes reach the server, if not by its socket."""
    site = make_empty_site(stack, server, url=url, world=world)
    site.processes = [(role, site.bridge.start(role)) for role in roles]
    get_going(site)
    return site


def make_empty_site(
    stack: contextlib.ExitStack,
    server: RedisServer,
    *,
    url: str = "",
    world: World | None = None,
    insecure_http: bool = False,
    **settings: Any,
) -> Site:
    """A site without processes. `settings` are for both connectors."""
    world = world or World()
    for system in world.systems:
        system.start()
        stack.callback(system.stop)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
    tables: dict[str, Any] = {
        "huntress": world.huntress.settings(insecure_http=insecure_http),
        "connectors": connectors(world, **({"insecure_http": insecure_http} | settings)),
        "redis": {"url": url or server.url},
    }
    bridge = Bridge(Path(folder), world, tables)
    stack.callback(bridge.end)
    return Site(world, bridge, (), server)


def get_going(site: Site) -> None:
    """Returns when the first reports are delivered, from when on the PSAs take their time."""
    site.world.reports(BEFORE)
    site.wait_until_ready()
    site.judge.wait_until_complete(60)
    slow(site.world)


def late_creates(site: Site, times: int = 2, delay: float = LATE) -> None:
    """The next creates in either PSA take `delay` seconds, so that what happens now finds them under way."""
    for psa in psas(site.world).values():
        psa.fault_create("late", times=times, delay=delay)


def outcome(site: Site, fault: str, faults: int, remarks: str = "") -> Figures:
    """Waits, from now as the end of the last fault, until all is delivered; then stops every process and counts."""
    ended = time.monotonic()
    site.judge.wait_until_complete(PATIENCE)
    settled = time.monotonic() - ended
    rows = wait_until_quiet(site.bridge)
    assert all(process.poll() is None for _, process in site.processes), "a process ended by itself"
    site.stop()
    assert site.orderly(), next(log for log in site.logs() if "Traceback" in log)[-4000:]
    strange = sorted({row["state"] for row in rows} - {"created"})
    assert not strange, f"deliveries that a person must look at: {strange}"
    missing, doubled = site.judge.missing(), site.judge.doubled()
    return Figures(fault, len(site.judge.numbers()), faults, len(missing), len(doubled), settled, remarks)


def selected(request: pytest.FixtureRequest) -> set[str]:
    """Values of the parameter `name` among the tests of this file that this run is about."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    return {
        str(item.callspec.params["name"]) for item in items if item.path == request.path and "name" in item.fixturenames
    }


def start_all(scenarios: Mapping[str, Scenario], stack: contextlib.ExitStack, long: bool) -> dict[str, Future[Figures]]:
    """Runs all scenarios at once; what they started ends with `stack`."""
    pool = stack.enter_context(ThreadPoolExecutor(len(scenarios)))

    def run(scenario: Scenario) -> Figures:
        with contextlib.ExitStack() as own:
            return scenario(own, long)

    return {name: pool.submit(run, scenario) for name, scenario in scenarios.items()}
