"""The metrics add up with what the pretend systems received: three worker processes, one of them killed in mid-request.

At the kill exactly two requests are under way, one create in each PSA: the first is carried out afterwards, the second
never. All that was answered before is counted by then.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.server import Fault, Received
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.web.metrics import exposition
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.psa import PSAS, Psa, reference

MakeRedis = Callable[..., RedisServer]

#: Reports: found to be provable, trapped at the kill, refused, delivered beside them, and after the kill.
FIRST, TRAPPED, REFUSED, BESIDE, AFTER = 1, 2, 3, range(4, 12), range(12, 15)
EVERYTHING = {FIRST, TRAPPED, REFUSED, *BESIDE, *AFTER}
#: Requests that were not answered: one create in each PSA, at the kill.
IN_FLIGHT = 1


class Trap(PretendConnectWise):
    """Does nothing about the create of `TRAPPED` before `release`."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.release = threading.Event()

    def _arrived(self, request: Received) -> Fault | None:
        fault = super()._arrived(request)
        if Psa("psa", self).is_create(request, TRAPPED):
            self.release.wait(60)
        return fault


class Trapping(World):
    connectwise_class = Trap


class Metrics:
    """What any process says, read in this one."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def read(self, name: str, by: str) -> Counter[tuple[str, str]]:
        """Sums of a metric's samples by connector and the label `by`."""
        found: Counter[tuple[str, str]] = Counter()
        for family in text_string_to_metric_families(exposition(self.runtime).decode()):
            for sample in family.samples:
                if sample.name == f"huntress_bridge_{name}":
                    found[sample.labels.get("connector", ""), sample.labels.get(by, "")] += int(sample.value)
        return found

    def requests(self, connector: str) -> int:
        counted = self.read("connector_requests_total", "status")
        return sum(number for (name, _), number in counted.items() if name == connector)

    def outcomes(self, connector: str) -> dict[str, int]:
        counted = self.read("deliveries_total", "outcome")
        return {outcome: number for (name, outcome), number in counted.items() if name == connector and number}


def start_worker(bridge: Bridge, count: int) -> None:
    for _ in range(count):
        bridge.start("worker")
    wait_until(lambda: all('"ready"' in bridge.log(number) for number in range(-count, 0)), 20, "the workers are ready")


def test_they_add_up_with_three_workers_and_one_of_them_killed(make_redis_server: MakeRedis) -> None:

    with contextlib.ExitStack() as stack:
        world = Trapping().start(stack)
        psas = world.psas()
        connectors = {name: table | {"settle": 2} for name, table in world.connectors().items()}
        server = make_redis_server("--appendonly", "yes")
        bridge = Bridge.in_folder(stack, world, {"connectors": connectors, "redis": {"url": server.url}})
        metrics = Metrics(stack.enter_context(Runtime(load(bridge.config, bridge.environment()))))
        assert isinstance(world.connectwise, Trap)
        release = world.connectwise.release
        stack.callback(release.set)
        psas["desk"].fault_create("hang", TRAPPED, delay=60)

        # The first worker alone takes what is trapped.
        start_worker(bridge, 1)
        bridge.start("poller")
        world.report(FIRST)
        wait_until(lambda: all(len(psa.look_ups(FIRST)) >= 2 for psa in psas.values()), 20, "the first was proven")
        world.report(TRAPPED)
        wait_until(lambda: all(psa.creates(TRAPPED) for psa in psas.values()), 20, "both creates are under way")

        # Three workers share the rest, until all that was answered is counted.
        start_worker(bridge, 2)
        psas["psa"].fault_create("status", REFUSED, status=400, body={"message": "No.", "errors": [{"message": "No."}]})
        for number in (REFUSED, *BESIDE):
            world.report(number, (number - 1) % 3 + 1)
        wait_until(lambda: delivered(psas, {FIRST, *BESIDE}), 30)
        wait_until(lambda: metrics.outcomes("psa").get("rejected") == 1, 20)
        wait_until(lambda: all(metrics.requests(name) == len(psas[name].received()) - IN_FLIGHT for name in PSAS), 20)
        bridge.kill(bridge.processes[0])
        release.set()

        # The others look up what it left, and go on.
        for number in AFTER:
            world.report(number, (number - 1) % 3 + 1)
        wait_until(lambda: delivered(psas, EVERYTHING - {REFUSED}), 60, "what was trapped is delivered, too")
        wait_until(lambda: not bridge.unfinished(), 30)
        for process in bridge.processes[1:]:
            assert bridge.stop(process) == 0, bridge.log(bridge.processes.index(process))

        # Tickets: one for each report, made or found.
        for psa in psas.values():
            refused = {REFUSED} if psa.name == "psa" else set()
            assert dict(psa.references()) == {reference(number): 1 for number in EVERYTHING - refused}
            outcomes = metrics.outcomes(psa.name)
            assert outcomes["created"] + outcomes.get("found", 0) == sum(psa.references().values())
            assert outcomes.get("found", 0) == (1 if psa.name == "psa" else 0), "what was carried out after the kill"
            assert outcomes.get("rejected", 0) == len(refused)
            assert outcomes.keys() <= {"created", "found", "rejected"}
        assert metrics.outcomes("oncall") == {"created": len(EVERYTHING)}
        assert dict(world.mail_references()) == {reference(number): 1 for number in EVERYTHING}
        timed = metrics.read("seen_to_ticket_seconds_count", "")
        assert {name: timed[name, ""] for name in connectors} == {
            name: len(EVERYTHING) - (name == "psa") for name in connectors
        }
        assert sum(metrics.read("reports_seen_total", "severity").values()) == len(EVERYTHING)
        states = metrics.read("stored_deliveries", "state")
        assert {state: number for (_, state), number in states.items() if number} == {
            "created": 3 * len(EVERYTHING) - 1,
            "rejected": 1,
        }
        assert not +metrics.read("waiting_deliveries", "")

        # Requests: each that was answered, by its status, and none of the two that were under way.
        for psa in psas.values():
            assert metrics.requests(psa.name) == len(psa.received()) - IN_FLIGHT, psa.name
        assert metrics.read("connector_requests_total", "status")["psa", "400"] == 1
        assert metrics.read("connector_requests_total", "status")["oncall", "250"] == len(world.mailbox.messages)
        source = metrics.read("source_requests_total", "status")
        assert sum(source.values()) == len(world.huntress.requests_to(""))


def delivered(psas: dict[str, Psa], numbers: set[int]) -> bool:
    return all(psa.references().keys() >= {reference(number) for number in numbers} for psa in psas.values())
