"""How long a create's bytes take to leave after the lease was asked for the last time.

A worker that freezes in just this time sends a create under a lease that may be over when it wakes up; a freeze at any
other time is noticed.
"""

from __future__ import annotations

import contextlib
import ssl
import statistics
import time
from typing import Any
from unittest import mock

import trustme
from urllib3.connection import HTTPConnection

from bridge.demo.server import PretendServer, Reply
from connectors.http import HttpSession
from tests.benchmarks.table import Row

#: Requests of each kind.
SAMPLES = 2000
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


def measure(runs: int) -> list[Row]:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    rows = []
    with authority.cert_pem.tempfile() as ca_file:
        for scheme, context in (("http", None), ("https", tls)):
            with PretendServer(tls=context) as server:
                server.route("POST", "/", lambda request: Reply(200, {}))
                for size in SIZES:
                    how = {"ca_file": ca_file} if context else {}
                    found = [windows(server.url + "/", size, **how) for _ in range(runs)]
                    rows.append(
                        Row(
                            f"last look at the lease until the create has left, {scheme}, {size:,} bytes, p50",
                            "µs",
                            [statistics.median(each) * 1e6 for each in found],
                            note=f"p99 {max(statistics.quantiles(each, n=100)[98] for each in found) * 1e6:.0f}, "
                            f"longest {max(map(max, found)) * 1e6:,.0f}",
                        )
                    )
    return rows
