"""The way from the vendor's own integration, as `docs/moving-over.md` describes it."""

from __future__ import annotations

from collections.abc import Callable

from bridge.runtime import Runtime
from bridge.settings import load
from connectors.connectwise import ConnectWise
from tests.end_to_end.conftest import Bridge, World
from tests.end_to_end.inside import inside


def theirs(bridge: Bridge) -> str:
    """A ticket that somebody else made, by its number."""
    with Runtime(load(bridge.config, bridge.environment())) as runtime:
        connector = runtime.services["psa"].connector
        assert isinstance(connector, ConnectWise)
        body = {"summary": "made by the vendor", "board": {"name": "Security"}, "company": {"id": 1001}}
        return str(connector.api.request("POST", "/service/tickets", intent="create", json=body).json["id"])


def test_a_report_older_than_not_before_is_followed_once_it_is_linked_and_let_in(
    world: World, make_bridge: Callable[..., Bridge]
) -> None:
    bridge = make_bridge(world, poll={"interval": 1, "not_before": "2099-01-01"}, connectors=world.connectors("psa"))
    world.reports(2)
    assert bridge("run", "--once", "--wait", "5").returncode == 0
    assert world.connectwise.tickets == {}, "what is older is left to whoever has it"
    number = theirs(bridge)
    linked = inside("link", "1", "psa", number, config=bridge.config)
    assert linked.exit_code == 0, linked.output
    bridge.write(poll={"interval": 1})
    assert bridge("run", "--once", "--wait", "20").returncode == 0
    rows = {each["report_id"]: each for each in bridge.deliveries()}
    assert rows[1]["ticket_id"] == number
    assert rows[2]["ticket_id"] != number, "what was not linked gets a ticket now"
    assert set(world.connectwise_references().values()) == {1}
    world.report(1, status="closed", closed_at="2099-01-01T00:00:00Z", updated_at="2099-01-01T00:00:00Z")
    assert bridge("run", "--once", "--wait", "20").returncode == 0
    assert {each["report_id"]: each["state"] for each in bridge.deliveries()} == {1: "closed", 2: "created"}
    assert world.connectwise.tickets[int(number)]["status"]["name"] == "Closed"
