"""The whole bridge as its user runs it: the real command in a process of its own, between pretend systems.

The only judge is what the pretend systems received.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from bridge.demo import scenario
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.mailbox import PretendMailbox
from bridge.demo.run import free_port, toml
from bridge.models import Delivery, DeliveryState
from bridge.printing import deliveries_json, explained_deliveries
from bridge.reconcile import LATER
from bridge.runtime import Runtime
from bridge.settings import load
from tests.psa import Psa

#: The command as it is installed beside this Python.
COMMAND = Path(sys.executable).with_name("huntress-bridge")


def wait_until(condition: Callable[[], object], seconds: float = 30, why: str = "") -> None:
    """Looks until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {why or condition}"
        time.sleep(0.05)


class World:
    """The pretend systems, with as many organizations as a test wants, on loopback unless told otherwise.

    With `tls`, both PSAs speak https.
    """

    #: What the PSAs are made of, for tests that watch them more closely.
    connectwise_class: type[PretendConnectWise] = PretendConnectWise
    autotask_class: type[PretendAutotask] = PretendAutotask

    def __init__(
        self,
        organizations: int = 3,
        dialect: str = "incident_reports",
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.huntress = PretendHuntress(host, dialect=dialect, organizations=organizations)  # type: ignore[arg-type]
        names = [(raw["id"], raw["name"]) for raw in self.huntress.organizations.values()]
        companies = [(1, "Catchall", "Catchall"), *((1000 + id, f"ORG{id}", name) for id, name in names)]
        self.connectwise = self.connectwise_class(companies, host, tls=tls)
        self.autotask = self.autotask_class(
            [(175, "Catch-all"), *((2000 + id, name) for id, name in names)], host, tls=tls
        )
        self.mailbox = PretendMailbox(host)
        self.systems = (self.huntress, self.connectwise, self.autotask, self.mailbox)
        for number in range(1, organizations + 1):
            self.huntress.agents[number] = scenario.agent(number, number)

    def start(self, stack: contextlib.ExitStack) -> Self:
        """Starts every system; they stop with `stack`."""
        for system in self.systems:
            system.start()
            stack.callback(system.stop)
        return self

    def psas(self) -> dict[str, Psa]:
        """Both pretend PSAs by the names of their connectors."""
        return {"psa": Psa("psa", self.connectwise), "desk": Psa("desk", self.autotask)}

    def report(self, number: int, organization_id: int = 1, **fields: Any) -> None:
        """One more open report."""
        with self.huntress.lock:
            organization = self.huntress.organizations.get(organization_id) or scenario.organization(organization_id)
            agent = self.huntress.agents.get(organization_id)
            raw = scenario.incident(number, organization, agent) | fields
            if self.huntress.dialect == "reports":
                raw = {name: raw[name] for name in ("id",)} | {
                    "status": "open",
                    "created_at": raw["sent_at"],
                    "organization_id": organization_id,
                }
            self.huntress.reports[number] = raw

    def reports(self, count: int, first: int = 1, organizations: int = 3, **fields: Any) -> None:
        for number in range(first, first + count):
            self.report(number, (number - 1) % organizations + 1, **fields)

    def connectwise_references(self) -> Counter[str]:
        return Counter(ticket["externalXRef"] for ticket in list(self.connectwise.tickets.values()))

    def autotask_references(self) -> Counter[str]:
        return Counter(ticket["externalID"] for ticket in list(self.autotask.tickets.values()))

    def mail_references(self) -> Counter[str]:
        """References by mail received, from the constant Message-ID."""
        mails = list(self.mailbox.messages)
        return Counter(str(mail.message["Message-ID"]).strip("<>").split("@")[0] for mail in mails)

    def connectors(self, *names: str) -> dict[str, Any]:
        tables = {
            "psa": self.connectwise.settings(),
            "desk": self.autotask.settings(),
            "oncall": self.mailbox.settings(),
        }
        return {name: table for name, table in tables.items() if not names or name in names}


class Bridge:
    """The installed command with a configuration of its own."""

    def __init__(self, folder: Path, world: World, tables: dict[str, Any]) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "bridge.toml"
        self.port = free_port(0)
        self.tables: dict[str, Any] = {
            "data_dir": str(self.data_dir),
            "poll": {"interval": 1},
            "web": {"port": self.port},
            "huntress": world.huntress.settings(),
            "connectors": world.connectors(),
        } | tables
        #: Environment variables of its processes, beside the test's own.
        self.variables: dict[str, str] = {}
        self.processes: list[subprocess.Popen[str]] = []
        self.write()

    @classmethod
    def in_folder(cls, stack: contextlib.ExitStack, world: World, tables: dict[str, Any]) -> Self:
        """One with a folder of its own, whose path is short enough for a Unix socket; both end with `stack`."""
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
        bridge = cls(Path(folder), world, tables)
        stack.callback(bridge.end)
        return bridge

    def write(self, **changes: Any) -> None:
        """Writes the configuration, with whole tables replaced by `changes`."""
        self.tables |= changes
        self.config.write_text(toml(self.tables), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        return kept | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"} | self.variables

    def __call__(self, *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Runs one command to its end."""
        return subprocess.run(
            [COMMAND, "--config", self.config, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
            env=self.environment(),
        )

    def start(self, *arguments: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Starts a process in a group of its own, by the command `within` if given; its output goes to `<n>.log`."""
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [*within, COMMAND, "--config", self.config, *arguments],
                stdout=stream,
                stderr=stream,
                text=True,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, number: int = -1) -> str:
        """What one started process printed."""
        index = number if number >= 0 else len(self.processes) + number
        return (self.folder / f"{index}.log").read_text("utf-8")

    def deliveries(self) -> list[dict[str, Any]]:
        """What the command `deliveries --json` says; a process of its own would cost more than all that it does."""
        with Runtime(load(self.config, self.environment())) as runtime:
            rows: list[dict[str, Any]] = json.loads(deliveries_json(explained_deliveries(runtime)))
        return rows

    def unfinished(self) -> list[Delivery]:
        """Deliveries that are not made yet, or whose ticket still needs more than a look at its status."""
        with Runtime(load(self.config, self.environment())) as runtime:
            moving = (DeliveryState.PENDING, DeliveryState.CREATING)
            return [each for each in runtime.store.deliveries() if each.state in moving or set(each.todo) - LATER]

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL for the whole process group; an embedded Redis lives in a group of its own and is left an orphan."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def stop(self, process: subprocess.Popen[str], timeout: float = 40) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout)

    def end(self) -> None:
        """Leaves nothing running."""
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)
        if self.data_dir.exists():
            self("deliveries", "--json")  # adopts an orphaned embedded Redis, and stops it as its last user
            shutil.rmtree(self.data_dir, ignore_errors=True)


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    with contextlib.ExitStack() as stack:

        def make(organizations: int = 3, dialect: str = "incident_reports", tls: ssl.SSLContext | None = None) -> World:
            return World(organizations, dialect, tls=tls).start(stack)

        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def make_bridge() -> Iterator[Callable[..., Bridge]]:
    with contextlib.ExitStack() as stack:

        def make(world: World, **tables: Any) -> Bridge:
            return Bridge.in_folder(stack, world, tables)

        yield make
