"""Fixtures of tests that ask the page of one process between pretend systems."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.web.app import create_app
from tests.bridge.conftest import make, systems
from tests.bridge.stage import Stage
from tests.web.door import Door

__all__ = ["make", "systems"]


class Page:
    """The page of one process, as a person with a browser uses it."""

    def __init__(self, stage: Stage) -> None:
        app = create_app(stage.runtime)
        app.secret_key = app.secret_key or "of a test"
        self.client: FlaskClient = app.test_client()
        self.site = app.extensions["site"]

    def get(self, path: str, status: int = 200) -> str:
        """The page at `path`, its HTML balanced."""
        answer = self.client.get(path)
        assert answer.status_code == status, answer.get_data(as_text=True)
        text = answer.get_data(as_text=True)
        if answer.mimetype == "text/html":
            Balance().check(text)
        return text

    def post(self, path: str, *, status: int = 303, **fields: Any) -> TestResponse:
        """Sends a form, with the token that the page's own forms carry."""
        token = re.search(r'<meta name="csrf-token" content="([^"]*)">', self.client.get("/").get_data(as_text=True))
        assert token is not None
        headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
        answer = self.client.post(path, data={"csrf_token": token[1], **fields}, headers=headers)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer

    def press(self, path: str, **fields: Any) -> str:
        """Sends a form and follows to the page that it leads to."""
        return self.get(self.post(path, **fields).location)


class Balance(HTMLParser):
    """Does every element end where it should?"""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def check(self, text: str) -> None:
        self.feed(text)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"], f"{tag}: {attrs}"
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened, f"</{tag}> too many"
        assert self.opened.pop() == tag


@pytest.fixture
def open_door(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Door]]:
    """Opens the page of a process with this `[web]`; further ones stand beside it on the same Redis."""
    with contextlib.ExitStack() as stack:

        def open_door(web: dict[str, Any], **tables: Any) -> Door:
            return stack.enter_context(Door(redis_url, tmp_path, web, **tables))

        yield open_door


def words(html: str) -> str:
    """What a person reads on a page: its text on one line."""
    parser = _Words()
    parser.feed(html)
    return " ".join(" ".join(parser.pieces).split())


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
