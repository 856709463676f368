"""What the commands that list what the source has print. Names come from outside, so every cell is cleaned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from bridge.csv_output import csv_row
from bridge.models import Agent, IncidentReport, Membership, Organization
from bridge.organization_list import Place
from bridge.organization_sync import Changes
from bridge.printing import one_line, print_table
from bridge.text import one_line as clean_line
from bridge.text import shorten

#: Columns of agents as JSON and CSV.
AGENT_COLUMNS = tuple(Agent.__dataclass_fields__)
#: Columns of agents for people, with their widths.
_AGENT_SHOWN = {"id": 10, "organization_id": 12, "hostname": 32, "platform": 8, "os": 28, "ipv4_address": 15}


def json_array(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The pieces of a JSON array, each as soon as its row is there. One that breaks off is not closed."""
    start = "[\n"
    for row in rows:
        yield start + json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False)
        start = ",\n"
    yield "[]\n" if start == "[\n" else "\n]\n"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return clean_line(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


# -- organizations -----------------------------------------------------------------------------------------------------


def organization_rows(
    organizations: Iterable[Organization],
    connectors: Mapping[str, Mapping[int, Place]],
    served: Callable[[int], bool],
) -> Iterator[dict[str, Any]]:
    """One object for each organization, with its place in every connector that could be asked."""
    for organization in organizations:
        found = {name: places[organization.id] for name, places in connectors.items()}
        yield {
            "organization_id": organization.id,
            "organization_name": organization.name,
            "served": served(organization.id),
            "companies": [
                {
                    "connector": name,
                    "company_id": place.company.id if place.company else None,
                    "company_name": place.company.name if place.company else None,
                    "matched_by": str(place.source) if place.source else None,
                    "reason": place.reason or None,
                }
                for name, place in found.items()
            ],
        }


def print_organizations(
    organizations: Iterable[Organization],
    connectors: Mapping[str, Mapping[int, Place]],
    served: Callable[[int], bool],
    clean: Callable[[str], str],
) -> None:
    """A table for people, and how many were matched in which way."""
    rows = (
        (
            str(organization.id),
            organization.name if served(organization.id) else f"{organization.name} (not served)",
            *(_shown(places[organization.id]) for places in connectors.values()),
        )
        for organization in organizations
    )
    print_table(("id", "organization", *connectors), rows, clean)


def matched(places: Mapping[int, Place]) -> str:
    """How many organizations found their company in which way."""
    counts = Counter(str(place.source or "without a company") for place in places.values())
    return ", ".join(f"{count} {way}" for way, count in sorted(counts.items())) or "no organizations"


def _shown(place: Place) -> str:
    if place.company is None:
        return "no company" if place.reason else "-"
    return f"{place.company.name} (id {place.company.id}), {place.source}"


def changes(found: Changes) -> Iterator[str]:
    """One line for each change: + added, ~ renamed, - removed."""
    for organization in found.added:
        yield f"+ {organization.id} {one_line(organization.name)}"
    for before, now in found.renamed:
        yield f"~ {now.id} {one_line(before.name)} -> {one_line(now.name)}"
    for organization in found.removed:
        yield f"- {organization.id} {one_line(organization.name)}"


# -- agents ------------------------------------------------------------------------------------------------------------


def agent_row(agent: Agent) -> dict[str, Any]:
    return {name: getattr(agent, name) for name in AGENT_COLUMNS}


def agents_csv(agents: Iterable[Agent]) -> Iterator[str]:
    """Lines of CSV, each as soon as its agent is there."""
    yield csv_row(AGENT_COLUMNS)
    for agent in agents:
        yield csv_row(_cell(getattr(agent, name)) for name in AGENT_COLUMNS)


def agents_text(agents: Iterable[Agent]) -> Iterator[str]:
    """Lines for people, each as soon as its agent is there."""
    names = (*_AGENT_SHOWN, "last_callback_at")
    yield _aligned(names)
    for agent in agents:
        yield _aligned([_cell(getattr(agent, name)) for name in names])


def _aligned(cells: Sequence[str]) -> str:
    widths = _AGENT_SHOWN.values()
    parts = [f"{shorten(one_line(cell), width):{width}}" for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*parts, cells[-1]]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "; ".join(value)
    return value.isoformat() if isinstance(value, datetime) else "" if value is None else str(value)


# -- memberships and reports -------------------------------------------------------------------------------------------


def membership_row(membership: Membership) -> dict[str, Any]:
    place = membership.organization
    return {
        "membership_id": membership.id,
        "name": membership.name,
        "email": membership.email,
        "permissions": membership.permissions,
        "organization_id": place.id if place else None,
        "organization_name": place.name if place else None,
    }


def print_memberships(memberships: Iterable[Membership], clean: Callable[[str], str]) -> None:
    """A table for people."""
    rows = [
        (
            str(membership.id),
            membership.name,
            membership.email,
            membership.permissions,
            f"{membership.organization.name} (id {membership.organization.id})"
            if membership.organization
            else "whole account",
        )
        for membership in memberships
    ]
    print_table(("id", "name", "email", "permissions", "for"), rows, clean)


def report_row(report: IncidentReport, organization: Organization | None) -> dict[str, Any]:
    return {
        "report_id": report.key,
        "organization_id": report.organization_id,
        "organization_name": organization.name if organization else None,
        "agent_id": report.agent_id,
        "severity": report.severity or None,
        "status": report.status or None,
        "platform": report.platform or None,
        "subject": report.subject or None,
        "sent_at": report.since,
    }


def report_text(report: IncidentReport, organization: Organization | None) -> str:
    """A line for people."""
    where = organization.name if organization else ""
    since = report.since.isoformat() if report.since else "time not given"
    cells = (
        f"{report.key}",
        f"{where or 'organization'} (id {report.organization_id or 'not given'})",
        shorten(report.severity, 20) or "severity not given",
        shorten(report.status, 20) or "status not given",
        since,
        report.subject or "no subject",
    )
    return one_line("  ".join(cells))
