"""SMTP's lines on a socket, with one deadline for everything.

The stdlib's `smtplib` bounds every read and write by itself, so a server that sends a byte now and then could hold it
for ever; it also turns a senseless or over-long answer into a refusal. Here each answer is read whole and by one
deadline, and what cannot be understood is `Lost`.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from typing import Any

import structlog

from connectors.redaction import redact

log = structlog.get_logger()

#: Bytes of one answer; more is not an answer.
REPLY_LIMIT = 64 * 1024
#: Bytes handed to the socket at once, so that the deadline is looked at in between.
_CHUNK = 16 * 1024
#: Commands whose arguments tell nobody anything secret.
_PLAIN_COMMANDS = frozenset({"EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "QUIT", "STARTTLS"})
#: Most characters of an answer that are logged.
_LOGGED = 300
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})([ -]?)(.*)", re.DOTALL)


class Lost(Exception):
    """The connection broke, the deadline passed, or an answer made no sense. `str()` is what the server did, a verb."""


class Wire(smtplib.SMTP):
    """Commands and answers over one socket. All must be done by `until` (`time.monotonic()`), which may be moved.

    After `Lost` the connection is closed.
    """

    def __init__(self, until: float) -> None:
        super().__init__(local_hostname="localhost")
        self.until = until
        self._unread = bytearray()
        #: Kept out of what is logged; commands that log in are masked as a whole besides.
        self.secrets: list[str] = []
        self._step, self._step_at = "connect", time.monotonic()

    def putcmd(self, cmd: str, args: str = "") -> None:
        """As smtplib's; `said` is called for it."""
        verb, _, rest = f"{cmd} {args}".strip().partition(" ")
        if verb.upper() in _PLAIN_COMMANDS:
            self.said(f"{verb.upper()} {rest}".strip())
        else:
            self.said(f"AUTH {rest.partition(' ')[0]} ***" if verb.upper() == "AUTH" else "***")
        super().putcmd(cmd, args)

    def said(self, step: str) -> None:
        """What is being said now, for the log; the next answer belongs to it."""
        self._step, self._step_at = step, time.monotonic()

    def send(self, s: Any) -> None:
        """Sends all of `s`. Raises `Lost`; then the last byte of `s` was certainly not sent."""
        self.expect_silence()
        view = memoryview(s.encode("ascii") if isinstance(s, str) else s)
        try:
            for start in range(0, len(view), _CHUNK):
                self.ready_socket().sendall(view[start : start + _CHUNK])
        except OSError as error:
            raise self.broken(error) from None

    def getreply(self) -> tuple[int, bytes]:
        """One answer, continuation lines joined. Raises `Lost` unless it is complete and well-formed."""
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            size += len(line)
            match = _REPLY_LINE.fullmatch(line)
            if match is None or size > REPLY_LIMIT:
                raise self.lost("gave an answer that is not SMTP")
            lines.append(match[3].strip())
            if match[2] != b"-":
                code, text = int(match[1]), b"\n".join(lines)
                self._log(code=code, answer="" if code == 334 else text.decode("utf-8", "replace"))
                return code, text

    def ready_socket(self) -> socket.socket:
        """The socket, its time-out set to what is left."""
        if self.sock is None:
            raise Lost("closed the connection")
        left = self.until - time.monotonic()
        if left <= 0:
            raise self.lost("did not answer in time")
        self.sock.settimeout(left)
        return self.sock

    def expect_silence(self) -> None:
        """Raises `Lost` when bytes are left over: nothing is pipelined, so answers no longer match questions."""
        if self._unread:
            raise self.lost("answered before it was asked")

    def spoke_unasked(self) -> bool:
        """Has the server said something without being asked? Raises `Lost` when it has hung up."""
        sock = self.ready_socket()
        sock.settimeout(0)
        try:
            piece = sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return bool(self._unread)
        except OSError as error:
            raise self.broken(error) from None
        if not piece:
            raise self.lost("closed the connection")
        self._unread += piece
        return True

    def lost(self, what: str) -> Lost:
        self._log(problem=what)
        self.close()
        return Lost(what)

    def broken(self, error: OSError) -> Lost:
        if isinstance(error, TimeoutError):
            return self.lost("did not answer in time")
        return self.lost(f"broke the connection ({error.strerror or type(error).__name__})")

    def _log(self, code: int | None = None, answer: str = "", problem: str | None = None) -> None:
        log.debug(
            "mail dialogue",
            said=redact(self._step, self.secrets),
            code=code,
            answer=redact(answer, self.secrets)[:_LOGGED],
            problem=problem,
            ms=round((time.monotonic() - self._step_at) * 1000),
        )

    def _line(self) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > REPLY_LIMIT:
                raise self.lost("gave an answer that is not SMTP")
            try:
                piece = self.ready_socket().recv(4096)
            except OSError as error:
                raise self.broken(error) from None
            if not piece:
                raise self.lost("closed the connection")
            self._unread += piece
        line = bytes(self._unread[:end]).rstrip(b"\r")
        del self._unread[: end + 1]
        return line
