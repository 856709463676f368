"""Fixtures for every test: real Redis servers, on a Unix socket in a short temporary folder."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
import structlog

from bridge.embedded import server_binary
from tests.faults.figures import table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the fault suite and the model in their long forms")
    parser.addoption(
        "--take-screenshots", action="store_true", help="write docs/screenshots anew from what is shown now"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits longest starts first: files of few tests, which the others run beside."""
    waiting = ("tests/faults/", "tests/end_to_end/")
    items.sort(key=lambda item: not item.nodeid.startswith(waiting))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of the fault suite."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    lines = table(entry for report in reports for entry in report.user_properties)
    if lines:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(lines))


class RedisServer:
    """A server process that a test may stop, kill, and start again with its data or empty. Its URL never changes."""

    def __init__(self, folder: Path, *options: str, within: Sequence[str] = ()) -> None:
        self.folder = folder
        self.options = options
        #: What stands before the command, e.g. to run it on another host.
        self.within = within
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None
        #: A fault may still be stopping it, on a thread of a pretend system, when a test starts it again.
        self._turn = threading.RLock()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def client(self, db: int = 0) -> redis.Redis:
        """A plain client, without the retries and time-outs of ours."""
        return redis.Redis(unix_socket_path=str(self.socket), db=db, decode_responses=True)

    def start(self) -> None:
        with self._turn:
            self._start()

    def _start(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = [
            *self.within,
            str(server_binary()),
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--save",
            "",
            "--databases",
            "16",
        ]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *self.options], cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        with self.client() as client:
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    return
                assert self._process.poll() is None, (self.folder / "redis.log").read_text()
                assert time.monotonic() < deadline, "the server did not start within 10 s"
                time.sleep(0.005)

    def stop(self) -> None:
        """An orderly end; what the append-only file holds stays."""
        with self._turn:
            if self._process is not None:
                self._process.terminate()
                self._process.wait(10)
                self._process = None

    def kill(self) -> None:
        with self._turn:
            if self._process is not None:
                self._process.kill()
                self._process.wait(10)
                self._process = None

    def restart(self, *, empty: bool = False) -> None:
        """`empty=True`: as if its disk had been lost. Data lasts only with the option `--appendonly yes`."""
        self.kill() if empty else self.stop()
        if empty:
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Logging may be configured; afterwards all is as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def short_tmp_path() -> Iterator[Path]:
    """pytest's own temporary folders have names too long for a Unix socket on some systems."""
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def redis_server(short_tmp_path: Path) -> Iterator[RedisServer]:
    """One server without persistence for the whole run. Use `redis_url` unless the server itself is the subject."""
    folder = short_tmp_path / "shared"
    folder.mkdir()
    server = RedisServer(folder, "--appendonly", "no")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared server, emptied: the store's database 0, and 1 for Dramatiq."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def make_redis_server() -> Iterator[Callable[..., RedisServer]]:
    """Starts a server of the test's own; arguments are server options, e.g. `"--appendonly", "yes"`."""
    with contextlib.ExitStack() as stack:

        def make(*options: str) -> RedisServer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp"))
            server = RedisServer(Path(folder), *options)
            stack.callback(server.kill)
            server.start()
            return server

        yield make
