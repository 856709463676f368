"""The Autotask connector against the pretend Autotask, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.demo.autotask import INTEGRATION_CODE, SECRET, PretendAutotask
from bridge.demo.autotask_tables import choice
from bridge.models import Agent, Company, CompanyMatch, CompanySource, Note, Organization, Ticket, TicketRef
from connectors.autotask import Autotask
from connectors.autotask_fields import fit, pages
from connectors.autotask_settings import AutotaskSettings
from connectors.base import ConnectorContext, Misconfigured, OutcomeUnknown, Rejected, Unavailable
from tests.connectors.conftest import Clock, NoProgress

REFERENCE = "huntress-1-42"


@pytest.fixture
def psa() -> Iterator[PretendAutotask]:
    with PretendAutotask() as server:
        yield server
        assert server.handler_errors == []


def connector(psa: PretendAutotask, clock: Clock | None = None, **overrides: Any) -> Autotask:
    settings = AutotaskSettings.model_validate(psa.settings(**overrides))
    context = ConnectorContext()
    return Autotask("desk", settings, context, clock) if clock else Autotask("desk", settings, context)


def ticket(reference: str = REFERENCE, company: int = 176, **changes: Any) -> Ticket:
    made = Ticket(
        reference=reference,
        report_id=42,
        title="CRITICAL - Incident on DESKTOP-1 (Acme Corp)",
        text="What happened: a foothold.\nWhat to do: isolate the host.",
        notice="Huntress reported an incident; see the internal notes.",
        severity="critical",
        source_severity="critical",
        organization=Organization(7, "Acme Corp"),
        company=CompanyMatch(Company(str(company), "Acme Corp"), CompanySource.NAME),
    )
    return replace(made, **changes)


def made(desk: Autotask, wanted: Ticket) -> TicketRef:
    return desk.create(desk.prepare(wanted), NoProgress())


def sent(psa: PretendAutotask) -> dict[str, Any]:
    """The body of the last create."""
    body = psa.requests_to("(?i)/Tickets$", "POST")[-1].json
    assert isinstance(body, dict)
    return body


# Creating and finding


def test_a_ticket_is_created_with_everything_resolved(psa: PretendAutotask) -> None:
    ref = made(connector(psa), ticket())
    stored = psa.tickets[int(ref.id)]
    assert {name: stored[name] for name in ("companyID", "queueID", "status", "priority", "externalID")} == {
        "companyID": 176,
        "queueID": 29683482,
        "status": 1,
        "priority": 4,
        "externalID": REFERENCE,
    }
    assert stored["title"] == ticket().title
    assert ref.url == f"{psa.url}/Mvc/ServiceDesk/TicketDetail.mvc?ticketId={ref.id}"
    assert len(psa.requests_to("(?i)/Tickets$", "POST")) == 1


def test_prepare_changes_nothing(psa: PretendAutotask) -> None:
    connector(psa).prepare(ticket())
    assert psa.tickets == {}
    assert {r.method for r in psa.received} == {"GET"}


def test_a_ticket_is_found_by_reference_lowest_id_first(psa: PretendAutotask) -> None:
    desk = connector(psa)
    first, second = made(desk, ticket()), made(desk, ticket())
    made(desk, ticket("huntress-1-421"))
    psa.add_ticket(externalID=REFERENCE.upper())
    psa.tickets[int(first.id)]["status"] = 5
    found = desk.find(REFERENCE)
    assert [ref.id for ref in found] == [first.id, second.id]
    assert found[0].number == psa.tickets[int(first.id)]["ticketNumber"]
    assert desk.find("huntress-1-43") == []


@pytest.mark.parametrize("reference", ["", "huntress 1", 'x","op":"noteq', "a" * 51])
def test_only_references_are_looked_up(psa: PretendAutotask, reference: str) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        connector(psa).find(reference)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"items": None},
        {"items": [None]},
        {"items": [{"id": 7001, "externalID": "other"}]},
        {"items": [{"id": 7001}]},
    ],
)
def test_an_unreadable_answer_is_never_not_found(psa: PretendAutotask, body: Any) -> None:
    desk = connector(psa)
    psa.fault("status", path="/Tickets/query", status=200, body=body)
    with pytest.raises(Unavailable):
        desk.find(REFERENCE)


def test_a_search_that_lags_is_empty_until_it_is_not(psa: PretendAutotask, clock: Clock) -> None:
    psa.clock, psa.search_lag = clock, 10.0
    desk = connector(psa)
    made(desk, ticket())
    assert desk.find(REFERENCE) == []
    clock.now += 10
    assert len(desk.find(REFERENCE)) == 1


def test_an_api_user_that_may_not_search_still_creates(psa: PretendAutotask) -> None:
    desk = connector(psa)
    psa.search_right = "sees nothing"
    ref = made(desk, ticket())
    assert desk.find(REFERENCE) == []
    assert desk.complete(ref, ticket()).number, "it is read by its id"
    psa.search_right = "forbidden"
    with pytest.raises(Misconfigured, match="adequate permissions"):
        desk.find(REFERENCE)
    psa.search_right = "granted"
    assert [found.id for found in desk.find(REFERENCE)] == [ref.id]


@pytest.mark.parametrize("name", ["Report Ref", "userDefinedFields.report ref"])
def test_the_reference_may_live_in_a_user_defined_field(psa: PretendAutotask, name: str) -> None:
    desk = connector(psa, reference_field=name)
    ref = made(desk, ticket())
    assert psa.tickets[int(ref.id)]["userDefinedFields"] == [{"name": "Report Ref", "value": REFERENCE}]
    assert psa.tickets[int(ref.id)]["externalID"] is None
    assert [found.id for found in desk.find(REFERENCE)] == [ref.id]
    assert psa.requests_to("/Tickets/query$")[-1].json["filter"] == [
        {"op": "eq", "field": "Report Ref", "value": REFERENCE, "udf": True}
    ]
    assert desk.complete(ref, ticket()).number


# What goes wrong in a create


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "drop"}, OutcomeUnknown),
        ({"kind": "commit_drop"}, OutcomeUnknown),
        ({"kind": "garbage"}, OutcomeUnknown),
        ({"kind": "commit_status", "status": 500}, OutcomeUnknown),
        ({"kind": "commit_status", "status": 503}, OutcomeUnknown),
        ({"kind": "status", "status": 503, "body": {"errors": ["try later"]}}, OutcomeUnknown),
        ({"kind": "status", "status": 200, "body": {"errors": ["odd"]}}, OutcomeUnknown),
        ({"kind": "status", "status": 200, "body": {"itemId": 7, "errors": ["odd"]}}, OutcomeUnknown),
        ({"kind": "status", "status": 200, "body": {"itemId": None}}, OutcomeUnknown),
        ({"kind": "status", "status": 200, "body": {"itemId": True}}, OutcomeUnknown),
        ({"kind": "status", "status": 429}, Unavailable),
        ({"kind": "status", "status": 500, "body": {"errors": ["Itgenatr005: too many"]}}, Unavailable),
        ({"kind": "status", "status": 403}, Misconfigured),
        ({"kind": "status", "status": 404}, Misconfigured),
        ({"kind": "status", "status": 405}, Misconfigured),
        (
            {
                "kind": "status",
                "status": 500,
                "body": {"errors": ["The logged in Resource does not have the adequate permissions"]},
            },
            Misconfigured,
        ),
        ({"kind": "status", "status": 500, "body": {"errors": ["No matching records found."]}}, Rejected),
    ],
)
def test_what_an_answer_to_a_create_means(
    psa: PretendAutotask, fault: dict[str, Any], outcome: type[Exception]
) -> None:
    desk = connector(psa)
    prepared = desk.prepare(ticket())
    psa.fault(**fault, method="POST", path="(?i)/Tickets$")
    with pytest.raises(outcome):
        desk.create(prepared, NoProgress())
    assert len(psa.requests_to("(?i)/Tickets$", "POST")) == 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "seconds"),
    [
        (429, {}, None, 60),
        (429, {"Retry-After": "7"}, None, 7),
        (500, {}, {"errors": ["Itgenatr005"]}, 5),
        (503, {}, "The thread threshold has been exceeded", 5),
        (429, {"Retry-After": "9"}, "thread threshold", 9),
    ],
)
def test_how_long_to_wait(
    psa: PretendAutotask, status: int, headers: dict[str, str], body: Any, seconds: float
) -> None:
    desk = connector(psa)
    psa.fault("status", path="/Tickets/query", status=status, headers=headers, body=body)
    with pytest.raises(Unavailable) as raised:
        desk.find(REFERENCE)
    assert raised.value.retry_after == seconds


def test_validation_is_rejected_with_autotasks_sentence_after_one_look_up(psa: PretendAutotask) -> None:
    desk = connector(psa)
    prepared = desk.prepare(ticket(company=999))
    with pytest.raises(Rejected, match="Value does not reference an existing entity for companyID"):
        desk.create(prepared, NoProgress())
    assert [r.path.rpartition("/")[2] for r in psa.received[-2:]] == ["Tickets", "query"]


def test_a_validation_error_after_a_commit_is_no_rejection(psa: PretendAutotask) -> None:
    desk = connector(psa)
    prepared = desk.prepare(ticket())
    psa.fault("commit_status", method="POST", path="(?i)/Tickets$", status=500, body={"errors": ["A workflow failed"]})
    ref = desk.create(prepared, NoProgress())
    assert list(psa.tickets) == [int(ref.id)]


def test_a_validation_error_that_cannot_be_looked_up_stays_in_doubt(psa: PretendAutotask) -> None:
    desk = connector(psa)
    prepared = desk.prepare(ticket())
    psa.fault("status", method="POST", path="(?i)/Tickets$", status=500, body={"errors": ["No good"]})
    psa.fault("drop", path="/Tickets/query")
    with pytest.raises(OutcomeUnknown, match="No good"):
        desk.create(prepared, NoProgress())


# Zone and credentials


def test_the_zone_is_asked_without_credentials_and_kept_for_a_day(psa: PretendAutotask, clock: Clock) -> None:
    with PretendAutotask() as other:
        other.username, psa.zone = psa.username, other
        desk = connector(psa, clock)
        desk.find(REFERENCE)
        clock.now += 24 * 3600 - 1
        desk.find(REFERENCE)
        assert len(psa.received) == 1
        clock.now += 2
        desk.find(REFERENCE)
        assert [r.path for r in psa.received] == ["/atservicesrest/v1.0/zoneInformation"] * 2
        for request in psa.received:
            assert not {"secret", "apiintegrationcode", "username", "authorization"} & {
                h.lower() for h in request.headers
            }
        assert len(other.requests_to("/Tickets/query")) == 3
        assert other.requests_to("zoneInformation") == []


@pytest.mark.parametrize(
    "answer",
    [
        {"url": "http://evil.example/ATServicesRest/"},
        {"url": "https://127.0.0.1/ATServicesRest/"},
        {"url": "http://127.0.0.1@evil.example/"},
        {"url": "http://127.0.0.1:1/ATServicesRest/?x="},
        {"url": "file:///etc/passwd"},
        {"url": 7},
        {},
    ],
)
def test_a_zone_elsewhere_gets_no_credentials(psa: PretendAutotask, answer: dict[str, Any]) -> None:
    psa.zone_answer = answer
    with pytest.raises(Misconfigured, match="zone_url"):
        connector(psa).find(REFERENCE)
    assert len(psa.received) == 1


@pytest.mark.parametrize("web_url", ["javascript:alert(1)//", "https://evil.example/", None, 5])
def test_links_lead_only_to_the_tenants_own_site(psa: PretendAutotask, web_url: Any) -> None:
    psa.zone_answer = {"url": f"{psa.url}/ATServicesRest", "webUrl": web_url}
    assert made(connector(psa), ticket()).url.startswith(f"{psa.url}/Mvc/")


def test_an_unknown_user_is_a_misconfiguration(psa: PretendAutotask) -> None:
    with pytest.raises(Misconfigured, match=r"no zone for the user 'nobody@x\.example'.*check username"):
        connector(psa, username="nobody@x.example").find(REFERENCE)


def test_after_a_401_a_create_follows_the_tenant_to_its_new_zone(psa: PretendAutotask) -> None:
    with PretendAutotask() as other:
        other.username = psa.username
        desk = connector(psa)
        prepared = desk.prepare(ticket())
        psa.integration_code, psa.zone = "moved", other
        ref = desk.create(prepared, NoProgress())
        assert (list(psa.tickets), list(other.tickets)) == ([], [int(ref.id)])


def test_wrong_credentials_ask_the_zone_once_more_and_no_more(psa: PretendAutotask) -> None:
    desk = connector(psa, secret="wrong-secret")
    with pytest.raises(Misconfigured, match="401") as raised:
        desk.find(REFERENCE)
    assert [r.path.rpartition("/")[2] for r in psa.received] == ["zoneInformation", "fields", "zoneInformation"]
    assert "wrong-secret" not in str(raised.value)


def test_an_expired_zone_serves_while_the_discovery_is_away(psa: PretendAutotask, clock: Clock) -> None:
    desk = connector(psa, clock)
    desk.find(REFERENCE)
    clock.now += 25 * 3600
    psa.fault("status", path="zoneInformation", status=503, times=None)
    assert desk.find(REFERENCE) == []


def test_secrets_that_autotask_echoes_are_not_passed_on(psa: PretendAutotask) -> None:
    desk = connector(psa)
    prepared = desk.prepare(ticket())
    body = {"errors": [f"Secret {SECRET} and {INTEGRATION_CODE}\x1b[31m\nare wrong", {"message": "second"}, 7]}
    psa.fault("status", method="POST", path="(?i)/Tickets$", status=500, body=body)
    with pytest.raises(Rejected) as raised:
        desk.create(prepared, NoProgress())
    said = str(raised.value)
    assert SECRET not in said
    assert INTEGRATION_CODE not in said
    assert said.isprintable()
    assert "second" in said
    assert SECRET not in repr(desk.settings) + desk.slot_group()


# Names and fields


def test_labels_are_compared_without_case_and_blanks(psa: PretendAutotask) -> None:
    made(connector(psa, queue="  sEcurity ", status="in  progress", priorities={"default": 3}), ticket())
    assert (sent(psa)["queueID"], sent(psa)["status"], sent(psa)["priority"]) == (29683482, 8, 3)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            {"queue": "Sales"},
            r'queue: "Sales" is not an active choice of Autotask.s queueID; choose one of "Post Sale"',
        ),
        ({"queue": 12}, "queue: id 12 is not"),
        ({"status": "Nope"}, 'status: "Nope"'),
        ({"priorities": {"critical": "P1"}}, r'priorities \(critical\): "P1"'),
        ({"fields": {"sourcce": "Phone"}}, r"fields\.sourcce: .* no field 'sourcce'"),
        ({"fields": {"createDate": "now"}}, r"fields\.createDate: .* read-only"),
        ({"fields": {"contractID": "Gold"}}, r"fields\.contractID: .* takes a number"),
        ({"fields": {"subIssueType": "Other"}}, r"ambiguous .*102, 112"),
        ({"fields": {"issueType": "Security", "subIssueType": "Disk"}}, r'"Disk" is not an active choice'),
        ({"fields": {"userDefinedFields.Nope": "x"}}, r"fields\.userDefinedFields\.Nope: "),
        ({"fields": {"userDefinedFields.Handled By": "Nobody"}}, r"Night shift"),
        ({"reference_field": "Nope"}, "reference_field: "),
        ({"note_publish": "Everyone"}, 'note_publish: "Everyone"'),
        ({"note_type": "Secret Notes"}, 'note_type: "Secret Notes"'),
    ],
)
def test_an_unknown_name_says_what_there_is(psa: PretendAutotask, overrides: dict[str, Any], sentence: str) -> None:
    desk = connector(psa, **overrides)
    with pytest.raises(Misconfigured, match=sentence):
        desk.prepare(ticket(fields=overrides.get("fields", {})))


def test_further_fields_resolve_by_their_kind(psa: PretendAutotask) -> None:
    fields = {
        "ISSUETYPE": "security",
        "subIssueType": "Other",
        "ticketType": 5,
        "source": "Monitoring Alert",
        "contractID": "29",
        "purchaseOrderNumber": "x" * 60,
        "estimatedHours": 1.5,
        "contactID": "",
        "userDefinedFields.Handled By": "night shift",
    }
    made(connector(psa, fields=fields), ticket(fields=fields))
    body = sent(psa)
    picked = {name: body[name] for name in ("issueType", "subIssueType", "ticketType", "source", "contractID")}
    assert picked == {"issueType": 10, "subIssueType": 102, "ticketType": 5, "source": 8, "contractID": 29}
    assert body["purchaseOrderNumber"] == "x" * 49 + "…"
    assert body["estimatedHours"] == 1.5
    assert "contactID" not in body
    assert body["userDefinedFields"] == [{"name": "Handled By", "value": 1}]


def test_a_queue_made_a_minute_ago_counts_and_an_inactive_one_does_not(psa: PretendAutotask, clock: Clock) -> None:
    desk = connector(psa, clock, queue="SOC")
    with pytest.raises(Misconfigured):
        desk.prepare(ticket())
    psa.field("queueID")["picklistValues"].append(choice(99, "SOC"))
    clock.now += 60
    assert desk.prepare(ticket()).body["queueID"] == 99
    psa.field("queueID")["picklistValues"][-1]["isActive"] = False
    clock.now += 601
    with pytest.raises(Misconfigured, match="SOC"):
        desk.prepare(ticket())


def test_fields_are_read_once_in_ten_minutes(psa: PretendAutotask, clock: Clock) -> None:
    desk = connector(psa, clock)
    for _ in range(3):
        made(desk, ticket())
    assert len(psa.requests_to("/Tickets/entityInformation/fields")) == 1
    clock.now += 601
    made(desk, ticket())
    assert len(psa.requests_to("/Tickets/entityInformation/fields")) == 2


# Texts


def test_parts_have_the_tenants_own_lengths(psa: PretendAutotask) -> None:
    psa.field("title")["length"] = 120
    psa.field("description")["length"] = 4000
    desk = connector(psa, visibility="customer")
    assert [(part.name, part.file, part.limit, part.single_line) for part in desk.parts()] == [
        ("title", "title.j2", 120, True),
        ("text", "text.j2", 4000 + 12 * 31880, False),
        ("notice", "notice.j2", 4000, True),
    ]
    psa.stop()
    assert desk.parts()[0].limit == 120


def test_parts_of_an_internal_ticket_leave_room_for_a_whole_report(psa: PretendAutotask) -> None:
    text = connector(psa).parts()[1]
    assert text.limit is not None
    assert text.limit > 2 * (20_000 + 100_000) + 10_000  # lines of one character, each after "> ", and the rest


def test_without_the_tenant_parts_have_the_documented_lengths(psa: PretendAutotask) -> None:
    psa.stop()
    assert [part.limit for part in connector(psa, visibility="customer").parts()] == [255, 390560, 8000]


def test_emoji_take_two_units_and_cost_no_ticket(psa: PretendAutotask) -> None:
    desk, long = connector(psa, visibility="customer"), ticket(title="🚨" * 255, text="🚨" * 8000)
    ref = desk.complete(made(desk, long), long)
    stored, (note,) = psa.tickets[int(ref.id)], psa.notes[int(ref.id)]
    assert stored["title"] == "🚨" * 127 + "…"
    assert stored["description"].count("🚨") == (8000 - len("\n\n[continued in the internal notes]")) // 2
    assert stored["description"].count("🚨") + note["description"].count("🚨") == 8000


@pytest.mark.parametrize("text", ["", "short", "word " * 500, "x" * 3000, "line\n" * 500, "🚨" * 1500, "\n \n" * 900])
def test_pages_keep_every_word_and_the_limit(text: str) -> None:
    cut = pages(text, 1000)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(fit(piece, 1000) == piece for piece in cut)
    assert len(cut) <= 4


# After the create


def test_internal_text_reaches_only_an_internal_note(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = desk.complete(made(desk, ticket()), ticket())
    stored, notes = psa.tickets[int(ref.id)], psa.notes[int(ref.id)]
    assert ref.number == stored["ticketNumber"]
    assert stored["description"] == ticket().notice
    assert [(note["publish"], note["noteType"]) for note in notes] == [(2, 3)]
    assert notes[0]["description"] == f"{ticket().text}\n\n[{REFERENCE}/text]"


def test_customer_text_is_the_description_and_no_note(psa: PretendAutotask) -> None:
    desk = connector(psa, visibility="customer")
    ref = desk.complete(made(desk, ticket()), ticket())
    assert psa.tickets[int(ref.id)]["description"] == ticket().text
    assert psa.notes[int(ref.id)] == []


def test_completing_again_adds_nothing(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    first, again = desk.complete(ref, ticket()), desk.complete(ref, ticket())
    assert first == again
    assert len(psa.notes[int(ref.id)]) == 1


def test_a_lost_answer_to_the_note_is_mended_by_completing_again(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    psa.fault("commit_drop", method="POST", path="/Notes")
    with pytest.raises(OutcomeUnknown):
        desk.complete(ref, ticket())
    desk.complete(ref, ticket())
    assert len(psa.notes[int(ref.id)]) == 1


def test_long_text_continues_in_further_notes_whatever_markers_it_quotes(psa: PretendAutotask) -> None:
    psa.note_fields[2]["length"] = 2000
    text = f"[{REFERENCE}/text-2]\n" + "evidence 🚨\n" * 400 + f"[{REFERENCE}/text-3]"
    desk = connector(psa)
    ref = desk.complete(made(desk, ticket(text=text)), ticket(text=text))
    desk.complete(ref, ticket(text=text))
    notes = [note["description"] for note in psa.notes[int(ref.id)]]
    markers = [f"\n\n[{REFERENCE}/text{suffix}]" for suffix in ("", "-2", "-3")]
    assert len(notes) == 3
    assert all(note.endswith(marker) for note, marker in zip(notes, markers, strict=True))
    assert " ".join(note.removesuffix(m) for note, m in zip(notes, markers, strict=True)).split() == text.split()


@pytest.mark.parametrize("labels", [["All Autotask Users"], ["All Autotask Users", "Internal & Co-Managed"], []])
def test_without_an_internal_publish_value_no_ticket_is_made(psa: PretendAutotask, labels: list[str]) -> None:
    psa.note_fields[4]["picklistValues"] = [choice(number, label) for number, label in enumerate(labels)]
    with pytest.raises(Misconfigured, match="note_publish"):
        connector(psa).prepare(ticket())


def test_an_alert_that_was_taken_for_a_duplicate_is_rejected(psa: PretendAutotask) -> None:
    psa.duplicate_of = psa.add_ticket(externalID="rmm-7", title="Disk full")
    desk = connector(psa)
    ref = made(desk, ticket())
    with pytest.raises(Rejected, match=f"(?s)rmm-7.*{REFERENCE}.*Duplicate Ticket Handling"):
        desk.complete(ref, ticket())
    assert psa.notes[int(ref.id)] == []


def test_a_lost_reference_is_written_again(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    psa.tickets[int(ref.id)]["externalID"] = None
    desk.complete(ref, ticket())
    assert [found.id for found in desk.find(REFERENCE)] == [ref.id]


def test_a_ticket_that_is_not_shown_is_asked_for_again(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    del psa.tickets[int(ref.id)]
    with pytest.raises(Unavailable, match="does not show ticket"):
        desk.complete(ref, ticket())


AGENT = Agent(5, hostname="DESKTOP-1", serial_number="ABC12345")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([(176, "other name", "abc12345")], 0),
        ([(176, "desktop-1", "")], 0),
        ([(176, "old", "ABC12345"), (176, "DESKTOP-1", "Z")], 0),
        ([(175, "DESKTOP-1", "ABC12345")], None),
        ([(176, "DESKTOP-1", ""), (176, "DESKTOP-1", "")], None),
        ([(176, "DESKTOP-10", "ABC123456")], None),
    ],
)
def test_the_host_is_linked_when_exactly_one_item_is_it(
    psa: PretendAutotask, items: list[tuple[int, str, str]], expected: int | None
) -> None:
    ids = [psa.add_configuration_item(company, name, serial) for company, name, serial in items]
    desk = connector(psa)
    ref = made(desk, ticket())
    desk.complete(ref, ticket(agent=AGENT))
    linked = psa.tickets[int(ref.id)]["configurationItemID"]
    assert linked == (None if expected is None else ids[expected])


@pytest.mark.parametrize("serial", ["Default string", "To Be Filled By O.E.M.", "None", "0"])
def test_a_serial_number_that_is_none_links_nothing(psa: PretendAutotask, serial: str) -> None:
    psa.add_configuration_item(176, "other", serial)
    desk = connector(psa)
    ref = made(desk, ticket())
    desk.complete(ref, ticket(agent=Agent(5, hostname="DESKTOP-1", serial_number=serial)))
    assert psa.tickets[int(ref.id)]["configurationItemID"] is None


def test_a_host_that_a_person_linked_stays(psa: PretendAutotask) -> None:
    mine, theirs = (psa.add_configuration_item(176, name) for name in ("DESKTOP-1", "SERVER-2"))
    desk = connector(psa)
    ref = made(desk, ticket())
    psa.tickets[int(ref.id)]["configurationItemID"] = theirs
    desk.complete(ref, ticket(agent=AGENT))
    assert psa.tickets[int(ref.id)]["configurationItemID"] == theirs != mine


def test_a_host_that_may_not_be_looked_up_costs_nothing(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    psa.fault("status", path="ConfigurationItems", status=403, times=None)
    assert desk.complete(ref, ticket(agent=AGENT)).number
    assert len(psa.notes[int(ref.id)]) == 1


def test_a_note_is_internal_carries_its_marker_and_is_added_once(psa: PretendAutotask) -> None:
    desk = connector(psa)
    ref = made(desk, ticket())
    for _ in range(2):
        desk.note(ref, REFERENCE, Note("status-closed", "Incident closed " * 30, "x" * 40000))
    (note,) = psa.notes[int(ref.id)]
    assert note["publish"] == 2
    assert len(note["title"]) <= 250
    assert len(note["description"]) <= 32000
    assert note["description"].endswith(f"…\n\n[{REFERENCE}/status-closed]")


def test_a_note_to_a_deleted_ticket_is_rejected(psa: PretendAutotask) -> None:
    with pytest.raises(Rejected, match="no ticket 31"):
        connector(psa).note(TicketRef("31"), REFERENCE, Note("k", "t", "x"))


# Linking


@pytest.mark.parametrize("by", ["id", "ticketNumber"])
@pytest.mark.parametrize("before", [None, "rmm-7", REFERENCE])
def test_an_existing_ticket_is_linked(psa: PretendAutotask, by: str, before: str | None) -> None:
    number = psa.add_ticket(externalID=before)
    desk = connector(psa)
    ref = desk.link(str(psa.tickets[number][by]), REFERENCE)
    assert ref.id == str(number)
    assert [found.id for found in desk.find(REFERENCE)] == [str(number)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("T20000101.0001", "no ticket"), ("99", "no ticket"), ("", "no ticket"), ("7001", "belongs to another report")],
)
def test_a_link_that_cannot_be(psa: PretendAutotask, name: str, sentence: str) -> None:
    psa.add_ticket(externalID="huntress-1-7")
    with pytest.raises(Rejected, match=sentence):
        connector(psa).link(name, REFERENCE)
    assert psa.tickets[7001]["externalID"] == "huntress-1-7"


# Companies


def test_companies_over_all_pages_active_ones_only(clock: Clock) -> None:
    with PretendAutotask(companies=[(number, f"Company {number}") for number in range(25)]) as psa:
        psa.page_size = 10
        psa.companies[3]["isActive"] = False
        desk = connector(psa, clock)
        companies = desk.companies()
        assert companies is not None
        assert [company.id for company in companies] == [str(number) for number in range(25) if number != 3]
        assert [r.method for r in psa.requests_to("Companies/query")] == ["POST"] * 3
        assert len({r.body for r in psa.requests_to("Companies/query")}) == 1
        desk.companies()
        assert len(psa.requests_to("Companies/query")) == 3
        desk.companies(fresh=True)
        clock.now += 3601
        desk.companies()
        assert len(psa.requests_to("Companies/query")) == 9


def test_a_next_page_elsewhere_is_not_followed(psa: PretendAutotask) -> None:
    with PretendAutotask() as elsewhere:
        details = {"nextPageUrl": f"{elsewhere.url}/ATServicesRest/V1.0/Companies/query/next"}
        psa.fault("status", path="Companies/query", status=200, body={"items": [], "pageDetails": details})
        with pytest.raises(Misconfigured, match="outside its own zone"):
            connector(psa).companies()
        assert elsewhere.received == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (175, "175"),
        (0, "0"),
        (4711, None),
        ("acme  CORP", "176"),
        ("c175", "175"),
        ("Twin", None),
        ("Nobody", None),
        ("177", None),
        ("178", "178"),
        ("902", None),
        (177, None),
    ],
)
def test_a_company_by_id_name_or_number(psa: PretendAutotask, value: str | int, expected: str | None) -> None:
    for number in (900, 901, 902):
        name, other = ("Twin", "") if number < 902 else ("Single", "")
        psa.companies.append({"id": number, "companyName": name, "companyNumber": other, "isActive": True})
    psa.companies[-2]["companyNumber"] = "902"  # another one's id
    next(row for row in psa.companies if row["id"] == 177)["isActive"] = False
    found = connector(psa).company(value)
    assert (found.id if found else None) == expected


def test_a_company_made_a_minute_ago_counts(psa: PretendAutotask, clock: Clock) -> None:
    desk = connector(psa, clock)
    assert desk.company("Newcomer") is None
    psa.companies.append({"id": 950, "companyName": "Newcomer", "companyNumber": "", "isActive": True})
    clock.now += 61
    found = desk.company("Newcomer")
    assert found is not None
    assert found.id == "950"


def test_a_company_that_cannot_be_asked_for_is_not_absent(psa: PretendAutotask) -> None:
    psa.fault("status", path="Companies", status=500, body={"errors": ["Something broke"]}, times=None)
    with pytest.raises(Unavailable, match="Something broke"):
        connector(psa).company(175)


# Check


def test_check_of_a_good_configuration_finds_nothing(psa: PretendAutotask) -> None:
    fields = {"source": "Monitoring Alert", "purchaseOrderNumber": "{{ report.id }}", "issueType": "{{ x }}"}
    assert connector(psa, fields=fields).check() == []
    assert {r.method for r in psa.received if "query" not in r.path} == {"GET"}


def test_check_finds_everything_at_once(psa: PretendAutotask) -> None:
    psa.field("billingCodeID")["isRequired"] = True
    psa.field("queueID")["isRequired"] = True
    desk = connector(
        psa,
        queue="",
        status="Nwe",
        closed_status="Done",
        priorities={"critical": "P1", "low": "Low"},
        default_company="Nobody",
        note_publish="Nobody",
        reference_field="purchaseOrderNumber",
        fields={"source": "Huntress", "issueType": "Nope", "subIssueType": "Malware", "nope": "{{ x }}"},
    )
    psa.field("purchaseOrderNumber")["length"] = 30
    found = {finding.setting: finding.message for finding in desk.check()}
    assert set(found) == {
        "status",
        "closed_status",
        "priorities.critical",
        "note_publish",
        "reference_field",
        "default_company",
        "fields.nope",
        "fields.source",
        "fields.issueType",
        "fields.billingCodeID",
        "queue",
    }
    assert found["closed_status"].startswith('"Done" is not an active choice')
    assert '"Complete" (5)' in found["closed_status"]


@pytest.mark.parametrize(
    ("overrides", "setting", "sentence"),
    [
        ({"secret": "wrong"}, "secret", "401"),
        ({"integration_code": "wrong"}, "secret", "integration_code"),
        ({"username": "x@y.example"}, "username", "check username"),
    ],
)
def test_check_names_the_credential(
    psa: PretendAutotask, overrides: dict[str, Any], setting: str, sentence: str
) -> None:
    (finding,) = connector(psa, **overrides).check()
    assert finding.setting == setting
    assert sentence in finding.message


def test_check_of_what_cannot_be_reached_is_unavailable(psa: PretendAutotask) -> None:
    psa.stop()
    with pytest.raises(Unavailable):
        connector(psa).check()


def test_check_asks_for_a_catch_all(psa: PretendAutotask) -> None:
    (finding,) = connector(psa, default_company=None).check()
    assert finding.setting == "default_company"


# Tenants that answer less


NOTE_FIELDS = "TicketNotes/entityInformation/fields"


def absent(psa: PretendAutotask, path: str, status: int = 404) -> None:
    psa.fault("status", path=path, status=status, times=None)


@pytest.mark.parametrize("name", ["externalID", "externalid"])
def test_the_usual_reference_field_need_not_be_listed(psa: PretendAutotask, name: str) -> None:
    psa.unlisted.add("externalID")
    absent(psa, "userDefinedFields")
    desk = connector(psa, reference_field=name)
    assert desk.check() == []
    ref = desk.complete(made(desk, ticket()), ticket())
    assert psa.tickets[int(ref.id)]["externalID"] == REFERENCE
    assert desk.find(REFERENCE) == [replace(ref, status="")]
    assert psa.requests_to("userDefinedFields") == []


@pytest.mark.parametrize("name", ["purchaseOrderNumber", "userDefinedFields.externalID"])
def test_any_other_reference_field_must_be_listed(psa: PretendAutotask, name: str) -> None:
    psa.unlisted |= {"externalID", "purchaseOrderNumber"}
    desk = connector(psa, reference_field=name)
    (finding,) = desk.check()
    assert finding.setting == "reference_field"
    with pytest.raises(Misconfigured, match=r"reference_field: .* no field"):
        desk.prepare(ticket())


def test_a_listed_reference_field_keeps_its_own_length(psa: PretendAutotask) -> None:
    psa.field("externalID")["length"] = 12
    with pytest.raises(Misconfigured, match="takes 12 characters"):
        connector(psa).prepare(ticket())


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404},
        {"status": 500, "body": {"errors": ["No matching records found."]}},
        {"status": 200, "body": {"item": None}},
    ],
)
def test_where_a_company_cannot_be_had_by_its_id_the_list_decides(
    psa: PretendAutotask, clock: Clock, answer: dict[str, Any]
) -> None:
    psa.fault("status", path=r"Companies/\d+$", times=None, **answer)
    desk = connector(psa, clock)
    assert desk.check() == []
    assert desk.company(176) == Company("176", "Acme Corp", "C176")
    assert desk.company(999) is None
    assert len(psa.requests_to("Companies/query")) == 1
    psa.companies.append({"id": 999, "companyName": "New", "companyNumber": None, "isActive": True})
    clock.now += 61
    assert desk.company(999) == Company("999", "New")


def test_a_company_in_neither_place_is_a_finding(psa: PretendAutotask) -> None:
    absent(psa, r"Companies/\d+$")
    (finding,) = connector(psa, default_company=999).check()
    assert (finding.setting, "id 999 is no active company" in finding.message) == ("default_company", True)


def test_an_inactive_company_is_not_taken_from_anywhere(psa: PretendAutotask) -> None:
    next(row for row in psa.companies if row["id"] == 176)["isActive"] = False
    assert connector(psa).company(176) is None


def test_check_does_without_the_threshold_but_not_without_the_credentials(psa: PretendAutotask) -> None:
    absent(psa, "ThresholdInformation")
    assert connector(psa).check() == []
    (finding,) = connector(psa, secret="wrong").check()
    assert finding.setting == "secret"


@pytest.mark.parametrize(
    ("path", "overrides", "setting"),
    [
        ("Tickets/entityInformation/fields", {}, "zone_url"),
        ("Tickets/entityInformation/userDefinedFields", {"reference_field": "Report Ref"}, "zone_url"),
        ("Tickets/query", {}, "reference_field"),
    ],
)
def test_check_names_the_address_that_is_not_there(
    psa: PretendAutotask, path: str, overrides: dict[str, Any], setting: str
) -> None:
    absent(psa, path)
    (finding,) = connector(psa, **overrides).check()
    assert finding.setting == setting
    assert f"{path} (404): check zone_url" in finding.message


def test_configured_numbers_do_without_the_fields_of_notes(psa: PretendAutotask) -> None:
    absent(psa, NOTE_FIELDS)
    desk = connector(psa, note_publish=2, note_type=3)
    assert desk.check() == []
    ref = desk.complete(made(desk, ticket()), ticket())
    desk.note(ref, REFERENCE, Note("k", "t", "x"))
    assert [(note["publish"], note["noteType"]) for note in psa.notes[int(ref.id)]] == [(2, 3)] * 2


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"note_publish": 2},
        {"note_type": 3},
        {"note_publish": "Internal Project Team", "note_type": 3},
        {"note_publish": 2, "note_type": "Task Notes"},
    ],
)
def test_without_the_fields_of_notes_names_are_one_finding(psa: PretendAutotask, overrides: dict[str, Any]) -> None:
    absent(psa, NOTE_FIELDS)
    desk = connector(psa, status="Nwe", **overrides)
    found = {finding.setting: finding.message for finding in desk.check()}
    assert set(found) == {"status", "note_publish"}
    assert found["note_publish"].startswith(f"Autotask has nothing at {NOTE_FIELDS}")
    assert "set note_publish and note_type as numbers" in found["note_publish"]
    with pytest.raises(Misconfigured, match=f"note_publish: .*{NOTE_FIELDS}"):
        connector(psa, **overrides).prepare(ticket())


@pytest.mark.parametrize("overrides", [{"note_publish": 9, "note_type": 3}, {"note_publish": 2, "note_type": 9}])
def test_listed_note_fields_still_judge_numbers(psa: PretendAutotask, overrides: dict[str, Any]) -> None:
    (finding,) = connector(psa, **overrides).check()
    assert "id 9 is not an active choice" in finding.message


def test_a_ticket_that_customers_see_needs_no_fields_of_notes(psa: PretendAutotask) -> None:
    absent(psa, NOTE_FIELDS)
    desk = connector(psa, visibility="customer")
    assert desk.check() == []
    assert desk.parts()[1].limit == 8000, "what no note can hold is cut by the renderer, which says so"
    ref = desk.complete(made(desk, ticket()), ticket())
    assert psa.tickets[int(ref.id)]["description"] == ticket().text
    with pytest.raises(Misconfigured, match="set note_publish and note_type as numbers"):
        desk.note(ref, REFERENCE, Note("k", "t", "x"))
    numbered = connector(psa, visibility="customer", note_publish=2, note_type=3)
    numbered.note(ref, REFERENCE, Note("k", "t", "x"))
    assert len(psa.notes[int(ref.id)]) == 1


@pytest.mark.parametrize("status", [404, 405])
def test_the_zone_service_may_live_at_the_other_address(psa: PretendAutotask, status: int) -> None:
    absent(psa, r"/v1\.0/zoneInformation", status)
    assert connector(psa).check() == []
    discovery = psa.requests_to("zoneInformation")
    assert [r.path for r in discovery] == [
        "/atservicesrest/v1.0/zoneInformation",
        "/atservicesrest/1.0/zoneInformation",
    ]
    for request in discovery:
        assert request.query == {"user": psa.username}
        assert not {"secret", "apiintegrationcode", "username", "authorization"} & {h.lower() for h in request.headers}


@pytest.mark.parametrize(("status", "requests"), [(404, 2), (405, 2), (500, 1), (503, 1), (429, 1)])
def test_the_other_address_is_tried_once_and_only_for_a_wrong_address(
    psa: PretendAutotask, status: int, requests: int
) -> None:
    absent(psa, "zoneInformation", status)
    with pytest.raises((Misconfigured, Unavailable)):
        connector(psa).find(REFERENCE)
    assert len(psa.received) == requests


# Settings, identity, concurrency


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"concurrency": 4}, "give 1 to 3"),
        ({"concurrency": 0}, "give 1 to 3"),
        ({"username": ""}, "username"),
        ({"secret": ""}, "secret"),
        ({"secret": "line\nbreak"}, "something else pasted"),
        ({"zone_url": "webservices.autotask.net"}, "https://host"),
        ({"zone_url": "https://user:pass@host"}, "https://host"),
        ({"reference_field": "title"}, "filled by the connector"),
        ({"fields": {"Title": "x"}}, "title template"),
        ({"fields": {"rmmAlertID": "x"}}, "Duplicate Ticket Handling"),
        ({"fields": {"externalID": "x"}}, "reference_field"),
        ({"nope": 1}, "nope"),
    ],
)
def test_settings_that_are_refused(psa: PretendAutotask, overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence) as raised:
        AutotaskSettings.model_validate(psa.settings(**overrides))
    assert "line\nbreak" not in str(raised.value)


def test_connectors_to_one_tenant_know_each_other(psa: PretendAutotask) -> None:
    desk, same = connector(psa), connector(psa, username=psa.username.upper())
    other_user = connector(psa, username=f"second@{psa.username.partition('@')[2]}")
    other_code = connector(psa, integration_code="ANOTHERCODE")
    elsewhere = connector(psa, username="bridge@other.example")
    assert desk.system() == same.system() == other_user.system() == f"autotask/{psa.username.partition('@')[2]}"
    assert elsewhere.system() != desk.system()
    assert desk.slot_group() == same.slot_group()
    assert other_code.slot_group() != desk.slot_group() != elsewhere.slot_group()


def test_three_at_a_time_is_what_autotask_takes(psa: PretendAutotask) -> None:
    psa.latency = 0.05
    desk = connector(psa)
    prepared = [desk.prepare(ticket(f"huntress-1-{number}")) for number in range(12)]
    with ThreadPoolExecutor(Autotask.max_concurrency) as pool:
        refs = list(pool.map(lambda one: desk.create(one, NoProgress()), prepared))
    assert len({ref.id for ref in refs}) == 12
    assert psa.thread_violations == 0


def test_a_fourth_at_a_time_is_told_to_wait(psa: PretendAutotask) -> None:
    psa.latency = 0.3
    desk = connector(psa)
    desk.catalog.ticket_fields()
    gate = threading.Barrier(4)

    def look_up(number: int) -> object:
        gate.wait()
        try:
            return desk.find(f"huntress-1-{number}")
        except Unavailable as busy:
            return busy.retry_after

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(look_up, range(4)))
    assert sorted(answers, key=str) == [5.0, [], [], []]
    assert psa.thread_violations == 1


def test_a_paused_connector_sends_nothing(psa: PretendAutotask) -> None:
    def paused() -> None:
        raise Unavailable("paused")

    settings = AutotaskSettings.model_validate(psa.settings())
    desk = Autotask("desk", settings, ConnectorContext(before_request=paused))
    with pytest.raises(Unavailable, match="paused"):
        desk.find(REFERENCE)
    assert psa.received == []
