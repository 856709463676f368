"""What a stored delivery takes in Redis, and what `run` holds in memory beside it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from bridge.broker import store_client
from bridge.demo.run import free_port, toml
from bridge.idempotency import IdempotencyStore
from tests.benchmarks.stored import CONNECTOR, FIRST, fill, make_one
from tests.benchmarks.table import Row
from tests.bridge.stage import Systems
from tests.conftest import RedisServer

COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))
#: Deliveries of which the share of all memory is taken, and those beside which `run` is looked at.
SOME, MANY = 100_000, 1_000_000
#: Seconds after `run` is ready until its memory is looked at.
IDLE = 8.0
#: Goals: bytes, bytes, megabytes.
RECORD, WITH_INDEX, RUN = 350, 600, 110
SMALL = ("listpack", "ziplist")


def measure(runs: int) -> list[Row]:
    """Sizes do not vary: those of Redis are taken once. `run` is started anew each time."""
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder, Systems().running() as systems:
        server = RedisServer(Path(folder), "--appendonly", "no")
        server.start()
        try:
            with contextlib.closing(store_client(server.url)) as client:
                store = IdempotencyStore(client)
                store.open()
                idle = [resident(Path(folder), server.url, systems) for _ in range(runs)]
                client.flushall()
                store.open()
                make_one(store, FIRST)
                key = store.key(f"delivery:{FIRST}:{CONNECTOR}")
                if client.object("encoding", key) not in SMALL:
                    raise SystemExit("a delivery at rest is no listpack")
                record = client.memory_usage(key, samples=0) or 0
                fill(store, 1)
                before = used(client)
                fill(store, SOME)
                share = (used(client) - before) / (SOME - 1)
                fill(store, MANY)
                full = [resident(Path(folder), server.url, systems) for _ in range(runs)]
                if client.zcard(store.key("state:closed")) != MANY:
                    raise SystemExit("run changed what was stored")
                whole = used(client) / 1e6
        finally:
            server.kill()
    version = f"a PSA delivery whose report is over, its snapshot forgotten; used_memory at {MANY:,}: {whole:.0f} MB"
    return [
        Row("Redis, a delivery at rest: its record", "bytes", [record], RECORD, note=version),
        Row("Redis, a delivery at rest with history and index entries", "bytes", [share], WITH_INDEX,
            note=f"used_memory, share of {SOME:,}"),
        Row("memory of run, idle", "MB", idle, RUN, note="all its processes but Redis, resident"),
        Row(f"memory of run, idle, {MANY:,} deliveries stored", "MB", full, RUN, note="as above"),
    ]  # fmt: skip


def used(client: object) -> int:
    return int(client.info("memory")["used_memory"])  # type: ignore[attr-defined]


def resident(folder: Path, url: str, systems: Systems) -> float:
    """Megabytes that `run` and its children hold, `IDLE` seconds after it is ready."""
    port = free_port(0)
    tables = {
        "huntress": systems.huntress.settings(),
        "redis": {"url": url},
        "web": {"port": port},
        "connectors": {"psa": systems.table("psa")},
    }
    config = folder / "bridge.toml"
    config.write_text(toml(tables), "utf-8")
    config.chmod(0o600)
    process = subprocess.Popen([COMMAND, "--config", config, "run"], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        _wait_until_ready(port)
        time.sleep(IDLE)
        family = psutil.Process(process.pid)
        return float(sum(each.memory_info().rss for each in (family, *family.children(recursive=True)))) / 1e6
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return
        time.sleep(0.05)
    raise SystemExit("run was not ready within a minute")
