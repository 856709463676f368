"""What an HTTP answer, or its absence, means for whoever asked: one piece, for all connectors.

The status table. `read`, `create` and `update` are what the request does at the other side::

    answer                          create           update           read
    2xx                             the Answer       the Answer       the Answer
    429                             Unavailable, with Retry-After
    408, 5xx, anything unheard of   OutcomeUnknown   OutcomeUnknown   Unavailable; all with Retry-After
    409                             OutcomeUnknown   Unavailable      Unavailable
    3xx, 401, 403, 404, 405, 407,   Misconfigured
      415
    other 4xx                       Rejected         Rejected         Misconfigured

    no answer
    certificate not trusted         Misconfigured
    certainly before the request    Unavailable: name not found, connection refused or not made in time, TLS failed,
      was sent                        the proxy refused (407: Misconfigured)
    later: reset, closed, too slow, OutcomeUnknown   OutcomeUnknown   Unavailable
      too long, undecodable
    cannot be sent as it is         Misconfigured: plain http, a broken address, a credential with a line break
"""

from __future__ import annotations

import re
import ssl
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import structlog

from connectors.addresses import split_url
from connectors.base import Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.deadline import Attempt
from connectors.redaction import redact

#: What a request does at the other side; decides whether a lost answer is harmless (`read`) or in doubt (`create`).
Intent = Literal["read", "create", "update"]

#: Longest `Retry-After` that is honoured, in seconds.
LONGEST_RETRY_AFTER = 900.0

#: Most characters of the other system's own sentence that are passed on.
SENTENCE_LIMIT = 300

_ADVICE = {
    401: "check the credentials",
    403: "check what these credentials may do",
    404: "check the address and what these credentials may see",
    405: "check the address",
    407: "check the proxy's user and password",
    415: "check the address",
}

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, fully read. `json` is None when the body is not JSON."""

    status: int
    headers: Mapping[str, str]
    text: str
    json: Any
    #: Bytes of the body, unpacked.
    size: int = 0

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class TooLong(Exception):
    """An answer longer than it may be; `str()` says how long that is."""


class Verdicts:
    """Turns what came of a connector's requests into outcomes, with sentences free of secrets."""

    def __init__(
        self,
        name: str,
        secrets: Sequence[str],
        explain: Callable[[Answer], str] | None,
        classify: Callable[[Answer, Intent], Exception | None] | None,
    ) -> None:
        self.name = name
        self._secrets = [*secrets, *map(_clean, secrets)]
        self._explain = explain or _message_of
        self._classify = classify or (lambda answer, intent: None)

    def no_answer(
        self, what: str, intent: Intent, sending: Attempt, error: Exception | None, secrets: Sequence[str] = ()
    ) -> Outcome:
        """The outcome of a request without a usable answer; `secrets` are further ones, such as a proxy's."""
        chain = _chain(error)
        certificate = next((each for each in chain if isinstance(each, ssl.SSLCertVerificationError)), None)
        if certificate:
            reason = f"the certificate is not trusted ({certificate.verify_message or certificate.reason})"
            hint = "name the bundle of certificate authorities that signed it in ca_file, or check the address"
            return Misconfigured(self._sentence(what, f"{reason}; {hint}", secrets))
        if not sending.sent:
            if sending.expired or sending.remaining() <= 0:
                return Unavailable(self._sentence(what, f"no connection within {sending.timeout:g} s", secrets))
            if any("Tunnel connection failed: 407" in str(each) for each in chain):
                return Misconfigured(self._sentence(what, f"the proxy refused; {_ADVICE[407]}", secrets))
            if isinstance(error, ValueError):  # what requests and http.client raise for addresses and headers
                problem = "cannot be sent as it is; check address, credentials and proxy for strange characters"
                return Misconfigured(self._sentence(what, problem, secrets))
            return Unavailable(self._sentence(what, f"no connection: {_innermost(chain)}", secrets))
        if sending.expired or sending.remaining() <= 0:
            problem = f"no complete answer within {sending.timeout:g} s"
        elif isinstance(error, TooLong):
            problem = str(error)
        else:
            problem = f"the answer was lost: {_innermost(chain)}"
        return _in_doubt(intent, self._sentence(what, problem, secrets), None)

    def refused(self, what: str, intent: Intent, answer: Answer) -> Exception:
        """The outcome of an answer that is no success."""
        special = self._guarded(lambda: self._classify(answer, intent))
        if special:
            return special
        status = answer.status
        phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
        said = self._guarded(lambda: self.told(self._explain(answer))) or ""
        problem = f"answered {status}{phrase}" + (f": {said}" if said else "")
        retry_after = retry_after_seconds(answer.headers.get("Retry-After"))
        if 300 <= status < 400:
            target = split_url(answer.headers.get("Location", ""))
            where = self.told((target and target.hostname) or "an address on the same host")
            problem += f"; it points to {where}, but redirects are never followed: check the address"
            return Misconfigured(self._sentence(what, problem))
        if status in _ADVICE:
            return Misconfigured(self._sentence(what, f"{problem}; {_ADVICE[status]}"))
        if status == 429:
            return Unavailable(self._sentence(what, problem), retry_after)
        if status == 409:
            sentence = self._sentence(what, problem)
            return OutcomeUnknown(sentence) if intent == "create" else Unavailable(sentence)
        if 400 <= status < 500 and status != 408:
            sentence = self._sentence(what, problem)
            return Misconfigured(sentence) if intent == "read" else Rejected(sentence)
        return _in_doubt(intent, self._sentence(what, problem), retry_after)

    def _guarded(self, hook: Callable[[], T]) -> T | None:
        """A hook's result; a hook that stumbles over a strange answer must not hide what happened to the request."""
        try:
            return hook()
        except Exception as error:
            log.warning("cannot read an error answer", connector=self.name, problem=type(error).__name__)
            return None

    def _sentence(self, what: str, problem: str, secrets: Sequence[str] = ()) -> str:
        return redact(f"{self.name}: {_clean(what)}: {_clean(problem)}", [*self._secrets, *secrets])

    def told(self, text: str) -> str:
        """What another system said, fit for a sentence: on one line, without secrets and not too long."""
        # Redacted before it is cut to size, or half a secret could stay; cut roughly before, as it may be megabytes.
        clean = redact(_clean(text[: 500 * SENTENCE_LIMIT])[: 20 * SENTENCE_LIMIT], self._secrets)
        return clean if len(clean) <= SENTENCE_LIMIT else f"{clean[: SENTENCE_LIMIT - 1]}…"


def _in_doubt(intent: Intent, sentence: str, retry_after: float | None) -> Outcome:
    return Unavailable(sentence, retry_after) if intent == "read" else OutcomeUnknown(sentence, retry_after)


def _message_of(answer: Answer) -> str:
    said = answer.json.get("message") if isinstance(answer.json, dict) else None
    return said if isinstance(said, str) else ""


def _chain(error: BaseException | None) -> list[BaseException]:
    """`error` and all that it wraps, outermost first; libraries wrap in arguments, `reason` and as cause."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]
    return found


def _innermost(chain: Sequence[BaseException]) -> str:
    """What went wrong in a few words: the operating system's, where it said any."""
    for error in reversed(chain):
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
    for error in reversed(chain):
        if isinstance(error, OSError) and str(error):
            return str(error)
    return type(chain[-1]).__name__ if chain else "connection closed"


def _clean(text: str) -> str:
    """`text` on one line, without control, direction and other invisible characters."""
    return " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in text).split())


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float | None:
    """`Retry-After` in seconds, from seconds or an HTTP date; capped at 15 min; None when absent or unreadable.

    What lies in the past is 0. `now` is the time to which a date is compared (default: this machine's).
    """
    value = (value or "").strip()
    if re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", value):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
