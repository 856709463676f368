"""The pictures of the documents, and in words what each shows, so that nobody overlooks that one grew old."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

from tests.browser import story
from tests.browser.chrome import DESKTOP, PHONE, Scheme, Window

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
#: What the pictures show, in words; parts that differ each time are masked.
WORDS = FOLDER / "shown.txt"
#: Most pixels of a picture's height: what is further down is more of the same.
TALLEST = {DESKTOP: 1500, PHONE: 1700}


@dataclass(frozen=True)
class Picture:
    name: str
    path: str
    #: Text of the page once it shows everything.
    ready: str = ""
    dark: bool = False


PICTURES = (
    Picture("overview", "/"),
    Picture("overview-dark", "/", dark=True),
    Picture("deliveries", "/deliveries?connector=psa"),
    Picture("delivery", f"/deliveries/{story.REFUSED}/psa"),
    Picture("organizations", "/organizations"),
    Picture("templates", "/templates"),
    Picture("connectors", "/connectors"),
    Picture("quarantine", "/quarantine"),
)

_DURATION = r"[0-9]+(\.[0-9]+)? (ms|s|min|h|days?)"
_MASKS = (
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(\+00:00| ?UTC|Z)?)?", "TIME"),
    (rf"\bin {_DURATION}\b|\b{_DURATION} ago\b|\b{_DURATION}\b", "DURATION"),
    (r"127\.0\.0\.1:[0-9]+", "HOST"),
    (r"[a-z/]+/hb-[a-z0-9_]+", "FOLDER"),
    (r"T[0-9]{8}\.[0-9]{4}|\b(10|70)[0-9]{2}\b", "TICKET"),
)


def words(page: Page) -> str:
    """What assistive technology reads of a page, without what differs each time."""
    text = page.locator("body").aria_snapshot()
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return text


def stored() -> dict[str, str]:
    """What the pictures show, by their names."""
    if not WORDS.exists():
        return {}
    parts = re.split(r"^== (.+) ==\n", WORDS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.rstrip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def store(texts: dict[str, str]) -> None:
    """Keeps them in the order of the pictures."""
    WORDS.write_text("".join(f"== {name} ==\n{text}\n\n" for name, text in texts.items()).rstrip() + "\n", "utf-8")


def take(window: Window, picture: Picture) -> None:
    """Writes the picture of what is shown, on a desk and on a phone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    scheme: Scheme = "dark" if picture.dark else "light"
    for suffix, size in (("", DESKTOP), ("-phone", PHONE)):
        window.size(size, scheme)
        height = window.page.evaluate("() => document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(height, TALLEST[size])}
        window.page.screenshot(
            path=FOLDER / f"{picture.name}{suffix}.png", full_page=True, clip=clip, animations="disabled", caret="hide"
        )
