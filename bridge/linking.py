"""`link`: an existing ticket becomes a report's."""

from __future__ import annotations

from bridge.idempotency import Claim
from bridge.models import DeliveryState, IncidentReport, ReportKey, TicketRef, nothing_but
from bridge.runtime import Runtime
from connectors.base import Rejected


def link_ticket(runtime: Runtime, report_id: ReportKey, connector: str, ticket: str) -> TicketRef:
    """Writes the report's reference into `ticket` and records it as delivered. Raises `Outcome`."""
    known = runtime.store.delivery(report_id, connector)
    if known is not None and known.ticket is not None:
        raise Rejected(f"report {report_id} already is ticket {known.ticket.number or known.ticket.id} in {connector}")
    report = runtime.store.report(report_id) or nothing_but(report_id)
    account = runtime.account()
    if known is not None:
        reference = known.reference
    elif account is None:
        raise Rejected("the Huntress account is not known yet; let `run` or `poller` complete one poll first")
    else:
        reference = runtime.routes().reference(_of_account(report, account.id), connector)
    service = runtime.services[connector]
    ref = service.connector.link(ticket, reference)
    claim = Claim(
        report_id=report_id,
        connector=connector,
        token="",
        state=DeliveryState.PENDING,
        reference=reference,
        organization_id=report.organization_id,
        severity=report.severity,
        order="0",
        attempts=0,
        failures=0,
        lapsed=0,
        reason="",
        remark="",
        doubt_at=None,
        looked=0,
        recorded_at=None,
        ticket=None,
        other_ticket="",
        todo=frozenset(),
        told=0,
        considered=0,
        version=0,
        report=None,
        progress={},
    )
    runtime.store.record(claim, ref, remark="linked by hand", found=True)
    if known is not None and known.state is DeliveryState.HANDLED:
        runtime.store.retry(report_id, connector)  # with its ticket it is followed again
    return ref


def _of_account(report: IncidentReport, account_id: int) -> IncidentReport:
    from dataclasses import replace

    return replace(report, account_id=report.account_id or account_id)
