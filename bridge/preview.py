"""Renders a report as a connector's ticket without sending anything: `render` and `explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bridge.companies import Companies
from bridge.demo import scenario
from bridge.models import Account, Agent, Company, CompanyMatch, CompanySource, IncidentReport, Kind, Organization
from bridge.parsing import ParseError, parse_agent, parse_escalation, parse_organization, parse_report
from bridge.rendering import Rendered, RenderInput
from bridge.routing import Routes
from bridge.runtime import OFFLINE, make_companies, make_connectors, make_renderer
from bridge.settings import Settings
from connectors import lenient_json

#: Stands in for the account while nobody asked the source.
SAMPLE_ACCOUNT = Account(id=5, name="Sample account", subdomain="sample")


def sample_report() -> IncidentReport:
    """The built-in sample."""
    return parse_report(scenario.SAMPLES["full"])


def read_report(file: Path, kind: Kind | None = None) -> IncidentReport:
    """A report from a file: the JSON of one, as the source gives it, wrapped or not. Raises `ValueError`.

    Without `kind` its envelope or its keys say what it is; a platform action without envelope looks like an escalation.
    """
    try:
        raw = lenient_json.parse(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    for wrapped in Kind:
        if isinstance(raw, dict) and isinstance(raw.get(wrapped.value), dict):
            raw, kind = raw[wrapped.value], kind or wrapped
            break
    kind = kind or _kind(raw)
    try:
        return parse_report(raw) if kind is Kind.INCIDENT_REPORT else parse_escalation(raw, kind)
    except ParseError as error:
        article = "a" if kind is Kind.PLATFORM_ACTION else "an"
        raise ValueError(f"not {article} {kind.replace('_', ' ')}: {error}") from None


def _kind(raw: object) -> Kind:
    """What JSON without an envelope is, by keys that incident reports do not have."""
    keys = {"organizations", "resolved_at", "subtype", "entities"}
    return Kind.ESCALATION if isinstance(raw, dict) and keys & raw.keys() else Kind.INCIDENT_REPORT


def sample_organization(report: IncidentReport) -> Organization | None:
    """Stands in for the report's organization while nobody asked the source."""
    return None if report.organization_id is None else parse_organization(scenario.organization(report.organization_id))


def sample_agent(report: IncidentReport) -> Agent | None:
    """Stands in for the report's agent."""
    return (
        None if report.agent_id is None else parse_agent(scenario.agent(report.agent_id, report.organization_id or 0))
    )


def sample_company(companies: Companies, connector: str, report: IncidentReport) -> CompanyMatch | None:
    """The company as far as it is known without asking the ticket system: the organizations file's."""
    row = companies.row(connector, report.organization_id)
    if row is None or not row.company:
        return None
    return CompanyMatch(Company(row.company, row.company), CompanySource.FILE)


def preview(settings: Settings, name: str, report: IncidentReport) -> Rendered:
    """The ticket that `report` would make in connector `name`."""
    report = replace(report, account_id=report.account_id or SAMPLE_ACCOUNT.id)
    companies = make_companies(settings)
    connectors = make_connectors(settings, lambda name: OFFLINE)
    try:
        connector = connectors[name]
        reference = Routes(settings.connectors, frozenset(), frozenset(), {}).reference(report, name)
        return make_renderer(connector, settings).render(
            RenderInput(
                report=report,
                reference=reference,
                organization=sample_organization(report),
                agent=sample_agent(report),
                account=SAMPLE_ACCOUNT,
                company=sample_company(companies, name, report),
                recipients=companies.recipients(name, report.organization_id),
            )
        )
    finally:
        for each in connectors.values():
            each.close()
