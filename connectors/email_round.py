"""One attempt at serving recipients: its connection and its two deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from connectors.base import Misconfigured, Outcome, Rejected, Unavailable
from connectors.email_smtp import Connection, Refusal, Server
from connectors.email_wire import Lost

#: Seconds that a polite good-bye may take.
FAREWELL = 1.0


class EndOfRound(Exception):
    """Nobody else can be served in this attempt, because of `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Round:
    """A connection that is opened when first needed, and again after a loss.

    All that precedes a final dot must be done in the first half of `timeout`, so that each final answer is waited for
    at least the second half.
    """

    def __init__(
        self,
        connect: Callable[[float], Connection],
        before_request: Callable[[], None],
        before_send: Callable[[], None],
        timeout: float,
        answered: Callable[[str], None] = lambda status: None,
    ) -> None:
        start = time.monotonic()
        self._send_by = start + timeout / 2
        self._until = start + timeout
        self._connect = connect
        self._before_request = before_request
        self._before_send = before_send
        self._answered = answered
        self._open: Connection | None = None

    def connection(self) -> Connection:
        """The connection, ready for a transaction. Passes on what `before_request` raises, and `Misconfigured`."""
        self._before_request()
        if time.monotonic() >= self._send_by:
            raise EndOfRound(Unavailable("no time was left in this attempt; the next one continues here"))
        if self._open is None or self._open.sock is None:
            try:
                with self._counted(taken=""):
                    self._open = self._connect(self._send_by)
            except Unavailable as error:
                raise EndOfRound(error) from None
        self._open.until = self._send_by
        return self._open

    def hand_over(self, sender: str, recipient: str, payload: bytes) -> None:
        """All of a transaction but the final dot. Raises `Refusal` or `Lost` for this recipient; nothing was taken."""
        connection = self.connection()
        try:
            with self._counted(taken=""):
                connection.offer_sender(sender, len(payload))
        except Refusal as refusal:
            raise EndOfRound(sender_refused(connection, sender, refusal)) from None
        try:
            with self._counted(taken=""):
                connection.offer_recipient(recipient)
                connection.hand_over(payload)
        except Refusal as refusal:
            if refusal.ends_connection:
                raise EndOfRound(come_back(connection.server, refusal)) from None
            if connection.sock is not None:
                connection.start_over()
            raise

    def finish(self) -> None:
        """The final dot, given all the time that is left. Raises as `Connection.finish` and `before_send` do."""
        if self._open is None:
            raise Lost("closed the connection")
        self._before_send()
        self._open.until = self._until
        with self._counted(taken="250"):
            self._open.finish()

    @contextmanager
    def _counted(self, taken: str) -> Iterator[None]:
        """Tells how a mail ended: with what code it was refused, or, at its last step, `taken`."""
        try:
            yield
        except Refusal as refusal:
            self._answered(str(refusal.code))
            raise
        except (Lost, Unavailable, Misconfigured):
            self._answered("none")
            raise
        if taken:
            self._answered(taken)

    def end(self) -> None:
        if self._open is not None:
            self._open.leave(min(self._until, time.monotonic() + FAREWELL))
            self._open = None


def sender_refused(connection: Connection, sender: str, refusal: Refusal) -> Outcome:
    """What a no to `MAIL FROM` means."""
    if refusal.permanent:
        return Rejected(f'{connection.server} refuses mail from {sender}: "{refusal}"')
    return come_back(connection.server, refusal)


def come_back(server: Server, refusal: Refusal) -> Unavailable:
    """What a temporary no means."""
    return Unavailable(f'{server} asks to come back: "{refusal}"')
