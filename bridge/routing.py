"""Which connectors take a report, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from bridge.idempotency import IdempotencyStore
from bridge.models import SEVERITIES, IncidentReport
from connectors.base import ConnectorSettings

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
        refusal = self._organization_refusal(report.organization_id)
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
        only = settings.only
        severity = routed_severity(report)
        if only.severities and severity not in only.severities and report.severity not in only.severities:
            return Decision(name, False, f"severity {report.severity or 'not given'} is not in only.severities")
        if only.organizations and report.organization_id not in only.organizations:
            return Decision(name, False, f"organization {report.organization_id} is not in only.organizations")
        if only.platforms and report.platform not in only.platforms:
            return Decision(name, False, f"platform {report.platform or 'not given'} is not in only.platforms")
        return Decision(name, True, "takes it")

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
            store.remember(field, kept)
            log.info("not_before is pinned", setting=name, moment=kept)
    return datetime.fromisoformat(kept)
