"""Does somebody have to be called? Looks for causes and sends their notices, in every process that lives long.

No process leads: each look is one process' turn, and each notice is claimed in the store. So the trouble of one
process, the poller's death included, is told by another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import redis
import structlog

from bridge.bookkeeping import Bookkeeping, overdue_after
from bridge.causes import Cause, find_causes
from bridge.delivery import Service
from bridge.idempotency import IdempotencyStore
from bridge.models import Account, Notice
from bridge.notice_text import NoticeText
from bridge.notices import Claim, NoticeBook, NoticeProgress
from bridge.settings import Settings, secrets
from connectors.base import Notifier, Outcome

log = structlog.get_logger(__name__)

#: Seconds between looks, of all processes together.
LOOK_EVERY = 10.0
#: Seconds beyond the connector's own time-out after which a notice being sent is sent by another process.
CLAIM_MARGIN = 30.0
#: Seconds until a notice that no connector took is tried again, doubling to the longest.
FIRST_WAIT, LONGEST_WAIT = 30.0, 900.0


class Watcher:
    """Watches on behalf of all processes, taking turns with them."""

    def __init__(
        self,
        store: IdempotencyStore,
        books: Bookkeeping,
        services: Callable[[], Mapping[str, Service]],
        settings: Callable[[], Settings],
        account: Callable[[], Account | None],
    ) -> None:
        self.store = store
        self.books = books
        self.services = services
        self.settings = settings
        self.account = account
        self.notices = NoticeBook(store)
        self._watching_since: float | None = None

    def run(self, stopping: threading.Event) -> None:
        """Watches until `stopping`. Nothing that goes wrong in a look ends it."""
        while not stopping.wait(LOOK_EVERY):
            try:
                self._watched()
                if self._turn():
                    self.look()
            except redis.RedisError as error:
                self._watching_since = None
                log.warning("cannot watch: Redis does not answer, or refuses", error=str(error))
            except Exception:
                log.exception("an error inside the watcher")

    def look(self) -> None:
        """Sends every notice that is due."""
        if not self.settings().alerts.connectors:
            return
        self._watched()
        now = self.store.now()
        causes = {cause.name: cause for cause in find_causes(self.store, self.books, self.services())}
        for cause in causes.values():
            if cause.kind != "unpolled" or self._may_judge_polls():
                self._tell(cause.name, cause, now)
        for known in self.notices.outstanding():
            if known.cause not in causes:
                self._tell(known.cause, None, now)

    def _turn(self) -> bool:
        """Is it time for a look, and this process' turn? Saves work; that nothing is told twice rests on the claims."""
        key, length = self.store.key("notices:turn"), round(LOOK_EVERY * 800)
        return bool(self.settings().alerts.connectors and self.store.client.set(key, "1", nx=True, px=length))

    def _watched(self) -> float:
        """Seconds that this process has watched without a break."""
        now = self.store.now()
        if self._watching_since is None or self._watching_since > now:
            self._watching_since = now
        return now - self._watching_since

    def _may_judge_polls(self) -> bool:
        """After a start, or an outage of Redis, the poller gets the time for a poll before it is called overdue."""
        return self._watched() >= overdue_after(self.books.poll()) / 3

    # -- one notice ----------------------------------------------------------------------------------------------------

    def _tell(self, name: str, cause: Cause | None, now: float) -> None:
        services = self.services()
        connector = name.partition(":")[2]
        carriers = self._carriers(connector)
        claim = self.notices.claim(
            name,
            over=cause is None,
            since=cause.since if cause else 0.0,
            newest=cause.newest if cause else 0.0,
            lease=max((service.settings.timeout for service, _ in carriers), default=0.0) + CLAIM_MARGIN,
        )
        if isinstance(claim, str):
            return
        if not carriers:
            problem = "no connector in [alerts] connectors can carry this notice now: paused, or itself the trouble"
            self._failed(claim, problem, 0, 1)
            return
        rounds, place = divmod(claim.failures, len(carriers))
        service, notifier = carriers[place]
        settings = self.settings()
        notice = NoticeText(settings.timezone, secrets(settings)).write(
            claim, cause, account=self.account(), gone=bool(connector) and connector not in services, now=now
        )
        problem = self._send(notice, service.name, notifier)
        if problem:
            self._failed(claim, problem, rounds, len(carriers))
        else:
            self.notices.sent(claim, now)
            log.info("a person was told", cause=name, over=claim.over, connector=service.name)

    def _carriers(self, about: str) -> list[tuple[Service, Notifier]]:
        """Connectors to try, in order: never a paused one, and the one that the notice is about only if it is alone."""
        services = self.services()
        named = [name for name in dict.fromkeys(self.settings().alerts.connectors) if name in services]
        others = [name for name in named if name != about]
        return [
            (services[name], connector)
            for name in others or named
            if isinstance(connector := services[name].connector, Notifier) and self.store.paused(name) is None
        ]

    def _send(self, notice: Notice, carrier: str, notifier: Notifier) -> str:
        """Why the notice was not sent; '' when a person has it."""
        try:
            notifier.notify(notice, NoticeProgress(self.store, notice.key, carrier))
        except Outcome as outcome:
            return f"{carrier}: {outcome}"
        except Exception as error:  # a connector may come from anywhere
            log.exception("a connector failed to send a notice", connector=carrier)
            return f"{carrier}: an error inside the connector ({type(error).__name__}); the log has the details"
        return ""

    def _failed(self, claim: Claim, problem: str, rounds: int, carriers: int) -> None:
        """The next connector is tried at the next look; once all have failed, they are given time."""
        last = (claim.failures + 1) % carriers == 0
        delay = min(FIRST_WAIT * 2 ** min(rounds, 10), LONGEST_WAIT) if last else 0.0
        if problem != claim.problem:
            log.error("a notice could not be sent; it is tried again", cause=claim.cause, reason=problem)
        self.notices.failed(claim, problem, delay)
