"""Everything that the page is asked and told, by a person with a mouse, with a keyboard, and without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser import story
from tests.browser.chrome import Window, window
from tests.end_to_end.conftest import wait_until


@pytest.fixture
def opened(browser: Browser, shown: story.Shown) -> Iterator[Window]:
    with window(browser, shown.url) as opened:
        opened.answers = True
        yield opened


def rows(opened: Window) -> Locator:
    return opened.page.locator("tbody tr")


def notice(opened: Window) -> Locator:
    return opened.page.locator(".notice:visible").first


FILTERS = {
    "state": ("rejected", "rejected", len(story.REFUSED)),
    "severity": ("critical", "critical", None),
    "connector": ("desk", "desk", 13),
    "organization": ("2", "Organization 2", 6),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_choice_filters_the_deliveries_at_once(opened: Window, name: str) -> None:
    value, text, count = FILTERS[name]
    opened.go("/deliveries")
    opened.page.locator(f"#{name}").select_option(value)
    opened.page.wait_for_url(re.compile(rf"[?&]{name}={value}"))
    assert rows(opened).count() == (count or rows(opened).count()) > 0
    assert all(text in each for each in rows(opened).all_inner_texts())
    expect(opened.page.locator(f"#{name}")).to_have_value(value)
    opened.page.get_by_role("link", name="Clear").click()
    expect(rows(opened)).to_have_count(39)


TEXTS = {"/deliveries": ("4007", 3), "/organizations": ("acme", 1), "/activity": ("log in", 0)}


@pytest.mark.parametrize("path", TEXTS)
def test_a_text_filters_a_list(opened: Window, path: str) -> None:
    text, count = TEXTS[path]
    opened.go(path)
    opened.page.get_by_role("searchbox").fill(text)
    opened.page.get_by_role("searchbox").press("Enter")
    opened.page.wait_for_url(re.compile("[?&]text="))
    expect(rows(opened)).to_have_count(count)
    expect(opened.page.get_by_role("searchbox")).to_have_value(text)


def test_what_fits_no_filter_is_said(opened: Window) -> None:
    opened.go("/deliveries?text=nothing-has-this-text")
    expect(opened.page.get_by_text("Nothing matches this filter.")).to_be_visible()
    opened.go("/deliveries?state=bewildered&severity=loud&organization=x")
    expect(opened.page.get_by_role("alert")).to_have_count(3)
    expect(rows(opened)).to_have_count(39)


def test_one_delivery_tells_its_story_and_is_retried(opened: Window, shown: story.Shown) -> None:
    number = story.REFUSED[0]
    opened.go(f"/deliveries/{number}/psa")
    told = opened.page.locator(".timeline .what").all_inner_texts()
    assert [told[0], told[-1]] == ["First seen", "Refused"]
    expect(opened.page.locator(".timeline li").last).to_contain_text(story.REFUSAL)
    opened.page.get_by_role("button", name="Retry now").click()
    expect(notice(opened)).to_have_class("notice done")
    # Still refused: the page says so again, and does not pretend.
    wait_until(lambda: len(shown.world.psas()["psa"].creates(number)) == 2)
    wait_until(lambda: shown.state(number, "psa") == "rejected")
    shown.relent()
    opened.go(f"/deliveries/{number}/psa")
    opened.page.get_by_role("button", name="Retry now").click()
    wait_until(lambda: shown.state(number, "psa") == "created")
    opened.go(f"/deliveries/{number}/psa")
    [ticket] = [one for one in shown.world.connectwise.tickets.values() if str(number) in one["externalXRef"]]
    expect(opened.page.get_by_role("link", name=str(ticket["id"]))).to_have_attribute("href", re.compile("^http://127"))
    expect(opened.page.locator(".timeline")).to_contain_text(str(ticket["id"]))


def test_a_delivery_is_marked_as_handled_with_a_reason(opened: Window, shown: story.Shown) -> None:
    number = story.REFUSED[1]
    opened.go(f"/deliveries/{number}/psa")
    mark = opened.page.get_by_role("button", name="Mark as handled")
    mark.click()
    assert opened.asked == []  # the browser asks for the reason first
    opened.page.get_by_label("Reason, to mark it as handled").fill("called the customer")
    mark.click()
    expect(notice(opened)).to_have_class("notice done")
    assert len(opened.asked) == 1
    assert shown.state(number, "psa") == "handled"
    expect(opened.page.locator(".timeline li").last).to_contain_text("called the customer")


def test_many_are_retried_and_all_that_match(opened: Window, shown: story.Shown) -> None:
    shown.relent()
    opened.go("/deliveries?state=rejected")
    expect(rows(opened)).to_have_count(2)
    opened.page.get_by_role("button", name="Retry", exact=True).click()
    expect(notice(opened)).to_have_class("notice failed")  # none was chosen
    opened.page.get_by_label("All on this page").check()
    expect(opened.page.locator("input[name=pick]:checked")).to_have_count(2)
    opened.page.get_by_label("All on this page").uncheck()
    opened.page.locator("input[name=pick]").first.check()
    opened.page.get_by_role("button", name="Retry", exact=True).click()
    expect(notice(opened)).to_have_class("notice done")
    wait_until(lambda: shown.states().get(("psa", "rejected")) == 1)
    opened.go("/deliveries?state=rejected")
    opened.page.get_by_role("link", name="Retry all that match").click()
    opened.page.get_by_role("button", name="Retry 1 now").click()
    expect(notice(opened)).to_have_class("notice done")
    wait_until(lambda: ("psa", "rejected") not in shown.states())


def test_a_connector_is_checked_and_tried(opened: Window, shown: story.Shown) -> None:
    opened.go("/connectors")
    card = opened.page.locator("#psa")
    card.get_by_role("button", name="Check on line").click()
    expect(opened.page.get_by_label("Check of psa").locator(".notice.done")).to_be_visible()
    card.get_by_role("button", name="Send a test ticket").click()
    expect(opened.page.get_by_label("Test ticket of psa").locator(".notice.done")).to_be_visible()
    assert len(opened.asked) == 1
    [trial] = [each for each in shown.world.connectwise.tickets.values() if "TEST" in each["summary"]]
    assert trial["closedFlag"]
    # The one that is asked to wait sends none.
    expect(opened.page.locator("#desk").get_by_role("button", name="Send a test ticket")).to_be_disabled()


def test_a_paused_connector_is_probed(opened: Window, shown: story.Shown) -> None:
    fault = shown.world.mailbox.fault("reject_connect_554", times=None)
    shown.world.report(4050, 1)
    opened.go("/connectors")
    probe = opened.page.locator("#oncall").get_by_role("button", name="Probe now")
    wait_until(lambda: opened.go("/connectors") and probe.count())
    shown.world.mailbox.faults.remove(fault)
    probe.click()
    expect(notice(opened)).to_be_visible()
    wait_until(lambda: shown.state(4050, "oncall") == "created")


def test_a_proposal_is_accepted_into_the_file(opened: Window, shown: story.Shown) -> None:
    opened.go("/organizations/psa/proposals")
    opened.page.get_by_role("button", name="Look up companies").click()
    wait_until(lambda: opened.go("/organizations/psa/proposals") and rows(opened).count())
    opened.page.get_by_label("Accept the company chosen for Organization 6").check()
    opened.page.get_by_role("button", name="Write the marked rows").click()
    expect(notice(opened)).to_have_class("notice done")
    assert "6,psa,1006" in (shown.bridge.folder / "organizations.csv").read_text("utf-8")
    opened.page.get_by_role("link", name="search").first.click()
    opened.page.get_by_role("searchbox").fill("organization 4")
    opened.page.get_by_role("button", name="Search").click()
    opened.page.get_by_role("button", name="Choose Organization 4").click()
    expect(notice(opened)).to_have_class("notice done")
    assert "5,psa,1004" in (shown.bridge.folder / "organizations.csv").read_text("utf-8")


def test_a_template_is_previewed_and_its_error_has_a_line(opened: Window, shown: story.Shown) -> None:
    opened.go("/templates")
    opened.page.locator("#connector").select_option("psa")
    opened.page.locator("#report").fill("4012")
    opened.page.get_by_role("button", name="Preview", exact=True).click()
    expect(opened.page.locator("pre.written").first).to_contain_text("huntress-5-4012")
    title = shown.bridge.folder / "own" / "title.j2"
    title.write_text("{# mine #}\n{{ report.nothing.at_all }}\n", encoding="utf-8")
    opened.page.get_by_role("button", name="Preview", exact=True).click()
    failed = opened.page.locator(".code-line.bad")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text("report.nothing.at_all")
    expect(failed.locator(".code-number")).to_have_text("2")
    opened.page.get_by_text("Paste a report instead").click()
    opened.page.get_by_label("JSON of one report").fill("{ no json")
    opened.expected.append("status of 4")
    opened.page.get_by_role("button", name="Preview what is pasted").click()
    expect(notice(opened)).to_have_class("notice failed")
    expect(opened.page.get_by_label("JSON of one report")).to_have_value("{ no json")


FILES = {
    "/quarantine": ("Download all as JSON", "Incident without an id"),
    "/deliveries?connector=desk": ("Download CSV", "4012"),
}


@pytest.mark.parametrize("path", FILES)
def test_what_is_shown_can_be_kept(opened: Window, path: str) -> None:
    link, text = FILES[path]
    opened.go(path)
    with opened.page.expect_download() as download:
        opened.page.get_by_role("link", name=link).click()
    assert text in download.value.path().read_text("utf-8")


def test_with_the_keyboard_alone(opened: Window, shown: story.Shown) -> None:
    """From the first key to a retry."""
    opened.go("/")
    keyboard = opened.page.keyboard
    opened.tab_to("A Skip to content", most=1)
    keyboard.press("Enter")
    assert opened.focused().startswith("MAIN")
    opened.go("/")
    opened.tab_to("A Deliveries")
    keyboard.press("Enter")
    opened.page.wait_for_url("**/deliveries")
    opened.tab_to("INPUT Text.*")
    keyboard.type("4012")
    keyboard.press("Enter")
    opened.page.wait_for_url("**text=4012*")
    opened.tab_to("INPUT Report 4012 to desk")
    keyboard.press("Space")
    opened.tab_to("BUTTON Retry")
    keyboard.press("Enter")
    expect(notice(opened)).to_be_visible()


def test_without_scripts(browser: Browser, shown: story.Shown) -> None:
    with window(browser, shown.url, scripts=False) as opened:
        opened.go("/deliveries")
        opened.page.locator("#connector").select_option("desk")
        opened.page.get_by_role("button", name="Filter").click()
        opened.page.get_by_label(f"Report {story.LAST} to desk").check()
        opened.expected.append("status of 4")
        opened.page.get_by_role("button", name="Mark as handled").click()
        expect(notice(opened)).to_have_class("notice failed")  # a reason is missing; what was chosen stays so
        expect(opened.page.get_by_label(f"Report {story.LAST} to desk")).to_be_checked()
        opened.page.get_by_label("Reason, to mark them as handled").fill("on the phone")
        opened.page.get_by_role("button", name="Mark as handled").click()
        expect(notice(opened)).to_have_class("notice done")
        assert shown.state(story.LAST, "desk") == "handled"
        opened.go("/activity")
        expect(rows(opened).first).to_contain_text("on the phone")


def test_what_is_shown_stays_true_and_no_hand_is_disturbed(opened: Window, shown: story.Shown) -> None:
    opened.page.clock.install()
    opened.go("/deliveries?text=40")
    before = rows(opened).count()
    search = opened.page.get_by_role("searchbox")
    search.fill("half a wor")
    shown.world.report(4060, 1)
    wait_until(lambda: any(row["report_id"] == 4060 for row in shown.bridge.deliveries()))
    opened.page.clock.run_for(5_500)
    expect(rows(opened).filter(has_text="4060")).to_have_count(3)
    assert rows(opened).count() == before + 3
    expect(search).to_be_focused()
    expect(search).to_have_value("half a wor")
    # Whoever is choosing rows keeps them as they are.
    opened.page.get_by_label("Report 4060 to psa").check()
    shown.world.report(4061, 1)
    wait_until(lambda: any(row["report_id"] == 4061 for row in shown.bridge.deliveries()))
    opened.page.clock.run_for(5_500)
    expect(rows(opened).filter(has_text="4061")).to_have_count(0)
    expect(opened.page.get_by_label("Report 4060 to psa")).to_be_checked()
