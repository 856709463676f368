"""Reports whose tickets people closed are resolved at the source; its refusal becomes a note."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.demo.autotask import PretendAutotask
from bridge.demo.huntress import PretendHuntress
from bridge.demo.server import FaultKind, Received, Reply
from bridge.huntress import SourceRefused
from bridge.leadership import Leadership
from bridge.models import DeliveryState
from bridge.poller import Poller
from bridge.reconcile import LOOK_AT_STATUS
from bridge.resolving import LOOKS_PER_MINUTE, ROUND_EVERY, Resolving
from tests.bridge.stage import Stage, Systems
from tests.psa import PSAS

RESOLUTION = "/resolution$"
#: Seconds after which a new ticket's first status has been looked at.
FIRST_STATUS = LOOK_AT_STATUS + 5


def steps(*statuses: str) -> dict[str, Any]:
    items = [{"id": number, "type": "manual", "status": status} for number, status in enumerate(statuses, 1)]
    return {"total_count": len(items), "has_more": False, "items": items}


class Ground:
    """A poller's process and a worker's, with tickets that people close, on a clock that the test moves."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.systems = stage.systems
        self.huntress: PretendHuntress = stage.systems.huntress
        runtime = stage.runtime
        self.leadership = Leadership(stage.store, "poller", patience=1e9)
        self.poller = Poller(
            runtime.store,
            runtime.books,
            lambda: runtime.assembly.source,
            lambda: runtime.settings,
            runtime.routes,
            self.leadership,
        )
        self.now = 0.0
        self.waits: list[float] = []
        #: What happens while the test's thread waits between two looks.
        self.meanwhile: Callable[[], bool] = lambda: False
        self.resolving = self.another()

    def another(self) -> Resolving:
        """As after a restart."""
        runtime = self.stage.runtime
        return Resolving(
            runtime.store, runtime.books, lambda: runtime.assembly, self.leadership, clock=lambda: self.now
        )

    def poll(self) -> None:
        assert self.leadership.attempt()
        assert self.poller.cycle().complete

    def open(self, *numbers: int, **fields: Any) -> None:
        """Reports with their tickets, made a while ago."""
        for number in numbers:
            self.huntress.add_report(**({"id": number, "remediations": steps("approved")} | fields))
        self.poll()
        self.stage.work()
        self.stage.work(FIRST_STATUS)

    def tell(self, number: int = 1, **fields: Any) -> None:
        """The report changed at the source, and the poller saw it."""
        with self.huntress.lock:
            self.huntress.reports[number] |= fields
        self.poll()
        self.stage.work()

    def set_status(self, psa: str, status: str, number: int = 1) -> None:
        """A person gives the report's ticket another status."""
        handle = self.systems.psa(psa)
        server = handle.state
        closed = "Complete" if isinstance(server, PretendAutotask) else "Closed"
        server.set_status(handle.ids(number)[-1], closed if status == "closed" else status)

    def close(self, *psas: str, number: int = 1) -> None:
        for psa in psas:
            self.set_status(psa, "closed", number)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits.append(seconds)
        return self.meanwhile()

    def look(self) -> None:
        assert self.leadership.attempt()
        self.now += ROUND_EVERY
        self.resolving.look(self.wait)

    def round(self) -> None:
        """One round, and what it left to the workers."""
        self.look()
        self.stage.work()

    @property
    def asked(self) -> list[Received]:
        return self.huntress.requests_to(RESOLUTION, "POST")

    def notes(self, psa: str, number: int = 1) -> list[str]:
        handle = self.systems.psa(psa)
        [id] = handle.ids(number)
        return [note for note in handle.notes(id) if "was asked to resolve it" in note]

    def status(self, number: int = 1) -> str:
        return str(self.huntress.reports[number]["status"])

    def state(self, psa: str, number: int = 1) -> DeliveryState:
        return self.stage.delivery(number, psa).state


Make = Callable[..., Ground]


@pytest.fixture
def make(redis_url: str, tmp_path: Path, systems: Systems) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(*names: str, resolve: bool = True, dialect: str = "auto") -> Ground:
            connectors = {name: systems.table(name) for name in names}
            huntress = systems.huntress.settings(resolve=resolve, dialect=dialect)
            ground = Ground(stack.enter_context(Stage(redis_url, tmp_path, systems, connectors, huntress=huntress)))
            stack.callback(ground.leadership.stop)
            return ground

        yield make


@pytest.fixture
def both(make: Make) -> Ground:
    ground = make(*PSAS)
    ground.open(1)
    return ground


@pytest.fixture(params=PSAS)
def psa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def single(make: Make, psa: str) -> Ground:
    ground = make(psa)
    ground.open(1)
    return ground


# -- when it is asked for ----------------------------------------------------------------------------------------------


def test_once_every_ticket_is_closed_the_report_is_resolved_and_ends_as_usual(both: Ground) -> None:
    both.round()
    both.close("psa")
    both.round()
    assert both.asked == []
    both.close("desk")
    both.round()
    assert both.status() == "closed"
    both.round()
    assert len(both.asked) == 1
    both.poll()
    both.stage.work()
    assert {both.state(psa) for psa in PSAS} == {DeliveryState.CLOSED}
    assert [both.notes(psa) for psa in PSAS] == [[], []]


def test_it_is_off_by_default(make: Make) -> None:
    ground = make("psa", resolve=False)
    ground.open(1)
    ground.close("psa")
    ground.round()
    assert ground.asked == []


def test_a_ticket_that_a_person_opens_again_in_time_is_not_closed(single: Ground, psa: str) -> None:
    single.close(psa)
    single.set_status(psa, "In Progress")
    single.round()
    assert single.asked == []


def test_a_ticket_that_was_deleted_says_nothing_of_the_incident(single: Ground, psa: str) -> None:
    handle = single.systems.psa(psa)
    handle.state.delete_ticket(handle.ids(1)[0])
    single.round()
    assert single.asked == []


def test_a_ticket_that_was_merged_into_another_was_not_closed(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    [first], [second] = (ground.systems.psa("psa").ids(number) for number in (1, 2))
    ground.systems.connectwise.merge_ticket(first, second)
    ground.round()
    assert ground.asked == []


def test_a_ticket_that_a_workflow_rule_closed_at_once_was_closed_by_nobody(make: Make) -> None:
    ground = make("psa")
    ground.systems.connectwise.status_after_create = "Closed"
    ground.huntress.add_report(id=1, remediations=steps("approved"))
    ground.poll()
    ground.stage.work()
    ground.round()  # before its first status was looked at
    ground.stage.work(FIRST_STATUS)
    ground.round()
    assert ground.asked == []


def test_what_the_bridge_closed_and_opened_again_is_closed_by_people_after_that(single: Ground, psa: str) -> None:
    single.tell(status="closed", closed_at="2026-01-01T00:00:00Z")
    single.poll()
    single.stage.work()
    assert single.state(psa) is DeliveryState.CLOSED
    single.tell(status="sent", closed_at=None)
    assert single.state(psa) is DeliveryState.CREATED
    single.round()
    assert single.asked == []
    single.close(psa)
    single.round()
    assert single.status() == "closed"


def test_a_ticket_still_to_be_made_keeps_the_report_open(make: Make) -> None:
    ground = make(*PSAS)
    ground.systems.psa("desk").fault_create("status", status=503, times=None)
    ground.open(1)
    assert ground.state("psa") is DeliveryState.CREATED
    ground.close("psa")
    ground.round()
    assert ground.asked == []


def test_mail_is_no_ticket_that_anybody_closes(make: Make) -> None:
    ground = make("psa", "oncall")
    ground.open(1)
    ground.close("psa")
    ground.round()
    assert ground.status() == "closed"


def test_reports_that_went_out_by_mail_alone_are_never_resolved(make: Make) -> None:
    ground = make("oncall")
    ground.open(1)
    ground.round()
    assert ground.asked == []
    assert ground.state("oncall") is DeliveryState.CREATED


def test_a_report_that_huntress_still_works_on_is_asked_for_later(single: Ground, psa: str) -> None:
    single.close(psa)
    single.tell(status="auto_remediating")
    single.round()
    assert single.asked == []
    single.tell(status="sent")
    single.round()
    assert single.status() == "closed"


def test_the_other_dialect_resolves_nothing_and_says_so(make: Make) -> None:
    ground = make("psa")
    ground.open(1)
    ground.close("psa")
    ground.stage.runtime.books.save_poll(dialect="reports")
    with capture_logs() as logs:
        ground.round()
    assert "only the dialect incident_reports resolves reports" in logs[0]["event"]
    assert ground.asked == []


def test_only_the_leader_asks(single: Ground, psa: str) -> None:
    single.close(psa)
    single.leadership.stop()
    single.now += ROUND_EVERY
    single.resolving.look(single.wait)
    assert single.asked == []


def test_a_report_of_another_account_is_left_alone(single: Ground, psa: str) -> None:
    single.close(psa)
    with single.huntress.lock:
        single.huntress.reports[1]["account_id"] = 6
    single.round()
    assert single.asked == []


# -- what it answers ---------------------------------------------------------------------------------------------------


def test_a_refusal_is_one_note_on_each_ticket_until_the_report_changes(make: Make) -> None:
    ground = make(*PSAS)
    ground.open(1, remediations=steps("approved", "unapproved"))
    ground.close(*PSAS)
    ground.round()
    ground.round()
    ground.resolving = ground.another()
    ground.round()
    assert len(ground.asked) == 1
    for psa in PSAS:
        [note] = ground.notes(psa)
        assert "409: Confirm that all remediations are approved" in note
        assert "Huntress portal" in note
        assert ground.stage.store.scheduled(psa) == 0
    ground.tell(remediations=steps("approved", "rejected"))
    ground.round()
    assert len(ground.asked) == 2
    assert ground.status() == "closed"
    assert [len(ground.notes(psa)) for psa in PSAS] == [1, 1]


def test_the_note_waits_for_nothing_that_the_ticket_waits_for(make: Make) -> None:
    ground = make("psa")
    ground.huntress.agents.clear()
    ground.huntress.fault("status", path="/agents/", status=500, times=None)
    ground.open(1, agent_id=1, remediations=steps("unapproved"))
    assert ground.stage.waits(1, "psa") > 30
    ground.close("psa")
    ground.round()
    assert len(ground.notes("psa")) == 1


def test_a_key_that_may_only_read_is_said_once_and_another_key_is_tried(single: Ground, psa: str) -> None:
    single.huntress.writable = False
    single.close(psa)
    single.round()
    single.round()
    assert len(single.asked) == 1
    [note] = single.notes(psa)
    assert "default API key is read-only" in note
    single.resolving = single.another()
    single.round()
    assert len(single.notes(psa)) == 1, "asked again after a restart, told once"
    single.huntress.writable = True
    config = single.stage.config
    config.write_text(config.read_text("utf-8") + "\n[sources]\nescalations = false\n", "utf-8")
    assert single.stage.runtime.reload()
    single.round()
    assert single.status() == "closed"


def test_a_key_that_is_not_accepted_ends_the_round(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    ground.close("psa", number=1)
    ground.close("psa", number=2)
    ground.huntress.fault("status", method="POST", path=RESOLUTION, status=401, times=None)
    with pytest.raises(SourceRefused, match="default API key is read-only"):
        ground.round()
    assert len(ground.asked) == 1
    assert ground.notes("psa") == []


@pytest.mark.parametrize("kind", ["commit_drop", "drop"])
def test_a_request_whose_answer_was_lost_is_repeated_only_if_the_report_is_still_open(
    single: Ground, psa: str, kind: FaultKind
) -> None:
    single.close(psa)
    single.huntress.fault(kind, method="POST", path=RESOLUTION, times=1)
    single.round()
    assert len(single.asked) == 1
    single.round()
    assert len(single.asked) == (1 if kind == "commit_drop" else 2)
    assert single.status() == "closed"
    assert single.notes(psa) == []


def test_a_report_that_somebody_else_ended_meanwhile_was_not_refused(
    single: Ground, psa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    single.close(psa)
    answer = single.huntress.answer

    def end_first(request: Received) -> Reply:
        if request.method == "POST":
            single.huntress.close_report(1)
        return answer(request)

    monkeypatch.setattr(single.huntress, "answer", end_first)
    single.round()
    assert len(single.asked) == 1
    assert single.notes(psa) == []


def test_a_refusal_that_comes_after_the_end_is_not_noted(make: Make) -> None:
    ground = make("psa")
    ground.open(1, remediations=steps("unapproved"))
    ground.close("psa")
    ground.look()
    ground.huntress.close_report(1)
    ground.poll()
    ground.stage.work()
    assert len(ground.asked) == 1
    assert ground.state("psa") is DeliveryState.CLOSED
    assert ground.notes("psa") == []


# -- a good client of the ticket systems -------------------------------------------------------------------------------


def test_looks_are_spread(make: Make) -> None:
    ground = make("psa")
    ground.open(*range(1, 7))
    ground.waits.clear()
    ground.round()
    assert len(ground.waits) == 5
    assert ground.waits == pytest.approx([60 / LOOKS_PER_MINUTE] * 5)


def test_a_process_that_stops_looks_no_further(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    ground.close("psa", number=1)
    ground.close("psa", number=2)
    ground.meanwhile = lambda: True
    ground.round()
    assert len(ground.asked) == 1


def test_a_leader_that_was_deposed_while_it_waited_asks_nothing(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    ground.close("psa", number=1)
    ground.close("psa", number=2)

    def deposed() -> bool:
        ground.leadership.stop()
        return False

    ground.meanwhile = deposed
    ground.round()
    assert len(ground.waits) == 1
    assert len(ground.asked) == 1


def test_a_paused_connector_is_not_asked_and_stops_no_other(make: Make) -> None:
    ground = make(*PSAS)
    ground.open(1)
    ground.close(*PSAS)
    ground.stage.store.pause("psa", "misconfigured", 3600, "board: no such board")
    received = len(ground.systems.connectwise.received)
    ground.round()
    assert len(ground.systems.connectwise.received) == received
    assert ground.asked == []
    ground.stage.store.resume("psa")
    ground.round()
    assert ground.status() == "closed"


def test_a_system_that_asks_for_a_rest_gets_it(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    ground.systems.connectwise.fault(
        "status", method="GET", path="/tickets/", status=429, headers={"Retry-After": "60"}
    )
    received = len(ground.systems.connectwise.received)
    ground.round()
    assert len(ground.systems.connectwise.received) == received + 1
    pause = ground.stage.store.paused("psa")
    assert pause is not None
    assert pause.kind == "rate"


def test_one_ticket_that_cannot_be_read_stops_no_other(make: Make) -> None:
    ground = make("psa")
    ground.open(1, 2)
    ground.close("psa", number=1)
    ground.close("psa", number=2)
    [first] = ground.systems.psa("psa").ids(1)
    ground.systems.connectwise.fault("status", method="GET", path=f"/tickets/{first}$", status=500, times=None)
    ground.round()
    assert (ground.status(1), ground.status(2)) == ("sent", "closed")
