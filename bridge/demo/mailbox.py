"""A pretend mail server that keeps what it takes and can be told to misbehave; any address exists here.

It speaks SMTP by aiosmtpd, on loopback, plain or with TLS, with or without log-in. Tests judge the e-mail connector by
what stands in `messages`.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Literal, Self

from aiosmtpd.smtp import Envelope

from bridge.demo.mailbox_smtp import PretendSession

MailFaultKind = Literal[
    "drop_connect",  # hang up on connecting, without a greeting
    "reject_connect_421",  # greet with "come back"
    "reject_connect_554",  # greet with "not you"
    "auth_fail",  # refuse the log-in
    "auth_wait",  # cannot check the log-in now
    "reject_mail_451",  # ask the sender to come back
    "reject_mail_550",  # refuse the sender
    "reject_rcpt_450",  # ask this recipient's mail to come back
    "reject_rcpt_550",  # refuse the recipient
    "shut_down_421",  # answer the recipient with "shutting down" and hang up
    "greylist",  # ask each recipient's mail to come back until `seconds` after its first; stays until removed
    "drop_before_data",  # hang up on DATA
    "refuse_data_554",  # refuse on DATA, before the mail
    "drop_before_dot",  # take a part of the mail, then hang up
    "early_552",  # refuse in the middle of the mail, then hang up
    "reject_data_451",  # after the mail: ask it to come back
    "reject_data_554",  # after the mail: refuse it
    "drop_after_dot",  # keep the mail, then hang up without an answer
    "lose_after_dot",  # lose the mail, and hang up without an answer
    "garbage_after_dot",  # keep the mail, then answer nonsense
    "hang",  # say nothing on MAIL
    "hang_rcpt",  # say nothing on RCPT
    "hang_after_dot",  # keep the mail, then say nothing
]


@dataclass
class MailFault:
    """Misbehaviour, `times` times (None: for ever), for mail to `recipient` (empty: to anybody)."""

    kind: MailFaultKind
    times: int | None = 1
    recipient: str = ""
    #: For `greylist`.
    seconds: float = 0.0
    #: Recipients that are greylisted, and since when (time.monotonic()).
    asked: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReceivedMail:
    """One mail to one recipient, as it was taken; line ends are CRLF in `raw`, LF in `message`.

    `at` is time.monotonic(). `answered`: was the sender told that it was taken?
    """

    at: float
    sender: str
    recipient: str
    message: EmailMessage
    raw: bytes
    answered: bool = True


class PretendMailbox:
    """The server. `start` returns once it listens on `host` and `port`; `stop` cuts all connections.

    `security` is as in the e-mail connector's settings, and needs `tls_context` (a server's) unless it is `none`.
    With `users` (name to password) or `tokens` (name to access token) it takes mail only after log-in.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        security: Literal["none", "starttls", "tls"] = "none",
        tls_context: ssl.SSLContext | None = None,
        users: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN"),
    ) -> None:
        self.host = host
        self.port = port
        self.security = security
        self.users = dict(users or {})
        self.tokens = dict(tokens or {})
        self.mechanisms = mechanisms
        #: Everything kept, in order.
        self.messages: list[ReceivedMail] = []
        self.faults: list[MailFault] = []
        #: Every address that RCPT named, in order.
        self.asked: list[str] = []
        #: Connections accepted, and log-ins tried.
        self.connections = 0
        self.log_ins = 0
        #: Seconds each mail takes at least.
        self.latency = 0.0
        self._tls_context = tls_context
        #: Open connections; touched only by the server's own thread.
        self.sessions: set[PretendSession] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None
        self._failure: OSError | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises `OSError` when it cannot listen."""
        if self._thread:
            return
        # The library logs what it is sent, and warns of its own deprecated ways.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name=type(self).__name__, daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure:
            self._thread.join()
            self._thread, failure, self._failure = None, self._failure, None
            raise failure

    def stop(self) -> None:
        """Safe to call twice. A later `start` listens on the same port."""
        thread, self._thread = self._thread, None
        if thread:
            self._end()
            thread.join()

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """A ready table for an e-mail connector that uses this server."""
        table: dict[str, Any] = {
            "type": "email",
            "host": "127.0.0.1" if self.host in ("", "0.0.0.0") else self.host,  # noqa: S104 - compared, not bound
            "port": self.port,
            "security": self.security,
            "sender": "bridge@example.com",
            "recipients": ["oncall@example.com"],
        }
        if self.users:
            table["username"], table["password"] = next(iter(self.users.items()))
        return table | overrides

    def fault(self, kind: MailFaultKind, times: int | None = 1, recipient: str = "", seconds: float = 0.0) -> MailFault:
        """Adds a `MailFault` and returns it."""
        fault = MailFault(kind, times, recipient, seconds)
        with self._lock:
            self.faults.append(fault)
        return fault

    def take(self, *kinds: MailFaultKind, recipient: str = "") -> str:
        """The kind of the fault that happens now, of `kinds`, used up once; empty: none."""
        with self._lock:
            for fault in self.faults:
                meant = fault.recipient.lower() in ("", recipient.lower())
                if fault.kind not in kinds or not meant or (fault.times is not None and fault.times <= 0):
                    continue
                if fault.kind == "greylist":
                    now = time.monotonic()
                    if recipient in fault.asked and now >= fault.asked[recipient] + fault.seconds:
                        continue
                    fault.asked.setdefault(recipient, now)
                elif fault.times is not None:
                    fault.times -= 1
                return fault.kind
        return ""

    def keep(self, envelope: Envelope, answered: bool = True) -> None:
        """Takes the mail for each of its recipients."""
        raw = bytes(envelope.original_content or b"")
        message = email.message_from_bytes(raw.replace(b"\r\n", b"\n"), policy=email.policy.default)
        for recipient in envelope.rcpt_tos:
            mail = ReceivedMail(time.monotonic(), envelope.mail_from or "", recipient, message, raw, answered)
            self.messages.append(mail)

    async def _serve(self, ready: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        tls = self._tls_context if self.security == "tls" else None
        try:
            server = await loop.create_server(
                lambda: PretendSession(self, self._tls_context), self.host, self.port, ssl=tls
            )
        except OSError as error:
            self._failure = error
            ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._end = lambda: loop.call_soon_threadsafe(stop.set)
        ready.set()
        await stop.wait()
        server.close()
        for session in list(self.sessions):
            session.hang_up()
        # Leaving the loop cancels what still sleeps; the connections must be gone by then.
        await asyncio.sleep(0)
