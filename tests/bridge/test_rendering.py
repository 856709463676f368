"""Tickets as people read them, limits, overrides, and what a broken template or a hostile report can do (nothing)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bridge.models import (
    Account,
    Agent,
    Company,
    CompanyMatch,
    CompanySource,
    IncidentReport,
    Kind,
    Note,
    Organization,
    Remediation,
    Ticket,
    TicketRef,
)
from bridge.news import NoteKind
from bridge.rendering import Renderer, RenderInput
from bridge.text import size
from connectors.base import (
    Connector,
    ConnectorContext,
    ConnectorSettings,
    Finding,
    Progress,
    PsaSettings,
    Rejected,
    TemplatePart,
    Unavailable,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PORTAL = "https://{subdomain}.huntress.io/org/{organization_id}/infection_reports/{report_id}"
FREE_TEXT = "== WHAT HUNTRESS FOUND"


class Desk(Connector):
    """Writes tickets down; has whatever parts it is told."""

    settings_class: ClassVar[type[ConnectorSettings]] = PsaSettings

    def __init__(self, settings: PsaSettings, parts: Sequence[TemplatePart]) -> None:
        super().__init__("psa", settings, ConnectorContext())
        self._parts = parts

    def parts(self) -> Sequence[TemplatePart]:
        return self._parts

    def system(self) -> str:
        return "desk"

    def check(self) -> list[Finding]:
        return []

    def find(self, reference: str) -> list[TicketRef]:
        return []

    def prepare(self, ticket: Ticket) -> Ticket:
        return ticket

    def create(self, prepared: Any, progress: Progress) -> TicketRef:
        raise Rejected("this desk takes no tickets")

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        raise Rejected("this desk takes no notes")


class ConnectWiseDesk(Desk):
    type = "connectwise"


class AutotaskDesk(Desk):
    type = "autotask"


class MailDesk(Desk):
    type = "email"
    notes_are_replies = True


class UnreachableDesk(ConnectWiseDesk):
    def parts(self) -> Sequence[TemplatePart]:
        raise Unavailable("psa cannot be reached")


def _psa_parts(title: int | None, text: int | None) -> tuple[TemplatePart, ...]:
    return (
        TemplatePart("title", "title.j2", title, single_line=True),
        TemplatePart("text", "text.j2", text),
        TemplatePart("notice", "notice.j2", text, single_line=True),
    )


MAIL_PARTS = (
    TemplatePart("title", "title.j2", 200, single_line=True),
    TemplatePart("text", "text.j2"),
    TemplatePart("html", "html.j2"),
)
DESKS: Mapping[str, tuple[type[Desk], tuple[TemplatePart, ...]]] = {
    "connectwise": (ConnectWiseDesk, _psa_parts(100, None)),
    "autotask": (AutotaskDesk, _psa_parts(255, 382_560)),
    "email": (MailDesk, MAIL_PARTS),
}


def renderer(
    kind: str = "connectwise",
    *,
    parts: Sequence[TemplatePart] | None = None,
    templates: Path | str = "",
    fields: Mapping[str, Any] | None = None,
    portal: str = PORTAL,
    timezone: str = "America/New_York",
) -> Renderer:
    desk, usual = DESKS[kind]
    settings = PsaSettings(type=kind, templates=str(templates), fields=dict(fields or {}))
    return Renderer(desk(settings, parts or usual), settings, timezone=timezone, portal_url=portal)


SENT = datetime(2026, 3, 2, 8, 15, 42, tzinfo=UTC)
ACCOUNT = Account(5, "Example MSP", "examplemsp")
ACME = Organization(4, "Acme Corp", "acme")
AGENT = Agent(
    id=12,
    organization_id=4,
    hostname="LAPTOP-01",
    domain_name="CORP",
    platform="windows",
    os="Windows 11 Pro",
    serial_number="SN00000012",
    ipv4_address="192.0.2.9",
    external_ip="198.51.100.42",
    mac_addresses=("00:00:5e:00:53:01", "00:00:5e:00:53:02"),
    tags=("Laptop", "Finance"),
    firewall_status="Isolated",
    last_callback_at=datetime(2026, 3, 2, 8, 12, tzinfo=UTC),
)
FULL = IncidentReport(
    id=789,
    account_id=5,
    organization_id=4,
    agent_id=12,
    subject="CRITICAL - Incident on LAPTOP-01 (Acme Corp)",
    summary="Huntress found a malicious scheduled task on this host. It loads a second stage from the internet.",
    body=(
        "<h3>Persistence</h3><p>The task runs <code>powershell.exe -w hidden -enc SQBFAFgA…</code> at every log-on. "
        "See <a href='https://attack.mitre.org/techniques/T1053/'>the technique</a>.</p>"
        "<ul><li>Created by CORP\\user</li><li>Not signed</li></ul>"
    ),
    severity="critical",
    status="sent",
    platform="windows",
    indicator_types=("footholds", "process_detections"),
    indicator_counts=(("footholds", 2), ("process_detections", 1), ("antivirus_detections", 0)),
    remediations=(
        Remediation(
            id=1,
            type="assisted",
            action="Delete File",
            parameters=(("path", "c:\\windows\\system32\\tasks\\malicious_task"),),
            status="completed",
            approved_by="Technician",
            completed_at=datetime(2026, 3, 2, 8, 40, tzinfo=UTC),
        ),
        Remediation(
            id=2,
            type="assisted",
            action="Delete Registry Value",
            parameters=(("key", "HKLM\\Software\\Run"), ("value", "Updater")),
            status="unapproved",
        ),
        Remediation(id=3, type="manual", action="Change the user's password", status="unapproved"),
    ),
    remediations_total=14,
    sent_at=SENT,
    updated_at=datetime(2026, 3, 2, 8, 41, tzinfo=UTC),
)
IDENTITY = replace(
    FULL,
    id=790,
    agent_id=None,
    subject="HIGH - Incident on user@example.com (Acme Corp)",
    summary="A log-in to user@example.com from a network never used before, then a new inbox rule.",
    body="Identity: user@example.com\nLog-in from: 203.0.113.77\n\nInbox rule: moves invoices to RSS Feeds",
    severity="high",
    platform="microsoft_365",
    indicator_types=("managed_identity",),
    indicator_counts=(("managed_identity", 1),),
    remediations=(
        Remediation(
            id=4, type="containment", action="Disable Identity", parameters=(("", "user@example.com"),), status="failed"
        ),
    ),
    remediations_total=1,
    updated_at=SENT,
)
MINIMAL = IncidentReport(id=791, organization_id=4, status="open", created_at=SENT)
FORGERY = "x\r\n* Severity: low\n== WHERE ==\n* Host: SAFE-01 * Severity: low * URL: http://example.net/ {{ 7 * 7 }}"
HOSTILE = replace(
    FULL,
    id=792,
    subject="CRITICAL - Incident on \"'><script>alert(1)</script>\r\nBcc: intruder@example.net {{ 7 * 7 }} {% raw %}",
    summary=f"</div></table><img src=http://example.net/p.png onerror=alert(1)>![p](http://example.net/p.png)\n{FORGERY}",
    body=f"<p>{FORGERY}</p><script>alert(2)</script><a href='javascript:alert(3)'>click</a>\u202egnp.exe\x00\x1b[31m",
    severity="catastrophic * severity: low",
    status=FORGERY,
    platform=FORGERY,
    indicator_types=(FORGERY, "{{ config }}"),
    indicator_counts=(),
    remediations=(Remediation(type="<b>manual</b>", action=FORGERY, parameters=(("path", FORGERY),), status=FORGERY),),
)
LONG = replace(
    FULL,
    id=793,
    subject="HIGH - Incident on " + "a-very-long-host-name " * 220,
    summary="A sentence that is there to fill the summary. " * 40,
    body="A sentence that is there to fill the body. " * 300,
    severity="high",
)
ESCALATION = IncidentReport(
    id=84938,
    kind=Kind.ESCALATION,
    account_id=5,
    subject="Unexpected Country Access",
    summary="Identity 7: username user@example.com; country RU\n3 more in the Huntress portal",
    severity="low",
    status="overdue",
    type="Unwanted Access",
    subtype="RU",
    organizations=(ACME, Organization(9, "Globex Ltd")),
    created_at=SENT,
    updated_at=datetime(2026, 3, 2, 8, 41, tzinfo=UTC),
)
BROKEN = IncidentReport(
    id=512,
    kind=Kind.PLATFORM_ACTION,
    account_id=5,
    subject="Huntress is unable to send incident reports to your PSA system",
    severity="critical",
    given_severity="high",
    status="open",
    type="Integration",
    created_at=SENT,
    updated_at=SENT,
)
HOSTILE_ESCALATION = replace(
    ESCALATION,
    id=84939,
    organization_id=4,
    subject=FORGERY,
    summary=f"Agent 1: hostname {FORGERY}",
    severity=FORGERY,
    status=FORGERY,
    type=f"<b>{FORGERY}",
    subtype=FORGERY,
    organizations=(Organization(4, f"Acme <b>Corp</b> {FORGERY}"),),
)
CATCH_ALL = CompanyMatch(
    Company("2", "Catchall"),
    CompanySource.CATCH_ALL,
    "it has no row in the organizations file, and no company has its name",
)
BY_NAME = CompanyMatch(Company("19", "Acme Corp", "ACME"), CompanySource.NAME)


def given(report: IncidentReport, /, **changes: Any) -> RenderInput:
    known = RenderInput(
        report=report,
        reference=f"huntress-5-{report.key}",
        organization=ACME if report.organization_id else None,
        agent=AGENT if report.agent_id else None,
        account=ACCOUNT,
        company=BY_NAME,
    )
    return replace(known, **changes)


CASES: Mapping[str, RenderInput] = {
    "full": given(FULL),
    "identity": given(IDENTITY),
    "minimal": given(MINIMAL, organization=None, account=None, company=None),
    "hostile": given(
        HOSTILE,
        organization=Organization(4, f"Acme <b>Corp</b> {FORGERY}"),
        agent=replace(AGENT, hostname=FORGERY, os=FORGERY, tags=(FORGERY,)),
    ),
    "catch-all": given(FULL, company=CATCH_ALL),
    "over-long": given(LONG),
    "escalation": given(ESCALATION, company=CATCH_ALL),
    "platform-action": given(replace(BROKEN, subject="Agents are out of date", severity="low", given_severity="")),
    "broken-integration": given(BROKEN, company=CATCH_ALL),
    "hostile-escalation": given(HOSTILE_ESCALATION),
}


# What people read.


@pytest.mark.parametrize("kind", DESKS)
@pytest.mark.parametrize("case", ["escalation", "platform-action", "broken-integration", "hostile-escalation"])
def test_further_kinds_also_have_a_plain_rendering(kind: str, case: str) -> None:
    rendered = renderer(kind).render(CASES[case], plain=True)
    assert rendered.problems == ()
    ticket = rendered.ticket
    assert f"{CASES[case].report.kind.replace('_', ' ')} {CASES[case].report.id}: " in ticket.text
    assert ("cannot send incident reports" in ticket.text) is (case == "broken-integration")
    for organization in CASES[case].report.organizations:
        assert f"(id {organization.id})" in ticket.text
    # Nothing that is given can start a line.
    assert [line for line in ticket.text.splitlines() if line.startswith(("== WHERE", "* Host", "x"))] == []


def test_no_incident_link_is_made_up_for_an_escalation() -> None:
    single = replace(ESCALATION, organization_id=4, organizations=(ACME,))
    for plain in (False, True):
        assert "infection_reports" not in renderer().render(given(single), plain=plain).ticket.text


def test_an_override_of_the_incident_text_also_serves_escalations(tmp_path: Path) -> None:
    (tmp_path / "text.j2").write_text("{{ subject }} / {{ organizations | join(', ') }} / {{ portal_url }}", "utf-8")
    rendered = renderer(templates=tmp_path).render(given(ESCALATION))
    assert rendered.problems == ()
    assert rendered.ticket.text == "Unexpected Country Access / Acme Corp (id 4), Globex Ltd (id 9) /"


def test_an_override_may_be_of_one_kind_alone(tmp_path: Path) -> None:
    (tmp_path / "_shared").mkdir()
    (tmp_path / "_shared/escalation.j2").write_text("ESCALATED: {{ subject }}", "utf-8")
    desk = renderer(templates=tmp_path)
    assert "ESCALATED: Unexpected" in desk.render(given(ESCALATION)).ticket.text
    assert desk.render(given(FULL)).ticket.text == renderer().render(given(FULL)).ticket.text
    assert desk.check() == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", DESKS)
def test_golden(kind: str, case: str) -> None:
    """`UPDATE_GOLDEN=1 pytest tests/bridge/test_rendering.py` writes the files anew; read the difference."""
    rendered = renderer(kind).render(CASES[case])
    assert rendered.problems == ()
    ticket = rendered.ticket
    notice = f"--- notice ---\n{ticket.notice}\n" if ticket.notice else ""
    files = {f"{kind}-{case}.txt": f"--- title ---\n{ticket.title}\n{notice}--- text ---\n{ticket.text}\n"}
    if ticket.html:
        files[f"{kind}-{case}.html"] = ticket.html + "\n"
    for name, text in files.items():
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text, "utf-8")
        assert path.read_text("utf-8") == text


@pytest.mark.parametrize("kind", ["connectwise", "autotask"])
def test_a_ticket_tells_everything_also_when_lines_are_joined(kind: str) -> None:
    joined = " ".join(renderer(kind).render(CASES["full"]).ticket.text.split())
    for field in (
        "* Subject: CRITICAL - Incident on LAPTOP-01 (Acme Corp) * Severity: critical *",
        "* Sent: 2026-03-02 03:15 EST (America/New_York) *",
        "* Updated: 2026-03-02 03:41 EST (America/New_York) *",
        "* Platform: Windows * Indicators: footholds (2), process detections (1) * Report: 789 *",
        "* URL: https://examplemsp.huntress.io/org/4/infection_reports/789 * Reference: huntress-5-789 ==",
        "* Organization: Acme Corp (id 4) *",
        "* Host: LAPTOP-01 (agent 12) * Isolation or firewall state: Isolated * System: Windows 11 Pro *",
        "* IP addresses: 192.0.2.9 (internal), 198.51.100.42 (external) * Serial number: SN00000012 *",
        '* 2. [unapproved] Delete Registry Value (assisted): key "HKLM\\Software\\Run", value "Updater" *',
        "* 3. [unapproved] Change the user's password (manual) * 11 more in the Huntress portal ==",
        "> Huntress found a malicious scheduled task",
        "See the technique (https://attack.mitre.org/techniques/T1053/).",
    ):
        assert field in joined


def test_the_catch_all_puts_the_organization_first_in_the_body_not_in_the_title() -> None:
    ticket = renderer().render(CASES["catch-all"]).ticket
    assert ticket.text.startswith(
        "Organization: Acme Corp (id 4). This ticket is filed under the catch-all company Catchall"
    )
    assert ticket.title == "CRITICAL - Incident on LAPTOP-01 (Acme Corp) [huntress-5-789]"


def test_the_notice_says_nothing_of_the_incident() -> None:
    ticket = renderer().render(CASES["full"]).ticket
    assert ticket.notice == "Security incident report 789 from Huntress. Details are in the internal notes."


def test_mail_begins_with_prose_and_has_no_notice() -> None:
    ticket = renderer("email").render(CASES["full"]).ticket
    assert ticket.text.splitlines()[0] == "Huntress has reported a security incident. What is known about it follows."
    assert {"Company: Acme Corp", "Severity: critical", "Report: 789"} <= set(ticket.text.splitlines())
    assert ticket.notice == ""


@pytest.mark.parametrize("kind", DESKS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_ticket_after_a_reopening_links_the_former(kind: str, plain: bool) -> None:
    former = TicketRef("41", "T-41\r\n* Host: SAFE-01", "https://desk.example.com/41")
    ticket = renderer(kind).render(given(FULL, former=former), plain=plain).ticket
    assert ticket.former == former
    assert re.search(r"^(\* )?Former ticket: T-41 .*https://desk\.example\.com/41$", ticket.text, re.MULTILINE)
    assert not re.search(r"^(\* )?Host: SAFE-01", ticket.text, re.MULTILINE)
    assert not ticket.html or "https://desk.example.com/41" in ticket.html
    alone = renderer(kind).render(given(FULL, former=TicketRef("41")), plain=plain).ticket
    assert re.search(r"^(\* )?Former ticket: 41$", alone.text, re.MULTILINE)


def test_an_agent_known_only_by_id_is_named() -> None:
    assert "* Host: agent 12, whose details" in renderer().render(given(FULL, agent=None)).ticket.text


def test_the_ticket_carries_what_connectors_need() -> None:
    ticket = renderer().render(given(replace(FULL, severity="urgent"), recipients=("desk@example.com",))).ticket
    assert (ticket.reference, ticket.report_id) == ("huntress-5-789", 789)
    assert (ticket.severity, ticket.source_severity) == ("high", "urgent")
    assert (ticket.organization, ticket.agent, ticket.company) == (ACME, AGENT, BY_NAME)
    assert ticket.recipients == ("desk@example.com",)
    alone = renderer().render(given(FULL, organization=None, agent=None)).ticket
    assert (alone.organization, alone.agent) == (None, None)


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2026-03-02 08:15 UTC"),
        ("Europe/Berlin", "2026-03-02 09:15 CET (Europe/Berlin)"),
        ("Asia/Kathmandu", "2026-03-02 14:00 UTC+05:45 (Asia/Kathmandu)"),
        ("America/Sao_Paulo", "2026-03-02 05:15 UTC-03:00 (America/Sao_Paulo)"),
    ],
)
def test_times_name_their_zone(zone: str, shown: str) -> None:
    assert f"* Sent: {shown}\n" in renderer(timezone=zone).render(given(FULL)).ticket.text


# Titles.


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "CRITICAL - Incident on LAPTOP-01 (Acme Corp) [huntress-5-789]"),
        ({"subject": "LOW  -  spaces (stay)"}, "LOW  -  spaces (stay) [huntress-5-789]"),
        ({"subject": "HIGH - {{ 7 * 7 }}\nnext"}, "HIGH - {{ 7 * 7 }} next [huntress-5-789]"),
        ({"subject": ""}, "CRITICAL - Incident report 789 (Acme Corp) [huntress-5-789]"),
        (
            {"subject": "", "severity": ""},
            "HIGH - Incident report 789 (Acme Corp) [severity not given] [huntress-5-789]",
        ),
        (
            {"severity": "medium"},
            "CRITICAL - Incident on LAPTOP-01 (Acme Corp) [severity medium] [huntress-5-789]",
        ),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_the_subject_comes_first_and_unchanged(changes: dict[str, Any], title: str, plain: bool) -> None:
    assert renderer().render(given(replace(FULL, **changes)), plain=plain).ticket.title == title


@pytest.mark.parametrize("subject", ["HIGH - " + "word " * 1000, "x" * 5000, "👩‍💻" * 200, "HIGH - fits"])
@pytest.mark.parametrize("limit", [40, 100, 255, None])
@pytest.mark.parametrize("plain", [False, True])
def test_the_subject_gives_way_never_the_reference(subject: str, limit: int | None, plain: bool) -> None:
    ours = renderer(parts=_psa_parts(limit, None))
    title = ours.render(given(replace(FULL, subject=subject)), plain=plain).ticket.title
    assert title.endswith(" [huntress-5-789]")
    assert title.startswith(subject[:5])
    assert limit is None or size(title) <= limit


def test_an_override_title_keeps_its_reference_too(tmp_path: Path) -> None:
    (tmp_path / "title.j2").write_text("[{{ organization.name }}] {{ subject }} [{{ reference }}]")
    title = renderer(templates=tmp_path).render(given(LONG)).ticket.title
    assert title.startswith("[Acme Corp] HIGH - Incident on a-very-long")
    assert title.endswith("… [huntress-5-793]")
    assert size(title) <= 100


# Limits.


@pytest.mark.parametrize("limit", [50, 300, 2000, 8000])
@pytest.mark.parametrize("plain", [False, True])
def test_long_text_is_cut_with_a_note(limit: int, plain: bool) -> None:
    text = renderer(parts=_psa_parts(100, limit)).render(given(LONG), plain=plain).ticket.text
    assert size(text) <= limit
    assert limit < 100 or re.search(r"\[… [\d,]+ characters more in the Huntress portal\]$", text)


@pytest.mark.parametrize("kind", DESKS)
@pytest.mark.parametrize("plain", [False, True])
def test_a_huge_report_is_rendered(kind: str, plain: bool) -> None:
    huge = replace(
        FULL,
        body="<p>" + "word &amp; " * 40_000,
        remediations=tuple(replace(FULL.remediations[1], action="act " * 500) for _ in range(300)),
        remediations_total=300,
        indicator_types=tuple(f"indicator_{n}" for n in range(5000)),
    )
    rendered = renderer(kind).render(given(huge), plain=plain)
    assert rendered.problems == ()
    assert "word & word" in rendered.ticket.text or kind == "autotask"
    assert plain or len(rendered.ticket.html) < 250_000


def test_html_over_its_limit_is_replaced_by_shorter_html() -> None:
    parts = (*MAIL_PARTS[:2], TemplatePart("html", "html.j2", 1500))
    rendered = renderer("email", parts=parts).render(given(LONG))
    assert "html.j2" in rendered.problems[0]
    assert size(rendered.ticket.html) <= 1500
    assert rendered.ticket.html.endswith("</html>")


# Hostile reports.


@pytest.mark.parametrize("kind", DESKS)
@pytest.mark.parametrize("plain", [False, True])
def test_text_in_a_report_forges_no_field(kind: str, plain: bool) -> None:
    text = renderer(kind).render(CASES["hostile"], plain=plain).ticket.text
    assert "49" not in text
    bullet = "" if kind == "email" and not plain else "* "
    for name in ("Severity: ", "Host: ", "URL: "):
        assert len(re.findall(rf"^{re.escape(bullet + name)}", text, re.MULTILINE)) == 1, name
    if not plain:
        assert text.count("\n== WHERE ==\n") == 1
        trusted, free = text.split(FREE_TEXT, 1)
        assert all(line.startswith((">", "== ")) or not line for line in free.splitlines()[1:])
        if bullet:
            assert len(re.findall(r"(?:^| )\* Severity: ", " ".join(trusted.split()))) == 1


@pytest.mark.parametrize("part", ["title", "text", "html"])
def test_no_control_or_direction_character_gets_out(part: str) -> None:
    text = getattr(renderer("email").render(CASES["hostile"]).ticket, part)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("case", CASES)
def test_html_holds_only_our_markup_and_one_link(case: str) -> None:
    tags = _Tags()
    tags.feed(renderer("email").render(CASES[case]).ticket.html)
    assert tags.open == []
    allowed = "html head meta title body p h1 h2 span a table tr th td ol li b br code div"
    assert tags.tags <= set(allowed.split())
    assert tags.attributes <= {"lang", "charset", "name", "content", "style", "href", "scope"}
    report = CASES[case].report
    link = f"https://examplemsp.huntress.io/org/4/infection_reports/{report.id}"
    assert tags.links == ([] if case == "minimal" or report.kind is not Kind.INCIDENT_REPORT else [link])


@pytest.mark.parametrize(
    ("pattern", "changes", "url"),
    [
        (PORTAL, {}, "https://examplemsp.huntress.io/org/4/infection_reports/789"),
        (PORTAL, {"account": None}, ""),
        (PORTAL, {"account": Account(5, "x", "evil.example.net/")}, ""),
        (PORTAL, {"report": replace(FULL, organization_id=None)}, ""),
        ("https://portal.example.com/r/{report_id}", {"account": None}, "https://portal.example.com/r/789"),
        ("https://portal.example.com/{account_id}", {"account": None}, "https://portal.example.com/5"),
        ("https://portal.example.com/{report_id.__class__}", {}, ""),
        ("javascript:alert({report_id})", {}, ""),
        ("", {}, ""),
    ],
)
def test_portal_link(pattern: str, changes: dict[str, Any], url: str) -> None:
    ticket = renderer("email", portal=pattern).render(given(FULL, **changes)).ticket
    assert f"\nURL: {url or 'not given'}\n" in ticket.text
    assert f'href="{url}"' in ticket.html if url else "href" not in ticket.html


# Templates of the operator.


def test_any_subset_of_files_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine" / "_shared"
    folder.mkdir(parents=True)
    (folder / "notice.j2").write_text("Report {{ report.id }} for {{ company.name }}\n")
    (folder.parent / "text.j2").write_text('Ours\n{% include "connectwise/text.j2" %}')
    monkeypatch.chdir(tmp_path)
    ours = renderer(templates="mine")
    rendered = ours.render(given(FULL))
    assert rendered.problems == ()
    assert rendered.ticket.notice == "Report 789 for Acme Corp"
    assert rendered.ticket.text.startswith("Ours\n== INCIDENT ==\n* Subject: CRITICAL")
    assert rendered.ticket.title == "CRITICAL - Incident on LAPTOP-01 (Acme Corp) [huntress-5-789]"
    overridden = {(file.part, file.path) for file in ours.files() if file.overridden}
    assert overridden == {("notice", folder / "notice.j2"), ("text", folder.parent / "text.j2")}
    notes = {f"{kind} note" for kind in NoteKind}
    assert {file.part for file in ours.files()} == {"title", "text", "notice"} | notes
    assert ours.check() == []


@pytest.mark.parametrize(
    ("template", "line", "error"),
    [
        ("one\n{{ reprot.subject }}", 2, "'reprot' is undefined"),
        ("one\n\n{{ organization.nmae }}", 3, "has no attribute 'nmae'"),
        ("one\n{% if %}", 2, "Expected an expression"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError: division by zero"),
        ("{{ report.since.strftime(5) }}", 1, "TypeError: "),
        ("{{ report.__class__.__mro__ }}", 1, "access to attribute '__class__' of 'IncidentReport' object is unsafe"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", None, "more than 4,000,000"),
        ("{% for a in range(10**9) %}x{% endfor %}", 1, "OverflowError: "),
        ("{% if false %}never{% endif %}\n \n", None, "it rendered nothing"),
        ('\n{% include "other.j2" %}', 2, "other.j2"),
        ('{% include "text.j2" %}', 1, "RecursionError: "),
        ("\udce9".encode("utf-8", "surrogateescape").decode("latin-1"), None, "utf-8"),
    ],
)
@pytest.mark.parametrize("kind", ["connectwise", "email"])
def test_a_broken_template_costs_no_ticket(
    tmp_path: Path, kind: str, template: str, line: int | None, error: str
) -> None:
    (tmp_path / "text.j2").write_bytes(template.encode("latin-1"))
    rendered = renderer(kind, templates=tmp_path).render(given(FULL))
    (problem,) = rendered.problems
    at = f", line {line}" if line else ""
    assert problem.startswith(f"connector psa: template {tmp_path}/text.j2{at}: ")
    assert error in problem
    assert problem.endswith("; the plain rendering took its place")
    untouched = renderer(kind).render(given(FULL)).ticket
    assert (rendered.ticket.title, rendered.ticket.html) == (untouched.title, untouched.html)
    text = rendered.ticket.text
    assert "* Organization: Acme Corp (id 4)\n* Host: LAPTOP-01 (agent 12)\n" in text
    assert '* Asked for, 2: Delete Registry Value (assisted), state unapproved: key "HKLM\\Software\\Run"' in text
    assert "* Asked for: 11 more in the Huntress portal\n" in text
    assert "* URL: https://examplemsp.huntress.io/org/4/infection_reports/789\n* Reference: huntress-5-789\n" in text
    assert "> Huntress found a malicious scheduled task" in text


def test_plain_uses_no_template_at_all(tmp_path: Path) -> None:
    for name in ("title.j2", "text.j2", "html.j2"):
        (tmp_path / name).write_text("{% syntax error")
    rendered = renderer("email", templates=tmp_path).render(CASES["hostile"], plain=True)
    assert rendered.problems == ()
    tags = _Tags()
    tags.feed(rendered.ticket.html)
    assert tags.tags == {"html", "head", "meta", "title", "body", "div"}
    assert tags.links == []


@pytest.mark.parametrize("case", CASES)
def test_plain_copes_with_every_report(case: str) -> None:
    ticket = renderer("autotask", parts=_psa_parts(255, 8000)).render(CASES[case], plain=True).ticket
    assert f"huntress-5-{CASES[case].report.key}" in ticket.title
    assert str(CASES[case].report.id) in ticket.notice
    assert 100 < size(ticket.text) <= 8000


# Fields.


def test_fields_may_be_jinja(tmp_path: Path) -> None:
    fields = {
        "type": "Security",
        "subType": 7,
        "skipCallback": True,
        "poNumber": "{{ reference }}",
        "contactName": "{{ agent.hostname or 'none' }} {# comment #}",
        "source": "{{ reprot }}",
        "item": "{% broken",
        "braces": "{not jinja}",
    }
    rendered = renderer(fields=fields).render(given(replace(FULL, subject="{{ 7 * 7 }}")))
    assert rendered.ticket.fields == {
        "type": "Security",
        "subType": 7,
        "skipCallback": True,
        "poNumber": "huntress-5-789",
        "contactName": "LAPTOP-01",
        "braces": "{not jinja}",
    }
    assert rendered.problems == (
        "connector psa: fields.source, line 1: 'reprot' is undefined; the field was left out",
        "connector psa: fields.item, line 1: Encountered unknown tag 'broken'.; the field was left out",
    )
    assert {finding.setting for finding in renderer(fields=fields).check()} == {"fields.source", "fields.item"}


def test_a_value_from_the_report_is_not_rendered_again_in_a_field() -> None:
    rendered = renderer(fields={"memo": "{{ subject }}"}).render(given(replace(FULL, subject="{{ 7 * 7 }}\nnext")))
    assert rendered.ticket.fields == {"memo": "{{ 7 * 7 }} next"}


def test_plain_leaves_out_fields_that_are_templates() -> None:
    fields = {"type": "Security", "poNumber": "{{ reference }}"}
    rendered = renderer(fields=fields).render(given(FULL), plain=True)
    assert rendered.ticket.fields == {"type": "Security"}
    assert "fields.poNumber" in rendered.problems[0]


# check.


@pytest.mark.parametrize("kind", DESKS)
def test_the_built_in_templates_pass(kind: str) -> None:
    assert renderer(kind).check() == []


def test_check_finds_every_mistake_at_once(tmp_path: Path) -> None:
    (tmp_path / "title.j2").write_text("{{ subject }}\n{{ company.nmae }}")
    (tmp_path / "text.j2").write_text("{% if agent.tags %}{{ agent.tags.first }}{% else %}none{% endif %}")
    (tmp_path / "notcie.j2").write_text("never used")
    findings = renderer(templates=tmp_path, fields={"x": "{{"}).check()
    assert [finding.setting for finding in findings] == ["templates", "templates", "templates", "fields.x"]
    unused, title, text, _ = (finding.message for finding in findings)
    assert unused == f"{tmp_path}/notcie.j2 is used by no part of a ticket; did you mean notice.j2?"
    assert title.startswith(f"template {tmp_path}/title.j2, line 2: ")
    assert text.startswith(f"template {tmp_path}/text.j2, line 1: ")


def test_check_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (finding,) = renderer(templates=tmp_path / "nowhere").check()
    assert finding.message == f"{tmp_path}/nowhere is not a folder; without it the built-in templates are used"


def test_check_of_a_system_that_cannot_be_asked_for_its_limits() -> None:
    settings = PsaSettings(type="connectwise")
    ours = Renderer(UnreachableDesk(settings, ()), settings, timezone="UTC", portal_url=PORTAL)
    assert ours.check() == [Finding("templates", "cannot be tried: psa cannot be reached")]
    with pytest.raises(Unavailable):
        ours.render(given(FULL))


def test_a_connector_without_templates_still_makes_tickets(tmp_path: Path) -> None:
    class Bare(Desk):
        type = "bare"

        def template_folder(self) -> Path:
            return tmp_path / "nowhere"

    settings = PsaSettings(type="bare")
    ours = Renderer(Bare(settings, _psa_parts(100, 5000)), settings, timezone="UTC", portal_url="")
    rendered = ours.render(given(FULL))
    assert rendered.ticket.title == "CRITICAL - Incident on LAPTOP-01 (Acme Corp) [huntress-5-789]"
    assert len(rendered.problems) == 3
    assert [finding.setting for finding in ours.check()] == ["templates"] * 3
