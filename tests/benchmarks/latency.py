"""How soon a report has its ticket: listed by a poll, and told by a webhook.

Pretend systems, Redis, workers and this process share the machine. Each report's ticket is counted: one, and only one.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bridge.demo.webhook_sender import SECRET, WebhookSender
from bridge.web.webhooks import PATH
from tests.benchmarks.table import Row
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_webhooks import polled, raw
from tests.psa import Psa

#: Reports listed one by one, and seconds between two polls meanwhile.
LISTED, POLL_EVERY = 150, 0.3
#: Reports at random moments within three polls of 15 s, and within as many seconds with webhooks.
POLLED, HOOKED, HOOKED_WITHIN = 90, 90, 10.0
#: Events at once, from so many senders.
BURST, SENDERS = 200, 16


def measure(runs: int) -> list[Row]:
    listed = [_listed() for _ in range(runs)]
    sent = [_sent() for _ in range(runs)]
    return [
        Row("listed to ticket request, idle system, p50", "ms", [percentile(found, 50) for found in listed], 15),
        Row("listed to ticket request, idle system, p99", "ms", [percentile(found, 99) for found in listed], 60),
        Row("sent_at to ticket, polled every 15 s, p50", "s", [percentile(found[0], 50) for found in sent], 8),
        Row("sent_at to ticket, polled every 15 s, p95", "s", [percentile(found[0], 95) for found in sent], 16),
        Row("sent_at to ticket, with webhook, p50", "s", [percentile(found[1], 50) for found in sent], 1),
        Row("sent_at to ticket, with webhook, p95", "s", [percentile(found[1], 95) for found in sent], 2),
        Row(
            f"{BURST} webhooks at once: until an event is answered, p95",
            "s",
            [percentile(found[2], 95) for found in sent],
            note=f"{SENDERS} senders",
        ),
        Row(
            f"{BURST} webhooks at once: until the ticket, p95",
            "s",
            [percentile(found[3], 95) for found in sent],
            note="three tickets at a time, as the connector's concurrency is by itself",
        ),
    ]


def percentile(found: Sequence[float], percent: int) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[percent - 1]


@contextlib.contextmanager
def running(**tables: Any) -> Iterator[tuple[World, Bridge, Psa]]:
    """The pretend systems, and a configuration with one PSA; nothing runs yet."""
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        world.report(1)
        bridge = Bridge.in_folder(stack, world, {"connectors": world.connectors("psa"), **tables})
        yield world, bridge, Psa("psa", world.connectwise)


def ready(bridge: Bridge, psa: Psa) -> None:
    wait_until(lambda: polled(bridge) and psa.ids(1))
    wait_until(lambda: not bridge.unfinished(), 90, "the first ticket is found by its reference")


def _check(psa: Psa, numbers: Sequence[int]) -> dict[int, float]:
    """When the request for each one's ticket came, by the monotonic clock. Fails unless there was exactly one."""
    wait_until(lambda: all(psa.ids(number) for number in numbers), 120, "every report has its ticket")
    time.sleep(1.0)  # for a second one
    creates = {number: psa.creates(number) for number in numbers}
    if wrong := [number for number, found in creates.items() if len(found) != 1]:
        raise SystemExit(f"reports without exactly one ticket: {wrong}")
    return {number: found[0].at for number, found in creates.items()}


def _listed() -> list[float]:
    """Milliseconds from the request whose answer lists a report to the one that creates its ticket."""
    huntress = {"requests_per_minute": 100_000}
    with running(poll={"interval": 1}) as (world, bridge, psa):
        bridge.write(huntress=world.huntress.settings() | huntress)
        command = [sys.executable, "-m", "tests.benchmarks.wake_run", str(bridge.config), str(POLL_EVERY)]
        with (bridge.folder / "run.log").open("w") as log:
            process = subprocess.Popen(command, env=bridge.environment(), stdout=log, stderr=log)
        bridge.processes.append(process)  # type: ignore[arg-type]
        try:
            ready(bridge, psa)
            published: dict[int, float] = {}
            draw = random.Random(6)
            for number in range(2, 2 + LISTED):
                world.report(number)
                published[number] = time.monotonic()
                wait_until(lambda number=number: psa.ids(number), 30)  # type: ignore[misc]
                time.sleep(draw.uniform(0, POLL_EVERY))
            created = _check(psa, list(published))
        finally:
            bridge.stop(process)  # type: ignore[arg-type]
        lists = [
            each.at
            for each in world.huntress.requests_to("/incident_reports$", "GET")
            if each.query.get("status") == "sent"
        ]
        return [
            (created[number] - next(at for at in lists if at >= since)) * 1000 for number, since in published.items()
        ]


def _sent() -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds from a report's `sent_at` to the request for its ticket: by polls, then by webhooks.

    And of events that come all at once: to the answer, and to the request.
    """
    draw = random.Random(6)
    tables = {"poll": {"interval": 15}, "webhooks": {"secret": SECRET}}
    with running(**tables) as (world, bridge, psa):
        process = bridge.start("run")
        ready(bridge, psa)
        sender = WebhookSender(f"http://127.0.0.1:{bridge.port}{PATH}")

        def hook(number: int) -> None:
            world.report(number)
            status = sender.send("incident_report.created", raw(world, number))
            if status != 204:
                raise SystemExit(f"event {number} was answered {status}")

        found = []
        for first, count, within, publish in (
            (2, POLLED, 45.0, world.report),
            (2 + POLLED, HOOKED, HOOKED_WITHIN, hook),
        ):
            published = _at_random_moments(range(first, first + count), within, publish, draw)
            created = _check(psa, list(published))
            found.append([created[number] - at for number, at in published.items()])
        answered, ticketed = _burst(psa, hook, range(2 + POLLED + HOOKED, 2 + POLLED + HOOKED + BURST))
        bridge.stop(process)
        return found[0], found[1], answered, ticketed


def _burst(psa: Psa, hook: Callable[[int], None], numbers: Sequence[int]) -> tuple[list[float], list[float]]:
    posted: dict[int, float] = {}
    answered: dict[int, float] = {}

    def send(number: int) -> None:
        posted[number] = time.monotonic()
        hook(number)
        answered[number] = time.monotonic()

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, numbers))
    created = _check(psa, numbers)
    return [answered[each] - posted[each] for each in numbers], [created[each] - posted[each] for each in numbers]


def _at_random_moments(
    numbers: Sequence[int], within: float, publish: Callable[[int], None], draw: random.Random
) -> dict[int, float]:
    """Each in its own share of the time, so that the moments lie evenly between two polls, wherever those begin."""
    began, published = time.monotonic(), {}
    for place, number in enumerate(numbers):
        at = (place + draw.random()) * within / len(numbers)
        time.sleep(max(0.0, began + at - time.monotonic()))
        published[number] = time.monotonic()
        publish(number)
    return published
