"""Ticket systems and mailboxes that misbehave: one ticket per report, and nobody is asked who asked for a pause.

One bridge serves everything: each report has one fault waiting for it, in either PSA. The PSAs' searches lag the whole
time, by less than `settle`. The PSAs get one request at a time, so that a pause can be judged to the millisecond.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from bridge.demo.mailbox import PretendMailbox
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS, Psa, reference

TIMEOUT, SETTLE, LAG = 2, 4, 2.5
#: Seconds that a PSA asks for.
PAUSE = 3
BUSY = {"headers": {"Retry-After": str(PAUSE)}}

#: What happens to the first create of a report.
CREATES: dict[str, dict[str, Any]] = {
    "commits and drops": {"kind": "commit_drop"},
    "commits and answers 500": {"kind": "commit_status", "status": 500},
    "commits and answers 503 with a pause": {"kind": "commit_status", "status": 503, **BUSY},
    "429 with a pause": {"kind": "status", "status": 429, **BUSY},
    "503 with a pause": {"kind": "status", "status": 503, **BUSY},
    "503": {"kind": "status", "status": 503},
    "500": {"kind": "status", "status": 500},
    "commits after the time-out": {"kind": "late", "delay": TIMEOUT + 1},
    "hangs": {"kind": "hang", "delay": TIMEOUT + 1},
    "drops": {"kind": "drop"},
    "garbage": {"kind": "garbage"},
}
#: What happens to the first look-up of a report.
LOOK_UPS: dict[str, dict[str, Any]] = {
    "search: 429 with a pause": {"kind": "status", "status": 429, **BUSY},
    "search: 503 with a pause": {"kind": "status", "status": 503, **BUSY},
    "search: 500": {"kind": "status", "status": 500},
    "search: drops": {"kind": "drop"},
}
#: The search fails once when it is asked about a create that was carried out and not answered.
IN_DOUBT = "commits and drops, then its search answers 500"
#: Two tickets carry the report's reference before it is delivered.
TWICE = "two tickets exist"
CASES = [*CREATES, *LOOK_UPS, IN_DOUBT, TWICE]
FIRST, SECOND = 1, 2


def number_of(case: str) -> int:
    return 10 + CASES.index(case)


@dataclass
class Aftermath:
    """What one bridge made of everything above."""

    psas: dict[str, Psa]
    mailboxes: dict[str, PretendMailbox]
    existing: dict[str, list[int]]
    deliveries: dict[tuple[int, str], dict[str, Any]]
    log: str


def misbehave(psa: Psa) -> list[int]:
    """Prepares all faults. Returns the ids of the tickets that exist twice."""
    for case, how in CREATES.items():
        psa.fault_create(number=number_of(case), **how)
    for case, how in LOOK_UPS.items():
        psa.fault_look_up(number=number_of(case), **how)
    psa.fault_create("commit_drop", number_of(IN_DOUBT))
    return [psa.add_ticket(number_of(TWICE)) for _ in range(2)]


def mail_tables(mailboxes: dict[str, PretendMailbox]) -> dict[str, Any]:
    mailboxes["grey"].fault("greylist")
    mailboxes["resend"].fault("drop_after_dot")
    mailboxes["hold"].fault("drop_after_dot")
    mailboxes["partly"].fault("reject_rcpt_550", times=None, recipient="gone@example.com")
    more: dict[str, dict[str, Any]] = {
        "hold": {"on_unknown": "hold"},
        "partly": {"recipients": ["one@example.com", "gone@example.com", "two@example.com"]},
    }
    only = {"only": {"organizations": [3]}}
    return {name: mailbox.settings(**only, **more.get(name, {})) for name, mailbox in mailboxes.items()}


def status(bridge: Bridge) -> dict[str, Any]:
    """What `/status` says; empty while nobody answers."""
    with contextlib.suppress(requests.ConnectionError):
        answer: dict[str, Any] = requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=10).json()
        return answer
    return {}


@pytest.fixture(scope="module")
def aftermath() -> Iterator[Aftermath]:
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        mailboxes = {name: stack.enter_context(PretendMailbox()) for name in ("grey", "resend", "hold", "partly")}
        psas = world.psas()
        tables = {
            name: table | {"timeout": TIMEOUT, "settle": SETTLE, "concurrency": 1}
            for name, table in world.connectors(*PSAS).items()
        }
        bridge = Bridge.in_folder(stack, world, {"connectors": tables | mail_tables(mailboxes)})
        world.connectwise.search_lag = world.autotask.search_lag = LAG
        existing = {name: misbehave(psa) for name, psa in psas.items()}
        world.report(FIRST)
        process = bridge.start("run")
        wait_until(lambda: all(psa.references()[reference(FIRST)] for psa in psas.values()), 20)
        world.report(SECOND, 3)
        world.report(SECOND + 1, 3)
        for case in CASES:
            world.report(number_of(case))

        # Its search works once, before the create, and fails once, when the create is in doubt.
        for psa in psas.values():
            wait_until(lambda psa=psa: psa.creates(number_of(IN_DOUBT)), 60)  # type: ignore[misc]
            psa.fault_look_up("status", number_of(IN_DOUBT), status=500)

        def settled() -> bool:
            all_there = sum(status(bridge)["deliveries"].values()) == 2 * (3 + len(CASES)) + 4 * 2
            return all_there and not bridge.unfinished()

        wait_until(settled, 60, "every delivery is settled")
        deliveries = {(row["report_id"], row["connector"]): row for row in bridge.deliveries()}
        assert bridge.stop(process) == 0
        yield Aftermath(psas, mailboxes, existing, deliveries, bridge.log())


@pytest.fixture(params=PSAS)
def psa(request: pytest.FixtureRequest, aftermath: Aftermath) -> Psa:
    return aftermath.psas[request.param]


@pytest.mark.parametrize("case", [*CREATES, *LOOK_UPS, IN_DOUBT])
def test_there_is_one_ticket(aftermath: Aftermath, psa: Psa, case: str) -> None:
    [id] = psa.ids(number_of(case))
    row = aftermath.deliveries[number_of(case), psa.name]
    assert (row["state"], row["ticket_id"], row["reason"]) == ("created", str(id), None)


@pytest.mark.parametrize("case", CREATES)
def test_a_create_is_sent_again_only_when_it_was_not_carried_out(psa: Psa, case: str) -> None:
    assert len(psa.creates(number_of(case))) == (1 if case.startswith("commits") else 2)


@pytest.mark.parametrize("case", [*CREATES, IN_DOUBT])
def test_nothing_is_created_without_asking_first(psa: Psa, case: str) -> None:
    asked = [look_up.at for look_up in psa.look_ups(number_of(case))]
    for create in psa.creates(number_of(case)):
        assert any(at < create.at for at in asked)
        asked = [at for at in asked if at > create.at]
    assert asked or case.startswith("429") or len(psa.creates(number_of(case))) == 2


@pytest.mark.parametrize("case", [case for case, how in (CREATES | LOOK_UPS).items() if "headers" in how])
def test_nobody_is_asked_during_a_pause(psa: Psa, case: str) -> None:
    requests = psa.creates(number_of(case)) if case in CREATES else psa.look_ups(number_of(case))
    start = requests[0].at
    others = [request.at for request in psa.received()]
    assert [at for at in others if start < at < start + PAUSE] == []
    assert [at for at in others if start + PAUSE < at < start + PAUSE + 5], "it is served again soon after"


def test_of_two_tickets_the_lower_is_kept_and_the_other_named(aftermath: Aftermath, psa: Psa) -> None:
    first, second = aftermath.existing[psa.name]
    assert psa.ids(number_of(TWICE)) == [first, second]
    assert psa.creates(number_of(TWICE)) == []
    row = aftermath.deliveries[number_of(TWICE), psa.name]
    assert (row["state"], row["ticket_id"]) == ("created", str(first))
    assert f"ticket {second} " in row["reason"]
    assert [note for note in psa.notes(first) if f"Ticket {second} carries the same Huntress reference" in note]
    assert psa.notes(second) == []


def test_there_are_no_other_tickets(psa: Psa) -> None:
    numbers = [FIRST, SECOND, SECOND + 1, *(number_of(case) for case in CASES if case != TWICE)]
    assert dict(psa.references()) == {reference(number): 1 for number in numbers} | {reference(number_of(TWICE)): 2}


def received(aftermath: Aftermath, name: str) -> Counter[tuple[str, str]]:
    """Mails of a mailbox by Message-ID and recipient."""
    return Counter((str(m.message["Message-ID"]), m.recipient) for m in aftermath.mailboxes[name].messages)


def states(aftermath: Aftermath, name: str) -> list[str]:
    return sorted(aftermath.deliveries[number, name]["state"] for number in (SECOND, SECOND + 1))


def test_greylisted_mail_comes_once_and_later(aftermath: Aftermath) -> None:
    assert states(aftermath, "grey") == ["created", "created"]
    assert sorted(received(aftermath, "grey").values()) == [1, 1]
    assert aftermath.mailboxes["grey"].asked.count("oncall@example.com") >= 3


@pytest.mark.parametrize(("name", "mails", "end"), [("resend", [1, 2], "created"), ("hold", [1, 1], "held")])
def test_mail_whose_answer_was_lost(aftermath: Aftermath, name: str, mails: list[int], end: str) -> None:
    assert sorted(received(aftermath, name).values()) == mails
    assert states(aftermath, name) == sorted(["created", end])


def test_a_refused_recipient_costs_the_others_nothing(aftermath: Aftermath) -> None:
    found = received(aftermath, "partly")
    assert set(found.values()) == {1}
    assert Counter(recipient for _, recipient in found) == {"one@example.com": 2, "two@example.com": 2}
    for number in (SECOND, SECOND + 1):
        row = aftermath.deliveries[number, "partly"]
        assert row["state"] == "rejected"
        assert "gone@example.com" in row["reason"]
        assert "user unknown" in row["reason"]


def test_no_log_has_a_traceback(aftermath: Aftermath) -> None:
    assert "Traceback" not in aftermath.log


def test_a_connector_that_cannot_find_what_it_creates_pauses_after_one_and_resumes_by_itself(
    world: World, make_bridge: Callable[..., Bridge]
) -> None:
    """A person asks for it with `retry`, which saves waiting for the first probe."""
    psas = world.psas()
    world.connectwise.search_lag = world.autotask.search_lag = 1e9
    world.reports(4)
    bridge = make_bridge(
        world, connectors={name: table | {"settle": 2} for name, table in world.connectors(*PSAS).items()}
    )
    process = bridge.start("run")

    def paused() -> bool:
        reasons = [connector["reason"] for connector in status(bridge).get("connectors", {}).values()]
        return [reason[:27] for reason in reasons] == ["creates what it cannot find"] * 2

    wait_until(paused, 30)
    waiting = [row for row in bridge.deliveries() if row["state"] == "pending"]
    assert len(waiting) == 6
    assert all("creates what it cannot find" in row["reason"] for row in waiting)
    assert [len(psa.creates()) for psa in psas.values()] == [1, 1]
    world.connectwise.search_lag = world.autotask.search_lag = 0
    world.connectwise.clock = world.autotask.clock = lambda: 1e12
    assert bridge("retry").returncode == 0
    wanted = {reference(number): 1 for number in range(1, 5)}
    wait_until(lambda: all(dict(psa.references()) == wanted for psa in psas.values()), 20)
    assert bridge.stop(process) == 0
    assert {row["state"] for row in bridge.deliveries()} == {"created"}
    assert all(len(psa.creates()) == 4 for psa in psas.values())
