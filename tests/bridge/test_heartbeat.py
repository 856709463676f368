"""The dead man's switch: a real monitor on loopback, asked by a poller as a process has it."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import logs
from bridge.demo.run import toml
from bridge.demo.server import PretendServer, Received, Reply
from bridge.heartbeat import TIMEOUT, Heartbeat
from bridge.idempotency import Deposed
from bridge.poller import Poller
from bridge.processes import Process
from bridge.settings import secrets
from bridge.web.status import status
from connectors.http import redact
from tests.bridge.stage import Stage, Systems

TOKEN = "0d338dcc-a054-11ec-b909-0242ac120002"
#: Where monitors put the token, and that token.
PATHS = (
    (f"/{TOKEN}", TOKEN),
    (f"/api/push/{TOKEN}?status=up&msg=OK", TOKEN),
    (f"/ping?key={TOKEN}", TOKEN),
    ("/k3yOfTheProject/huntress-bridge", "k3yOfTheProject"),
    ("/p/letters", "letters"),
)


class Monitor(PretendServer):
    """Takes heartbeats under any path."""

    def answer(self, request: Received) -> Reply:
        return Reply(200, "OK")


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as monitor:
        yield monitor


@pytest.fixture
def make(redis_url: str, tmp_path: Path, systems: Systems) -> Iterator[Callable[..., Stage]]:
    with contextlib.ExitStack() as stack:

        def make(url: str, **alerts: Any) -> Stage:
            tables = {"alerts": {"heartbeat_url": url} | alerts, "web": {"port": 1}}
            return stack.enter_context(
                Stage(redis_url, tmp_path, systems, {"oncall": systems.mailbox.settings()}, **tables)
            )

        yield make


@pytest.fixture
def pollers() -> Iterator[Callable[[Stage], Poller]]:
    with contextlib.ExitStack() as stack:

        def start(stage: Stage) -> Poller:
            """The poller of one process, with everything that belongs to it but its loop."""
            process = Process(stage.runtime, ())
            stack.callback(process.stop)
            return process.make_poller()

        yield start


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def cycle(poller: Poller) -> bool:
    wait_for(lambda: poller.leadership.attempt())
    return poller.cycle().complete


def sender(stage: Stage) -> Heartbeat:
    return Heartbeat(stage.runtime.books, lambda: stage.runtime.settings.alerts)


def test_every_complete_poll_is_one_get_and_no_other_is(
    make: Callable[..., Stage], pollers: Callable[[Stage], Poller], monitor: Monitor, systems: Systems
) -> None:
    stage = make(f"{monitor.url}/api/push/{TOKEN}?status=up&msg=OK")
    poller = pollers(stage)
    assert cycle(poller)
    wait_for(lambda: len(monitor.received) == 1)
    (request,) = monitor.received
    assert (request.method, request.path, request.body) == ("GET", f"/api/push/{TOKEN}", b"")
    assert dict(request.query) == {"status": "up", "msg": "OK"}
    wait_for(lambda: status(stage.runtime)["alerts"]["heartbeat_at"])
    assert cycle(poller)
    wait_for(lambda: len(monitor.received) == 2)
    systems.huntress.fault("status", status=500, times=None)
    assert not cycle(poller)
    systems.huntress.faults.clear()
    assert cycle(poller)
    wait_for(lambda: len(monitor.received) == 3)


def test_a_poll_in_which_one_organization_could_not_be_listed_sends_nothing(
    make: Callable[..., Stage], pollers: Callable[[Stage], Poller], systems: Systems
) -> None:
    stage = make("")
    stage.config.write_text(stage.config.read_text("utf-8") + '\n[poll]\nscope = "organization"\n', "utf-8")
    assert stage.runtime.reload()
    poller = pollers(stage)
    completed: list[bool] = []
    poller.completed = lambda: completed.append(True)
    systems.huntress.fault("status", status=500, times=None, path="incident_reports", about="^2$")
    assert not cycle(poller)
    assert completed == []
    systems.huntress.faults.clear()
    assert cycle(poller)
    assert completed == [True]


def test_a_poller_that_was_deposed_meanwhile_sends_nothing(
    make: Callable[..., Stage], pollers: Callable[[Stage], Poller], monitor: Monitor
) -> None:
    stage = make(f"{monitor.url}/{TOKEN}")
    frozen, successor = pollers(stage), pollers(stage)
    wait_for(frozen.leadership.attempt)
    frozen.leadership.stop()
    frozen.leadership._number, frozen.leadership._renewed_at = 1, time.monotonic()  # it does not know yet
    with pytest.raises(Deposed):
        frozen.cycle()
    assert cycle(successor)
    wait_for(lambda: monitor.received)
    assert len(monitor.received) == 1


def test_a_monitor_that_hangs_holds_up_no_poll(
    make: Callable[..., Stage], pollers: Callable[[Stage], Poller], monitor: Monitor
) -> None:
    poller = pollers(make(f"{monitor.url}/{TOKEN}"))
    monitor.fault("hang", delay=60, times=None)
    began = time.monotonic()
    for _ in range(5):
        assert cycle(poller)
    assert time.monotonic() - began < TIMEOUT / 2
    wait_for(lambda: monitor.received)
    assert len(monitor.received) == 1, "the others count as one"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "status", "status": 404}, "404"),
        ({"kind": "status", "status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "302"),
        ({"kind": "drop"}, "GET"),
    ],
)
def test_trouble_is_said_once_and_once_when_it_is_over(
    make: Callable[..., Stage],
    monitor: Monitor,
    fault: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    stage = make(f"{monitor.url}/{TOKEN}")
    heartbeat = sender(stage)
    trouble = monitor.fault(times=None, **fault)
    with capture_logs() as entries:
        for _ in range(3):
            heartbeat.send()
        shown = status(stage.runtime)
        monitor.faults.remove(trouble)
        for _ in range(3):
            heartbeat.send()
    requests = [entry for entry in entries if entry["log_level"] == "debug"]
    told = [entry for entry in entries if entry not in requests]
    assert len(requests) == 6
    assert [entry["log_level"] for entry in told] == ["warning", "info"]
    assert said in told[0]["reason"]
    assert TOKEN not in str(entries)
    assert shown["alerts"]["heartbeat_problem"] == told[0]["reason"]
    assert shown["ok"] is status(stage.runtime)["ok"], "the monitor itself raises the alarm"
    assert status(stage.runtime)["alerts"]["heartbeat_problem"] == ""
    assert len(monitor.received) == 6, "each is sent once, and no redirect is followed"


def test_a_changed_url_is_used_without_a_restart_and_none_sends_nothing(
    make: Callable[..., Stage], monitor: Monitor
) -> None:
    stage = make(f"{monitor.url}/first")
    heartbeat = sender(stage)
    heartbeat.send()
    text = stage.config.read_text("utf-8")
    monitor.fault("status", status=404, path="second")
    for path in (f"second-{TOKEN}", ""):
        stage.config.write_text(text.replace(f"{monitor.url}/first", f"{monitor.url}/{path}" if path else ""), "utf-8")
        assert stage.runtime.reload()
        heartbeat.send()
    assert [request.path for request in monitor.received] == ["/first", f"/second-{TOKEN}"]
    problem = status(stage.runtime)["alerts"]["heartbeat_problem"]
    assert "404" in problem
    assert TOKEN not in problem, "what belongs to the old URL was left behind with it"


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize(("path", "token"), PATHS)
def test_the_url_is_nowhere_to_be_read(make: Callable[..., Stage], monitor: Monitor, path: str, token: str) -> None:
    stage = make(f"{monitor.url}{path}")
    stream = io.StringIO()
    logs.configure("debug", lambda: secrets(stage.runtime.settings), stream)
    monitor.fault("status", status=404, body={"message": f"no check {token if '3' in token else ''} at {path}"})
    monitor.fault("drop")
    for _ in range(3):
        sender(stage).send()
    said = [stream.getvalue(), repr(stage.runtime.settings), toml(stage.runtime.settings.masked()["alerts"])]
    said += [str(stage.store.client.hgetall(stage.store.key("poll"))), str(status(stage.runtime))]
    assert len(monitor.received) == 3
    assert "no check" in said[0]
    assert '"method": "GET", "url"' in said[0], "at this level addresses are logged"
    assert all(token not in text for text in said)
    masked = redact("huntress-bridge check --online", secrets(stage.runtime.settings))
    assert masked == "huntress-bridge check --online", "a monitor's name for us may be said"


def test_it_ends_when_it_is_told_and_sends_what_is_due_first(make: Callable[..., Stage], monitor: Monitor) -> None:
    heartbeat, stopping = sender(make(monitor.url)), threading.Event()
    thread = threading.Thread(target=heartbeat.run, args=(stopping,))
    thread.start()
    stopping.set()
    heartbeat.polled()
    heartbeat.end()
    thread.join(10)  # less than it waits for by itself
    assert not thread.is_alive()
    assert len(monitor.received) == 1
