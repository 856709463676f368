"""How soon a job is known again whose worker was killed in mid-request, beside bare Dramatiq with its defaults."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from bridge.demo.server import PretendServer, Reply
from tests.benchmarks.kill_peer import declare
from tests.benchmarks.table import Row
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.ground import make_server
from tests.faults.judge import SETTLE, Judge
from tests.faults.site import wait_until_ready

#: Sites that share the kills, and how many of each site's workers are killed at once, which is one run.
SITES, AT_ONCE = 5, 2
#: Workers of a site beside those that are killed.
SPARE = 1
#: Reports that come for each worker, so that every one has something under way.
EACH = 2
#: Kills of bare Dramatiq's workers.
PEER_KILLS = 10
#: Seconds that a request to a ticket system takes: a kill finds look-ups and creates under way.
REQUEST = 2.0
#: Seconds that are waited for a job; with bare Dramatiq, one that is not taken up by then counts as this long.
PATIENCE, PEER_PATIENCE = 60.0, 90.0
DRAMATIQ = str(Path(sys.executable).with_name("dramatiq"))


class Ours:
    """A poller and workers between pretend systems; a kill is SIGKILL to a whole worker process."""

    def __init__(self, stack: contextlib.ExitStack, seed: int) -> None:
        self.world = World().start(stack)
        server = make_server(stack)
        self.store = stack.enter_context(server.client())
        connector = self.world.connectors("psa")["psa"] | {"concurrency": EACH * (AT_ONCE + SPARE), "settle": SETTLE}
        tables = {"redis": {"url": server.url}, "connectors": {"psa": connector}}
        self.bridge = Bridge.in_folder(stack, self.world, tables)
        self.judge = Judge(self.world, "psa")
        self.bridge.start("poller")
        #: By their numbers among the bridge's processes.
        self.workers = [self._start() for _ in range(AT_ONCE + SPARE)]
        self.dice = random.Random(seed)
        #: Seconds of each kill until the last of the worker's jobs was taken up again.
        self.known: list[float] = []
        #: By report without a ticket whose worker was killed, the last such moment.
        self.lost: dict[int, float] = {}

    def round(self, most: int) -> None:
        """Up to `most` kills at once, and a new worker for each."""
        for number in self.workers:
            wait_until_ready(self.bridge, self.bridge.processes[number], number)
        self.world.connectwise.latency = 0.0
        # What the round before left under way would be older, and take the slots first. And a new worker has its first
        # create looked up before there are more. What is measured begins after both.
        self._reports(1)
        self._finish()
        wait_until(lambda: self.store.hget("bridge:proof:psa", "state") == "proven", PATIENCE, "tickets can be found")
        self.world.connectwise.latency = REQUEST
        self._reports(EACH * len(self.workers))
        wait_until(lambda: len(self._held()) >= len(self.workers), PATIENCE, "jobs are under way")
        time.sleep(self.dice.uniform(0, 2 * REQUEST))

        for number in self.workers:
            self._signal(number, signal.SIGSTOP)
        held = self._held()
        jobs = {number: held.keys() & self._claimed(number) for number in self.workers}
        victims = [number for number in self.workers if jobs[number]][:most]
        lost = {report: held[report] for number in victims for report in jobs[number]}
        unmade = [report for report in lost if self._state(report) in ("pending", "creating")]
        for number in victims:
            self.bridge.kill(self.bridge.processes[number])
        killed_at = time.monotonic()
        for number in set(self.workers) - set(victims):
            self._signal(number, signal.SIGCONT)

        known: dict[int, float] = {}
        while len(known) < len(lost):
            seconds = time.monotonic() - killed_at
            if seconds > PATIENCE:
                raise SystemExit(f"{len(lost) - len(known)} jobs are not known again after {PATIENCE} s")
            now = self._owners(lost)
            known |= {report: seconds for report in lost if report not in known and now[report] != lost[report]}
            time.sleep(0.05)
        self.known += [max(known[report] for report in jobs[number]) for number in victims]
        self.lost |= dict.fromkeys(unmade, killed_at)
        self.workers = [number for number in self.workers if number not in victims] + [self._start() for _ in victims]

    def looked_up(self) -> list[float]:
        """Seconds from each lost job's last kill until it was looked up. Ends if a ticket is missing or double."""
        self._finish()
        if self.judge.doubled():
            raise SystemExit(f"doubled: {self.judge.doubled()}")
        asked = [(one.at, one) for one in self.world.psas()["psa"].look_ups()]
        found = []
        for report, killed_at in self.lost.items():
            later = [at for at, one in asked if at > killed_at and one.mentions(rf"huntress-5-{report}(?![0-9])")]
            found += [min(later) - killed_at] if later else []
        return found

    def _start(self) -> int:
        self.bridge.start("worker")
        return len(self.bridge.processes) - 1

    def _signal(self, number: int, signum: int) -> None:
        os.killpg(self.bridge.processes[number].pid, signum)

    def _reports(self, count: int) -> range:
        first = max(self.judge.numbers(), default=0) + 1
        self.world.reports(count, first=first)
        return range(first, first + count)

    def _finish(self) -> None:
        """Waits until every report has its ticket, and the store knows."""
        wanted = list(self.judge.numbers())
        self.judge.wait_until_complete(2 * PATIENCE, wanted)
        if missing := self.judge.missing(wanted):
            raise SystemExit(f"no ticket after {2 * PATIENCE} s: {missing}")
        wait_until(lambda: not any(map(self._count, ("pending", "creating"))), PATIENCE, "nothing is under way")

    def _held(self) -> dict[int, str]:
        """Reports that a worker is at, with its token."""
        slots = [str(each) for key in self.store.scan_iter("bridge:slots:*") for each in self.store.zrange(key, 0, -1)]
        owners = self._owners(int(each.split("|")[0]) for each in slots)
        return {report: owner for report, owner in owners.items() if owner}

    def _owners(self, reports: Iterable[int]) -> dict[int, str]:
        """'' where nobody has it."""
        return {report: str(self.store.hget(f"bridge:delivery:{report}:psa", "owner") or "") for report in reports}

    def _state(self, report: int) -> str:
        return str(self.store.hget(f"bridge:delivery:{report}:psa", "state"))

    def _count(self, state: str) -> int:
        return int(self.store.zcard(f"bridge:state:{state}"))

    def _claimed(self, number: int) -> set[int]:
        """What that worker's log says that it took up."""
        lines = [json.loads(line) for line in self.bridge.log(number).splitlines() if '"claimed"' in line]
        return {line["report_id"] for line in lines}


def ours(kills: int) -> tuple[list[float], list[float]]:
    """Seconds of every kill until its jobs were known again, and of every unmade ticket until it was looked up."""

    def one_site(number: int) -> tuple[list[float], list[float]]:
        with contextlib.ExitStack() as stack:
            site = Ours(stack, number)
            while len(site.known) < kills // SITES:
                site.round(min(AT_ONCE, kills // SITES - len(site.known)))
            return site.known, site.looked_up()

    with ThreadPoolExecutor(SITES) as pool:
        known, looked_up = zip(*pool.map(one_site, range(SITES)), strict=True)
    return list(chain.from_iterable(known)), list(chain.from_iterable(looked_up))


class Peer:
    """Bare Dramatiq: workers that each have one job and are killed, and an idle one beside them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        server = make_server(stack)
        # What a busy worker has fetched besides would not be a job in mid-request.
        self.environment = os.environ | {"PEER_REDIS": server.url, "dramatiq_queue_prefetch": "1"}
        self.web = stack.enter_context(PretendServer())
        self.web.latency = PATIENCE  # nobody is done before it is killed
        self.web.route("GET", "/[0-9]+", lambda request: Reply(200, {}))
        self.actor = declare(server.url)

    def seconds(self) -> list[float]:
        """Of each kill, until the job's request was made again; `PEER_PATIENCE` where it was not made by then."""
        workers = [self._start() for _ in range(PEER_KILLS)]
        for number in range(PEER_KILLS):
            self.actor.send(f"{self.web.url}/{number}")
        wait_until(lambda: len(self._asked(0)) == PEER_KILLS, PATIENCE, "every worker has a job")
        for _ in range(SPARE):
            self._start()
        time.sleep(2 * REQUEST)  # the idle ones are there
        for process in workers:
            self._kill(process)
        killed_at = time.monotonic()
        while len(self._asked(killed_at)) < PEER_KILLS and time.monotonic() < killed_at + PEER_PATIENCE:
            time.sleep(0.1)
        again = self._asked(killed_at)
        return [again.get(f"/{number}", killed_at + PEER_PATIENCE) - killed_at for number in range(PEER_KILLS)]

    def _asked(self, after: float) -> dict[str, float]:
        """The first moment later than `after` at which each path was asked for."""
        with self.web.lock:
            return {each.path: each.at for each in reversed(self.web.received) if each.at > after}

    def _start(self) -> subprocess.Popen[bytes]:
        command = [DRAMATIQ, "tests.benchmarks.kill_peer:set_up", "-p", "1", "-t", "1"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.environment, start_new_session=True, stdout=quiet, stderr=quiet)
        self.stack.callback(self._kill, process)
        return process

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def bare_dramatiq() -> list[float]:
    with contextlib.ExitStack() as stack:
        return Peer(stack).seconds()


def measure(runs: int) -> list[Row]:
    """A run is `AT_ONCE` kills in each site; what counts is all of them together."""
    kills = runs * AT_ONCE * SITES
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(bare_dramatiq)
        known, looked_up = ours(kills)
        peer = beside.result()
    late = sum(seconds >= PEER_PATIENCE for seconds in peer)
    note = (
        f"SIGKILL in mid-request. Bare Dramatiq with its defaults: {late} of {len(peer)} jobs not again in "
        f"{PEER_PATIENCE:.0f} s, counted as that; Celery acknowledges before it runs, by default: a job is lost"
    )
    figure, p50 = "killed worker's job known again", statistics.median
    return [
        Row(f"{figure}, p50", "s", [p50(known)], 10, peers={"Dramatiq": [p50(peer)]}),
        Row(f"{figure}, worst of {kills}", "s", [max(known)], 20, peers={"Dramatiq": [max(peer)]}, note=note),
        Row(
            f"{figure}, and its ticket looked up, worst",
            "s",
            [max(looked_up)],
            20,
            note=f"p50 {p50(looked_up):.1f}; a create in doubt is looked up 5 s after the last moment of sending it",
        ),
    ]
