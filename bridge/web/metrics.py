"""`/metrics`: what Prometheus reads. Everything comes from Redis, so any process gives the same answer.

No label names a report or an organization, and nothing looks at deliveries one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import accumulate
from typing import Protocol

import redis
from flask import Blueprint, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bridge.bookkeeping import overdue_after
from bridge.counters import BUCKETS, Counters, Histogram
from bridge.health import STALE
from bridge.history import What
from bridge.models import DeliveryState
from bridge.notices import NoticeBook
from bridge.request_counts import CONNECTOR, SOURCE
from bridge.runtime import Runtime

#: What can come of a delivery, as its metric has it.
OUTCOMES = (
    *(What.CREATED, What.FOUND, What.REJECTED, What.HELD, What.NOTED, What.CLOSED, What.REOPENED),
    *(What.CONTINUED, What.RETRIED, What.HANDLED, What.GONE),
)
#: Kinds of pauses.
PAUSES = ("rate", "misconfigured", "unfindable")
ROLES = ("poller", "worker", "web")

_BOUNDS = [*(f"{bound:.1f}" for bound in BUCKETS), "+Inf"]


class Place(Protocol):
    """What the blueprint needs of the page."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def asked_first(self) -> redis.Redis: ...


def metrics(site: Place) -> Blueprint:
    """`/metrics`, in the text format of Prometheus. Who may read it is the page's business."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def show() -> Response:
        try:
            site.asked_first.ping()
            return Response(exposition(site.runtime), content_type=CONTENT_TYPE_LATEST)
        except redis.RedisError:
            return Response("Redis does not answer, so nothing can be said\n", status=503, mimetype="text/plain")

    return blueprint


def exposition(runtime: Runtime) -> bytes:
    """Every metric, as Prometheus reads them. Raises `redis.RedisError`."""
    return generate_latest(_Everything(runtime))


def _name(name: str) -> str:
    return f"huntress_bridge_{name}"


def _gauge(name: str, told: str, value: float | None) -> Metric:
    """One number; without one the metric has no sample."""
    family = GaugeMetricFamily(_name(name), told)
    if value is not None:
        family.add_metric([], value)
    return family


def _gauges(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_name(name), told, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, told: str, labels: Iterable[str], values: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    family = CounterMetricFamily(_name(name), told, labels=list(labels))
    for key, value in sorted(values):
        family.add_metric(key, value)
    return family


def _histogram(name: str, told: str, times: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(_name(name), told, labels=["connector"])
    for connector, each in times.items():
        family.add_metric([connector], list(zip(_BOUNDS, accumulate(each.counts), strict=True)), each.sum)
    return family


class _Everything(Collector):
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self.now = self.store.now()
        self.totals = Counters(self.store).totals()
        configured = list(runtime.services)
        #: Also those that were configured once and still have deliveries.
        self.connectors = sorted({*configured, *self.store.connectors()})

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(_name("build_info"), "Version that answers; always 1.", labels=["version"])
        build.add_metric([version("huntress-bridge")], 1)
        yield build
        yield from self._counted()
        yield from self._waiting()
        yield from self._source()
        yield from self._life()

    def _counted(self) -> Iterator[Metric]:
        totals = self.totals
        deliveries = {(name, str(what)): 0 for name in self.connectors for what in OUTCOMES}
        yield _counter(
            "deliveries",
            "What came of deliveries. created: the bridge made the ticket; found: it took over one that was there, or "
            "that an interrupted create had made; noted, closed, …: what was done to tickets.",
            ("connector", "outcome"),
            {**deliveries, **totals.deliveries}.items(),
        )
        reports = {(severity,): number for severity, number in totals.reports.items()}
        yield _counter("reports_seen", "Reports seen for the first time.", ["severity"], reports.items())
        empty = dict.fromkeys(self.connectors, Histogram())
        yield _histogram(
            "sent_to_ticket_seconds",
            "From the report's notification by Huntress to its ticket, for tickets that the bridge made.",
            {**empty, **totals.since_sent},
        )
        yield _histogram(
            "seen_to_ticket_seconds",
            "From when the bridge first saw the report to its ticket, for tickets that the bridge made.",
            {**empty, **totals.since_seen},
        )
        source = {(status,): n for (system, status), n in totals.requests.items() if system == SOURCE}
        yield _counter(
            "source_requests",
            "Requests to Huntress by status; none: no answer.",
            ["status"],
            source.items(),
        )
        answered = {
            (system.removeprefix(CONNECTOR), status): number
            for (system, status), number in totals.requests.items()
            if system.startswith(CONNECTOR)
        }
        yield _counter(
            "connector_requests",
            "Requests to ticket systems by status (by mail: the code that a mail ended with); none: no answer.",
            ("connector", "status"),
            answered.items(),
        )
        yield _counter("webhooks_taken", "Events taken by webhook.", (), [((), totals.webhooks)])

    def _waiting(self) -> Iterator[Metric]:
        store = self.store
        waiting = {name: store.waiting(name) for name in self.connectors}
        yield _gauges(
            "waiting_deliveries",
            "Reports that have no ticket yet and will get one; without those that quiet hours hold back.",
            "connector",
            {name: count for name, (count, _) in waiting.items()},
        )
        yield _gauges(
            "oldest_waiting_seconds",
            "How long the one has waited that waits longest for its ticket; 0: none waits.",
            "connector",
            {name: 0 if since is None else max(0.0, self.now - since) for name, (_, since) in waiting.items()},
        )
        yield _gauges(
            "scheduled_deliveries",
            "Deliveries that something is still to be done for, now or later; tickets that get notes included.",
            "connector",
            {name: store.scheduled(name) for name in self.connectors},
        )
        yield _gauges(
            "stored_deliveries",
            "Deliveries by state; rejected and held ones wait for a person.",
            "state",
            {str(state): store.count(state) for state in DeliveryState},
        )
        paused = GaugeMetricFamily(
            _name("connector_paused"), "Is the connector paused? By kind of pause.", labels=["connector", "kind"]
        )
        for name in self.runtime.services:
            pause = store.paused(name)
            for kind in PAUSES:
                paused.add_metric([name, kind], pause is not None and pause.kind == kind)
        yield paused
        yield _gauge(
            "creates_held_back_seconds",
            "For how long no ticket is made yet, because Redis came back empty.",
            store.held_back(),
        )
        yield _gauge("queued_messages", "Jobs in the queue that no worker has fetched yet.", self.runtime.queue_depth())

    def _source(self) -> Iterator[Metric]:
        runtime, poll = self.runtime, self.runtime.books.poll()
        limit = runtime.settings.huntress.requests_per_minute
        yield _gauge("budget_requests_per_minute", "Requests a minute that the bridge may send to Huntress.", limit)
        left = max(0, limit - runtime.budget.used())
        yield _gauge("budget_requests_left", "Requests to Huntress that are left of this minute's budget.", left)
        since = poll.last_complete_at or poll.first_started_at
        yield _gauge(
            "poll_age_seconds",
            "Since the last complete poll; before the first one, since the poller first started.",
            None if since is None else max(0.0, self.now - since),
        )
        yield _gauge("poll_overdue_after_seconds", "Age at which a poll counts as overdue.", overdue_after(poll))
        yield _gauge("poll_cycle_seconds", "How long the last complete poll took.", poll.cycle_seconds)
        yield _gauge("open_reports", "Reports that Huntress listed as open.", self.store.open_reports())
        yield _gauge(
            "unlisted_reports",
            "Reports that Huntress lists no longer and that are not known to be over.",
            self.store.client.zcard(self.store.key("missing")),
        )
        yield _gauge("quarantined_reports", "Reports that cannot be parsed.", runtime.books.quarantined_count())

    def _life(self) -> Iterator[Metric]:
        processes = dict.fromkeys(((role, state) for role in ROLES for state in ("working", "failing")), 0)
        for beat in self.runtime.books.heartbeats():
            if abs(self.now - beat.at) <= STALE:
                processes[beat.role, "failing" if beat.problem else "working"] += 1
        family = GaugeMetricFamily(
            _name("processes"),
            f"Processes that gave a sign of life in the last {STALE:.0f} s, by role and whether they do their work.",
            labels=["role", "state"],
        )
        for labels, count in processes.items():
            family.add_metric(labels, count)
        yield family
        problems = self.runtime.books.configuration_problems()
        yield _gauge("refused_configurations", "Hosts whose changed configuration was refused.", len(problems))
        outstanding = NoticeBook(self.store).outstanding()
        untold = sum(1 for each in outstanding if each.problem)
        yield _gauge("undelivered_notices", "Causes that a person should hear of and that no connector took.", untold)
