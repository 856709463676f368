"""The page on a real socket: what goes over the wire, and what does not come in."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from bridge.web import server as subject
from bridge.web.server import LONGEST_HEADERS, OF_ONE, SLOWEST, WebServer
from bridge.webhooks import LONGEST_BODY
from tests.web.door import LOCAL, PASSWORD, TOKEN, Door

#: The tests' own connections come from 127.0.0.1.
PROXIED = {
    "password": PASSWORD,
    "trusted_proxies": ["127.0.0.1"],
    "trusted_proxy_header": "X-Forwarded-User",
    "allowed_hosts": ["page.test"],
}


class Wire:
    """One served page. `clock` is what the server takes for the time."""

    def __init__(self, door: Door) -> None:
        self.now = 0.0
        self.port = door.runtime.settings.web.port
        self.server = WebServer(door.runtime, clock=lambda: self.now)

    def ask(
        self, method: str, path: str, body: str | bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read().decode()


@pytest.fixture
def serve(open_door: Callable[..., Door]) -> Iterator[Callable[[dict[str, Any]], Wire]]:
    with contextlib.ExitStack() as stack:

        def serve(web: dict[str, Any]) -> Wire:
            wire = Wire(open_door(web))
            stopping = threading.Event()
            thread = threading.Thread(target=lambda: wire.server.serve(stopping))
            thread.start()
            stack.callback(thread.join)
            stack.callback(stopping.set)
            return wire

        yield serve


def test_the_page_ends_as_soon_as_it_is_told(open_door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LOOK_EVERY", 100.0)
    wire, stopping = Wire(open_door(PROXIED)), threading.Event()
    thread = threading.Thread(target=lambda: wire.server.serve(stopping))
    thread.start()
    wire.ask("GET", "/login")
    stopping.set()
    thread.join(20)
    assert not thread.is_alive()


FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("https", [False, True])
def test_a_log_in_over_the_wire(serve: Callable[..., Wire], https: bool) -> None:
    wire = serve(PROXIED)
    proxy = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "page.test"} if https else {}
    form, text = wire.ask("GET", "/login", **proxy)
    visit = form.getheader("Set-Cookie", "").partition(";")[0]
    token = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', text)
    assert token
    fields = urlencode({"csrf_token": token[1], "password": PASSWORD})
    answer, _ = wire.ask("POST", "/login", fields, Cookie=visit, **FORM, **proxy)
    assert answer.status == 303
    assert answer.getheader("Location") == "/"
    cookies = answer.headers.get_all("Set-Cookie")
    assert cookies is not None
    prefix = "__Host-" if https else ""
    assert [cookie.partition("=")[0] for cookie in cookies] == [f"{prefix}bridge_page", f"{prefix}bridge_device"]
    for cookie in cookies:
        flags = set(cookie.split("; ")[1:])
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= flags
        assert ("Secure" in flags) is https
        assert "Domain" not in cookie
    assert "Max-Age" not in cookies[0], "the session ends with the browser"
    assert (answer.getheader("Strict-Transport-Security") is not None) is https
    inside, page = wire.ask("GET", "/", Cookie=cookies[0].partition(";")[0], **proxy)
    assert inside.status == 200
    assert "Log out" in page


def test_headers_of_every_answer(serve: Callable[..., Wire]) -> None:
    wire = serve(LOCAL)
    for path in ("/", "/login", "/activity", "/healthz", "/status", "/nothing", "/static/page.css", "/static/none"):
        answer, _ = wire.ask("GET", path)
        assert "Server" not in answer.headers
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "geolocation=()" in answer.headers["Permissions-Policy"]
        assert answer.headers["Cache-Control"] == "no-store", path
        assert "Strict-Transport-Security" not in answer.headers


def test_what_is_static_is_kept_by_its_version(serve: Callable[..., Wire]) -> None:
    wire = serve(LOCAL)
    _, page = wire.ask("GET", "/")
    addresses = re.findall(r'"(/static/[^"]+\?v=[0-9a-f]+)"', page)
    assert len(addresses) >= 3
    for address in addresses:
        assert wire.ask("GET", address)[0].headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert wire.ask("GET", "/static/none?v=1")[0].headers["Cache-Control"] == "no-store"


def test_a_name_given_with_an_underscore_is_nobodys(serve: Callable[..., Wire]) -> None:
    """Gateways take `X_Forwarded_User` for `X-Forwarded-User`; proxies do not strip it."""
    wire = serve(PROXIED)
    assert wire.ask("GET", "/", X_Forwarded_User="kim")[0].status == 200
    connection = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"X_Forwarded_User": "kim"})
        assert connection.getresponse().status == 303


def test_what_is_too_long_is_not_read(serve: Callable[..., Wire]) -> None:
    wire = serve(LOCAL)
    form, text = wire.ask("GET", "/activity")
    visit = form.getheader("Set-Cookie", "").partition(";")[0]
    token = re.findall(r'name="csrf-token" content="([0-9a-f]+)"', text)[0]

    def status(fields: list[tuple[str, str]]) -> int:
        body = urlencode([("csrf_token", token), *fields])
        return wire.ask("POST", "/logout", body, Cookie=visit, **FORM)[0].status

    assert status([("report", "1")] * 1000) == 303
    assert status([("report", "1")] * 2001) == 413
    assert status([("reason", "x" * 300_000)]) == 413
    # A body this long is not waited for.
    connection = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/logout")
        connection.putheader("Content-Length", str(LONGEST_BODY + 10))
        connection.endheaders()
        assert connection.getresponse().status == 413
    assert wire.ask("GET", "/", Cookie="x" * LONGEST_HEADERS)[0].status == 431


def test_a_request_that_comes_by_single_bytes_is_cut_off(serve: Callable[..., Wire]) -> None:
    wire = serve(LOCAL)
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        # An answer to another shows that these bytes were read: one thread reads for all.
        assert wire.ask("GET", "/healthz")[0].status == 200
        wire.now += SLOWEST - 1
        slow.sendall(b"x")
        assert wire.ask("GET", "/healthz")[0].status == 200
        wire.now += 2
        slow.sendall(b"x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(100) == b""
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as patient:
        for _ in range(2):  # a connection that stays open may be old
            patient.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert patient.recv(12) == b"HTTP/1.1 200"
            while b"ok\n" not in patient.recv(4096):
                pass
            wire.now += SLOWEST + 1


def answered(wire: Wire, address: str) -> bool:
    """Does a connection from `address` get an answer? Else it was closed."""
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20, source_address=(address, 0)) as one:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return one.recv(12) == b"HTTP/1.1 200"
        return False


@pytest.mark.parametrize(("web", "shut_out"), [(LOCAL, True), (PROXIED, False)])
def test_one_address_cannot_hold_every_connection(
    serve: Callable[..., Wire], web: dict[str, Any], shut_out: bool
) -> None:
    """But a proxy may: it speaks for many."""
    wire = serve(web)
    with contextlib.ExitStack() as stack:
        for _ in range(OF_ONE):
            stack.enter_context(socket.create_connection(("127.0.0.1", wire.port), timeout=20))
        assert answered(wire, "127.0.0.1") is not shut_out
        assert answered(wire, "127.0.0.2")


def test_a_browser_that_holds_its_connection_does_not_hold_up_the_end(open_door: Callable[..., Door]) -> None:
    wire, stopping = Wire(open_door(LOCAL)), threading.Event()
    thread = threading.Thread(target=lambda: wire.server.serve(stopping), daemon=True)
    thread.start()
    with socket.create_connection(("127.0.0.1", wire.port), timeout=20) as browser:
        browser.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert browser.recv(12) == b"HTTP/1.1 200"
        stopping.set()
        thread.join(10)
        assert not thread.is_alive()


def test_nobody_is_told_whose_page_it_is(serve: Callable[..., Wire]) -> None:
    """`/readyz` says no names."""
    wire = serve({"password": PASSWORD, "token": TOKEN, "host": "0.0.0.0"})
    assert [wire.ask("GET", path)[1] for path in ("/healthz", "/readyz")] == ["ok\n", "ok\n"]
