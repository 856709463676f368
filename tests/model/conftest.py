"""Fixtures of the model tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.world import World


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    """A world with report 1 open and seen, nothing done about it."""
    world = World(redis_url)
    world.open[1] = "as first seen"
    world.poll()
    yield world
    world.close()
