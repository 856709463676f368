"""What a mail looks like: addresses, headers, body. Text that comes from outside cannot leave its header or its part.

The stdlib's modern header API decodes encoded words inside a value it is given (`=?utf-8?q?…?=` in a report's subject
would change meaning, or bring line breaks along); so headers are written here, and only the body is the stdlib's.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from bridge.models import ReportKey

#: Characters of a subject; templates are cut to it earlier. A reply's has "Re: " on top.
SUBJECT_LIMIT = 200
#: RFC 2045: quoted-printable lines have at most 76 characters.
_BODY_POLICY = SMTP.clone(max_line_length=76)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_DOMAIN = re.compile(r"(?!.{254})[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")
_LONGEST_PLAIN_WORD = 60


def domain_name(value: str) -> str:
    """`value` when it is a domain name in ASCII; raises `ValueError` with a sentence otherwise."""
    if not value.isascii() and value.isprintable():
        raise ValueError(f'"{value}" is not ASCII; write the domain in its xn-- form')
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"{value!a} is not a domain name")
    return value


def address(value: str) -> str:
    """`value` when it is one plain mail address (`name@domain`); raises `ValueError` with a sentence otherwise."""
    local, at, domain = value.rpartition("@")
    if not at:
        raise ValueError(f"{value!a} is not a mail address: it has no @")
    if "@" in local:
        raise ValueError(f"{value!a} is not a mail address: it has more than one @")
    if len(local) > 64 or not _LOCAL.fullmatch(local):
        raise ValueError(f"{value!a} is not a mail address: what stands before the @ must be plain ASCII, as a.b+c")
    domain_name(domain)
    return value


def one_line(text: str) -> str:
    """`text` as a header value: line breaks, control characters and lone surrogates become single spaces."""
    plain = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in text)
    return " ".join(plain.split())


def body_text(text: str) -> str:
    """`text` as a body: line breaks and tabs stay, other control characters go, lone surrogates become U+FFFD."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) != "Cc")


@dataclass(frozen=True, slots=True)
class Message:
    """One mail, the same for all its recipients. `message_id` and `thread` are given without angle brackets."""

    message_id: str
    sender: str
    recipients: Sequence[str]
    subject: str
    text: str
    html: str = ""
    #: The mail that this one answers; empty for the first, whose `References` then names itself, because some relays
    #: (Amazon SES) replace a `Message-ID` but keep `References`.
    thread: str = ""
    #: `X-Huntress-Report-ID`; None leaves it out.
    report_id: ReportKey | None = None
    #: Says that no person wrote this (RFC 3834), so that out-of-office replies stay away.
    auto_headers: bool = True
    date: datetime = field(kw_only=True)

    def as_bytes(self) -> bytes:
        """The mail as it is sent: ASCII, CRLF, equal bytes for equal contents (also the boundary between the parts)."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self._headers())
        return head.encode("ascii") + self._body().as_bytes()

    def _headers(self) -> list[tuple[str, str]]:
        headers = [
            ("From", address(self.sender)),
            ("To", ",\r\n ".join(address(recipient) for recipient in self.recipients)),
            ("Subject", _subject(self.subject, SUBJECT_LIMIT + (len("Re: ") if self.thread else 0))),
            ("Date", format_datetime(self.date)),
            ("Message-ID", f"<{self.message_id}>"),
            ("References", f"<{self.thread or self.message_id}>"),
        ]
        if self.thread:
            headers.append(("In-Reply-To", f"<{self.thread}>"))
        if self.auto_headers:
            headers += [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")]
        if self.report_id is not None:
            headers.append(("X-Huntress-Report-ID", str(self.report_id)))
        return headers

    def _body(self) -> EmailMessage:
        # Always quoted-printable: lines stay short, no 8BITMIME is needed, and "=_", with which the boundary starts,
        # cannot occur in it, so that no text can start a part of its own.
        body = EmailMessage(policy=_BODY_POLICY)
        body.set_content(body_text(self.text), cte="quoted-printable")
        if self.html:
            body.add_alternative(body_text(self.html), subtype="html", cte="quoted-printable")
            body.set_boundary("=_" + hashlib.sha256(self.message_id.encode()).hexdigest()[:32])
        return body


def _subject(text: str, limit: int) -> str:
    line = one_line(text)[:limit].rstrip()
    plain = line.isascii() and "=?" not in line and all(len(word) <= _LONGEST_PLAIN_WORD for word in line.split(" "))
    header = Header(line, "us-ascii" if plain else "utf-8", maxlinelen=76, header_name="Subject")
    return header.encode(linesep="\r\n")
