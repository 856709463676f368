"""Webhooks into the real command: tickets at once and once, whatever else is sent, stopped or killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from bridge.demo import scenario
from bridge.demo.webhook_sender import SECRET, WebhookSender, payload
from bridge.web.webhooks import PATH
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_processes import assert_once_each, delivered, references, short, stop_all
from tests.psa import Psa

MakeBridge = Callable[..., Bridge]

#: No poll but the first comes while a test runs, unless an event asks for one.
SELDOM = {"interval": 600}
#: Genuine events sent as fast as they are answered, and after how many of them hostile ones are sent as well.
BURST, HOSTILE_EVERY = 500, 10


def sender(bridge: Bridge, **how: Any) -> WebhookSender:
    return WebhookSender(f"http://127.0.0.1:{bridge.port}{PATH}", **how)


def raw(world: World, number: int, **fields: Any) -> dict[str, Any]:
    """A report that only its event tells of."""
    organization_id = (number - 1) % len(world.huntress.organizations) + 1
    organization = world.huntress.organizations[organization_id]
    return scenario.incident(number, organization, world.huntress.agents[organization_id], **fields)


def polled(bridge: Bridge) -> bool:
    """Has `run` polled for the first time?"""
    with contextlib.suppress(requests.RequestException):
        answer = requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=5).json()
        return bool(answer.get("poll", {}).get("last_complete_at"))
    return False


def running(world: World, make_bridge: MakeBridge, *roles: str, **tables: Any) -> Bridge:
    """Every role started, one complete poll made, its connectors proven by a first ticket."""
    world.report(1)
    bridge = make_bridge(
        world, **({"connectors": short(world), "webhooks": {"secret": SECRET}, "poll": SELDOM} | tables)
    )
    for role in roles or ("run",):
        bridge.start(role)
    wait_until(lambda: polled(bridge) and delivered(world, references(1, 1)))
    wait_until(lambda: {row["state"] for row in bridge.deliveries()} == {"created"})
    return bridge


def settled(bridge: Bridge, count: int) -> bool:
    rows = bridge.deliveries()
    return len(rows) == count and {row["state"] for row in rows} == {"created"}


def listings(world: World) -> int:
    return len(world.huntress.requests_to("/incident_reports$"))


def test_an_event_is_in_its_tickets_within_two_seconds_and_the_poll_makes_no_more(
    world: World, make_bridge: MakeBridge
) -> None:
    bridge = running(world, make_bridge)
    began = time.monotonic()
    assert sender(bridge).send("incident_report.created", raw(world, 2)) == 204
    wait_until(lambda: delivered(world, references(2, 2)), 10)
    last = max(psa.creates(2)[0].at for psa in (Psa("psa", world.connectwise), Psa("desk", world.autotask)))
    assert last - began < 2

    before = listings(world)
    world.report(2, 2)
    world.report(3, 3)  # its event never comes
    wait_until(lambda: delivered(world, references(3, 3)), 15, "the event brought the next poll forward")
    assert listings(world) - before == 2, "one poll, which takes two listings"
    wait_until(lambda: settled(bridge, 6))
    assert sender(bridge).send("incident_report.comment_added", raw(world, 2), comment="call me") == 204
    psa = Psa("psa", world.connectwise)
    wait_until(lambda: any("> call me" in note for note in psa.notes(psa.ids(2)[0])), 5)
    stop_all(bridge)
    assert_once_each(world, references(1, 3))


def test_500_events_at_once_beside_hostile_ones_are_in_tickets_once_each(world: World, make_bridge: MakeBridge) -> None:
    bridge = running(world, make_bridge)
    genuine, forger = sender(bridge), sender(bridge, secret="whsec_Zm9yZ2VyJ3Mga2V5")
    late = sender(bridge, clock=lambda: time.time() - 3600)

    def event(number: int) -> list[int]:
        body = json.dumps(payload("incident_report.created", raw(world, number))).encode()
        headers = genuine.headers(body)
        first = genuine.post(body, headers)
        if number % HOSTILE_EVERY:
            return [first]
        other = json.dumps(payload("incident_report.created", raw(world, 10_000 + number))).encode()
        again, forged = genuine.post(body, headers), forger.post(other, forger.headers(other))
        return [first, again, forged, late.post(other, late.headers(other))]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(event, range(2, 2 + BURST)))
    hostile = [answer[1:] for answer in answers if len(answer) > 1]
    assert [answer[0] for answer in answers] == [204] * BURST
    assert hostile == [[409, 401, 400]] * (BURST // HOSTILE_EVERY)
    with contextlib.suppress(OSError, http.client.HTTPException):  # it hangs up on who does not stop
        huge = b"x" * 10_000_000
        assert genuine.post(huge, genuine.headers(huge)) == 413
    wait_until(lambda: delivered(world, references(2, 1 + BURST)), 60)
    wait_until(lambda: settled(bridge, 2 * (1 + BURST)))
    stop_all(bridge)
    assert_once_each(world, references(1, 1 + BURST))
    assert bridge.log().count("webhook refused") <= 2 * 4, "a line a minute for each kind of refusal"
    assert "Task queue depth" not in bridge.log()


def test_what_was_answered_2xx_outlives_the_web_process_and_what_was_not_can_be_sent_again(
    world: World, make_bridge: MakeBridge, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes", "--appendfsync", "always")
    bridge = running(world, make_bridge, "poller", "worker", "web", redis={"url": server.url})
    poller, worker, web = bridge.processes
    bridge.kill(worker)
    assert sender(bridge).send("incident_report.created", raw(world, 2)) == 204
    more = {"comment": "before the ticket"}
    assert sender(bridge).send("incident_report.comment_added", raw(world, 2), **more) == 204
    bridge.kill(web)
    bridge.start("web")
    wait_until(lambda: polled(bridge))

    server.stop()
    assert sender(bridge).send("incident_report.created", raw(world, 3), message_id="msg_3") == 503
    server.start()
    wait_until(lambda: polled(bridge), why="Redis is back")
    assert sender(bridge).send("incident_report.created", raw(world, 3), message_id="msg_3") == 204

    assert poller.poll() is None
    bridge.start("worker")
    wait_until(lambda: delivered(world, references(2, 3)), 40)
    wait_until(lambda: settled(bridge, 6))
    for psa in (Psa("psa", world.connectwise), Psa("desk", world.autotask)):
        assert sum("> before the ticket" in note for note in psa.notes(psa.ids(2)[0])) == 1
    stop_all(bridge)
    assert_once_each(world, references(1, 3))
