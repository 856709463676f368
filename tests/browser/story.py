"""What the browser is shown: a bridge between pretend systems, on a day with a little of everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from werkzeug.routing import Map

from bridge.demo import scenario
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.web.app import create_app
from tests.end_to_end.conftest import Bridge, World, wait_until

#: Reports are 4001 to 4012. `psa` refuses some, one is over; on the last, `desk` asks for a long pause.
FIRST, LAST = 4001, 4012
REFUSED, OVER = (4003, 4006, 4009, 4010), 4004
REFUSAL = "Summary is not allowed on this board"
#: What the states come to, by connector.
SETTLED = {
    ("psa", "created"): 8,
    ("psa", "closed"): 1,
    ("psa", "rejected"): 4,
    ("desk", "created"): 11,
    ("desk", "closed"): 1,
    ("desk", "pending"): 1,
    ("oncall", "created"): 12,
    ("oncall", "closed"): 1,
}
#: The organization for which a company is proposed, and the one that resembles none.
PROPOSED, UNMAPPED = 6, 5
#: Entries of the listing that are no reports.
QUARANTINED: tuple[Any, ...] = (
    {"subject": "CRITICAL - Incident without an id", "status": "sent", "sent_at": "2026-11-01T00:00:00Z"},
    scenario.SAMPLES["full"] | {"id": "not a number"},
)


@dataclass
class Shown:
    """A running bridge, its page and the systems around it."""

    world: World
    bridge: Bridge

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bridge.port}"

    def relent(self) -> None:
        """The ticket systems take everything from now on."""
        for system in (self.world.connectwise, self.world.autotask):
            with system.lock:
                system.faults.clear()

    def rules(self) -> Map:
        """Which paths the page answers."""
        with Runtime(load(self.bridge.config, self.bridge.environment())) as runtime:
            return create_app(runtime).url_map

    def states(self) -> dict[tuple[str, str], int]:
        """How many deliveries are in which state, by connector."""
        found: dict[tuple[str, str], int] = {}
        for row in self.bridge.deliveries():
            key = (row["connector"], row["state"])
            found[key] = found.get(key, 0) + 1
        return found

    def state(self, report: int, connector: str) -> str:
        rows = self.bridge.deliveries()
        return next(str(r["state"]) for r in rows if (r["report_id"], r["connector"]) == (report, connector))


def answers(url: str) -> bool:
    """Does the page's process serve?"""
    try:
        return requests.get(f"{url}/readyz", timeout=5).ok
    except requests.ConnectionError:
        return False


def world() -> World:
    """The systems before the bridge looks at them."""
    made = World(6)
    for system in (made.connectwise, made.autotask):
        del system.companies[UNMAPPED : PROPOSED + 1]
    made.connectwise.companies.append((1006, "ORG6LTD", "Organization 6 Ltd"))
    for number in range(FIRST, LAST):
        # Sent one after the other in the last minutes before the bridge looks.
        sent = scenario.stamp(datetime.now(UTC) - timedelta(seconds=20 * (LAST - number)))
        made.report(number, number % 6 + 1, sent_at=sent, updated_at=sent)
    for number, raw in enumerate(QUARANTINED, 9500):
        made.huntress.reports[number] = raw
    made.huntress.add_escalation([1], id=2001)
    for number in REFUSED:
        made.psas()["psa"].fault_create("status", number, status=400, times=None, body={"message": REFUSAL})
    return made


@contextlib.contextmanager
def running(**tables: Any) -> Iterator[Shown]:
    """The story, told to its end."""
    with contextlib.ExitStack() as stack:
        systems = world().start(stack)
        bridge = Bridge.in_folder(stack, systems, tables)
        (bridge.folder / "organizations.csv").write_text("organization_id,connector,company\n", encoding="utf-8")
        own = {"psa": {"templates": str(bridge.folder / "own")}}
        connectors = {name: table | own.get(name, {}) for name, table in systems.connectors().items()}
        (bridge.folder / "own").mkdir()
        (bridge.folder / "own" / "title.j2").write_text('{% include "_shared/title.j2" %}\n', encoding="utf-8")
        organizations = {"file": str(bridge.folder / "organizations.csv")}
        bridge.write(connectors=connectors, organizations=organizations, sources={"escalations": True})
        shown = Shown(systems, bridge)
        process = bridge.start("run")
        wait_until(lambda: len(systems.mailbox.messages) >= LAST - FIRST + 1, 60, "the mails")
        systems.huntress.close_report(OVER)
        wait_until(lambda: ("desk", "closed") in shown.states(), 60, "an incident's end is told")
        systems.psas()["desk"].fault_create("status", LAST, status=429, times=None, headers={"Retry-After": "900"})
        systems.report(LAST, 1, sent_at=scenario.stamp(datetime.now(UTC)))
        wait_until(lambda: shown.states() == SETTLED, 60, "everything settles")
        assert process.poll() is None
        yield shown
        bridge.stop(process)
