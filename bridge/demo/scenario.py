"""Believable organizations, agents and incidents, in the source's own JSON: for the demo, the samples and the tests.

Everything here is made up. Nothing is random: the same number gives the same incident.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

ACCOUNT_ID = 5
ACCOUNT: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "name": "Example MSP",
    "subdomain": "examplemsp",
    "status": "enabled",
    "support_type": "huntress_supported",
}

#: When the samples happened.
SAMPLE_TIME = datetime(2026, 3, 2, 8, 15, 42, tzinfo=UTC)

_FOUND = "Huntress detected"


@dataclass(frozen=True)
class Kind:
    """One sort of incident, with the vendor's words for its severity, platform and indicators."""

    name: str
    severity: str
    platform: str
    indicator: str
    summary: str
    body: str
    remediations: tuple[Mapping[str, Any], ...] = ()

    @property
    def on_host(self) -> bool:
        """Does it concern an agent, rather than an identity?"""
        return self.platform in ("windows", "darwin", "linux")


KINDS: tuple[Kind, ...] = (
    Kind(
        name="foothold",
        severity="high",
        platform="windows",
        indicator="footholds",
        summary=(
            f"{_FOUND} a malicious scheduled task on this host. It starts a hidden PowerShell at every logon, which "
            "loads a second stage from the internet. Files named in the remediations should be deleted and the "
            "password of the user who is logged on should be changed."
        ),
        body=(
            "Scheduled task: \\Microsoft\\Windows\\UpdateHelper\n"
            "Command: powershell.exe -w hidden -enc SQBFAFgA…\n"
            "Created by: {domain}\\user\n"
            "First seen on {host}: {seen}\n\n"
            "The task is not signed and its target was seen in other intrusions this week."
        ),
        remediations=(
            {"type": "assisted", "action": "Delete Scheduled Task", "parameters": [
                {"name": "task", "description": "\\Microsoft\\Windows\\UpdateHelper"}], "status": "unapproved"},
            {"type": "assisted", "action": "Delete File", "parameters": [
                {"name": "path", "description": "c:\\users\\public\\update_helper.ps1"}], "status": "unapproved"},
            {"type": "manual", "action": "Change the password of the user who is logged on", "parameters": [],
             "status": "unapproved"},
        ),
    ),
    Kind(
        name="ransomware canary",
        severity="critical",
        platform="windows",
        indicator="ransomware_canaries",
        summary=(
            f"{_FOUND} that ransomware canary files on this host were changed within a few seconds of each other, and "
            "the names of neighbouring files got a new extension. The host was isolated from the network. Do not "
            "release it before it was rebuilt or restored from a backup made before the time below."
        ),
        body=(
            "Canaries changed: 6 of 6\nNew extension: .locked\nProcess: c:\\programdata\\svc\\enc.exe (not signed)\n"
            "Host: {host}\nTime: {seen}\n\nCheck the other hosts that share drives with this one."
        ),
        remediations=(
            {"type": "containment", "action": "Isolate Host", "parameters": "{host}", "status": "completed"},
            {"type": "manual", "action": "Restore the host from a backup", "parameters": [], "status": "unapproved"},
        ),
    ),
    Kind(
        name="antivirus detection",
        severity="low",
        platform="windows",
        indicator="antivirus_detections",
        summary=(
            f"{_FOUND} that Microsoft Defender found a potentially unwanted program on this host and put it into "
            "quarantine. No other activity was seen. Nothing more is needed if the user did not run it."
        ),
        body=(
            "Detection: PUA:Win32/Presenoker\nPath: c:\\users\\user\\downloads\\pdf_converter_setup.exe\n"
            "Action: quarantined\nHost: {host}\nTime: {seen}"
        ),
        remediations=(
            {"type": "assisted", "action": "Delete File", "parameters": [
                {"name": "path", "description": "c:\\users\\user\\downloads\\pdf_converter_setup.exe"}],
             "status": "approved"},
        ),
    ),
    Kind(
        name="identity",
        severity="critical",
        platform="microsoft_365",
        indicator="managed_identity",
        summary=(
            f"{_FOUND} a log-in to user@example.com from a network that this user never used before, followed by a "
            "new inbox rule that moves messages about invoices into the RSS Feeds folder. The identity was disabled "
            "and its sessions were revoked."
        ),
        body=(
            "Identity: user@example.com\nLog-in from: 203.0.113.77 (hosting provider)\nClient: Axios\nTime: {seen}\n\n"
            "Inbox rule: \".\"\nCondition: subject or body contains \"invoice\" or \"payment\"\n"
            "Action: move to RSS Feeds, mark as read, stop processing more rules"
        ),
        remediations=(
            {"type": "containment", "action": "Disable Identity", "parameters": "user@example.com",
             "status": "completed"},
            {"type": "assisted", "action": "Delete Inbox Rule", "parameters": [
                {"name": "rule", "description": "."}], "status": "unapproved"},
            {"type": "manual", "action": "Reset the password and the MFA methods of the identity", "parameters": [],
             "status": "unapproved"},
        ),
    ),
    Kind(
        name="process detection",
        severity="high",
        platform="windows",
        indicator="process_detections",
        summary=(
            f"{_FOUND} that a remote access tool was started on this host from a temporary folder and connected to a "
            "server unknown to this organization. The process was ended. If nobody at the organization uses this "
            "tool, follow the remediations."
        ),
        body=(
            "Process: c:\\users\\user\\appdata\\local\\temp\\support-client.exe\nParent: outlook.exe\n"
            "Connection: 198.51.100.23:443\nUser: {domain}\\user\nHost: {host}\nTime: {seen}"
        ),
        remediations=(
            {"type": "assisted", "action": "Kill Process", "parameters": [
                {"name": "pid", "description": "4412"}], "status": "completed"},
            {"type": "assisted", "action": "Delete File", "parameters": [
                {"name": "path", "description": "c:\\users\\user\\appdata\\local\\temp\\support-client.exe"}],
             "status": "failed"},
            {"type": "manual", "action": "Ask the user about the message that brought the file", "parameters": [],
             "status": "unapproved"},
        ),
    ),
    Kind(
        name="launch agent",
        severity="low",
        platform="darwin",
        indicator="footholds",
        summary=(
            f"{_FOUND} a launch agent of a known adware family on this host. It does not run with elevated rights and "
            "no credentials were read."
        ),
        body=(
            "Launch agent: ~/Library/LaunchAgents/com.helper.plist\nTarget: ~/Library/Helper/helper\n"
            "Host: {host}\nTime: {seen}"
        ),
        remediations=(
            {"type": "manual", "action": "Remove the launch agent and its target", "parameters": [],
             "status": "unapproved"},
        ),
    ),
)  # fmt: skip


_HOSTS = (
    ("DESKTOP", "windows", "Windows 11 Pro"),
    ("LAPTOP", "windows", "Windows 11 Pro"),
    ("SERVER", "windows", "Windows Server 2022 Standard"),
    ("MACBOOK", "darwin", "macOS 26.1"),
)


def stamp(moment: datetime) -> str:
    """`moment` as the source writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def organization(number: int, **fields: Any) -> dict[str, Any]:
    """The organization with this id; number 1 is Acme Corp."""
    name = "Acme Corp" if number == 1 else f"Organization {number}"
    made = stamp(SAMPLE_TIME - timedelta(days=400))
    raw = {
        "id": number,
        "account_id": ACCOUNT_ID,
        "name": name,
        "key": name.lower().replace(" ", "-"),
        "agents_count": 3,
        "incident_reports_count": 0,
        "report_recipients": [],
        "created_at": made,
        "updated_at": made,
    }
    return raw | fields


def organizations(count: int) -> list[dict[str, Any]]:
    """Organizations with the ids 1 to `count`."""
    return [organization(number) for number in range(1, count + 1)]


def memberships() -> list[dict[str, Any]]:
    """The account's two people: one for all of it, one for the first organization only."""
    stamped = {"created_at": "2026-01-22 01:07:08 UTC", "updated_at": "2026-01-22 01:07:08 UTC"}
    account = {"id": ACCOUNT_ID, "name": ACCOUNT["name"]}
    return [
        {
            "id": 1,
            "permissions": "Admin",
            "account": account,
            "user": {"id": 90210, "email": "admin@example.com", "name": "Alex Admin"},
            **stamped,
        },
        {
            "id": 2,
            "permissions": "Read-only",
            "account": account,
            "organization": {"id": 1, "name": organization(1)["name"]},
            "user": {"id": 90211, "email": "reader@example.com", "name": "Robin Reader"},
            **stamped,
        },
    ]


def agent(number: int, organization_id: int = 1, **fields: Any) -> dict[str, Any]:
    """The agent with this id. Hosts are named after what they are, and the sorts take turns."""
    form, platform, os = _HOSTS[(number - 1) % len(_HOSTS)]
    raw = {
        "id": number,
        "account_id": ACCOUNT_ID,
        "organization_id": organization_id,
        "hostname": f"{form}-{number:02d}",
        "domain_name": "CORP",
        "platform": platform,
        "os": os,
        "serial_number": f"SN{number:08d}",
        "ipv4_address": f"192.0.2.{number % 254 + 1}",
        "external_ip": "198.51.100.42",
        "mac_addresses": [f"00:00:5e:00:53:{number % 256:02x}"],
        "tags": [form.title()],
        "firewall_status": "Enabled",
        "last_callback_at": stamp(SAMPLE_TIME - timedelta(minutes=3)),
    }
    return raw | fields


def subject(severity: str, where: str, organization_name: str) -> str:
    """As the vendor writes it; workflow rules in ticket systems parse it."""
    return f"{severity.upper()} - Incident on {where} ({organization_name})"


def incident(
    number: int,
    organization: Mapping[str, Any],
    agent: Mapping[str, Any] | None = None,
    at: datetime = SAMPLE_TIME,
    kind: Kind | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The incident report with this id. Kinds that fit the agent take turns; without one only identities are hit."""
    fitting = [kind for kind in KINDS if not kind.on_host or (agent and kind.platform == agent["platform"])]
    kind = kind or fitting[number % len(fitting)]
    host = str(agent["hostname"]) if agent and kind.on_host else ""
    words = {"host": host, "domain": str(agent["domain_name"]) if agent else "", "seen": stamp(at)}
    remediations = [_remediation(number * 100 + i, r, host, at) for i, r in enumerate(kind.remediations, 1)]
    raw = {
        "id": number,
        "account_id": ACCOUNT_ID,
        "organization_id": organization["id"],
        "agent_id": agent["id"] if agent and kind.on_host else None,
        "subject": subject(kind.severity, host or "user@example.com", str(organization["name"])),
        "summary": kind.summary,
        "body": kind.body.format(**words),
        "severity": kind.severity,
        "status": "sent",
        "platform": kind.platform,
        "indicator_types": [kind.indicator],
        "indicator_counts": {kind.indicator: 1},
        "remediations": {"total_count": len(remediations), "has_more": False, "items": remediations},
        "sent_at": stamp(at),
        "closed_at": None,
        "status_updated_at": stamp(at),
        "updated_at": stamp(at),
    }
    return raw | fields


def _remediation(number: int, template: Mapping[str, Any], host: str, at: datetime) -> dict[str, Any]:
    approved = template["status"] != "unapproved"
    parameters = template["parameters"]
    return {
        "id": number,
        "type": template["type"],
        "action": template["action"],
        "parameters": parameters.format(host=host) if isinstance(parameters, str) else parameters,
        "status": template["status"],
        "approved_at": stamp(at) if approved else None,
        "approved_by": {"id": "1", "email": "technician@example.com", "name": "Technician"} if approved else None,
        "completed_at": stamp(at) if template["status"] == "completed" else None,
    }


#: What `render` and `check` use where no report is given: the organization and the agent of the samples.
SAMPLE_ORGANIZATION = organization(1)
SAMPLE_AGENT = agent(1)

_HOSTILE_LINE = (
    "CRITICAL - Incident on \r\nBcc: intruder@example.net\r\n\r\n{{ 7 * 7 }} {% for x in y %} ${7*7} "
    "<script>alert(1)</script> \" ' \\ %s' or id > 0 or summary like \"%\u202egnp.exe\u2028\x00\x1b[31m"
)

#: Raw reports by name: a full one, the least the source may give, one that attacks, one without a host.
SAMPLES: dict[str, dict[str, Any]] = {
    "full": incident(1001, SAMPLE_ORGANIZATION, SAMPLE_AGENT, kind=KINDS[0]),
    "minimal": {"id": 1002, "status": "open", "created_at": stamp(SAMPLE_TIME)},
    "hostile": {
        "id": 1003,
        "account_id": "5",
        "organization_id": 1,
        "agent_id": 1,
        "subject": _HOSTILE_LINE,
        "summary": "</td></table><img src=x onerror=alert(1)> {{ config }} {%\n" + _HOSTILE_LINE,
        "body": "<!DOCTYPE html><style>*{display:none}</style>\r\n.\r\nQUIT\r\n" + "A long line. " * 400,
        "severity": "CRITICAL\n",
        "status": "sent",
        "platform": {"os": "windows"},
        "indicator_types": {"0": "footholds", "1": None},
        "indicator_counts": ["footholds", -1],
        "remediations": {"total_count": "12", "has_more": True, "items": {
            "1": {"id": None, "type": ["manual"], "action": "Delete {{ file }}", "parameters": "c:\\<b>x</b>"},
            "2": "Ask \"somebody\"\r\nX-Header: 1",
            "3": None,
        }},
        "sent_at": "2026-03-02 08:15:42 UTC",
        "closed_at": False,
        "status_updated_at": 1772439342,
        "updated_at": "yesterday",
    },
    "identity": incident(1004, SAMPLE_ORGANIZATION, kind=KINDS[3]),
}  # fmt: skip


def escalation(number: int, organizations: Iterable[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """The escalation with this id, as a listing has it; a single read has `entities` besides."""
    raw = {
        "id": number,
        "account": {"id": ACCOUNT_ID, "name": ACCOUNT["name"]},
        "organizations": [{"id": each["id"], "name": each["name"]} for each in organizations],
        "subject": "Unexpected Country Access",
        "type": "Unwanted Access",
        "subtype": "RU",
        "severity": "high",
        "status": "open",
        "created_at": stamp(SAMPLE_TIME),
        "resolved_at": None,
        "updated_at": stamp(SAMPLE_TIME),
    }
    return raw | fields


def platform_action(number: int, organizations: Iterable[Mapping[str, Any]] = (), **fields: Any) -> dict[str, Any]:
    """The platform action with this id; its subject is the vendor's own example."""
    raw = {
        "subject": (
            "The Huntress security platform is unable to send incident reports to your PSA system and we need you to "
            "reconfigure the integration."
        ),
        "type": "Integration",
        "subtype": "",
    }
    return escalation(number, organizations, **(raw | fields))


#: Escalations and platform actions, each with the name of its kind.
FURTHER_SAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "escalation",
        escalation(
            2001,
            [SAMPLE_ORGANIZATION, organization(2)],
            entities={
                "total_count": 2,
                "has_more": True,
                "items": [{"id": 7, "type": "Identity", "details": {"username": "user@example.com"}}],
            },
        ),
    ),
    ("escalation", escalation(2002, [SAMPLE_ORGANIZATION])),
    ("escalation", {"id": 2003}),
    ("escalation", escalation(2004, [organization(1, name=_HOSTILE_LINE)], subject=_HOSTILE_LINE, type=_HOSTILE_LINE)),
    ("platform_action", platform_action(3001)),
    ("platform_action", platform_action(3002, subject="Agents are out of date", type="Agents", severity="low")),
)
