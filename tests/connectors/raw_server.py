"""A server that says exactly the bytes it is told to, for what an HTTP library would be too polite to send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self

from connectors.deadline import forget_unsent

Script = Callable[["Talk"], None]


class Talk:
    """One accepted connection, for a script to play its part in."""

    def __init__(self, connection: socket.socket, server: RawServer) -> None:
        self.connection = connection
        self.server = server

    def receive(self) -> bytes:
        """One request: head, and body by its Content-Length. Empty once the other side has closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.connection.recv(65536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            more = self.connection.recv(65536)
            if not more:
                return b""
            body += more
        request = head + b"\r\n\r\n" + body
        self.server.requests.append(request)
        return request

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def trickle(self, data: bytes, pause: float = 0.05) -> None:
        """A byte every `pause` seconds, until the other side has had enough or the server stops."""
        for byte in data:
            if self.server.stopping.wait(pause):
                return
            self.connection.sendall(bytes([byte]))

    def reset(self) -> None:
        forget_unsent(self.connection)
        self.connection.close()


def answer(body: bytes = b"{}", status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def answers(*what: bytes) -> Script:
    """One answer after the other on one connection, then closes it."""

    def script(talk: Talk) -> None:
        for each in what:
            if not talk.receive():
                return
            talk.say(each)

    return script


class RawServer:
    """Listens on loopback; runs `script` for each connection."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            if not self.tls:
                self.script(Talk(connection, self))
                return
            with self.tls.wrap_socket(connection, server_side=True) as wrapped:
                self.script(Talk(wrapped, self))
