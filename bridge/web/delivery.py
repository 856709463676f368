"""One delivery: what it is, what happens next, what happened so far, and the report itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, render_template

from bridge.models import Delivery, ReportKey, report_key
from bridge.plain import plain_text
from bridge.runtime import Runtime
from bridge.text import one_line
from bridge.ticket_view import make_view
from bridge.web.delivery_outlook import HANDLEABLE, RETRIABLE, Moment, Outlook, outlook, timeline
from bridge.web.delivery_rows import Names, Row, rows
from bridge.web.site import Site


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that the page of one delivery says."""

    row: Row
    outlook: Outlook
    timeline: list[Moment]
    #: When the report was notified, and when its ticket was known, in seconds since the epoch.
    sent_at: float | None
    ticket_at: float | None
    #: The report as plain text; empty: the store has none that this version can read.
    report: str
    others: list[Row]
    remark: str
    other_ticket: str
    may_retry: bool
    may_handle: bool


def story(runtime: Runtime, report_id: ReportKey, connector: str, names: Mapping[int, str]) -> Story | None:
    """What there is to say of one delivery; None: there is none. Raises `redis.RedisError`."""
    store = runtime.store
    connectors = sorted({connector, *runtime.services, *store.connectors()})
    found = {each.connector: each for each in store.read_deliveries([(report_id, name) for name in connectors])}
    its = found.pop(connector, None)
    if its is None:
        return None
    row, *others = rows(runtime, [its, *found.values()], names)
    return Story(
        row=row,
        outlook=outlook(
            its, configured=connector in runtime.services, paused=runtime.store.paused(connector) is not None
        ),
        timeline=timeline(store.history(report_id, connector)),
        sent_at=datetime.fromisoformat(its.sent_at).timestamp() if its.sent_at else None,
        ticket_at=its.recorded_at,
        report=report_text(runtime, its),
        others=others,
        remark=its.remark,
        other_ticket=its.other_ticket,
        may_retry=row.state in RETRIABLE,
        may_handle=row.state in HANDLEABLE,
    )


def report_text(runtime: Runtime, delivery: Delivery) -> str:
    """The report as the plain rendering tells it, without asking anybody; empty when the store has none."""
    report = runtime.store.report(delivery.report_id)
    if report is None:
        return ""
    books, known = runtime.books, report.organization_id
    view = make_view(
        report=report,
        reference=delivery.reference,
        organization=books.organization(known) if known is not None else None,
        agent=books.agent(report.agent_id) if report.agent_id is not None else None,
        account=runtime.account(),
        company=None,
        portal_pattern=runtime.settings.huntress.portal_url,
    )
    return plain_text(view, runtime.settings.zone)


def add_to(pages: Blueprint, site: Site, names: Names) -> Callable[[ReportKey, str, str], str]:
    """The address of one delivery, among the deliveries' pages.

    Returns what shows one again, with the reason that a person typed; it raises `LookupError` when there is none.
    """

    def show(report_id: ReportKey, connector: str, reason: str = "") -> str:
        found = story(site.runtime, report_id, connector, names.all())
        if found is None:
            raise LookupError
        return render_template("delivery.html", story=found, reason=reason, now=site.runtime.store.now())

    @pages.get("/deliveries/<report>/<connector>")
    def one(report: str, connector: str) -> str | tuple[str, int]:
        try:
            key = report_key(report)
        except ValueError:
            key = 0  # no report has it
        try:
            return show(key, connector)
        except LookupError:
            named, where = one_line(report)[:40], one_line(connector)[:40]
            text = f"There is no delivery of a report {named} to {where}, or not any more."
            return render_template("problem.html", title="No such delivery", text=text), 404

    return show
