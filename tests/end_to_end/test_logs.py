"""One delivery is followed through the log of a real process; at debug, every request is there and no secret is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bridge.demo import connectwise
from bridge.settings import load, secrets
from tests.end_to_end.conftest import Bridge, World

#: Fields that every step of a delivery carries.
CARRIED = {"report_id", "organization_id", "connector", "attempt", "trace_id"}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def once() -> dict[str, Any]:
    return {}


@pytest.fixture
def logged(
    world: World, make_bridge: Callable[..., Bridge], once: dict[str, Any]
) -> tuple[list[dict[str, Any]], str, list[str]]:
    """The lines of one run at debug, the whole text, and the secrets of its configuration; made once."""
    if not once:
        world.mailbox.users["bridge@example.com"] = "pretend-mail-password"
        bridge = make_bridge(world)
        world.reports(3)
        world.connectwise.fault("commit_drop", method="POST", path="/tickets$")
        done = bridge("run", "--once", "--wait", "20", "--log-level", "debug")
        once["text"] = done.stderr
        once["secrets"] = secrets(load(bridge.config, bridge.environment()))
    return lines(once["text"]), once["text"], once["secrets"]


def steps(logged: list[dict[str, Any]], report_id: int, connector: str) -> list[dict[str, Any]]:
    """The steps of one delivery in the order of the log, as an operator would filter them."""
    return [line for line in logged if line.get("report_id") == report_id and line.get("connector") == connector]


def test_one_delivery_is_reconstructed_by_its_report_id(logged: tuple[list[dict[str, Any]], str, list[str]]) -> None:
    found = steps(logged[0], 2, "desk")
    told = [line["event"] for line in found if line["level"] != "debug"]
    wanted = ["seen", "claimed", "looked up: there is no ticket yet", "creating", "ticket created"]
    assert told[: len(wanted)] == wanted
    turn = [line for line in found if line["event"] in wanted[1:]][: len(wanted) - 1]
    assert all(line.keys() >= CARRIED for line in turn)
    assert len({line["trace_id"] for line in turn}) == 1
    assert turn[-1]["ticket_id"]


def test_an_interrupted_create_and_how_it_was_cleared_up_can_be_read(
    logged: tuple[list[dict[str, Any]], str, list[str]],
) -> None:
    (doubtful,) = [line for line in logged[0] if line["event"] == "the outcome of the create is unknown"]
    found = steps(logged[0], doubtful["report_id"], "psa")
    told = [line["event"] for line in found if line["level"] != "debug"]
    after = told[told.index("the outcome of the create is unknown") :]
    assert "ticket found by its reference" in after
    claimed = [line for line in found if line["event"] == "claimed"]
    assert len({line["trace_id"] for line in claimed}) == len(claimed) >= 2, "each turn has its own trace"
    assert claimed[-1]["attempt"] > claimed[0]["attempt"]


def test_debug_shows_every_request_of_a_turn_under_its_trace(
    logged: tuple[list[dict[str, Any]], str, list[str]],
) -> None:
    for connector, event in (("psa", "request"), ("desk", "request"), ("oncall", "mail dialogue")):
        turn = next(line["trace_id"] for line in steps(logged[0], 1, connector) if line["event"] == "creating")
        spoken = [line for line in logged[0] if line.get("trace_id") == turn and line["event"] == event]
        assert spoken, connector
        assert all(line.keys() >= CARRIED | {"ms"} for line in spoken)
    requests = [line for line in logged[0] if line["event"] == "request"]
    answered = [line for line in requests if line["status"] is not None]
    assert all(line["url"].startswith("http://127.0.0.1") and line["bytes"] >= 0 for line in answered)
    assert any(line["system"] == "huntress" and "incident_reports" in line["url"] for line in requests)
    assert "AUTH PLAIN ***" in {line["said"] for line in logged[0] if line["event"] == "mail dialogue"}


def test_no_secret_of_the_configuration_is_in_any_line(logged: tuple[list[dict[str, Any]], str, list[str]]) -> None:
    _, text, known = logged
    assert {connectwise.PRIVATE_KEY, "pretend-mail-password"} <= set(known)
    assert [secret for secret in known if secret in text] == []
