"""One handle for either pretend PSA: what tests make it do, and what they read off it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.server import Fault, FaultKind, PretendServer, Received

#: Names of the connectors, as `World.connectors` and `Stage` have them.
PSAS = ("psa", "desk")


def reference(number: int) -> str:
    return f"huntress-5-{number}"


def exactly(number: int) -> str:
    """A regular expression for a report's reference that finds no longer one."""
    return rf"{reference(number)}(?![0-9])"


class Psa:
    """The pretend ConnectWise (`psa`) or Autotask (`desk`), by the number of a report where one is given."""

    def __init__(self, name: str, server: PretendConnectWise | PretendAutotask) -> None:
        self.name = name
        self.server: PretendServer = server
        self.state = server
        connectwise = isinstance(server, PretendConnectWise)
        self.create_path = "/service/tickets$" if connectwise else "/Tickets$"
        self.look_up_method, self.look_up_path = ("GET", "/service/tickets$") if connectwise else ("POST", "/query$")
        self.field = "externalXRef" if connectwise else "externalID"

    def received(self) -> list[Received]:
        with self.server.lock:
            return list(self.server.received)

    def is_create(self, request: Received, number: int | None = None) -> bool:
        meant = request.method == "POST" and re.search(self.create_path, request.path) is not None
        return meant and (number is None or request.mentions(exactly(number)))

    def is_look_up(self, request: Received, number: int | None = None) -> bool:
        wanted = exactly(number) if number is not None else "huntress-5-[1-9]"
        meant = request.method == self.look_up_method and re.search(self.look_up_path, request.path) is not None
        return meant and request.mentions(wanted)

    def creates(self, number: int | None = None) -> list[Received]:
        return [request for request in self.received() if self.is_create(request, number)]

    def look_ups(self, number: int | None = None) -> list[Received]:
        return [request for request in self.received() if self.is_look_up(request, number)]

    def step(self, request: Received) -> tuple[int, str] | None:
        """The ticket that a request is about, by its id, and what it is to it; None: no step of following one.

        `look` reads the ticket, `note` adds a note, `priority` and `status` change that field.
        """
        found = re.search(r"/tickets/([0-9]+)(/notes)?$", request.path, re.IGNORECASE)
        if request.method == "PATCH":
            body = request.json
            fields = {body[0]["path"]} if isinstance(body, list) else body.keys()
            id = int(found[1] if found else body["id"])
            return next(((id, field) for field in ("priority", "status") if field in fields), None)
        if found and (request.method, bool(found[2])) in (("GET", False), ("POST", True)):
            return int(found[1]), "note" if found[2] else "look"
        return None

    def fault_create(self, kind: FaultKind, number: int | None = None, **how: Any) -> Fault:
        about = "" if number is None else exactly(number)
        return self.server.fault(kind, method="POST", path=self.create_path, about=about, **how)

    def fault_look_up(self, kind: FaultKind, number: int | None = None, **how: Any) -> Fault:
        about = "huntress-5-[1-9]" if number is None else exactly(number)
        return self.server.fault(kind, method=self.look_up_method, path=self.look_up_path, about=about, **how)

    def references(self) -> Counter[str]:
        with self.server.lock:
            return Counter(ticket[self.field] for ticket in self.state.tickets.values())

    def ids(self, number: int) -> list[int]:
        """Tickets that carry the report's reference, in the order they were made."""
        with self.server.lock:
            return [id for id, ticket in self.state.tickets.items() if ticket[self.field] == reference(number)]

    def add_ticket(self, number: int) -> int:
        """Makes one more ticket with the report's reference, as somebody else would."""
        with self.server.lock:
            if isinstance(self.state, PretendAutotask):
                return self.state.add_ticket(externalID=reference(number))
            row = {"board": {"id": next(iter(self.state.boards))}, "company": {"id": 1}, "summary": "by hand"}
            id = self.state._next_id()
            self.state.tickets[id] = row | {"id": id, self.field: reference(number)}
            return id

    def notes(self, id: int) -> list[str]:
        """Texts of a ticket's notes, each with its title where the PSA keeps one."""
        with self.server.lock:
            rows = self.state.notes.get(id, [])
            return [" ".join(str(row[key]) for key in ("title", "text", "description") if key in row) for row in rows]
