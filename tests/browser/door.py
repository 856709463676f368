"""A page that asks for a password."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.browser.story import answers
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until

PASSWORD = "correct horse battery"


@dataclass
class Door:
    """A page with a password, and the Redis under it."""

    bridge: Bridge
    server: RedisServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bridge.port}"

    def end_sessions(self) -> None:
        """As if everybody had been idle for too long."""
        with self.server.client() as client:
            for key in client.scan_iter("*page:session:*"):
                client.delete(key)


@contextmanager
def door() -> Iterator[Door]:
    """A process that serves nothing but the page."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
        server = RedisServer(Path(folder), "--appendonly", "yes")
        stack.callback(server.kill)
        server.start()
        bridge = Bridge.in_folder(stack, World(1).start(stack), {"redis": {"url": server.url}})
        bridge.write(web={"port": bridge.port, "password": PASSWORD})
        bridge.start("web")
        made = Door(bridge, server)
        wait_until(lambda: answers(made.url))
        yield made
