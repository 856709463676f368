"""The reports of somebody who wants to break out, on every page: nothing in them is markup, runs, or leads anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chrome import PHONE, Window, window
from tests.end_to_end import test_hostile as attack
from tests.end_to_end.conftest import Bridge, World, wait_until

#: Whatever a page of ours is made of.
ELEMENTS = frozenset(
    (
        *("html", "head", "meta", "title", "link", "script", "body", "header", "nav", "main", "section", "article"),
        *("h1", "h2", "h3", "p", "div", "span", "small", "strong", "a", "img", "ul", "ol", "li", "dl", "dt", "dd"),
        *("form", "input", "select", "option", "datalist", "label", "button", "textarea", "fieldset", "legend"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "code", "pre", "time"),
        *("svg", "g", "rect", "line", "text", "desc", "figure", "figcaption", "path"),
    )
)
#: Steers a terminal or a reader's eye: none of it is shown.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
#: Where links may lead, beside the page itself.
PORTAL = re.compile(r"https://[a-z-]+\.huntress\.io/org/[0-9]+/infection_reports/[0-9]+")

_CONTENT = """() => ({
  elements: [...new Set([...document.querySelectorAll("*")].map((e) => e.localName))],
  handlers: [...document.querySelectorAll("*")]
    .flatMap((e) => e.getAttributeNames().filter((n) => /^on|^style$|^srcdoc$/.test(n))),
  links: [...document.querySelectorAll("[href], [src], [action], [formaction]")]
    .flatMap((e) => ["href", "src", "action", "formaction"].map((n) => e.getAttribute(n)).filter((v) => v !== null)),
  scripts: document.scripts.length,
  text: document.documentElement.textContent,
})"""


@dataclass
class Struck:
    """A bridge that delivered all of it to one ticket system."""

    world: World
    bridge: Bridge

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bridge.port}"


@pytest.fixture(scope="module")
def struck() -> Iterator[Struck]:
    with ExitStack() as stack:
        world = attack.hostile_world().start(stack)
        refused = attack.number_of("boundary")
        world.psas()["psa"].fault_create("status", refused, status=400, times=None, body={"message": attack.MARKUP})
        tables = {"connectors": world.connectors("psa"), "poll": {"interval": 60}}
        bridge = Bridge.in_folder(stack, world, tables)
        process = bridge.start("run")
        count = len(attack.TICKETED)  # and the largest, but for the one refused
        wait_until(lambda: len(world.connectwise.tickets) >= count, 60, "every report's ticket")
        wait_until(lambda: not bridge.unfinished(), 60, "every delivery's end")
        yield Struck(world, bridge)
        bridge.stop(process)


@pytest.fixture
def opened(browser: Browser, struck: Struck) -> Iterator[Window]:
    with window(browser, struck.url) as opened:
        yield opened


def assert_inert(opened: Window, ticket_system: str) -> None:
    """Beside what the window itself watches: dialogs, requests, scripts' errors."""
    content = opened.page.evaluate(_CONTENT)
    assert set(content["elements"]) <= ELEMENTS
    assert content["handlers"] == []
    assert content["scripts"] == 1
    assert not UNSEEN.search(content["text"])
    for link in content["links"]:
        ours = re.match(r"/(?!/)|#|\?", link)
        assert ours or PORTAL.fullmatch(link) or link.startswith(f"{ticket_system}/"), link


NUMBERS = [*range(attack.FIRST, attack.FIRST + len(attack.TICKETED)), attack.LARGEST]
#: Rendering takes its time; what the others carry, these do.
PREVIEWED = (
    "markup",
    "template syntax",
    "control characters",
    "direction",
    "lone surrogates",
    "lists are objects",
    "deep",
)


def test_a_delivery_is_inert(opened: Window, struck: Struck) -> None:
    for number in NUMBERS:
        assert opened.go(f"/deliveries/{number}/psa").status == 200, number
        assert_inert(opened, struck.world.connectwise.url)


def test_a_preview_is_inert(opened: Window, struck: Struck) -> None:
    for name in PREVIEWED:
        assert opened.go(f"/templates?connector=psa&report={attack.number_of(name)}").status == 200, name
        assert_inert(opened, struck.world.connectwise.url)


LISTS = ("/", "/deliveries", "/organizations", "/connectors", "/quarantine", "/quarantine?page=2", "/activity")


def test_lists_are_inert(opened: Window, struck: Struck) -> None:
    for path in LISTS:
        opened.go(path)
        assert_inert(opened, struck.world.connectwise.url)
        opened.size(PHONE, "light")
        assert opened.sticking_out() == []


def test_proposals_for_hostile_names_are_inert(opened: Window, struck: Struck) -> None:
    opened.go("/organizations/psa/proposals")
    opened.page.get_by_role("button", name="Look up companies").click()
    wait_until(lambda: opened.go("/organizations/psa/proposals") and opened.page.locator("tbody tr").count())
    assert_inert(opened, struck.world.connectwise.url)
    opened.page.get_by_role("link", name="search").first.click()
    assert_inert(opened, struck.world.connectwise.url)


TEXTS = {
    "markup": attack.MARKUP,
    "breaks": attack.BREAKS,
    "template": attack.TEMPLATE,
    "control": attack.CONTROL,
    "direction": attack.BIDI,
    "query": attack.QUERY,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_an_address_says_is_inert(opened: Window, struck: Struck, text: str) -> None:
    said = quote(text)
    opened.expected.append("status of 4")
    for path in (
        f"/deliveries?text={said}&state={said}&severity={said}&organization={said}&connector={said}",
        f"/organizations?text={said}",
        f"/organizations/psa/2?q={said}",
        f"/activity?text={said}",
        f"/templates?connector={said}&report={said}",
        f"/login?next={said}",
        f"/deliveries/{said}/psa",
        f"/{said}",
    ):
        opened.go(path)
        assert_inert(opened, struck.world.connectwise.url)


def test_what_a_person_types_is_inert(opened: Window, struck: Struck) -> None:
    """A reason, and a report that is pasted."""
    opened.answers = True
    opened.go("/templates?connector=psa")
    opened.page.get_by_text("Paste a report instead").click()
    report = {"id": 7, "subject": "<img src=x onerror=alert(1)>", "body": "</pre><script>alert(1)</script>"}
    opened.page.get_by_label("JSON of one report").fill(json.dumps(report | {"status": "sent"}))
    opened.page.get_by_role("button", name="Preview what is pasted").click()
    expect(opened.page.locator("pre.written").first).to_contain_text("<img src=x onerror=alert(1)>")
    assert_inert(opened, struck.world.connectwise.url)
    refused = attack.number_of("boundary")
    opened.go(f"/deliveries/{refused}/psa")
    expect(opened.page.locator(".timeline")).to_contain_text("<script>alert(1)</script>")  # as the ticket system says
    opened.page.get_by_label("Reason, to mark it as handled").fill(attack.MARKUP)
    opened.page.get_by_role("button", name="Mark as handled").click()
    for path in (f"/deliveries/{refused}/psa", "/deliveries?state=handled", "/activity"):
        opened.go(path)
        expect(opened.page.locator("main")).to_contain_text("onerror=alert(1)")
        assert_inert(opened, struck.world.connectwise.url)
