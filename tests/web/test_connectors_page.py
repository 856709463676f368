"""The page Connectors: who serves, who does not and why, and a check that takes its time."""

from __future__ import annotations

import re
import threading

import pytest

from bridge.demo.server import Received
from bridge.settings import secrets
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.web.conftest import Page, words

WRONG_BOARD = "connectors.psa.board"


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return make("psa", "desk", "oncall")


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


def test_everything_serves(page: Page, stage: Stage) -> None:
    stage.report(1, connectors=["psa"])
    text = words(page.get("/connectors"))
    assert "All 3 connectors serve." in text
    assert "psa connectwise, " in text
    assert "1 now, nothing later" in text
    assert "Probe now" not in text


def test_answers_are_counted_by_status(page: Page, stage: Stage) -> None:
    page.post("/connectors/psa/check")
    assert "Requests so far" not in words(page.get("/connectors"))
    stage.runtime.requests.flush()
    assert re.search(r"Requests so far 200: \d+", words(page.get("/connectors")))


@pytest.mark.parametrize(
    ("kind", "probe_in", "said"),
    [
        ("rate", 0.0, ("asked to wait", "there is nothing to do", "Goes on in 80 s")),
        ("misconfigured", 60.0, ("misconfigured", "Mend what is said above", "Next probe in 60 s", "Probe now")),
        ("unfindable", 60.0, ("creates what it cannot find", "Let the API user see all boards", "Probe now")),
    ],
)
def test_a_pause_says_why_until_when_and_what_to_do(
    page: Page, stage: Stage, kind: str, probe_in: float, said: tuple[str, ...]
) -> None:
    stage.store.pause("psa", kind, 80.4, "the <b>board</b> is closed", probe_in=probe_in)
    html = page.get("/connectors")
    text = words(html)
    assert "1 of 3 connectors is paused: psa (" in text
    assert f'class="card verdict {"wait" if kind == "rate" else "bad"}"' in html
    assert "the <b>board</b> is closed" in text
    assert "<b>board" not in html
    for each in said:
        assert each in text
    assert ("Probe now" in text) == bool(probe_in)


def test_probe_now_makes_the_probe_due(page: Page, stage: Stage) -> None:
    stage.store.pause("psa", "misconfigured", 900, "no such board", probe_in=600)
    assert "is probed within seconds" in page.press("/connectors/psa/probe")
    assert stage.store.paused("psa") is not None
    stage.probe()  # as the dispatcher's process does
    assert stage.store.paused("psa") is None
    assert "is not paused" in page.press("/connectors/psa/probe")


def test_a_system_that_asked_to_be_left_alone_is_left_alone(page: Page, stage: Stage, systems: Systems) -> None:
    stage.store.pause("psa", "rate", 95, "429, Retry-After 95")
    before = len(systems.connectwise.received)
    for action in ("check", "probe"):
        assert "asked to be left alone" in page.press(f"/connectors/psa/{action}")
    assert len(systems.connectwise.received) == before


def test_a_check_finds_nothing_where_all_is_well(page: Page) -> None:
    for name in ("psa", "desk", "oncall"):
        page.post(f"/connectors/{name}/check")
        text = words(page.get("/connectors"))
        assert text.count("nothing to mend") == ("psa", "desk", "oncall").index(name) + 1


def test_a_check_says_what_to_mend_and_where(make: MakeStage) -> None:
    page = Page(make("psa", board="<i>Nowhere</i>"))
    html = page.press("/connectors/psa/check")
    assert "1 thing to mend" in words(html)
    assert WRONG_BOARD in html
    assert "<i>Nowhere" not in html


def test_a_paused_connector_is_checked_all_the_same(page: Page, stage: Stage) -> None:
    stage.store.pause("psa", "misconfigured", 900, "no such board", probe_in=600)
    assert "nothing to mend" in page.press("/connectors/psa/check")


def test_a_system_that_cannot_be_reached_is_a_finding(make: MakeStage, systems: Systems) -> None:
    stage = make("desk")
    systems.autotask.stop()
    text = words(Page(stage).press("/connectors/desk/check"))
    assert "cannot be reached" in text
    assert "try again later" in text


def test_a_check_that_takes_long_is_shown_under_way_and_not_started_twice(
    page: Page, systems: Systems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.web.background.PATIENCE", 0.0)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_: Received) -> None:
        arrived.set()
        go_on.wait(30)

    systems.connectwise.meanwhile = hold
    try:
        page.post("/connectors/psa/check")
        assert arrived.wait(30)
        assert "Checking credentials" in page.get("/connectors")
        assert "under way already" in page.press("/connectors/psa/check")
        outcomes = [entry.outcome for entry in page.site.audit_log.entries() if entry.action == "check"]
        assert outcomes == ["refused", "done"], "what was not done is not written down as done"
    finally:
        go_on.set()
    assert "nothing to mend" in settled(page, "Checking credentials")


@pytest.mark.parametrize("name", ["psa", "desk", "oncall"])
def test_a_test_ticket_is_sent_step_by_step(page: Page, stage: Stage, systems: Systems, name: str) -> None:
    stage.runtime.store.remember({"account_name": "An account"})
    page.post(f"/connectors/{name}/test-ticket")
    text = words(settled(page, "Sending a test ticket"))
    assert "every step worked" in text
    for step in ("look up", "render", "create", "complete", "find again", "close"):
        assert f"{step}: worked" in text
    if name == "oncall":
        assert len(systems.mailbox.messages) == 1
        assert "The mail stays where it arrived." in text
    else:
        assert len(systems.psa(name).creates()) == 1
        assert "Closed ticket" in text
        assert "Look at ticket" in text
        assert "A test ticket stays behind" not in text


def test_a_test_ticket_that_fails_says_where_and_what_is_left(make: MakeStage, systems: Systems) -> None:
    page = Page(make("psa", board="<i>Nowhere</i>"))
    html = page.press("/connectors/psa/test-ticket")
    html = settled(page, "Sending a test ticket") or html
    text = words(html)
    assert "it did not work" in text
    assert "render: failed" in text
    assert "no test ticket was made" in text
    assert "<i>Nowhere" not in html
    assert systems.psa("psa").creates() == []


def test_a_paused_connector_is_sent_no_test_ticket(page: Page, stage: Stage, systems: Systems) -> None:
    stage.store.pause("psa", "misconfigured", 900, "no such board", probe_in=600)
    assert "no test ticket is sent: no such board" in page.press("/connectors/psa/test-ticket")
    assert systems.psa("psa").creates() == []


def settled(page: Page, sentence: str) -> str:
    """The page once it no longer says that something is under way."""
    pause = threading.Event()
    while sentence in (html := page.get("/connectors")):
        pause.wait(0.02)
    return html


def test_no_secret_is_on_the_page(page: Page, stage: Stage) -> None:
    html = page.get("/connectors")
    for secret in secrets(stage.runtime.settings):
        assert secret not in html
    assert str(getattr(stage.service("psa").settings, "client_id")) not in html  # noqa: B009 - of this connector only
    text = words(html)
    assert "private_key set, not shown" in text
    assert re.search(r"default_company \w+", text)


def test_an_unknown_connector_is_no_page(page: Page) -> None:
    for action in ("check", "probe", "test-ticket"):
        page.post(f"/connectors/nobody/{action}", status=404)
