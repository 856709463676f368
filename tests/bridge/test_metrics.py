"""What `/metrics` says: well formed, true, the same from any process, and cheap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import redis
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from bridge.broker import quick_client
from bridge.runtime import Runtime
from bridge.web.metrics import exposition, metrics
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.bridge.test_following import ended, opened
from tests.conftest import RedisServer
from tests.psa import Psa

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(runtime: Runtime) -> Samples:
    """By name and the labels' values in the order of the labels' names."""
    return {
        (sample.name.removeprefix("huntress_bridge_"), tuple(value for _, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(exposition(runtime).decode())
        for sample in family.samples
    }


# -- what they say -----------------------------------------------------------------------------------------------------


def test_deliveries_by_what_came_of_them(stage: Stage, psa: Psa) -> None:
    opened(stage)
    stage.work(130)
    ended(stage)
    stage.work()
    stage.runtime.requests.flush()
    found = samples(stage.runtime)
    assert found["deliveries_total", (psa.name, "created")] == 1
    assert found["deliveries_total", (psa.name, "closed")] == 1
    assert found["deliveries_total", (psa.name, "rejected")] == 0, "an increase shows only from a number on"
    assert found["stored_deliveries", ("closed",)] == 1
    assert found["waiting_deliveries", (psa.name,)] == 0
    assert found["seen_to_ticket_seconds_count", (psa.name,)] == 1
    assert found["seen_to_ticket_seconds_bucket", (psa.name, "+Inf")] == 1
    answered = sum(
        n for (name, labels), n in found.items() if name == "connector_requests_total" if labels[0] == psa.name
    )
    assert answered == len(psa.received())


def test_what_waits_and_for_how_long(stage: Stage, psa: Psa) -> None:
    psa.fault_look_up("status", status=503, times=None)
    stage.report(1)
    stage.work(50)
    stage.report(2)
    stage.wait(10)
    stage.store.pause(psa.name, "misconfigured", 600, "no board")
    found = samples(stage.runtime)
    assert found["waiting_deliveries", (psa.name,)] == 2
    assert found["oldest_waiting_seconds", (psa.name,)] == pytest.approx(60, abs=3)
    assert found["scheduled_deliveries", (psa.name,)] == 2
    assert {key: n for key, n in found.items() if key[0] == "connector_paused"} == {
        ("connector_paused", (psa.name, "rate")): 0,
        ("connector_paused", (psa.name, "misconfigured")): 1,
        ("connector_paused", (psa.name, "unfindable")): 0,
    }
    stage.store.handle(1, psa.name, "done")
    assert samples(stage.runtime)["oldest_waiting_seconds", (psa.name,)] == pytest.approx(10, abs=3)


def test_what_quiet_hours_hold_back_is_not_late(make: MakeStage) -> None:
    start, end = (f"{datetime.now(UTC) + timedelta(hours=hours):%FT%T}" for hours in (-1, 1))
    stage = make("psa", maintenance=[{"from": start, "to": end}])
    stage.report(1)
    stage.work()
    stage.report(1)  # a poll
    stage.report(2, severity="critical", connectors=["psa"])
    found = samples(stage.runtime)
    assert found["stored_deliveries", ("pending",)] == 2
    assert found["waiting_deliveries", ("psa",)] == 1


def test_what_waits_in_an_older_store_is_found_by_the_next_poll(stage: Stage, psa: Psa) -> None:
    stage.report(1)
    stage.store.clock_offset += 100
    stage.store.client.delete(stage.store.key(f"waiting:{psa.name}"))
    stage.report(1)
    assert samples(stage.runtime)["oldest_waiting_seconds", (psa.name,)] == pytest.approx(100, abs=3)


def test_the_source_and_the_processes(stage: Stage) -> None:
    books = stage.runtime.books
    assert ("poll_age_seconds", ()) not in samples(stage.runtime)
    books.poll_started()
    stage.store.clock_offset += 30
    assert samples(stage.runtime)["poll_age_seconds", ()] == pytest.approx(30, abs=2)
    books.save_poll(last_complete_at=stage.store.now() - 7, cycle_seconds=1.5)
    books.quarantine("1", 1, "no id", "{}")
    stage.runtime.budget.acquire("listing")
    books.beat("worker")
    found = samples(stage.runtime)
    assert found["poll_age_seconds", ()] == pytest.approx(7, abs=2)
    assert found["poll_overdue_after_seconds", ()] == 600
    assert found["poll_cycle_seconds", ()] == 1.5
    assert found["quarantined_reports", ()] == 1
    limit = stage.runtime.settings.huntress.requests_per_minute
    assert found["budget_requests_left", ()] == limit - 1
    assert found["processes", ("worker", "working")] == 1
    assert found["processes", ("poller", "working")] == 0
    books.beat("worker", "the worker's threads ended")
    assert samples(stage.runtime)["processes", ("worker", "failing")] == 1
    stage.store.clock_offset += 20
    assert samples(stage.runtime)["processes", ("worker", "failing")] == 0
    stage.runtime.queue_depth()


def test_every_process_gives_the_same_answer(make: MakeStage, systems: Systems) -> None:
    stage = make("psa", "desk")
    stage.report(1, 2)
    stage.work()
    stage.runtime.requests.flush()
    with Runtime(stage.runtime.settings) as another:
        another.store.clock_offset = stage.store.clock_offset
        mine, theirs = samples(stage.runtime), samples(another)
    moving = {key for key in mine if key[0].endswith("_seconds") or key[0] == "budget_requests_left"}
    assert {key: mine[key] for key in mine if key not in moving} == {k: theirs[k] for k in theirs if k not in moving}


@dataclass
class Page:
    runtime: Runtime
    asked_first: redis.Redis


def test_the_path_and_what_it_says_without_redis(
    make: MakeStage, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make("psa", url=server.url)
    app = Flask("page")
    app.register_blueprint(metrics(Page(stage.runtime, quick_client(server.url))))
    client = app.test_client()
    answer = client.get("/metrics")
    assert (answer.status_code, answer.content_type.partition(";")[0]) == (200, "text/plain")
    assert "# HELP huntress_bridge_deliveries_total " in answer.text
    server.kill()
    answer = client.get("/metrics")
    assert answer.status_code == 503
    assert "huntress_bridge" not in answer.text
    server.start()


def test_a_hundred_thousand_deliveries_cost_nothing(stage: Stage, psa: Psa) -> None:
    """As much as matters here: the indexes. Nothing may look at each."""
    client = stage.store.client
    for start in range(0, 100_000, 10_000):
        names = range(start, start + 10_000)
        client.zadd(stage.store.key("state:created"), {f"{name}|psa": name for name in names})
        client.zadd(stage.store.key(f"waiting:{psa.name}"), {str(name): 1_700_000_000_000 + name for name in names})
        client.zadd(stage.store.key(f"due:{psa.name}"), {str(name): 9e12 for name in names})
    exposition(stage.runtime)
    before = client.info("commandstats")
    started = time.perf_counter()
    text = exposition(stage.runtime)
    took = time.perf_counter() - started
    after = client.info("commandstats")
    asked = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert sum(asked.values()) < 100
    assert not {name for name, calls in asked.items() if calls} & {"cmdstat_scan", "cmdstat_keys"}
    assert len(text) < 50_000
    assert took < 0.5  # 0.01 s where nothing else runs
