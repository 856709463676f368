"""Fixtures of the fault suite: the whole bridge between pretend systems, the form of the run, and the figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import make_bridge, make_world, world
from tests.faults.figures import Figures

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
