"""Templates that never end or take all memory over one report each, in a `run` that has others to deliver.

The memory of the whole bridge is limited, so that a guard that fails does this machine no harm.
"""

from __future__ import annotations

import contextlib
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_processes import short
from tests.psa import PSAS, Psa, reference

POISON = {
    1: (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "it takes more than 3 s of processor time",
    ),
    2: (
        "{% set ns = namespace(x=subject) %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "it takes more than 256 MB of memory",
    ),
}
#: Delivered before any other, and with the poisonous ones.
FIRST = 3
INNOCENT = range(4, 9)
LIMIT = 4 * 1024**3
#: More than the bridge's own process ever needs, and less than one poisonous rendering would take.
RESIDENT_KB = 200 * 1024


@dataclass
class Ended:
    """What is known when every report has its tickets."""

    psas: dict[str, Psa]
    folder: Path
    #: By PSA, the reports with a ticket when the last of the others had got its.
    meanwhile: dict[str, set[str]]
    deliveries: dict[tuple[str, int], dict[str, Any]]
    resident_kb: int
    log: str


@pytest.fixture(scope="module")
def ended() -> Iterator[Ended]:
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp")))
        poison = "".join(f"{{% if report.id == {id} %}}{body}{{% endif %}}" for id, (body, _) in POISON.items())
        (folder / "text.j2").write_text(poison + '\n{% include "_shared/ticket.j2" %}', "utf-8")
        connectors = {name: table | {"templates": str(folder)} for name, table in short(world).items() if name in PSAS}
        bridge = Bridge(folder, world, {"connectors": connectors})
        stack.callback(bridge.end)
        psas = world.psas()
        world.report(FIRST)
        process = bridge.start("run")
        resource.prlimit(process.pid, resource.RLIMIT_AS, (LIMIT, LIMIT))
        wait_until(lambda: all(len(psa.look_ups(FIRST)) >= 2 for psa in psas.values()), 30, "the first one was proven")
        with world.huntress.lock:
            for number in (*POISON, *INNOCENT):
                world.report(number)
        others = {reference(number) for number in INNOCENT}
        wait_until(lambda: all(others <= psa.references().keys() for psa in psas.values()), 30)
        meanwhile = {name: set(psa.references()) for name, psa in psas.items()}
        poisoned = {reference(number) for number in POISON}
        wait_until(lambda: all(poisoned <= psa.references().keys() for psa in psas.values()), 60)
        rows: list[dict[str, Any]] = []

        def settled() -> bool:
            rows[:] = bridge.deliveries()
            return {row["state"] for row in rows} == {"created"}

        wait_until(settled)
        noted = "Plain rendering"
        wait_until(lambda: all(noted in text(psa, number) for psa in psas.values() for number in POISON))
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        resident = int(status.split("VmHWM:")[1].split()[0])
        assert bridge.stop(process) == 0, bridge.log()
        deliveries = {(row["connector"], row["report_id"]): row for row in rows}
        yield Ended(psas, folder, meanwhile, deliveries, resident, bridge.log())


@pytest.fixture(params=PSAS)
def psa(request: pytest.FixtureRequest, ended: Ended) -> Psa:
    return ended.psas[request.param]


def text(psa: Psa, number: int) -> str:
    """The incident, wherever the PSA keeps it, and the notes."""
    (id,) = psa.ids(number)
    return "\n".join([str(psa.state.tickets[id]), *psa.notes(id)])


def test_each_report_makes_one_ticket(psa: Psa) -> None:
    assert dict(psa.references()) == {reference(number): 1 for number in (FIRST, *POISON, *INNOCENT)}


def test_the_others_get_their_tickets_meanwhile(ended: Ended, psa: Psa) -> None:
    assert reference(1) not in ended.meanwhile[psa.name]
    for number in (FIRST, *INNOCENT):
        assert "Plain rendering" not in text(psa, number)
        assert not ended.deliveries[psa.name, number]["reason"]


@pytest.mark.parametrize("number", POISON)
def test_the_poisonous_ones_are_plain_and_say_why(ended: Ended, psa: Psa, number: int) -> None:
    why = f"connector {psa.name}: template {ended.folder}/text.j2, line 1: {POISON[number][1]}"
    ticket = text(psa, number)
    assert f"Huntress incident report {number}: " in ticket
    assert f"This ticket was written in the built-in plain form, because: {why}" in ticket
    delivery = ended.deliveries[psa.name, number]
    assert why in delivery["reason"]
    assert delivery["attempts"] == 1, "no lease lapsed"
    logged = [line for line in ended.log.splitlines() if why in line]
    assert len(logged) == 1
    assert f'"report_id": {number}' in logged[0]


def test_the_bridge_itself_needs_no_more_memory(ended: Ended) -> None:
    assert ended.resident_kb < RESIDENT_KB
    assert "Traceback" not in ended.log
