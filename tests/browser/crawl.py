"""Finds the pages as a person would, by following links."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import requests
from werkzeug.exceptions import HTTPException

from tests.browser.story import Shown


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if (tag, name) == ("a", "href")]


def places(shown: Shown) -> dict[str, str]:
    """The first path found for each endpoint, following links from the overview on."""
    rules = shown.rules().bind("127.0.0.1")
    found: dict[str, str] = {}
    waiting = ["/"]
    with requests.Session() as session:
        while waiting:
            path = waiting.pop(0)
            try:
                endpoint, _ = rules.match(urlsplit(path).path)
            except HTTPException as error:
                raise AssertionError(f"a link leads to {path}, where nothing is") from error
            if endpoint in found:
                continue
            found[endpoint] = path
            answer = session.get(urljoin(shown.url, path), timeout=20)
            assert answer.status_code == 200, (path, answer.text)
            if answer.headers["Content-Type"].startswith("text/html"):
                links = _Links()
                links.feed(answer.text)
                waiting += [link for link in links.found if link.startswith("/")]
    return found
