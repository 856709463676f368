"""The watch over the browser sees what it is there to see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from bridge.demo.server import PretendServer, Reply
from tests.browser.chrome import PHONE, window

BAD = {
    "console: an error": "<script>console.error('an error')</script>",
    "script error": "<script>undefined.nothing</script>",
    "a dialog": "<script>alert(1)</script>",
    "a request to another host: http://192.0.2.1/": "<img src='http://192.0.2.1/x.png' alt=''>",
    "console: policy": "<meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src='/x.png' alt=''>",
    "console: Failed to load": "<img src='/missing.png' alt=''>",
}
UGLY = "<html lang=en><title>Ugly</title><main><h1>Ugly</h1><img src='data:,'><p style='width:900px'>wide</p></main>"


@pytest.fixture(scope="module")
def site() -> Iterator[PretendServer]:
    with PretendServer("127.0.0.1") as server:
        server.route("GET", "/favicon.ico", lambda request: Reply(204))
        yield server


def serve(site: PretendServer, markup: str) -> None:
    site.route("GET", "/page", lambda request: Reply(200, markup, {"Content-Type": "text/html"}))


@pytest.mark.parametrize("finding", BAD, ids=range(len(BAD)))
def test_it_tells_what_goes_wrong(browser: Browser, site: PretendServer, finding: str) -> None:
    serve(site, BAD[finding])
    with pytest.raises(AssertionError, match=finding), window(browser, site.url) as opened:
        opened.go("/page")


def test_it_sees_what_is_not_for_everybody(browser: Browser, site: PretendServer) -> None:
    serve(site, UGLY)
    with window(browser, site.url, size=PHONE) as opened:
        opened.go("/page")
        assert [finding.split()[:2] for finding in opened.axe()] == [["critical", "image-alt:"]]
        assert "the page scrolls sideways" in opened.sticking_out()


def test_what_is_expected_must_happen(browser: Browser, site: PretendServer) -> None:
    serve(site, "<p>quiet</p>")
    with window(browser, site.url) as opened:
        opened.go("/page")
        opened.expected.append("an error")
        with pytest.raises(AssertionError, match="expected, and it did not happen: an error"):
            opened.finish()
        opened.expected.clear()
