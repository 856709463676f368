"""Autotask's tickets after they were made: how they stand, priority, end, reopening, long texts; companies made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import requests
from pydantic import ValidationError

from bridge.demo.autotask import PretendAutotask
from bridge.demo.autotask_tables import choice
from bridge.models import Company, IncidentReport, Note, Organization, TicketRef, TicketState
from bridge.rendering import Renderer, RenderInput
from connectors.autotask import Autotask
from connectors.autotask_fields import pages
from connectors.base import Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from tests.connectors.conftest import Clock
from tests.connectors.test_autotask import REFERENCE, connector, made, ticket

ACME = Organization(7, "Fabrikam")
ORGANIZATION = "huntress-org-7"
DEFAULTS = {"ownerResourceID": 4, "phone": "555-0100"}


@pytest.fixture
def psa() -> Iterator[PretendAutotask]:
    with PretendAutotask() as server:
        yield server
        assert server.handler_errors == []


@pytest.fixture
def desk(psa: PretendAutotask) -> Autotask:
    return connector(psa)


@pytest.fixture
def ref(desk: Autotask) -> TicketRef:
    return made(desk, ticket())


def stored(psa: PretendAutotask, ref: TicketRef) -> dict[str, Any]:
    return psa.tickets[int(ref.id)]


def patches(psa: PretendAutotask) -> list[Any]:
    """Bodies of every PATCH so far."""
    return [request.json for request in psa.requests_to("(?i)/Tickets$", "PATCH")]


# The status that a ticket was made with


def test_a_new_ticket_is_told_with_the_status_that_was_sent(psa: PretendAutotask, desk: Autotask) -> None:
    psa.rules.status_after_create = 8
    ref = made(desk, ticket())
    assert ref.status == "1"
    assert desk.complete(ref, ticket()).status == "1"
    assert desk.look(ref) == TicketState("8", "In Progress")


def test_a_ticket_made_in_spite_of_an_error_has_it_too(psa: PretendAutotask, desk: Autotask) -> None:
    psa.fault("commit_status", method="POST", path="(?i)/Tickets$", status=500, body={"errors": ["A workflow failed"]})
    assert made(desk, ticket()).status == "1"


# How it stands


@pytest.mark.parametrize(
    ("label", "closed_status", "expected"),
    [
        ("New", "Complete", TicketState("1", "New")),
        ("In Progress", "Complete", TicketState("8", "In Progress")),
        ("Complete", "Complete", TicketState("5", "Complete", closed=True)),
        ("Complete", "Waiting Customer", TicketState("5", "Complete", closed=True)),
        ("Waiting Customer", "waiting  customer", TicketState("7", "Waiting Customer", closed=True)),
        ("Waiting Customer", 7, TicketState("7", "Waiting Customer", closed=True)),
        ("Complete", "Done", TicketState("5", "Complete", closed=True)),
    ],
)
def test_how_a_ticket_stands(psa: PretendAutotask, label: str, closed_status: str | int, expected: TicketState) -> None:
    desk = connector(psa, closed_status=closed_status)
    ref = made(desk, ticket())
    psa.set_status(int(ref.id), label)
    assert desk.look(ref) == expected


@pytest.mark.parametrize(("status", "closed"), [(8, True), (1, False)])
def test_a_completion_date_closes_a_ticket_unless_it_is_new_again(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, status: int, closed: bool
) -> None:
    stored(psa, ref).update(status=status, completedDate="2026-03-02T08:15:42Z")
    state = desk.look(ref)
    assert (state.status, state.closed) == (str(status), closed)


def test_a_status_made_a_minute_ago_has_its_name_and_one_unknown_has_none(psa: PretendAutotask) -> None:
    clock = Clock()
    desk = connector(psa, clock)
    ref = made(desk, ticket())
    stored(psa, ref)["status"] = 33
    assert desk.look(ref) == TicketState("33", "")
    psa.field("status")["picklistValues"].append(choice(33, "With Huntress", active=False))
    clock.now += 60
    assert desk.look(ref) == TicketState("33", "With Huntress")


def test_a_merged_ticket_is_closed(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    psa.merge_ticket(int(ref.id), psa.add_ticket())
    assert desk.look(ref) == TicketState("5", "Complete", closed=True)


@pytest.mark.parametrize("access", ["All", 1, None])
def test_a_deleted_ticket_is_gone_where_others_are_seen(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, access: Any
) -> None:
    psa.add_ticket()
    psa.delete_ticket(int(ref.id))
    psa.user_access = access
    state = desk.look(ref)
    assert state.gone == f"Autotask does not show ticket {ref.id} any more, though it shows others: it was deleted"
    assert not state.closed
    assert psa.requests_to("/Tickets/query")[-1].json["maxRecords"] == 1


@pytest.mark.parametrize(
    ("access", "others", "sentence"),
    [
        ("Restricted", True, "may see only some tickets, or none"),
        (2, True, "may see only some tickets, or none"),
        ("None", True, "may see only some tickets, or none"),
        (0, True, "may see only some tickets, or none"),
        ("All", False, "nor any other ticket"),
        (None, False, "nor any other ticket"),
    ],
)
def test_what_may_only_be_hidden_is_not_gone(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, access: Any, others: bool, sentence: str
) -> None:
    if others:
        psa.add_ticket()
    psa.delete_ticket(int(ref.id))
    psa.user_access = access
    with pytest.raises(Misconfigured, match=f"{sentence}.*security level"):
        desk.look(ref)


def test_a_tenant_that_tells_no_rights_is_asked_for_any_ticket(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef
) -> None:
    psa.fault("status", path="/Tickets/entityInformation$", status=404, times=None)
    psa.add_ticket()
    psa.delete_ticket(int(ref.id))
    assert desk.look(ref).gone


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "garbage"},
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 500, "body": {"errors": ["Something else"]}},
        {"kind": "status", "status": 200, "body": []},
    ],
)
@pytest.mark.parametrize("path", [r"/Tickets/\d+$", "/Tickets/query$", "/Tickets/entityInformation$"])
def test_an_error_is_never_gone(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, path: str, fault: dict[str, Any]
) -> None:
    psa.add_ticket()
    psa.delete_ticket(int(ref.id))
    psa.fault(**fault, path=path, times=None)
    with pytest.raises(Outcome):
        desk.look(ref)


@pytest.mark.parametrize(
    "item",
    [{"id": 1, "status": 1}, {"status": 1}, {"id": 7001}, {"id": 7001, "status": None}, {"id": 7001, "status": True}],
)
def test_an_answer_that_is_no_such_ticket_is_none(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, item: dict[str, Any]
) -> None:
    assert ref.id == "7001"
    psa.fault("status", path=r"/Tickets/\d+$", status=200, body={"item": item})
    with pytest.raises(Unavailable):
        desk.look(ref)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [([], False), (["in  PROGRESS"], True), ([8], True), (["8"], False), (["New", 7], False), ([88], False)],
)
def test_configured_statuses_count_as_untouched(psa: PretendAutotask, statuses: list[Any], expected: bool) -> None:
    desk = connector(psa, untouched_statuses=statuses)
    assert desk.untouched(TicketState("8", "In Progress")) is expected


def test_the_status_that_new_tickets_are_given_counts_as_untouched(psa: PretendAutotask) -> None:
    assert connector(psa).untouched(TicketState("1", "New"))
    desk = connector(psa, status="In Progress")
    assert desk.untouched(TicketState("8", "In Progress"))
    assert not desk.untouched(TicketState("1", "New"))
    assert not desk.untouched(TicketState(gone="it was deleted"))


# Priority


def test_only_the_priority_is_raised(psa: PretendAutotask, desk: Autotask) -> None:
    low = ticket(severity="low", source_severity="low")
    ref = made(desk, low)
    assert desk.raise_priority(ref, "low", "critical") is True
    assert stored(psa, ref)["priority"] == 4
    assert patches(psa) == [{"id": int(ref.id), "priority": 4}]


@pytest.mark.parametrize(("held", "expected"), [(2, False), (4, True)])
def test_a_priority_that_is_not_ours_stays(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, held: int, expected: bool
) -> None:
    stored(psa, ref)["priority"] = held
    assert desk.raise_priority(ref, "low", "critical") is expected
    assert stored(psa, ref)["priority"] == held
    assert patches(psa) == []


@pytest.mark.parametrize(
    ("priorities", "expected"),
    [({"default": "High"}, True), ({}, True), ({"critical": "Critical"}, False)],
)
def test_severities_without_priorities_of_their_own(
    psa: PretendAutotask, priorities: dict[str, str], expected: bool
) -> None:
    desk = connector(psa, priorities=priorities)
    number = psa.add_ticket(priority=3)
    assert desk.raise_priority(TicketRef(str(number)), "low", "critical") is expected
    assert patches(psa) == []


# What a PATCH comes to, whatever it changes

CHANGES: dict[str, tuple[str, Callable[[Autotask, TicketRef], object], object]] = {
    "priority": ("priority", lambda desk, ref: desk.raise_priority(ref, "critical", "low"), True),
    "close": ("status", lambda desk, ref: desk.close_ticket(ref, "Over."), "5"),
    "reopen": ("status", lambda desk, ref: desk.reopen_ticket(ref, "8"), "8"),
}


def begun(psa: PretendAutotask, desk: Autotask, change: str) -> TicketRef:
    ref = made(desk, ticket())
    if change == "reopen":
        psa.set_status(int(ref.id), "Complete")
    return ref


@pytest.mark.parametrize("change", CHANGES)
def test_a_refused_change_is_rejected_after_one_more_reading(psa: PretendAutotask, desk: Autotask, change: str) -> None:
    _, make, _ = CHANGES[change]
    ref = begun(psa, desk, change)
    psa.fault("status", method="PATCH", path="/Tickets$", status=500, body={"errors": ["A time entry is required."]})
    with pytest.raises(Rejected, match="A time entry is required"):
        make(desk, ref)
    assert [request.method for request in psa.received[-3:]] == ["GET", "PATCH", "GET"]
    assert len(patches(psa)) == 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_refusal_after_the_change_is_none(psa: PretendAutotask, desk: Autotask, change: str) -> None:
    _, make, expected = CHANGES[change]
    ref = begun(psa, desk, change)
    psa.rules.fails_afterwards = "A workflow rule failed."
    assert make(desk, ref) == expected


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_answered_with_200_and_not_done_is_rejected(psa: PretendAutotask, desk: Autotask, change: str) -> None:
    field, make, _ = CHANGES[change]
    ref = begun(psa, desk, change)
    before = stored(psa, ref)[field]
    psa.rules.set_back.add(field)
    with pytest.raises(Rejected, match=f"changed {field}.* stayed as it was: a workflow rule"):
        make(desk, ref)
    assert stored(psa, ref)[field] == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_lost_answer_is_mended_by_asking_again(psa: PretendAutotask, desk: Autotask, change: str) -> None:
    _, make, expected = CHANGES[change]
    ref = begun(psa, desk, change)
    psa.fault("commit_drop", method="PATCH", path="/Tickets$")
    with pytest.raises(OutcomeUnknown):
        make(desk, ref)
    assert make(desk, ref) == expected
    assert len(patches(psa)) == 1


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("refuses", [True, False])
def test_what_cannot_be_read_afterwards_stays_in_doubt(
    psa: PretendAutotask, desk: Autotask, change: str, refuses: bool
) -> None:
    _, make, _ = CHANGES[change]
    ref = begun(psa, desk, change)
    if refuses:
        psa.fault("status", method="PATCH", path="/Tickets$", status=500, body={"errors": ["No time entry"]})
    psa.fault("late", method="GET", path=r"/Tickets/\d+$")  # the reading before it is answered
    psa.fault("status", method="GET", path=r"/Tickets/\d+$", status=429)
    with pytest.raises(OutcomeUnknown, match="No time entry" if refuses else "was told to change") as raised:
        make(desk, ref)
    assert raised.value.retry_after == 60


# Ending


def test_closing_sets_status_and_resolution_at_once(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    psa.rules.resolution_required = True
    assert desk.close_ticket(ref, "Closed by Huntress.") == "5"
    assert patches(psa) == [{"id": int(ref.id), "status": 5, "resolution": "Closed by Huntress."}]
    assert desk.look(ref).closed
    assert "Status: Complete\nResolution: Closed by Huntress.\n" in requests.get(ref.url, timeout=5).text


def test_what_a_person_wrote_as_resolution_stays(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    stored(psa, ref)["resolution"] = "Reimaged the host."
    assert desk.close_ticket(ref, "Closed by Huntress.") == "5"
    assert patches(psa) == [{"id": int(ref.id), "status": 5}]


def test_a_resolution_is_fitted(psa: PretendAutotask, desk: Autotask) -> None:
    psa.field("resolution")["length"] = 20
    ref = made(desk, ticket())
    desk.close_ticket(ref, "🚨" * 20)
    assert stored(psa, ref)["resolution"] == "🚨" * 9 + "…"


@pytest.mark.parametrize("absent", [True, False])
def test_a_resolution_that_the_tenant_does_not_take_is_left_out(psa: PretendAutotask, absent: bool) -> None:
    psa.field("resolution")["isReadOnly"] = True
    if absent:
        psa.unlisted.add("resolution")
    desk = connector(psa)
    ref = made(desk, ticket())
    assert desk.close_ticket(ref, "Over.") == "5"
    assert patches(psa) == [{"id": int(ref.id), "status": 5}]


@pytest.mark.parametrize(("label", "status"), [("Complete", "5"), ("Waiting Customer", "7")])
def test_a_ticket_that_people_closed_is_left_alone(psa: PretendAutotask, label: str, status: str) -> None:
    desk = connector(psa, closed_status="Waiting Customer")
    ref = made(desk, ticket())
    psa.set_status(int(ref.id), label)
    assert desk.close_ticket(ref, "Over.") == status
    assert patches(psa) == []


def test_closing_takes_the_configured_status(psa: PretendAutotask) -> None:
    desk = connector(psa, closed_status="Waiting Customer")
    ref = made(desk, ticket())
    assert desk.close_ticket(ref, "") == "7"
    assert patches(psa) == [{"id": int(ref.id), "status": 7}]


@pytest.mark.parametrize("resolution", ["", "Over."])
def test_rules_of_the_tenant_refuse_a_completion_in_its_own_words(
    psa: PretendAutotask, desk: Autotask, ref: TicketRef, resolution: str
) -> None:
    psa.rules.resolution_required = True
    if resolution:
        psa.rules.refuses_completion = "A time entry is required to complete this ticket."
    sentence = "time entry is required" if resolution else "Resolution is required to complete"
    with pytest.raises(Rejected, match=f"Autotask refused: .*{sentence}"):
        desk.close_ticket(ref, resolution)
    assert not desk.look(ref).closed


def test_an_unknown_closed_status_is_a_misconfiguration(psa: PretendAutotask) -> None:
    desk = connector(psa, closed_status="Done")
    ref = made(desk, ticket())
    with pytest.raises(Misconfigured, match='closed_status: "Done" is not an active choice'):
        desk.close_ticket(ref, "Over.")


# Reopening


@pytest.mark.parametrize(("asked", "expected"), [("8", 8), ("", 1), ("5", 1), ("11", 1), ("99", 1)])
def test_reopening_sets_the_status_that_fits(psa: PretendAutotask, asked: str, expected: int) -> None:
    next(c for c in psa.field("status")["picklistValues"] if c["value"] == "11")["isActive"] = False
    desk = connector(psa)
    ref = made(desk, ticket())
    psa.set_status(int(ref.id), "Complete")
    assert desk.reopen_ticket(ref, asked) == str(expected)
    assert patches(psa) == [{"id": int(ref.id), "status": expected}]
    assert not desk.look(ref).closed


def test_a_ticket_that_is_open_already_stays(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    psa.set_status(int(ref.id), "In Progress")
    assert desk.reopen_ticket(ref, "1") == "8"
    assert patches(psa) == []


def test_a_completion_date_that_stays_is_no_failure(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    psa.rules.clears_completion = False
    psa.set_status(int(ref.id), "Complete")
    assert desk.reopen_ticket(ref, "") == "1"
    assert desk.look(ref) == TicketState("1", "New")


def test_nothing_is_changed_on_a_ticket_that_is_not_shown(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    psa.delete_ticket(int(ref.id))
    for change in (
        lambda: desk.raise_priority(ref, "low", "high"),
        lambda: desk.close_ticket(ref, "Over."),
        lambda: desk.reopen_ticket(ref, ""),
    ):
        with pytest.raises(Unavailable, match="does not show ticket"):
            change()
    assert patches(psa) == []


# Notes


def test_whether_a_note_is_there_is_told_by_its_end(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    assert desk.has_note(ref, REFERENCE, "closed") is False
    desk.note(ref, REFERENCE, Note("other", "Quoted", f"> [{REFERENCE}/closed]\nand so on"))
    assert desk.has_note(ref, REFERENCE, "closed") is False
    desk.note(ref, REFERENCE, Note("closed", "Closed", "It is over."))
    assert desk.has_note(ref, REFERENCE, "closed") is True


def test_every_page_of_notes_is_read(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    for number in range(5):
        desk.note(ref, REFERENCE, Note(f"change-{number}", "Changed", "x"))
    psa.page_size = 2
    for number in range(5):
        assert desk.has_note(ref, REFERENCE, f"change-{number}")
        desk.note(ref, REFERENCE, Note(f"change-{number}", "Changed", "x"))
    assert len(psa.notes[int(ref.id)]) == 5
    assert desk.has_note(ref, REFERENCE, "change-5") is False


def test_a_page_of_notes_that_fails_is_no_answer(psa: PretendAutotask, desk: Autotask, ref: TicketRef) -> None:
    for number in range(3):
        desk.note(ref, REFERENCE, Note(f"change-{number}", "Changed", "x"))
    psa.page_size = 2
    psa.fault("late", method="GET", path="/Notes$")  # the first page is answered
    psa.fault("status", method="GET", path="/Notes$", status=503)
    with pytest.raises(Unavailable):
        desk.has_note(ref, REFERENCE, "change-9")


# Texts longer than a description

LONG = "\n".join(f"> line {number} of the evidence 🚨" for number in range(200))
MARKERS = [f"[{REFERENCE}/text{suffix}]" for suffix in ("", "-2", "-3", "-4", "-5", "-6")]


@pytest.fixture
def small(psa: PretendAutotask) -> PretendAutotask:
    """A tenant whose descriptions hold 1,000 units, and whose notes 2,000."""
    psa.field("description")["length"] = 1000
    psa.note_fields[2]["length"] = 2000
    return psa


def texts(psa: PretendAutotask, ref: TicketRef) -> list[str]:
    """Its notes, each without its marker."""
    return [note["description"].rpartition("\n\n[")[0] for note in psa.notes[int(ref.id)]]


def test_what_customers_may_see_goes_on_in_internal_notes(small: PretendAutotask) -> None:
    desk, long = connector(small, visibility="customer"), ticket(text=LONG)
    ref = made(desk, long)
    for _ in range(2):
        desk.complete(ref, long)
    notes = small.notes[int(ref.id)]
    first = stored(small, ref)["description"].removesuffix("\n\n[continued in the internal notes]")
    assert first != stored(small, ref)["description"]
    assert "\n".join([first, *texts(small, ref)]) == LONG, "nothing is missing, and every page ends with a line"
    assert [note["publish"] for note in notes] == [2] * len(notes)
    assert [note["title"] for note in notes] == [
        f"Huntress incident report (continued, part {number})" for number in range(2, len(notes) + 2)
    ]
    assert [note["description"].rpartition("\n")[2] for note in notes] == MARKERS[1 : len(notes) + 1]


def test_internal_text_has_numbered_pages_too(small: PretendAutotask) -> None:
    desk, long = connector(small), ticket(text=LONG)
    ref = desk.complete(made(desk, long), long)
    assert "\n".join(texts(small, ref)) == LONG
    assert [note["title"] for note in small.notes[int(ref.id)]][:3] == [
        "Huntress incident report",
        "Huntress incident report (continued, part 2)",
        "Huntress incident report (continued, part 3)",
    ]


def test_a_lost_answer_in_the_middle_of_a_text_doubles_and_loses_nothing(small: PretendAutotask) -> None:
    desk, long = connector(small, visibility="customer"), ticket(text=LONG)
    ref = made(desk, long)
    small.fault("late", method="POST", path="/Notes$")
    small.fault("commit_drop", method="POST", path="/Notes$")
    with pytest.raises(OutcomeUnknown):
        desk.complete(ref, long)
    desk.complete(ref, long)
    whole = connector(small, visibility="customer", reference_suffix="x")
    other = whole.complete(made(whole, ticket("huntress-1-43", text=LONG)), ticket("huntress-1-43", text=LONG))
    assert texts(small, ref) == texts(small, other)


def test_a_description_with_other_line_ends_is_still_ours(small: PretendAutotask) -> None:
    desk, long = connector(small, visibility="customer"), ticket(text=LONG)
    ref = made(desk, long)
    stored(small, ref)["description"] = stored(small, ref)["description"].replace("\n", "\r\n") + "\r\n"
    desk.complete(ref, long)
    assert "line 0 of" not in "".join(texts(small, ref))
    assert "line 199 of" in texts(small, ref)[-1]


def test_beside_another_description_the_notes_hold_everything(small: PretendAutotask) -> None:
    desk, long = connector(small, visibility="customer"), ticket(text=LONG)
    ref = made(desk, long)
    stored(small, ref)["description"] = "Call the customer first!"
    for _ in range(2):
        desk.complete(ref, long)
    assert "\n".join(texts(small, ref)) == LONG
    assert small.notes[int(ref.id)][0]["description"].endswith(f"\n\n{MARKERS[0]}")


def test_a_description_that_is_edited_later_brings_no_second_text(small: PretendAutotask) -> None:
    desk, long = connector(small, visibility="customer"), ticket(text=LONG)
    ref = desk.complete(made(desk, long), long)
    before = texts(small, ref)
    stored(small, ref)["description"] = "Call the customer first!"
    desk.complete(ref, long)
    assert texts(small, ref) == before


@pytest.mark.parametrize("visibility", ["internal", "customer"])
def test_a_text_as_long_as_its_part_allows_is_not_cut(small: PretendAutotask, visibility: str) -> None:
    desk = connector(small, visibility=visibility)
    limit = desk.parts()[1].limit
    assert limit is not None
    long = ticket(text=("evidence 🚨\n" * (limit // 12)).rstrip())
    ref = desk.complete(made(desk, long), long)
    shown = texts(small, ref)
    if visibility == "customer":
        shown.insert(0, stored(small, ref)["description"])
    assert "".join(shown).count("evidence 🚨") == limit // 12
    assert not any("…" in page for page in shown)


@pytest.mark.parametrize("visibility", ["internal", "customer"])
def test_the_longest_report_of_the_source_is_shown_whole(psa: PretendAutotask, visibility: str) -> None:
    desk = connector(psa, visibility=visibility)
    words = (
        [f"s{number:05}\n" for number in range(20_000 // 7)],
        [f"b{number:05} 🚨\n" for number in range(100_000 // 10)],
    )
    report = IncidentReport(42, summary="".join(words[0]), body="".join(words[1]), severity="high")
    given = RenderInput(report, REFERENCE, Organization(7, "Acme Corp"), None, None, ticket().company)
    renderer = Renderer(desk, desk.settings, timezone="UTC", portal_url="")
    rendered = renderer.render(given)
    assert rendered.problems == ()
    ref = desk.complete(made(desk, rendered.ticket), rendered.ticket)
    pages = [str(stored(psa, ref)["description"]), *texts(psa, ref)]
    shown = set("\n".join(pages).split())
    assert [word for word in (*words[0], *words[1]) if word.split()[0] not in shown] == []
    assert "characters more" not in "".join(pages)


def test_where_no_internal_note_can_be_made_a_long_text_waits(small: PretendAutotask) -> None:
    small.note_fields[4]["picklistValues"] = [choice(1, "All Autotask Users")]
    desk = connector(small, visibility="customer")
    assert desk.parts()[1].limit == 1000, "longer texts are cut by the renderer, which says so"
    assert desk.prepare(ticket())
    with pytest.raises(Misconfigured, match="note_publish"):
        desk.prepare(ticket(text=LONG))


def test_a_page_ends_where_a_line_does_also_when_it_fills_it() -> None:
    assert pages("a" * 50 + "\n" + "b" * 100 + "\nccc", 100) == ["a" * 50, "b" * 100, "ccc"]


# Companies


def test_a_company_is_made_once(psa: PretendAutotask) -> None:
    desk = connector(psa, company_defaults=DEFAULTS | {"companyType": "Prospect", "city": ""})
    assert "Fabrikam" not in [company.name for company in desk.companies()]
    company = desk.create_company(ACME, ORGANIZATION)
    assert psa.companies[-1] == {
        "id": int(company.id),
        "companyName": "Fabrikam",
        "companyNumber": ORGANIZATION,
        "companyType": 3,
        "isActive": True,
        **DEFAULTS,
    }
    assert company in desk.companies()
    assert desk.company("fabrikam") == company
    assert desk.create_company(ACME, ORGANIZATION) == company
    assert len(psa.requests_to("/Companies$", "POST")) == 1


def test_a_company_is_a_customer_unless_said_otherwise(psa: PretendAutotask) -> None:
    long = Organization(7, "Fabrikam  and   Sons " * 10)
    company = connector(psa, company_defaults=DEFAULTS).create_company(long, ORGANIZATION)
    assert psa.companies[-1]["companyType"] == 1
    assert company.name == psa.companies[-1]["companyName"]
    assert company.name.startswith("Fabrikam and Sons Fabrikam")
    assert company.name.endswith("…")
    assert len(company.name) <= 100


def test_a_company_that_carries_the_reference_is_taken_whatever_its_name(psa: PretendAutotask) -> None:
    for number, name in ((600, "Second"), (500, "Renamed by a person")):
        psa.companies.append({"id": number, "companyName": name, "companyNumber": ORGANIZATION, "isActive": True})
    company = connector(psa).create_company(ACME, ORGANIZATION)
    assert company == Company("500", "Renamed by a person", ORGANIZATION)
    assert psa.requests_to("/Companies$", "POST") == []


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"companyName": "FABRIKAM"}, r'has a company "FABRIKAM" \(id 500\) already; .*organization 7'),
        ({"companyName": "Fabrikam", "isActive": False}, r'"Fabrikam" \(id 500\) already and is inactive'),
        ({"companyNumber": ORGANIZATION, "isActive": False}, r'company "Other" \(id 500\) .* is inactive; activate it'),
    ],
)
def test_a_company_that_may_be_another_is_not_taken(psa: PretendAutotask, row: dict[str, Any], sentence: str) -> None:
    psa.companies.append({"id": 500, "companyName": "Other", "companyNumber": None, "isActive": True, **row})
    with pytest.raises(Rejected, match=sentence):
        connector(psa, company_defaults=DEFAULTS).create_company(ACME, ORGANIZATION)
    assert psa.requests_to("/Companies$", "POST") == []


def test_an_organization_without_a_name_gets_no_company(psa: PretendAutotask) -> None:
    with pytest.raises(Rejected, match="organization 7 has no name"):
        connector(psa, company_defaults=DEFAULTS).create_company(Organization(7, " "), ORGANIZATION)


def test_what_the_tenant_requires_of_a_company_is_named(psa: PretendAutotask) -> None:
    with pytest.raises(Misconfigured, match=r"set company_defaults\.phone, company_defaults\.ownerResourceID$"):
        connector(psa).create_company(ACME, ORGANIZATION)
    psa.company_fields[3]["isRequired"] = psa.company_fields[7]["isRequired"] = False
    assert connector(psa).create_company(ACME, ORGANIZATION).name == "Fabrikam"


def test_a_refused_company_is_rejected_with_autotasks_sentence(psa: PretendAutotask) -> None:
    desk = connector(psa, company_defaults=DEFAULTS | {"ownerResourceID": 99})
    with pytest.raises(Rejected, match="Value does not reference an existing entity for ownerResourceID"):
        desk.create_company(ACME, ORGANIZATION)
    assert [request.path.rpartition("/")[2] for request in psa.received[-2:]] == ["Companies", "query"]


def test_a_company_made_in_spite_of_an_error_is_found(psa: PretendAutotask) -> None:
    desk = connector(psa, company_defaults=DEFAULTS)
    desk.companies()
    psa.fault("commit_status", method="POST", path="/Companies$", status=500, body={"errors": ["A workflow failed"]})
    company = desk.create_company(ACME, ORGANIZATION)
    assert company in desk.companies()
    assert company.id == str(psa.companies[-1]["id"])


@pytest.mark.parametrize("fails", ["commit_drop", "drop"])
def test_a_company_in_doubt_is_looked_for_before_it_is_made_again(
    psa: PretendAutotask, fails: Literal["commit_drop", "drop"]
) -> None:
    desk = connector(psa, company_defaults=DEFAULTS)
    before = len(psa.companies)
    psa.fault(fails, method="POST", path="/Companies$")
    with pytest.raises(OutcomeUnknown):
        desk.create_company(ACME, ORGANIZATION)
    assert desk.create_company(ACME, ORGANIZATION).id == str(psa.companies[-1]["id"])
    assert len(psa.companies) == before + 1


def test_a_refusal_that_cannot_be_looked_into_stays_in_doubt(psa: PretendAutotask) -> None:
    desk = connector(psa, company_defaults=DEFAULTS)
    psa.fault("status", method="POST", path="/Companies$", status=500, body={"errors": ["No good"]})
    psa.fault("late", path="/Companies/query$", times=2)  # by reference, by name
    psa.fault("drop", path="/Companies/query$")
    with pytest.raises(OutcomeUnknown, match="No good"):
        desk.create_company(ACME, ORGANIZATION)


def test_a_search_that_answers_with_other_companies_makes_none(psa: PretendAutotask) -> None:
    psa.fault("status", path="/Companies/query$", status=200, body={"items": [{"id": 500, "companyNumber": "C1"}]})
    with pytest.raises(Unavailable, match="answered with others"):
        connector(psa, company_defaults=DEFAULTS).create_company(ACME, ORGANIZATION)
    assert psa.requests_to("/Companies$", "POST") == []


def test_a_number_too_short_for_the_reference_makes_no_company(psa: PretendAutotask) -> None:
    psa.company_fields[2]["length"] = 10
    with pytest.raises(Misconfigured, match="companyNumber is too short"):
        connector(psa, company_defaults=DEFAULTS).create_company(ACME, ORGANIZATION)


@pytest.mark.parametrize("name", ["companyName", "CompanyNumber", "id"])
def test_names_and_numbers_of_companies_are_not_configured(psa: PretendAutotask, name: str) -> None:
    with pytest.raises(ValidationError, match="is filled by the connector; remove it"):
        connector(psa, company_defaults={name: "x"})


# What check finds


@pytest.mark.parametrize(
    ("overrides", "setting", "sentence"),
    [
        ({"untouched_statuses": ["new", "Triaged"]}, "untouched_statuses", '"Triaged" is not an active choice'),
        ({"untouched_statuses": [99]}, "untouched_statuses", "id 99 is not an active choice"),
        ({"closed_status": "Done"}, "closed_status", '"Done" is not an active choice'),
        ({"company_defaults": {"companyType": "Client"}}, "company_defaults.companyType", "is not an active choice"),
        ({"company_defaults": {"color": "red"}}, "company_defaults.color", "have no field 'color'"),
    ],
)
def test_check_finds_what_does_not_exist_and_stops_no_ticket_for_it(
    psa: PretendAutotask, overrides: dict[str, Any], setting: str, sentence: str
) -> None:
    (finding,) = connector(psa, **overrides).check()
    assert finding.setting == setting
    assert sentence in finding.message
    assert not finding.blocking


def test_check_finds_companies_that_cannot_be_described(psa: PretendAutotask) -> None:
    psa.fault("status", path="/Companies/entityInformation/fields$", status=403, times=None)
    (finding,) = connector(psa, company_defaults=DEFAULTS).check()
    assert finding.setting == "company_defaults"
    assert "may not do this" in finding.message


def test_check_is_content_with_what_exists(psa: PretendAutotask) -> None:
    assert connector(psa, untouched_statuses=["new", 8], company_defaults=DEFAULTS).check() == []
