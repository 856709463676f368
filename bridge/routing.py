"""Which connectors take a report, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from bridge.idempotency import IdempotencyStore
from bridge.models import SEVERITIES, IncidentReport, Kind
from connectors.base import ConnectorSettings, Only

log = structlog.get_logger(__name__)

#: Longest reference that every ticket system can hold (Autotask's `externalID`).
LONGEST_REFERENCE = 50


@dataclass(frozen=True)
class Decision:
    """Does one connector take one report? `why` is a sentence for people."""

    connector: str
    takes: bool
    why: str


@dataclass(frozen=True)
class Routes:
    """The configured routing. `not_before` holds the moments that count, by connector name; '' is the one for all."""

    connectors_settings: Mapping[str, ConnectorSettings]
    only: frozenset[int]
    disabled: frozenset[int]
    not_before: Mapping[str, datetime]

    def serves(self, organization_id: int | None) -> bool:
        """Is this organization served at all? One without an id is, unless a pilot names organizations."""
        return self._organization_refusal(organization_id) == ""

    def connectors(self, report: IncidentReport) -> list[str]:
        """Names of the connectors that take the report."""
        return [decision.connector for decision in self.decide(report) if decision.takes]

    def reference(self, report: IncidentReport, connector: str) -> str:
        """What identifies the report's first ticket in the connector's system, as `reference` does."""
        return reference(report, self.connectors_settings[connector].reference_suffix)

    def decide(self, report: IncidentReport) -> list[Decision]:
        """One decision per connector, in the configuration's order."""
        refusal = self._refusal(report)
        if refusal:
            return [Decision(name, False, refusal) for name in self.connectors_settings]
        decisions = [self._decide(report, name, settings) for name, settings in self.connectors_settings.items()]
        if any(decision.takes for decision in decisions) or all(
            self._too_old(report, name) for name in self.connectors_settings
        ):
            return decisions
        return [
            decision
            if self._too_old(report, decision.connector)
            else Decision(decision.connector, True, f"no connector's `only` takes it, so all do ({decision.why})")
            for decision in decisions
        ]

    def _decide(self, report: IncidentReport, name: str, settings: ConnectorSettings) -> Decision:
        if old := self._too_old(report, name):
            return Decision(name, False, old)
        taken = []
        for entry, wanted, given, said in _only(settings.only, report):
            if not wanted & given:
                return Decision(name, False, f"{said} is not in only.{entry}")
            taken.append(f"{said} is in only.{entry}")
        return Decision(name, True, f"takes it{': ' if taken else ''}{', '.join(taken)}")

    def _refusal(self, report: IncidentReport) -> str:
        """Why no connector takes the report; '' when one may. What concerns several organizations needs one of them."""
        if report.kind is not Kind.INCIDENT_REPORT and _concerned(report) == [None]:
            return ""  # it concerns the account, so also those that are served
        refusals = [self._organization_refusal(organization) for organization in _concerned(report)]
        return "" if "" in refusals else refusals[0]

    def _organization_refusal(self, organization_id: int | None) -> str:
        if organization_id in self.disabled:
            return f"organization {organization_id} is in [organizations] disabled"
        if self.only and organization_id not in self.only:
            return f"organization {organization_id or 'not given'} is not in [organizations] only"
        return ""

    def _too_old(self, report: IncidentReport, connector: str) -> str:
        """Why the report is left alone; '' when it is not. A report without a time is never too old."""
        since = report.since
        if since is None:
            return ""
        for name, setting in (("", "[poll] not_before"), (connector, f"connectors.{connector}.not_before")):
            moment = self.not_before.get(name)
            if moment is not None and since < moment:
                return f"sent {since.isoformat()}, before {setting} ({moment.isoformat()})"
        return ""


def reference(report: IncidentReport, suffix: str, ticket: int = 1) -> str:
    """What identifies a report's ticket, or the second and so on: at most 50 characters of `[A-Za-z0-9-]`."""
    again = "" if ticket == 1 else f"-r{ticket}"
    whole = f"huntress-{report.account_id or 0}-{report.key}{again}{suffix}"
    if len(whole) <= LONGEST_REFERENCE:
        return whole
    return f"huntress-{hashlib.sha256(whole.encode()).hexdigest()[:40]}"


def _concerned(report: IncidentReport) -> list[int | None]:
    """Ids of the organizations that the report concerns."""
    return [organization.id for organization in report.organizations] or [report.organization_id]


def _only(only: Only, report: IncidentReport) -> Iterator[tuple[str, set[object], set[object], str]]:
    """The entries of `only` that ask for something: name, what is wanted, what the report has, and that in words."""
    if only.severities:
        severities: set[object] = {report.severity, routed_severity(report)}
        yield "severities", set(only.severities), severities, f"severity {report.severity or 'not given'}"
    if only.organizations:
        organizations = _concerned(report)
        word = "organizations" if len(organizations) > 1 else "organization"
        yield "organizations", set(only.organizations), set(organizations), f"{word} {_listed(organizations)}"
    if only.platforms:
        yield "platforms", set(only.platforms), {report.platform}, f"platform {report.platform or 'not given'}"
    if only.indicator_types:
        counted = [name for name, count in report.indicator_counts if count]
        types = list(dict.fromkeys(name.lower() for name in (*report.indicator_types, *counted)))
        wanted: set[object] = {name.lower() for name in only.indicator_types}
        yield "indicator_types", wanted, set(types), f"indicator type {_listed(types)}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "not given"


def routed_severity(report: IncidentReport) -> str:
    """The severity a report routes as: an unknown one as `high`."""
    return report.severity if report.severity in SEVERITIES else "high"


def not_before(store: IdempotencyStore, setting: str, name: str, *, pin: bool = True) -> datetime | None:
    """The moment that a `not_before` setting means; None: there is none.

    "now" is pinned in the store at the first start (unless `pin` is False), and outlives the store's loss while a
    process of the bridge runs.
    """
    if not setting:
        return None
    if setting != "now":
        moment = datetime.fromisoformat(setting)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    field = f"not_before:{name}"
    kept = store.recall(field)
    if not kept:
        # Whole seconds, as the source's times are: what is sent within this second must not pass for older.
        kept = datetime.fromtimestamp(int(store.now()), UTC).isoformat()
        if pin:
            store.remember({field: kept})
            log.info("not_before is pinned", setting=name, moment=kept)
    return datetime.fromisoformat(kept)
