"""Poller, worker and web as separate processes, several of each, on one Redis that does not always behave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
import requests

from bridge.demo.run import free_port
from bridge.health import health_problem
from bridge.settings import load
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until

MakeBridge = Callable[..., Bridge]
MakeRedis = Callable[..., RedisServer]

#: Seconds within which another process takes over from a dead leader, and what delivering takes besides.
TAKE_OVER, BESIDES = 15.0, 3.0
#: With characters that a URL must spell otherwise.
PASSWORD = "pa/ss?word-of-redis"


def short(world: World, *names: str) -> dict[str, Any]:
    """Connectors with a short `settle`; without names the two that can be asked what they have."""
    return {name: table | {"settle": 4} for name, table in world.connectors(*(names or ("psa", "desk"))).items()}


def references(first: int, last: int) -> set[str]:
    return {f"huntress-5-{number}" for number in range(first, last + 1)}


def delivered(world: World, wanted: set[str]) -> bool:
    return wanted <= set(world.connectwise_references()) and wanted <= set(world.autotask_references())


def assert_once_each(world: World, wanted: set[str]) -> None:
    assert dict(world.connectwise_references()) == dict.fromkeys(wanted, 1)
    assert dict(world.autotask_references()) == dict.fromkeys(wanted, 1)


def leader(client: redis.Redis, role: str) -> int:
    """Process id of who leads now; 0: nobody does."""
    candidate = client.get(f"bridge:leader:{role}")
    return int(str(candidate).split(":")[1]) if candidate else 0


def of(bridge: Bridge, pid: int) -> subprocess.Popen[str]:
    return next(process for process in bridge.processes if process.pid == pid)


def log_of(bridge: Bridge, process: subprocess.Popen[str]) -> str:
    return bridge.log(bridge.processes.index(process))


def stop_all(bridge: Bridge) -> None:
    """SIGTERM to every process that runs: each ends with exit code 0, and soon."""
    running = [process for process in bridge.processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    codes = [process.wait(20) for process in running]
    assert codes == [0] * len(running), [log_of(bridge, process)[-2000:] for process in running]
    assert time.monotonic() - began < 6


def page(bridge: Bridge, path: str, timeout: float = 10) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{bridge.port}{path}", timeout=timeout)


def problem(bridge: Bridge, role: str | None = None) -> str:
    """What `healthcheck` would say, without the cost of a process; '' when all is well."""
    return health_problem(load(bridge.config, environ={}), role)


def serves(bridge: Bridge) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return page(bridge, "/readyz").status_code == 200
    return False


@pytest.fixture
def server(make_redis_server: MakeRedis) -> RedisServer:
    return make_redis_server("--appendonly", "yes")


@pytest.fixture
def guarded(make_redis_server: MakeRedis) -> str:
    """The URL of a server on TCP with a password."""
    port = free_port(0)
    server = make_redis_server("--appendonly", "yes", "--port", str(port), "--bind", "127.0.0.1")
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
    return f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/3"


def test_another_process_takes_over_from_a_leader_that_is_killed_frozen_or_stopped(
    world: World, make_bridge: MakeBridge, guarded: str
) -> None:
    bridge = make_bridge(world, redis={"url": guarded}, connectors=short(world))
    client = redis.Redis.from_url(guarded, decode_responses=True)
    for role in ("poller", "poller", "worker", "worker", "web"):
        bridge.start("--log-level", "debug", role)
    world.reports(6)
    wait_until(lambda: delivered(world, references(1, 6)), 20)
    assert [problem(bridge, role) for role in (None, "poller", "worker", "web")] == [""] * 4
    healthy = bridge("healthcheck", "worker")
    assert (healthy.returncode, healthy.stdout) == (0, "ok\n")
    assert page(bridge, "/status").json()["ok"]

    # Killed.
    killed = of(bridge, leader(client, "poller"))
    bridge.kill(killed)
    began = time.monotonic()
    bridge.start("poller")
    world.reports(2, first=7)
    wait_until(lambda: delivered(world, references(7, 8)), TAKE_OVER + BESIDES)
    assert time.monotonic() - began < TAKE_OVER + BESIDES
    assert problem(bridge, "poller") == "", "a process that is gone is not held against the others"

    # Frozen while it waits for the rest of a listing, which is out of date when it wakes up. A worker freezes as well.
    wait_until(lambda: leader(client, "dispatcher"))
    frozen = of(bridge, leader(client, "poller"))
    worker = bridge.processes[2]
    seen = len(world.huntress.requests_to("/incident_reports$"))
    world.huntress.fault("late", path="/incident_reports$", delay=0.5, times=1)
    wait_until(lambda: len(world.huntress.requests_to("/incident_reports$")) > seen)
    for process in (frozen, worker):
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: world.huntress._in_flight == 0)
    world.huntress.reports[1]["subject"] = "CHANGED - while the leader was frozen"
    world.reports(2, first=9)
    wait_until(lambda: delivered(world, references(9, 10)), TAKE_OVER + BESIDES)
    assert time.monotonic() - began < TAKE_OVER + BESIDES
    wait_until(lambda: leader(client, "poller") not in (0, frozen.pid))
    assert client.hget("bridge:report:1", "version") == "2"
    wait_until(lambda: time.monotonic() - began > 16.5)
    hung = bridge("healthcheck", "worker")
    assert hung.returncode == 1
    assert f"worker (pid {worker.pid}) gave no sign of life" in hung.stdout
    assert f"poller (pid {frozen.pid}) gave no sign of life" in problem(bridge, "poller")
    assert problem(bridge, "web") == ""
    successor = leader(client, "poller")
    lines = log_of(bridge, frozen).count('"another process polls now"')
    for process in (frozen, worker):
        process.send_signal(signal.SIGCONT)
    wait_until(lambda: log_of(bridge, frozen).count('"another process polls now"') > lines, 10)
    assert client.hget("bridge:report:1", "version") == "2", "what it had read was out of date"
    assert leader(client, "poller") == successor
    wait_until(lambda: problem(bridge, "worker") == "", 10)

    # Stopped in order: no wait for a lease to end.
    leaving = of(bridge, leader(client, "poller"))
    began = time.monotonic()
    assert bridge.stop(leaving, 6) == 0
    wait_until(lambda: leader(client, "poller") not in (0, leaving.pid), 4)
    assert time.monotonic() - began < 6
    world.reports(2, first=11)
    wait_until(lambda: delivered(world, references(11, 12)), 10)

    stop_all(bridge)
    assert_once_each(world, references(1, 12))
    nothing = bridge("healthcheck")
    assert (nothing.returncode, nothing.stdout) == (1, "no process of huntress-bridge runs on this host\n")
    assert problem(bridge, "worker") == "no worker of huntress-bridge runs on this host"
    assert "the page does not answer" in problem(bridge, "web")
    assert client.exists("bridge:meta"), "in the database that the URL names"
    client.close()
    for number in range(len(bridge.processes)):
        assert "word-of-redis" not in bridge.log(number)


class Stream:
    """Reports that keep arriving while something else goes on."""

    def __init__(self, world: World, every: float) -> None:
        self.world = world
        self.every = every
        self.made = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.made += 1
            self.world.report(self.made, (self.made - 1) % 3 + 1)


def test_redis_that_restarts_goes_away_hangs_or_comes_back_empty_costs_no_ticket_and_doubles_none(
    world: World, make_bridge: MakeBridge, server: RedisServer
) -> None:
    bridge = make_bridge(world, redis={"url": server.url}, connectors=short(world, "psa", "desk", "oncall"))
    for role in ("poller", "worker", "worker", "web"):
        bridge.start(role)
    world.connectwise.latency = world.autotask.latency = 0.02

    def goes_on(seconds: float, why: str) -> None:
        """Reports that arrive from now on are ticketed as well."""
        wanted = references(stream.made + 1, stream.made + 2)
        wait_until(lambda: delivered(world, wanted), seconds, why)

    with Stream(world, 0.5) as stream:
        goes_on(20, "after the start")
        server.restart()
        goes_on(20, "after a restart with its data")

        server.stop()
        time.sleep(3)  # the outage itself
        away = bridge("healthcheck", "worker")
        assert away.returncode == 1
        assert "Redis does not answer" in away.stdout
        assert page(bridge, "/readyz").status_code == 503
        assert page(bridge, "/healthz").status_code == 200
        server.start()
        goes_on(20, "after an outage")
        wait_until(lambda: problem(bridge, "worker") == "", 10)

        os.kill(server.pid, signal.SIGSTOP)  # it hangs, which is worse than being away
        try:
            monitors = [threading.Thread(target=page, args=(bridge, path)) for path in ["/status", "/readyz"] * 2]
            for monitor in monitors:
                monitor.start()
            began = time.monotonic()
            assert page(bridge, "/healthz").status_code == 200
            assert page(bridge, "/status").json() == {"ok": False, "problems": ["Redis does not answer"]}
            assert problem(bridge, "web") == "the page answers 503: Redis does not answer"
            assert time.monotonic() - began < 6
            for monitor in monitors:
                monitor.join()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        goes_on(20, "after it hung")
        wait_until(lambda: serves(bridge), 5)

        server.restart(empty=True)
        goes_on(40, "after coming back empty")
    wanted = references(1, stream.made)
    wait_until(lambda: delivered(world, wanted), 60)
    wait_until(lambda: set(world.mail_references()) == wanted, 30)
    assert all(process.poll() is None for process in bridge.processes), "nothing had to be restarted"
    wait_until(lambda: {row["state"] for row in bridge.deliveries()} == {"created"}, 30)
    stop_all(bridge)
    assert_once_each(world, wanted)


def test_a_wrong_password_is_a_sentence_without_it(world: World, make_bridge: MakeBridge, guarded: str) -> None:
    bridge = make_bridge(world, redis={"url": guarded.replace("pa%2F", "other%2F")}, connectors=short(world))
    refused = bridge("deliveries", "--json")
    assert refused.returncode == 2
    assert "redis" in refused.stderr.lower()
    for hidden in ("Traceback", "word-of-redis", "other/", "other%2F"):
        assert hidden not in refused.stdout + refused.stderr


HANGING = '''
import threading, typing
from bridge.models import TicketRef
from connectors.base import Connector, ConnectorSettings, TemplatePart

class Settings(ConnectorSettings):
    type: typing.Literal["hanging"]

class Hanging(Connector):
    """Ignores its time-out and never comes back."""
    type, settings_class, can_find = "hanging", Settings, False
    def parts(self): return [TemplatePart("title", "title.j2", single_line=True), TemplatePart("text", "text.j2")]
    def template_folder(self):
        import connectors, pathlib
        return pathlib.Path(connectors.__file__).parent.parent / "templates" / "connectwise"
    def system(self): return self.name
    def check(self): return []
    def find(self, reference): return []
    def prepare(self, ticket): return ticket
    def create(self, prepared, progress): threading.Event().wait()
    def note(self, ref, reference, note, progress=None): pass
'''


def test_a_worker_whose_threads_hang_fails_its_health_check(
    world: World, make_bridge: MakeBridge, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING, encoding="utf-8")
    information = tmp_path / "hanging-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(
        "[huntress_bridge.connectors]\nhanging = hanging:Hanging\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tables = {"stuck": {"type": "hanging", "timeout": 1, "concurrency": 4}}
    bridge = make_bridge(world, redis={"url": server.url}, connectors=tables)
    bridge.start("poller")
    worker = bridge.start("worker")

    def health() -> str:
        return bridge("healthcheck", "worker").stdout  # a process of its own, which knows the connector

    wait_until(lambda: '"ready"' in log_of(bridge, worker))
    world.reports(4)
    wait_until(lambda: f"worker (pid {worker.pid}): 4 of 6 worker threads hang" in health(), 20)
    assert bridge("healthcheck", "poller").returncode == 0
    assert "a step takes longer than it may; its lease is given up" in log_of(bridge, worker)
    bridge.kill(worker)
