"""How long a report takes from its webhook to its ticket. Not a test: prints a table.

The clock runs from before the POST until the pretend PSA has the request that creates the ticket. `run`, the pretend
systems and the sender share this machine. Run it from the project's folder with the Python that huntress-bridge is
installed for: `python -m tests.benchmarks.webhook_latency`.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from bridge.demo.webhook_sender import SECRET, WebhookSender
from bridge.web.webhooks import PATH
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_processes import references
from tests.end_to_end.test_webhooks import SELDOM, polled, raw
from tests.psa import Psa

#: Events one after the other, and all at once.
SINGLE, BURST = 100, 500
#: Senders at the same time in the burst.
SENDERS = 16


def row(name: str, found: Sequence[float]) -> str:
    figures = (statistics.median(found), statistics.quantiles(found, n=100)[94], max(found))
    return f"{name:<44}" + "".join(f"{value:>10.3f}" for value in figures)


def main() -> None:
    with contextlib.ExitStack() as stack:
        world = World().start(stack)
        world.report(1)
        tables = {"connectors": world.connectors("psa"), "webhooks": {"secret": SECRET}, "poll": SELDOM}
        bridge = Bridge.in_folder(stack, world, tables)
        bridge.start("run")
        psa = Psa("psa", world.connectwise)
        sender = WebhookSender(f"http://127.0.0.1:{bridge.port}{PATH}")
        wait_until(lambda: polled(bridge) and psa.ids(1))
        posted: dict[int, float] = {}
        answered: dict[int, float] = {}

        def send(number: int) -> None:
            posted[number] = time.monotonic()
            status = sender.send("incident_report.created", raw(world, number))
            answered[number] = time.monotonic() - posted[number]
            if status != 204:
                raise SystemExit(f"event {number} was answered {status}")

        def until_ticket(numbers: Sequence[int]) -> list[float]:
            wait_until(lambda: references(numbers[0], numbers[-1]) <= set(psa.references()), 120)
            return [psa.creates(number)[0].at - posted[number] for number in numbers]

        click.echo(f"{'seconds':<44}{'p50':>10}{'p95':>10}{'max':>10}")
        single = range(2, 2 + SINGLE)
        for number in single:
            send(number)
            wait_until(lambda number=number: psa.ids(number), 10)  # type: ignore[misc]
        click.echo(row(f"{SINGLE}, one at a time: to the answer", [answered[number] for number in single]))
        click.echo(row(f"{SINGLE}, one at a time: to the ticket", until_ticket(single)))
        burst = range(single[-1] + 1, single[-1] + 1 + BURST)
        began = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, burst))
        took = time.monotonic() - began
        click.echo(row(f"{BURST} in {took:.1f} s: to the answer", [answered[number] for number in burst]))
        click.echo(row(f"{BURST} in {took:.1f} s: to the ticket", until_ticket(burst)))


if __name__ == "__main__":
    main()
