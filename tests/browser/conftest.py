"""One Chromium per file of tests; where none is installed, the tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import door as doors
from tests.browser import story
from tests.browser.chrome import chromium, executable


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with its file: while Playwright runs, no other test of the same process could start an event loop."""
    if executable() is None:
        pytest.skip("no Chromium here; on Debian: apt-get install -y chromium")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown() -> Iterator[story.Shown]:
    """A bridge of its own for each file, whose tests steer it."""
    with story.running() as running:
        yield running


@pytest.fixture(scope="module")
def door() -> Iterator[doors.Door]:
    with doors.door() as made:
        yield made
