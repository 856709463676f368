"""Which connectors, company, priority and templates apply to a report, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import redis

from bridge.companies import Companies
from bridge.embedded import EmbeddedRedisError
from bridge.models import IncidentReport, Kind, Organization
from bridge.preview import SAMPLE_ACCOUNT
from bridge.quiet import held_until
from bridge.routing import Decision, Routes, routed_severity
from bridge.runtime import Runtime, make_companies, make_connectors, make_renderer, make_routes
from bridge.settings import Settings
from bridge.ticket_view import named
from connectors.base import Connector, ConnectorSettings, Outcome, PsaSettings
from connectors.email_settings import EmailSettings


def explanation(settings: Settings, report: IncidentReport, now: datetime) -> Iterator[str]:
    """Lines for people. Ticket systems are asked for companies; one that cannot be reached is said to be so.

    `now` is the moment for which quiet hours are looked at.
    """
    organization, account_id, routes = _known(settings, report)
    report = replace(report, account_id=report.account_id or account_id)
    yield f"{_what(report)}: {_severity(report)}, {_where(report, organization)}"
    companies = make_companies(settings)
    connectors = make_connectors(settings)
    for decision in routes.decide(report):
        yield from _connector(
            settings, connectors[decision.connector], decision, report, routes, organization, companies, now
        )
    for connector in connectors.values():
        connector.close()


def _known(settings: Settings, report: IncidentReport) -> tuple[Organization | None, int, Routes]:
    """What the store and the source know; the organization is None where neither could say."""
    try:
        with Runtime(settings, keep_out=True) as runtime:
            organization, _, _ = runtime.details.of(replace(report, agent_id=None))
            account = runtime.account() or SAMPLE_ACCOUNT
            return organization, account.id, make_routes(settings, runtime.store, pin=False)
    except (redis.RedisError, EmbeddedRedisError):
        organizations = settings.organizations
        routes = Routes(settings.connectors, frozenset(organizations.only), frozenset(organizations.disabled), {})
        return None, SAMPLE_ACCOUNT.id, routes


def _connector(
    settings: Settings,
    connector: Connector,
    decision: Decision,
    report: IncidentReport,
    routes: Routes,
    organization: Organization | None,
    companies: Companies,
    now: datetime,
) -> Iterator[str]:
    table = settings.connectors[connector.name]
    yield f"{connector.name} ({connector.type}): {'yes' if decision.takes else 'no'}: {decision.why}"
    if not decision.takes:
        return
    yield f"  reference: {routes.reference(report, connector.name)}"
    try:
        match = companies.match(connector, table, report.organization_id, organization)
    except Outcome as outcome:
        yield f"  company: {outcome}"
    else:
        if match is not None:
            why = f"by {match.source}{'; ' if match.reason else ''}{match.reason}"
            yield f"  company: {match.company.name or match.company.id} ({why})"
    if isinstance(table, PsaSettings):
        priority = table.priority_for(report.severity)
        yield f"  priority: {'the ticket system decides' if priority is None else priority}"
        yield f"  visibility: {table.visibility}"
    yield from _recipients(companies.recipients(connector.name, report.organization_id), table)
    held = held_until(table, settings.zone, report, now)
    yield f"  held back: {'no' if held is None else held[1]}"
    yield f"  when it is over: {_OVER[table.on_close]}"
    yield f"  when it is open again: {_reopened(table)}"
    try:
        for file in make_renderer(connector, settings).files():
            yield f"  {file.part}: {file.path}{' (overridden)' if file.overridden else ''}"
    except Outcome as outcome:
        yield f"  templates: {outcome}"


def _what(report: IncidentReport) -> str:
    kind = "report" if report.kind is Kind.INCIDENT_REPORT else report.kind.replace("_", " ")
    return f"{kind} {report.id}"


def _severity(report: IncidentReport) -> str:
    """The severity it routes as, and why that is another than the source's."""
    severity = routed_severity(report)
    if report.given_severity:
        why = "raised, because Huntress says that it cannot send incident reports"
        return f"severity {severity} (the source says {report.given_severity}; {why})"
    return f"severity {severity}" + (
        "" if severity == report.severity else f" (the source says {report.severity or 'nothing'})"
    )


def _where(report: IncidentReport, organization: Organization | None) -> str:
    if len(report.organizations) > 1:
        return f"organizations {', '.join(map(named, report.organizations))}"
    if report.kind is not Kind.INCIDENT_REPORT and report.organization_id is None:
        return "the account, no organization in particular"
    name = organization.name if organization else "its name is not known here, so a match by name was not tried"
    return f"organization {report.organization_id} ({name})"


_OVER = {
    "close": "its ticket gets a note and the closed status, unless people work on it (on_close = close)",
    "note": "its ticket gets a note (on_close = note)",
    "nothing": "nothing is done to its ticket (on_close = nothing)",
}


def _reopened(table: ConnectorSettings) -> str:
    within = table.model_dump(mode="json", include={"reopen_within"})["reopen_within"]
    return {
        "never": "a new ticket is made (reopen = never)",
        "within": f"its ticket is reopened within {within} after the end, then a new one is made (reopen = within)",
        "always": "its ticket is reopened (reopen = always)",
    }[table.reopen]


def _recipients(own: tuple[str, ...], table: ConnectorSettings) -> Iterator[str]:
    if own:
        yield f"  recipients: {', '.join(own)} (organizations file)"
    elif isinstance(table, EmailSettings):
        yield f"  recipients: {', '.join(table.recipients)}"
