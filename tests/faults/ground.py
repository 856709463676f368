"""Sites outside a single test's fixtures: several scenarios of a file run at once, and each test judges one of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World
from tests.faults.figures import Figures
from tests.faults.judge import connectors, slow
from tests.faults.site import Site

#: Seconds after which a create that a fault must meet under way is carried out and answered; well below `SETTLE`.
LATE = 4.0
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
    world = (world or World()).start(stack)
    tables: dict[str, Any] = {
        "huntress": world.huntress.settings(insecure_http=insecure_http),
        "connectors": connectors(world, **({"insecure_http": insecure_http} | settings)),
        "redis": {"url": url or server.url},
    }
    return Site(world, Bridge.in_folder(stack, world, tables), (), server)


def get_going(site: Site) -> None:
    """Returns when the first reports are delivered, from when on the PSAs take their time."""
    site.world.reports(BEFORE)
    site.wait_until_ready()
    site.judge.wait_until_complete(60)
    slow(site.world)


def late_creates(site: Site, times: int = 2, delay: float = LATE) -> None:
    """The next creates in either PSA take `delay` seconds, so that what happens now finds them under way."""
    for psa in site.world.psas().values():
        psa.fault_create("late", times=times, delay=delay)


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
