"""Whoever ends a turn takes what comes next itself, as the dispatcher would give it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.delivery import MOST_IN_A_ROW
from bridge.idempotency import Claim
from bridge.models import DeliveryState
from tests.bridge.stage import MakeStage, Stage, Systems


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    """One that has proven that its tickets are found."""
    stage = make("psa")
    stage.report(100)
    stage.work()
    return stage


def states(stage: Stage, *numbers: int, connector: str = "psa") -> list[DeliveryState]:
    return [stage.delivery(number, connector).state for number in numbers]


def taken(stage: Stage, connector: str = "psa", **limits: int) -> Claim | str:
    """What a worker without a message gets."""
    service = stage.service(connector)
    concurrency = limits.get("concurrency", 100)
    return stage.store.claim(
        None, connector, group=service.group, concurrency=concurrency, settle=60, proof=service.connector.can_find
    )


def test_one_message_is_enough_for_all_that_is_ready(stage: Stage, systems: Systems) -> None:
    stage.report(1, severity="low")
    stage.report(2, severity="critical")
    stage.report(3, severity="high")
    stage.deliverer.work(1, "psa")
    assert states(stage, 1, 2, 3) == [DeliveryState.CREATED] * 3
    made = [ticket["id"] for ticket in systems.connectwise.tickets.values()]
    assert len(made) == 4
    order = [stage.delivery(number).ticket for number in (1, 2, 3)]
    ids = [int(ticket.id) for ticket in order if ticket]
    assert ids[0] < ids[1] < ids[2], "the message's own first, then what is more urgent"
    assert stage.work() == [], "nothing is left for the dispatcher"


def test_a_slot_is_given_out_anew_after_many_turns(stage: Stage) -> None:
    numbers = range(1, MOST_IN_A_ROW + 4)
    stage.report(*numbers)
    stage.deliverer.work(1, "psa")
    assert states(stage, *numbers).count(DeliveryState.CREATED) == MOST_IN_A_ROW + 1


def test_what_was_not_to_be_had_leads_to_nothing_else(stage: Stage) -> None:
    stage.report(1, 2)
    stage.work()
    stage.report(3)
    stage.deliverer.work(1, "psa")
    assert states(stage, 3) == [DeliveryState.PENDING]


def test_until_a_ticket_was_found_again_only_the_dispatcher_gives_out(stage: Stage) -> None:
    stage.store.unprove("psa", "changed")
    stage.report(1)
    assert taken(stage) == "nothing"
    stage.store.prove("psa")
    assert isinstance(taken(stage), Claim)


def test_no_more_than_the_connector_bears(stage: Stage) -> None:
    stage.report(1, 2)
    stage.die(1)
    assert taken(stage, concurrency=1) == "nothing"
    assert isinstance(taken(stage, concurrency=2), Claim)


def test_a_paused_connector_is_left_alone(stage: Stage) -> None:
    stage.report(1)
    stage.store.pause("psa", "rate", 60, "asked to wait")
    assert taken(stage) == "paused"
    assert states(stage, 1) == [DeliveryState.PENDING]


def test_what_waits_for_its_time_waits(stage: Stage, systems: Systems) -> None:
    stage.report(1)
    systems.connectwise.fault("status", status=429, times=1)
    stage.work()
    assert taken(stage) in ("nothing", "paused")
    assert stage.waits(1) > 0


@pytest.mark.parametrize(
    ("suffix", "second"), [("", DeliveryState.PENDING), ("another", DeliveryState.CREATED)], ids=["shared", "own"]
)
def test_connectors_that_share_their_slots_leave_it_to_the_dispatcher(
    redis_url: str, tmp_path: Path, systems: Systems, suffix: str, second: DeliveryState
) -> None:
    table = systems.table("desk")
    other = table | {"integration_code": f"{table['integration_code']}{suffix}", "reference_suffix": "-b"}
    with Stage(redis_url, tmp_path, systems, {"desk": table, "other": other}) as stage:
        stage.store.prove("desk")
        stage.report(1, 2, connectors=["desk"])
        stage.deliverer.work(1, "desk")
        assert states(stage, 1, 2, connector="desk") == [DeliveryState.CREATED, second]
