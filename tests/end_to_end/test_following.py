"""A ticket stays true until its report is over: every way that a report can go, in one running bridge.

Three kinds of connectors share the pretend systems: what is usual, for organization 1; `_note`, whose tickets get notes
only and are never opened again, for organization 2; `_still`, which leaves tickets alone at the end, for 3.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from bridge.demo import scenario
from bridge.demo.mailbox import ReceivedMail
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS, reference

#: Reports of organization 1: what becomes of each, or of its ticket.
CHANGED, ENDED, DISMISSED, MOVED_ON, LEFT_ALONE, REFUSED, DELETED, MERGED, CONVERTED, TOO_LATE = range(1, 11)
#: Of organizations 2 and 3.
NOTED, STILL = 21, 31
#: Reports that Huntress changes while a person does away with their tickets.
LOST = (DELETED, MERGED, CONVERTED)
OLD_TEXT, NEW_TEXT = "One process was seen.", "A second host is concerned as well."
SETTLE = 3
TIME_ENTRY = "A time entry is required before this ticket can be completed."
CLOSED = {"psa": "Closed", "desk": "Complete"}
STATUSES = {1: "New", 5: "Complete", 7: "Waiting Customer"}
PRIORITIES = {1: "High", 3: "Low", 4: "Critical"}


def tables(world: World) -> dict[str, Any]:
    """The connectors' tables."""
    plain = {name: table | {"settle": SETTLE} for name, table in world.connectors().items()}
    found: dict[str, Any] = {}
    for name, table in plain.items():
        usual = table | ({"untouched_statuses": ["New"]} if name in PSAS else {})
        noting = table | {"on_close": "note", "reopen": "never", "reference_suffix": "-n"}
        still = table | {"on_close": "nothing", "reference_suffix": "-s"}
        for organization, (suffix, wanted) in enumerate((("", usual), ("_note", noting), ("_still", still)), start=1):
            found[name + suffix] = wanted | {"only": {"organizations": [organization]}}
    return found


class Scene:
    """A running bridge and what happens around it."""

    def __init__(self, world: World, bridge: Bridge) -> None:
        self.world = world
        self.bridge = bridge
        self.psas = world.psas()
        self.deliveries: dict[tuple[int, str], dict[str, Any]] = {}
        #: Tickets by connector and report, as they were made first.
        self.first: dict[tuple[str, int], int] = {}
        #: When the report ended that no ticket system had taken yet, by time.monotonic().
        self.ended_too_early = 0.0

    def change(self, *numbers: int, **fields: Any) -> None:
        """Huntress changes its reports, or opens them again."""
        with self.world.huntress.lock:
            for number in numbers:
                self.world.huntress.reports[number] |= {"updated_at": scenario.stamp(datetime.now(UTC))} | fields

    def end(self, *numbers: int, status: str = "closed") -> None:
        for number in numbers:
            self.world.huntress.close_report(number, status)

    def age(self, *numbers: int) -> None:
        """As if these tickets had been made ten minutes earlier: people's doing tells from the system's own then."""
        with redis.Redis(unix_socket_path=str(self.bridge.data_dir / "redis.sock"), decode_responses=True) as client:
            for number in numbers:
                for name in PSAS:
                    client.hincrby(f"bridge:delivery:{number}:{name}", "creating_at", -600_000)

    def ticket(self, name: str, number: int, suffix: str = "") -> dict[str, Any]:
        """The report's ticket."""
        psa = self.psas[name]
        with psa.server.lock:
            found = [row for row in psa.state.tickets.values() if row[psa.field] == reference(number) + suffix]
        assert len(found) == 1, [row[psa.field] for row in found]
        return found[0]

    def status(self, name: str, number: int, suffix: str = "") -> str:
        given = self.ticket(name, number, suffix)["status"]
        return str(given["name"] if name == "psa" else STATUSES[given])

    def priority(self, name: str, number: int) -> str:
        given = self.ticket(name, number)["priority"]
        return str(given["name"].split(" - ")[1] if name == "psa" else PRIORITIES[given])

    def notes(self, name: str, number: int, kind: str, suffix: str = "") -> list[str]:
        """Texts of the notes of this kind on the report's ticket; a second one with the same marker is an error."""
        marker = rf"\[{reference(number)}{suffix}/({kind}-[0-9a-z-]+)\]\s*$"
        texts = self.psas[name].notes(self.ticket(name, number, suffix)["id"])
        found = [(marked[1], text) for text in texts if (marked := re.search(marker, text))]
        assert len({key for key, _ in found}) == len(found), f"the same note twice on {name}'s ticket of {number}"
        return [text for _, text in found]

    def mails(self, number: int, suffix: str = "") -> list[ReceivedMail]:
        """Of the report's thread, in order."""
        thread = re.compile(rf"<{reference(number)}{suffix}[.@]")
        return [mail for mail in list(self.world.mailbox.messages) if thread.match(str(mail.message["Message-ID"]))]

    def told(self, number: int, kind: str, times: int, suffix: str = "") -> bool:
        """Do both tickets and the thread have so many notes of this kind?"""
        ids = Counter(str(mail.message["Message-ID"]).partition("@")[0] for mail in self.mails(number, suffix))
        replies = [id for id in ids if id.startswith(f"<{reference(number)}{suffix}.{kind}-")]
        return len(replies) == times and all(len(self.notes(name, number, kind, suffix)) == times for name in PSAS)

    def are(self, state: str, *numbers: int, among: tuple[str, ...] = ()) -> bool:
        """Are the deliveries of these reports, to connectors `among` if given, all in this state by now?"""
        self.deliveries = {(row["report_id"], row["connector"]): row for row in self.bridge.deliveries()}
        found = [
            row["state"]
            for (number, name), row in self.deliveries.items()
            if number in numbers and name in (among or (name,))
        ]
        return set(found) == {state}

    def reason(self, number: int, name: str) -> str:
        return str(self.deliveries[number, name]["reason"] or "")

    def requests(self, name: str, number: int, method: str, what: str) -> int:
        """How often the report's first ticket was meant by requests of this method whose body has `what`."""
        id = self.first[name, number]
        return sum(
            request.method == method
            and request.mentions(what)
            and (f"/{id}" in request.path or request.mentions(f'"id": ?{id}\\b'))
            for request in self.psas[name].received()
        )


def play(scene: Scene) -> None:
    """Returns when everything has happened and every ticket was told."""
    world, psas = scene.world, scene.psas
    usual = range(CHANGED, CONVERTED + 1)
    for number in usual:
        world.report(number, 1, severity="low", summary=OLD_TEXT)
    world.report(NOTED, 2, severity="low")
    world.report(STILL, 3, severity="low")
    process = scene.bridge.start("run")
    wait_until(lambda: len(scene.bridge.deliveries()) == 33 and not scene.bridge.unfinished(), 40, "all are ticketed")
    scene.first = {(name, number): scene.ticket(name, number)["id"] for name in PSAS for number in usual}

    # A close that is refused; changes; tickets that people do away with.
    with world.connectwise.lock, world.autotask.lock:
        world.connectwise.require_time_entry = True
        world.connectwise.time_entries = {id for (name, n), id in scene.first.items() if name == "psa" and n != REFUSED}
        world.autotask.rules.refuses_completion = TIME_ENTRY
    world.connectwise.delete_ticket(scene.first["psa", DELETED])
    world.connectwise.merge_ticket(scene.first["psa", MERGED], into=scene.first["psa", LEFT_ALONE])
    world.connectwise.convert_ticket(scene.first["psa", CONVERTED])
    world.autotask.delete_ticket(scene.first["desk", DELETED])
    world.connectwise.set_status(scene.first["psa", MOVED_ON], "In Progress")
    world.autotask.set_status(scene.first["desk", MOVED_ON], "Waiting Customer")
    scene.age(MOVED_ON, LEFT_ALONE)
    scene.change(*LOST, severity="high")
    scene.change(CHANGED, severity="critical", summary=NEW_TEXT)
    scene.end(REFUSED)
    wait_until(lambda: scene.told(CHANGED, "update", 1), 20, "the change is told")
    wait_until(lambda: scene.are("gone", *LOST, among=("psa",)), 20, "what people did to the tickets was seen")
    wait_until(lambda: scene.are("gone", DELETED, among=("desk",)), 20, "that one was deleted was seen")
    wait_until(lambda: all(len(scene.notes(name, REFUSED, "ended")) == 2 for name in PSAS), 20, "the refusal is told")

    # One more change, which raises nothing, and ends; one comes before there is a ticket.
    with world.connectwise.lock, world.autotask.lock:
        world.connectwise.require_time_entry = False
        world.autotask.rules.refuses_completion = ""
    busy = [psa.fault_create("status", TOO_LATE, status=503) for psa in psas.values()]
    world.report(TOO_LATE, 1, severity="low")
    wait_until(lambda: all(fault.met for fault in busy), 20, "neither ticket system can take the last one yet")
    scene.ended_too_early = time.monotonic()
    scene.end(TOO_LATE)
    scene.change(CHANGED, severity="high")
    scene.end(ENDED, MOVED_ON, LEFT_ALONE, NOTED, STILL)
    scene.end(DISMISSED, status="dismissed")
    wait_until(lambda: scene.told(CHANGED, "update", 2), 20, "the second change is told")
    ends = (ENDED, DISMISSED, MOVED_ON, LEFT_ALONE, TOO_LATE)
    wait_until(lambda: scene.are("closed", *ends, NOTED, STILL), 20, "the tickets know that their reports are over")
    assert all(scene.told(number, "ended", 1) for number in ends)
    assert scene.told(NOTED, "ended", 1, "-n")

    # Open again.
    scene.change(ENDED, NOTED, status="sent", closed_at=None)
    wait_until(lambda: scene.told(ENDED, "reopened", 1), 20, "the tickets are opened again")
    wait_until(lambda: not scene.bridge.unfinished() and scene.are("created", ENDED, NOTED), 20, "new ones are made")
    assert scene.bridge.stop(process) == 0, scene.bridge.log()
    assert "Traceback" not in scene.bridge.log()
    for psa in psas.values():
        assert psa.server.handler_errors == []


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        scene = Scene(world, Bridge.in_folder(stack, world, {"connectors": tables(world)}))
        play(scene)
        yield scene


def test_what_changed_is_told_once_and_a_higher_severity_raises_the_priority(scene: Scene) -> None:
    for name in PSAS:
        first, second = scene.notes(name, CHANGED, "update")
        assert "Severity: low -> critical" in first
        assert NEW_TEXT in first
        assert OLD_TEXT not in first
        assert "The ticket's priority was raised." in first
        assert "Severity: critical -> high" in second
        assert NEW_TEXT not in second
        assert scene.priority(name, CHANGED) == "Critical", "a lower severity lowers nothing"
        assert scene.requests(name, CHANGED, "PATCH", "priority") == 1
        assert scene.status(name, CHANGED) == "New"
        assert scene.deliveries[CHANGED, name]["state"] == "created"


def test_a_report_that_ends_closes_its_ticket_with_the_outcome(scene: Scene) -> None:
    for number, outcome in {LEFT_ALONE: "Outcome: closed", DISMISSED: "Outcome: dismissed by Huntress"}.items():
        for name in PSAS:
            [note] = scene.notes(name, number, "ended")
            assert outcome in note
            assert "This ticket is closed." in note
            assert scene.status(name, number) == CLOSED[name]
            assert scene.deliveries[number, name]["state"] == "closed"
            assert scene.reason(number, name) == ""
        assert scene.ticket("desk", number)["resolution"] in ("Incident closed", "Incident dismissed by Huntress")


def test_a_report_that_ended_before_its_ticket_could_be_made_gets_one_that_is_closed(scene: Scene) -> None:
    for name, psa in scene.psas.items():
        assert [request.at < scene.ended_too_early for request in psa.creates(TOO_LATE)] == [True, False]
        [note] = scene.notes(name, TOO_LATE, "ended")
        assert "This ticket is closed." in note
        assert scene.status(name, TOO_LATE) == CLOSED[name]


def test_a_ticket_that_a_person_has_moved_on_is_told_and_left_open(scene: Scene) -> None:
    for name, status in {"psa": "In Progress", "desk": "Waiting Customer"}.items():
        [note] = scene.notes(name, MOVED_ON, "ended")
        assert f"It is left open, because a person has moved it on (status {status})." in note
        assert scene.status(name, MOVED_ON) == status
        assert scene.requests(name, MOVED_ON, "PATCH", "status") == 0
        assert scene.deliveries[MOVED_ON, name]["state"] == "closed"
        assert scene.reason(MOVED_ON, name) == f"left open: a person has moved it on (status {status})"


def test_a_close_that_is_refused_is_one_note_and_one_reason_and_no_loop(scene: Scene) -> None:
    for name in PSAS:
        ended, refused = scene.notes(name, REFUSED, "ended")
        assert "Outcome: closed" in ended
        assert "did not close this ticket" in refused
        assert "A time entry is required" in refused
        assert ".." not in refused
        assert scene.requests(name, REFUSED, "PATCH", "status") == 1
        assert scene.status(name, REFUSED) == "New"
        assert "close it by hand" in scene.reason(REFUSED, name)


def test_a_report_that_is_open_again_opens_its_ticket(scene: Scene) -> None:
    for name in PSAS:
        [note] = scene.notes(name, ENDED, "reopened")
        assert "This ticket is opened again." in note
        assert len(scene.notes(name, ENDED, "ended")) == 1
        assert scene.status(name, ENDED) == "New"
        assert scene.deliveries[ENDED, name]["state"] == "created"
        assert scene.deliveries[ENDED, name]["ticket_id"] == str(scene.first[name, ENDED])


def test_where_tickets_are_never_opened_again_a_new_one_links_the_old_and_the_old_the_new(scene: Scene) -> None:
    for name, psa in scene.psas.items():
        old, new = scene.ticket(name, NOTED, "-n"), scene.ticket(name, NOTED, "-r2-n")
        row = scene.deliveries[NOTED, f"{name}_note"]
        assert (row["state"], row["ticket_id"]) == ("created", str(new["id"]))
        [ended] = scene.notes(name, NOTED, "ended", "-n")
        assert "It is left open, because on_close is note." in ended
        assert scene.status(name, NOTED, "-n") == "New"
        [continued] = scene.notes(name, NOTED, "continued", "-n")
        assert f"New ticket: {row['ticket_number']}" in continued
        text = " ".join([str(new.get("description")), *psa.notes(new["id"])])
        assert re.search(rf"\b{old.get('ticketNumber', old['id'])}\b", text)


def test_where_the_end_changes_nothing_the_ticket_is_not_touched(scene: Scene) -> None:
    for name in PSAS:
        assert scene.notes(name, STILL, "[a-z]+", "-s") == []
        assert scene.status(name, STILL, "-s") == "New"
        assert scene.deliveries[STILL, f"{name}_still"]["state"] == "closed"
        assert "on_close is nothing" in scene.reason(STILL, f"{name}_still")
    assert len(scene.mails(STILL, "-s")) == 1


def test_a_ticket_that_a_person_did_away_with_is_noted_and_not_made_again(scene: Scene) -> None:
    why = {DELETED: "deleted", MERGED: "merged into", CONVERTED: "converted to a project ticket"}
    for number, word in why.items():
        assert word in scene.reason(number, "psa")
        assert scene.deliveries[number, "psa"]["state"] == "gone"
    assert "deleted" in scene.reason(DELETED, "desk")
    assert scene.deliveries[DELETED, "desk"]["state"] == "gone"
    assert scene.notes("psa", MERGED, "update") == []
    for psa in scene.psas.values():
        assert [len(psa.creates(number)) for number in LOST] == [1, 1, 1]
    # Where it still exists it is followed.
    assert [len(scene.notes("desk", number, "update")) for number in (MERGED, CONVERTED)] == [1, 1]


def test_mails_are_replies_in_one_thread(scene: Scene) -> None:
    threads = {
        CHANGED: ("", ["update", "update"]),
        ENDED: ("", ["ended", "reopened"]),
        DISMISSED: ("", ["ended"]),
        NOTED: ("-n", ["ended", "continued"]),
    }
    for number, (suffix, kinds) in threads.items():
        first, *replies = [mail.message for mail in scene.mails(number, suffix)]
        thread = str(first["Message-ID"])
        assert [
            re.split("[.-]", str(reply["Message-ID"]).removeprefix(thread.split("@")[0]))[1] for reply in replies
        ] == kinds
        assert {str(reply["In-Reply-To"]) for reply in replies} == {thread}
        assert {str(reply["Subject"]) for reply in replies} == {f"Re: {first['Subject']}"}
    [anew] = scene.mails(NOTED, "-r2-n")
    assert anew.message["In-Reply-To"] is None


def test_no_ticket_and_no_mail_is_made_twice(scene: Scene) -> None:
    for psa in scene.psas.values():
        assert set(psa.references().values()) == {1}
        assert len(psa.creates()) == 14, "one of them was refused"
    ids = Counter(str(mail.message["Message-ID"]) for mail in scene.world.mailbox.messages)
    assert set(ids.values()) == {1}
