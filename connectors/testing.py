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

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import pytest

from bridge.models import Agent, CompanyMatch, CompanySource, Note, Organization, Ticket, TicketRef, TicketState
from connectors.base import (
    Connector,
    ConnectorContext,
    Held,
    Misconfigured,
    Outcome,
    OutcomeUnknown,
    Rejected,
    Unavailable,
)
from connectors.redaction import redact

#: What a request does at the pretend system: nothing, make a ticket (or mail), anything else that changes something.
Kind = Literal["read", "create", "change"]

#: How a pretend system is told to misbehave.
Fault = Literal[
    "drop",  # end the connection without doing anything
    "commit_drop",  # do it, then end the connection without an answer
    "silent",  # do nothing and never answer, until stopped
    "error",  # say that something is wrong with the system (such as 503) without doing anything
    "commit_error",  # do it, then say so (such as 500)
    "busy",  # ask to come back in `RETRY_AFTER` seconds, without doing anything (429)
    "denied",  # refuse the credentials
    "garbage",  # answer a success whose content makes no sense, without doing anything
]

#: Seconds that `busy` names.
RETRY_AFTER = 7

#: Seconds that a request may take in these tests.
TIMEOUT = 1.0


@dataclass(frozen=True)
class SeenTicket:
    """A ticket as the system holds it."""

    id: str
    reference: str
    title: str
    #: All other texts, wherever they are kept.
    texts: Sequence[str]
    company: str = ""
    #: Every further field or header, except what differs from ticket to ticket anyway (ids, dates).
    fields: Mapping[str, object] | None = None


class PretendSystem(Protocol):
    """A stand-in for the outside system, on loopback."""

    def settings(self) -> Mapping[str, Any]:
        """A connector table that fits this system, as it would stand in the configuration, credentials included."""

    def secrets(self) -> Sequence[str]:
        """What of `settings` may appear nowhere."""

    def requests(self) -> Sequence[Kind]:
        """What was received so far, in order, faulty or not."""

    def tickets(self) -> Sequence[SeenTicket]:
        """The tickets (or mails) that exist, oldest first."""

    def notes(self, ticket_id: str) -> Sequence[str]:
        """The texts of the notes on a ticket."""

    def misbehave(self, fault: Fault, kind: Kind | None = None) -> None:
        """Every further request of this kind, or every one, meets this fault."""

    def behave(self) -> None:
        """Ends all faults."""

    def stop(self) -> None:
        """Nothing listens any more."""


@runtime_checkable
class Deleting(Protocol):
    """What a pretend system offers besides when people can delete its tickets."""

    def delete(self, ticket_id: str) -> None:
        """A person deletes the ticket."""


class Gate:
    """`before_request` that counts, and that can be shut like a paused connector's."""

    def __init__(self) -> None:
        self.calls = 0
        self.shut = False

    def __call__(self) -> None:
        self.calls += 1
        if self.shut:
            raise Unavailable("the connector is paused", RETRY_AFTER)


class Remembered:
    """`Progress` in memory. `lost`: the lease is lost, nothing can be saved any more."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}
        self.lost = False

    def get(self) -> Mapping[str, str]:
        return dict(self.saved)

    def save(self, key: str, value: str) -> None:
        if self.lost:
            raise Unavailable("the lease was lost")
        self.saved[key] = value


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


class ConnectorContract:
    """Derive, set `connector_class`, and give the fixture `system`."""

    connector_class: ClassVar[type[Connector]]
    #: Does the system say how long to wait when it is busy?
    names_retry_after: ClassVar[bool] = True

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        """The pretend system, listening."""
        raise NotImplementedError("give a fixture `system`")

    @pytest.fixture
    def gate(self) -> Gate:
        return Gate()

    @pytest.fixture
    def connector(self, system: PretendSystem, gate: Gate) -> Iterator[Connector]:
        connector = self.make(system, gate)
        yield connector
        connector.close()

    @pytest.fixture(autouse=True)
    def no_secret_is_told(
        self, system: PretendSystem, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> Iterator[None]:
        """Neither logs at debug level nor output hold a secret, whatever the test does."""
        caplog.set_level(logging.DEBUG)
        yield
        shown = capfd.readouterr()
        _assert_no_secret(system, caplog.text + shown.out + shown.err)

    def make(self, system: PretendSystem, gate: Gate, **overrides: Any) -> Connector:
        """A connector for `system`. Override it when yours needs more."""
        table = {"timeout": TIMEOUT, **system.settings(), **overrides}
        settings = self.connector_class.settings_class.model_validate(table)
        return self.connector_class("contract", settings, ConnectorContext(before_request=gate))

    def ticket(self, connector: Connector, number: int = 1, **changes: Any) -> Ticket:
        """A sample ticket within the connector's declared limits."""
        company = None
        listed = connector.companies()
        if listed is not None:
            assert listed, "the pretend system must have a company"
            company = CompanyMatch(listed[0], CompanySource.NAME)
        ticket = Ticket(
            reference=f"huntress-7-{number}",
            report_id=number,
            title=f"CRITICAL - Incident on HOST-{number}",
            text=f"A foothold was found.\nReference: huntress-7-{number}\n",
            notice=f"Security incident {number} is being worked on.",
            html=f"<!doctype html><title>Incident</title><p>A foothold was found. huntress-7-{number}</p>",
            severity="critical",
            source_severity="critical",
            organization=Organization(1, "Organization 1"),
            company=company,
        )
        return replace(ticket, **changes)

    def create(self, connector: Connector, ticket: Ticket) -> TicketRef:
        return connector.create(connector.prepare(ticket), Remembered())

    def findable(self) -> None:
        if not self.connector_class.can_find:
            pytest.skip("this system cannot be asked")

    def outcome(self, system: PretendSystem, call: Callable[[], object]) -> Outcome:
        """The outcome that `call` ends in: a sentence without a secret."""
        with pytest.raises(Outcome) as raised:
            call()
        assert str(raised.value), "an outcome must say what happened"
        _assert_no_secret(system, str(raised.value))
        return raised.value

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
        again.close()

    def test_no_secret_in_what_it_shows(self, system: PretendSystem, connector: Connector) -> None:
        settings = self.connector_class.settings_class.model_validate(system.settings())
        _assert_no_secret(system, f"{settings!r} {connector!r} {connector.system()} {connector.slot_group()}")

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
            _assert_no_secret(system, str(outcome))
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
            _assert_no_secret(system, str(outcome))
        else:
            assert findings, "check must find that the credentials are refused"
            _assert_no_secret(system, repr(findings))
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
        assert f"[{ticket.reference}/status-closed]" in added

    # Following a ticket

    def looked_at(self, connector: Connector, ref: TicketRef) -> TicketState:
        state = connector.look(ref)
        if state is None:
            pytest.skip("this system cannot be asked how a ticket stands")
        return state

    def test_text_that_quotes_a_marker_suppresses_no_note(self, system: PretendSystem, connector: Connector) -> None:
        marker = "[huntress-7-1/status-closed]"
        ticket = self.ticket(connector, text=f"A foothold was found.\n> {marker}")
        ref = connector.complete(self.create(connector, ticket), ticket)
        if connector.has_note(ref, ticket.reference, "status-closed") is None and not connector.can_find:
            pytest.skip("this system cannot be asked")
        connector.note(ref, ticket.reference, Note("details", f"Details {marker}", f"more\n{marker}"))
        before = len(system.notes(ref.id))
        for _ in range(2):
            connector.note(ref, ticket.reference, Note("status-closed", "Closed", "It is over."))
        (added,) = list(system.notes(ref.id))[before:]
        assert "It is over." in added

    def test_a_note_is_seen_once_it_is_there(self, connector: Connector) -> None:
        ticket = self.ticket(connector, text="> [huntress-7-1/status-closed]")
        ref = connector.complete(self.create(connector, ticket), ticket)
        if connector.has_note(ref, ticket.reference, "status-closed") is None:
            pytest.skip("this system cannot be asked")
        assert connector.has_note(ref, ticket.reference, "status-closed") is False
        connector.note(ref, ticket.reference, Note("status-closed", "Closed", "It is over."))
        assert connector.has_note(ref, ticket.reference, "status-closed") is True
        assert connector.has_note(ref, ticket.reference, "closed") is False, "the marker must match as a whole"

    def test_a_new_ticket_stands_as_it_was_made(self, system: PretendSystem, connector: Connector) -> None:
        ref = self.create(connector, self.ticket(connector))
        sent = len(system.requests())
        state = self.looked_at(connector, ref)
        assert (state.closed, state.gone) == (False, "")
        assert state.status
        assert ref.status in ("", state.status)
        assert set(system.requests()[sent:]) <= {"read"}, "looking must change nothing"

    def test_closing_and_reopening_are_safe_to_repeat(self, system: PretendSystem, connector: Connector) -> None:
        ticket = self.ticket(connector)
        ref = self.create(connector, ticket)
        first = self.looked_at(connector, ref)

        closed = connector.close_ticket(ref, "It is over.")
        state = self.looked_at(connector, ref)
        assert (state.closed, state.status) == (True, closed)
        sent = len(system.requests())
        assert connector.close_ticket(ref, "It is over.") == closed
        assert set(system.requests()[sent:]) <= {"read"}, "closing a closed ticket must change nothing"
        assert [found.id for found in connector.find(ticket.reference)] == [ref.id], "closed tickets are found too"

        for wanted in ("", closed, first.status):
            connector.close_ticket(ref, "It is over.")
            opened = connector.reopen_ticket(ref, wanted)
            state = self.looked_at(connector, ref)
            assert (state.closed, state.status) == (False, opened)
            sent = len(system.requests())
            assert connector.reopen_ticket(ref, wanted) == opened
            assert set(system.requests()[sent:]) <= {"read"}, "reopening an open ticket must change nothing"
        assert opened == first.status, "the status that was asked for"

    @pytest.mark.parametrize("fault", ["drop", "silent", "error", "busy", "denied", "garbage"])
    def test_a_failed_look_is_never_a_ticket_that_is_gone(
        self, system: PretendSystem, connector: Connector, fault: Fault
    ) -> None:
        ref = self.create(connector, self.ticket(connector))
        self.looked_at(connector, ref)
        system.misbehave(fault)
        for call in (
            lambda: connector.look(ref),
            lambda: connector.has_note(ref, "huntress-7-1", "status-closed"),
            lambda: connector.close_ticket(ref, "It is over."),
        ):
            assert isinstance(self.outcome(system, call), Unavailable | Misconfigured)

    def test_a_ticket_that_a_person_deleted_is_gone(self, system: PretendSystem, connector: Connector) -> None:
        ticket = self.ticket(connector)
        ref = self.create(connector, ticket)
        self.looked_at(connector, ref)
        if not isinstance(system, Deleting):
            pytest.skip("nobody can delete a ticket of this system")
        system.delete(ref.id)
        state = self.looked_at(connector, ref)
        assert "deleted" in state.gone
        assert not state.closed
        sent = len(system.requests())
        for call in (
            lambda: connector.note(ref, ticket.reference, Note("status-closed", "Closed", "It is over.")),
            lambda: connector.close_ticket(ref, "It is over."),
            lambda: connector.reopen_ticket(ref, ""),
        ):
            assert isinstance(self.outcome(system, call), Rejected)
        assert set(system.requests()[sent:]) <= {"read"}

    def test_a_priority_follows_the_severity_unless_a_person_changed_it(
        self, system: PretendSystem, connector: Connector
    ) -> None:
        ref = self.create(connector, self.ticket(connector))
        self.looked_at(connector, ref)
        sent = len(system.requests())
        assert connector.raise_priority(ref, "critical", "critical")
        assert set(system.requests()[sent:]) <= {"read"}
        assert connector.raise_priority(ref, "critical", "low")
        lowered, sent = system.tickets(), len(system.requests())
        assert connector.raise_priority(ref, "critical", "low"), "it is done already"
        assert not connector.raise_priority(ref, "critical", "high"), "it is not what critical would have made it"
        assert set(system.requests()[sent:]) <= {"read"}
        assert system.tickets() == lowered

    # Companies

    def test_a_company_is_made_once_or_not_at_all(self, system: PretendSystem, connector: Connector) -> None:
        if connector.companies() is None:
            pytest.skip("this system has no companies")
        known = connector.companies(fresh=True) or ()
        taken = Organization(900000001, known[0].name)
        assert isinstance(
            self.outcome(system, lambda: connector.create_company(taken, "huntress-org-900000001")), Rejected
        ), "a company of the same name is for a person to decide on"
        new = Organization(900000002, "Brand New Customer")
        try:
            made = connector.create_company(new, "huntress-org-900000002")
        except Rejected:
            assert connector.companies(fresh=True) == known
            return
        assert connector.create_company(new, "huntress-org-900000002").id == made.id
        assert connector.company(new.name) == made, "the list must be asked for anew"
        assert len(connector.companies(fresh=True) or ()) == len(known) + 1

    def test_companies_are_known_by_id_and_name(self, connector: Connector) -> None:
        listed = connector.companies()
        if listed is None:
            assert connector.company("Organization 1") is None
            return
        assert len({company.id for company in listed}) == len(listed) > 0
        names = [company.name for company in listed]
        for company in listed:
            if company.id.isdecimal():
                assert connector.company(int(company.id)) == company
            if names.count(company.name) == 1:
                assert connector.company(company.name) == company
        assert connector.company("no such company") is None
        assert {company.id for company in connector.companies(fresh=True) or ()} == {company.id for company in listed}

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


def _assert_no_secret(system: PretendSystem, text: str) -> None:
    # Compared here, so that a failing test does not show the secret once more.
    untouched = redact(text, system.secrets()) == text
    assert untouched, "a secret, perhaps encoded, appears in an error, a log, an output or a representation"
