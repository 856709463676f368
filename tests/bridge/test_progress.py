"""How far long commands are: what is said where nobody watches, and what a terminal shows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from bridge.demo.huntress import PretendHuntress
from bridge.demo.run import toml
from bridge.progress import Meter
from tests.end_to_end.conftest import COMMAND
from tests.end_to_end.typist import Typist


class Clock:
    """Is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(moves: list[tuple[float, int, int | None]], total: int | None = None) -> list[str]:
    """What is said of moves: seconds that each takes, items it brings, and the total that it names."""
    clock, stream = Clock(), io.StringIO()
    with Meter("agents", total=total, stream=stream, clock=clock) as meter:
        for seconds, items, known in moves:
            meter.goes_on()
            clock.now += seconds
            meter.moves(items, known)
            meter.rest()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("moves", "total", "said"),
    [
        ([(0.3, 500, None)] * 5, None, []),
        (
            [(3.0, 500, 10)] * 10,
            None,
            [
                "agents: 1 of 10 pages, 500 read, about 27 s left",
                "agents: 5 of 10 pages, 2,500 read, about 15 s left",
                "agents: 9 of 10 pages, 4,500 read, about 3 s left",
                "agents: 10 of 10 pages, 5,000 read, in 30 s",
            ],
        ),
        (
            [(5.0, 500, None)] * 4,
            None,
            [
                "agents: 1 page, 500 read, 100 a second",
                "agents: 3 pages, 1,500 read, 100 a second",
                "agents: 4 pages, 2,000 read, in 20 s",
            ],
        ),
        ([(600.0, 0, None)], 20, ["agents: 1 of 20 pages, about 3.2 h left", "agents: 1 of 20 pages, in 10 min"]),
        ([(4.0, 1, 1)] * 2, None, ["agents: 2 pages, 2 read, 0 a second", "agents: 2 pages, 2 read, in 8 s"]),
    ],
    ids=["a short one says nothing", "with a total", "without a total", "long", "more than were named"],
)
def test_plain_lines(moves: list[tuple[float, int, int | None]], total: int | None, said: list[str]) -> None:
    assert lines(moves, total) == said


def test_what_is_expected_counts_more_than_what_a_page_names() -> None:
    meter = Meter("reports", "listings", stream=io.StringIO(), clock=Clock())
    meter.moves(3)
    meter.expects(4)
    meter.moves(2, total=1)
    assert meter.state() == "2 of 5 listings, 5 read, about 0 s left"


def test_each_counts_what_it_passes_on() -> None:
    clock, stream = Clock(), io.StringIO()
    with Meter("check", "systems", stream=stream, clock=clock) as meter:
        for _ in meter.each(["huntress", "psa"]):
            clock.now += 5
        meter.says("psa: it\x1b[31m does not answer")
    assert stream.getvalue().splitlines() == [
        "check: 1 of 2 systems, about 5 s left",
        "psa: it [31m does not answer",
        "check: 2 of 2 systems, in 10 s",
    ]


def test_a_terminal_shows_a_bar_and_the_output_stays_whole(tmp_path: Path, redis_url: str) -> None:
    with PretendHuntress(organizations=1, pagination="total_pages") as huntress:
        for number in range(1, 1201):
            huntress.agents[number] = {"id": number, "organization_id": 1, "hostname": f"PC-{number}"}
        tables = {"redis": {"url": redis_url}, "huntress": huntress.settings()}
        (tmp_path / "bridge.toml").write_text(toml(tables), "utf-8")
        command = [str(COMMAND), "--log-level", "error", "agents", "list", "--csv"]
        with Typist(command, tmp_path, {"PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"}) as person:
            assert person.ends() == 0
    assert "2 of 3 pages, 1,000 read, about" in person.seen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", person.seen)
    assert len(re.findall(r"(?<![^\r\n])\d+,1,PC-\d+", plain)) == 1200
