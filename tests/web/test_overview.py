"""The overview: is all well, what is wrong and what to do about it, and the figures and charts behind that."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest

from bridge.counters import Histogram
from bridge.models import DeliveryState
from bridge.web.charts import Series, bars, day_name, round_up
from bridge.web.concerns import SLOW
from bridge.web.overview_facts import overview, reports_chart, times_chart, verdict
from bridge.web.times import ago, lasted
from bridge.web.troubles import LATE
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.web.conftest import Page, words

DAYS = [date(2026, 2, 27) + timedelta(days=number) for number in range(4)]


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return well(make("psa", "desk"))


def well(stage: Stage) -> Stage:
    """Everything runs, as far as the books say."""
    stage.runtime.books.save_poll(last_complete_at=stage.store.now(), cycle_seconds=1.4)
    for role in ("poller", "worker"):
        stage.runtime.books.beat(role)
    return stage


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


def test_all_is_well_with_nothing_to_do(page: Page) -> None:
    page.site.index.fill()
    html = page.get("/")
    text = words(html)
    assert "All is well: every open report has its tickets." in text
    assert "a cycle takes 1.4 s" in text
    assert "0 of 6000" in text
    assert "No report came on these days." in text
    assert "no ticket made today" in text
    assert "psa connectwise serving 0 0" in text
    assert '<svg class="chart" viewBox="0 0 420' not in html


def test_what_is_left_alone_is_told(make: MakeStage) -> None:
    stage = well(make("psa", tables={"poll": {"not_before": "2026-02-01T08:00:00+01:00"}}))
    assert "Reports open 0 sent since 2026-02-01 07:00; those before are left alone" in words(Page(stage).get("/"))


def test_what_waits_is_on_its_way(page: Page, stage: Stage) -> None:
    stage.report(1, connectors=["psa"])
    assert "All is well; one ticket is on the way." in words(page.get("/"))
    stage.report(2)
    html = page.get("/")
    assert "All is well; 3 tickets are on the way." in words(html)
    assert 'href="/deliveries?state=waiting">3</a>' in html


def test_figures_and_charts_show_what_was_delivered(page: Page, stage: Stage) -> None:
    now = datetime.fromtimestamp(stage.store.now(), UTC)
    stage.report(1, 2, severity="critical", sent_at=now - timedelta(seconds=3))
    stage.report(3, severity="low", sent_at=now - timedelta(seconds=3))
    stage.work()
    shown = overview(page.site)
    assert shown.open_reports == 3
    assert shown.made_today == 6
    assert shown.typical is not None
    assert 2 < shown.typical < 5
    assert [row[1] for row in shown.reports.rows][-1] == ("2", "0", "1")
    html = page.get("/")
    assert "half of today's 6; 95 % within" in words(html)
    assert f"{day_name(now.date())}: 2 critical" in html
    assert page.get("/?days=30").count('<th scope="row">') == 60
    assert page.get("/?days=9999").count('<th scope="row">') == 28


def test_what_is_wrong_comes_first_with_what_to_do(page: Page, stage: Stage, systems: Systems) -> None:
    stage.report(1, 2, 3, connectors=["psa"])
    stage.work()
    systems.connectwise.fault("status", method="POST", path="/service/tickets", status=400, times=2)
    stage.report(4, 5, connectors=["psa"])
    stage.work()
    stage.report(6, connectors=["desk"])
    claim = stage.claim(6, "desk")
    assert not isinstance(claim, str)
    stage.store.release(claim, state=DeliveryState.HELD, reason="nobody can be asked")
    stage.store.pause("desk", "misconfigured", 600, "queue: <b>gone</b>", probe_in=60)
    stage.runtime.books.quarantine("x", None, "no JSON object", "[]")
    stage.runtime.books.save_configuration_problem("web.port: not a number")
    page.site.index.fill()
    html = page.get("/")
    text = words(html)
    told = [
        "5 things need a person.",
        "Connector desk is paused: queue: <b>gone</b>.",
        "2 tickets were refused by the ticket system for good.",
        "One delivery is held",
        "One report is in quarantine.",
        "the changed configuration is refused: web.port: not a number",
        "Last complete poll",
    ]
    assert [text.index(part) for part in told] == sorted(text.index(part) for part in told)
    for link in ("/deliveries?state=rejected", "/deliveries?state=held", "/quarantine", "/connectors"):
        assert f'href="{link}"' in html
    assert 'href="/deliveries?state=attention&amp;connector=psa">2</a>' in html
    assert re.search(r"next probe in \d\d s ; the pause ends in 10 min at the latest", text)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (("poller",), "No poller gives a sign of life."),
        (("worker",), "No worker gives a sign of life."),
    ],
)
def test_processes_that_do_not_live_are_missed(page: Page, stage: Stage, lacks: tuple[str, ...], said: str) -> None:
    for role in lacks:
        stage.runtime.books.leave(role)
    text = words(page.get("/"))
    assert "One thing needs a person." in text
    assert said in text


def test_a_process_that_hangs_or_says_it_fails_is_told(page: Page, stage: Stage) -> None:
    stage.runtime.books.beat("worker", "the worker's threads ended")
    assert "does not do its work: the worker's threads ended." in words(page.get("/"))
    stage.store.clock_offset += 16
    stage.runtime.books.beat("poller")
    assert "No worker gives a sign of life." in words(page.get("/"))


def test_a_poll_that_is_overdue_comes_before_all(page: Page, stage: Stage) -> None:
    stage.store.clock_offset += 700
    stage.runtime.books.save_poll(error="Huntress answered 401")
    stage.store.pause("desk", "misconfigured", 600, "no such queue", probe_in=60)
    text = words(page.get("/"))
    assert text.index("No complete poll since") < text.index("No poller gives") < text.index("Connector desk is paused")
    assert ": Huntress answered 401." in text


def test_while_the_index_is_filled_counts_are_not_guessed(
    page: Page, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.site.index, "start", lambda: None)
    stage.report(1)
    assert words(page.get("/")).count("being counted") == 4
    page.site.index.fill()
    assert "being counted" not in words(page.get("/"))


@pytest.mark.parametrize(
    ("problems", "concerns", "on_the_way", "quiet", "sentence"),
    [
        (0, 0, 0, 0, "All is well: every open report has its tickets."),
        (0, 0, 1, 0, "All is well; one ticket is on the way."),
        (0, 0, 1200, 0, "All is well; 1,200 tickets are on the way."),
        (0, 0, 0, 1, "All is well; one waits until quiet hours or maintenance end."),
        (0, 0, 2, 3, "All is well; 2 tickets are on the way, 3 wait until quiet hours or maintenance end."),
        (0, 2, 5, 1, "Nothing needs a person yet, but not all is well."),
        (1, 2, 9, 0, "One thing needs a person."),
        (3, 0, 0, 0, "3 things need a person."),
    ],
)
def test_all_in_one_sentence(problems: int, concerns: int, on_the_way: int, quiet: int, sentence: str) -> None:
    assert verdict(problems, concerns, on_the_way, quiet) == sentence


def test_a_ticket_that_takes_long_is_not_well_and_a_late_one_needs_a_person(
    page: Page, stage: Stage, systems: Systems
) -> None:
    systems.connectwise.fault("status", path="/service/tickets", status=503, times=None)
    stage.report(1, connectors=["psa"])
    stage.work()
    stage.store.clock_offset += SLOW + 5
    well(stage)
    text = words(page.get("/"))
    assert "Nothing needs a person yet, but not all is well." in text
    assert "One ticket waits in psa, the first for 65 s: " in text
    assert "503" in text
    assert "tickets wait for longer than they should: psa" in words(page.get("/connectors"))
    stage.store.clock_offset += LATE
    well(stage)
    html = page.get("/")
    assert "One ticket waits in psa, the first for 16 min: " in words(html)
    assert 'href="/deliveries?state=waiting&amp;connector=psa"' in html
    code = page.client.get("/status")
    assert (code.status_code, len(code.get_json()["problems"])) == (503, 1)


@pytest.mark.parametrize("configured", [True, False])
def test_what_waits_for_a_connector_that_is_not_configured_is_late_too(
    page: Page, stage: Stage, configured: bool
) -> None:
    name = "desk" if configured else "old"
    stage.report(1, connectors=[name])
    leader = int(stage.store.script("lead", "dispatcher", "test", 6000))
    stage.store.dispatch(leader, name, name, 1, proof=False)
    stage.store.clock_offset += SLOW + 1
    well(stage)
    assert ("no connector of that name is configured any more" in words(page.get("/"))) is not configured


def test_failing_polls_are_told_long_before_they_are_overdue(page: Page, stage: Stage) -> None:
    stage.runtime.books.save_poll(error="Huntress answered 502")
    stage.store.clock_offset += 12
    for role in ("poller", "worker"):
        stage.runtime.books.beat(role)
    text = words(page.get("/"))
    assert "not all is well" in text
    assert "Polls fail (for 12 s), so what is new is not seen: Huntress answered 502." in text
    assert page.client.get("/status").status_code == 200


def test_a_busy_ticket_system_needs_nobody_unless_it_goes_on(page: Page, stage: Stage) -> None:
    stage.store.pause("psa", "rate", 30, "429, Retry-After 30")
    text = words(page.get("/"))
    assert "Nothing needs a person yet" in text
    assert "Connector psa was asked to wait, 30 s more: 429, Retry-After 30." in text
    stage.store.client.hincrby(stage.store.key("pause:psa"), "since", -1_000_000)
    assert "One thing needs a person. Connector psa is paused: 429" in words(page.get("/"))


def test_an_empty_redis_is_told_while_nothing_is_made(page: Page, stage: Stage) -> None:
    until = round(1000 * (stage.store.now() + 40))
    stage.store.client.hset(stage.store.key("meta"), "hold_until", until)
    assert "Redis came back empty: no ticket is made for 40 s more" in words(page.get("/"))


# -- charts ------------------------------------------------------------------------------------------------------------


def test_bars_stand_on_each_other_within_the_picture() -> None:
    series = [Series("critical", "critical", [1, 0, 3, 0]), Series("low", "low", [2, 0, 7, 1])]
    chart = bars("x", "Reports", DAYS, series, stacked=True, least=4, shown=lambda value: f"{value:.0f}")
    assert [bar.title for bar in chart.bars] == [
        "27 Feb: 1 critical",
        "27 Feb: 2 low",
        "1 Mar: 3 critical",
        "1 Mar: 7 low",
        "2 Mar: 1 low",
    ]
    first, second = chart.bars[:2]
    assert first.x == second.x
    assert first.y == pytest.approx(second.y + second.height, abs=0.11)
    assert second.height == pytest.approx(2 * first.height, abs=0.11)
    assert all(bar.y >= 0 and bar.y + bar.height <= chart.bottom + 0.2 for bar in chart.bars)
    assert all(chart.left <= bar.x and bar.x + bar.width <= chart.right + 0.1 for bar in chart.bars)
    assert [line.text for line in chart.lines] == ["0", "5", "10"]
    assert chart.rows[2] == ("2026-03-01", ("3", "7"))
    assert chart.summary == "Reports, 27 Feb to 2 Mar; at most 10."


def test_bars_stand_beside_each_other() -> None:
    series = [Series("half", "one", [1.0, None, 2.0, 0.5]), Series("most", "two", [8.0, None, 4.0, 0.5])]
    chart = bars("x", "Times", DAYS, series, stacked=False, least=2, shown=lasted)
    assert len(chart.bars) == 6
    assert chart.bars[0].x + chart.bars[0].width == pytest.approx(chart.bars[1].x, abs=0.11)
    assert chart.rows[1] == ("2026-02-28", ("", ""))


@pytest.mark.parametrize("days", [1, 14, 30, 400])
def test_names_of_days_do_not_crowd(days: int) -> None:
    span = [date(2026, 1, 1) + timedelta(days=number) for number in range(days)]
    chart = bars("x", "t", span, [Series("a", "a", [1] * days)], stacked=True, least=1, shown=str)
    assert 1 <= len(chart.days) <= 7
    assert chart.days[-1].text == day_name(span[-1])


def test_nothing_is_an_empty_chart() -> None:
    assert reports_chart({day: {} for day in DAYS}).empty
    assert times_chart({day: Histogram() for day in DAYS}).empty
    assert bars("x", "t", [], [], stacked=True, least=1, shown=str).empty


def test_other_severities_are_shown_only_when_there_are_any() -> None:
    assert [each.name for each in reports_chart({DAYS[0]: {"low": 1}}).series] == ["critical", "high", "low"]
    assert [each.name for each in reports_chart({DAYS[0]: {"other": 1}}).series][-1] == "other"


@pytest.mark.parametrize(
    ("value", "top"), [(0, 0), (0.3, 0.3), (1, 1), (5, 6), (11, 20), (20, 20), (61, 80), (99, 100), (101, 200)]
)
def test_scales_end_at_a_round_number(value: float, top: float) -> None:
    assert round_up(value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not known"), (0.0004, "0 ms"), (0.04, "40 ms"), (1.44, "1.4 s"), (12.3, "12 s"), (300, "5 min")],
)
def test_lengths_of_time(seconds: float | None, text: str) -> None:
    assert lasted(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [(None, "never"), (99.5, "now"), (97, "3 s ago"), (105, "in 5 s"), (160, "in 60 s"), (-200, "5 min ago")],
)
def test_moments(at: float | None, text: str) -> None:
    assert ago(at, 100) == text
