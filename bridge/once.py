"""`run --once`: one poll, then work until all is delivered; and its rehearsal, which writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from bridge.huntress import SourceError
from bridge.idempotency import Deposed
from bridge.models import SETTLED, Delivery, DeliveryState, IncidentReport, ReportKey
from bridge.printing import explained, explained_deliveries
from bridge.processes import Process
from bridge.reconcile import LATER
from bridge.rendering import RenderInput
from bridge.report_list import ReportSource
from bridge.runtime import Runtime, make_routes
from connectors.base import Outcome

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OnceResult:
    """How one run ended. `refused`: the source did not take the credentials."""

    delivered: int
    waiting: tuple[Delivery, ...]
    quarantined: int
    problem: str
    refused: bool = False

    @property
    def exit_code(self) -> int:
        if self.refused:
            return 2
        return 1 if self.waiting or self.quarantined or self.problem else 0


def run_once(runtime: Runtime, wait: float) -> OnceResult:
    """Polls once and works until everything is delivered, refused, or `wait` seconds are over."""
    until = time.monotonic() + wait
    process = Process(runtime, ())
    process.start_worker()
    process.start_dispatcher()
    try:
        problem, refused = _poll(process, runtime, until)
        while not refused and time.monotonic() < until and not runtime.stopping.is_set():
            process.beat()
            if not _moving(runtime):
                break
            runtime.stopping.wait(0.1)
    finally:
        process.stop()
    unsettled = [state for state in DeliveryState if state not in SETTLED]
    waiting = [
        delivery for delivery in explained_deliveries(runtime, unsettled) if delivery.connector in runtime.services
    ] + _untold(runtime)
    delivered = sum(runtime.store.count(state) for state in SETTLED)
    return OnceResult(delivered, tuple(waiting), len(runtime.books.quarantined()), problem, refused)


def _poll(process: Process, runtime: Runtime, until: float) -> tuple[str, bool]:
    """One complete poll, by this process or by the one that leads. Returns (problem, were the credentials refused?)."""
    started = runtime.store.now()
    poller = process.make_poller()
    while time.monotonic() < until and not runtime.stopping.is_set():
        if poller.leadership.number:
            with suppress(Deposed):  # the store came back empty, or another process took over: once more
                cycle = poller.cycle(runtime.stopping)
                return cycle.problem, cycle.refused
        if (runtime.books.poll().last_complete_at or 0.0) > started:
            return "", False
        runtime.stopping.wait(0.1)
    return "could not poll in time: another process polls this source and did not complete a cycle", False


def _moving(runtime: Runtime) -> bool:
    """Is there anything that this run can still deliver or finish?"""
    if not any(runtime.store.scheduled(name) for name in runtime.services):
        return False
    if any(runtime.store.under_way(service.name, service.group) for service in runtime.services.values()):
        return True
    return any(True for name in runtime.services for _ in runtime.store.awaited(name, LATER))


def _untold(runtime: Runtime) -> list[Delivery]:
    """Tickets that still wait to hear what became of their reports."""
    return [
        explained(delivery, {name: runtime.why_waiting(name)})
        for name in runtime.services
        for report_id in dict.fromkeys(runtime.store.awaited(name, LATER))
        if (delivery := runtime.store.delivery(report_id, name)) and delivery.state in SETTLED
        if not set(delivery.todo) - LATER
    ]


@dataclass(frozen=True)
class Rehearsed:
    """What one report would become in one connector."""

    report_id: ReportKey
    organization: str
    connector: str
    severity: str
    #: `create`, `exists`, `left alone` or `fails`.
    verdict: str
    company: str = ""
    title: str = ""
    detail: str = ""


def rehearse(runtime: Runtime) -> Iterator[Rehearsed]:
    """What `run --once` would do, asked of the source and the ticket systems; makes and writes nothing.

    Raises `SourceError`.
    """
    source = runtime.assembly.source
    account = source.account()
    organizations = {organization.id: organization for organization in source.organizations()}
    routes = make_routes(runtime.settings, runtime.store, pin=False)
    for report in _open_reports(runtime, list(organizations)):
        report = replace(report, account_id=report.account_id or account.id)
        organization = organizations.get(report.organization_id or 0)
        agent = None
        if report.agent_id is not None:
            with suppress(SourceError):
                agent = source.agent(report.agent_id)
        for decision in routes.decide(report):
            found = Rehearsed(
                report_id=report.key,
                organization=organization.name if organization else str(report.organization_id or "not given"),
                connector=decision.connector,
                severity=report.severity,
                verdict="left alone",
                detail=decision.why,
            )
            if not decision.takes:
                yield found
                continue
            service = runtime.services[decision.connector]
            reference = routes.reference(report, decision.connector)
            try:
                known = runtime.store.delivery(report.key, decision.connector)
                tickets = [known.ticket] if known and known.ticket else []
                if not tickets and service.connector.can_find:
                    tickets = list(service.connector.find(reference))
                if tickets:
                    yield replace(found, verdict="exists", detail=f"ticket {tickets[0].number or tickets[0].id}")
                    continue
                company = runtime.assembly.companies.match(
                    service.connector, service.settings, report.organization_id, organization
                )
                recipients = runtime.assembly.companies.recipients(decision.connector, report.organization_id)
                rendered = service.renderer.render(
                    RenderInput(report, reference, organization, agent, account, company, recipients)
                )
                service.connector.prepare(rendered.ticket)
                yield replace(
                    found,
                    verdict="create",
                    company=company.company.name if company else "",
                    title=rendered.ticket.title,
                    detail="; ".join([*([company.reason] if company and company.reason else []), *rendered.problems]),
                )
            except Outcome as outcome:
                yield replace(found, verdict="fails", detail=str(outcome))


def _open_reports(runtime: Runtime, organization_ids: list[int]) -> Iterator[IncidentReport]:
    source = ReportSource.chosen(runtime.assembly.source, runtime.settings, runtime.store)
    for scope in source.scopes(None, organization_ids):
        yield from source.client.open_reports(source.dialect, scope).reports
