"""The e-mail connector against a real SMTP server on loopback."""

from __future__ import annotations

import email.policy
import random
import re
import socket
import ssl
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import ValidationError

from bridge.demo.mailbox import MailFaultKind, PretendMailbox
from bridge.demo.server import PretendServer, Received, Reply
from bridge.models import Note, Organization, Ticket, TicketRef
from connectors.base import (
    ConnectorContext,
    Finding,
    Held,
    Misconfigured,
    Outcome,
    OutcomeUnknown,
    Rejected,
    Unavailable,
)
from connectors.email import Email, EmailSettings
from connectors.email_message import Message, address
from connectors.redaction import learned

A, B, C = "a@example.com", "b@example.com", "c@example.com"
REFERENCE = "huntress-7-101"
MESSAGE_ID = f"<{REFERENCE}@example.com>"


@dataclass
class Memory:
    """Progress as the store keeps it; `dies_at` raises when the value to save starts so: the worker is killed there."""

    values: dict[str, str] = field(default_factory=dict)
    dies_at: str = ""
    history: list[tuple[str, str]] = field(default_factory=list)

    def get(self) -> Mapping[str, str]:
        return dict(self.values)

    def save(self, key: str, value: str) -> None:
        if self.dies_at and value.startswith(self.dies_at):
            raise Unavailable("the lease was lost")
        self.values[key] = value
        self.history.append((key, value))


@pytest.fixture
def mailbox() -> Iterator[PretendMailbox]:
    with PretendMailbox() as box:
        yield box


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def connector(table: Mapping[str, Any], **context: Any) -> Email:
    return Email("oncall", EmailSettings.model_validate(dict(table)), ConnectorContext(**context))


def ticket(**changes: Any) -> Ticket:
    plain: dict[str, Any] = {
        "reference": REFERENCE,
        "report_id": 101,
        "title": "CRITICAL - Incident on host-1",
        "text": "Something was found.\nReference: huntress-7-101\n",
        "notice": "",
    }
    return Ticket(**(plain | changes))


def send(mail: Email, memory: Memory | None = None, **changes: Any) -> TicketRef:
    return mail.create(mail.prepare(ticket(**changes)), memory if memory is not None else Memory())


def got(mailbox: PretendMailbox) -> list[str]:
    return [mail.recipient for mail in mailbox.messages]


# -- the mail itself -----------------------------------------------------------------


def test_mail_carries_the_reference_everywhere_and_both_bodies(mailbox: PretendMailbox) -> None:
    ref = send(connector(mailbox.settings()), html="<p>Something <b>was</b> found.</p>")

    [mail] = mailbox.messages
    message = mail.message
    assert ref == TicketRef(id="huntress-7-101@example.com")
    assert (mail.sender, mail.recipient) == ("bridge@example.com", "oncall@example.com")
    assert message["Message-ID"] == MESSAGE_ID
    assert message["References"] == MESSAGE_ID
    assert message["In-Reply-To"] is None
    assert message["Subject"] == "CRITICAL - Incident on host-1"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["X-Huntress-Report-ID"] == "101"
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert text.get_content().startswith("Something was found.\n")
    assert html.get_content_type() == "text/html"
    assert html.get_content() == "<p>Something <b>was</b> found.</p>\n"


def test_without_html_the_mail_has_one_part_and_missing_reference_is_added(mailbox: PretendMailbox) -> None:
    send(connector(mailbox.settings(auto_headers=False, message_id_domain="mail.example.net")), text="Plain words.")

    message = mailbox.messages[0].message
    assert message.get_content_type() == "text/plain"
    assert message.get_content() == f"Plain words.\n\nReference: {REFERENCE}\n"
    assert message["Message-ID"] == f"<{REFERENCE}@mail.example.net>"
    assert message["Auto-Submitted"] is None
    assert message["X-Auto-Response-Suppress"] is None


def test_recipients_of_the_organization_replace_the_configured_and_are_served_once_each(
    mailbox: PretendMailbox,
) -> None:
    mail = connector(mailbox.settings())
    send(mail, recipients=(A, "A@example.com", B))

    assert got(mailbox) == [A, B]
    assert mailbox.messages[0].raw == mailbox.messages[1].raw
    assert mailbox.messages[0].message["To"] == f"{A}, {B}"
    assert mailbox.connections == 1


HOSTILE = {
    "line breaks": "a\r\nBcc: evil@example.net\r\n\r\nbody",
    "lone returns": "a\rBcc: evil@example.net\nX: y",
    "unicode line breaks": "a\u2028Bcc: evil@example.net\u2029b\x85c\x0bd\x0ce",
    "controls": "a\x00\x1b[31mb\x7f",
    "encoded word with a line break": "=?utf-8?q?a=0D=0ABcc:_evil@example.net?=",
    "encoded word beside words": "a =?utf-8?b?QmNjOiBldmls?= b",
    "surrogate": "a\ud800b",
    "spaces": "  a   b\t c ",
    "one long word": "x" * 5000,
    "long words": "Grüße aus Köln " * 400,
    "emoji": "🔥" * 120 + "é",
    "dots": ".\r\n.\r\nQUIT",
    "empty": "",
}


@pytest.mark.parametrize("title", HOSTILE.values(), ids=HOSTILE.keys())
def test_title_stays_inside_its_header(mailbox: PretendMailbox, title: str) -> None:
    send(connector(mailbox.settings()), title=title)

    [mail] = mailbox.messages
    names = [name for name, _ in mail.message.items()]
    assert len(names) == len(set(names))
    assert "Bcc" not in names
    assert "evil@example.net" not in str(mail.message["To"])
    assert mail.message.get_content().startswith("Something was found.")
    shown = str(mail.message["Subject"])
    assert len(shown) <= 200
    assert not re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", shown)
    if title:
        clean = re.sub(r"[\s\x00-\x1f\x7f\ud800]+", " ", title).strip()
        assert shown == clean[:200].strip()
    else:
        assert shown == REFERENCE


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_stays_inside_its_part(mailbox: PretendMailbox, text: str) -> None:
    body = f"{text}\n{REFERENCE}"
    send(connector(mailbox.settings()), text=body, html=f"<p>{text}</p>")

    [mail] = mailbox.messages
    parts = list(mail.message.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    expected = body.replace("\r\n", "\n").replace("\r", "\n").replace("\ud800", "?")
    expected = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "", expected)
    assert parts[0].get_content() == expected + "\n"


def test_raw_mail_is_ascii_in_short_lines_that_all_end_alike(mailbox: PretendMailbox) -> None:
    nasty = "\n".join(["ü" * 3000, ".", "..", "x" * 3000, "From here", "trailing  ", "--boundary", "=_" * 40])
    send(connector(mailbox.settings(recipients=[f"person{n}@example.com" for n in range(60)])), text=nasty, html=nasty)

    raw = mailbox.messages[0].raw
    assert raw.isascii()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    assert mailbox.messages[0].message.get_body(("plain",)).get_content().startswith(nasty)  # type: ignore[union-attr]


def test_text_that_knows_the_boundary_cannot_open_a_part(mailbox: PretendMailbox) -> None:
    mail = connector(mailbox.settings())
    send(mail, html="<p>x</p>")
    boundary = mailbox.messages[0].message.get_boundary()
    send(mail, text=f"--{boundary}\nContent-Type: text/html\n\n<b>evil</b>\n--{boundary}--", html="<p>x</p>")

    assert mailbox.messages[1].message.get_boundary() == boundary
    assert len(list(mailbox.messages[1].message.iter_parts())) == 2


def test_any_subject_survives_the_way() -> None:
    draw = random.Random(7)
    alphabet = string.ascii_letters + string.digits + string.punctuation + "     äßλ中🔥"
    for _ in range(400):
        subject = " ".join("".join(draw.choices(alphabet, k=draw.randint(1, 180))).split())
        mail = Message("x@example.com", A, [B], subject, "text", date=datetime(2026, 1, 1, tzinfo=UTC))
        parsed = message_from_bytes(mail.as_bytes(), policy=email.policy.default)
        assert str(parsed["Subject"]) == subject


# -- one recipient at a time, and what is remembered ---------------------------------


def test_progress_says_sending_before_the_final_dot_and_sent_after_it(mailbox: PretendMailbox) -> None:
    memory = Memory()
    send(connector(mailbox.settings(recipients=[A, B])), memory)

    assert [entry for entry in memory.history if entry[0] != "date"] == [
        (A, "sending:1"),
        (A, "sent"),
        (B, "sending:1"),
        (B, "sent"),
    ]


def test_who_has_it_is_never_asked_again(mailbox: PretendMailbox) -> None:
    memory = Memory()
    mail = connector(mailbox.settings(recipients=[A, B]))
    send(mail, memory)
    again = send(mail, memory)

    assert again.id == f"{REFERENCE}@example.com"
    assert mailbox.asked == [A, B]
    assert mailbox.connections == 1


@dataclass(frozen=True)
class Case:
    """One fault over A (of A, B, C) and what it means."""

    fault: MailFaultKind
    outcome: type[Outcome]
    says: str
    #: What is remembered of A afterwards.
    remembered: str = ""
    #: Does the first attempt still serve the others?
    others: bool = True
    #: Mails that A has after the second attempt.
    copies: int = 1


CASES = [
    Case("reject_rcpt_450", Unavailable, "450 4.2.1 mailbox busy"),
    Case("greylist", Unavailable, "451 4.7.1 greylisted"),
    Case("reject_rcpt_550", Rejected, "550 5.1.1 user unknown", "refused:550 5.1.1 user unknown"),
    Case("shut_down_421", Unavailable, "421 4.3.2 shutting down", others=False),
    Case("refuse_data_554", Rejected, "554 5.5.1 no valid recipients", "refused:554 5.5.1 no valid recipients"),
    Case("reject_data_451", Unavailable, "451 4.3.0 disk full", "waiting:0"),
    Case("reject_data_554", Rejected, "554 5.6.0 looks like spam", "refused:554 5.6.0 looks like spam"),
    Case("early_552", Rejected, "552 5.3.4 too big", "refused:552 5.3.4 too big"),
    Case("drop_before_data", Unavailable, "before it took the mail", "waiting:0"),
    Case("hang_rcpt", Unavailable, "did not answer in time before it took", "waiting:0", others=False),
    Case("drop_after_dot", OutcomeUnknown, "may have arrived", "sending:1", copies=2),
    Case("lose_after_dot", OutcomeUnknown, "may have arrived", "sending:1"),
    Case("garbage_after_dot", OutcomeUnknown, "not SMTP", "sending:1", copies=2),
    Case("hang_after_dot", OutcomeUnknown, "did not answer in time", "sending:1", others=False, copies=2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_fault_over_one_recipient(mailbox: PretendMailbox, case: Case) -> None:
    mailbox.fault(case.fault, recipient=A)
    mail = connector(mailbox.settings(recipients=[A, B, C], timeout=1 if "hang" in case.fault else 10))
    memory = Memory()

    with pytest.raises(case.outcome, match=re.escape(case.says)) as caught:
        send(mail, memory)

    assert type(caught.value) is case.outcome
    assert A in str(caught.value)
    assert memory.values.get(A, "") == case.remembered
    others = [recipient for recipient in got(mailbox) if recipient != A]
    assert others == ([B, C] if case.others else [])
    if case.others:
        assert "2 of 3 recipients have it" in str(caught.value)

    send(mail, memory)

    assert sorted(got(mailbox)) == sorted([A] * case.copies + [B, C])
    assert len({message.raw for message in mailbox.messages}) == 1, "the same mail, down to its date"


def test_greylisting_lasts_for_its_time_and_makes_one_mail(mailbox: PretendMailbox) -> None:
    fault = mailbox.fault("greylist", recipient=A, seconds=60)
    mail, memory = connector(mailbox.settings(recipients=[A, B])), Memory()
    for _ in range(3):
        with pytest.raises(Unavailable, match="greylisted"):
            send(mail, memory)
    fault.asked[A] -= 60
    send(mail, memory)
    assert sorted(got(mailbox)) == [A, B]


def test_connection_lost_in_the_middle_of_a_mail_makes_one_mail(mailbox: PretendMailbox) -> None:
    mailbox.fault("drop_before_dot", recipient=A)
    mail = connector(mailbox.settings(recipients=[A, B]))
    memory = Memory()

    # Certain when the loss is seen before the final dot is written, else in doubt: both may happen.
    with pytest.raises((Unavailable, OutcomeUnknown)):
        send(mail, memory)
    send(mail, memory)

    assert sorted(got(mailbox)) == [A, B]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("reject_mail_451", Unavailable),
        ("reject_mail_550", Rejected),
        ("drop_connect", Unavailable),
        ("reject_connect_421", Unavailable),
        ("reject_connect_554", Misconfigured),
    ],
)
def test_fault_over_everybody(mailbox: PretendMailbox, fault: MailFaultKind, outcome: type[Outcome]) -> None:
    mailbox.fault(fault)
    mail = connector(mailbox.settings(recipients=[A, B]))
    memory = Memory()

    with pytest.raises(outcome) as caught:
        send(mail, memory)
    assert isinstance(caught.value, outcome)
    assert got(mailbox) == []
    assert set(memory.values) == {"date"}, "nothing is in doubt"
    send(mail, memory)
    assert got(mailbox) == [A, B]


def test_lost_answer_is_resent_once_then_held(mailbox: PretendMailbox) -> None:
    mailbox.fault("drop_after_dot", times=None, recipient=A)
    mail = connector(mailbox.settings(recipients=[A, B]))
    memory = Memory()

    with pytest.raises(OutcomeUnknown):
        send(mail, memory)
    for _ in range(3):
        with pytest.raises(Held, match=re.escape(MESSAGE_ID)):
            send(mail, memory)

    assert sorted(got(mailbox)) == [A, A, B]
    assert memory.values[A] == "sending:2"


def test_lost_answer_is_held_at_once_where_that_is_wanted(mailbox: PretendMailbox) -> None:
    mailbox.fault("drop_after_dot", recipient=A)
    mail = connector(mailbox.settings(recipients=[A, B], on_unknown="hold"))
    memory = Memory()

    for _ in range(2):
        with pytest.raises(Held, match="retry if it is not there"):
            send(mail, memory)

    assert sorted(got(mailbox)) == [A, B]


def test_a_certain_refusal_of_the_resend_does_not_forget_the_doubt(mailbox: PretendMailbox) -> None:
    mailbox.fault("drop_after_dot", recipient=A)
    mail = connector(mailbox.settings(recipients=[A]))
    memory = Memory()
    with pytest.raises(OutcomeUnknown):
        send(mail, memory)
    mailbox.fault("reject_data_451", recipient=A)
    with pytest.raises(Unavailable):
        send(mail, memory)
    assert memory.values[A] == "waiting:1"
    mailbox.fault("drop_after_dot", recipient=A)
    with pytest.raises(Held):
        send(mail, memory)


@pytest.mark.parametrize(
    ("dies_at", "on_unknown", "first", "second"),
    [
        ("sending", "resend", [], [A, B]),  # killed right before the final dot: nothing was taken
        ("sent", "resend", [A], [A, B, A]),  # killed right after the answer: in doubt, sent again, after the others
        ("sent", "hold", [A], [A, B]),
    ],
)
def test_worker_killed_in_mid_send(
    mailbox: PretendMailbox, dies_at: str, on_unknown: str, first: list[str], second: list[str]
) -> None:
    memory = Memory(dies_at=dies_at)
    mail = connector(mailbox.settings(recipients=[A, B], on_unknown=on_unknown))
    with pytest.raises(Unavailable, match="lease"):
        send(mail, memory)
    assert got(mailbox) == first

    memory.dies_at = ""
    if on_unknown == "hold":
        with pytest.raises(Held):
            send(mail, memory)
    else:
        send(mail, memory)
    assert got(mailbox) == second
    assert len({message.raw for message in mailbox.messages}) == 1


def test_several_outcomes_become_the_one_that_trying_again_can_mend(mailbox: PretendMailbox) -> None:
    mailbox.fault("reject_rcpt_550", recipient=A)
    mailbox.fault("reject_rcpt_450", recipient=B)
    mail = connector(mailbox.settings(recipients=[A, B, C]))
    with pytest.raises(Unavailable, match=r"a@example\.com: .*user unknown.*b@example\.com: .*busy"):
        send(mail)
    assert got(mailbox) == [C]


def test_a_hanging_recipient_does_not_starve_the_others(mailbox: PretendMailbox) -> None:
    mailbox.fault("hang_rcpt", times=None, recipient=A)
    mail = connector(mailbox.settings(recipients=[A, B], timeout=1))
    memory = Memory()
    for _ in range(2):
        with pytest.raises(Unavailable):
            send(mail, memory)
    assert got(mailbox) == [B]


def test_pause_is_respected_before_each_transaction(mailbox: PretendMailbox) -> None:
    allowed = iter([True, True, False])

    def before_request() -> None:
        if not next(allowed):
            raise Unavailable("paused", 60)

    mail = connector(mailbox.settings(recipients=[A, B, C]), before_request=before_request)
    with pytest.raises(Unavailable, match="paused"):
        send(mail)
    assert got(mailbox) == [A, B]


# -- servers that misbehave on the wire ----------------------------------------------


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose `talk` has one connection; its end is awaited."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    talk(connection)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=5)
        assert not thread.is_alive()


def trickle(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"2")
        time.sleep(0.02)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"220-" + b"x" * 60_000 + b"\r\n")


def desynchronize(connection: socket.socket) -> None:
    connection.sendall(b"220 hi\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n")
    connection.recv(1000)


def bad_code(connection: socket.socket) -> None:
    connection.sendall(b"999 what\r\n")


def silence(connection: socket.socket) -> None:
    connection.recv(1000)


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (trickle, "did not answer in time"),
        (silence, "did not answer in time"),
        (flood, "not SMTP"),
        (desynchronize, "before it was asked"),
        (bad_code, "not SMTP"),
    ],
)
def test_senseless_server_is_unavailable_within_the_time_out(talk: Callable[[socket.socket], None], says: str) -> None:
    memory = Memory()
    with raw_server(talk) as port:
        mail = connector(PretendMailbox(port=port).settings(timeout=1))
        start = time.monotonic()
        with pytest.raises(Unavailable, match=says):
            send(mail, memory)
        assert time.monotonic() - start < 1
    assert set(memory.values) == {"date"}


def test_an_answer_given_before_the_final_dot_is_not_taken_for_success() -> None:
    def eager(connection: socket.socket) -> None:
        for answer in (b"220 hi", b"250 hi", b"250 ok", b"250 ok", b"354 go\r\n250 taken"):
            connection.sendall(answer + b"\r\n")
            connection.recv(100_000)

    memory = Memory()
    with raw_server(eager) as port:
        mail = connector(PretendMailbox(port=port).settings(timeout=2))
        with pytest.raises(Unavailable, match="before it was asked"):
            send(mail, memory)
    assert memory.values["oncall@example.com"] == "waiting:0"


def test_trickled_final_answer_ends_with_the_time_out() -> None:
    def slow(connection: socket.socket) -> None:
        taken = b""
        for answer in (b"220 hi", b"250 hi", b"250 ok", b"250 ok", b"354 go"):
            connection.sendall(answer + b"\r\n")
            taken = connection.recv(100_000)
        while not taken.endswith(b"\r\n.\r\n"):
            taken += connection.recv(100_000)
        trickle(connection)

    with raw_server(slow) as port:
        mail = connector(PretendMailbox(port=port).settings(timeout=1))
        start = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            send(mail)
        assert 0.5 < time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("host", "says"), [("127.0.0.1", "cannot connect"), ("no-such-host.invalid", "cannot find host")]
)
def test_unreachable_host_is_unavailable(host: str, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    table = PretendMailbox(port=port).settings(host=host, security="starttls", timeout=5)
    with pytest.raises(Unavailable, match=says):
        send(connector(table))
    with pytest.raises(Unavailable, match=says):
        connector(table).check()


# -- encryption and log-in -----------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_encrypted_log_in(authority: trustme.CA, ca_file: str, security: Any, mechanism: str) -> None:
    with PretendMailbox(
        security=security,
        tls_context=server_context(authority),
        users={"bridge": "pässwörd, 50% =secret="},
        mechanisms=(mechanism,),
    ) as box:
        mail = connector(box.settings(ca_file=ca_file, recipients=[A, B]))
        assert mail.check() == []
        send(mail)
        assert got(box) == [A, B]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("fault", ["drop_after_dot", "drop_before_data", "early_552"])
def test_faults_under_encryption(authority: trustme.CA, ca_file: str, security: Any, fault: MailFaultKind) -> None:
    with PretendMailbox(security=security, tls_context=server_context(authority)) as box:
        box.fault(fault, recipient=A)
        memory = Memory()
        mail = connector(box.settings(ca_file=ca_file, recipients=[A, B]))
        with pytest.raises((OutcomeUnknown, Unavailable, Rejected)):
            send(mail, memory)
        send(mail, memory)
        assert sorted(got(box)) == ([A, A, B] if fault == "drop_after_dot" else [A, B])


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_certificate_must_be_trusted_and_name_the_host(
    authority: trustme.CA, ca_file: str, security: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    cases = [
        (authority, "other.example.com", ca_file, "127.0.0.1"),
        (trustme.CA(), "127.0.0.1", ca_file, "self-signed|unable to get"),
        (authority, "127.0.0.1", "", "self-signed|unable to get"),
        (authority, "127.0.0.1", str(broken), "no certificates in PEM"),
        (authority, "127.0.0.1", str(tmp_path / "missing.pem"), "No such file"),
    ]
    for issuer, name, trusted, says in cases:
        with PretendMailbox(security=security, tls_context=server_context(issuer, name)) as box:
            mail = connector(box.settings(ca_file=trusted))
            with pytest.raises(Misconfigured, match=says):
                send(mail)
            [finding] = mail.check()
            assert finding.setting == "ca_file"
            assert got(box) == []


@pytest.mark.parametrize(
    ("server", "client", "says"),
    [
        ("none", "starttls", "does not offer STARTTLS"),
        ("none", "tls", "no TLS connection"),
        ("starttls", "tls", "no TLS"),
    ],
)
def test_missing_encryption_is_never_done_without(
    authority: trustme.CA, ca_file: str, server: Any, client: str, says: str
) -> None:
    context = server_context(authority) if server != "none" else None
    with PretendMailbox(security=server, tls_context=context) as box:
        mail = connector(box.settings(security=client, ca_file=ca_file, timeout=5))
        with pytest.raises(Misconfigured, match=says):
            send(mail)
        assert [finding.setting for finding in mail.check()] == ["security"]
        assert box.asked == []


def test_server_that_waits_for_tls_is_unavailable_with_a_hint(authority: trustme.CA, ca_file: str) -> None:
    with PretendMailbox(security="tls", tls_context=server_context(authority)) as box:
        mail = connector(box.settings(security="starttls", ca_file=ca_file, timeout=0.4))
        with pytest.raises(Unavailable, match="did not answer in time"):
            send(mail)


def test_answers_slipped_in_before_encryption_are_not_believed(authority: trustme.CA, ca_file: str) -> None:
    def inject(connection: socket.socket) -> None:
        connection.sendall(b"220 hi\r\n")
        connection.recv(1000)
        connection.sendall(b"250-hi\r\n250 STARTTLS\r\n")
        connection.recv(1000)
        connection.sendall(b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n")
        connection.recv(1000)

    with raw_server(inject) as port:
        mail = connector(
            PretendMailbox(port=port).settings(
                security="starttls", ca_file=ca_file, username="bridge", password="do-not-tell", timeout=2
            )
        )
        with pytest.raises(Unavailable, match="before it was asked"):
            send(mail)


@pytest.mark.parametrize(
    ("fault", "outcome", "says"),
    [("auth_fail", Misconfigured, "535 5.7.8"), ("auth_wait", Unavailable, "454 4.7.0")],
)
def test_refused_log_in(fault: MailFaultKind, outcome: type[Outcome], says: str) -> None:
    with PretendMailbox(users={"bridge": "do-not-tell"}) as box:
        box.fault(fault)
        mail = connector(box.settings())
        with pytest.raises(outcome, match=re.escape(says)) as caught:
            send(mail)
        assert "do-not-tell" not in str(caught.value)
        assert box.log_ins == 1, "a wrong password is tried once, or accounts are locked"
        send(mail)
        assert got(box) == ["oncall@example.com"]


def test_server_that_echoes_the_password_does_not_get_it_into_the_error() -> None:
    def echo(connection: socket.socket) -> None:
        connection.sendall(b"220 hi\r\n")
        connection.recv(1000)
        connection.sendall(b"250-hi\r\n250 AUTH PLAIN\r\n")
        line = connection.recv(1000)
        connection.sendall(b"535 do-not-tell is wrong in " + line)

    with raw_server(echo) as port:
        mail = connector(PretendMailbox(port=port).settings(username="bridge", password="do-not-tell", timeout=2))
        with pytest.raises(Misconfigured) as caught:
            send(mail)
    assert "do-not-tell" not in str(caught.value)
    assert "AGJyaWRnZ" not in str(caught.value)


def test_log_in_that_is_not_offered_or_not_configured() -> None:
    with PretendMailbox(users={"bridge": "do-not-tell"}, mechanisms=("NTLM",)) as box:
        with pytest.raises(Misconfigured, match="offers no log-in by PLAIN or LOGIN"):
            send(connector(box.settings()))
        table = {key: value for key, value in box.settings().items() if key not in ("username", "password")}
        with pytest.raises(Misconfigured, match="wants a log-in"):
            send(connector(table))
        assert connector(table).check()[0].setting == "username"


# -- XOAUTH2 -------------------------------------------------------------------------


class PretendTokens(PretendServer):
    """A token endpoint; `secret` is what it accepts."""

    def __init__(self, token: str = "token-" + "x" * 2000, lifetime: Any = 3600) -> None:
        super().__init__()
        self.token = token
        self.lifetime = lifetime
        self.secret = "client-secret"
        self.route("POST", "/token", self.answer_token)

    def answer_token(self, request: Received) -> Reply:
        form = dict(pair.split("=", 1) for pair in request.body.decode().split("&"))
        if form.get("client_secret") != self.secret:
            sentence = f"AADSTS7000215: Invalid client secret {form.get('client_secret')}.\r\nTrace ID: 1"
            return Reply(401, {"error": "invalid_client", "error_description": sentence})
        assert form["grant_type"] == "client_credentials"
        assert form["scope"] == "https%3A%2F%2Foutlook.office365.com%2F.default"
        return Reply(200, {"access_token": self.token, "expires_in": self.lifetime, "token_type": "Bearer"})


@pytest.fixture
def tokens() -> Iterator[PretendTokens]:
    with PretendTokens() as server:
        yield server


def oauth(box: PretendMailbox, tokens: PretendTokens, **changes: Any) -> Email:
    table = box.settings(
        auth="xoauth2",
        username="bridge@example.com",
        client_id="app-1",
        client_secret="client-secret",
        token_url=f"{tokens.url}/token",
    )
    return connector(table | changes)


def test_xoauth2_fetches_one_token_for_many_mails(tokens: PretendTokens) -> None:
    with PretendMailbox(tokens={"bridge@example.com": tokens.token}) as box:
        mail = oauth(box, tokens)
        assert mail.check() == []
        send(mail)
        send(mail)
        mail.close()
        assert len(box.messages) == 2
        assert len(tokens.requests_to("/token")) == 1
    assert tokens.token in learned(), "or a log could show it"


@pytest.mark.parametrize("lifetime", [300, "299", None])
def test_token_near_its_end_is_not_used_again(tokens: PretendTokens, lifetime: Any) -> None:
    tokens.lifetime = lifetime
    with PretendMailbox(tokens={"bridge@example.com": tokens.token}) as box:
        mail = oauth(box, tokens)
        send(mail)
        send(mail)
        mail.close()
    assert len(tokens.requests_to("/token")) == 2


def test_refused_token_is_fetched_anew(tokens: PretendTokens) -> None:
    with PretendMailbox(tokens={"bridge@example.com": tokens.token}) as box:
        mail = oauth(box, tokens)
        box.fault("auth_fail")
        with pytest.raises(Misconfigured, match="535") as caught:
            send(mail)
        assert tokens.token not in str(caught.value)
        send(mail)
        mail.close()
        assert len(tokens.requests_to("/token")) == 2


def test_refused_application_is_a_misconfiguration_without_its_secret(tokens: PretendTokens) -> None:
    tokens.secret = "another"
    with PretendMailbox(tokens={"bridge@example.com": tokens.token}) as box:
        mail = oauth(box, tokens)
        with pytest.raises(Misconfigured, match="AADSTS7000215") as caught:
            send(mail)
        assert "client-secret" not in str(caught.value)
        assert "Trace" not in str(caught.value)
        assert [finding.setting for finding in mail.check()] == ["client_secret"]
        mail.close()
        assert box.connections == 0


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "7"}}])
def test_token_endpoint_in_trouble_is_unavailable(tokens: PretendTokens, how: dict[str, Any]) -> None:
    tokens.fault("status", **how)
    with PretendMailbox(tokens={"bridge@example.com": tokens.token}) as box:
        mail = oauth(box, tokens)
        with pytest.raises(Unavailable) as caught:
            send(mail)
        assert caught.value.retry_after == (7 if how["status"] == 429 else None)
        send(mail)
        mail.close()


# -- check, notes, settings ----------------------------------------------------------


def test_check_tries_sender_and_recipients_without_sending(mailbox: PretendMailbox) -> None:
    mailbox.fault("reject_rcpt_550", recipient=B)
    mailbox.fault("reject_rcpt_450", recipient=C)
    mail = connector(mailbox.settings(recipients=[A, B, C]))

    [finding] = mail.check()
    assert isinstance(finding, Finding)
    assert finding.setting == "recipients"
    assert B in finding.message
    assert "user unknown" in finding.message
    mailbox.fault("reject_mail_550")
    assert [(finding.setting, "not your address" in finding.message) for finding in mail.check()] == [("sender", True)]
    assert got(mailbox) == []
    mailbox.fault("reject_mail_451")
    with pytest.raises(Unavailable, match="come back"):
        mail.check()


def test_find_refuses_to_pretend(mailbox: PretendMailbox) -> None:
    mail = connector(mailbox.settings())
    assert mail.can_find is False
    with pytest.raises(Misconfigured, match="cannot be asked"):
        mail.find(REFERENCE)
    with pytest.raises(Rejected):
        mail.link("1", REFERENCE)


NOTE = Note("ended/2", "Re: CRITICAL - Incident on host-1", "The incident is over.", (A, B))
NOTE_ID = f"<{REFERENCE}.ended-2@example.com>"


def answer(mail: Email, memory: Memory | None, note: Note = NOTE) -> None:
    mail.note(TicketRef(f"{REFERENCE}@example.com"), REFERENCE, note, memory)


def test_note_is_a_reply_in_the_thread_of_the_first_mail(mailbox: PretendMailbox) -> None:
    mail = connector(mailbox.settings(recipients=[A, B]))
    ref = send(mail)
    mail.note(ref, REFERENCE, NOTE, Memory())
    mail.note(ref, REFERENCE, Note("ended/3", "Re: another subject", f"Text\n[{REFERENCE}/ended/3] and more"), Memory())

    first, reply, later = (mail.message for mail in mailbox.messages[::2])
    assert got(mailbox) == [A, B] * 3
    assert first["References"] == MESSAGE_ID
    for message, number in ((reply, 2), (later, 3)):
        assert message["In-Reply-To"] == message["References"] == MESSAGE_ID
        assert message["Message-ID"] == f"<{REFERENCE}.ended-{number}@example.com>"
        assert message["To"] == first["To"] == f"{A}, {B}"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "text/plain"
        assert message.get_content().endswith(f"\n\n[{REFERENCE}/ended/{number}]\n")
    assert reply["Subject"] == f"Re: {first['Subject']}"
    assert reply.get_content() == f"The incident is over.\n\n[{REFERENCE}/ended/2]\n"


@pytest.mark.parametrize(
    "title", ["Re: Over\r\nBcc: evil@example.net", "Re: Over\n\n<b>", "Re: =?utf-8?q?=0ABcc=3A?= \u2028x"]
)
def test_subject_of_a_reply_stays_inside_its_header(mailbox: PretendMailbox, title: str) -> None:
    answer(connector(mailbox.settings()), Memory(), Note("k", title, "Text"))
    [mail] = mailbox.messages
    assert mail.message["Bcc"] is None
    assert mail.message["In-Reply-To"] == MESSAGE_ID
    assert str(mail.message["Subject"]).startswith("Re: ")
    assert mail.message.get_content() == f"Text\n\n[{REFERENCE}/k]\n"


def test_reply_keeps_the_whole_subject_of_the_first_mail(mailbox: PretendMailbox) -> None:
    mail = connector(mailbox.settings())
    title = ("CRITICAL - " + "word " * 100)[:183] + f" [{REFERENCE}]"
    send(mail, title=title)
    answer(mail, Memory(), Note("k", f"Re: {title}", "Text"))
    first, reply = (each.message["Subject"] for each in mailbox.messages)
    assert len(title) == 200
    assert (first, reply) == (title, f"Re: {title}")


def test_note_without_a_title_or_a_known_first_mail_is_sent_all_the_same(mailbox: PretendMailbox) -> None:
    connector(mailbox.settings()).note(TicketRef("x\r\ny"), REFERENCE, Note("k", "\n", "Text"), Memory())
    [mail] = mailbox.messages
    assert mail.message["Subject"] == f"[{REFERENCE}/k]"
    assert mail.message["In-Reply-To"] == MESSAGE_ID


def test_repeated_note_goes_to_nobody_who_has_it(mailbox: PretendMailbox) -> None:
    memory = Memory()
    mail = connector(mailbox.settings())
    answer(mail, memory)
    answer(mail, memory)
    assert mailbox.asked == [A, B]
    assert mailbox.connections == 1


def test_note_that_nobody_remembers_goes_to_all_again(mailbox: PretendMailbox) -> None:
    mail = connector(mailbox.settings())
    for _ in range(2):
        answer(mail, None)
    assert got(mailbox) == [A, B, A, B]
    assert {each.message["Message-ID"] for each in mailbox.messages} == {NOTE_ID}


def test_note_is_the_same_mail_whenever_it_is_sent(mailbox: PretendMailbox) -> None:
    memory = Memory({"date": "2026-03-02T08:15:42+00:00"})
    mailbox.fault("reject_rcpt_450", recipient=A)
    mail = connector(mailbox.settings())
    with pytest.raises(Unavailable, match=r"a@example\.com: .*busy.*1 of 2 recipients have it"):
        answer(mail, memory)
    answer(connector(mailbox.settings()), memory)
    assert got(mailbox) == [B, A]
    assert len({each.raw for each in mailbox.messages}) == 1
    assert mailbox.messages[0].message["Date"] == "Mon, 02 Mar 2026 08:15:42 +0000"


@pytest.mark.parametrize(
    ("fault", "outcome", "says", "copies"),
    [
        ("reject_rcpt_450", Unavailable, "450 4.2.1 mailbox busy", [B, A]),
        ("reject_rcpt_550", Rejected, r"a@example\.com: .*user unknown", [B, A]),
        ("drop_after_dot", OutcomeUnknown, "may have arrived", [A, B, A]),
        ("lose_after_dot", OutcomeUnknown, "may have arrived", [B, A]),
    ],
)
def test_repeated_note_goes_only_to_who_has_not_got_it(
    mailbox: PretendMailbox, fault: MailFaultKind, outcome: type[Outcome], says: str, copies: list[str]
) -> None:
    mailbox.fault(fault, recipient=A)
    memory = Memory()
    mail = connector(mailbox.settings())
    with pytest.raises(outcome, match=says):
        answer(mail, memory)
    answer(mail, memory)
    assert got(mailbox) == copies
    assert len({each.raw for each in mailbox.messages}) == 1
    assert memory.values | {"date": ""} == {"date": "", A: "sent", B: "sent"}


def test_lost_answer_to_a_note_is_resent_once_then_held(mailbox: PretendMailbox) -> None:
    mailbox.fault("drop_after_dot", times=None, recipient=A)
    memory = Memory()
    mail = connector(mailbox.settings())
    with pytest.raises(OutcomeUnknown):
        answer(mail, memory)
    for _ in range(2):
        with pytest.raises(Held, match=re.escape(NOTE_ID)):
            answer(mail, memory)
    assert got(mailbox) == [A, B, A]

    with pytest.raises(Held):
        answer(connector(mailbox.settings(on_unknown="hold")), Memory())
    assert got(mailbox)[3:] == [A, B]


@pytest.mark.parametrize(
    ("dies_at", "first", "second"),
    [
        ("sending", [], [A, B]),  # killed right before the final dot: nothing was taken
        ("sent", [A], [A, B, A]),  # killed right after the answer: in doubt, sent again, after the others
    ],
)
def test_worker_killed_in_mid_note(mailbox: PretendMailbox, dies_at: str, first: list[str], second: list[str]) -> None:
    memory = Memory(dies_at=dies_at)
    with pytest.raises(Unavailable, match="lease"):
        answer(connector(mailbox.settings()), memory)
    assert got(mailbox) == first

    memory.dies_at = ""
    answer(connector(mailbox.settings()), memory)
    assert got(mailbox) == second
    assert len({each.raw for each in mailbox.messages}) == 1


def test_worker_killed_between_two_recipients_of_a_note(mailbox: PretendMailbox) -> None:
    memory = Memory()
    mailbox.fault("hang_rcpt", recipient=B)
    with pytest.raises(Unavailable):
        answer(connector(mailbox.settings(timeout=0.6)), memory)
    assert (got(mailbox), memory.values[A]) == ([A], "sent")
    answer(connector(mailbox.settings()), Memory(dict(memory.values)))
    assert got(mailbox) == [A, B]


def test_recipients_from_the_organizations_file_are_checked() -> None:
    mail = connector(PretendMailbox(port=25).settings())
    with pytest.raises(Misconfigured, match=r"organization 12 .*no @"):
        mail.prepare(ticket(recipients=("nobody",), organization=Organization(12)))
    with pytest.raises(Misconfigured, match=r"organizations file: .*no @"):
        answer(mail, Memory(), Note("k", "Title", "Text", ("nobody",)))
    with pytest.raises(Rejected, match="Message-ID"):
        mail.prepare(ticket(reference="a\r\nb"))


def test_identity_parts_and_templates() -> None:
    mail = connector(PretendMailbox(port=25).settings(host="LOCALHOST"))
    assert mail.system() == "smtp/localhost/bridge@example.com"
    assert [(part.name, part.file, part.single_line) for part in mail.parts()] == [
        ("title", "title.j2", True),
        ("text", "text.j2", False),
        ("html", "html.j2", False),
    ]
    assert mail.template_folder().name == "email"


@pytest.mark.parametrize(
    "value", ["a@example.com", "a.b+c@sub.example.com", "root@localhost", "o'x@xn--bcher-kva.example"]
)
def test_good_address(value: str) -> None:
    assert address(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nobody",
        "@example.com",
        "a@",
        "a@b@example.com",
        "a@example.com\r\nRCPT TO:<x@example.net>",
        "a@example.com\n",
        "a b@example.com",
        "a@exa mple.com",
        "<a@example.com>",
        "A <a@example.com>",
        "a@example.com,b@example.com",
        "a@bücher.example",
        "ä@example.com",
        "a@-example.com",
        "a@example..com",
        ".a@example.com",
        "a@" + "x" * 64 + ".com",
        "a\x00@example.com",
        "x" * 65 + "@example.com",
    ],
)
def test_bad_address(value: str) -> None:
    with pytest.raises(ValueError, match=r"mail address|domain"):
        address(value)


GOOD: dict[str, Any] = {"type": "email", "host": "smtp.example.com", "sender": A, "recipients": [B]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"security": "none"}, "only for a relay on this machine"),
        ({"security": "none", "insecure_http": True}, "only for a relay on this machine"),
        ({"recipients": []}, "recipients"),
        ({"recipients": ["nobody"]}, "has no @"),
        ({"sender": "a@example.com\r\n"}, "domain name"),
        ({"message_id_domain": "x y"}, "domain name"),
        ({"host": "smtp example"}, "domain name"),
        ({"port": 0}, "port"),
        ({"username": "bridge"}, "belong together"),
        ({"password": "do-not-tell"}, "belong together"),
        ({"username": "a\x00b", "password": "do-not-tell"}, "control characters"),
        ({"auth": "xoauth2", "username": "x"}, "also needs client_id, client_secret, tenant"),
        ({"auth": "xoauth2", "tenant": "../x"}, "tenant"),
        ({"on_unknown": "ask"}, "on_unknown"),
        ({"recipient": "x"}, "recipient"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        EmailSettings.model_validate(GOOD | changes)
    assert "do-not-tell" not in str(caught.value)


def test_defaults_and_secrets() -> None:
    settings = EmailSettings.model_validate(GOOD | {"username": "x", "password": "do-not-tell"})
    assert (settings.port, settings.security, settings.auth, settings.on_unknown) == (
        587,
        "starttls",
        "password",
        "resend",
    )
    assert "do-not-tell" not in repr(settings)
    assert set(EmailSettings.secret_keys()) == {"password", "client_secret"}


def test_module_named_email_does_not_hide_the_standard_library() -> None:
    code = "import connectors.email, email.message, email; print(email.__file__)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert Path(shown.stdout.strip()).parent.name == "email"


def test_mailbox_listens_again_on_its_port_and_says_when_it_cannot() -> None:
    box = PretendMailbox()
    box.start()
    port = box.port
    box.stop()
    box.stop()
    box.start()
    try:
        assert box.port == port
        with pytest.raises(OSError, match="in use"):
            PretendMailbox(port=port).start()
    finally:
        box.stop()
