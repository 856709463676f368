"""People close tickets, and Huntress is asked to resolve their reports: by the real command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS

#: Reports: one whose remediations are approved, one whose are not, and one that people still work on.
APPROVED, UNAPPROVED, OPEN = 1, 2, 3


def remediations(status: str) -> dict[str, Any]:
    step = {"id": 1, "type": "manual", "action": "Change the password", "parameters": [], "status": status}
    return {"total_count": 1, "has_more": False, "items": [step]}


def test_closed_tickets_resolve_their_report_or_are_told_why_not(
    world: World, make_bridge: Callable[..., Bridge]
) -> None:
    for number, status in ((APPROVED, "approved"), (UNAPPROVED, "unapproved"), (OPEN, "approved")):
        world.report(number, remediations=remediations(status))
    bridge = make_bridge(world, huntress=world.huntress.settings(resolve=True))
    assert bridge("run", "--once").returncode == 0
    psas = world.psas()
    for number in (APPROVED, UNAPPROVED):
        world.connectwise.set_status(psas["psa"].ids(number)[0], "Closed")
        world.autotask.set_status(psas["desk"].ids(number)[0], "Complete")
    shutil.rmtree(bridge.data_dir)  # the tickets are taken over as they are

    def notes(number: int, about: str) -> list[int]:
        return [sum(about in note for note in psas[name].notes(psas[name].ids(number)[0])) for name in PSAS]

    process = bridge.start("run")
    wait_until(lambda: world.huntress.reports[APPROVED]["status"] == "closed", why="the report is resolved")
    wait_until(lambda: notes(UNAPPROVED, "was asked to resolve it") == [1, 1], why="both tickets say why not")
    wait_until(
        lambda: {row["connector"] for row in bridge.deliveries() if row["state"] == "closed"} >= set(PSAS),
        why="both tickets know that it is over",
    )
    assert bridge.stop(process) == 0, bridge.log()
    asked = [request.path for request in world.huntress.requests_to("/resolution$")]
    assert sorted(asked) == [f"/v1/incident_reports/{number}/resolution" for number in (APPROVED, UNAPPROVED)]
    assert {world.huntress.reports[number]["status"] for number in (UNAPPROVED, OPEN)} == {"sent"}
    assert '"level": "error"' not in bridge.log()
