"""What the pretend mailbox says on the wire: aiosmtpd's SMTP, with faults."""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import re
import ssl
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

if TYPE_CHECKING:
    from bridge.demo.mailbox import MailFaultKind, PretendMailbox


class PretendSession(SMTP):
    """One connection."""

    # A log-in with an access token is longer than the 512 characters of RFC 5321 (RFC 4954 allows for 12,288).
    line_length_limit = 16_384

    def __init__(self, mailbox: PretendMailbox, tls_context: ssl.SSLContext | None) -> None:
        # Before the base class clears the one that all its instances share.
        self.command_size_limits = collections.defaultdict(lambda: self.line_length_limit)
        starttls = mailbox.security == "starttls"
        offered = {*(mailbox.mechanisms if mailbox.users else ()), *(["XOAUTH2"] if mailbox.tokens else [])}
        super().__init__(
            _Hooks(mailbox),
            hostname="localhost",
            ident="pretend mailbox",
            loop=asyncio.get_running_loop(),
            tls_context=tls_context if starttls else None,
            require_starttls=starttls,
            auth_require_tls=starttls,
            auth_exclude_mechanism={"PLAIN", "LOGIN", "XOAUTH2"} - offered,
            authenticator=self._known,
        )
        self.mailbox = mailbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.mailbox.sessions.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.mailbox.sessions.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> None:
        """Cuts the connection; the session's task is cancelled when that is noticed."""
        if isinstance(self.transport, asyncio.Transport):
            with contextlib.suppress(AttributeError):  # CPython 3.11.2 raises it where a TLS connection is gone already
                self.transport.abort()

    def say_good_bye(self) -> None:
        """Closes the connection once all is sent."""
        self._writer.close()

    async def vanish(self) -> None:
        self.hang_up()
        await self.fall_silent()

    async def fall_silent(self) -> None:
        await asyncio.Event().wait()

    async def _handle_client(self) -> None:
        self.mailbox.connections += 1
        match self.mailbox.take("drop_connect", "reject_connect_421", "reject_connect_554"):
            case "drop_connect":
                await self.vanish()
            case "reject_connect_421":
                await self.push("421 4.3.2 come back later")
                self._writer.close()
            case "reject_connect_554":
                await self.push("554 5.7.1 no mail from you")
                self._writer.close()
            case _:
                await super()._handle_client()

    async def smtp_DATA(self, arg: str) -> None:
        recipient = self.envelope.rcpt_tos[0] if self.envelope and self.envelope.rcpt_tos else ""
        kinds: tuple[MailFaultKind, ...] = ("drop_before_data", "refuse_data_554", "drop_before_dot", "early_552")
        match self.mailbox.take(*kinds, recipient=recipient):
            case "drop_before_data":
                await self.vanish()
            case "refuse_data_554":
                await self.push("554 5.5.1 no valid recipients")
            case "drop_before_dot":
                await self.push("354 go on")
                await self._reader.readline()
                await self.vanish()
            case "early_552":
                await self.push("354 go on")
                await self._reader.readline()
                await self.push("552 5.3.4 too big")
                while await self._reader.readline() != b".\r\n":
                    pass
                self.envelope = Envelope()
            case _:
                await super().smtp_DATA(arg)

    async def auth_XOAUTH2(self, _: SMTP, args: list[str]) -> AuthResult:
        """Google's and Microsoft's bearer log-in: a failure is told in a challenge, answered by an empty line."""
        given = base64.b64decode(args[1]).decode() if len(args) > 1 else ""
        match = re.fullmatch("user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", given)
        user, bearer = match.groups() if match else ("", "")
        self.mailbox.log_ins += 1
        if bearer and self.mailbox.tokens.get(user) == bearer and not self.mailbox.take("auth_fail"):
            return AuthResult(success=True, auth_data=user)
        await self.challenge_auth('{"status":"401","schemes":"bearer","scope":"https://mail.example.com/"}')
        return AuthResult(success=False, handled=False, message=None)

    def _known(self, _: SMTP, session: Session, envelope: Envelope, mechanism: str, given: LoginPassword) -> AuthResult:
        self.mailbox.log_ins += 1
        match self.mailbox.take("auth_fail", "auth_wait"):
            case "auth_wait":
                return AuthResult(success=False, handled=False, message="454 4.7.0 cannot check now")
            case "":
                user, password = given.login.decode(), given.password.decode()
                if self.mailbox.users.get(user) == password:
                    return AuthResult(success=True, auth_data=user)
        return AuthResult(success=False, handled=False)


class _Hooks:
    """What the mailbox answers to the steps of a transaction."""

    def __init__(self, mailbox: PretendMailbox) -> None:
        self.mailbox = mailbox

    async def handle_MAIL(
        self, server: PretendSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (self.mailbox.users or self.mailbox.tokens) and not session.authenticated:
            return "530 5.7.0 authentication required"
        match self.mailbox.take("reject_mail_451", "reject_mail_550", "hang"):
            case "reject_mail_451":
                return "451 4.3.0 come back later"
            case "reject_mail_550":
                return "550 5.7.60 not your address"
            case "hang":
                await server.fall_silent()
        envelope.mail_from = address
        return "250 2.1.0 fine"

    async def handle_RCPT(
        self, server: PretendSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.mailbox.asked.append(address)
        kinds: tuple[MailFaultKind, ...] = (
            "reject_rcpt_450",
            "reject_rcpt_550",
            "greylist",
            "shut_down_421",
            "hang_rcpt",
        )
        match self.mailbox.take(*kinds, recipient=address):
            case "reject_rcpt_450":
                return "450 4.2.1 mailbox busy"
            case "reject_rcpt_550":
                return "550 5.1.1 user unknown"
            case "greylist":
                return "451 4.7.1 greylisted, come back"
            case "shut_down_421":
                await server.push("421 4.3.2 shutting down")
                server.say_good_bye()
                await server.fall_silent()
            case "hang_rcpt":
                await server.fall_silent()
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server: PretendSession, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.mailbox.latency)
        kinds: tuple[MailFaultKind, ...] = (
            "reject_data_451",
            "reject_data_554",
            "drop_after_dot",
            "lose_after_dot",
            "garbage_after_dot",
            "hang_after_dot",
        )
        kind = self.mailbox.take(*kinds, recipient=envelope.rcpt_tos[0])
        if kind == "reject_data_451":
            return "451 4.3.0 disk full"
        if kind == "reject_data_554":
            return "554 5.6.0 looks like spam"
        if kind == "lose_after_dot":
            await server.vanish()
        self.mailbox.keep(envelope, answered=not kind)
        match kind:
            case "drop_after_dot":
                await server.vanish()
            case "hang_after_dot":
                await server.fall_silent()
            case "garbage_after_dot":
                return "<html>"
        return "250 2.0.0 kept"
