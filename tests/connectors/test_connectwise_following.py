"""What becomes of a ConnectWise ticket after its creation, over real sockets; the pretend system's people act on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bridge.demo.connectwise import PretendConnectWise
from bridge.models import Company, CompanyMatch, CompanySource, Note, Organization, Ticket, TicketRef, TicketState
from connectors.base import Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.connectwise import ConnectWise
from tests.connectors.conftest import Connect, NoProgress

TICKET = Ticket(
    reference="huntress-7-42",
    report_id=42,
    title="HIGH - Incident on HOST-1",
    text="Line one\nLine two",
    notice="A security incident is being handled.",
    severity="high",
    source_severity="high",
    company=CompanyMatch(Company("253", "Organization 3", "ORG3"), CompanySource.NAME),
)

#: Statuses of the board that tickets are made on, by the pretend system's ids.
NEW, IN_PROGRESS, CLOSED = "201", "202", "203"


def create(connector: ConnectWise, ticket: Ticket = TICKET) -> TicketRef:
    return connector.create(connector.prepare(ticket), NoProgress())


def changes(psa: PretendConnectWise) -> list[Any]:
    """Path and value of every change that was sent."""
    return [(change["path"], change["value"]) for sent in psa.requests_to("", "PATCH") for change in sent.json]


# How it stands


def test_a_new_ticket_knows_its_first_status_whatever_a_workflow_rule_makes_of_it(
    connect: Connect, psa: PretendConnectWise
) -> None:
    psa.status_after_create = "In Progress"
    connector = connect()
    ref = create(connector)
    assert ref.status == NEW
    assert connector.complete(ref, TICKET) == ref
    assert connector.look(ref) == TicketState(IN_PROGRESS, "In Progress")


def test_a_ticket_is_closed_by_its_flag_or_by_its_board_s_word(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.set_status(int(ref.id), "Closed")
    assert connector.look(ref) == TicketState(CLOSED, "Closed", closed=True)
    psa.tickets[int(ref.id)]["closedFlag"] = False  # the status was marked as closed after the ticket had got it
    assert connector.look(ref).closed
    psa.set_status(int(ref.id), "New")
    psa.tickets[int(ref.id)]["closedFlag"] = True
    assert connector.look(ref).closed


def test_without_a_right_to_the_setup_tables_the_flag_must_do(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.fault("status", path="/statuses", status=403, times=None)
    assert connector.look(ref) == TicketState(NEW, "New")
    with pytest.raises(Misconfigured):
        connector.close_ticket(ref, "")


@pytest.mark.parametrize(
    ("act", "project_right", "sentence"),
    [
        (
            lambda psa, ticket, _: psa.delete_ticket(ticket),
            True,
            "was deleted, or moved to where the API member cannot",
        ),
        (lambda psa, ticket, _: psa.convert_ticket(ticket), True, "was converted to a project ticket"),
        (lambda psa, ticket, _: psa.delete_ticket(ticket), False, "was deleted or converted to a project ticket"),
        (lambda psa, ticket, _: psa.convert_ticket(ticket), False, "was deleted or converted to a project ticket"),
        (lambda psa, ticket, into: psa.merge_ticket(ticket, into), True, "was merged into ticket {into}"),
    ],
)
def test_what_is_gone_is_named_and_left_alone(
    connect: Connect,
    psa: PretendConnectWise,
    act: Callable[[PretendConnectWise, int, int], None],
    project_right: bool,
    sentence: str,
) -> None:
    connector = connect()
    ref, other = create(connector), create(connector, replace(TICKET, reference="huntress-7-43"))
    psa.project_right = project_right
    act(psa, int(ref.id), int(other.id))

    expected = f"ticket {ref.id} {sentence.format(into=other.id)}"
    assert connector.look(ref).gone.startswith(expected)
    for change in (
        lambda: connector.close_ticket(ref, ""),
        lambda: connector.reopen_ticket(ref, NEW),
        lambda: connector.raise_priority(ref, "low", "critical"),
    ):
        with pytest.raises(Rejected, match=re.escape(expected)):
            change()
    assert changes(psa) == []
    assert connector.look(other) == TicketState(NEW, "New")


@pytest.mark.parametrize("answer", [{"kind": "garbage"}, {"kind": "status", "status": 200, "body": {"id": 1}}])
def test_a_project_module_that_talks_nonsense_decides_nothing(
    connect: Connect, psa: PretendConnectWise, answer: Mapping[str, Any]
) -> None:
    connector = connect()
    ref = create(connector)
    psa.delete_ticket(int(ref.id))
    psa.fault(path="/project/tickets", times=None, **answer)
    with pytest.raises(Unavailable, match=f"project ticket {ref.id}"):
        connector.look(ref)


def test_a_project_ticket_shown_as_a_service_ticket_is_converted(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.tickets[int(ref.id)]["recordType"] = "ProjectTicket"
    assert connector.look(ref).gone == f"ticket {ref.id} was converted to a project ticket"


def test_wrong_keys_answered_404_make_no_ticket_gone(connect: Connect, psa: PretendConnectWise) -> None:
    ref = create(connect())
    psa.bad_credentials_status = 404
    connector = connect(public_key="wrong")
    for look in (
        lambda: connector.look(ref),
        lambda: connector.has_note(ref, TICKET.reference, "closed"),
        lambda: connector.close_ticket(ref, ""),
    ):
        with pytest.raises(Misconfigured, match="wrong keys"):
            look()


@pytest.mark.parametrize(
    ("lose_sight", "words"),
    [
        (lambda psa: setattr(psa, "search_right", "sees nothing"), "no other ticket"),
        (lambda psa: setattr(psa, "search_right", "forbidden"), "You do not have permission"),
        (lambda psa: setattr(psa.boards[21], "inactive", True), "board = 'Security'"),
    ],
)
def test_a_role_that_lost_sight_makes_no_ticket_gone(
    connect: Connect, psa: PretendConnectWise, lose_sight: Callable[[PretendConnectWise], None], words: str
) -> None:
    connector = connect()
    ref = create(connector)
    lose_sight(psa)
    psa.fault("status", path=f"/tickets/{ref.id}$", status=404, times=None)
    with pytest.raises(Misconfigured, match=re.escape(words)):
        connector.look(ref)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "status", "status": 500}, Unavailable),
        ({"kind": "status", "status": 409}, Unavailable),
        ({"kind": "status", "status": 401}, Misconfigured),
        ({"kind": "status", "status": 403}, Misconfigured),
        ({"kind": "drop"}, Unavailable),
        ({"kind": "garbage"}, Unavailable),
        ({"kind": "status", "status": 200, "body": {"id": 1}}, Unavailable),
        ({"kind": "status", "status": 200, "body": []}, Unavailable),
    ],
)
def test_an_answer_that_says_nothing_is_no_state(
    connect: Connect, psa: PretendConnectWise, fault: Mapping[str, Any], outcome: type[Outcome]
) -> None:
    connector = connect()
    ref = create(connector)
    psa.fault(path=f"/tickets/{ref.id}$", times=None, **fault)
    with pytest.raises(outcome):
        connector.look(ref)


@pytest.mark.parametrize(
    ("configured", "state", "untouched"),
    [
        ([], TicketState("202", "In Progress"), False),
        ([202], TicketState("202", "Renamed"), True),
        (["202"], TicketState("202", "Renamed"), True),
        ([" in  PROGRESS"], TicketState("302", "In Progress"), True),
        (["Waiting", 203], TicketState("202", "In Progress"), False),
        (["Waiting"], TicketState(gone="ticket 1 was deleted"), False),
        ([], TicketState("201", "New"), True),
        ([], TicketState("301", "New"), False),
    ],
)
def test_statuses_that_count_as_untouched(
    connect: Connect, configured: list[str | int], state: TicketState, untouched: bool
) -> None:
    assert connect(untouched_statuses=configured).untouched(state) is untouched


def test_the_status_that_new_tickets_are_given_counts_as_untouched(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect(status="In Progress")
    assert connector.untouched(TicketState("202", "In Progress"))
    assert not connector.untouched(TicketState("201", "New"))
    psa.fault("status", status=403, path="/statuses$", times=None)
    assert not connect().untouched(TicketState("201", "New")), "what the board gives is not told"


def test_check_names_an_unknown_untouched_status_which_stops_nothing(connect: Connect) -> None:
    (finding,) = connect(untouched_statuses=["in progress", "Triage", 999]).check()[:1]
    assert finding.setting == "untouched_statuses"
    assert "'Triage'" in finding.message
    assert not finding.blocking


# Closing and reopening


def test_closing_sets_the_closed_status_once(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    assert connector.close_ticket(ref, "It is over.") == CLOSED
    assert connector.close_ticket(ref, "It is over.") == CLOSED
    assert changes(psa) == [("status", {"id": int(CLOSED)})]
    assert connector.look(ref) == TicketState(CLOSED, "Closed", closed=True)


def test_a_ticket_that_a_person_closed_keeps_that_status(connect: Connect, psa: PretendConnectWise) -> None:
    psa.boards[21].statuses.append({**psa.boards[21].statuses[2], "id": 204, "name": "Cancelled"})
    connector = connect()
    ref = create(connector)
    psa.set_status(int(ref.id), "Cancelled")
    assert connector.close_ticket(ref, "") == "204"
    assert changes(psa) == []


@pytest.mark.parametrize(
    ("closed_status", "expected"),
    [("", "104"), ("Closed", "104"), (203, "104"), ("Resolved", "104"), ("done", "105")],
)
def test_on_another_board_its_own_closed_status_is_taken(
    connect: Connect, psa: PretendConnectWise, closed_status: str | int, expected: str
) -> None:
    closed = psa.boards[21].statuses[2]
    psa.boards[21].statuses.append({**closed, "id": 204, "name": "Resolved"})
    psa.boards[21].statuses.append({**closed, "id": 205, "name": "Done"})
    psa.boards[1].statuses.append({**closed, "id": 105, "name": "Done"})
    connector = connect(closed_status=closed_status)
    ref = create(connector)
    psa.move_ticket(int(ref.id), "Service Desk")
    assert connector.close_ticket(ref, "") == expected
    assert psa.tickets[int(ref.id)]["closedFlag"] is True


def test_a_closed_status_that_its_own_board_does_not_have_is_a_mistake(
    connect: Connect, psa: PretendConnectWise
) -> None:
    connector = connect(closed_status="Resolved")
    ref = create(connector)
    with pytest.raises(Misconfigured, match="closed_status = 'Resolved'"):
        connector.close_ticket(ref, "")
    assert changes(psa) == []


def test_a_status_rule_that_refuses_is_passed_on(connect: Connect, psa: PretendConnectWise) -> None:
    psa.require_time_entry = True
    connector = connect()
    ref = create(connector)
    for _ in range(2):
        with pytest.raises(Rejected, match=r"A time entry is required .* \(field status\)"):
            connector.close_ticket(ref, "")
    assert not connector.look(ref).closed
    psa.time_entries.add(int(ref.id))
    assert connector.close_ticket(ref, "") == CLOSED


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "status", "status": 409}, Unavailable),
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, Unavailable),
        ({"kind": "status", "status": 500}, OutcomeUnknown),
        ({"kind": "commit_drop"}, OutcomeUnknown),
        ({"kind": "garbage"}, OutcomeUnknown),
        ({"kind": "status", "status": 200, "body": {"id": 1}}, OutcomeUnknown),
        ({"kind": "status", "status": 403}, Misconfigured),
    ],
)
def test_a_change_that_failed_is_made_by_the_next_try(
    connect: Connect, psa: PretendConnectWise, fault: Mapping[str, Any], outcome: type[Outcome]
) -> None:
    connector = connect()
    ref = create(connector)
    psa.fault(method="PATCH", times=1, **fault)
    with pytest.raises(outcome):
        connector.close_ticket(ref, "")
    assert connector.close_ticket(ref, "") == CLOSED
    assert psa.tickets[int(ref.id)]["closedFlag"] is True


def test_a_ticket_deleted_meanwhile_cannot_be_changed(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    seen = psa.fault("status", method="PATCH", status=404, times=None)
    psa.fault("status", method="GET", path="/project/", status=404, times=None)
    with pytest.raises(Rejected, match=f"ticket {ref.id} was deleted"):
        connector.close_ticket(ref, "")
    assert seen.met == 1


def test_a_change_answered_well_that_was_not_made_is_not_done(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.stubborn_fields = {"status", "priority"}
    with pytest.raises(Rejected, match="left it “New”"):
        connector.close_ticket(ref, "")
    with pytest.raises(Rejected, match="kept the old one"):
        connector.raise_priority(ref, "high", "critical")
    psa.set_status(int(ref.id), "Closed")
    with pytest.raises(Rejected, match="left it “Closed”"):
        connector.reopen_ticket(ref, NEW)
    assert len(changes(psa)) == 3


@pytest.mark.parametrize(
    ("board", "configured", "wanted", "expected"),
    [
        ("Security", "", IN_PROGRESS, IN_PROGRESS),
        ("Security", "", "", NEW),
        ("Security", "", CLOSED, NEW),
        ("Security", "In Progress", CLOSED, IN_PROGRESS),
        ("Security", "Closed", "999", NEW),
        ("Service Desk", "", IN_PROGRESS, "101"),
        ("Service Desk", "In Progress", IN_PROGRESS, "102"),
        ("Service Desk", "", "103", "103"),
    ],
)
def test_reopening_gives_the_status_that_fits_the_board(
    connect: Connect, psa: PretendConnectWise, board: str, configured: str, wanted: str, expected: str
) -> None:
    ref = create(connect())
    connector = connect(status=configured)
    psa.move_ticket(int(ref.id), board)
    psa.set_status(int(ref.id), "Closed")
    for _ in range(2):
        assert connector.reopen_ticket(ref, wanted) == expected
    assert changes(psa) == [("status", {"id": int(expected)})]
    assert not connector.look(ref).closed


def test_a_ticket_that_a_person_reopened_keeps_that_status(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.set_status(int(ref.id), "In Progress")
    assert connector.reopen_ticket(ref, NEW) == IN_PROGRESS
    assert changes(psa) == []


def test_a_board_without_an_open_status_is_named(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.set_status(int(ref.id), "Closed")
    psa.boards[21].statuses = psa.boards[21].statuses[2:]
    with pytest.raises(Misconfigured, match="board “Security” has no open status"):
        connector.reopen_ticket(ref, "")


# Priority


@pytest.mark.parametrize(
    ("before", "now", "chosen", "result", "expected"),
    [
        ("high", "critical", "", True, "Priority 1 - Critical"),
        ("low", "critical", "", False, "Priority 2 - High"),  # not what "low" would have made it
        ("high", "critical", "Priority 3 - Medium", False, "Priority 3 - Medium"),
        ("high", "critical", "Priority 1 - Critical", True, "Priority 1 - Critical"),
        ("high", "weird", "Priority 3 - Medium", True, "Priority 3 - Medium"),  # both mean the same
    ],
)
def test_a_priority_that_a_person_chose_is_left(
    connect: Connect, psa: PretendConnectWise, before: str, now: str, chosen: str, result: bool, expected: str
) -> None:
    connector = connect()
    ref = create(connector)
    if chosen:
        psa.set_priority(int(ref.id), chosen)
    for _ in range(2):
        assert connector.raise_priority(ref, before, now) is result
    assert psa.tickets[int(ref.id)]["priority"]["name"] == expected
    assert len(changes(psa)) == (1 if result and not chosen else 0)


def test_without_priorities_nothing_is_asked(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect(priorities={})
    before = len(psa.received)
    assert connector.raise_priority(TicketRef("1001"), "high", "critical")
    assert len(psa.received) == before


def test_a_ticket_made_without_a_priority_had_the_default_one(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect(priorities={"critical": 6})
    ref = create(connector)
    psa.set_priority(int(ref.id), "Priority 3 - Medium")  # as the real system does by itself
    assert connector.raise_priority(ref, "high", "critical")
    assert psa.tickets[int(ref.id)]["priority"]["id"] == 6
    psa.set_priority(int(ref.id), "Priority 4 - Low")
    assert not connector.raise_priority(ref, "high", "critical")


# Notes


def test_only_the_end_of_an_internal_note_is_a_marker(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    marker = f"[{TICKET.reference}/closed]"
    ref = create(connector, replace(TICKET, text=f"Found:\n> {marker} \n"))
    number = int(ref.id)
    psa.keep_note(number, {"text": f"What does this mean?\n{marker}", "detailDescriptionFlag": True})  # by mail
    connector.note(ref, TICKET.reference, Note("status", "Title", marker))
    assert not connector.has_note(ref, TICKET.reference, "closed")

    for _ in range(2):
        connector.note(ref, TICKET.reference, Note("closed", "Closed", "It is over."))
    assert connector.has_note(ref, TICKET.reference, "closed")
    assert sum(note["text"].startswith("Closed\n") for note in psa.notes[number]) == 1


@pytest.mark.parametrize(
    ("end", "added"),
    [
        ("[huntress-7-42/closed]", "\n\n[huntress-7-42]"),
        ("[huntress-7-42/x] [huntress-7-42/closed]\n\n", "\n\n[huntress-7-42]"),
        ("[huntress-7-42/closed] and more", ""),
        ("[huntress-7-42/closed] and more]", ""),
        ("[huntress-7-42/closed", ""),
        ("[huntress-7-41/closed]", ""),
        ("[huntress-7-42]", ""),
    ],
)
@pytest.mark.parametrize("visibility", ["internal", "customer"])
def test_a_ticket_s_text_is_changed_only_where_it_ends_like_a_note(
    connect: Connect, psa: PretendConnectWise, end: str, added: str, visibility: str
) -> None:
    connector = connect(visibility=visibility)
    ref = create(connector, replace(TICKET, text=f"> quoted {end}"))
    field = "initialInternalAnalysis" if visibility == "internal" else "initialDescription"
    assert psa.tickets[int(ref.id)][field] == f"> quoted {end}{added}"
    assert not connector.has_note(ref, TICKET.reference, "closed")


def test_a_note_on_a_later_page_is_seen(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    for number in range(2500):
        psa.keep_note(int(ref.id), {"text": f"call {number}", "internalAnalysisFlag": True})
    connector.note(ref, TICKET.reference, Note("closed", "Closed", ""))
    assert connector.has_note(ref, TICKET.reference, "closed")
    assert not connector.has_note(ref, TICKET.reference, "close")


# Companies


def test_a_company_is_made_once_and_then_known(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    assert connector.company("Tailor's Ltd") is None  # the listing is cached by now
    organization = Organization(4711, "Tailor's\r\nLtd")
    made = connector.create_company(organization, "huntress-org-4711")
    assert made == connector.company("Tailor's Ltd")
    assert made == connector.create_company(replace(organization, name="Renamed"), "huntress-org-4711")
    assert made.identifier == "huntress-org-4711"
    (posted,) = psa.requests_to("/company/companies", "POST")
    assert posted.json == {"identifier": "huntress-org-4711", "name": "Tailor's Ltd", "site": {"name": "Main"}}


@pytest.mark.parametrize(
    ("organization", "reference", "words"),
    [
        (Organization(3, "organization  3"), "huntress-org-3", "“Organization 3” (ORG3, id 253)"),
        (Organization(3, ""), "huntress-org-3", "organization 3"),
        (Organization(10**13, "Big"), f"huntress-org-{10**13}", "makes no company"),
    ],
)
def test_a_company_that_a_person_must_decide_on(
    connect: Connect, psa: PretendConnectWise, organization: Organization, reference: str, words: str
) -> None:
    with pytest.raises(Rejected, match=re.escape(words)):
        connect().create_company(organization, reference)
    assert psa.requests_to("/company/companies", "POST") == []


def test_of_two_who_make_the_same_company_one_takes_the_other_s(connect: Connect, psa: PretendConnectWise) -> None:
    organization = Organization(4711, "Tailor's Ltd")
    before = [{"id": number, "identifier": key, "name": name} for number, key, name in psa.companies]
    psa.companies.append((999, "HUNTRESS-org-4711", "Tailor's Ltd"))
    psa.fault("status", method="GET", path="/company/companies", status=200, body=before, times=1)
    made = connect().create_company(organization, "huntress-org-4711")
    assert made.id == "999"
    assert len(psa.companies) == 14


def test_a_company_refused_by_the_system_says_why(connect: Connect, psa: PretendConnectWise) -> None:
    body = {"code": "InvalidObject", "message": "company object is invalid", "errors": [{"message": "No market."}]}
    psa.fault("status", path="/company/companies", method="POST", status=400, body=body, times=None)
    with pytest.raises(Rejected, match=r"company object is invalid: No market\."):
        connect().create_company(Organization(4711, "Tailor's Ltd"), "huntress-org-4711")


def test_a_company_whose_making_is_in_doubt_is_found_by_the_next_try(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    psa.fault("commit_drop", path="/company/companies", method="POST", times=1)
    organization = Organization(4711, "Tailor's Ltd")
    with pytest.raises(OutcomeUnknown):
        connector.create_company(organization, "huntress-org-4711")
    assert connector.create_company(organization, "huntress-org-4711").identifier == "huntress-org-4711"
    assert len(psa.companies) == 14
