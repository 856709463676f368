"""The pictures of the documents show what the pages show.

`pytest tests/browser/test_pictures.py --take-screenshots` takes them anew.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import pictures, story
from tests.browser.chrome import window


@pytest.fixture(scope="module")
def shown() -> Iterator[story.Shown]:
    with story.running() as running:
        yield running


def test_no_picture_has_grown_old(
    browser: Browser, shown: story.Shown, subtests: pytest.Subtests, pytestconfig: pytest.Config
) -> None:
    taking = pytestconfig.getoption("--take-screenshots")
    kept = pictures.stored()
    texts = {}
    with window(browser, shown.url) as opened:
        opened.go("/organizations")
        for name in ("psa", "desk"):
            opened.page.get_by_role("button", name=f"Look up companies of {name}").click()
            expect(opened.page.get_by_role("button", name=f"Look up again of {name}")).to_be_visible()
        for picture in pictures.PICTURES:
            with subtests.test(picture.name):
                wanted = kept.get(picture.name, "")
                opened.go(picture.path)
                patience = time.monotonic() + (2 if taking else 6)
                while (text := pictures.words(opened.page)).splitlines() != wanted.splitlines():
                    if time.monotonic() > patience:
                        break
                    opened.go(picture.path)
                texts[picture.name] = text
                if taking:
                    pictures.take(opened, picture)
                else:
                    # In any order: what happened within one second is listed as it came.
                    old, new = sorted(wanted.splitlines()), sorted(text.splitlines())
                    changes = "\n".join(difflib.unified_diff(old, new, "the picture", "the page", lineterm="", n=0))
                    assert not changes, f"{changes}\n\ntake the pictures again: {__doc__}"
    if taking:
        pictures.store(texts)
    assert {path.name for path in pictures.FOLDER.glob("*.png")} == {
        name for picture in pictures.PICTURES for name in picture.files()
    }
