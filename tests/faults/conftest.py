"""Fixtures of the fault suite: the whole bridge between pretend systems, the form of the run, and the figures."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, make_bridge, make_world, world
from tests.faults.figures import Figures
from tests.faults.judge import connectors, slow
from tests.faults.site import Site

__all__ = ["make_bridge", "make_world", "world"]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Is this the long form?"""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def report_figures(record_property: Callable[[str, object], None]) -> Callable[[Figures], None]:
    """Puts a row into the table, then asserts that nothing is lost, or doubled beyond what the promise excepts."""

    def report(figures: Figures) -> None:
        record_property(*figures.as_property())
        assert (figures.lost, figures.doubled) == (0, figures.excepted)

    return report


@pytest.fixture
def make_site(
    make_world: Callable[..., World],
    make_bridge: Callable[..., Bridge],
    make_redis_server: Callable[..., RedisServer],
) -> Callable[..., Site]:
    """Starts a site with these roles: `run` with its embedded Redis, other roles on a Redis of the site's own.

    Keyword arguments are settings of both PSAs, whose requests take their time; with `tls` they speak https.
    """

    def make(*roles: str, tls: ssl.SSLContext | None = None, **settings: object) -> Site:
        world = make_world(tls=tls)
        slow(world)
        server = None if "run" in roles else make_redis_server("--appendonly", "yes")
        tables = {"redis": {"url": server.url}} if server else {}
        return Site(world, make_bridge(world, connectors=connectors(world, **settings), **tables), roles, server)

    return make
