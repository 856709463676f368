"""The HTTP layer against real sockets: deadlines, what a failure means, what goes to whom, secrets in sentences."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import urllib3

from connectors import deadline
from connectors.base import Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.http import Answer, HttpSession, Intent, is_loopback, redact, retry_after_seconds, same_site
from tests.connectors.raw_server import RawServer, Script, Talk, answer, answers

SECRET = "k3y/with+odd=signs&more"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def session(**how: Any) -> HttpSession:
    return HttpSession(**{"name": "psa", "timeout": 5.0, "auth": ("user", SECRET), **how})


def outcome(call: Callable[[], object]) -> Outcome:
    """The outcome that `call` raises; its text and whole traceback hold no secret."""
    with pytest.raises(Outcome) as raised:
        call()
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown
    assert base64.b64encode(f"user:{SECRET}".encode()).decode() not in shown
    assert not isinstance(raised.value.__context__, requests.RequestException | urllib3.exceptions.HTTPError)
    return raised.value


# What a lost answer means


def trickled_header(talk: Talk) -> None:
    talk.receive()
    talk.trickle(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000)


def trickled_body(talk: Talk) -> None:
    talk.receive()
    talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    talk.trickle(b"x" * 10_000)


def trickled_body_until_close(talk: Talk) -> None:
    talk.receive()
    talk.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    talk.trickle(b"{}" + b" " * 10_000)


def trickled_chunks(talk: Talk) -> None:
    talk.receive()
    talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    talk.trickle(b"1\r\nx\r\n" * 1000)


def endless_continue(talk: Talk) -> None:
    talk.receive()
    talk.trickle(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, pause=0.001)


def silent(talk: Talk) -> None:
    talk.receive()
    talk.server.stopping.wait(10)


@pytest.mark.parametrize("intent", ["read", "create", "update"])
@pytest.mark.parametrize(
    "script",
    [trickled_header, trickled_body, trickled_body_until_close, trickled_chunks, endless_continue, silent],
)
def test_the_deadline_is_for_the_whole_request(script: Script, intent: Intent) -> None:
    with RawServer(script) as server:
        started = time.monotonic()
        found = outcome(lambda: session(timeout=0.4).request("POST", f"{server.url}/x", intent=intent, json={}))
        assert time.monotonic() - started < 1.5
    assert type(found) is (Unavailable if intent == "read" else OutcomeUnknown)
    assert str(found) == f"psa: POST 127.0.0.1:{server.port}/x: no complete answer within 0.4 s"


def reset_after_request(talk: Talk) -> None:
    talk.receive()
    talk.reset()


def closes_after_request(talk: Talk) -> None:
    talk.receive()


def half_a_body(talk: Talk) -> None:
    talk.receive()
    talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")


def half_a_header(talk: Talk) -> None:
    talk.receive()
    talk.say(b"HTTP/1.1 200 OK\r\nContent-Le")


def not_http(talk: Talk) -> None:
    talk.receive()
    talk.say(b"220 mail.example.com ESMTP\r\n")


# What is counted


def test_each_answer_is_told_by_its_status_and_each_missing_one() -> None:
    told: list[str] = []
    refusals = [answers(answer(status=f"{status} No")) for status in (404, 503)]
    for script in (answers(answer()), *refusals, silent, not_http):
        with RawServer(script) as server:
            http = session(timeout=0.4, answered=told.append)
            with contextlib.suppress(Outcome):
                http.request("GET", f"{server.url}/x")
    assert told == ["200", "404", "503", "none", "none"]


def test_what_was_held_back_is_not_counted() -> None:
    told: list[str] = []

    def held() -> None:
        raise Unavailable("paused")

    with RawServer(answers(answer())) as server:
        for name in ("before_request", "before_send"):
            http = session(answered=told.append, **{name: held})
            with pytest.raises(Unavailable, match="paused"):
                http.request("GET", f"{server.url}/x")
    assert told == []


@pytest.mark.parametrize("intent", ["read", "create", "update"])
@pytest.mark.parametrize(
    "script",
    [
        reset_after_request,
        closes_after_request,
        half_a_body,
        not_http,
        answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        answers(answer(b"not gzip", headers="Content-Encoding: gzip\r\n")),
        answers(answer(b"x" * 2000)),
        answers(answer(gzip.compress(b"x" * 200_000), headers="Content-Encoding: gzip\r\n")),
        answers(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n"),
    ],
)
def test_an_answer_lost_after_sending_is_in_doubt(script: Script, intent: Intent) -> None:
    with RawServer(script) as server:
        found = outcome(lambda: session(max_bytes=1000).request("POST", server.url, intent=intent, json={}))
        assert len(server.requests) == 1
    assert type(found) is (Unavailable if intent == "read" else OutcomeUnknown)


def test_an_answer_cut_off_in_its_headers_is_at_most_an_empty_one() -> None:
    with RawServer(half_a_header) as server:
        got = session().request("POST", server.url, intent="create", json={})
    assert (got.status, got.text, got.json) == (200, "", None)


def refused_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x"


def test_a_refused_connection_was_certainly_not_sent() -> None:
    found = outcome(lambda: session().request("POST", refused_port(), intent="create"))
    assert type(found) is Unavailable
    assert "Connection refused" in str(found)


def test_an_unknown_name_was_certainly_not_sent() -> None:
    found = outcome(lambda: session().request("POST", "https://no-such-host.invalid/", intent="create"))
    assert type(found) is Unavailable
    assert "no connection" in str(found)


def test_a_name_look_up_that_hangs_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = threading.Event()
    lookups: list[str] = []

    def stuck(host: str, *_: object, **__: object) -> list[Any]:
        lookups.append(host)
        freed.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    try:
        for _ in range(2):
            found = outcome(lambda: session(timeout=0.1).request("POST", "https://slow.example/", intent="create"))
            assert str(found) == "psa: POST slow.example/: no connection within 0.1 s"
            assert type(found) is Unavailable
        assert lookups == ["slow.example"]
    finally:
        freed.set()


class Held:
    """A lease that holds until it was asked `times` times; it is lost once `arrived` says that bytes came."""

    def __init__(self, times: int, arrived: threading.Event | None = None) -> None:
        self.left = times
        self.arrived = arrived

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            if self.arrived:
                self.arrived.wait(5)
            raise Unavailable("the lease was lost")


def test_a_request_whose_lease_is_lost_does_not_leave() -> None:
    with RawServer(answers(answer())) as server:
        found = outcome(lambda: session(before_send=Held(0)).request("POST", server.url, intent="create"))
    assert (type(found), str(found)) == (Unavailable, "the lease was lost")
    assert not any(server.requests)


@pytest.mark.parametrize("asked", [1, 2], ids=["after the head", "before the last bytes"])
def test_a_request_whose_lease_is_lost_on_the_way_ends_in_a_reset(asked: int) -> None:
    """An orderly end could be taken for the end of the request."""
    ended: list[OSError] = []
    arrived = threading.Event()

    def until_reset(talk: Talk) -> None:
        talk.connection.recv(1, socket.MSG_PEEK)
        arrived.set()
        try:
            talk.receive()
        except OSError as error:
            ended.append(error)

    with RawServer(until_reset) as server:
        lost = session(before_send=Held(asked, arrived))
        found = outcome(lambda: lost.request("POST", server.url, intent="create", json={"text": "x" * 5000}))
        for thread in server.threads[1:]:
            thread.join()
    assert (type(found), str(found)) == (Unavailable, "the lease was lost")
    assert [type(error) for error in ended] == [ConnectionResetError]
    assert server.requests == []


def test_a_request_whose_lease_holds_is_asked_about_to_the_end() -> None:
    held = Held(3)
    with RawServer(answers(answer())) as server:
        session(before_send=held).request("POST", server.url, intent="create", json={"text": "x" * 5000})
    assert held.left == 0
    [request] = server.requests
    assert request.endswith(b'x"}')


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize(("deliver_within", "milliseconds"), [(None, 5000), (2.5, 2500), (60, 5000)])
def test_the_kernel_gives_up_what_the_other_side_does_not_take(
    deliver_within: float | None, milliseconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    hold = deadline._Watchdog.hold

    def spy(self: deadline._Watchdog, attempt: deadline.Attempt, lever: socket.socket | None) -> None:
        if lever is not None:
            found.append(lever.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        hold(self, attempt, lever)

    monkeypatch.setattr(deadline._Watchdog, "hold", spy)
    with RawServer(answers(answer())) as server:
        session(deliver_within=deliver_within).request("GET", server.url)
    assert set(found) == {milliseconds}


def test_what_the_deadline_cuts_off_is_never_delivered() -> None:
    """The other side stops reading; at the deadline the rest, which the kernel holds, is dropped with a reset."""
    read, over = bytearray(), threading.Event()
    ended: list[OSError] = []

    def reads_late(talk: Talk) -> None:
        over.wait(20)
        try:
            while more := talk.connection.recv(65536):
                read.extend(more)
        except OSError as error:
            ended.append(error)

    body = {"text": "x" * 20_000_000}
    with RawServer(reads_late) as server:
        found = outcome(lambda: session(timeout=2).request("POST", server.url, intent="create", json=body))
        over.set()
        for thread in server.threads[1:]:
            thread.join()
    assert type(found) is OutcomeUnknown
    assert len(read) < 20_000_000
    assert [type(error) for error in ended] == [ConnectionResetError]


def test_a_connection_that_is_not_accepted_was_certainly_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            found = outcome(
                lambda: session(timeout=0.15).request("POST", f"http://127.0.0.1:{address[1]}/", intent="create")
            )
        finally:
            for filler in fillers:
                filler.close()
    assert type(found) is Unavailable
    assert "no connection" in str(found)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1\x00/", "http://[::1/", "ftp://127.0.0.1/", "/relative", "http://127.0.0.1:0/"]
)
def test_an_address_that_is_none_is_a_misconfiguration(url: str) -> None:
    assert type(outcome(lambda: session().request("GET", url))) is Misconfigured


@pytest.mark.parametrize("headers", [{"X-Key": "a\r\nInjected: b"}, {"X-Key": "schlüßel€"}])
def test_a_credential_that_fits_no_header_is_a_misconfiguration_without_its_value(headers: dict[str, str]) -> None:
    with RawServer(answers(answer())) as server:
        found = outcome(lambda: session(headers=headers).request("POST", server.url, intent="create"))
        assert server.requests == []
    assert type(found) is Misconfigured
    assert headers["X-Key"][:3] not in str(found).split("psa:")[1]


# What an answer means


@pytest.mark.parametrize(
    ("status", "read", "create", "update"),
    [
        (301, Misconfigured, Misconfigured, Misconfigured),
        (304, Misconfigured, Misconfigured, Misconfigured),
        (400, Misconfigured, Rejected, Rejected),
        (401, Misconfigured, Misconfigured, Misconfigured),
        (403, Misconfigured, Misconfigured, Misconfigured),
        (404, Misconfigured, Misconfigured, Misconfigured),
        (405, Misconfigured, Misconfigured, Misconfigured),
        (407, Misconfigured, Misconfigured, Misconfigured),
        (408, Unavailable, OutcomeUnknown, OutcomeUnknown),
        (409, Unavailable, OutcomeUnknown, Unavailable),
        (413, Misconfigured, Rejected, Rejected),
        (415, Misconfigured, Misconfigured, Misconfigured),
        (422, Misconfigured, Rejected, Rejected),
        (429, Unavailable, Unavailable, Unavailable),
        (500, Unavailable, OutcomeUnknown, OutcomeUnknown),
        (503, Unavailable, OutcomeUnknown, OutcomeUnknown),
        (599, Unavailable, OutcomeUnknown, OutcomeUnknown),
        (999, Unavailable, OutcomeUnknown, OutcomeUnknown),
        (103, Unavailable, OutcomeUnknown, OutcomeUnknown),
    ],
)
def test_the_status_table(status: int, read: type, create: type, update: type) -> None:
    table: list[tuple[Intent, type]] = [("read", read), ("create", create), ("update", update)]
    for intent, expected in table:
        reply = answer(b'{"message": "said"}', f"{status} Phrase", "Retry-After: 7\r\n")
        with RawServer(answers(reply)) as server:
            found = outcome(lambda: session().request("POST", f"{server.url}/a?key=b", intent=intent))  # noqa: B023
        assert type(found) is expected
        assert f"psa: POST 127.0.0.1:{server.port}/a: answered {status}" in str(found)
        if status in (429, 408, 500, 503):
            assert getattr(found, "retry_after", None) == 7
        if status not in (304, 103):
            assert "said" in str(found)


def test_a_2xx_is_the_answer() -> None:
    script = answers(
        answer(b'{"id": 1}', "201 Created", "X-A: b\r\n"),
        answer(b"<html>", "200 OK", "Content-Type: text/html; charset=nonsense\r\n"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        answer(b"[" * 100_000),
        answer(gzip.compress("grüße".encode()), headers="Content-Encoding: gzip\r\n"),
    )
    with RawServer(script) as server:
        http = session()
        got = [http.request("POST", server.url, intent="create", json={}) for _ in range(5)]
        assert server.connections == 1
    assert [(each.status, each.json) for each in got] == [
        (201, {"id": 1}),
        (200, None),
        (204, None),
        (200, None),
        (200, None),
    ]
    assert got[0].headers["x-a"] == "b"
    assert [got[1].text, got[4].text] == ["<html>", "grüße"]
    http.close()


def test_vendor_hooks_come_before_the_table_and_give_the_sentence() -> None:
    def classify(reply: Answer, intent: Intent) -> Exception | None:
        return Rejected("validation failed") if reply.status == 500 and intent == "create" else None

    http = session(classify=classify, explain=lambda reply: reply.json["errors"][0])
    with RawServer(answers(*[answer(b'{"errors": ["board \\u202eis\\u0000 closed"]}', "500 Oops")] * 2)) as server:
        assert str(outcome(lambda: http.request("POST", server.url, intent="create"))) == "validation failed"
        found = outcome(lambda: http.request("GET", server.url))
        assert str(found).endswith("/: answered 500 Internal Server Error: board is closed")


def test_a_hook_that_stumbles_hides_nothing() -> None:
    def stumble(*_: object) -> Any:
        raise KeyError("errors")

    http = session(classify=stumble, explain=stumble)
    with RawServer(answers(answer(b"[]", "500 Oops"))) as server:
        assert type(outcome(lambda: http.request("POST", server.url, intent="create"))) is OutcomeUnknown


def test_the_systems_own_sentence_is_cut() -> None:
    with RawServer(answers(answer(b"{}", "400 Bad"))) as server:
        http = session(explain=lambda _: "word " * 1_000_000)
        assert len(str(outcome(lambda: http.request("POST", server.url, intent="create")))) < 400


# Redirects, proxies, .netrc, cookies, plain http


def test_a_redirect_is_not_followed_and_its_body_not_awaited() -> None:
    with RawServer(answers(answer())) as target:

        def script(talk: Talk) -> None:
            talk.receive()
            talk.say(answer(b"", "302 Found", f"Location: {target.url}/stolen?x\r\n"))

        with RawServer(script) as server:
            found = outcome(lambda: session().request("GET", f"http://localhost:{server.port}/"))
        assert target.requests == []
    assert type(found) is Misconfigured
    assert "it points to 127.0.0.1, but redirects are never followed" in str(found)


def test_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    with RawServer(answers(answer())) as server:
        session(auth=None).request("GET", server.url)
        assert b"authorization" not in server.requests[0].lower()


def test_cookies_are_not_kept() -> None:
    with RawServer(answers(answer(headers="Set-Cookie: a=b; Path=/\r\n"), answer())) as server:
        http = session()
        for _ in range(2):
            http.request("GET", server.url)
        assert b"cookie" not in server.requests[1].lower()
        http.close()


def test_the_environments_proxy_is_used_but_not_for_loopback_or_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answers(answer(b'"proxied"'))) as proxy, RawServer(answers(answer(b'"direct"'))) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:proxy-pass@"))
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:proxy-pass@"))
        http = session(insecure_http=True)
        assert http.request("GET", "http://psa.example/a").json == "proxied"
        assert proxy.requests[0].startswith(b"GET http://psa.example/a HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic bWU6cHJveHktcGFzcw==" in proxy.requests[0]
        assert http.request("GET", server.url).json == "direct"
        monkeypatch.setenv("no_proxy", ".invalid")
        assert type(outcome(lambda: http.request("GET", "http://psa.invalid/"))) is Unavailable
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", Unavailable, "Tunnel connection failed: 403 No"),
        (b"HTTP/1.1 407 Who\r\n\r\n", Misconfigured, "check the proxy's user and password"),
        (b"", Unavailable, "no connection"),
    ],
)
def test_a_proxys_refusal_was_certainly_not_sent(reply: bytes, expected: type, words: str) -> None:
    with RawServer(answers(reply)) as proxy:
        http = session(proxy=proxy.url)
        found = outcome(lambda: http.request("POST", "https://psa.example/", intent="create"))
        assert proxy.requests[0].startswith(b"CONNECT psa.example:443 ")
    assert type(found) is expected
    assert words in str(found)


def test_a_socks_proxy_is_refused() -> None:
    found = outcome(lambda: session(proxy="socks5://me:proxy-pass@127.0.0.1:1").request("GET", "https://psa.example/"))
    assert type(found) is Misconfigured


@pytest.mark.parametrize(
    ("url", "how"),
    [
        ("http://psa.example/", {}),
        ("http://127.0.0.1.example/", {}),
        ("http://127.0.0.1:1/", {"proxy": "http://proxy.example:3128"}),
        ("https://me:word@127.0.0.1:1/", {}),
    ],
)
def test_credentials_are_not_shown_to_the_network(url: str, how: dict[str, str]) -> None:
    found = outcome(lambda: session(**how).request("GET", url))
    assert type(found) is Misconfigured
    assert "word@" not in str(found)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("127.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def tls(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def test_tls_with_ca_file_keeps_the_connection_and_the_deadline(authority: trustme.CA, ca_file: str) -> None:
    def script(talk: Talk) -> None:
        for _ in range(2):
            talk.receive()
            talk.say(answer())
        trickled_body(talk)

    with RawServer(script, tls(authority)) as server:
        http = session(ca_file=ca_file)
        for _ in range(2):
            assert http.request("POST", server.url, intent="create", json={}).json == {}
        http.timeout = 0.3
        found = outcome(lambda: http.request("POST", server.url, intent="create", json={}))
        assert type(found) is OutcomeUnknown
        assert server.connections == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environments_authorities_serve_too(
    variable: str, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, ca_file)
    with RawServer(answers(answer()), tls(authority)) as server:
        assert session().request("GET", server.url).ok


def test_an_untrusted_certificate_is_a_misconfiguration(authority: trustme.CA, ca_file: str) -> None:
    with RawServer(answers(answer()), tls(authority)) as server:
        found = outcome(lambda: session().request("POST", server.url, intent="create"))
        assert type(found) is Misconfigured
        assert "ca_file" in str(found)
    with RawServer(answers(answer()), tls(authority, "other.example")) as server:
        found = outcome(lambda: session(ca_file=ca_file).request("POST", server.url, intent="create"))
        assert type(found) is Misconfigured
        assert "127.0.0.1" in str(found)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_broken_ca_file_is_a_misconfiguration(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    found = outcome(lambda: session(ca_file=str(path)).request("GET", "https://127.0.0.1:1/"))
    assert type(found) is Misconfigured
    assert str(path) in str(found)


def not_tls(talk: Talk) -> None:
    talk.say(b"220 mail.example.com ESMTP\r\n")


def trickled_handshake(talk: Talk) -> None:
    talk.trickle(b"\x16\x03\x03\x40\x00" + b"\x00" * 1000)


@pytest.mark.parametrize("script", [not_tls, trickled_handshake])
def test_a_failed_handshake_was_certainly_not_sent(script: Script) -> None:
    with RawServer(script) as server:
        url = server.url.replace("http:", "https:")
        started = time.monotonic()
        found = outcome(lambda: session(timeout=0.5).request("POST", url, intent="create"))
        assert time.monotonic() - started < 2
    assert type(found) is Unavailable


# Connections and threads


def keeps_answering(talk: Talk) -> None:
    while talk.receive():
        talk.say(answer(b'{"id": 1}'))


def test_connections_are_kept_and_shared_by_threads() -> None:
    with RawServer(keeps_answering) as server:
        http = session()
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: http.request("GET", server.url).status, range(100)))
        assert results == [200] * 100
        assert len(server.requests) == 100
        assert server.connections <= 4
        http.close()


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(keeps_answering) as server:
        http = session()
        http.request("GET", server.url)
        monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.0)
        http.request("GET", server.url)
        assert server.connections == 2
        http.close()


def test_a_deadline_does_not_hit_the_next_request_on_the_same_connection() -> None:
    with RawServer(keeps_answering) as server:
        http = session(timeout=0.2)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert http.request("GET", server.url).ok
        assert server.connections == 1
        http.close()


def test_one_watchdog_serves_all_and_descriptors_are_given_back() -> None:
    def work() -> None:
        for script in (silent, reset_after_request, trickled_body_until_close):
            with RawServer(script) as server:
                outcome(lambda: session(timeout=0.05).request("GET", server.url))

    work()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        work()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert [thread.name for thread in threading.enumerate()].count("http-deadlines") == 1


def test_before_request_is_asked_every_time_and_can_stop_it() -> None:
    calls: list[int] = []

    def before() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Unavailable("psa is paused", 9)

    with RawServer(keeps_answering) as server:
        http = session(before_request=before)
        http.request("GET", server.url)
        http.request("POST", server.url, intent="create", json={})
        with pytest.raises(Unavailable, match="psa is paused"):
            http.request("POST", server.url, intent="create", json={})
        assert len(server.requests) == 2
        http.close()


def test_what_is_sent() -> None:
    with RawServer(keeps_answering) as server:
        http = session(headers={"clientId": "abc"})
        http.request("GET", f"{server.url}/t", params={"conditions": 'externalXRef="a&b"', "pageSize": 2})
        http.request("POST", server.url, intent="create", data={"grant_type": "client_credentials"})
        http.request("POST", server.url, intent="create", json={"text": "\ud800\x00"})
        first, second, third = server.requests
        http.close()
    assert first.startswith(b"GET /t?conditions=externalXRef%3D%22a%26b%22&pageSize=2 HTTP/1.1\r\n")
    assert b"\r\nclientId: abc\r\n" in first
    assert b"\r\nAuthorization: Basic " + base64.b64encode(f"user:{SECRET}".encode()) in first
    assert second.endswith(b"\r\n\r\ngrant_type=client_credentials")
    assert third.endswith(b'\r\n\r\n{"text": "\\ud800\\u0000"}')


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        f"wrong key {SECRET}!",
        f"Basic {base64.b64encode(f'acme+public:{SECRET}'.encode()).decode()} refused",
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"xx{SECRET}tail".encode()).decode(),
        "k3y%2Fwith%2Bodd%3Dsigns%26more",
        "k3y%2fwith+odd%3dsigns&more",
        "k3y\\/with\\u002bodd=signs&more",
    ],
)
def test_redaction(text: str) -> None:
    shown = redact(text, ["", "abc", SECRET])
    assert "***" in shown
    assert "odd" not in shown
    assert not any(base64.b64encode(SECRET.encode())[i : i + 8].decode() in shown for i in range(20))


def test_redaction_leaves_the_rest_and_stays_fast() -> None:
    assert redact("abc and the rest", ["abc", ""]) == "abc and the rest"
    started = time.monotonic()
    redact("A" * 200_000, [SECRET])
    assert time.monotonic() - started < 1


def test_an_echoed_secret_does_not_reach_the_sentence() -> None:
    body = f'{{"message": "bad key {"x" * 270}{SECRET} given"}}'.encode()
    with RawServer(answers(answer(body, "401 No"))) as server:
        found = outcome(lambda: session().request("GET", f"{server.url}/{SECRET}"))
    assert SECRET[:8] not in str(found)
    assert "***" in str(found)


# Small helpers

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("30", 30),
        (" 1.5 ", 1.5),
        ("-5", 0),
        ("99999999999999", 900),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("Fri, 02 Jan 2099 03:00:00 GMT", 900),
        ("Fri, 99 Jan 2026 03:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after_seconds(value, NOW) == expected


@pytest.mark.parametrize(
    ("configured", "discovered", "expected"),
    [
        ("https://webservices.autotask.net", "https://webservices5.autotask.net/atservicesrest/", True),
        ("https://api-na.myconnectwise.net", "https://na.myconnectwise.net:443/v4_6_release/", True),
        ("https://API-na.myconnectwise.net.", "https://api-na.MYCONNECTWISE.net", True),
        ("https://psa.example", "https://psa.example/x", True),
        ("https://psa.example", "https://evil.example", False),
        ("https://acme.co.uk", "https://evil.co.uk", False),
        ("https://psa.acme.co.uk", "https://api.acme.co.uk", True),
        ("https://webservices.autotask.net", "http://webservices.autotask.net", False),
        ("https://webservices.autotask.net", "https://webservices.autotask.net:8443", False),
        ("https://webservices.autotask.net", "https://a.b.autotask.net", False),
        ("https://webservices.autotask.net", "https://autotask.net", False),
        ("https://webservices.autotask.net", "https://webservices.autotask.net.evil.example", False),
        ("https://webservices.autotask.net", "https://me@webservices5.autotask.net", False),
        ("https://webservices.autotask.net", "https://evil.example\\@webservices5.autotask.net", False),
        ("https://webservices.autotask.net", "https://evil.example\\.autotask.net", False),
        ("https://webservices.autotask.net", "//webservices5.autotask.net", False),
        ("https://webservices.autotask.net", "https://webservices5.autotask.net:x", False),
        ("https://10.0.0.1", "https://11.0.0.1", False),
        ("https://10.0.0.1", "https://10.0.0.1/x", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:9000/x", True),
        ("http://127.0.0.1:8000", "http://localhost:9000/x", False),
        ("http://127.0.0.1:8000", "http://128.0.0.1:8000/x", False),
        ("https://[::1]:1", "https://[::1]:2", True),
        ("", "", False),
    ],
)
def test_same_site(configured: str, discovered: str, expected: bool) -> None:
    assert same_site(configured, discovered) is expected
