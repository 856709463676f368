"""The world outside, for the soak: Huntress, ConnectWise, and who sends webhooks, in a process of their own.

The soak asks by a line of JSON on standard input, the name of a method of `World` and its arguments, and reads one.
"""

from __future__ import annotations

import heapq
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bridge.demo.webhook_sender import WebhookSender
from tests.benchmarks.soak_systems import (
    BUDGET,
    CONCURRENCY,
    FAULTS,
    SOURCE_FAULTS,
    TIMEOUT,
    LeanConnectWise,
    LeanHuntress,
    Weather,
)

#: Seconds that a report is open, at least and at most.
OPEN_FOR = (60.0, 120.0)
#: One report in so many is told of by webhook as well.
BY_WEBHOOK = 4


class World:
    """Lets reports come and end, sends webhooks, and says how things stand."""

    def __init__(self, rate: float, faults: float, seed: int) -> None:
        self.rate = rate
        self.huntress = LeanHuntress()
        self.connectwise = LeanConnectWise(self.huntress)
        self.source_weather = Weather(faults, seed, SOURCE_FAULTS)
        self.weather = Weather(faults, seed + 1, FAULTS)
        self.draw = random.Random(seed + 2)
        self.webhooks: Counter[str] = Counter()
        self._sender: WebhookSender | None = None
        self._pool = ThreadPoolExecutor(4)
        self._ends: list[tuple[float, int]] = []
        self._sending = threading.Event()

    def begin(self, webhook_url: str) -> dict[str, Any]:
        self._sender = WebhookSender(webhook_url)
        self.huntress.unrest, self.connectwise.unrest = self.source_weather, self.weather
        self._sending.set()
        threading.Thread(target=self._run, daemon=True).start()
        return {}

    def _run(self) -> None:
        begun, made = time.monotonic(), 0
        while True:
            now = time.time()
            while self._sending.is_set() and made < self.rate * (time.monotonic() - begun):
                made += 1
                number, raw = self.huntress.send(now)
                heapq.heappush(self._ends, (now + self.draw.uniform(*OPEN_FOR), number))
                if number % BY_WEBHOOK == 1:
                    self._pool.submit(self._tell, number, raw, now)
            while self._ends and self._ends[0][0] <= now:
                self.huntress.end(heapq.heappop(self._ends)[1], now)
            time.sleep(0.02)

    def _tell(self, number: int, raw: dict[str, Any], now: float) -> None:
        assert self._sender is not None
        try:
            answer = str(self._sender.send("incident_report.created", raw))
        except (OSError, http.client.HTTPException):
            answer = "none"
        self.webhooks[answer] += 1
        if answer.startswith("2"):
            self.huntress.shown_at[number] = min(self.huntress.shown_at[number] or now, now)

    def calm(self) -> dict[str, Any]:
        """No report comes any more."""
        self._sending.clear()
        return {}

    def sample(self) -> dict[str, Any]:
        psa = self.connectwise
        with psa.lock:
            times, psa.times = psa.times, {name: [] for name in psa.times}
            return {
                "cpu": time.process_time(),
                "made": len(self.huntress.sent_at) - 1,
                "open": len(self.huntress.open),
                "tickets": len(psa.tickets),
                "closed": len(psa.closed),
                "times": times,
                "psa_requests": psa.requests,
                "faults": dict(self.weather.names),
                "source_faults": self.source_weather.met,
                "most_source_requests_a_minute": self.huntress.most_a_minute,
                "webhooks": dict(self.webhooks),
            }

    def verdict(self) -> dict[str, Any]:
        """What is wrong with the tickets; the first few numbers of each kind of wrong."""
        psa, made = self.connectwise, len(self.huntress.sent_at) - 1
        with psa.lock:
            held = {number: psa.references.get(f"huntress-5-{number}", []) for number in range(1, made + 1)}
            ended = [number for number in held if self.huntress.ended_at[number]]
            marks = {id: Counter(note["text"].splitlines()[-1] for note in notes) for id, notes in psa.notes.items()}
            wrong: dict[str, list[Any]] = {
                "lost": [number for number, tickets in held.items() if not tickets],
                "doubled": [number for number, tickets in held.items() if len(tickets) > 1],
                "unasked for": sorted(psa.references.keys() - {f"huntress-5-{number}" for number in held}),
                "not closed": [number for number in ended if not psa.closed.issuperset(held[number])],
                "closed early": [number for number in self.huntress.open if psa.closed.intersection(held[number])],
                "notes doubled": [id for id, counts in marks.items() if max(counts.values()) > 1],
                "errors of the pretend systems": [*psa.handler_errors, *self.huntress.handler_errors],
            }
        return {name: {"count": len(found), "first": found[:10]} for name, found in wrong.items()}


def main() -> None:
    world = World(**json.loads(sys.stdin.readline()))
    with world.huntress, world.connectwise:
        tables = {
            "huntress": world.huntress.settings(requests_per_minute=BUDGET),
            "connectors": {"psa": world.connectwise.settings(timeout=TIMEOUT, concurrency=CONCURRENCY)},
        }
        print(json.dumps(tables), flush=True)  # noqa: T201 - read by the soak
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(getattr(world, name)(*arguments)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
