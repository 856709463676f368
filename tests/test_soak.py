"""What the soak says of what it saw, its picture, and the pretend systems that were made lean for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

from bridge.huntress import HuntressClient
from tests.benchmarks.curves import MOST_POINTS, Line, Panel, minutes, outline, picture
from tests.benchmarks.soak_report import Record
from tests.benchmarks.soak_systems import CHANGES, REMEDIATING, LeanHuntress
from tests.benchmarks.soak_verdict import PAGES, Curve, curves, judged, percentile, settled, slope, table

PROCESSES = ("poller", "worker")
SAME = {"p50": 1.0, "p95": 2.0}


def sample(number: int, **changes: Any) -> dict[str, Any]:
    """One of a soak in which nothing but the store grows."""
    process = {"memory": 80.0, "files": 20, "threads": 10, "cpu": 2.0 * number}
    world = {"made": 200 * number, "tickets": 200 * number, "closed": 100 * number, "cpu": 0.5 * number}
    return {
        "at": 10.0 * number,
        "world": world | {"psa_requests": 2000 * number, "most_source_requests_a_minute": 40},
        "processes": dict.fromkeys(PROCESSES, process),
        "redis": {
            "memory": 2 + 0.4 * number,
            "keys": 20 + 600 * number,
            "broker_keys": 3,
            "clients": 12,
            "cpu": number,
        },
        "states": {"created": 100 * number, "closed": 100 * number},
        "times": {"shown": SAME, "sent": SAME, "over": SAME},
        "cycle": 0.5,
        "ready": 3,
        "pages": dict.fromkeys(PAGES, 0.05),
    } | changes


def record(samples: Sequence[dict[str, Any]]) -> Record:
    """One of a soak that ended well."""
    samples = [*samples, sample(len(samples) + 1, states={"closed": 1000})]
    verdict = {name: {"count": 0, "first": []} for name in ("lost", "doubled")}
    empty = {"keys": 20, "memory": 2}
    return Record(20, PROCESSES, 60, samples=samples, verdict=verdict, empty=empty, seconds=10.0 * (len(samples) - 1))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - made here


LONG = [sample(number) for number in range(1, 101)]


def test_a_soak_in_which_only_the_store_grows_is_as_promised() -> None:
    seen = record(LONG)
    flat = seen.judge()
    assert not seen.problems
    assert len(flat) == len(curves(LONG, PROCESSES, seen.empty))
    assert "All as promised." in seen.told(flat)
    assert seen.summary(flat)["load"]["Redis"] > 0


@pytest.mark.parametrize(
    ("path", "step", "named"),
    [
        (("processes", "worker", "memory"), 0.2, "memory of worker"),
        (("processes", "poller", "files"), 0.05, "open files of poller"),
        (("processes", "poller", "threads"), 0.05, "threads of poller"),
        (("redis", "memory"), 0.01, "memory for each stored delivery"),
        (("redis", "keys"), 30, "keys for each stored delivery"),
        (("redis", "broker_keys"), 1, "keys of Dramatiq"),
        (("redis", "clients"), 0.1, "connections"),
        (("times", "shown", "p95"), 0.05, "shown to ticket"),
        (("times", "over", "p95"), 0.1, "over to closed"),
        (("cycle",), 0.02, "cycle of the poller"),
        (("ready",), 1, "waiting"),
        (("pages", "/deliveries"), 0.01, "page /deliveries"),
    ],
)
def test_what_grows_is_named(path: tuple[str, ...], step: float, named: str) -> None:
    samples = []
    for number in range(1, 101):
        grown: dict[str, Any] = sample(number)
        inner = grown
        for each in path[:-1]:
            inner[each] = dict(inner[each])
            inner = inner[each]
        # A figure that is divided by what is stored grows faster than that.
        inner[path[-1]] += step * number * (number if path[0] == "redis" else 1)
        samples.append(grown)
    seen = record(samples)
    flat = seen.judge()
    assert [problem for problem in seen.problems if named in problem]
    assert all(problem.startswith("not flat: ") for problem in seen.problems)
    assert "**no**" in table(flat)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": {"lost": {"count": 1, "first": [17]}}}, "lost: 1, such as [17]"),
        ({"verdict": {}}, "ended before everything could be judged"),
        ({"budget": 39}, "40 requests to the source in a minute, of 39"),
        ({"logged": {"web": {"info": 5, "traceback": 1}}, "worst": {"web": ["oh"]}}, "web logged a traceback: ['oh']"),
        ({"samples": LONG[:2], "seconds": 20.0}, "too short"),
        ({"samples": LONG}, "not closed: {'created': 10000}"),
    ],
)
def test_what_is_not_as_promised_is_said(changes: dict[str, Any], said: str) -> None:
    seen = record(LONG)
    for name, value in changes.items():
        setattr(seen, name, value)
    flat = seen.judge()
    assert [problem for problem in seen.problems if said in problem]
    assert said in seen.told(flat)


def test_a_process_that_is_killed_now_and_then_is_not_judged_by_its_growth() -> None:
    young = {"memory": 80.0, "files": 20, "threads": 10, "cpu": 2.0}
    for killed, problems in (("", ["not flat: open files of worker"]), ("worker", [])):
        seen = record(
            [sample(n, processes={"poller": young, "worker": young | {"files": 10 + n}}) for n in range(1, 101)]
        )
        seen.killed = killed
        seen.judge()
        assert seen.problems == problems


def test_a_soak_that_saw_nothing_can_still_say_so() -> None:
    seen = Record(20, PROCESSES, 60)
    assert "NOT AS PROMISED" in seen.told(seen.judge())
    assert seen.load() == {}
    parsed(seen.picture())


def test_warm_up_and_what_comes_after_the_end_do_not_count() -> None:
    assert [each["at"] for each in settled(LONG, 500)] == [10.0 * number for number in range(15, 51)]
    assert [each["at"] for each in settled(LONG, 100)] == [10.0 * number for number in range(5, 11)]
    curve = Curve("some", "", [900.0, None, *[1.0] * 8, None, 1.0], 0, 0)
    result = judged(curve, [10.0 * number for number in range(12)])
    assert result is not None
    assert (result.last, result.flat) == (1.0, True)


def test_what_rises_to_its_level_first_is_judged_from_there() -> None:
    values = [10.0, 20.0, 30.0, *[40.0] * 6]
    times = [float(number) for number in range(9)]
    level = judged(Curve("some", "", values, 0, 2, 1 / 3), times)
    assert level is not None
    assert (level.first, level.last, level.slope, level.flat) == (40.0, 40.0, 0.0, True)
    grows_on = judged(Curve("some", "", [*values[:-1], 50.0], 0, 2, 1 / 3), times)
    assert grows_on is not None
    assert not grows_on.flat
    from_the_start = judged(Curve("some", "", values, 0, 2), times)
    assert from_the_start is not None
    assert not from_the_start.flat


def test_a_slope_and_a_percentile() -> None:
    points = [(float(second), 2.0 * second) for second in range(20)]
    points[7] = (7.0, 5000.0)
    assert slope(points) == pytest.approx(2.0)
    assert slope([(1.0, 1.0)]) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(range(1, 101), 0.95) == 96
    assert percentile([], 0.5) is None


# -- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_has_four_panels_side_by_side_and_a_name_for_each_line() -> None:
    seen = record(LONG)
    root = parsed(seen.picture())
    panels = root.findall("{*}g")
    assert [panel.get("transform") for panel in panels] == [
        "translate(0 0)",
        "translate(400 0)",
        "translate(0 240)",
        "translate(400 240)",
    ]
    texts = [text.text for text in panels[0].iter("{http://www.w3.org/2000/svg}text")]
    assert {*PROCESSES, "memory of each process (MB)", "0", "40", "80", "15 min"} <= set(texts)
    assert root.findtext("{*}title")
    assert float(root.get("width", "")) == 800


def test_a_curve_has_a_gap_where_nothing_is_known_and_keeps_its_peaks() -> None:
    gap = outline([(0.0, 1.0), (1.0, 1.0), (2.0, None), (3.0, 1.0)], 3, 1)
    assert gap.count("M") == 2
    assert outline([(0.0, None)], 3, 1) == ""
    long = [(float(second), 1.0) for second in range(3600)]
    long[1801] = (1801.0, 50.0)
    path = outline(long, 3600, 50)
    assert len(re.findall("[ML]", path)) == MOST_POINTS
    assert " 46.0" in path  # the top of the panel


def test_a_panel_without_values_and_marks_of_time() -> None:
    root = parsed(picture("<empty>", [0.0, 10.0], [Panel("none", [Line("a", [None, None])])]))
    assert root.findtext("{*}title") == "<empty>"
    assert [*minutes(3600)] == [0, 10, 20, 30, 40, 50, 60]
    assert [*minutes(430)] == [0, 2, 4, 6]
    assert [*minutes(30)] == [0]


# -- the pretend source ----------------------------------------------------------------------------------------------


class _Free:
    """A budget without an end."""

    def acquire(self, kind: str, wait: float | None = None) -> None: ...

    def penalize(self, seconds: float) -> None: ...


@pytest.fixture
def lean() -> Iterator[tuple[LeanHuntress, HuntressClient]]:
    with LeanHuntress() as huntress:
        key, secret = huntress.credentials
        client = HuntressClient(base_url=f"{huntress.url}/v1", api_key=key, api_secret=secret, budget=_Free())
        yield huntress, client
        client.close()


def test_the_lean_source_lists_what_is_open_and_what_changed(lean: tuple[LeanHuntress, HuntressClient]) -> None:
    huntress, client = lean
    for number in range(1, 1203):
        assert huntress.send(1000.0 + number)[0] == number
    for number in (3, 1190):
        huntress.end(number, 5000.0)
    listing = client.open_reports("incident_reports")
    assert listing.complete
    assert {report.id for report in listing.reports} == {*range(1, 1203)} - {3, 1190}
    assert {report.status for report in listing.reports if report.id % REMEDIATING == 0} == {"auto_remediating"}
    pages = list(client.changed_reports())
    assert [len(page) for page in pages] == [500, 500, 202]
    assert [(report.id, report.over) for report in pages[0][:3]] == [(1190, True), (3, True), (1202, False)]
    assert client.report(3).over
    assert not client.report(4).over
    assert huntress.shown_at[4] <= time.time()
    assert huntress.shown_at[3] == 0


def test_the_lean_source_forgets_old_changes_and_knows_their_reports_still(
    lean: tuple[LeanHuntress, HuntressClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    huntress, client = lean
    monkeypatch.setattr("tests.benchmarks.soak_systems.CHANGES", 10)
    for number in range(1, 21):
        huntress.send(1000.0)
        huntress.end(number, 2000.0)
    assert len(huntress.changes) == 10 < CHANGES
    assert set(huntress.latest) == {*range(16, 21)}
    assert client.report(1).over
