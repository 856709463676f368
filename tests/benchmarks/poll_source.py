"""A source of many open reports, as a process of its own: `python -m tests.benchmarks.poll_source REPORTS`.

Its pages are made beforehand, so that whoever polls waits for nothing but itself. Says its address; `POST
/touch/<number>` changes that report, `GET /asked` tells how often each path was asked for, and over how many
connections. It checks no credentials.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bridge.demo import scenario

#: As the vendor allows on a page.
PAGE = 500
ORGANIZATIONS = 10_000
#: Characters of a report's body: 2 to 5 kB, the vendor says no more than "long".
SHORTEST, LONGEST = 2_000, 5_000


def report(number: int) -> dict[str, Any]:
    """An open report, with its body as long as it is in life."""
    organization = scenario.organization(number % ORGANIZATIONS + 1)
    agent = {"id": number, "hostname": f"HOST-{number}", "domain_name": "EXAMPLE", "platform": "windows"}
    raw = scenario.incident(number, organization, agent, datetime(2026, 3, 2, 8, 15, 42, tzinfo=UTC))
    length = SHORTEST + number * 37 % (LONGEST - SHORTEST)
    lines = f"{raw['body']}\n[{number}] \u201cC:\\Users\\j\u00fcrgen\\run.ps1\u201d\n"
    return raw | {"body": (lines * (length // len(lines) + 1))[:length]}


class Source(ThreadingHTTPServer):
    """Its pages by listing and place."""

    daemon_threads = True

    def __init__(self, reports: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self.pages: dict[tuple[str, int], bytes] = {}
        self.reports = [report(number) for number in range(1, reports + 1)]
        self.fill("sent", "incident_reports", self.reports)
        self.fill("auto_remediating", "incident_reports", [])
        self.fill("", "incident_reports", self.reports[:PAGE])
        self.fill("", "organizations", [scenario.organization(n) for n in range(1, ORGANIZATIONS + 1)])

    def fill(self, status: str, name: str, items: list[dict[str, Any]]) -> None:
        """Makes the pages of one listing."""
        for start in range(0, max(1, len(items)), PAGE):
            more = start + PAGE < len(items)
            place = {"next_page_token": str(start + PAGE)} if more else {}
            body = json.dumps({name: items[start : start + PAGE], "pagination": place}, ensure_ascii=False)
            self.pages[f"{name}:{status}", start] = body.encode()

    def touch(self, number: int) -> None:
        """Changes a report, but not its `updated_at`."""
        self.reports[number - 1]["summary"] += " Seen again."
        start = (number - 1) // PAGE * PAGE
        key = "incident_reports:sent", start
        more = start + PAGE < len(self.reports)
        place = {"next_page_token": str(start + PAGE)} if more else {}
        body = {"incident_reports": self.reports[start : start + PAGE], "pagination": place}
        self.pages[key] = json.dumps(body, ensure_ascii=False).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Source

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        name = parts.path.rpartition("/")[2]
        if name == "asked":
            self._answer(json.dumps({"paths": self.server.asked, "connections": self.server.connections}).encode())
            return
        self.server.asked[name] += 1
        if name == "account":
            self._answer(json.dumps({"account": scenario.ACCOUNT}).encode())
        else:
            key = f"{name}:{query.get('status', '')}", int(query.get("page_token", 0))
            self._answer(self.server.pages[key])

    def do_POST(self) -> None:
        self.server.touch(int(self.path.rpartition("/")[2]))
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    server = Source(int(sys.argv[1]))
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
