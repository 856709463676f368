"""Mail to people or to a ticket system's mailbox.

E-mail cannot be asked what it received, so delivery is at-least-once: every mail about a report carries one constant
`Message-ID`, what each recipient got is remembered, and only a mail whose final answer was lost is sent a second time
(`on_unknown = "resend"`) or never (`"hold"`).

One `create` takes at most `timeout` seconds, connecting included. Nothing is committed in the second half of them, so
that every final answer is waited for at least `timeout / 2`; recipients for whom no time was left follow with the next
attempt. RFC 5321 lets a server take ten minutes for that answer: behind a slow one, raise `timeout`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.models import Note, Notice, Organization, ReportKey, Ticket, TicketRef
from connectors.base import (
    Connector,
    ConnectorContext,
    Finding,
    Held,
    Misconfigured,
    Progress,
    Question,
    Rejected,
    TemplatePart,
    Unavailable,
)
from connectors.email_mailing import Mailing, Unkept, first_date, verdict
from connectors.email_message import SUBJECT_LIMIT, Message, address, domain_name, one_line
from connectors.email_round import EndOfRound, Round, come_back, sender_refused
from connectors.email_settings import EmailSettings
from connectors.email_smtp import Connection, Credentials, Refusal, Server, WrongSetting, connect
from connectors.email_token import TokenSource
from connectors.email_wire import Lost

__all__ = ["Email", "EmailSettings", "PreparedMail"]

TOKEN_URL = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"  # noqa: S105 - an address
_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,100}")


@dataclass(frozen=True, slots=True)
class PreparedMail:
    """A ticket's mail, complete but for its date."""

    reference: str
    report_id: ReportKey
    recipients: tuple[str, ...]
    subject: str
    text: str
    html: str


class Email(Connector):
    """Mail, one recipient per SMTP transaction; `To` names them all, as one `Message-ID` means one message.

    Raises `Held` by itself, as nobody can be asked what arrived. A proxy is used only towards the token endpoint.
    """

    type = "email"
    settings_class = EmailSettings
    can_find = False
    notes_are_replies = True

    def __init__(self, name: str, settings: EmailSettings, context: ConnectorContext) -> None:
        super().__init__(name, settings, context)
        self.settings = settings
        self._server = Server(settings.host, settings.port, settings.security, settings.ca_file)
        self._domain = settings.message_id_domain or settings.sender.rpartition("@")[2]
        self._mailing = Mailing(self._server, settings.sender, settings.on_unknown, self._round)
        self._tokens: TokenSource | None = None
        self._tokens_lock = threading.Lock()

    @classmethod
    def questions(cls) -> Sequence[Question]:
        return (
            Question("host", "Mail server", "A name such as smtp.example.com."),
            Question("port", "Its port"),
            Question("security", "Encryption", "starttls, tls, or none to a relay on this machine."),
            Question("username", "User name", "Of a mailbox that may send.", otherwise="no log-in"),
            Question("password", "Password", only_with="username"),
            Question("sender", "Sender's address"),
            Question("recipients", "Recipients", "Addresses, with commas between them."),
        )

    def parts(self) -> Sequence[TemplatePart]:
        return (
            TemplatePart("title", "title.j2", limit=SUBJECT_LIMIT, single_line=True),
            TemplatePart("text", "text.j2"),
            TemplatePart("html", "html.j2"),
        )

    def system(self) -> str:
        return f"smtp/{self.settings.host}/{self.settings.sender}".lower()

    def check(self) -> list[Finding]:
        """Logs in and offers sender and recipients to the server, without sending a mail."""
        round_ = self._round()
        try:
            return self._check(round_.connection())
        except WrongSetting as error:
            return [Finding(error.setting, str(error))]
        except Misconfigured as error:  # of the token's HTTP session
            return [Finding("auth", str(error))]
        except EndOfRound as end:
            raise end.outcome from None
        except Lost as lost:
            raise Unavailable(f"{self._server} {lost}") from None
        finally:
            round_.end()

    def _check(self, connection: Connection) -> list[Finding]:
        sender = self.settings.sender
        try:
            connection.offer_sender(sender)
        except Refusal as refusal:
            if not refusal.permanent:
                raise sender_refused(connection, sender, refusal) from None
            return [Finding("sender", f'{self._server} refuses mail from {sender}: "{refusal}"; set another sender')]
        findings = []
        for recipient in _unique(self.settings.recipients):
            try:
                connection.offer_recipient(recipient)
            except Refusal as refusal:
                if refusal.ends_connection:
                    raise come_back(self._server, refusal) from None
                if refusal.permanent:  # a temporary no is no finding: greylisting says it to everybody
                    reason = f'{self._server} refuses mail to {recipient}: "{refusal}"; mend or remove this recipient'
                    findings.append(Finding("recipients", reason))
        return findings

    def find(self, reference: str) -> list[TicketRef]:
        """Always raises: an empty answer would be a lie (`can_find` is False)."""
        raise Misconfigured(f"connector {self.name}: e-mail cannot be asked what it received")

    def prepare(self, ticket: Ticket) -> PreparedMail:
        """Raises `Misconfigured` for recipients in the organizations file that are not mail addresses."""
        recipients = self._recipients(ticket.recipients, ticket.organization)
        reference = self._checked(ticket.reference)
        text = ticket.text
        if reference not in text:
            text = f"{text.rstrip()}\n\nReference: {reference}\n"
        subject = ticket.title if one_line(ticket.title) else reference
        return PreparedMail(reference, ticket.report_id, recipients, subject, text, ticket.html)

    def create(self, prepared: PreparedMail, progress: Progress) -> TicketRef:
        """Serves every recipient that was not served yet, then says what stands in the way of the others.

        `OutcomeUnknown`: the answer for one was lost, call again. `Unavailable`: some were asked to wait, call again.
        `Held`: one is in doubt and is not to be sent again. `Rejected`: one was refused; the next call tries it again.
        """
        message = Message(
            message_id=f"{prepared.reference}@{self._domain}",
            sender=self.settings.sender,
            recipients=prepared.recipients,
            subject=prepared.subject,
            text=prepared.text,
            html=prepared.html,
            report_id=prepared.report_id,
            auto_headers=self.settings.auto_headers,
            date=first_date(progress),
        )
        failed = self._mailing.send(message, progress)
        if failed:
            raise verdict(failed, len(prepared.recipients))
        return TicketRef(id=message.message_id)

    def notify(self, notice: Notice, progress: Progress) -> None:
        """Sends a notice to the configured recipients, with a constant `Message-ID`.

        It has arrived when one recipient has it, or may have it, and no other was only asked to wait.
        """
        message = Message(
            message_id=self._notice_id(notice.key),
            sender=self.settings.sender,
            recipients=_unique(self.settings.recipients),
            subject=notice.subject,
            text=notice.text,
            thread=self._notice_id(notice.answers) if notice.answers else "",
            auto_headers=self.settings.auto_headers,
            date=first_date(progress),
        )
        failed = self._mailing.send(message, progress)
        refused = [outcome for outcome in failed.values() if isinstance(outcome, Rejected)]
        done = all(isinstance(outcome, (Rejected, Held)) for outcome in failed.values())
        if not done or len(refused) == len(message.recipients):
            raise verdict(failed, len(message.recipients))

    def _notice_id(self, key: str) -> str:
        return f"{re.sub('[^A-Za-z0-9-]', '-', key)[:100]}@{self._domain}"

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        """Sends a reply to the ticket's mail, with a constant `Message-ID` of its own; raises as `create` does.

        To `note.recipients`, else to the configured ones; with `progress`, to those who have not got it yet. Raises
        `Misconfigured` for recipients in the organizations file that are not mail addresses.
        """
        reference = self._checked(reference)
        marker = f"[{reference}/{note.key}]"
        progress = progress or Unkept()
        message = Message(
            message_id=f"{reference}.{re.sub('[^A-Za-z0-9-]', '-', note.key)}@{self._domain}",
            sender=self.settings.sender,
            recipients=self._recipients(note.recipients),
            subject=note.title if one_line(note.title) else marker,
            text=f"{note.text.rstrip()}\n\n{marker}\n",
            thread=ref.id if _is_message_id(ref.id) else f"{reference}@{self._domain}",
            auto_headers=self.settings.auto_headers,
            date=first_date(progress),
        )
        failed = self._mailing.send(message, progress)
        if failed:
            raise verdict(failed, len(message.recipients))

    def close(self) -> None:
        with self._tokens_lock:
            if self._tokens:
                self._tokens.close()

    def _round(self) -> Round:
        return Round(
            self._connect,
            self.context.before_request,
            self.context.before_send,
            self.settings.timeout,
            self.context.answered,
        )

    def _connect(self, until: float) -> Connection:
        credentials = self._credentials()
        try:
            return connect(self._server, credentials, until)
        except WrongSetting:
            if self._tokens and credentials:
                self._tokens.forget(credentials.secret)
            raise

    def _credentials(self) -> Credentials | None:
        settings = self.settings
        if not settings.username:
            return None
        if settings.auth == "password":
            return Credentials(settings.username, settings.password.get_secret_value())
        with self._tokens_lock:
            if self._tokens is None:
                self._tokens = TokenSource(
                    url=settings.token_url or TOKEN_URL.format(tenant=settings.tenant),
                    client_id=settings.client_id,
                    client_secret=settings.client_secret,
                    name=self.name,
                    timeout=settings.timeout / 4,  # the first half of `timeout` must suffice for log-in, too
                    ca_file=settings.ca_file,
                    proxy=settings.proxy,
                    insecure_http=settings.insecure_http,
                    before_request=self.context.before_request,
                )
            tokens = self._tokens
        return Credentials(settings.username, tokens.get(), oauth=True)

    def _recipients(self, own: Sequence[str], organization: Organization | None = None) -> tuple[str, ...]:
        """Those of the organizations file, else the configured ones."""
        try:
            return _unique(address(recipient) for recipient in own or self.settings.recipients)
        except ValueError as error:
            whose = f" of organization {organization.id}" if organization else ""
            raise Misconfigured(f"recipients{whose} in the organizations file: {error}") from None

    def _checked(self, reference: str) -> str:
        if not _REFERENCE.fullmatch(reference):
            raise Rejected(f"connector {self.name}: {reference!a} cannot be part of a Message-ID")
        return reference


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for value in addresses:
        found.setdefault(value.lower(), value)
    return tuple(found.values())


def _is_message_id(value: str) -> bool:
    local, _, domain = value.rpartition("@")
    try:
        return _REFERENCE.fullmatch(local) is not None and bool(domain_name(domain))
    except ValueError:
        return False
