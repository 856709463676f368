"""The dead man's switch: after every complete poll a GET to a monitor elsewhere, which alarms when that stays away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import redis
import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.settings import AlertsSettings, heartbeat_secrets
from connectors.base import Outcome
from connectors.http import HttpSession

log = structlog.get_logger(__name__)

#: Seconds for the whole request.
TIMEOUT = 10.0
#: Bytes of an answer beyond which it is not read; monitors answer "OK".
MAX_ANSWER = 1024 * 1024
#: Seconds between looks at whether the process stops, where nobody says so.
IDLE = 30.0


class Heartbeat:
    """Sends from a thread of its own, so that a monitor that hangs holds up no poll. Polls meanwhile count as one."""

    def __init__(self, books: Bookkeeping, settings: Callable[[], AlertsSettings]) -> None:
        self.books = books
        self.settings = settings
        #: Set: something is to be looked at, a poll that is to be told or the end.
        self._look = threading.Event()
        self._due = False
        self._works: bool | None = None
        self._session: tuple[AlertsSettings, HttpSession] | None = None

    def polled(self) -> None:
        """This process completed a poll. Returns at once."""
        self._due = True
        self._look.set()

    def end(self) -> None:
        """The process stops. Returns at once."""
        self._look.set()

    def run(self, stopping: threading.Event) -> None:
        """Sends until `stopping`, and what is due then."""
        while not stopping.is_set() or self._due:
            self._look.wait(IDLE)
            self._look.clear()
            if not self._due:
                continue
            self._due = False
            try:
                self.send()
            except Exception:
                log.exception("an error inside the heartbeat")
        if self._session:
            self._session[1].close()

    def send(self) -> None:
        """One request, once: the next poll is the next attempt."""
        settings = self.settings()
        url = settings.heartbeat_url.get_secret_value()
        if not url:
            return
        try:
            self._connected(settings).request("GET", url)
        except Outcome as outcome:
            self._became(False, str(outcome))
        else:
            self._became(True)

    def _became(self, works: bool, problem: str = "") -> None:
        """Said in the log only when it changes, in the store always."""
        if works and self._works is not True:
            log.info("the monitor takes the heartbeat")
        if not works and self._works is not False:
            log.warning("the monitor does not take the heartbeat; polling goes on", reason=problem)
        self._works = works
        with suppress(redis.RedisError):  # the poller says so itself
            if works:
                self.books.save_poll(heartbeat_at=self.books.store.now(), heartbeat_problem="")
            else:
                self.books.save_poll(heartbeat_problem=problem)

    def _connected(self, settings: AlertsSettings) -> HttpSession:
        if self._session is None or self._session[0] != settings:
            if self._session:
                self._session[1].close()
            self._session = (
                settings,
                HttpSession(
                    name="heartbeat",
                    timeout=TIMEOUT,
                    ca_file=settings.ca_file,
                    proxy=settings.proxy,
                    insecure_http=settings.insecure_http,
                    secrets=heartbeat_secrets(settings.heartbeat_url),
                    max_bytes=MAX_ANSWER,
                ),
            )
        return self._session[1]
