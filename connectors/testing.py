"""The contract that every connector must keep, as tests to derive from.

An author of a connector writes a pretend system (`PretendSystem`) and derives::

    class TestTracker(ConnectorContract):
        connector_class = Tracker

        @pytest.fixture
        def system(self) -> Iterator[PretendSystem]:
            with PretendTracker() as system:
                yield system

All tests talk to the pretend system over whatever the connector really uses. They judge by what the system received.
This module needs pytest; nothing else of the bridge does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from bridge.models import Agent, Note, Organization, Ticket
from connectors.base import Connector, Held, Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.testing_following import FollowingContract
from connectors.testing_parts import (
    RETRY_AFTER,
    TIMEOUT,
    Deleting,
    Fault,
    Gate,
    Kind,
    PretendSystem,
    Remembered,
    SeenTicket,
    assert_no_secret,
)

__all__ = [
    "HOSTILE",
    "RETRY_AFTER",
    "TIMEOUT",
    "ConnectorContract",
    "Deleting",
    "Fault",
    "Gate",
    "Kind",
    "PretendSystem",
    "Remembered",
    "SeenTicket",
]

HOSTILE = {
    "line breaks": "first\r\nBcc: other@example.com\r\n\r\nsecond\n.\nthird",
    "quotes": """ " or id > 0 or summary like "% ' -- \\" ] } )""",
    "markup": "<script>alert(1)</script> {{ 7 * 7 }} {% raw %} %0d%0a &amp; ]]>",
    "control": "nul \x00 bell \x07 escape \x1b[2J delete \x7f next line \x85 paragraph \u2029 end",
    "unicode": "zażółć \u202egnp.exe \ufeff\u200b 😀 e\u0301 日本語",
    "long": "word " * 1000,
    "one word": "x" * 5000,
    "surrogate": "half \ud83d of a pair",
}


class ConnectorContract(FollowingContract):
    """Derive, set `connector_class`, and give the fixture `system`."""

    # What it is

    def test_it_describes_itself(self, system: PretendSystem, connector: Connector, gate: Gate) -> None:
        assert system.settings()["type"] == type(connector).type, "the table's type must be the class's"
        names = [part.name for part in connector.parts()]
        assert {"title", "text"} <= set(names) <= {"title", "text", "notice", "html"}, names
        assert len(names) == len(set(names)), names
        for part in connector.parts():
            assert (connector.template_folder() / part.file).is_file(), f"{part.file} is missing"
        assert connector.system(), "without an identity two connectors could share tickets unnoticed"
        again = self.make(system, gate)
        assert (again.system(), again.slot_group()) == (connector.system(), connector.slot_group())
        again.close()

    def test_it_asks_a_person_only_for_settings_that_it_has(self, connector: Connector) -> None:
        """`init` asks these questions; one with choices has an answer of its own."""
        model = type(connector).settings_class
        questions = {question.key: question for question in type(connector).questions()}
        unknown = [key for key in questions if key.partition(".")[0] not in model.model_fields]
        assert not unknown, f"no settings of {model.__name__}: {unknown}"
        unasked = {name for name, info in model.model_fields.items() if info.is_required()} - {"type", *questions}
        assert not unasked, f"settings without a default that nobody asks for: {sorted(unasked)}"
        for key, question in questions.items():
            offered = connector.choices(key)
            assert bool(offered) == question.choices, f"{key}: choices is {question.choices}, and there are {offered}"
            ids = [choice.id for choice in offered or ()]
            assert len(ids) == len(set(ids)), f"{key}: two choices have the same id"

    def test_no_secret_in_what_it_shows(self, system: PretendSystem, connector: Connector) -> None:
        settings = self.connector_class.settings_class.model_validate(system.settings())
        assert_no_secret(system, f"{settings!r} {connector!r} {connector.system()} {connector.slot_group()}")

    def test_check_finds_nothing_where_all_is_well(self, system: PretendSystem, connector: Connector) -> None:
        assert connector.check() == []
        assert set(system.requests()) <= {"read"}, "check must change nothing"

    # Finding and creating

    def test_what_was_never_made_is_not_found(self, connector: Connector) -> None:
        self.findable()
        assert connector.find("huntress-7-404") == []

    def test_what_was_made_is_found_under_the_same_id(self, system: PretendSystem, connector: Connector) -> None:
        self.findable()
        ref = self.create(connector, self.ticket(connector, 1))
        longer = self.create(connector, self.ticket(connector, 11))
        assert [found.id for found in connector.find("huntress-7-1")] == [ref.id], "the reference must match as a whole"
        assert [found.id for found in connector.find("huntress-7-11")] == [longer.id]
        assert [(seen.id, seen.reference) for seen in system.tickets()] == [
            (ref.id, "huntress-7-1"),
            (longer.id, "huntress-7-11"),
        ]

    def test_a_ticket_carries_what_it_was_given(self, system: PretendSystem, connector: Connector) -> None:
        ticket = self.ticket(connector)
        ref = connector.complete(self.create(connector, ticket), ticket)
        (seen,) = system.tickets()
        assert any("A foothold was found." in text for text in [*seen.texts, *system.notes(ref.id)])
        assert ticket.reference in seen.reference
        assert seen.title.startswith(ticket.title)
        if ticket.company:
            assert seen.company == ticket.company.company.id

    def test_prepare_changes_nothing_and_create_sends_one_request(
        self, system: PretendSystem, connector: Connector
    ) -> None:
        prepared = connector.prepare(self.ticket(connector))
        assert set(system.requests()) <= {"read"}, "prepare must change nothing"
        before = len(system.requests())
        connector.create(prepared, Remembered())
        changing = [kind for kind in system.requests()[before:] if kind != "read"]
        assert changing == ["create"], "create sends exactly one create request and changes nothing else"
        assert len(system.tickets()) == 1

    def test_after_creating_it_completes_as_often_as_asked(self, system: PretendSystem, connector: Connector) -> None:
        agent = Agent(5, hostname='host" or name != "', serial_number="S'1\r\n")
        ticket = self.ticket(connector, agent=agent)
        ref = self.create(connector, ticket)
        first = connector.complete(ref, ticket)
        once = (system.tickets(), system.notes(ref.id))
        assert connector.complete(first, ticket).id == first.id == ref.id
        assert (system.tickets(), system.notes(ref.id)) == once, "completing twice must change nothing more"

    def test_several_threads_at_once(self, system: PretendSystem, connector: Connector) -> None:
        start = threading.Barrier(2)
        tickets = [[self.ticket(connector, 100 * worker + each) for each in range(3)] for worker in (1, 2)]

        def work(mine: Sequence[Ticket]) -> list[tuple[str, str]]:
            start.wait(10)
            return [(ticket.reference, self.create(connector, ticket).id) for ticket in mine]

        with ThreadPoolExecutor(2) as pool:
            made = [pair for pairs in pool.map(work, tickets) for pair in pairs]
        assert len({ref for _, ref in made}) == 6
        assert len(system.tickets()) == 6
        if self.connector_class.can_find:
            assert all([found.id for found in connector.find(reference)] == [ref] for reference, ref in made)

    # When things go wrong

    def test_a_refused_connection_was_certainly_not_sent(self, system: PretendSystem, connector: Connector) -> None:
        prepared = connector.prepare(self.ticket(connector))
        system.stop()
        assert isinstance(self.outcome(system, lambda: connector.create(prepared, Remembered())), Unavailable)
        assert isinstance(self.outcome(system, connector.check), Unavailable)
        if self.connector_class.can_find:
            assert isinstance(self.outcome(system, lambda: connector.find("huntress-7-1")), Unavailable)

    @pytest.mark.parametrize("fault", ["commit_drop", "commit_error"])
    def test_made_but_not_answered_is_in_doubt_and_then_found(
        self, system: PretendSystem, connector: Connector, fault: Fault
    ) -> None:
        prepared = connector.prepare(self.ticket(connector))
        system.misbehave(fault, "create")
        try:
            ref = connector.create(prepared, Remembered())
        except (OutcomeUnknown, Held) as outcome:
            assert_no_secret(system, str(outcome))
        else:
            # A connector may look by itself after a strange answer, but never make one up.
            assert [ref.id] == [seen.id for seen in system.tickets()]
        system.behave()
        assert len(system.tickets()) == 1
        assert system.requests().count("create") == 1, "a create is never sent again by the connector itself"
        if self.connector_class.can_find:
            assert [found.id for found in connector.find("huntress-7-1")] == [system.tickets()[0].id]

    @pytest.mark.parametrize("fault", ["drop", "silent", "error", "garbage"])
    def test_not_made_and_not_answered_well_is_no_refusal(
        self, system: PretendSystem, connector: Connector, fault: Fault
    ) -> None:
        prepared = connector.prepare(self.ticket(connector))
        system.misbehave(fault, "create")
        found = self.outcome(system, lambda: connector.create(prepared, Remembered()))
        assert isinstance(found, Unavailable | OutcomeUnknown | Held), repr(found)
        assert system.requests().count("create") <= 1, "a create is never sent again by the connector itself"
        assert system.tickets() == []

    def test_a_busy_system_is_left_alone(self, system: PretendSystem, connector: Connector) -> None:
        prepared = connector.prepare(self.ticket(connector))
        system.misbehave("busy", "create")
        before = len(system.requests())
        found = self.outcome(system, lambda: connector.create(prepared, Remembered()))
        assert isinstance(found, Unavailable), repr(found)
        if self.names_retry_after:
            assert found.retry_after == RETRY_AFTER
        assert len(system.requests()) == before + 1, "the system asked to be left alone"
        assert system.tickets() == []

    def test_refused_credentials_are_a_misconfiguration(self, system: PretendSystem, connector: Connector) -> None:
        prepared = connector.prepare(self.ticket(connector))
        system.misbehave("denied")
        assert isinstance(self.outcome(system, lambda: connector.create(prepared, Remembered())), Misconfigured)
        assert system.tickets() == []
        try:
            findings = connector.check()
        except Misconfigured as outcome:
            assert_no_secret(system, str(outcome))
        else:
            assert findings, "check must find that the credentials are refused"
            assert_no_secret(system, repr(findings))
        if self.connector_class.can_find:
            assert isinstance(self.outcome(system, lambda: connector.find("huntress-7-1")), Misconfigured)

    @pytest.mark.parametrize("fault", ["drop", "silent", "error", "busy", "denied", "garbage"])
    def test_a_failed_look_up_is_never_an_empty_one(
        self, system: PretendSystem, connector: Connector, fault: Fault
    ) -> None:
        self.findable()
        assert connector.find("huntress-7-1") == []
        system.misbehave(fault)
        assert isinstance(self.outcome(system, lambda: connector.find("huntress-7-1")), Unavailable | Misconfigured)

    def test_every_request_asks_first(self, system: PretendSystem, connector: Connector, gate: Gate) -> None:
        ticket = self.ticket(connector)
        ref = self.create(connector, ticket)
        connector.complete(ref, ticket)
        connector.note(ref, ticket.reference, Note("k", "Title", "Text"))
        connector.check()
        assert gate.calls >= len(system.requests()) > 0
        prepared = connector.prepare(self.ticket(connector, 2))
        before = len(system.requests())
        gate.shut = True
        for call in (
            lambda: connector.create(prepared, Remembered()),
            lambda: connector.note(ref, ticket.reference, Note("l", "Title", "Text")),
            connector.check,
        ):
            assert isinstance(self.outcome(system, call), Unavailable), "a paused connector is Unavailable"
        if self.connector_class.can_find:
            assert isinstance(self.outcome(system, lambda: connector.find("huntress-7-1")), Unavailable)
        assert len(system.requests()) == before, "a paused connector sends nothing"

    # Hostile texts

    @pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
    def test_no_text_escapes_its_field(self, system: PretendSystem, connector: Connector, hostile: str) -> None:
        self.create(connector, self.ticket(connector, 1))
        limits = {part.name: part.limit for part in connector.parts()}
        plain = self.ticket(connector, 2)
        ticket = replace(
            plain,
            title=hostile[: limits.get("title")],
            text=f"{hostile}\n{plain.reference}"[: limits.get("text")],
            notice=hostile[: limits.get("notice")],
            html=f"<p>{plain.reference}</p>",
            organization=Organization(2, hostile),
        )
        ref = self.create(connector, ticket)
        harmless, seen = system.tickets()
        assert seen.id == ref.id
        assert ticket.reference in seen.reference
        assert seen.company == harmless.company
        assert seen.fields == harmless.fields
        if self.connector_class.can_find:
            assert [found.id for found in connector.find(ticket.reference)] == [ref.id]
            assert connector.find("huntress-7-3") == []

    @pytest.mark.parametrize("hostile", ["plain", *HOSTILE.values()], ids=["plain", *HOSTILE.keys()])
    def test_a_note_carries_its_marker(self, system: PretendSystem, connector: Connector, hostile: str) -> None:
        ticket = self.ticket(connector)
        ref = connector.complete(self.create(connector, ticket), ticket)
        before = (system.tickets(), list(system.notes(ref.id)))
        connector.note(ref, ticket.reference, Note("status-closed", hostile[:100], hostile))
        assert system.tickets() == before[0], "a note changes nothing but notes"
        (added,) = list(system.notes(ref.id))[len(before[1]) :]
        assert added.rstrip().endswith(f"[{ticket.reference}/status-closed]"), "the marker stands at the end"

    # Linking

    def test_linking_what_does_not_exist_is_refused(self, system: PretendSystem, connector: Connector) -> None:
        assert isinstance(self.outcome(system, lambda: connector.link("987654321", "huntress-7-9")), Rejected)
        assert set(system.requests()) <= {"read"}

    # Systems that cannot be asked

    def test_what_was_sent_is_not_sent_again(self, system: PretendSystem, connector: Connector) -> None:
        if self.connector_class.can_find:
            pytest.skip("this system is asked instead")
        assert isinstance(self.outcome(system, lambda: connector.find("huntress-7-1")), Outcome)
        prepared, progress = connector.prepare(self.ticket(connector)), Remembered()
        ref = connector.create(prepared, progress)
        sent = system.requests().count("create")
        assert connector.create(prepared, progress) == ref
        assert system.requests().count("create") == sent

    def test_nothing_is_sent_that_could_not_be_remembered(self, system: PretendSystem, connector: Connector) -> None:
        if self.connector_class.can_find:
            pytest.skip("this system is asked instead")
        prepared, progress = connector.prepare(self.ticket(connector)), Remembered()
        progress.lost = True
        assert isinstance(self.outcome(system, lambda: connector.create(prepared, progress)), Unavailable)
        assert system.tickets() == []
