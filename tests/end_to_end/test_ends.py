"""Reports end at the source, and a running bridge has their tickets closed within two cycles."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS

MakeBridge = Callable[..., Bridge]

#: Reports that end, one in each finished status.
ENDED = {1: "closed", 2: "dismissed", 3: "partner_dismissed"}
#: Nobody is told what became of it.
DELETED = 4
REPORTS = range(1, 7)


def rows(bridge: Bridge) -> dict[tuple[int, str], dict[str, Any]]:
    """What `deliveries --json` says, by report and connector."""
    return {(row["report_id"], row["connector"]): row for row in bridge.deliveries()}


def states(bridge: Bridge, number: int) -> set[str]:
    return {row["state"] for (report, _), row in rows(bridge).items() if report == number}


def closed(world: World, name: str, number: int) -> list[bool]:
    """Whether each of the report's tickets is closed."""
    psa = world.psas()[name]
    tickets = [psa.state.tickets[id] for id in psa.ids(number)]
    return [ticket["closedFlag"] if name == "psa" else ticket["status"] == 5 for ticket in tickets]


@pytest.mark.parametrize("dialect", ["incident_reports", "reports"])
def test_what_ends_at_the_source_is_closed_within_two_cycles(
    make_world: Callable[..., World], make_bridge: MakeBridge, dialect: str
) -> None:
    world = make_world(dialect=dialect)
    tables = {name: table | {"settle": 3} for name, table in world.connectors().items()}
    bridge = make_bridge(world, connectors=tables, huntress=world.huntress.settings(dialect=dialect))
    world.reports(len(REPORTS))
    process = bridge.start("run")
    everything = {(number, name) for number in REPORTS for name in tables}
    wait_until(lambda: rows(bridge).keys() == everything)
    wait_until(lambda: {row["state"] for row in rows(bridge).values()} == {"created"})
    mails = len(world.mailbox.messages)

    world.huntress.received.clear()
    with world.huntress.lock:  # all at once, between two requests
        for number, status in ENDED.items():
            world.huntress.close_report(number, status)
        if dialect == "incident_reports":
            del world.huntress.reports[DELETED]
    wait_until(lambda: all(states(bridge, number) == {"closed"} for number in ENDED))
    if dialect == "incident_reports":
        asked = world.huntress.requests_to("reports")
        first = next(n for n, request in enumerate(asked) if "sort_field" in request.query)
        listed_before = sum(request.query.get("status") == "sent" for request in asked[:first])
        assert listed_before <= 2, "the cycle under way, and the next one"
        assert not any(re.search(rf"/{number}$", request.path) for request in asked for number in ENDED)
        wait_until(lambda: "has none such" in (rows(bridge)[DELETED, "psa"]["reason"] or ""))
        assert states(bridge, DELETED) == {"created"}

    for name in PSAS:
        assert [closed(world, name, number) for number in REPORTS] == [[number in ENDED] for number in REPORTS]
    wait_until(lambda: len(world.mailbox.messages) == mails + len(ENDED))
    first_mails = {str(mail.message["Message-ID"]) for mail in world.mailbox.messages[:mails]}
    replies = [mail.message for mail in world.mailbox.messages[mails:]]
    answered = {str(reply["In-Reply-To"]) for reply in replies}
    assert len(answered) == len(ENDED)
    assert answered <= first_mails, "each in its own thread"
    assert bridge.stop(process) == 0
