"""Renders a report as a connector's ticket without sending anything: `render`, `explain` and the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bridge.companies import Companies
from bridge.demo import scenario
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
)
from bridge.news import NoteKind
from bridge.note_view import SAMPLE_COMMENT, SAMPLE_FATE, SAMPLE_NEWS, SAMPLE_OTHER
from bridge.parsing import ParseError, parse_agent, parse_escalation, parse_organization, parse_report
from bridge.rendering import Rendered, Renderer, RenderInput
from bridge.routing import Routes
from bridge.runtime import OFFLINE, make_companies, make_connectors, make_renderer
from bridge.settings import Settings
from bridge.template_files import TemplateFile
from connectors import lenient_json

#: Stands in for the account while nobody asked the source.
SAMPLE_ACCOUNT = Account(id=5, name="Sample account", subdomain="sample")


def sample_report() -> IncidentReport:
    """The built-in sample."""
    return parse_report(scenario.SAMPLES["full"])


def read_report(file: Path, kind: Kind | None = None) -> IncidentReport:
    """A report from a file, as `report_from` reads it. Raises `OSError` and `ValueError`."""
    return report_from(file.read_bytes(), kind)


def report_from(data: bytes, kind: Kind | None = None) -> IncidentReport:
    """A report from the JSON of one, as the source gives it, wrapped or not. Raises `ValueError`.

    Without `kind` its envelope or its keys say what it is; a platform action without envelope looks like an escalation.
    """
    try:
        raw = lenient_json.parse(data)
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


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside a report when its ticket is written; None stands for what is not."""

    organization: Organization | None
    agent: Agent | None
    account: Account

    @classmethod
    def sample(cls, report: IncidentReport) -> Known:
        """Stands in for what nobody asked the source."""
        return cls(sample_organization(report), sample_agent(report), SAMPLE_ACCOUNT)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a report would be in one connector, and the template files that had a say in it."""

    rendered: Rendered
    files: tuple[TemplateFile, ...]
    #: Of the kind asked for, instead of the ticket; `rendered.problems` are the note's then.
    note: Note | None = None


def preview(settings: Settings, name: str, report: IncidentReport) -> Rendered:
    """The ticket that `report` would make in connector `name`."""
    with _renderer(settings, name) as (renderer, companies):
        return renderer.render(_given(settings, name, report, Known.sample(report), companies))


def rehearse(
    settings: Settings, name: str, report: IncidentReport, *, known: Known, note: NoteKind | None = None
) -> Rehearsal:
    """As `preview`, with the files used; `note`: what a note of this kind would say, with sample news in it.

    The files are read anew, also where the running processes still use what was in them before. Outcomes pass through:
    too many slow renderings may be under way.
    """
    with _renderer(settings, name) as (renderer, companies):
        given = _given(settings, name, report, known, companies)
        files = renderer.files()
        if note is None:
            parts = frozenset(each.part for each in files) - {f"{kind} note" for kind in NoteKind}
            return Rehearsal(renderer.render(given), tuple(file for file in files if file.part in parts))
        written, problems = renderer.note(
            note,
            given,
            key=f"{note}-1",
            news=SAMPLE_NEWS,
            fate=SAMPLE_FATE,
            other=SAMPLE_OTHER,
            comment=SAMPLE_COMMENT,
        )
        plain = Rendered(renderer.render(given, plain=True).ticket, problems)
        return Rehearsal(plain, tuple(file for file in files if file.part == f"{note} note"), written)


@contextmanager
def _renderer(settings: Settings, name: str) -> Iterator[tuple[Renderer, Companies]]:
    companies = make_companies(settings)
    connectors = make_connectors(settings, lambda name: OFFLINE)
    try:
        yield make_renderer(connectors[name], settings), companies
    finally:
        for each in connectors.values():
            each.close()


def _given(settings: Settings, name: str, report: IncidentReport, known: Known, companies: Companies) -> RenderInput:
    report = replace(report, account_id=report.account_id or known.account.id)
    return RenderInput(
        report=report,
        reference=Routes(settings.connectors, frozenset(), frozenset(), {}).reference(report, name),
        organization=known.organization,
        agent=known.agent,
        account=known.account,
        company=sample_company(companies, name, report),
        recipients=companies.recipients(name, report.organization_id),
    )
