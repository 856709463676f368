"""An SMTP session as this project needs it: certificate-checked TLS, log-in, one recipient per transaction."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from connectors import deadline
from connectors.base import Misconfigured, Unavailable
from connectors.email_message import one_line
from connectors.email_wire import Lost, Wire
from connectors.redaction import redact

Security = Literal["starttls", "tls", "none"]

_SENTENCE_LIMIT = 300
_FQDN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class WrongSetting(Misconfigured):
    """`Misconfigured`, with the key of the setting to mend."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(reason)
        self.setting = setting


class Refusal(Exception):
    """The server's answer was a no; `str()` quotes it. What was refused was certainly not taken."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def ends_connection(self) -> bool:
        return self.code == 421


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to log in with; `secret` is the password or, with `oauth`, the access token."""

    username: str
    secret: str = field(repr=False)
    oauth: bool = False

    def mechanisms(self) -> tuple[str, ...]:
        return ("XOAUTH2",) if self.oauth else ("PLAIN", "LOGIN")

    def steps(self, mechanism: str) -> list[bytes]:
        """The client's part of `mechanism`: the first goes with the command, each other one answers a challenge."""
        if mechanism == "XOAUTH2":
            # The empty answer is for the challenge that carries an error (Microsoft and Google document it).
            return [f"user={self.username}\x01auth=Bearer {self.secret}\x01\x01".encode(), b""]
        if mechanism == "PLAIN":
            return [f"\0{self.username}\0{self.secret}".encode()]
        return [b"", self.username.encode(), self.secret.encode()]


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect and how."""

    host: str
    port: int
    security: Security
    ca_file: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def connect(server: Server, credentials: Credentials | None, until: float) -> Connection:
    """A connection, encrypted and logged in as configured, by the time `until` of `time.monotonic()`.

    Raises `Unavailable` when the server cannot be reached or asks to come back, `WrongSetting` when it answers and the
    settings do not fit it.
    """
    connection = Connection(server, until, credentials.secret if credentials else "")
    try:
        connection.open()
        if credentials is not None:
            connection.log_in(credentials)
    except Refusal as refusal:
        connection.close()
        raise Unavailable(f'{server} asks to come back: "{refusal}"') from None
    except Lost as lost:
        connection.close()
        hint = ' (port 465 usually wants security = "tls")' if not connection.greeted and server.port == 465 else ""
        raise Unavailable(f"{server} {lost}{hint}") from None
    except BaseException:
        connection.close()
        raise
    return connection


class Connection(Wire):
    """One session. Methods raise `Refusal` for a no of the server, `Lost` when the session is over."""

    def __init__(self, server: Server, until: float, secret: str = "") -> None:
        super().__init__(until)
        self.server = server
        self.greeted = False
        self.secrets = [secret] if secret else []
        self._in_mail = False

    def open(self) -> None:
        """Connects, starts TLS, says hello."""
        context = _trust(self.server.ca_file) if self.server.security != "none" else None
        self.sock = self._reach()
        if self.server.security == "tls" and context is not None:
            self._encrypt(context)
        code, text = self.getreply()
        self.greeted = True
        if code != 220:
            refusal = self._refusal(code, text)
            if refusal.permanent:
                raise WrongSetting("host", f'{self.server} takes no mail from here: "{refusal}"')
            raise refusal
        self.local_hostname = _own_name(self.ready_socket())
        self._hello()
        if self.server.security == "starttls" and context is not None:
            self._start_tls(context)

    def log_in(self, credentials: Credentials) -> None:
        """Logs in with one mechanism, once: several tries with one wrong password lock accounts."""
        offered = self.esmtp_features.get("auth", "").upper().split()
        wanted = credentials.mechanisms()
        mechanism = next((name for name in wanted if name in offered), None)
        if mechanism is None:
            offer = one_line(" ".join(offered))[:_SENTENCE_LIMIT] or "none"
            raise WrongSetting(
                "auth",
                f"{self.server} offers no log-in by {' or '.join(wanted)} (it offers: {offer}); check port and auth",
            )
        first, *rest = (base64.b64encode(step).decode() for step in credentials.steps(mechanism))
        code, text = self.docmd("AUTH", f"{mechanism} {first}".rstrip())
        for step in rest:
            if code != 334:
                break
            code, text = self.docmd(step)
        if code == 235:
            return
        refusal = self._refusal(code, text)
        if code == 334 or refusal.permanent:
            setting = "client_secret" if credentials.oauth else "password"
            raise WrongSetting(
                setting,
                f'{self.server} refused to log {credentials.username} in: "{refusal}"; check username and {setting}',
            )
        raise refusal

    def offer_sender(self, sender: str, size: int = 0) -> None:
        """`MAIL FROM`. Raises `WrongSetting` when the server wants a log-in first."""
        options = [f"SIZE={size}"] if size and self.has_extn("size") else []
        self._expect_yes(self.mail(sender, options))

    def offer_recipient(self, recipient: str) -> None:
        """`RCPT TO`. Raises `WrongSetting` when the server wants a log-in first."""
        self._expect_yes(self.rcpt(recipient))

    def start_over(self) -> None:
        """`RSET`: drops a transaction before its data; gives up the connection where that does not work."""
        try:
            self._expect_yes(self.docmd("RSET"))
        except (Refusal, WrongSetting, Lost):
            self.close()

    def hand_over(self, payload: bytes) -> None:
        """`DATA` and all of the mail but its final dot. Whatever this raises, the mail was certainly not taken."""
        code, text = self.docmd("DATA")
        if code != 354:
            raise self._refusal(code, text)
        self._in_mail = True
        self.said(f"a mail of {len(payload)} bytes")
        self.send(re.sub(rb"(?m)^\.", b"..", payload))
        if self.spoke_unasked():
            refusal = self._refusal(*self.getreply())
            self.close()  # in the middle of a mail there is no way back
            raise refusal if refusal.code >= 400 else Lost("answered before it was asked")

    def finish(self) -> None:
        """The final dot. Returns when the server has taken the mail, raises `Refusal` when it has not.

        `Lost` means that nobody knows: the server may have taken it, and only its answer went astray (RFC 1047).
        """
        self.send(b".\r\n")
        code, text = self.getreply()
        self._in_mail = False
        if code >= 400:
            raise self._refusal(code, text)
        if code >= 300:
            raise self.lost("gave an answer that is not SMTP")

    def leave(self, until: float) -> None:
        """Ends the session, politely if that is possible by `until`; a mail not finished is not taken."""
        self.until = until
        if self.sock is not None and not self._in_mail:
            with suppress(Lost):
                self.docmd("QUIT")
        self.close()

    def _reach(self) -> socket.socket:
        host, port = self.server.host, self.server.port
        try:
            addresses = deadline.lookups.addresses(host, port, max(self.until - time.monotonic(), 0))
        except TimeoutError:
            raise Unavailable(f"cannot look up host {host}: no answer in time") from None
        except OSError as error:
            raise Unavailable(f"cannot find host {host} ({error.strerror}); is it spelled right?") from None
        failure = OSError("no time was left")
        for place, (family, kind, protocol, _, target) in enumerate(addresses):
            # A silent address must leave time for the ones after it.
            share = (self.until - time.monotonic()) / (len(addresses) - place)
            if share <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(share)
                sock.connect(target)
                # The final dot travels alone and must not wait for the acknowledgement of what went before.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                deadline.bound_delivery(sock, share)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        reason = "no answer in time" if isinstance(failure, TimeoutError) else failure.strerror or str(failure)
        raise Unavailable(f"cannot connect to {self.server}: {reason}")

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if not self.has_extn("starttls"):
            raise WrongSetting(
                "security",
                f"{self.server} does not offer STARTTLS, and nothing is sent unencrypted; "
                'if this port expects TLS from the first byte, set security = "tls"',
            )
        code, text = self.docmd("STARTTLS")
        if code != 220:
            raise self._refusal(code, text)
        self.expect_silence()  # what slipped in before encryption must not count as said after it
        self._encrypt(context)
        # RFC 3207: what was learned before encryption counts for nothing.
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False
        self._hello()

    def _encrypt(self, context: ssl.SSLContext) -> None:
        try:
            self.sock = context.wrap_socket(self.ready_socket(), server_hostname=self.server.host)
        except ssl.SSLCertVerificationError as error:
            raise WrongSetting(
                "ca_file",
                f"the certificate of {self.server} was not accepted: {error.verify_message.rstrip('.')}. "
                "Set host to a name in the certificate, or ca_file to the authority that signed it",
            ) from None
        except (TimeoutError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise self.broken(error) from None
        except ssl.SSLError as error:
            raise WrongSetting(
                "security",
                f"no TLS connection with {self.server} ({error.reason or type(error).__name__}); "
                'a server that starts unencrypted wants security = "starttls"',
            ) from None
        except OSError as error:
            raise self.broken(error) from None

    def _hello(self) -> None:
        code, text = self.ehlo()
        if code >= 500:
            code, text = self.helo()
        if code != 250:
            raise self._refusal(code, text)

    def _expect_yes(self, answer: tuple[int, bytes]) -> None:
        code, text = answer
        if code == 530:
            refusal = self._refusal(code, text)
            raise WrongSetting("username", f'{self.server} wants a log-in: "{refusal}"; set username and password')
        if not 200 <= code < 300:
            raise self._refusal(code, text)

    def _refusal(self, code: int, text: bytes) -> Refusal:
        # Redacted before it is shortened: half a secret would not be recognized.
        sentence = redact(one_line(text.decode("utf-8", "replace")), self.secrets)
        if len(sentence) > _SENTENCE_LIMIT:
            sentence = sentence[:_SENTENCE_LIMIT] + "…"
        return Refusal(code, f"{code} {sentence}".rstrip())


def _trust(ca_file: str) -> ssl.SSLContext:
    """Certificate and host name are checked; against `ca_file`, else the environment's bundle, else the known ones."""
    bundle = ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    try:
        if not bundle:
            context = ssl.create_default_context()
            if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
                context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)  # slim images may have no store of their own
            return context
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        reason = "it holds no certificates in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
        raise WrongSetting("ca_file", f"cannot use the certificate authorities in {bundle}: {reason}") from None


def _own_name(sock: socket.socket) -> str:
    """Name for `EHLO`: this host's full name, else its address as a literal. Asks no name server."""
    name = socket.gethostname()
    if _FQDN.fullmatch(name):
        return name
    own = str(sock.getsockname()[0])
    return f"[IPv6:{own}]" if ":" in own else f"[{own}]"
