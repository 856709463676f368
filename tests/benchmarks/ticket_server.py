"""A ticket system that costs little: answers like ConnectWise, for whoever is measured. Not a test.

`python -m tests.benchmarks.ticket_server FILE` serves on a free port of loopback and writes that into FILE. Answers
wait while the gate is shut, so that everybody starts from full hands; `answer_after` delays each by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

_REFERENCE = re.compile(r'externalXRef="([A-Za-z0-9-]+)"')
#: Setup tables by the end of their path.
_TABLES: dict[str, object] = {
    "/boards": [{"id": 1, "name": "Security"}],
    "/service/priorities": [{"id": 1, "name": "Priority 1"}],
    "/company/companies": [{"id": 1, "identifier": "Catchall", "name": "Catchall"}],
}


class System:
    """What the tickets are, and what was asked."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.numbers: dict[str, int] = {}
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self.held = 0
        self.answer_after = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.opened_at = self.first_at = self.last_at = 0.0

    async def answer(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        """The status and what is said."""
        path = urlsplit(target).path
        if path == "/steer":
            return 200, self.steer(json.loads(body))
        tickets = path.endswith("/service/tickets")
        self.asked[f"{method} {'tickets' if tickets else 'one ticket' if '/tickets/' in path else 'setup'}"] += 1
        if tickets or "/tickets/" in path:
            if not self.gate.is_set():
                self.held += 1
                await self.gate.wait()
                self.held -= 1
            if self.answer_after:
                await asyncio.sleep(self.answer_after)
        if path.startswith("/login/companyinfo/"):
            return 200, {"Codebase": "v2026_1/", "IsCloud": False}
        if tickets and method == "POST":
            return 201, self.make(json.loads(body)["externalXRef"])
        if tickets:
            found = _REFERENCE.search(unquote_plus(target))
            number = self.numbers.get(found[1]) if found else None
            return 200, [{"id": number, "externalXRef": found[1]}] if found and number else []
        for end, rows in _TABLES.items():
            if path.endswith(end):
                return 200, rows
        if "/tickets/" in path:
            number = int(path.rpartition("/")[2])
            return 200, {"id": number, "status": {"id": 1, "name": "New"}, "board": {"id": 1, "name": "Security"}}
        return 404, {"code": "NotFound", "message": path}

    def make(self, reference: str) -> object:
        number = 1000 + sum(self.made.values())
        self.made[reference] += 1
        self.numbers.setdefault(reference, number)
        self.last_at = time.monotonic()
        self.first_at = self.first_at or self.last_at
        return {"id": number, "summary": "…", "status": {"id": 1, "name": "New"}, "externalXRef": reference}

    def steer(self, order: dict[str, object]) -> object:
        """`gate` (open?), `answer_after` (s), `forget`; answers how things stand."""
        if order.get("forget"):
            self.made.clear()
            self.numbers.clear()
            self.asked.clear()
            self.first_at = self.last_at = 0.0
        if "answer_after" in order:
            self.answer_after = float(str(order["answer_after"]))
        if order.get("gate") is False:
            self.gate.clear()
        elif order.get("gate"):
            self.gate.set()
            self.opened_at = time.monotonic()
        return {
            "tickets": len(self.made),
            "doubled": sum(times - 1 for times in self.made.values()),
            "asked": self.asked,
            "held": self.held,
            "connections": self.connections,
            "seconds": self.last_at - max(self.opened_at, 0.0),
            "first": self.first_at - self.opened_at,
        }


class Connection(asyncio.Protocol):
    """HTTP/1.1, kept alive; no more of it than clients send here: a head, and a body of `Content-Length` bytes."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        #: Answers under way; the event loop itself holds them but weakly.
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.system.connections += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self.buffer = rest[size:]
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        task = asyncio.get_running_loop().create_task(self.respond(method, target, rest[:size]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def respond(self, method: str, target: str, body: bytes) -> None:
        status, said = await self.system.answer(method, target, body)
        text = json.dumps(said).encode()
        head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        if self.transport is not None:
            self.transport.write(head.encode() + text)


async def serve(file: Path) -> None:
    system = System()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(system), "127.0.0.1", 0)
    unfinished = file.with_suffix(".new")
    unfinished.write_text(str(server.sockets[0].getsockname()[1]), encoding="utf-8")
    unfinished.rename(file)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1])))
