"""The pictures of the documents, and in words what each shows, so that nobody overlooks that one grew old."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import FloatRect, Page

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
    schemes: tuple[Scheme, ...] = ("light",)
    #: Is it of a page with a password, where nobody has logged in?
    locked: bool = False

    def files(self) -> dict[str, tuple[Scheme, tuple[int, int]]]:
        """How the page looks in each of the picture's files."""
        return {
            f"{self.name}{'-dark' if scheme == 'dark' else ''}{suffix}.png": (scheme, size)
            for scheme in self.schemes
            for suffix, size in (("", DESKTOP), ("-phone", PHONE))
        }


PICTURES = (
    Picture("overview", "/", ("light", "dark")),
    Picture("deliveries", "/deliveries?connector=psa"),
    Picture("delivery", f"/deliveries/{story.REFUSED[0]}/psa"),
    Picture("organizations", "/organizations"),
    Picture("proposals", "/organizations/psa/proposals"),
    Picture("templates", "/templates"),
    Picture("connectors", "/connectors"),
    Picture("quarantine", "/quarantine"),
    Picture("activity", "/activity"),
    Picture("login", "/login", locked=True),
)

_DURATION = r"[0-9]+(\.[0-9]+)? (ms|s|min|h|days?)"
_MASKS = (
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(\+00:00| ?UTC|Z)?)?", "TIME"),
    (r"\b[0-9]{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "DAY"),
    (rf"\bin {_DURATION}\b|\b{_DURATION} ago\b|\b{_DURATION}\b", "DURATION"),
    (r"\b[0-9]+ of 6000\b|\b[0-9]{3}: [0-9]+\b", "REQUESTS"),
    (r"127\.0\.0\.1:[0-9]+", "HOST"),
    (r"tenant[0-9]+\.example", "TENANT"),
    (r"[a-z/]+/hb-[a-z0-9_]+", "FOLDER"),
    (r"T[0-9]{8}\.[0-9]{4}|\b(10|70)[0-9]{2}\b", "TICKET"),
)


def words(page: Page) -> str:
    """What a person reads on the page, without what differs each time."""
    text = page.locator("body").inner_text()
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return "\n".join(filter(None, (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())))


def stored() -> dict[str, str]:
    """What the pictures show, by their names."""
    if not WORDS.exists():
        return {}
    parts = re.split(r"^-----\[ (.+) \]-----\n", WORDS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.rstrip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def store(texts: dict[str, str]) -> None:
    """Keeps them in the order of the pictures."""
    WORDS.write_text(
        "".join(f"-----[ {name} ]-----\n{text}\n\n" for name, text in texts.items()).rstrip() + "\n", "utf-8"
    )


def take(window: Window, picture: Picture) -> None:
    """Writes the picture of what is shown, on a desk and on a phone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (scheme, size) in picture.files().items():
        window.size(size, scheme)
        height = window.page.evaluate("() => document.documentElement.scrollHeight")
        clip = FloatRect(x=0, y=0, width=size[0], height=min(height, TALLEST[size]))
        window.page.screenshot(path=FOLDER / name, full_page=True, clip=clip, animations="disabled", caret="hide")
        _make_small(FOLDER / name)
    window.size(DESKTOP, "light")


def _make_small(file: Path) -> None:
    """A third of the bytes, the same to the eye, where Pillow is installed; nothing else here needs it."""
    if importlib.util.find_spec("PIL") is None:
        return
    image = importlib.import_module("PIL.Image")
    with image.open(file) as picture:
        small = picture.convert("RGB").quantize(colors=256, dither=image.Dither.NONE)
    small.save(file, optimize=True)
