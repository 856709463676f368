"""A small HTTP server on loopback that remembers what it was asked and can be told to misbehave.

The pretend Huntress, ConnectWise and Autotask are built on it. Tests judge the bridge by what these servers received.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import re
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from requests.structures import CaseInsensitiveDict

from connectors.deadline import forget_unsent

FaultKind = Literal[
    "drop",  # close the connection before doing anything
    "commit_drop",  # do it, then close the connection without an answer
    "drop_commit",  # close the connection without an answer, then do it `delay` seconds later
    "status",  # answer `status` without doing anything
    "commit_status",  # do it, then answer `status`
    "hang",  # wait `delay` seconds before doing anything, then close without an answer
    "late",  # wait `delay` seconds, then do it and answer
    "garbage",  # answer 200 with a body that is not JSON, without doing anything
    "trickle",  # do it, then answer one byte every `delay` (0: one) seconds
]


@dataclass
class Fault:
    """Misbehaviour for requests whose method and path match, `times` times (None: for ever)."""

    kind: FaultKind
    method: str = "*"
    #: Regular expression searched in the path.
    path: str = ""
    times: int | None = 1
    status: int = 500
    delay: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    #: Regular expression searched in the request's query and body.
    about: str = ""
    #: How often it happened.
    met: int = 0

    def matches(self, request: Received) -> bool:
        """Is this fault meant for `request`, and has it times left?"""
        meant = self.method in ("*", request.method) and re.search(self.path, request.path) is not None
        return meant and (self.times is None or self.times > 0) and request.mentions(self.about)


class Unrest:
    """A bad hour: every request meets one of `RANDOM_FAULTS` with this probability, drawn with `seed`."""

    def __init__(self, probability: float, seed: int) -> None:
        self.probability = probability
        #: Requests that met a fault.
        self.met = 0
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def strike(self) -> Fault | None:
        """What happens to the next request; None: nothing."""
        if self._random.random() >= self.probability:
            return None
        self.met += 1
        return self._random.choice(RANDOM_FAULTS)


#: What `Unrest` draws from.
RANDOM_FAULTS = (
    Fault("drop"),
    Fault("commit_drop"),
    Fault("status", status=500),
    Fault("commit_status", status=500),
    Fault("status", status=503),
    Fault("status", status=429, headers={"Retry-After": "1"}),
)


@dataclass(frozen=True)
class Received:
    """One request as it arrived. `at` is time.monotonic(); header names are found in any case."""

    at: float
    method: str
    #: Percent-decoded, without the query.
    path: str
    #: The last value where a name is given several times.
    query: Mapping[str, str]
    headers: Mapping[str, str]
    #: None when the body is empty or not JSON.
    json: Any
    body: bytes = b""
    #: Path and query as they stood in the request line.
    target: str = ""
    #: The address that it came from, without the port.
    sender: str = ""

    def mentions(self, text_regex: str) -> bool:
        """Is it found in one of the query's values or in the body?"""
        texts = [*self.query.values(), self.body.decode("utf-8", "replace")]
        return any(re.search(text_regex, text) for text in texts)


@dataclass
class Reply:
    """What a handler answers; a `str` or `bytes` body is sent as it is, None as nothing, anything else as JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Received], Reply]


class PretendServer:
    """Base of the pretend systems. Subclasses register routes; `url` is where it listens, on loopback by default.

    The port is bound at construction, so `url` is known before `start`. `advertise` replaces the host in `url`, for a
    server that listens on every interface. A stopped server can be started again, on the same port.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, advertise: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        #: Held while a handler runs, so the state of a pretend system needs no lock of its own.
        self.lock = threading.RLock()
        #: Everything received, in order; guarded by `lock`.
        self.received: list[Received] = []
        self.faults: list[Fault] = []
        #: Happens to requests that none of `faults` is meant for; None: nothing does.
        self.unrest: Unrest | None = None
        #: Seconds every request takes at least.
        self.latency = 0.0
        #: Seconds until a new connection is first read from: with TLS, how long the handshake takes.
        self.handshake = 0.0
        #: Are connections kept for further requests?
        self.keep_alive = True
        #: Most requests that were inside the server at the same time.
        self.peak_in_flight = 0
        #: Tracebacks of handlers that failed; their requests were answered 500.
        self.handler_errors: list[str] = []
        self._in_flight = 0
        self._routes: dict[tuple[str, str], Callable[..., Reply]] = {}
        self._stopping = threading.Event()
        self._tls = tls
        self._listener: _Listener | None = _Listener((host, port), self)
        self._address: tuple[str, int] = (host, self._listener.server_port)
        self._acceptor: threading.Thread | None = None
        shown = advertise or ("127.0.0.1" if host in ("", "0.0.0.0") else host)  # noqa: S104 - compared, not bound
        self.url = f"{'https' if tls else 'http'}://{shown}:{self._address[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def route(self, method: str, pattern: str, handler: Callable[..., Reply]) -> None:
        """Calls `handler(request, *groups)` for paths that match the whole regular expression `pattern`.

        The first registered match answers; registering the same method and pattern again replaces it.
        """
        self._routes[method, pattern] = handler

    def start(self) -> None:
        if self._acceptor:
            return
        self._stopping.clear()
        listener = self._listener = self._listener or _Listener(self._address, self)
        self._acceptor = threading.Thread(
            target=listener.serve_forever, kwargs={"poll_interval": 0.02}, name=type(self).__name__, daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Closes every connection at once, also those in mid-answer. Safe to call twice."""
        self._stopping.set()
        listener, self._listener = self._listener, None
        acceptor, self._acceptor = self._acceptor, None
        if listener is None:
            return
        if acceptor:
            listener.shutdown()
            acceptor.join()
        listener.server_close()
        listener.hang_up()

    def requests_to(self, path_regex: str, method: str = "*") -> list[Received]:
        """What was received so far for paths in which `path_regex` is found."""
        with self.lock:
            return [r for r in self.received if method in ("*", r.method) and re.search(path_regex, r.path)]

    def fault(self, kind: FaultKind, **how: Any) -> Fault:
        """Adds a `Fault` and returns it."""
        fault = Fault(kind, **how)
        with self.lock:
            self.faults.append(fault)
        return fault

    def answer(self, request: Received) -> Reply:
        """Does what `request` asks: the matching route's handler, else 404 or 405. Subclasses may check keys here."""
        allowed = False
        for (method, pattern), handler in list(self._routes.items()):
            match = re.fullmatch(pattern, request.path)
            if match and method in ("*", request.method):
                return handler(request, *match.groups())
            allowed = allowed or match is not None
        if allowed:
            return Reply(405, {"message": f"{request.method} is not allowed on {request.path}"})
        return Reply(404, {"message": f"no such resource: {request.path}"})

    # What follows is called by the connection threads.

    def _arrived(self, request: Received) -> Fault | None:
        with self.lock:
            self.received.append(request)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            fault = next((fault for fault in self.faults if fault.matches(request)), None)
            if fault is None:
                return self.unrest.strike() if self.unrest else None
            fault.met += 1
            if fault.times is not None:
                fault.times -= 1
            return fault

    def _left(self) -> None:
        with self.lock:
            self._in_flight -= 1

    def _commit(self, request: Received) -> Reply:
        with self.lock:
            try:
                return self.answer(request)
            except Exception:
                self.handler_errors.append(traceback.format_exc())
                return Reply(500, {"message": f"the pretend system failed on {request.method} {request.path}"})

    def _pause(self, seconds: float) -> None:
        """Waits; a stop of the server ends the wait and the connection."""
        if seconds > 0 and self._stopping.wait(seconds):
            raise _HangUp


class _HangUp(Exception):
    """The connection is to be aborted without an answer."""


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], pretend: PretendServer) -> None:
        self.pretend = pretend
        self.connections: dict[socket.socket, threading.Thread] = {}
        self.guard = threading.Lock()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = self.socket.accept()
        if self.pretend._tls:
            # The handshake happens at the first read, in the connection's own thread.
            connection = self.pretend._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self.guard:
            self.connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self.guard:
            self.connections.pop(request, None)
        if _aborts(request):
            request.close()  # no orderly FIN first: the reset is what was wanted
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or never finished its handshake, is ordinary."""

    def hang_up(self) -> None:
        """Ends every connection and waits for its thread."""
        with self.guard:
            open_now = list(self.connections.items())
            for connection, _ in open_now:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's, which would drop the TLS object under the thread that reads from it.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for _, thread in open_now:
            thread.join(timeout=5)


def _aborts(connection: socket.socket) -> bool:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
    except OSError:
        return True


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        """The server's log is `received`."""

    def handle(self) -> None:
        with contextlib.suppress(_HangUp):
            self.server.pretend._pause(self.server.pretend.handshake)
            super().handle()

    def _serve(self) -> None:
        request = self._read()
        pretend = self.server.pretend
        fault = pretend._arrived(request)
        try:
            pretend._pause(pretend.latency)
            self._respond(pretend, request, fault)
        except _HangUp:
            self.close_connection = True
            forget_unsent(self.connection)
        except OSError:
            self.close_connection = True
        finally:
            pretend._left()
        self.close_connection = self.close_connection or not pretend.keep_alive

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _respond(self, pretend: PretendServer, request: Received, fault: Fault | None) -> None:
        match fault.kind if fault else None:
            case "drop":
                raise _HangUp
            case "commit_drop":
                pretend._commit(request)
                raise _HangUp
            case "drop_commit":
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
                pretend._pause(cast(Fault, fault).delay)
                pretend._commit(request)
                raise _HangUp
            case "hang":
                pretend._pause(cast(Fault, fault).delay)
                raise _HangUp
            case "late":
                pretend._pause(cast(Fault, fault).delay)
        if fault is None or fault.kind == "late":
            self._send(pretend._commit(request))
        elif fault.kind == "trickle":
            for byte in self._encode(pretend._commit(request)):
                self.wfile.write(bytes([byte]))
                pretend._pause(fault.delay or 1)
        elif fault.kind == "garbage":
            self._send(Reply(200, fault.body or "<html>not <json", fault.headers))
        else:
            if fault.kind == "commit_status":
                pretend._commit(request)
            self._send(Reply(fault.status, fault.body, fault.headers))

    def _read(self) -> Received:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            parsed = json.loads(body) if body else None
        except (ValueError, RecursionError):
            parsed = None
        parts = urlsplit(self.path)
        return Received(
            at=time.monotonic(),
            method=self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=CaseInsensitiveDict(self.headers.items()),
            json=parsed,
            body=body,
            target=self.path,
            sender=self.client_address[0],
        )

    def _send(self, reply: Reply) -> None:
        self.wfile.write(self._encode(reply))

    def _encode(self, reply: Reply) -> bytes:
        body, kind = _body_and_type(reply.body)
        headers = {"Content-Type": kind, **reply.headers} if body else dict(reply.headers)
        if not self.server.pretend.keep_alive:
            headers["Connection"] = "close"
        if reply.status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(body))
        phrase = HTTPStatus(reply.status).phrase if reply.status in set(HTTPStatus) else "Unnamed"
        lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head if self.command == "HEAD" or reply.status == HTTPStatus.NO_CONTENT else head + body


def _body_and_type(body: Any) -> tuple[bytes, str]:
    match body:
        case None:
            return b"", ""
        case bytes():
            return body, "application/octet-stream"
        case str():
            return body.encode("utf-8", "surrogatepass"), "text/plain; charset=utf-8"
    return json.dumps(body).encode(), "application/json"
