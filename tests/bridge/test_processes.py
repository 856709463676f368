"""What the parts of one process have in common."""

from __future__ import annotations

import sys

import pytest

from bridge.processes import SWITCH_EVERY, Process
from tests.bridge.stage import MakeStage


@pytest.mark.parametrize("roles", [("poller", "worker"), ("worker",), ("poller",)])
def test_threads_take_turns_more_often_where_a_report_passes_through_all_of_them(
    make: MakeStage, monkeypatch: pytest.MonkeyPatch, roles: tuple[str, ...]
) -> None:
    intervals: list[float] = []
    monkeypatch.setattr(sys, "setswitchinterval", intervals.append)
    process = Process(make("psa").runtime, roles)
    process.start()
    process.stop()
    assert intervals == ([SWITCH_EVERY] if len(roles) == 2 else [])
