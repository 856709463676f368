"""How long a create's bytes take to leave after the lease was asked for the last time. Not a test: prints a table.

A worker that freezes in just this time sends a create under a lease that may be over when it wakes up; a freeze at any
other time is noticed. Run it with the Python that huntress-bridge is installed for:
`python tests/benchmarks/send_window.py`.
"""

from __future__ import annotations

import contextlib
import ssl
import statistics
import time
from typing import Any
from unittest import mock

import click
import trustme
from urllib3.connection import HTTPConnection

from bridge.demo.server import PretendServer, Reply
from connectors.http import HttpSession

#: Requests of each kind.
SAMPLES = 5000
#: Bytes of a create's body: a short ticket, a long one.
SIZES = (500, 20_000)


class Window:
    """Remembers when the lease was asked and how long after it the last call to send returned."""

    def __init__(self) -> None:
        self.asked = 0.0
        self.took = 0.0

    def ask(self) -> None:
        self.asked = time.perf_counter()

    def watching(self) -> contextlib.AbstractContextManager[object]:
        send = HTTPConnection.send

        def timed(connection: HTTPConnection, data: Any) -> None:
            send(connection, data)
            self.took = time.perf_counter() - self.asked

        return mock.patch.object(HTTPConnection, "send", timed)


def windows(url: str, size: int, **how: Any) -> list[float]:
    """Seconds of each request's window."""
    window, found = Window(), []
    session = HttpSession(name="psa", timeout=10, before_send=window.ask, **how)
    with window.watching():
        for _ in range(SAMPLES):
            session.request("POST", url, intent="create", json={"text": "x" * size})
            found.append(window.took)
    session.close()
    return found


def main() -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    click.echo(f"{'':<24}{'median':>10}{'99 %':>10}{'worst':>10}   microseconds of {SAMPLES}")
    with authority.cert_pem.tempfile() as ca_file:
        for scheme, context in (("http", None), ("https", tls)):
            with PretendServer(tls=context) as server:
                server.route("POST", "/", lambda request: Reply(200, {}))
                for size in SIZES:
                    found = windows(server.url + "/", size, **({"ca_file": ca_file} if context else {}))
                    row = (statistics.median(found), statistics.quantiles(found, n=100)[98], max(found))
                    click.echo(f"{f'{scheme}, {size} bytes':<24}" + "".join(f"{value * 1e6:>10.0f}" for value in row))


if __name__ == "__main__":
    main()
