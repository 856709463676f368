"""Serves the page from a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import structlog
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

from bridge.runtime import Runtime
from bridge.settings import ConfigurationError
from bridge.web.app import create_app
from bridge.web.visitor import lane, parse, trusted
from bridge.webhooks import LONGEST_BODY

log = structlog.get_logger(__name__)

#: Threads that answer.
THREADS = 4
#: Connections at once.
CONNECTIONS = 200
#: Those of one address (of IPv6 a /64) that is no trusted proxy, so that one stranger leaves room for others.
OF_ONE = CONNECTIONS // 4
#: Seconds after which a connection is closed on which nothing moves, and those that one request may take to arrive.
IDLE = 30
SLOWEST = 30.0
#: Seconds between two looks at connections on which nothing moves.
LOOK_EVERY = 5.0
#: Most bytes of a request's headers.
LONGEST_HEADERS = 32_768

# It warns of every request that waits for a thread, and anybody can send many.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class _Channel(HTTPChannel):
    """A connection that sends a request by single bytes is closed, or a few of them would occupy all there are.

    So is one of an address that has too many, by what `crowded` says of the addresses of all and its own.
    """

    def __init__(
        self, *arguments: Any, clock: Callable[[], float], crowded: Callable[[list[str], str], bool], **more: Any
    ) -> None:
        self._clock = clock
        self._began = 0.0
        super().__init__(*arguments, **more)
        channels = cast("dict[int, HTTPChannel]", self.server.active_channels)
        if crowded([channel.addr[0] for channel in channels.values()], self.addr[0]):
            self.will_close = True

    def received(self, data: bytes) -> bool:
        now = self._clock()
        if self.request is None:
            self._began = now
        elif now - self._began > SLOWEST:
            self.will_close = True
            return False
        return bool(super().received(data))


def _crowded(runtime: Runtime, there: list[str], address: str) -> bool:
    """Has `address` more connections than one may have, of those that are `there`?"""
    if len(there) <= OF_ONE or trusted(parse(address), runtime.settings.web.trusted_proxies):
        return False
    return sum(lane(each) == lane(address) for each in there) > OF_ONE


class WebServer:
    """Listens from its making on; answers while `serve` runs. `clock` gives seconds, from any start."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        runtime.settings.require_page()
        web = runtime.settings.web
        self._sockets: dict[int, Any] = {}
        self._answered = threading.Event()
        try:
            self.server = create_server(
                create_app(runtime),
                map=self._sockets,
                host=web.host,
                port=web.port,
                threads=THREADS,
                ident=None,
                # It reads a whole body before the application is asked.
                max_request_body_size=LONGEST_BODY + 1,
                max_request_header_size=LONGEST_HEADERS,
                connection_limit=CONNECTIONS,
                channel_timeout=IDLE,
                # Which proxies are believed is decided by `bridge.web.visitor`, which knows networks too.
                clear_untrusted_proxy_headers=False,
            )
        except OSError as error:
            raise ConfigurationError(
                [f"web.port: cannot listen on {web.host} port {web.port} ({error.strerror}); set it to a free one"]
            ) from None
        for socket in self._sockets.values():
            if hasattr(socket, "channel_class"):
                socket.channel_class = partial(_Channel, clock=clock, crowded=partial(_crowded, runtime))
        host = f"[{web.host}]" if ":" in web.host else web.host
        log.info("page", url=f"http://{host}:{web.port}/")

    def serve(self, stopping: threading.Event) -> None:
        """Answers until `stopping`."""
        ending = threading.Thread(target=lambda: self._end(stopping), name="web-end", daemon=True)
        ending.start()
        try:
            # Not the server's own loop: that one goes on for as long as any browser holds a connection.
            while not self._answered.is_set():
                wasyncore.loop(timeout=LOOK_EVERY, map=self._sockets, count=1)
            ending.join()  # it still writes to what is closed now
        finally:
            self.server.task_dispatcher.shutdown()
            wasyncore.close_all(self._sockets, ignore_all=True)

    def _end(self, stopping: threading.Event) -> None:
        stopping.wait()
        self.server.task_dispatcher.shutdown()  # meanwhile what is being answered is still sent
        self._answered.set()
        for socket in list(self._sockets.values()):
            if isinstance(socket, BaseWSGIServer):
                socket.pull_trigger()  # ends its look
