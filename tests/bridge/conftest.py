"""Fixtures of tests that drive one process of the bridge between pretend systems. A file may have its own instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.stage import MakeStage, Stage, Systems
from tests.bridge.watch import MakeWatch, Watch
from tests.bridge.watched_huntress import WatchedHuntress
from tests.psa import PSAS, Psa


@pytest.fixture
def systems() -> Iterator[Systems]:
    with Systems().running() as systems:
        yield systems


@pytest.fixture
def source(systems: Systems) -> WatchedHuntress:
    return systems.huntress


@pytest.fixture(params=PSAS)
def psa(request: pytest.FixtureRequest, systems: Systems) -> Psa:
    return systems.psa(request.param)


@pytest.fixture
def make(redis_url: str, tmp_path: Path, systems: Systems) -> Iterator[MakeStage]:
    """Starts a process with the connectors named; `settings` go into each one's table."""
    with contextlib.ExitStack() as stack:

        def make(*names: str, url: str = redis_url, tables: dict[str, Any] | None = None, **settings: Any) -> Stage:
            connectors = {name: systems.table(name, **settings) for name in names}
            return stack.enter_context(Stage(url, tmp_path, systems, connectors, **(tables or {})))

        yield make


@pytest.fixture
def stage(make: MakeStage, psa: Psa) -> Stage:
    """One process with one PSA."""
    return make(psa.name)


@pytest.fixture
def make_watch(redis_url: str, tmp_path: Path, systems: Systems) -> Iterator[MakeWatch]:
    """Starts a process that polls as well, with the connectors named, else one PSA."""
    with contextlib.ExitStack() as stack:

        def make(*names: str, **tables: Any) -> Watch:
            connectors = {"connectors": {name: systems.table(name) for name in names or ("psa",)}}
            return stack.enter_context(Watch(redis_url, tmp_path, systems, **(connectors | tables)))

        yield make
