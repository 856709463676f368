"""ConnectWise PSA, spoken to over real sockets; the pretend system judges what arrives."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.demo.connectwise import CLIENT_ID, PRIVATE_KEY, PUBLIC_KEY, PretendConnectWise
from bridge.demo.connectwise_query import BadQuery, parse_conditions
from bridge.models import Agent, Company, CompanyMatch, CompanySource, Note, Organization, Ticket, TicketRef
from connectors.base import ConnectorContext, Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.connectwise import ConnectWise, ConnectWiseSettings
from connectors.connectwise_api import explain
from connectors.http import Answer
from tests.connectors.conftest import Clock, Connect, NoProgress

TICKET = Ticket(
    reference="huntress-7-42",
    report_id=42,
    title="CRITICAL - Incident on HOST-1",
    text="Line one\nLine two",
    notice="A security incident is being handled.",
    severity="critical",
    source_severity="critical",
    organization=Organization(3, "Organization 3"),
    company=CompanyMatch(Company("253", "Organization 3", "ORG3"), CompanySource.NAME),
)


def create(connector: ConnectWise, ticket: Ticket = TICKET) -> TicketRef:
    return connector.create(connector.prepare(ticket), NoProgress())


def found(ref: TicketRef) -> TicketRef:
    """`ref` as a search or a link gives it: only the answer to the create says what the first status was."""
    return replace(ref, status="")


def test_internal_ticket_carries_everything_and_shows_a_contact_nothing(
    connect: Connect, psa: PretendConnectWise
) -> None:
    ref = create(connect(), replace(TICKET, fields={"type": " security ", "source": "HUNTRESS", "severity": "High"}))

    ticket = psa.tickets[int(ref.id)]
    assert ticket["summary"] == TICKET.title
    assert ticket["externalXRef"] == TICKET.reference
    assert ticket["board"] == {"id": 21, "name": "Security"}
    assert ticket["status"]["name"] == "New"
    assert ticket["company"]["id"] == 253
    assert ticket["priority"]["name"] == "Priority 1 - Critical"
    assert ticket["type"] == {"id": 31, "name": "Security"}
    assert ticket["source"]["name"] == "Huntress"
    assert ticket["severity"] == "High"
    assert ticket["initialDescription"] == TICKET.notice
    assert ticket["initialInternalAnalysis"] == TICKET.text
    assert psa.contact_mail == []
    assert ref.number == ref.id
    assert ref.url.startswith(psa.url)
    assert f"recid={ref.id}" in ref.url
    assert "companyName=bridgedemo" in ref.url


def test_customer_ticket_has_the_text_in_its_description(connect: Connect, psa: PretendConnectWise) -> None:
    ref = create(connect(visibility="customer"))

    ticket = psa.tickets[int(ref.id)]
    assert ticket["initialDescription"] == TICKET.text
    assert "initialInternalAnalysis" not in ticket
    assert "automaticEmailContactFlag" not in ticket


def test_create_sends_one_request_with_the_documented_headers(connect: Connect, psa: PretendConnectWise) -> None:
    create(connect())

    (posted,) = psa.requests_to("", "POST")
    assert posted.path == "/v2026_4/apis/3.0/service/tickets"
    assert posted.headers["Accept"] == "application/vnd.connectwise.com+json; version=2025.16"
    assert posted.headers["clientId"] == CLIENT_ID
    (discovery,) = psa.requests_to("companyinfo")
    assert "Authorization" not in discovery.headers
    assert "clientId" not in discovery.headers


def test_without_api_version_the_latest_models_are_asked_for(connect: Connect, psa: PretendConnectWise) -> None:
    connect(api_version="").companies()
    assert psa.requests_to("companies")[0].headers["Accept"] == "application/vnd.connectwise.com+json"


@pytest.mark.parametrize(
    ("severity", "priorities", "expected"),
    [
        ("low", {"low": 7, "high": 15}, "Priority 4 - Low"),
        ("weird", {"low": 7, "high": "priority 2 -  HIGH"}, "Priority 2 - High"),
        ("weird", {"default": "8", "high": 15}, "Priority 3 - Medium"),
        ("weird", {}, None),
    ],
)
def test_priority_by_name_or_id(
    connect: Connect, psa: PretendConnectWise, severity: str, priorities: dict[str, Any], expected: str | None
) -> None:
    ref = create(connect(priorities=priorities), replace(TICKET, severity="high", source_severity=severity))
    assert psa.tickets[int(ref.id)].get("priority", {}).get("name") == expected


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("subType", "malware", {"id": 51, "name": "Malware"}),
        ("item", "Mailbox", {"id": 62, "name": "Mailbox"}),
        ("team", 42, {"id": 42, "name": "Security Team"}),
        ("owner", "dispatch", {"id": 301, "identifier": "dispatch"}),
        ("owner", "service dispatcher", {"id": 301, "identifier": "dispatch"}),
        ("serviceLocation", "Remote", {"id": 2, "name": "Remote"}),
        ("site", 9, {"id": 9}),
        ("site", "9", {"id": 9}),
        ("impact", "Low", "Low"),
        ("skipCallback", True, True),
        ("budgetHours", 1.5, 1.5),
        ("poNumber", "PO-1", "PO-1"),
    ],
)
def test_fields(connect: Connect, psa: PretendConnectWise, field: str, value: Any, expected: Any) -> None:
    ref = create(connect(), replace(TICKET, fields={field: value}))
    assert psa.tickets[int(ref.id)][field] == expected


def test_field_that_renders_to_nothing_is_left_out(connect: Connect, psa: PretendConnectWise) -> None:
    ref = create(connect(), replace(TICKET, fields={"type": ""}))
    assert "type" not in psa.tickets[int(ref.id)]


def test_custom_field_by_caption(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    create(connector)
    ref = create(connector, replace(TICKET, fields={"customFields.tier": "Gold"}))
    assert psa.tickets[int(ref.id)]["customFields"][0]["value"] == "Gold"
    with pytest.raises(Misconfigured, match=r"customFields\.Nope.*“Tier”"):
        connector.prepare(replace(TICKET, fields={"customFields.Nope": "x"}))


@pytest.mark.parametrize(
    ("settings", "fields", "words"),
    [
        ({"board": "Sekurity"}, {}, ["board = 'Sekurity'", "“Security” (21)", "“Service Desk” (1)"]),
        ({"board": 99}, {}, ["board = 99"]),
        ({"status": "Waiting"}, {}, ["status = 'Waiting'", "on board “Security”", "“In Progress”"]),
        ({"priorities": {"critical": "P1"}}, {}, ["priorities = 'P1'", "“Priority 1 - Critical”"]),
        ({}, {"type": "Incident"}, ["fields.type = 'Incident'", "“False Positive”"]),
        ({}, {"owner": "former"}, ["fields.owner = 'former'", "“dispatch”"]),
        ({}, {"agreement": "Gold"}, ["fields.agreement = 'Gold'", "give the id"]),
        ({}, {"type": "x" * 500}, ["fields.type = 'xxx", "…"]),
    ],
)
def test_unknown_names_say_setting_value_and_choices(
    connect: Connect, settings: dict[str, Any], fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(Misconfigured) as caught:
        connect(**settings).prepare(replace(TICKET, fields=fields))
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 400


def test_two_entries_of_one_name_need_an_id(connect: Connect, psa: PretendConnectWise) -> None:
    psa.sources.append({"id": 77, "name": "HUNTRESS"})
    with pytest.raises(Misconfigured, match="give one of the ids 3, 77"):
        connect().prepare(replace(TICKET, fields={"source": "Huntress"}))


def test_lookups_are_cached_and_refreshed_when_a_name_is_new(
    connect: Connect, psa: PretendConnectWise, clock: Clock
) -> None:
    connector = connect()
    for _ in range(3):
        connector.prepare(TICKET)
    assert len(psa.requests_to("/service/priorities")) == 1

    psa.sources.append({"id": 78, "name": "Newly made"})
    clock.now += 20
    connector.prepare(replace(TICKET, fields={"source": "Huntress"}))
    assert len(psa.requests_to("/service/sources")) == 1
    psa.sources.append({"id": 79, "name": "Even newer"})
    clock.now += 20
    assert connector.prepare(replace(TICKET, fields={"source": "Even newer"})).body["source"] == {"id": 79}
    for _ in range(3):  # a wrong name does not make a request each time
        with pytest.raises(Misconfigured):
            connector.prepare(replace(TICKET, fields={"source": "Never"}))
    assert len(psa.requests_to("/service/sources")) == 2


def test_nothing_that_came_from_outside_reaches_a_query(connect: Connect, psa: PretendConnectWise) -> None:
    evil = 'x" OR id>0 OR "*'
    connector = connect()
    ref = create(connector, replace(TICKET, title=f"{evil} [a] & %", text=evil, organization=Organization(1, evil)))
    psa.add_configuration(253, "HOST-9")
    agent = Agent(1, hostname=evil, serial_number='*" AND "')
    connector.complete(ref, replace(TICKET, agent=agent))
    with pytest.raises(Misconfigured):
        connector.prepare(replace(TICKET, fields={"source": evil}))
    assert connector.company(evil) is None

    for request in psa.received:
        assert "OR" not in request.query.get("conditions", "")
        assert "*" not in request.target
    assert psa.tickets[int(ref.id)]["summary"] == f"{evil} [a] & %"
    assert psa.ticket_configurations == {}


@pytest.mark.parametrize("reference", ['a"b', "a*", "", "a b", "x" * 51, "a\n"])
def test_a_reference_with_a_meaning_in_queries_is_refused(
    connect: Connect, psa: PretendConnectWise, reference: str
) -> None:
    with pytest.raises(ValueError, match="A-Za-z0-9-"):
        connect().find(reference)
    assert psa.received == []


def test_find_wants_the_very_reference_and_lowest_id_first(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    other = create(connector, replace(TICKET, reference="Huntress-7-42"))
    first, second = create(connector), create(connector)
    psa.tickets[int(first.id)]["closedFlag"] = True
    psa.tickets[int(second.id)]["externalXRef"] += " "  # edited by a person

    assert connector.find(TICKET.reference) == [found(first), found(second)]
    assert connector.find("Huntress-7-42") == [found(other)]
    assert connector.find("huntress-7-4") == []


def test_find_by_another_field(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect(reference_field="poNumber")
    ref = create(connector, replace(TICKET, fields={"externalXRef": "somebody else's"}))
    assert psa.tickets[int(ref.id)]["poNumber"] == TICKET.reference
    assert connector.find(TICKET.reference) == [found(ref)]


def test_find_sees_a_late_search(connect: Connect, psa: PretendConnectWise, clock: Clock) -> None:
    psa.search_lag = 30
    connector = connect()
    ref = create(connector)
    assert connector.find(TICKET.reference) == []
    assert connector.link(ref.id, TICKET.reference) == found(ref), "by its id it is there at once"
    clock.now += 30
    assert connector.find(TICKET.reference) == [found(ref)]


def test_an_api_member_that_may_not_search_still_creates(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    psa.search_right = "sees nothing"
    ref = create(connector)
    assert connector.find(TICKET.reference) == []
    assert connector.link(ref.id, TICKET.reference) == found(ref)
    psa.search_right = "forbidden"
    with pytest.raises(Misconfigured, match="You do not have permission"):
        connector.find(TICKET.reference)
    psa.search_right = "granted"
    assert connector.find(TICKET.reference) == [found(ref)]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "status", "status": 500}, Unavailable),
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, Unavailable),
        ({"kind": "status", "status": 403, "body": {"code": "Security", "message": "no"}}, Misconfigured),
        ({"kind": "status", "status": 400, "body": {"code": "ApiFindCondition", "message": "no"}}, Misconfigured),
        ({"kind": "status", "status": 302, "headers": {"Location": "https://elsewhere.example"}}, Misconfigured),
        ({"kind": "drop"}, Unavailable),
        ({"kind": "garbage"}, Unavailable),
        ({"kind": "status", "status": 200, "body": {"tickets": []}}, Unavailable),
        ({"kind": "status", "status": 200, "body": [None]}, Unavailable),
        ({"kind": "status", "status": 200, "body": [{"id": 1, "externalXRef": "another"}]}, Unavailable),
        ({"kind": "status", "status": 200, "body": [{"id": 1}]}, Unavailable),
        ({"kind": "status", "status": 200, "body": [{"externalXRef": "huntress-7-42"}]}, Unavailable),
    ],
)
def test_a_failed_search_is_never_not_found(
    connect: Connect, psa: PretendConnectWise, fault: dict[str, Any], outcome: type[Outcome]
) -> None:
    psa.fault(path="/service/tickets", **fault)
    with pytest.raises(outcome):
        connect().find(TICKET.reference)


INVALID = {
    "code": "InvalidObject",
    "message": "ticket object is invalid",
    "errors": [{"code": "MissingRequiredField", "message": "The type field is required.", "field": "type"}],
}


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ({"kind": "status", "status": 400, "body": INVALID}, Rejected, "The type field is required. (field type)"),
        (
            {"kind": "status", "status": 400, "body": {"code": "Security", "message": "SSL is required."}},
            Misconfigured,
            "SSL",
        ),
        (
            {"kind": "status", "status": 400, "body": {"message": "does not support the API version '2025.16'"}},
            Misconfigured,
            "api_version",
        ),
        ({"kind": "status", "status": 401}, Misconfigured, "private_key"),
        ({"kind": "status", "status": 403}, Misconfigured, "client_id"),
        ({"kind": "status", "status": 409, "body": {"message": "in use"}}, OutcomeUnknown, "in use"),
        ({"kind": "status", "status": 500}, OutcomeUnknown, "500"),
        ({"kind": "status", "status": 503}, OutcomeUnknown, "503"),
        ({"kind": "commit_status", "status": 500}, OutcomeUnknown, "500"),
        ({"kind": "drop"}, OutcomeUnknown, "lost"),
        ({"kind": "commit_drop"}, OutcomeUnknown, "lost"),
        ({"kind": "garbage"}, OutcomeUnknown, "without its id"),
        ({"kind": "status", "status": 201, "body": {"id": "7"}}, OutcomeUnknown, "without its id"),
        ({"kind": "status", "status": 201, "body": {"id": True}}, OutcomeUnknown, "without its id"),
    ],
)
def test_what_a_failed_create_means(
    connect: Connect, psa: PretendConnectWise, fault: dict[str, Any], outcome: type[Outcome], words: str
) -> None:
    connector = connect()
    prepared = connector.prepare(TICKET)
    psa.fault(method="POST", **fault)
    with pytest.raises(outcome) as caught:
        connector.create(prepared, NoProgress())
    assert type(caught.value) is outcome
    assert words in str(caught.value)
    assert len(psa.requests_to("", "POST")) == 1


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"Retry-After": "12"}, "Too many requests. Please try again in 30 seconds.", 12),
        ({}, "Too many requests. Please try again in 30 seconds.", 30),
        ({}, "Too many requests. Please try again in 9999 seconds.", 900),
        ({}, "Too many requests.", None),
    ],
)
def test_too_many_requests(
    connect: Connect, psa: PretendConnectWise, headers: dict[str, str], message: str, seconds: float | None
) -> None:
    connector = connect()
    prepared = connector.prepare(TICKET)
    body = {"error": "ConnectWiseAPI", "message": message}
    psa.fault("status", method="POST", status=429, headers=headers, body=body)
    with pytest.raises(Unavailable, match="Too many requests") as caught:
        connector.create(prepared, NoProgress())
    assert caught.value.retry_after == seconds


def test_the_system_s_own_refusal_is_passed_on(connect: Connect, psa: PretendConnectWise) -> None:
    psa.boards[21].required = ("subType",)
    with pytest.raises(Rejected, match="subType field is required on board Security"):
        create(connect())


def test_no_company_is_a_configuration_matter(connect: Connect) -> None:
    with pytest.raises(Misconfigured, match="default_company"):
        connect().prepare(replace(TICKET, company=None))


# The site and its codebase.


def test_codebase_is_discovered_anew_after_an_upgrade(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    assert connector.find(TICKET.reference) == []
    psa.codebase = "v2027_1/"
    assert connector.find(TICKET.reference) == []
    assert psa.received[-1].path.startswith("/v2027_1/")


def test_a_create_is_not_repeated_after_an_upgrade(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    prepared = connector.prepare(TICKET)
    psa.codebase = "v2027_1/"
    with pytest.raises(Unavailable, match="codebase"):
        connector.create(prepared, NoProgress())
    assert len(psa.requests_to("", "POST")) == 1
    assert connector.create(prepared, NoProgress()).id


def test_wrong_keys_answered_404_are_looked_into_once(connect: Connect, psa: PretendConnectWise) -> None:
    psa.bad_credentials_status = 404
    with pytest.raises(Misconfigured, match="wrong keys"):
        connect(private_key="not the key").find(TICKET.reference)
    assert len(psa.requests_to("companyinfo")) == 2
    assert len(psa.requests_to("/service/tickets")) == 1


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ({"kind": "status", "status": 404}, Misconfigured, "no ConnectWise PSA answers there"),
        ({"kind": "status", "status": 503}, Unavailable, "503"),
        ({"kind": "garbage"}, Unavailable, "not a JSON object"),
        ({"kind": "status", "status": 200, "body": {"Codebase": "../../x/"}}, Misconfigured, "no usable codebase"),
        ({"kind": "status", "status": 200, "body": {"Codebase": "v1@evil.example/"}}, Misconfigured, "codebase"),
        ({"kind": "status", "status": 200, "body": {}}, Misconfigured, "no usable codebase"),
    ],
)
def test_discovery_that_fails(
    connect: Connect, psa: PretendConnectWise, fault: dict[str, Any], outcome: type[Outcome], words: str
) -> None:
    psa.fault(path="companyinfo", **fault)
    with pytest.raises(outcome, match=words):
        connect().find(TICKET.reference)
    assert len(psa.received) == 1


def test_unknown_company_id(connect: Connect) -> None:
    with pytest.raises(Misconfigured, match="unknown company id"):
        connect(company_id="nobody").find(TICKET.reference)


@pytest.mark.parametrize(
    "site", ["api-eu.myconnectwise.net", "http://user@127.0.0.1:1", "https://127.0.0.1", "//", "[::1"]
)
def test_credentials_do_not_go_to_another_site(connect: Connect, psa: PretendConnectWise, site: str) -> None:
    psa.site_url = site
    with pytest.raises(Misconfigured, match="names another site"):
        connect().find(TICKET.reference)


def test_a_site_on_another_port_of_loopback_is_followed(connect: Connect, psa: PretendConnectWise) -> None:
    with PretendConnectWise() as second:
        psa.site_url = second.url
        connect().find(TICKET.reference)
        assert len(second.received) == 1


# Companies.


def test_companies_come_in_pages_and_from_a_cache(clock: Clock) -> None:
    many = [(number, f"C{number}", f"Company {number}") for number in range(1, 2346)]
    with PretendConnectWise(companies=many) as psa:
        settings = ConnectWiseSettings.model_validate(psa.settings())
        connector = ConnectWise("psa", settings, ConnectorContext(), clock)
        assert len(connector.companies()) == 2345
        assert connector.companies()[0] == Company("1", "Company 1", "C1")
        assert len(psa.requests_to("companies")) == 3
        assert len(connector.companies(fresh=True)) == 2345
        assert len(psa.requests_to("companies")) == 6
        clock.now += 3601
        connector.companies()
        assert len(psa.requests_to("companies")) == 9
        connector.close()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, "2"),
        ("acme", "1"),
        ("ACME  corp", "1"),
        ("2", "2"),
        ("Twin", None),
        (99, None),
        ("", None),
        ("7", None),  # the identifier of one company, the id of another
        ("Alpha", "4"),  # an identifier comes before a name
    ],
)
def test_company_by_identifier_name_or_id(clock: Clock, value: str | int, expected: str | None) -> None:
    companies = [(1, "ACME", "Acme Corp"), (2, "T1", "Twin"), (3, "T2", "twin")]
    companies += [(4, "ALPHA", "First"), (5, "BETA", "Alpha"), (6, "7", "Six"), (7, "SEVEN", "Seven")]
    with PretendConnectWise(companies=companies) as psa:
        connector = ConnectWise("psa", ConnectWiseSettings.model_validate(psa.settings()), ConnectorContext(), clock)
        found = connector.company(value)
        assert (found.id if found else None) == expected
        connector.close()


def test_a_company_made_meanwhile_is_found(connect: Connect, psa: PretendConnectWise, clock: Clock) -> None:
    connector = connect()
    assert connector.company("New one") is None
    psa.companies.append((900, "NEW", "New one"))
    assert connector.company("New one") is None
    clock.now += 61
    assert connector.company("New one") == Company("900", "New one", "NEW")


# After the create.


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (Agent(1, hostname="elsewhere", serial_number="SER-1"), "serial"),
        (Agent(1, hostname="Host-2", serial_number="unknown"), "host"),
        (Agent(1, hostname="host (3)"), "odd"),
        (Agent(1, hostname="twin"), None),
        (Agent(1, hostname="retired"), None),
        (Agent(1, hostname="foreign"), None),
        (Agent(1, hostname="h"), None),
        (Agent(1), None),
        (None, None),
    ],
)
def test_the_host_is_attached(
    connect: Connect, psa: PretendConnectWise, agent: Agent | None, expected: str | None
) -> None:
    ids = {
        "serial": psa.add_configuration(253, "PC", "ser-1"),
        "host": psa.add_configuration(253, "HOST-2"),
        "odd": psa.add_configuration(253, "HOST (3)"),
    }
    psa.add_configuration(253, "TWIN")
    psa.add_configuration(253, "twin")
    psa.add_configuration(253, "retired", active=False)
    psa.add_configuration(254, "foreign")
    connector = connect()
    ref = create(connector)

    for _ in range(2):
        assert connector.complete(ref, replace(TICKET, agent=agent)) == ref
    assert psa.ticket_configurations.get(int(ref.id), []) == ([ids[expected]] if expected else [])


def test_note_is_internal_and_written_once(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    for _ in range(2):
        connector.note(ref, TICKET.reference, Note("status-2", "Status changed", "It is over."))

    (note,) = [n for n in psa.notes[int(ref.id)] if "status-2" in n["text"]]
    assert note["text"] == "Status changed\n\nIt is over.\n\n[huntress-7-42/status-2]"
    assert note["internalAnalysisFlag"] is True
    assert note["detailDescriptionFlag"] is False
    assert note["processNotifications"] is False
    assert psa.contact_mail == []


def test_note_on_a_ticket_that_is_gone(connect: Connect) -> None:
    with pytest.raises(Rejected, match="ticket 4711 was deleted"):
        connect().note(TicketRef("4711"), TICKET.reference, Note("k", "t", "x"))


def test_link_writes_the_reference(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector)
    psa.tickets[int(ref.id)]["externalXRef"] = None
    for _ in range(2):
        assert connector.link(f"#{ref.id}", TICKET.reference) == found(ref)
    assert psa.tickets[int(ref.id)]["externalXRef"] == TICKET.reference
    (patch,) = psa.requests_to("", "PATCH")
    assert patch.json == [{"op": "replace", "path": "externalXRef", "value": TICKET.reference}]


@pytest.mark.parametrize(
    ("ticket", "held", "words"),
    [
        ("4711", "", "no ticket 4711"),
        ("T2026.1", "", "no ConnectWise ticket number"),
        ("1 OR 1", "", "no ConnectWise ticket number"),
        ("", "huntress-7-41", "already carries 'huntress-7-41'"),
        ("", "RMM-1", "already carries 'RMM-1'"),
    ],
)
def test_link_refuses(connect: Connect, psa: PretendConnectWise, ticket: str, held: str, words: str) -> None:
    connector = connect()
    ref = create(connector)
    psa.tickets[int(ref.id)]["externalXRef"] = held
    with pytest.raises(Rejected, match=re.escape(words)):
        connector.link(ticket or ref.id, TICKET.reference)
    assert psa.requests_to("", "PATCH") == []


def test_link_with_wrong_keys_is_not_a_missing_ticket(connect: Connect, psa: PretendConnectWise) -> None:
    psa.bad_credentials_status = 404
    with pytest.raises(Misconfigured, match="wrong keys"):
        connect(public_key="wrong").link("1001", TICKET.reference)


# Checking.


def test_check_finds_nothing_wrong_with_a_good_configuration(connect: Connect, psa: PretendConnectWise) -> None:
    fields = {"type": "Security", "source": "Huntress", "poNumber": "{{ report.id }}", "team": "{{ x }}"}
    assert connect(status="New", closed_status="Closed", fields=fields).check() == []
    assert {request.method for request in psa.received} == {"GET"}


def test_check_finds_every_mistake_at_once(connect: Connect) -> None:
    findings = connect(
        status="Waiting",
        closed_status="In Progress",
        default_company="Catchal",
        reference_field="externalRef",
        priorities={"critical": "P1", "high": "Priority 2 - High", "low": 99},
        fields={"type": "Incident", "source": "Huntress", "team": "Service Team"},
    ).check()
    assert {finding.setting for finding in findings} == {
        "status",
        "closed_status",
        "default_company",
        "reference_field",
        "priorities.critical",
        "priorities.low",
        "fields.type",
        "fields.team",
    }
    messages = {finding.setting: finding.message for finding in findings}
    assert "“Catchall”" in messages["default_company"]
    assert "does not close" in messages["closed_status"]


@pytest.mark.parametrize(
    ("overrides", "setting", "words"),
    [
        ({"company_id": "nobody"}, "company_id", "unknown company id"),
        ({"private_key": "wrong key"}, "public_key", "Check company_id, public_key and private_key"),
        ({"client_id": "wrong id"}, "public_key", "Check client_id"),
        ({"board": "Nope"}, "board", "“Security”"),
        ({"default_company": None}, "default_company", "catch-all"),
        ({"default_company": 1}, "default_company", "none of the 13 companies"),
    ],
)
def test_check_names_what_to_mend(connect: Connect, overrides: dict[str, Any], setting: str, words: str) -> None:
    (finding,) = connect(**overrides).check()
    assert finding.setting == setting
    assert words in finding.message


def test_check_on_a_board_that_cannot_close(connect: Connect, psa: PretendConnectWise) -> None:
    for status in psa.boards[21].statuses:
        status["closedStatus"] = False
    (finding,) = connect().check()
    assert finding.setting == "closed_status"


def test_check_asks_anew(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect(fields={"source": "Later"})
    assert [finding.setting for finding in connector.check()] == ["fields.source"]
    psa.sources.append({"id": 50, "name": "Later"})
    assert connector.check() == []


def test_check_says_when_nobody_answers(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    psa.stop()
    with pytest.raises(Unavailable):
        connector.check()


# Settings, errors, secrets.


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"url": "api-na.myconnectwise.net"}, "https://host"),
        ({"url": "https://user:pw@psa.example.com"}, "https://host"),
        ({"url": "https://psa.example.com/v4_6_release/apis/3.0"}, "codebase is discovered"),
        ({"company_id": ""}, "company_id"),
        ({"company_id": "a/../b"}, "slashes"),
        ({"company_id": "a+b"}, "plus"),
        ({"private_key": ""}, "private_key"),
        ({"client_id": ""}, "client_id"),
        ({"reference_field": "summary"}, "poNumber"),
        ({"reference_field": 'x" OR "'}, "reference_field"),
        ({"fields": {"board": "x"}}, "set board instead"),
        ({"fields": {"externalXRef": "x"}}, "reference_field"),
        ({"fields": {"type/name": "x"}}, "API name"),
        ({"fields": {"automaticEmailContactFlag": True}}, "mails no contact"),
        ({"bord": "x"}, "bord"),
    ],
)
def test_settings_that_cannot_work(psa: PretendConnectWise, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)) as caught:
        ConnectWiseSettings.model_validate(psa.settings(**overrides))
    assert PRIVATE_KEY not in str(caught.value)


def test_a_hosted_site_without_its_prefix_gets_a_hint(psa: PretendConnectWise) -> None:
    settings = ConnectWiseSettings.model_validate(psa.settings(url="https://na.myconnectwise.net/"))
    connector = ConnectWise("psa", settings, ConnectorContext())
    ssl = Answer(400, {}, "", {"code": "Security", "message": "SSL is required.", "errors": None})
    outcome = connector.api._classify(ssl, "read")
    assert isinstance(outcome, Misconfigured)
    assert "use https://api-na.myconnectwise.net" in str(outcome)
    assert connector.system() == "na.myconnectwise.net/bridgedemo"
    connector.close()


def test_people_are_sent_to_the_host_they_log_in_to(psa: PretendConnectWise) -> None:
    settings = ConnectWiseSettings.model_validate(psa.settings(url="https://api-na.myconnectwise.net"))
    connector = ConnectWise("psa", settings, ConnectorContext())
    assert connector._ref(7).url == (
        "https://na.myconnectwise.net/v4_6_release/services/system_io/router/openrecord.rails"
        "?locale=en_US&companyName=bridgedemo&recordType=ServiceFv&recid=7"
    )
    connector.close()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            {"code": "InvalidObject", "errors": [{"message": "Company ID already in use.", "field": "identifier"}]},
            "InvalidObject: Company ID already in use. (field identifier)",
        ),
        ({"code": "NotFound", "message": "Ticket 7 not found"}, "Ticket 7 not found"),
        ({"error": "ConnectWiseAPI", "message": "Too many requests."}, "Too many requests"),
        ({"message": "two\nlines\x1b[31m", "errors": None}, "two lines [31m"),
        ({"message": 7, "errors": "x"}, ""),
        ({"errors": [None, {"message": None}, {"message": "a", "field": 3}]}, "a (field )"),
        ([], ""),
        (None, ""),
    ],
)
def test_error_bodies_become_sentences(body: Any, sentence: str) -> None:
    assert explain(Answer(400, {}, "", body)) == sentence


def test_the_request_id_is_told_for_the_vendor_s_support() -> None:
    headers = {"x-cw-request-id": "0af7-1"}
    assert explain(Answer(400, headers, "", {"message": "No"})) == "No [request 0af7-1]"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500])
def test_no_error_tells_a_secret(connect: Connect, psa: PretendConnectWise, status: int) -> None:
    connector = connect()
    prepared = connector.prepare(TICKET)
    told = {"code": "Security", "message": f"{'x' * 190}{PRIVATE_KEY} {PUBLIC_KEY} {CLIENT_ID} in 3 seconds"}
    psa.fault("status", method="POST", status=status, body=told)
    with pytest.raises(Outcome) as caught:
        connector.create(prepared, NoProgress())
    for secret in (PRIVATE_KEY, PRIVATE_KEY[:6], PUBLIC_KEY, CLIENT_ID):
        assert secret not in str(caught.value)
    assert PRIVATE_KEY not in repr(connector.settings)
    assert CLIENT_ID not in repr(connector.settings)


def test_a_paused_connector_sends_nothing(psa: PretendConnectWise) -> None:
    def paused() -> None:
        raise Unavailable("paused")

    settings = ConnectWiseSettings.model_validate(psa.settings())
    connector = ConnectWise("psa", settings, ConnectorContext(before_request=paused))
    with pytest.raises(Unavailable, match="paused"):
        connector.find(TICKET.reference)
    assert psa.received == []
    connector.close()


# The pretend system itself.


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ("", True),
        ('externalXRef="AB-1"', True),
        ('externalXRef="ab-*"', True),
        ('externalXRef="ab"', False),
        ('externalXRef like "%b-%" AND board/id=21', True),
        ('externalXRef contains "B-" and closedFlag = False', True),
        ("board/id > 21", False),
        ('externalXRef != "AB-1"', False),
    ],
)
def test_conditions(conditions: str, matches: bool) -> None:
    row = {"externalXRef": "AB-1", "board": {"id": 21}, "closedFlag": False}
    assert parse_conditions(conditions, frozenset(row))(row) is matches


@pytest.mark.parametrize(
    "conditions", ['nope="x"', 'externalXRef="x', 'externalXRef="a" OR 1=1', 'externalXRef="x" AND ']
)
def test_conditions_that_are_refused(conditions: str) -> None:
    with pytest.raises(BadQuery):
        parse_conditions(conditions, frozenset({"externalXRef"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"summary": ""}, "summary field is required"),
        ({"summary": "x" * 101}, "maximum length of 100"),
        ({"company": None}, "company field is required"),
        ({"company": "250"}, "CompanyReference"),
        ({"company": {"id": 1}}, "company 1 was not found"),
        ({"board": {"id": 5}}, "board 5 was not found"),
        ({"status": {"id": 101}}, "does not belong to board Security"),
        ({"type": {"id": 11}}, "does not belong to board Security"),
        ({"severity": "Critical"}, "Low, Medium or High"),
        ({"titel": "x"}, "not a field of a ticket"),
    ],
)
def test_the_pretend_system_refuses_what_the_real_one_does(
    connect: Connect, psa: PretendConnectWise, change: dict[str, Any], words: str
) -> None:
    connector = connect()
    prepared = connector.prepare(TICKET)
    with pytest.raises(Rejected, match=re.escape(words)):
        connector.create(replace(prepared, body={**prepared.body, **change}), NoProgress())
    assert psa.tickets == {}


def test_closing_and_looking_at_a_ticket(connect: Connect, psa: PretendConnectWise) -> None:
    connector = connect()
    ref = create(connector, replace(TICKET, title="<b>"))
    path = f"/service/tickets/{ref.id}"
    connector.api.request(
        "PATCH", path, intent="update", json=[{"op": "replace", "path": "status", "value": {"id": 203}}]
    )
    assert psa.tickets[int(ref.id)]["closedFlag"] is True
    with pytest.raises(Rejected, match="not a field"):
        connector.api.request(
            "PATCH", path, intent="update", json=[{"op": "replace", "path": "/poNumber", "value": "x"}]
        )
    page = connector.api._open.request("GET", ref.url)
    assert "&lt;b&gt;" in page.text


@pytest.mark.parametrize("status", [403, 404])
def test_a_host_that_may_not_be_linked_costs_nothing(connect: Connect, psa: PretendConnectWise, status: int) -> None:
    psa.add_configuration(253, "HOST-2")
    connector = connect()
    ref = create(connector)
    psa.fault("status", path="/configurations", status=status, times=None)
    assert connector.complete(ref, replace(TICKET, agent=Agent(1, hostname="HOST-2"))) == ref
    assert psa.ticket_configurations == {}


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_without_the_short_listing_of_boards_is_asked_for_the_long_one(
    connect: Connect, psa: PretendConnectWise, status: int
) -> None:
    psa.fault("status", path="/service/info/boards", status=status, times=None)
    ref = create(connect())
    assert psa.tickets[int(ref.id)]["board"]["name"] == "Security"
