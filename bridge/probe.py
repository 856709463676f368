"""Is a connector misconfigured? Pauses it when it is, and finds out when it works again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import redis
import structlog

from bridge.idempotency import Claim, IdempotencyStore, Pause
from bridge.models import TicketRef
from connectors.base import Connector, Misconfigured, Outcome

if TYPE_CHECKING:
    from bridge.delivery import Service

log = structlog.get_logger(__name__)

#: Seconds until a paused connector's first probe, and the longest between two.
FIRST_PROBE = 60.0
LONGEST_PROBE = 900.0
#: Seconds a pause holds without being confirmed by a failing probe: nobody probes, so traffic itself finds out.
PAUSE = 3600.0
#: Seconds within which one suspicion of a connector is enough.
SUSPECT_AGAIN = 15


class Prober:
    """Probes connectors, for any process of the bridge."""

    def __init__(self, store: IdempotencyStore, probing: Callable[[str], AbstractContextManager[None]]) -> None:
        self.store = store
        self.probing = probing

    def problem(self, connector: Connector) -> str:
        """What is wrong with the connector's settings, in a sentence; '' when nothing is. Raises `Unavailable`."""
        with self.probing(connector.name):
            try:
                findings = [finding for finding in connector.check() if finding.blocking]
            except Misconfigured as error:
                return str(error)
            except Outcome:
                raise
            except Exception as error:  # a connector may come from anywhere; one that fails must not stop the others
                log.exception("the check of a connector failed", connector=connector.name)
                return f"its check failed ({type(error).__name__}); the log has the details"
        if not findings:
            return ""
        more = f" (and {len(findings) - 1} more: see `huntress-bridge check --online`)" if len(findings) > 1 else ""
        return f"{findings[0].setting}: {findings[0].message}{more}"

    def suspect(self, service: Service, why: str) -> None:
        """A delivery met a misconfiguration: pauses the connector if a probe fails too, else that delivery waits."""
        if self.store.paused(service.name) is not None:
            return  # nothing goes out now anyway, and a system that asked to be left alone is not probed
        if not self.store.client.set(self.store.key(f"suspect:{service.name}"), "1", nx=True, ex=SUSPECT_AGAIN):
            return
        try:
            problem = self.problem(service.connector)
        except Outcome:
            return  # not reachable now: deliveries back off by themselves
        if problem and self.store.pause(service.name, "misconfigured", PAUSE, problem, probe_in=FIRST_PROBE):
            log.error("connector paused: misconfigured", connector=service.name, reason=problem, met=why)

    def unfindable(self, claim: Claim, ref: TicketRef, settle: float) -> None:
        """The first ticket since the start cannot be found again by its reference."""
        reason = (
            f"creates what it cannot find: ticket {ref.number or ref.id} was made but a search for its reference "
            f"{claim.reference} finds nothing after {settle:.0f} s. Let the API user see all boards or queues and "
            "their tickets; nothing more is created until that ticket is found or the connector's settings change"
        )
        if self.store.pause(
            claim.connector, "unfindable", PAUSE, reason, probe_in=FIRST_PROBE, report_id=claim.report_id
        ):
            log.error("connector paused: creates what it cannot find", connector=claim.connector, reason=reason)

    def probe_due(self, services: Callable[[], Mapping[str, Service]], stopping: threading.Event) -> None:
        """Probes every paused connector whose time has come, with the settings that hold at that time."""
        for name in list(services()):
            service = services().get(name)
            if stopping.is_set():
                return
            if service is None:
                continue
            pause = self.store.paused(service.name)
            if pause is None or pause.next_probe is None or pause.next_probe > self.store.now():
                continue
            problem, wait = self._still(service, pause)
            if services().get(name) is not service:
                continue  # changed meanwhile: what was found says nothing of the new settings, which are due themselves
            if problem:
                log.warning("still paused", connector=service.name, reason=problem)
                self.store.probe_failed(service.name, problem, longest=LONGEST_PROBE, pause=PAUSE, at_least=wait)
            else:
                due = self.store.resume(service.name)
                log.info("connector serves again", connector=service.name, due=due)

    def _still(self, service: Service, pause: Pause) -> tuple[str, float]:
        """Why the connector must stay paused ('' when it need not), and seconds that it asked to be left alone."""
        try:
            problem = self.problem(service.connector)
            if problem or pause.kind != "unfindable" or pause.report_id is None:
                return problem, 0
            delivery = self.store.delivery(pause.report_id, service.name)
            if delivery is None or self.store.proving_report(service.name) is None:
                return "", 0
            with self.probing(service.name):
                if not service.connector.find(delivery.reference):
                    return pause.reason, 0
            self.store.prove(service.name)
        except redis.RedisError:
            raise
        except Outcome as outcome:
            return str(outcome), getattr(outcome, "retry_after", None) or 0
        return "", 0
