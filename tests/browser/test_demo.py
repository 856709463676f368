"""The demo, as somebody tries it who has just installed the bridge."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bridge.web.app import MENU
from tests.browser.chrome import window
from tests.end_to_end.conftest import COMMAND, wait_until


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that the demo prints."""
    log = Path(tmp_path_factory.mktemp("demo")) / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [COMMAND, "demo", "--for", "120"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
            | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        wait_until(lambda: re.search("page: http", log.read_text()) or process.poll() is not None)
        found = re.search(r"page: (http://127\.0\.0\.1:[0-9]+/)", log.read_text())
        assert found, log.read_text()
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()


def test_the_menu_leads_through_the_demo(browser: Browser, url: str) -> None:
    with window(browser, url) as opened:
        opened.go("/")
        for _, title in MENU:
            opened.page.get_by_role("navigation", name="Pages").get_by_role("link", name=title).click()
            expect(opened.page.get_by_role("heading", level=1)).to_have_text(title)
        opened.page.get_by_role("link", name="Deliveries").click()
        rows = opened.page.locator("tbody tr")
        expect(rows.first).to_be_visible()
        before = rows.count()
        # More incidents arrive while it is looked at.
        wait_until(lambda: opened.go("/deliveries") and rows.count() > before)
