"""Which connectors, company, priority and templates apply to a report, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import redis

from bridge.companies import Companies
from bridge.embedded import EmbeddedRedisError
from bridge.models import IncidentReport, Organization
from bridge.preview import SAMPLE_ACCOUNT
from bridge.routing import Decision, Routes, routed_severity
from bridge.runtime import Runtime, make_companies, make_connectors, make_renderer, make_routes
from bridge.settings import Settings
from connectors.base import Connector, Outcome, PsaSettings


def explanation(settings: Settings, report: IncidentReport) -> Iterator[str]:
    """Lines for people. Ticket systems are asked for companies; one that cannot be reached is said to be so."""
    organization, account_id, routes = _known(settings, report)
    report = replace(report, account_id=report.account_id or account_id)
    name = organization.name if organization else "its name is not known here, so a match by name was not tried"
    severity = routed_severity(report)
    unknown = "" if severity == report.severity else f" (the source says {report.severity or 'nothing'})"
    yield f"report {report.id}: severity {severity}{unknown}, organization {report.organization_id} ({name})"
    companies = make_companies(settings)
    connectors = make_connectors(settings)
    for decision in routes.decide(report):
        yield from _connector(
            settings, connectors[decision.connector], decision, report, routes, organization, companies
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
    recipients = companies.recipients(connector.name, report.organization_id)
    if recipients:
        yield f"  recipients: {', '.join(recipients)} (organizations file)"
    try:
        for file in make_renderer(connector, settings).files():
            yield f"  {file.part}: {file.path}{' (overridden)' if file.overridden else ''}"
    except Outcome as outcome:
        yield f"  templates: {outcome}"
