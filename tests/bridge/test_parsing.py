"""Odd shapes are ordinary: what the source sends becomes a clean model or a `ParseError`, nothing else."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import parsing
from bridge.demo import scenario
from bridge.models import Account, Agent, IncidentReport, Kind, Membership, Organization, Remediation
from bridge.parsing import ParseError

T = datetime(2026, 1, 22, 1, 7, 8, tzinfo=UTC)


def test_the_documented_report() -> None:
    report = parsing.parse_report(scenario.SAMPLES["full"])

    assert (report.id, report.account_id, report.organization_id, report.agent_id) == (1001, 5, 1, 1)
    assert report.subject == "HIGH - Incident on DESKTOP-01 (Acme Corp)"
    assert (report.severity, report.status, report.platform) == ("high", "sent", "windows")
    assert report.indicator_types == ("footholds",)
    assert report.indicator_counts == (("footholds", 1),)
    assert report.remediations_total == len(report.remediations) == 3
    assert report.remediations[1] == Remediation(
        id=100102,
        type="assisted",
        action="Delete File",
        parameters=(("path", "c:\\users\\public\\update_helper.ps1"),),
        status="unapproved",
    )
    assert report.sent_at == report.since == scenario.SAMPLE_TIME
    assert report.created_at is None
    assert report.closed_at is None


def test_the_least_a_report_may_carry() -> None:
    report = parsing.parse_report(scenario.SAMPLES["minimal"])
    assert report == IncidentReport(id=1002, status="open", created_at=scenario.SAMPLE_TIME)
    assert report.since == scenario.SAMPLE_TIME


def test_an_identity_has_no_agent() -> None:
    report = parsing.parse_report(scenario.SAMPLES["identity"])
    assert (report.agent_id, report.platform) == (None, "microsoft_365")


def test_the_hostile_report() -> None:
    report = parsing.parse_report(scenario.SAMPLES["hostile"])
    assert report.subject.startswith("CRITICAL - Incident on  Bcc: intruder@example.net {{ 7 * 7 }}")
    assert len(report.subject.splitlines()) == 1
    assert "\x1b" not in report.subject
    assert "\u202e" not in report.subject
    assert (report.account_id, report.severity, report.platform) == (5, "critical", '{"os": "windows"}')
    assert (report.indicator_types, report.indicator_counts) == (("footholds",), ())
    assert [r.action for r in report.remediations] == ["Delete {{ file }}", 'Ask "somebody" X-Header: 1']
    assert report.remediations[0].parameters == (("", "c:\\<b>x</b>"),)
    assert report.remediations_total == 12
    assert report.status_updated_at == datetime(2026, 3, 2, 8, 15, 42, tzinfo=UTC)
    assert report.updated_at is None
    assert "\r" not in report.body


def test_nulls_everywhere() -> None:
    names = scenario.SAMPLES["full"]
    assert parsing.parse_report({**dict.fromkeys(names), "id": 7}) == IncidentReport(id=7)


@pytest.mark.parametrize("raw", [None, True, 7, "x", [], [{"id": 1}]])
def test_no_object_is_no_report(raw: Any) -> None:
    with pytest.raises(ParseError, match="where an object is expected"):
        parsing.parse_report(raw)


@pytest.mark.parametrize(
    ("given_id", "expected"),
    [(7, 7), ("7", 7), (" 7 ", 7), (7.0, 7), (2**63 - 1, 2**63 - 1)]
    + [(bad, None) for bad in (None, "", "x", "7.5", "٧", 7.5, True, 0, -1, 2**63, 10**50, [7], {"id": 7})]
    + [(float("nan"), None), (float("inf"), None)],
)
def test_ids(given_id: Any, expected: int | None) -> None:
    if expected is None:
        with pytest.raises(ParseError, match="no usable id"):
            parsing.parse_report({"id": given_id})
    else:
        assert parsing.parse_report({"id": given_id}).id == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-22T01:07:08Z", T),
        ("2026-01-22T01:07:08.123456789Z", T.replace(microsecond=123456)),
        ("2026-01-22 01:07:08 UTC", T),
        ("2026-01-22 01:07:08 +0000", T),
        ("2026-01-22T02:07:08+01:00", T),
        ("2026-01-21 20:07:08-05", T),
        ("2026-01-22 01:07:08", T),
        ("2026-01-22", T.replace(hour=0, minute=0, second=0)),
        (1769044028, T),
        (1769044028.0, T),
        (1769044028000, T),
        ("1769044028", T),
    ],
)
def test_times(value: Any, expected: datetime) -> None:
    assert parsing.time(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, "", "yesterday", [], {}),
        *("2026-13-01T00:00:00Z", "2026-01-22T25:00:00Z", "٢٠٢٦-٠١-٠١"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1969-12-31T23:00:00Z"),
        *(10**30, -(10**30), float("nan"), float("inf")),
    ],
)
def test_unreadable_times(value: Any) -> None:
    assert parsing.time(value) is None


@pytest.mark.parametrize(
    ("value", "text", "line"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd", "a b c d"),
        ("a\tb", "a\tb", "a b"),
        ("a\x00\x07\x1b\x7f\x9bb", "ab", "ab"),
        ("a\u2028b\x85c\x0bd", "a\nb\nc\nd", "a b c d"),
        ("a\u202eb\u2066c\u2069", "abc", "abc"),
        ("a\ud800b😀", "ab😀", "ab😀"),
        ("  größe <b>&amp; {{ x }} ", "  größe <b>&amp; {{ x }} ", "größe <b>&amp; {{ x }}"),
        (None, "", ""),
        (True, "", ""),
        (5, "5", "5"),
        (["a", 1], '["a", 1]', '["a", 1]'),
    ],
)
def test_text(value: Any, text: str, line: str) -> None:
    assert (parsing.text(value), parsing.line(value)) == (text, line)


def test_what_is_taken_as_it_is_has_nothing_to_be_cleaned_of() -> None:
    """Next to a character that has to go, each of them is looked at; alone, none may be left that would have gone."""
    for character in map(chr, (*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), 0x1F600, 0xE0001)):
        alone = f"a{character}b"
        assert parsing.text(alone) == parsing.text(f"{alone}\x00"), hex(ord(character))
        assert parsing.line(alone) == parsing.line(f"{alone}\x00"), hex(ord(character))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["footholds", " x\ny ", None, 7, {}, "footholds"], ("footholds", "x y", "7")),
        ("footholds", ("footholds",)),
        ("footholds, siem_detections", ("footholds", "siem_detections")),
        ({"footholds": 2, "monitored_files": 0}, ("footholds",)),
        ({"0": "footholds", "1": "siem_detections"}, ("footholds", "siem_detections")),
        (None, ()),
        (7, ("7",)),
        (False, ()),
    ],
)
def test_indicator_types(value: Any, expected: tuple[str, ...]) -> None:
    assert parsing.parse_report({"id": 1, "indicator_types": value}).indicator_types == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": "2", "c": True, "d": -1, "e": None, "": 4}, (("a", 1), ("b", 2))),
        ([1], ()),
        ("x", ()),
        (None, ()),
    ],
)
def test_indicator_counts(value: Any, expected: tuple[tuple[str, int], ...]) -> None:
    assert parsing.parse_report({"id": 1, "indicator_counts": value}).indicator_counts == expected


@pytest.mark.parametrize(
    ("value", "actions", "total"),
    [
        ({"total_count": 12, "has_more": True, "items": [{"action": "A"}, {"action": "B"}]}, ["A", "B"], 12),
        ({"total_count": "x", "items": [{"action": "A"}]}, ["A"], 1),
        ([{"action": "A"}, "B", None, {}], ["A", "B"], 2),
        ({"items": {"action": "A"}}, ["A"], 1),
        ({"items": {"1": {"action": "A"}, "2": {"action": "B"}}}, ["A", "B"], 2),
        ({"1": {"action": "A"}, "x": 3}, ["A"], 1),
        ({"action": "A", "type": "manual"}, ["A"], 1),
        ({"items": "x"}, [], 0),
        ("x", [], 0),
        (None, [], 0),
        ({"total_count": 3, "items": None}, [], 3),
    ],
)
def test_remediations(value: Any, actions: list[str], total: int) -> None:
    report = parsing.parse_report({"id": 1, "remediations": value})
    assert ([r.action for r in report.remediations], report.remediations_total) == (actions, total)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"name": "path", "description": "c:\\x"}], (("path", "c:\\x"),)),
        ([{"key": "path", "value": "c:\\x"}], (("path", "c:\\x"),)),
        ([{"path": "c:\\x", "pid": 4}, "plain", None], (("path", "c:\\x"), ("pid", "4"), ("", "plain"))),
        ({"path": "c:\\x"}, (("path", "c:\\x"),)),
        ("DESKTOP-01", (("", "DESKTOP-01"),)),
        ([], ()),
        (None, ()),
        (7, (("", "7"),)),
    ],
)
def test_parameters(value: Any, expected: tuple[tuple[str, str], ...]) -> None:
    assert parsing.parse_remediation({"parameters": value}).parameters == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"id": "1", "email": "a@example.com", "name": "A"}, "A"),
        ({"email": "a@example.com"}, "a@example.com"),
        ("A", "A"),
        (None, ""),
        ([], ""),
    ],
)
def test_who_approved(value: Any, expected: str) -> None:
    assert parsing.parse_remediation({"approved_by": value}).approved_by == expected


def test_the_other_models() -> None:
    assert parsing.parse_account(scenario.ACCOUNT) == Account(5, "Example MSP", "examplemsp")
    assert parsing.parse_organization({"id": "4", "name": " Acme\r\nCorp ", "key": None}) == Organization(
        4, "Acme Corp"
    )
    agent = parsing.parse_agent(scenario.agent(12, 4, tags="Server", firewall_status=None, platform=" Windows "))
    assert agent == Agent(
        id=12,
        organization_id=4,
        hostname="MACBOOK-12",
        domain_name="CORP",
        platform="windows",
        os="macOS 26.1",
        serial_number="SN00000012",
        ipv4_address="192.0.2.13",
        external_ip="198.51.100.42",
        mac_addresses=("00:00:5e:00:53:0c",),
        tags=("Server",),
        last_callback_at=datetime(2026, 3, 2, 8, 12, 42, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("raw", "membership"),
    [
        (
            {"id": 1, "permissions": "User", "user": {"id": 9, "email": "a@example.com", "name": "A\u202eB\n"}},
            Membership(1, "User", "AB", "a@example.com"),
        ),
        (
            {"id": 2, "permissions": ["User", "Finance"], "organization": {"id": 3, "name": "Acme"}, "user": None},
            Membership(2, "User, Finance", organization=Organization(3, "Acme")),
        ),
        (  # as the older form has it
            {"id": 3, "email": "c@example.com", "first_name": "Chris", "last_name": "Chen", "role": "Admin"},
            Membership(3, "Admin", "Chris Chen", "c@example.com"),
        ),
        ({"id": 4, "organization_id": 5, "permissions": None}, Membership(4, organization=Organization(5))),
    ],
)
def test_memberships(raw: dict[str, Any], membership: Membership) -> None:
    assert parsing.parse_membership(raw) == membership


def test_a_nested_organization_counts() -> None:
    report = parsing.parse_report({"id": 1, "account": {"id": 5}, "organization": {"id": 4, "name": "Acme Corp"}})
    assert (report.account_id, report.organization_id) == (5, 4)


# The vendor's own example, https://api.huntress.io/docs.
DOCUMENTED = {
    "id": 84938,
    "account": {"id": 1, "name": "Your Account Name"},
    "organizations": [{"id": 1234, "name": "ExampleCo"}],
    "subject": "Defender Disabled",
    "type": "Environmental Issue",
    "subtype": "US",
    "severity": "low",
    "status": "resolved",
    "created_at": "2026-01-22T01:07:08Z",
    "resolved_at": "2026-01-22T01:07:08Z",
    "updated_at": "2026-01-22T01:07:08Z",
}


@pytest.mark.parametrize("kind", [Kind.ESCALATION, Kind.PLATFORM_ACTION])
def test_the_documented_escalation(kind: Kind) -> None:
    found = parsing.parse_escalation(DOCUMENTED, kind)
    assert found == IncidentReport(
        84938,
        kind,
        account_id=1,
        organization_id=1234,
        subject="Defender Disabled",
        severity="low",
        status="resolved",
        type="Environmental Issue",
        subtype="US",
        organizations=(Organization(1234, "ExampleCo"),),
        created_at=T,
        closed_at=T,
        updated_at=T,
    )
    assert found.over


@pytest.mark.parametrize(
    ("given_organizations", "organizations", "alone"),
    [
        ([], [], None),
        (None, [], None),
        ([{"id": 4, "name": "A"}], [4], 4),
        ([{"id": 4}, {"id": 9}], [4, 9], None),
        ([{"id": 4}, {"name": "without an id"}], [4], None),
        (["4"], [4], 4),
        ({"id": 4}, [4], 4),
        (["Acme Corp"], [], None),
    ],
)
def test_organizations_of_an_escalation(given_organizations: Any, organizations: list[int], alone: int | None) -> None:
    found = parsing.parse_escalation(DOCUMENTED | {"organizations": given_organizations})
    assert [organization.id for organization in found.organizations] == organizations
    assert found.organization_id == alone


@pytest.mark.parametrize(
    ("entities", "summary"),
    [
        (None, ""),
        ({"total_count": 0, "items": []}, ""),
        (
            {
                "total_count": 5,
                "items": [
                    {"id": 1, "type": "Agent", "details": {"hostname": "laptop01\r\n* Severity: low", "os": None}},
                    {"id": 2, "type": None, "details": ["x", {"name": "user", "value": "u"}]},
                    "not an entity",
                ],
            },
            "Agent 1: hostname laptop01 * Severity: low\nEntity 2: x; user u\n3 more in the Huntress portal",
        ),
        ([{"id": 1, "type": "Agent"}], "Agent 1"),
        ("Agent 1", ""),
    ],
)
def test_what_an_escalation_is_about(entities: Any, summary: str) -> None:
    assert parsing.parse_escalation(DOCUMENTED | {"entities": entities}).summary == summary


@pytest.mark.parametrize(
    ("subject", "kind_of_trouble", "broken"),
    [
        (
            "The Huntress security platform is unable to send incident reports to your PSA system and we need you to "
            "reconfigure the integration.",
            "",
            True,
        ),
        ("Your ConnectWise integration failed", "", True),
        ("Integration needs attention", "psa_integration_error", True),
        ("Incident reports could not be delivered", "", True),
        ("Autotask credentials have expired", "", True),
        ("Your PSA integration was set up", "", False),
        ("Agents are unable to update", "", False),
        ("ConnectWise Automate failed to install agents", "", False),
        ("Incident report 5 was closed", "", False),
        ("Defender Disabled", "Environmental Issue", False),
    ],
)
def test_a_broken_integration_is_critical(subject: str, kind_of_trouble: str, broken: bool) -> None:
    raw = DOCUMENTED | {"subject": subject, "type": kind_of_trouble, "severity": "High"}
    action = parsing.parse_escalation(raw, Kind.PLATFORM_ACTION)
    assert (action.severity, action.given_severity) == (("critical", "high") if broken else ("high", ""))
    # Of an escalation, whose words may follow from what an attacker named, nothing is made.
    assert parsing.parse_escalation(raw).severity == "high"
    assert parsing.parse_escalation(raw | {"severity": "critical"}, Kind.PLATFORM_ACTION).given_severity == ""


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "items", "action", "total_count", "parameters", "0"]), inner)
    ),
    max_leaves=8,
)
_fields = [
    *scenario.SAMPLES["full"],
    *DOCUMENTED,
    "entities",
    *scenario.SAMPLE_AGENT,
    "created_at",
    "organization",
    "user",
    "permissions",
    "role",
]
_reports = st.dictionaries(st.sampled_from(_fields), _anything, max_size=12)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(raw=_reports | _anything)
def test_any_json_becomes_a_model_or_a_parse_error(raw: Any) -> None:
    for parse in (
        parsing.parse_report,
        parsing.parse_escalation,
        parsing.parse_agent,
        parsing.parse_membership,
        parsing.parse_organization,
        parsing.parse_account,
    ):
        for candidate in (raw, {**raw, "id": 1} if isinstance(raw, dict) else raw):
            try:
                model = parse(candidate)
            except ParseError:
                continue
            for value in _texts(model):
                value.encode()
                assert not [c for c in value if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    report = parsing.parse_report({**raw, "id": 1}) if isinstance(raw, dict) else IncidentReport(1)
    assert len(report.subject.splitlines()) <= 1
    for moment in (report.sent_at, report.created_at, report.closed_at):
        assert moment is None or moment.tzinfo is UTC


def _texts(model: Any) -> list[str]:
    if isinstance(model, str):
        return [model]
    if isinstance(model, tuple):
        return [found for item in model for found in _texts(item)]
    if hasattr(model, "__slots__") and not isinstance(model, datetime):
        return [found for name in model.__slots__ for found in _texts(getattr(model, name))]
    return []


def test_samples_are_json() -> None:
    assert json.loads(json.dumps(scenario.SAMPLES)) == scenario.SAMPLES
