"""A person is called: the real command between pretend systems, a monitor and a mailbox."""

from __future__ import annotations

from collections.abc import Callable

import requests

from bridge.demo.server import PretendServer, Received, Reply
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until

MakeBridge = Callable[..., Bridge]
TOKEN = "0d338dcc-a054-11ec-b909-0242ac120002"


class Monitor(PretendServer):
    """Takes heartbeats."""

    def answer(self, request: Received) -> Reply:
        return Reply(200, "OK")


def notices(world: World) -> list[str]:
    """Subjects of the notices received."""
    found = [str(mail.message["Subject"]) for mail in list(world.mailbox.messages)]
    return [subject for subject in found if subject.startswith("[huntress-bridge]")]


def test_a_run_shows_that_it_lives_and_calls_a_person_once(world: World, make_bridge: MakeBridge) -> None:
    with Monitor() as monitor:
        alerts = {"heartbeat_url": f"{monitor.url}/ping/{TOKEN}", "connectors": ["oncall"]}
        bridge = make_bridge(world, alerts=alerts, connectors=world.connectors("psa", "oncall"))
        world.connectwise.fault("status", method="POST", path="/service/tickets$", status=400, times=None)
        world.reports(3)
        process = bridge.start("--log-level", "debug", "run")
        wait_until(lambda: len(monitor.requests_to(f"^/ping/{TOKEN}$", "GET")) >= 3, 20, "a heartbeat after each poll")
        wait_until(lambda: "a person was told" in bridge.log(), 50, "a notice of what was refused")
        first_polls = len(monitor.received)

        monitor.stop()
        bridge.kill(process)
        successor = bridge.start("--log-level", "debug", "run")
        wait_until(lambda: "the monitor does not take the heartbeat" in bridge.log(), 20)
        monitor.start()
        wait_until(lambda: len(monitor.received) > first_polls, 20, "polling went on, and so do heartbeats")
        world.huntress.fault("status", status=500, times=None)
        wait_until(lambda: "poll failed" in bridge.log(), 20)
        seen = len(monitor.received)
        told = bridge.log().count("poll failed")
        wait_until(lambda: bridge.log().count("poll failed") >= told + 2, 20)
        assert len(monitor.received) - seen <= 1, "what was on its way when the first one failed"

        answer = requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=10)
        assert answer.json()["alerts"]["heartbeat_at"] is not None
        assert [each["cause"] for each in answer.json()["alerts"]["notices"]] == ["rejected:psa"]
        assert bridge.stop(successor) == 0
        assert notices(world) == ["[huntress-bridge] 3 deliveries to psa rejected"]
        said = answer.text + bridge.log(0) + bridge.log(1) + str([mail.raw for mail in world.mailbox.messages])
        assert TOKEN not in said


def test_without_a_poller_the_others_call_the_person_and_only_once(
    world: World, make_bridge: MakeBridge, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    connectors = world.connectors("psa", "oncall")
    bridge = make_bridge(world, redis={"url": server.url}, alerts={"connectors": ["oncall"]}, connectors=connectors)
    world.connectwise.fault("status", method="POST", path="/service/tickets$", status=400, times=None)
    world.reports(3)
    poller = bridge.start("poller")
    others = [bridge.start(role) for role in ("worker", "worker", "web")]
    refused = server.client()
    wait_until(lambda: refused.zcard("bridge:state:rejected") == 3, 20)
    bridge.kill(poller)
    wait_until(lambda: notices(world), 50)
    wait_until(lambda: not refused.exists("bridge:notices:turn"), 15)
    wait_until(lambda: refused.exists("bridge:notices:turn"), 15, "somebody looks again")
    refused.close()
    assert [bridge.stop(process) for process in others] == [0, 0, 0]
    assert notices(world) == ["[huntress-bridge] 3 deliveries to psa rejected"]


def test_one_run_is_one_heartbeat(world: World, make_bridge: MakeBridge) -> None:
    with Monitor() as monitor:
        bridge = make_bridge(
            world, alerts={"heartbeat_url": f"{monitor.url}/{TOKEN}"}, connectors=world.connectors("psa")
        )
        world.reports(2)
        assert bridge("run", "--once").returncode == 0
        assert [request.path for request in monitor.received] == [f"/{TOKEN}"]
        world.huntress.fault("status", status=500, times=None)
        assert bridge("run", "--once").returncode == 1
        assert bridge("check", "--online").returncode == 1
        assert len(monitor.received) == 1
