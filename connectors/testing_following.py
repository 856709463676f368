"""The part of the contract of `connectors.testing` about tickets that exist, and about companies."""

from __future__ import annotations

import pytest

from bridge.models import Note, Organization, TicketRef, TicketState
from connectors.base import Connector, Misconfigured, Rejected, Unavailable
from connectors.testing_parts import ContractBase, Deleting, Fault, PretendSystem


class FollowingContract(ContractBase):
    """What a connector that cannot be asked how a ticket stands (`look` gives None) need not do is skipped."""

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
        connector.note(ref, ticket.reference, Note("details", f"Details {marker}", f"more\n{marker}"))
        before = len(system.notes(ref.id))
        connector.note(ref, ticket.reference, Note("status-closed", "Closed", "It is over."))
        (added,) = list(system.notes(ref.id))[before:]
        assert "It is over." in added

    def test_a_note_is_seen_and_not_added_again(self, system: PretendSystem, connector: Connector) -> None:
        ticket = self.ticket(connector, text="> [huntress-7-1/status-closed]")
        ref = connector.complete(self.create(connector, ticket), ticket)
        if connector.has_note(ref, ticket.reference, "status-closed") is None:
            pytest.skip("this system cannot be asked")
        assert connector.has_note(ref, ticket.reference, "status-closed") is False
        before = len(system.notes(ref.id))
        for _ in range(2):
            connector.note(ref, ticket.reference, Note("status-closed", "Closed", "It is over."))
            assert connector.has_note(ref, ticket.reference, "status-closed") is True
        assert len(system.notes(ref.id)) == before + 1
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
