"""One mail to several recipients: who has it already, who comes next, and what stands in the way of the others.

What each recipient got is kept in the `Progress` of its ticket, note or notice, under the recipient's address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from connectors.base import Held, Outcome, OutcomeUnknown, Progress, Rejected, Unavailable
from connectors.email_message import Message
from connectors.email_round import EndOfRound, Round, come_back
from connectors.email_smtp import Refusal, Server
from connectors.email_wire import Lost

#: Sends whose outcome was never learned, per recipient, after which a person decides.
MOST_DOUBTS = 2
#: Progress key of the `Date` header; it has no @, so no recipient can be called that.
DATE_KEY = "date"


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


class Unkept:
    """Progress that nobody keeps."""

    def get(self) -> Mapping[str, str]:
        return {}

    def save(self, key: str, value: str) -> None:
        pass


class Mailing:
    """Sends mails, each to those of its recipients that were not served yet. Shared by threads.

    `on_unknown`: is a mail whose final answer was lost sent a second time?
    """

    def __init__(
        self, server: Server, sender: str, on_unknown: Literal["resend", "hold"], new_round: Callable[[], Round]
    ) -> None:
        self._server = server
        self._sender = sender
        self._on_unknown = on_unknown
        self._new_round = new_round

    def send(self, message: Message, progress: Progress) -> dict[str, Outcome]:
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
        failed: dict[str, Outcome] = {}
        round_ = self._new_round()
        try:
            for place, recipient in enumerate(in_order):
                try:
                    outcome = self._serve(round_, recipient, payload, message_id, waiting[recipient], progress.save)
                except EndOfRound as end:
                    return failed | dict.fromkeys(in_order[place:], end.outcome) | held
                if outcome:
                    failed[recipient] = outcome
            return failed | held
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
            round_.hand_over(self._sender, recipient, payload)
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
            return come_back(self._server, refusal)
        save(recipient, f"refused:{refusal}")
        return Rejected(f'{self._server} refuses the mail: "{refusal}"')

    def _gives_up(self, doubts: int) -> bool:
        return self._on_unknown == "hold" or doubts >= MOST_DOUBTS


def first_date(progress: Progress) -> datetime:
    """The `Date` of the first attempt: the mail must be the same whenever it is sent."""
    try:
        return datetime.fromisoformat(progress.get()[DATE_KEY]).astimezone(UTC)
    except (KeyError, ValueError):
        now = datetime.now(UTC).replace(microsecond=0)
        progress.save(DATE_KEY, now.isoformat())
        return now


def _held(message_id: str) -> Held:
    return Held(
        f"whether the mail arrived is not known and e-mail cannot be asked; look for Message-ID <{message_id}> "
        "in the mailbox, and retry if it is not there"
    )


def verdict(failed: Mapping[str, Outcome], total: int) -> Outcome:
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
