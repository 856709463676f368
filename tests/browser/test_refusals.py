"""What the page refuses and what fails under it, as a person sees it: the log-in, sessions that end, Redis away."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser.chrome import DESKTOP, PHONE, Window, window
from tests.browser.door import PASSWORD, Door
from tests.end_to_end.conftest import wait_until


@pytest.fixture
def opened(browser: Browser, door: Door) -> Iterator[Window]:
    with window(browser, door.url) as opened:
        opened.answers = True
        yield opened


@pytest.fixture
def inside(opened: Window) -> Window:
    log_in(opened)
    return opened


def log_in(opened: Window, path: str = "/", password: str = PASSWORD) -> None:
    opened.go(path)
    opened.page.get_by_label("Password").fill(password)
    opened.page.get_by_role("button", name="Log in").click()


def assert_for_everybody(opened: Window) -> None:
    for size in (DESKTOP, PHONE):
        opened.size(size, "dark" if size == PHONE else "light")
        assert opened.axe() == []
        assert opened.sticking_out() == []
    opened.size(DESKTOP, "light")


def test_the_log_in_leads_to_what_was_asked_for_and_the_log_out_ends_it(opened: Window, door: Door) -> None:
    opened.go("/deliveries?state=held")
    assert "/login?next=" in opened.page.url
    expect(opened.page.get_by_role("link", name="Deliveries")).to_have_count(0)
    assert opened.focused() == "INPUT Password"
    assert_for_everybody(opened)
    opened.page.keyboard.type(PASSWORD)
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_url("**/deliveries?state=held")
    opened.page.get_by_role("button", name="Log out").click()
    opened.page.wait_for_url("**/login")
    opened.page.go_back()
    expect(opened.page.get_by_label("Password")).to_be_visible()


def test_a_wrong_password_says_so(opened: Window) -> None:
    opened.expected.append("status of 401")
    log_in(opened, password="wrong")
    expect(opened.page.get_by_role("alert")).to_have_text("That is not the password.")
    assert_for_everybody(opened)
    log_in(opened)
    expect(opened.page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_a_session_that_ended_asks_to_log_in_and_does_nothing(inside: Window, door: Door) -> None:
    inside.expected.append("status of 40[13]")
    inside.go("/deliveries/retry-all")
    inside.go("/connectors")
    door.end_sessions()
    inside.page.get_by_role("button", name="Check on line psa").click()
    expect(inside.page.get_by_role("heading", level=1)).not_to_have_text("Connectors")
    assert_for_everybody(inside)
    inside.go("/connectors")
    expect(inside.page.get_by_label("Password")).to_be_visible()
    log_in(inside, "/activity")
    expect(inside.page.locator("tbody")).not_to_contain_text("check")


def test_a_page_that_stays_open_notices_that_its_session_ended(inside: Window, door: Door) -> None:
    inside.expected.append("status of 401")
    inside.page.clock.install()
    inside.go("/")
    door.end_sessions()
    inside.page.clock.run_for(5_500)
    expect(inside.page.get_by_label("Password")).to_be_visible()


def test_a_forged_form_is_refused(inside: Window) -> None:
    inside.expected.append("status of 403")
    inside.go("/connectors")
    inside.page.evaluate("() => { for (const e of document.getElementsByName('csrf_token')) e.value = 'forged'; }")
    inside.page.get_by_role("button", name="Check on line psa").click()
    expect(inside.page.locator("main")).to_contain_text("nothing was done", ignore_case=True)
    assert_for_everybody(inside)


def test_what_is_not_there_is_said(inside: Window) -> None:
    inside.expected.append("status of 404")
    for path in ("/nowhere", "/deliveries/999/psa", "/deliveries/1/none", "/organizations/none/proposals"):
        assert inside.go(path).status == 404, path
        expect(inside.page.get_by_role("alert")).to_be_visible()
        expect(inside.page.get_by_role("link", name="Deliveries", exact=True)).to_be_visible()
    assert_for_everybody(inside)


def test_redis_away_is_said_and_found_again(inside: Window, door: Door) -> None:
    inside.expected.append("status of 503")
    inside.page.clock.install()
    inside.go("/")
    stale = inside.page.get_by_text("Redis does not answer. What this page shows is of ")
    verdict = inside.page.locator("#verdict")
    ground = verdict.evaluate("it => getComputedStyle(it).backgroundColor")
    door.server.stop()
    inside.page.clock.run_for(5_500)
    expect(stale).to_be_visible()
    expect(inside.page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert verdict.evaluate("it => getComputedStyle(it).backgroundColor") != ground, "it does not go on looking well"
    with window(inside.page.context.browser or pytest.fail("no browser"), door.url) as other:
        other.expected.append("status of 503")
        assert other.go("/deliveries").status == 503
        expect(other.page.get_by_role("heading", level=1)).to_have_text("Redis does not answer")
        expect(other.page.get_by_role("alert")).to_contain_text(re.compile("Nothing is lost.*data_dir"))
        assert_for_everybody(other)
    door.server.start()
    wait_until(lambda: requests.get(f"{door.url}/readyz", timeout=5).ok)
    inside.page.clock.run_for(5_500)
    expect(stale).to_be_hidden()


def test_whoever_guesses_has_to_wait_and_is_told_how_long(opened: Window) -> None:
    opened.expected += ["status of 401", "status of 429"]
    for _ in range(8):
        log_in(opened, password="guess")
        if opened.page.get_by_role("alert").inner_text().startswith("Too many"):
            break
    expect(opened.page.get_by_role("alert")).to_have_text(re.compile(r"try again in [0-9]+ seconds\.$"))
    assert_for_everybody(opened)
