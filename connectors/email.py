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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from bridge.models import Note, Notice, ReportKey, Ticket, TicketRef
from connectors.base import (
    Connector,
    ConnectorContext,
    Finding,
    Held,
    Misconfigured,
    Outcome,
    OutcomeUnknown,
    Progress,
    Rejected,
    TemplatePart,
    Unavailable,
)
from connectors.email_message import SUBJECT_LIMIT, Message, address, domain_name, one_line
from connectors.email_round import EndOfRound, Round, sender_refused
from connectors.email_settings import EmailSettings
from connectors.email_smtp import Connection, Credentials, Refusal, Server, WrongSetting, connect
from connectors.email_token import TokenSource
from connectors.email_wire import Lost

__all__ = ["Email", "EmailSettings", "PreparedMail"]

#: Sends whose outcome was never learned, per recipient, after which a person decides.
MOST_DOUBTS = 2
#: Progress key of the `Date` header; it has no @, so no recipient can be called that.
DATE_KEY = "date"
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


@dataclass(frozen=True, slots=True)
class Standing:
    """What is remembered of one recipient: nothing, `waiting:<n>`, `sending:<n>`, `sent` or `refused:<sentence>`.

    `doubts` counts the sends whose outcome was never learned. `sending:<n>` found at the start of an attempt is the
    n-th of them; `waiting:<n>` says that n are in doubt and that the one after them certainly was not taken.
    """

    word: str = ""
    doubts: int = 0

    @classmethod
    def read(cls, value: str) -> Self:
        word, _, rest = value.partition(":")
        if word in ("sending", "waiting"):
            # An unreadable number counts as a doubt, never as none.
            return cls(word, int(rest) if rest.isdecimal() else 1)
        return cls(word)

    @property
    def rank(self) -> int:
        """Order of serving: who was never tried first, who may have the mail already last, so that one recipient
        over whom the server hangs does not take the time of the others in every attempt."""
        return {"": 0, "refused": 1, "waiting": 2}.get(self.word, 3)


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
        self._tokens: TokenSource | None = None
        self._tokens_lock = threading.Lock()

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
        round_ = Round(self._connect, self.context.before_request, self.context.before_send, self.settings.timeout)
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
                    raise self._come_back(refusal) from None
                if refusal.permanent:  # a temporary no is no finding: greylisting says it to everybody
                    reason = f'{self._server} refuses mail to {recipient}: "{refusal}"; mend or remove this recipient'
                    findings.append(Finding("recipients", reason))
        return findings

    def find(self, reference: str) -> list[TicketRef]:
        """Always raises: an empty answer would be a lie (`can_find` is False)."""
        raise Misconfigured(f"connector {self.name}: e-mail cannot be asked what it received")

    def prepare(self, ticket: Ticket) -> PreparedMail:
        """Raises `Misconfigured` for recipients in the organizations file that are not mail addresses."""
        try:
            recipients = _unique(address(recipient) for recipient in ticket.recipients or self.settings.recipients)
        except ValueError as error:
            organization = f" of organization {ticket.organization.id}" if ticket.organization else ""
            raise Misconfigured(f"recipients{organization} in the organizations file: {error}") from None
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
            date=_first_date(progress),
        )
        failed = self._send(message, progress)
        if failed:
            raise _verdict(failed, len(prepared.recipients))
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
            date=_first_date(progress),
        )
        failed = self._send(message, progress)
        refused = [outcome for outcome in failed.values() if isinstance(outcome, Rejected)]
        done = all(isinstance(outcome, (Rejected, Held)) for outcome in failed.values())
        if not done or len(refused) == len(message.recipients):
            raise _verdict(failed, len(message.recipients))

    def _notice_id(self, key: str) -> str:
        return f"{re.sub('[^A-Za-z0-9-]', '-', key)[:100]}@{self._domain}"

    def _send(self, message: Message, progress: Progress) -> dict[str, Outcome]:
        """Sends a mail to every recipient that was not served yet; what failed, by recipient."""
        known, payload, message_id = progress.get(), message.as_bytes(), message.message_id
        waiting: dict[str, Standing] = {}
        held: dict[str, Outcome] = {}
        for recipient in message.recipients:
            standing = Standing.read(known.get(recipient, ""))
            if standing.word == "sending" and self._gives_up(standing.doubts):
                held[recipient] = _held(message_id)
            elif standing.word != "sent":
                waiting[recipient] = standing
        in_order = sorted(waiting, key=lambda recipient: waiting[recipient].rank)

        def serve(round_: Round, recipient: str) -> Outcome | None:
            return self._serve(round_, recipient, payload, message_id, waiting[recipient], progress.save)

        return self._serve_all(serve, in_order) | held

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        """Sends an answer to the ticket's mail, with a constant `Message-ID` of its own.

        To `note.recipients`, else to the configured ones. Nothing is remembered per recipient: when one fails, the
        repeated note goes to all again.
        """
        reference = self._checked(reference)
        recipients = _unique(address(recipient) for recipient in note.recipients or self.settings.recipients)
        marker = f"[{reference}/{note.key}]"
        message_id = f"{reference}.{re.sub('[^A-Za-z0-9-]', '-', note.key)}@{self._domain}"
        payload = Message(
            message_id=message_id,
            sender=self.settings.sender,
            recipients=recipients,
            subject=note.title if one_line(note.title) else marker,
            text=note.text if marker in note.text else f"{note.text.rstrip()}\n\n{marker}\n",
            thread=ref.id if _is_message_id(ref.id) else f"{reference}@{self._domain}",
            auto_headers=self.settings.auto_headers,
            date=datetime.now(UTC),
        ).as_bytes()

        def serve(round_: Round, recipient: str) -> Outcome | None:
            return self._serve(round_, recipient, payload, message_id, Standing(), lambda key, value: None)

        failed = self._serve_all(serve, recipients)
        if failed:
            raise _verdict(failed, len(recipients))

    def close(self) -> None:
        with self._tokens_lock:
            if self._tokens:
                self._tokens.close()

    def _serve_all(
        self, serve: Callable[[Round, str], Outcome | None], recipients: Sequence[str]
    ) -> dict[str, Outcome]:
        """Serves `recipients` in order; what failed, by recipient."""
        failed: dict[str, Outcome] = {}
        round_ = Round(self._connect, self.context.before_request, self.context.before_send, self.settings.timeout)
        try:
            for place, recipient in enumerate(recipients):
                try:
                    outcome = serve(round_, recipient)
                except EndOfRound as end:
                    return failed | dict.fromkeys(recipients[place:], end.outcome)
                if outcome:
                    failed[recipient] = outcome
            return failed
        finally:
            round_.end()

    def _serve(
        self,
        round_: Round,
        recipient: str,
        payload: bytes,
        message_id: str,
        standing: Standing,
        save: Callable[[str, str], None],
    ) -> Outcome | None:
        """Sends the mail to one recipient; returns why it failed. What `save` raises is passed on."""
        try:
            round_.hand_over(self.settings.sender, recipient, payload)
        except Refusal as refusal:
            return self._refused(recipient, refusal, save)
        except Lost as lost:
            if not standing.doubts:
                save(recipient, "waiting:0")
            return Unavailable(f"{self._server} {lost} before it took the mail")
        attempt = standing.doubts + 1
        save(recipient, f"sending:{attempt}")
        try:
            round_.finish()
        except Refusal as refusal:
            if not refusal.permanent:
                save(recipient, f"waiting:{standing.doubts}")
            return self._refused(recipient, refusal, save)
        except Lost as lost:
            if self._gives_up(attempt):
                return _held(message_id)
            return OutcomeUnknown(f"the mail may have arrived, but {self._server} {lost}")
        save(recipient, "sent")
        return None

    def _refused(self, recipient: str, refusal: Refusal, save: Callable[[str, str], None]) -> Outcome:
        if not refusal.permanent:
            return self._come_back(refusal)
        save(recipient, f"refused:{refusal}")
        return Rejected(f'{self._server} refuses the mail: "{refusal}"')

    def _come_back(self, refusal: Refusal) -> Unavailable:
        return Unavailable(f'{self._server} asks to come back: "{refusal}"')

    def _gives_up(self, doubts: int) -> bool:
        return self.settings.on_unknown == "hold" or doubts >= MOST_DOUBTS

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

    def _checked(self, reference: str) -> str:
        if not _REFERENCE.fullmatch(reference):
            raise Rejected(f"connector {self.name}: {reference!a} cannot be part of a Message-ID")
        return reference


def _first_date(progress: Progress) -> datetime:
    """The `Date` of the first attempt: the mail must be the same whenever it is sent."""
    try:
        return datetime.fromisoformat(progress.get()[DATE_KEY]).astimezone(UTC)
    except (KeyError, ValueError):
        now = datetime.now(UTC).replace(microsecond=0)
        progress.save(DATE_KEY, now.isoformat())
        return now


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


def _held(message_id: str) -> Held:
    return Held(
        f"whether the mail arrived is not known and e-mail cannot be asked; look for Message-ID <{message_id}> "
        "in the mailbox, and retry if it is not there"
    )


def _verdict(failed: Mapping[str, Outcome], total: int) -> Outcome:
    """One outcome for a delivery. What can still be mended by trying again comes before what needs a person."""
    reasons: dict[str, list[str]] = {}
    for recipient, outcome in failed.items():
        reasons.setdefault(str(outcome), []).append(recipient)
    sentences = [f"{', '.join(recipients)}: {reason}" for reason, recipients in reasons.items()]
    if len(failed) < total:
        sentences.append(f"{total - len(failed)} of {total} recipients have it")
    sentence = "; ".join(sentences)
    kinds = {type(outcome) for outcome in failed.values()}
    if OutcomeUnknown in kinds:
        return OutcomeUnknown(sentence)
    if Unavailable in kinds:
        pauses = [outcome.retry_after or 0 for outcome in failed.values() if isinstance(outcome, Unavailable)]
        return Unavailable(sentence, max(pauses) or None)
    return Held(sentence) if Held in kinds else Rejected(sentence)
