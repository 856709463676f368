"""The contract, run on the example: `pytest contract.py` where the package is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pytest
from example_tracker.connector import Tracker

from bridge.demo.server import PretendServer, Received, Reply
from connectors.testing import RETRY_AFTER, ConnectorContract, Fault, Kind, PretendSystem, SeenTicket

TOKEN = "tracker-Secret-4711"

FAULTS: Mapping[Fault, Mapping[str, Any]] = {
    "drop": {"kind": "drop"},
    "commit_drop": {"kind": "commit_drop"},
    "silent": {"kind": "hang", "delay": 60},
    "error": {"kind": "status", "status": 503},
    "commit_error": {"kind": "commit_status", "status": 500},
    "busy": {"kind": "status", "status": 429, "headers": {"Retry-After": str(RETRY_AFTER)}},
    "denied": {"kind": "status", "status": 401},
    "garbage": {"kind": "garbage"},
}


class PretendTracker:
    """The tracker; any server that shows its side like this will do."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.server = PretendServer()
        self.server.route("GET", "/me", self.guarded(lambda request: Reply(200, {"name": "bridge"})))
        self.server.route("GET", "/tickets", self.guarded(self.search))
        self.server.route("POST", "/tickets", self.guarded(self.add))
        self.server.route("POST", r"/tickets/(\d+)/notes", self.guarded(self.add_note))

    def guarded(self, handler: Any) -> Any:
        def guard(request: Received, *groups: str) -> Reply:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return Reply(401, {"message": "unknown token"})
            reply: Reply = handler(request, *groups)
            return reply

        return guard

    def search(self, request: Received) -> Reply:
        return Reply(200, [row for row in self.rows if row["reference"] == request.query["reference"]])

    def add(self, request: Received) -> Reply:
        row = {"id": len(self.rows) + 1, "notes": [], **request.json}
        self.rows.append(row)
        return Reply(201, row)

    def add_note(self, request: Received, number: str) -> Reply:
        self.rows[int(number) - 1]["notes"].append(request.json["text"])
        return Reply(201, {})

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        assert self.server.handler_errors == []

    def settings(self) -> Mapping[str, Any]:
        return {"type": "tracker", "url": self.server.url, "token": TOKEN}

    def secrets(self) -> Sequence[str]:
        return [TOKEN]

    def requests(self) -> Sequence[Kind]:
        def kind(request: Received) -> Kind:
            if request.method == "GET":
                return "read"
            return "create" if request.path == "/tickets" else "change"

        with self.server.lock:
            return [kind(request) for request in self.server.received]

    def tickets(self) -> Sequence[SeenTicket]:
        with self.server.lock:
            return [
                SeenTicket(str(row["id"]), row["reference"], row["title"], [row["text"]], fields={"keys": sorted(row)})
                for row in self.rows
            ]

    def notes(self, ticket_id: str) -> Sequence[str]:
        with self.server.lock:
            return list(self.rows[int(ticket_id) - 1]["notes"])

    def misbehave(self, fault: Fault, kind: Kind | None = None) -> None:
        method, path = {"create": ("POST", "/tickets$"), "read": ("GET", "")}.get(kind or "", ("*", ""))
        self.server.fault(**FAULTS[fault], method=method, path=path, times=None)

    def behave(self) -> None:
        with self.server.lock:
            self.server.faults.clear()

    def stop(self) -> None:
        self.server.stop()


class TestTracker(ConnectorContract):
    connector_class = Tracker

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        with PretendTracker() as system:
            yield system
