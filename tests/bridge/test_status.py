"""What `/status` says and when it is a 503: in this process, so that ten minutes pass by moving the store's clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.absences import Absences
from bridge.bookkeeping import OVERDUE
from bridge.demo.huntress import PretendHuntress
from bridge.demo.run import free_port, toml
from bridge.demo.webhook_sender import SECRET, WebhookSender
from bridge.leadership import Leadership
from bridge.poller import Cycle, Poller
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.streams import LISTED_EVERY
from bridge.web.app import create_app
from bridge.web.status import status
from bridge.web.webhooks import PATH
from tests.conftest import RedisServer

MAIL = {
    "type": "email",
    "host": "127.0.0.1",
    "port": free_port(0),
    "security": "none",
    "sender": "bridge@example.com",
    "recipients": ["oncall@example.com"],
}


@pytest.fixture
def source() -> Iterator[PretendHuntress]:
    with PretendHuntress(organizations=3) as source:
        yield source


@pytest.fixture
def make(tmp_path: Path, source: PretendHuntress, redis_url: str) -> Iterator[Callable[..., Runtime]]:
    entered: list[Runtime] = []

    def make(url: str = redis_url, **tables: Any) -> Runtime:
        config = tmp_path / "bridge.toml"
        base = {"huntress": source.settings(), "connectors": {"oncall": MAIL}, "redis": {"url": url}}
        config.write_text(toml(base | tables), encoding="utf-8")
        config.chmod(0o600)
        runtime = Runtime(load(config, environ={})).__enter__()
        entered.append(runtime)
        return runtime

    yield make
    for runtime in entered:
        runtime.__exit__()


@pytest.fixture
def runtime(make: Callable[..., Runtime]) -> Runtime:
    return make()


def poll(runtime: Runtime) -> Cycle:
    leadership = Leadership(runtime.store, "poller", patience=1e9)
    leadership.attempt()
    poller = Poller(
        runtime.store,
        runtime.books,
        lambda: runtime.assembly.source,
        lambda: runtime.settings,
        runtime.routes,
        leadership,
    )
    try:
        return poller.cycle()
    finally:
        leadership.stop()


def beat(runtime: Runtime) -> None:
    """Poller and worker live, as far as the books say."""
    for role in ("poller", "worker"):
        runtime.books.beat(role)


def look(runtime: Runtime) -> dict[str, Any]:
    """What `/status` says while the processes live."""
    beat(runtime)
    return status(runtime)


def answer(runtime: Runtime, path: str = "/status") -> tuple[int, Any]:
    with suppress(redis.RedisError):
        beat(runtime)
    reply = create_app(runtime).test_client().get(path)
    return reply.status_code, reply.get_json() if reply.is_json else reply.text


def test_before_the_first_poll_it_is_not_well(runtime: Runtime) -> None:
    code, body = answer(runtime)
    assert code == 503
    assert body["problems"] == ["no complete poll since the start"]
    assert body["poll"]["last_complete_at"] is None


@pytest.mark.parametrize("role", ["poller", "worker"])
def test_without_a_process_that_is_needed_it_is_not_well(runtime: Runtime, role: str) -> None:
    poll(runtime)
    assert look(runtime)["ok"]
    runtime.books.leave(role)
    assert status(runtime)["problems"] == [f"no {role} gives a sign of life"]


def test_after_a_complete_poll_it_is(runtime: Runtime, source: PretendHuntress) -> None:
    source.add_report(id=1)
    source.reports[2] = ["no", "report"]
    assert poll(runtime).complete
    code, body = answer(runtime)
    assert (code, body["ok"], body["problems"]) == (200, True, [])
    assert body["reports"]["open"] == 1
    assert body["deliveries"]["pending"] == 1
    assert body["connectors"]["oncall"]["state"] == "serving"
    assert body["connectors"]["oncall"]["scheduled"] == 1
    assert body["poll"]["requests_last_minute"] == 6
    assert [entry["report_id"] for entry in body["quarantine"]] == [None]


def test_a_source_that_only_fails_is_overdue_after_ten_minutes(runtime: Runtime, source: PretendHuntress) -> None:
    source.fault("status", status=500, times=None)
    assert not poll(runtime).complete
    assert look(runtime)["ok"], "a poll was tried just now; give it time"
    runtime.store.clock_offset += OVERDUE - 5
    poll(runtime)
    assert look(runtime)["ok"]
    runtime.store.clock_offset += 10
    code, body = answer(runtime)
    assert code == 503
    assert body["problems"][0].startswith("no complete poll since the start: Huntress answered 500")
    source.faults.clear()
    poll(runtime)
    assert answer(runtime)[0] == 200


def test_a_poll_that_was_complete_once_counts_for_ten_minutes(runtime: Runtime, source: PretendHuntress) -> None:
    poll(runtime)
    runtime.store.clock_offset += OVERDUE - 5
    assert look(runtime)["ok"]
    runtime.store.clock_offset += 10
    found = look(runtime)
    assert not found["ok"]
    assert found["poll"]["last_complete_at"] in found["problems"][0]


def test_slow_cycles_have_three_of_their_own_length(runtime: Runtime) -> None:
    poll(runtime)
    runtime.books.save_poll(expected_cycle_seconds=1000.0)
    runtime.store.clock_offset += 2990
    assert look(runtime)["ok"]
    runtime.store.clock_offset += 20
    assert not look(runtime)["ok"]
    runtime.books.save_poll(expected_cycle_seconds=100.0, cycle_seconds=1100.0)
    assert look(runtime)["ok"], "what the last cycle really took counts as well"


def test_a_stream_that_cannot_be_listed_is_shown_and_after_ten_minutes_a_problem(
    make: Callable[..., Runtime], source: PretendHuntress
) -> None:
    runtime = make(sources={"escalations": True})
    poll(runtime)
    runtime.store.clock_offset += LISTED_EVERY
    source.fault("status", path="/escalations", status=500, times=None)
    poll(runtime)
    found = look(runtime)
    assert found["ok"]
    assert found["streams"]["escalation"]["error"].startswith("Huntress answered 500")
    assert found["streams"]["escalation"]["last_complete_at"] is not None
    runtime.store.clock_offset += OVERDUE + 1
    poll(runtime)
    (problem,) = look(runtime)["problems"]
    assert problem.startswith("escalations cannot be listed since ")
    assert ": Huntress answered 500" in problem


def test_a_paused_connector_is_shown_with_its_reason(runtime: Runtime) -> None:
    poll(runtime)
    runtime.store.pause("oncall", "misconfigured", 3600, "password: the server refused it", probe_in=60)
    code, body = answer(runtime)
    assert code == 503
    assert body["problems"] == ["connector oncall is paused: password: the server refused it"]
    assert body["connectors"]["oncall"]["state"] == "paused"
    assert body["connectors"]["oncall"]["next_probe"] is not None
    runtime.store.resume("oncall")
    assert answer(runtime)[0] == 200


def test_reports_that_are_no_longer_listed_are_counted_and_the_first_five_shown(
    runtime: Runtime, source: PretendHuntress
) -> None:
    for number in range(1, 8):
        source.add_report(id=number)
    poll(runtime)
    assert look(runtime)["reports"]["no_longer_listed"] == {"count": 0, "first": []}
    for number in range(1, 7):
        source.close_report(number, status="reviewing")  # a status that nobody knows
    runtime.store.clock_offset += 20
    poll(runtime)
    found = look(runtime)
    assert found["ok"]
    assert found["reports"]["open"] == 1
    listed = found["reports"]["no_longer_listed"]
    assert listed["count"] == 6
    assert len(listed["first"]) == 5
    assert all("says that its status is reviewing" in each["reason"] for each in listed["first"])
    assert {each["organization_id"] for each in listed["first"]} == {1}
    times = [each["last_listed_at"] for each in listed["first"]]
    assert times == sorted(times)


def test_a_report_that_was_not_asked_for_yet_is_shown_as_well(runtime: Runtime, source: PretendHuntress) -> None:
    source.add_report(id=1)
    poll(runtime)
    leadership = Leadership(runtime.store, "poller", patience=1e9)
    Absences(runtime.store).miss(leadership.attempt(), runtime.store.now() + 1, [1])
    leadership.stop()
    [shown] = look(runtime)["reports"]["no_longer_listed"]["first"]
    assert shown["report_id"] == 1
    assert shown["reason"] == "Huntress no longer lists this report; whether it is over is asked next."


def test_webhooks_that_are_not_configured_and_come_all_the_same_are_shown(runtime: Runtime) -> None:
    client = create_app(runtime).test_client()
    before = client.get("/status").get_json()["webhooks"]
    assert before == {"configured": False, "last_taken_at": None, "last_refusal": None}
    assert client.post(PATH, data=b"{}").status_code == 404
    refusal = client.get("/status").get_json()["webhooks"]["last_refusal"]
    assert refusal["status"] == 404
    assert refusal["reason"] == "[webhooks] secret is empty, so no webhook is taken"
    assert refusal["at"] is not None


def test_the_last_event_taken_and_the_last_one_refused_are_shown(make: Callable[..., Runtime]) -> None:
    runtime = make(webhooks={"secret": SECRET})
    poll(runtime)
    client = create_app(runtime).test_client()
    body = json.dumps({"event_type": "account_notice.notification"}).encode()
    headers = WebhookSender("").headers(body, "msg_1")
    assert client.post(PATH, data=body, headers=headers).status_code == 204
    taken = client.get("/status").get_json()["webhooks"]
    assert taken["configured"]
    assert taken["last_taken_at"] is not None
    assert taken["last_refusal"] is None
    assert client.post(PATH, data=b"other", headers=headers).status_code == 401
    refused = client.get("/status").get_json()["webhooks"]
    assert refused["last_taken_at"] == taken["last_taken_at"]
    assert refused["last_refusal"]["status"] == 401
    assert "not made with [webhooks] secret" in refused["last_refusal"]["reason"]
    assert SECRET not in client.get("/status").text


def test_a_refused_configuration_is_shown(runtime: Runtime) -> None:
    runtime.books.save_configuration_problem("web.port: not a number")
    assert list(look(runtime)["configuration_problems"].values()) == ["web.port: not a number"]


def test_without_redis_only_the_process_is_alive(
    make: Callable[..., Runtime], make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    runtime = make(server.url)
    poll(runtime)
    assert [answer(runtime, path)[0] for path in ("/healthz", "/readyz", "/status")] == [200, 200, 200]
    server.stop()
    assert [answer(runtime, path)[0] for path in ("/healthz", "/readyz", "/status")] == [200, 503, 503]
    assert answer(runtime)[1] == {"ok": False, "problems": ["Redis does not answer"]}
    server.start()
    assert answer(runtime)[0] == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/status", "/nothing"])
def test_no_answer_is_kept_or_framed(runtime: Runtime, path: str) -> None:
    headers = create_app(runtime).test_client().get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_no_secret_is_shown(runtime: Runtime, source: PretendHuntress) -> None:
    source.add_report(id=1)
    poll(runtime)
    key, secret = source.credentials
    for path in ("/", "/status"):
        text = create_app(runtime).test_client().get(path).text
        assert key not in text
        assert secret not in text
