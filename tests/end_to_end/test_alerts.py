"""A person is called: the real command between pretend systems, a monitor and a mailbox."""

from __future__ import annotations

from collections.abc import Callable

import requests

from bridge.demo.server import PretendServer, Received, Reply
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
        wait_until(lambda: notices(world), 50, "a notice of what was refused")
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
        assert "a person was told" in bridge.log(0)
        assert TOKEN not in said


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
