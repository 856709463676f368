"""What a ticket may say about a report: the variables that templates and the plain rendering see.

This is the border for text inside tickets. What is one line by its nature (names, ids, states, parameters) is one line
after it, so a host name cannot forge a field; only `report.summary` and `report.body` keep their lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

from bridge.broken_integration import is_broken_integration
from bridge.models import (
    SEVERITIES,
    Account,
    Agent,
    CompanyMatch,
    CompanySource,
    IncidentReport,
    Kind,
    Organization,
    Remediation,
    TicketRef,
)
from bridge.text import clean, one_line, shorten

NOT_GIVEN = "not given"
PLATFORMS = {
    "windows": "Windows",
    "darwin": "macOS",
    "linux": "Linux",
    "microsoft_365": "Microsoft 365",
    "google": "Google Workspace",
    "email_security": "e-mail security",
}
_Model = TypeVar("_Model", IncidentReport, Organization, Agent, Account, Remediation, TicketRef)
_SUBDOMAIN = re.compile("[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class Absent:
    """Stands for an organization, agent, account, company or ticket that is not known: false, every field of it empty.

    A field that the model does not have is still undefined, so a typing error in a template is found.
    """

    def __init__(self, model: type) -> None:
        for each in fields(model):
            empty = each.default if each.default is not MISSING else None if each.name == "id" else ""
            setattr(self, each.name, empty)

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class CompanyView:
    """The company in the ticket system, why it was chosen, and whether it is the catch-all."""

    id: str
    name: str = ""
    identifier: str = ""
    reason: str = ""
    catch_all: bool = False


@dataclass(frozen=True, slots=True)
class TicketView:
    """Everything a ticket may say. The attributes are the variables of the templates; None becomes `Absent` there."""

    report: IncidentReport
    #: Its own severity as routed: `critical`, `high` or `low`; `report.severity` keeps the source's word.
    severity: str
    reference: str
    organization: Organization | None
    #: Everybody whom an escalation or platform action names; the organization of an incident report.
    organizations: tuple[str, ...]
    agent: Agent | None
    account: Account | None
    company: CompanyView | None
    #: Does a platform action say that Huntress cannot send tickets by itself?
    broken_integration: bool
    #: Link to the report; empty when the pattern asks for something that is not known.
    portal_url: str
    #: `report.subject`, or what stands in for it.
    subject: str
    #: What the title says after the subject, such as a severity that nobody knows.
    marks: tuple[str, ...]
    #: Names with counts, such as `footholds (2)`.
    indicators: tuple[str, ...]
    #: `report.platform` as people write it.
    platform: str
    #: The ticket that this one follows upon.
    former: TicketRef | None = None

    def variables(self) -> dict[str, Any]:
        """By name, as templates see them."""
        absent = {
            "organization": Organization,
            "agent": Agent,
            "account": Account,
            "company": CompanyView,
            "former": TicketRef,
        }
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: Absent(absent[name]) if value is None else value for name, value in values.items()}


def make_view(
    *,
    report: IncidentReport,
    reference: str,
    organization: Organization | None,
    agent: Agent | None,
    account: Account | None,
    company: CompanyMatch | None,
    portal_pattern: str,
    former: TicketRef | None = None,
) -> TicketView:
    """The view of a report. An organization or agent of which only the id is known is one with that id alone."""
    report = tame(report, keep_lines=frozenset({"summary", "body"}))
    if organization is None and report.organization_id is not None:
        organization = Organization(report.organization_id)
    if agent is None and report.agent_id is not None:
        agent = Agent(report.agent_id)
    organization = tame(organization) if organization else None
    known = report.severity in SEVERITIES
    severity = report.severity if known else "high"
    return TicketView(
        report=report,
        severity=severity,
        reference=reference,
        organization=organization,
        organizations=tuple(map(named, report.organizations or filter(None, (organization,)))),
        agent=tame(agent) if agent else None,
        account=tame(account) if account else None,
        company=_company(company),
        broken_integration=is_broken_integration(report.kind, report.subject, report.type, report.subtype),
        # The pattern is that of incident reports.
        portal_url=portal_link(portal_pattern, report, account) if report.kind is Kind.INCIDENT_REPORT else "",
        subject=report.subject or _stand_in(report, severity, organization),
        marks=() if known else (f"severity {shorten(report.severity, 20) or NOT_GIVEN}",),
        indicators=_indicators(report),
        platform=PLATFORMS.get(report.platform, report.platform.replace("_", " ")),
        former=tame(former) if former else None,
    )


def tame(model: _Model, keep_lines: frozenset[str] = frozenset()) -> _Model:
    """A copy of a frozen dataclass whose texts are clean, and one line each unless named in `keep_lines`."""
    values = ((each.name, getattr(model, each.name)) for each in fields(model))
    changed = {name: _tame(value, clean if name in keep_lines else one_line) for name, value in values}
    return replace(model, **changed)


def portal_link(pattern: str, report: IncidentReport, account: Account | None) -> str:
    """The pattern with its placeholders filled; empty when one is not known, as no link is better than a broken one."""
    account_id = report.account_id or (account.id if account else None)
    subdomain = account.subdomain if account and _SUBDOMAIN.fullmatch(account.subdomain) else ""
    values: Mapping[str, object] = {
        "report_id": report.id,
        "organization_id": report.organization_id or "",
        "account_id": account_id or "",
        "subdomain": subdomain,
    }
    names = set(re.findall(r"{([^{}]*)}", pattern))
    if not pattern.startswith(("https://", "http://")) or not all(values.get(name) for name in names):
        return ""
    return re.sub(r"{([^{}]*)}", lambda found: quote(str(values[found[1]]), safe=""), pattern)


def local(moment: datetime | None, zone: ZoneInfo) -> str:
    """`moment` to the minute in `zone`, with its name."""
    if moment is None:
        return NOT_GIVEN
    there = moment.astimezone(zone)
    short = there.tzname() or ""
    if short == zone.key:
        return f"{there:%Y-%m-%d %H:%M} {short}"
    offset = there.strftime("%z")
    offset = f"UTC{offset[:3]}:{offset[3:5]}"
    name = short if short.isalpha() else offset
    return f"{there:%Y-%m-%d %H:%M} {name} ({zone.key})"


def named(organization: Organization) -> str:
    """An organization as people read it."""
    return f"{organization.name or NOT_GIVEN} (id {organization.id})"


def _tame(value: Any, how: Any) -> Any:
    if isinstance(value, Kind):
        return value
    if isinstance(value, str):
        return how(value)
    if isinstance(value, tuple):
        return tuple(_tame(each, how) for each in value)
    if isinstance(value, Organization):
        return tame(value)
    return tame(value) if isinstance(value, Remediation) else value


def _company(match: CompanyMatch | None) -> CompanyView | None:
    if match is None:
        return None
    company = match.company
    name = one_line(company.name or company.identifier or company.id)
    is_catch_all = match.source is CompanySource.CATCH_ALL
    return CompanyView(company.id, name, one_line(company.identifier), one_line(match.reason), is_catch_all)


def _stand_in(report: IncidentReport, severity: str, organization: Organization | None) -> str:
    kind = report.kind.replace("_", " ").capitalize()
    subject = f"{severity.upper()} - {kind} {report.id}"
    if organization is None:
        return subject
    return f"{subject} ({organization.name or f'organization {organization.id}'})"


def _indicators(report: IncidentReport) -> tuple[str, ...]:
    counts = dict(report.indicator_counts)
    names = dict.fromkeys([*report.indicator_types, *(name for name, count in report.indicator_counts if count)])
    return tuple(name.replace("_", " ") + (f" ({counts[name]})" if counts.get(name) else "") for name in names)
