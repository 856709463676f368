"""A headless Chromium that is watched: whatever it complains about, asks of others or is made to show is a finding."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, cast
from urllib.parse import urljoin, urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, Response, expect, sync_playwright

Scheme = Literal["light", "dark"]
DESKTOP, PHONE = (1280, 900), (390, 844)
#: Time-out of anything waited for, in milliseconds; a full test run leaves a browser little of two cores.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)
#: Chromium is to do what a page asks, and nothing on its own account.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: Chromium's own, or the one that Debian packages.
NAMES = ("chromium", "chromium-browser")

_AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
#: A violation of the content policy is said on the console as well, but not always.
_TELL = (
    "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective + e.blockedURI));"
)


def executable() -> str | None:
    """Where Chromium is; None: not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser for a file of tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=[*FLAGS])
        yield browser
        browser.close()


@dataclass
class Window:
    """One page in a browser of its own cookies, and what was wrong with it so far."""

    page: Page
    site: str
    problems: list[str] = field(default_factory=list)
    #: Regular expressions of what may go wrong; each must.
    expected: list[str] = field(default_factory=list)
    #: What confirmation dialogs asked; all are agreed to.
    asked: list[str] = field(default_factory=list)
    answers: bool = False

    def go(self, path: str) -> Response:
        """Opens a path of the site."""
        answer = self.page.goto(urljoin(self.site, path), wait_until="load")
        assert answer is not None
        return answer

    def size(self, size: tuple[int, int], scheme: Scheme) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    def axe(self, *rules: str) -> list[str]:
        """What axe-core finds wrong with the page as it is now, by all its rules or only by `rules`."""
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {_AXE} }} }}")
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        found = self.page.evaluate(f"() => axe.run(document, {json.dumps(options)})")
        return [
            f"{each['impact']} {each['id']}: {node['target']} {node['failureSummary']}"
            for each in cast(list[dict[str, Any]], found["violations"])
            for node in each["nodes"]
        ]

    def sticking_out(self) -> list[str]:
        """Elements that reach beyond the right edge of the window, where nothing around them scrolls."""
        return cast(list[str], self.page.evaluate(_STICKING_OUT))

    def focused(self) -> str:
        """The element that has the keyboard, for people: its tag and its name."""
        return str(self.page.evaluate(_FOCUSED))

    def tab_to(self, wanted: str, most: int = 150) -> None:
        """Presses the tab key until what is `wanted` (a regular expression for `focused`) has the keyboard."""
        seen = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            seen.append(self.focused())
            if re.fullmatch(wanted, seen[-1], re.DOTALL):
                return
        raise AssertionError(f"the tab key never comes to {wanted}, but to: {seen}")

    def finish(self) -> None:
        """Fails when something was wrong that was not expected, or the reverse."""
        strange = [each for each in self.problems if not any(re.search(wanted, each) for wanted in self.expected)]
        missing = [wanted for wanted in self.expected if not any(re.search(wanted, each) for each in self.problems)]
        if strange or missing:
            raise AssertionError(
                "; ".join([*strange, *(f"expected, and it did not happen: {each}" for each in missing)])
            )

    def _watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("popup", lambda other: self.problems.append(f"a second window: {other.url}"))
        self.page.context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _dialog(self, dialog: Dialog) -> None:
        if self.answers and dialog.type == "confirm":
            self.asked.append(dialog.message)
            dialog.accept()
        else:
            self.problems.append(f"a dialog: {dialog.message}")
            dialog.dismiss()

    def _request(self, request: Request) -> None:
        site, asked = urlsplit(self.site), urlsplit(request.url)
        if (asked.scheme, asked.netloc) != (site.scheme, site.netloc) and asked.scheme != "data":
            self.problems.append(f"a request to another host: {request.url}")


@contextmanager
def window(
    browser: Browser, site: str, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light", scripts: bool = True
) -> Iterator[Window]:
    """A window on `site`; at the end it fails when anything was wrong with what was shown in it."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        java_script_enabled=scripts,
        locale="en-US",
        timezone_id="UTC",
    )
    context.set_default_timeout(PATIENCE)
    if scripts:
        context.add_init_script(_TELL)
    opened = Window(context.new_page(), site)
    opened._watch()
    try:
        yield opened
    finally:
        context.close()
    opened.finish()


_FOCUSED = """() => {
  const e = document.activeElement;
  return `${e.tagName} ${e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.name || ""}`.trim();
}"""

_STICKING_OUT = """() => {
  const scrolls = (e) => e && e !== document.body
    && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const out = [...document.querySelectorAll("body *")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1) && !scrolls(e);
  }).map((e) => e.outerHTML.slice(0, 200));
  if (document.documentElement.scrollWidth > innerWidth) out.push("the page scrolls sideways");
  return out;
}"""
