"""The pictures of the documents show what the pages show.

`pytest tests/browser/test_pictures.py --take-screenshots` takes them anew.
"""

from __future__ import annotations

import difflib
import time

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import pictures, story
from tests.browser.chrome import Window, window
from tests.browser.door import Door


def test_no_picture_has_grown_old(
    browser: Browser, shown: story.Shown, door: Door, subtests: pytest.Subtests, pytestconfig: pytest.Config
) -> None:
    taking = pytestconfig.getoption("--take-screenshots")
    kept, texts = pictures.stored(), {}
    with window(browser, shown.url) as inside, window(browser, door.url) as outside:
        look_up_companies(inside)
        for picture in pictures.PICTURES:
            opened = outside if picture.locked else inside
            with subtests.test(picture.name):
                text = settled(opened, picture, kept.get(picture.name, ""), 2 if taking else 6)
                texts[picture.name] = text
                if taking:
                    pictures.take(opened, picture)
                else:
                    changes = "\n".join(differences(kept.get(picture.name, ""), text))
                    assert not changes, f"{changes}\n\ntake the pictures again: {__doc__}"
    if taking:
        pictures.store(texts)
    assert {path.name for path in pictures.FOLDER.glob("*.png")} == {
        name for picture in pictures.PICTURES for name in picture.files()
    }


def look_up_companies(opened: Window) -> None:
    opened.go("/organizations")
    for name in ("psa", "desk"):
        opened.page.get_by_role("button", name=f"Look up companies of {name}").click()
        expect(opened.page.get_by_role("button", name=f"Look up again of {name}")).to_be_visible()


def settled(opened: Window, picture: pictures.Picture, wanted: str, seconds: float) -> str:
    """The page's words once they are the wanted ones, else as they are after `seconds`."""
    patience = time.monotonic() + seconds
    while True:
        opened.go(picture.path)
        text = pictures.words(opened.page)
        if not differences(wanted, text) or time.monotonic() > patience:
            return text


def differences(old: str, new: str) -> list[str]:
    """Lines that are in one of them only; in any order, because what happened at once is listed as it came."""
    before, after = sorted(old.splitlines()), sorted(new.splitlines())
    return list(difflib.unified_diff(before, after, "the picture", "the page", lineterm="", n=0))
