"""The test ticket, in real connectors between pretend systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.trial import MARK, SENTENCE, TrialResult, send_trial
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.psa import PSAS, Psa

STEPS = ["look up", "render", "create", "complete", "find again", "close"]


class Clock:
    """Passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def trial(stage: Stage, name: str, sleep: Callable[[float], None] | None = None) -> TrialResult:
    clock = Clock()
    return send_trial(stage.runtime, name, now=lambda: 1_700_000_000.5, clock=clock, sleep=sleep or clock.sleep)


def failed(result: TrialResult) -> dict[str, str]:
    return {step.what: step.text for step in result.steps if not step.ok}


def only_ticket(psa: Psa) -> tuple[str, str]:
    """The one ticket's title and reference."""
    (ticket,) = psa.state.tickets.values()
    return ticket.get("summary") or ticket["title"], ticket[psa.field]


def is_closed(stage: Stage, psa: Psa, result: TrialResult) -> bool:
    assert result.ticket
    state = stage.runtime.services[psa.name].connector.look(result.ticket)
    return state is not None and state.closed


def test_is_made_marked_found_and_closed(stage: Stage, psa: Psa) -> None:
    result = trial(stage, psa.name)
    assert (result.ok, [step.what for step in result.steps], result.remains) == (True, STEPS, False)
    title, reference = only_ticket(psa)
    assert title.startswith(f"{MARK} ")
    assert reference == result.reference == "huntress-5-test1700000000500"
    assert is_closed(stage, psa, result)
    assert list(stage.runtime.store.deliveries()) == []
    assert len(psa.look_ups()) == 0  # none was taken for a report's
    (create,) = psa.creates()
    assert create.mentions(SENTENCE)


def test_keeps_the_suffix_of_its_connector(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, reference_suffix="-b")
    assert trial(stage, psa.name).ok
    assert only_ticket(psa)[1] == "huntress-5-test1700000000500-b"


def test_is_a_mail_that_cannot_be_closed(make: MakeStage, systems: Systems) -> None:
    result = trial(make("oncall"), "oncall")
    assert (result.ok, result.remains) == (True, True)
    (mail,) = systems.mailbox.messages
    assert str(mail.message["Subject"]).startswith(MARK)
    assert result.steps[-1].text == "There is nothing to close: the mail stays where it arrived."


@pytest.mark.parametrize(
    ("fault", "made", "doubt"),
    [
        ({"kind": "status", "status": 400}, 0, False),
        ({"kind": "status", "status": 401}, 0, False),
        ({"kind": "commit_drop"}, 1, False),
        ({"kind": "commit_status", "status": 500}, 1, False),
        ({"kind": "drop"}, 0, True),
    ],
    ids=["refused", "unauthorized", "answer lost", "done and failed", "lost"],
)
def test_a_create_that_goes_wrong(stage: Stage, psa: Psa, fault: dict[str, Any], made: int, doubt: bool) -> None:
    """What was made all the same is found and closed; where that is not known, it is said."""
    psa.server.fault(**fault, method="POST", path=psa.create_path)
    result = trial(stage, psa.name)
    assert (len(psa.state.tickets), result.ok, result.remains) == (made, bool(made), doubt)
    if made:
        assert is_closed(stage, psa, result)
    else:
        assert list(failed(result)) == ["create"]
        assert failed(result)["create"].endswith(
            f"; look for a ticket with the reference {result.reference} and close it by hand."
            if doubt
            else "; no test ticket was made."
        )


def test_retry_after_pauses_the_connector(stage: Stage, psa: Psa) -> None:
    psa.server.fault("status", method="POST", path=psa.create_path, status=429, headers={"Retry-After": "30"})
    assert list(failed(trial(stage, psa.name))) == ["create"]
    pause = stage.runtime.store.paused(psa.name)
    assert pause is not None
    assert pause.kind == "rate"


@pytest.mark.parametrize("name", [*PSAS, "oncall"])
def test_a_paused_connector_sends_nothing(make: MakeStage, systems: Systems, name: str) -> None:
    stage = make(name)
    stage.runtime.store.pause(name, "misconfigured", 600, "its key is wrong")
    assert failed(trial(stage, name)) == {
        "look up": f"connector {name} is paused: its key is wrong; no test ticket was made."
    }
    assert not systems.mailbox.messages


def test_a_connector_that_cannot_find_what_it_makes(stage: Stage, psa: Psa) -> None:
    psa.state.search_lag = 3600
    result = trial(stage, psa.name)
    assert list(failed(result)) == ["find again"]
    assert "creates what it cannot find" in failed(result)["find again"]


def test_what_cannot_be_closed_is_named(stage: Stage, psa: Psa) -> None:
    psa.server.fault("status", method="PATCH", path="(?i)/tickets", status=400)
    result = trial(stage, psa.name)
    assert list(failed(result)) == ["close"]
    assert result.remains
    assert result.ticket
    assert failed(result)["close"].endswith(
        f"; ticket {result.ticket.number} ({result.ticket.url}) stays open, close it by hand."
    )


def test_needs_a_company(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, default_company="Nobody")
    assert failed(trial(stage, psa.name)) == {
        "render": f"connectors.{psa.name}.default_company = 'Nobody' is no company, or not a single one; "
        "name one that exists; no test ticket was made."
    }


def test_an_unknown_connector_is_an_error(stage: Stage) -> None:
    with pytest.raises(KeyError):
        trial(stage, "nobody")
