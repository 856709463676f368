"""Every page that links lead to: nothing is complained about, nothing is cut off, and everybody can use it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser import story
from tests.browser.chrome import DESKTOP, PHONE, window
from tests.browser.crawl import places

#: Answered, but no pages.
NO_PAGES = frozenset({"healthz", "readyz", "static_file", "status.show", "metrics.show"})
#: Pages that only those see who are not let in, and files to keep.
ELSEWHERE = frozenset({"login.show", "deliveries.table", "quarantine.download"})
#: Rules of axe-core that colours decide.
COLOURS = ("color-contrast", "link-in-text-block")


@pytest.fixture(scope="module")
def found(browser: Browser, shown: story.Shown) -> dict[str, str]:
    """A path for each endpoint that links lead to, from the overview on."""
    return places(shown)


def test_links_lead_to_every_page(shown: story.Shown, found: dict[str, str]) -> None:
    rules = {rule.endpoint for rule in shown.rules().iter_rules() if "GET" in (rule.methods or ())}
    assert rules - NO_PAGES - ELSEWHERE <= found.keys()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_every_page_is_for_everybody(
    browser: Browser, shown: story.Shown, found: dict[str, str], subtests: pytest.Subtests, size: tuple[int, int]
) -> None:
    """In light and in dark; on a phone nothing sticks out."""
    for endpoint, path in found.items():
        if endpoint in ELSEWHERE:
            continue
        with subtests.test(endpoint), window(browser, shown.url, size=size) as opened:
            assert opened.go(path).status == 200
            assert opened.axe() == []
            assert opened.sticking_out() == []
            opened.size(size, "dark")
            assert opened.axe(*COLOURS) == []
