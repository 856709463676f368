"""How fast the command answers and is ready, and what it holds in memory while idle. Memory needs Linux."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.mailbox import PretendMailbox
from bridge.demo.run import free_port, toml
from tests.benchmarks.table import Row

COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))

#: Seconds after `run` is ready until its memory is looked at.
IDLE = 8.0


def help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def ready_seconds(process: subprocess.Popen[bytes], port: int, began: float) -> float:
    """Seconds from `began` until the page says that this process can serve."""
    while process.poll() is None and time.perf_counter() - began < 60:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return time.perf_counter() - began
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise SystemExit("run ended, or was not ready within a minute")


def resident(pids: set[int]) -> dict[str, float]:
    """Megabytes resident (`VmRSS`) of each process, by its name and id."""
    found = {}
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        found[f"{fields['Name'].strip()} {pid}"] = int(fields["VmRSS"].split()[0]) / 1024
    return found


def processes(pid: int, data_dir: Path) -> set[int]:
    """`run` itself, its children, and the embedded Redis, which is nobody's child."""
    pids = {pid, int((data_dir / "redis.pid").read_text("ascii"))}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) in pids:
                pids.add(int(folder.name))
    return pids


def run_figures(folder: Path, config: Path, port: int, idle: float) -> tuple[float, dict[str, float]]:
    """Seconds until `run` is ready, and what it holds `idle` seconds later."""
    began = time.perf_counter()
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "--config", config, "run"], cwd=folder, stdout=log, stderr=log)
    try:
        ready = ready_seconds(process, port, began)
        time.sleep(idle)
        memory = resident(processes(process.pid, folder / "data"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return ready, memory


def measure(runs: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        folder = Path(name)
        huntress = PretendHuntress(organizations=3)
        psa, desk, mailbox = PretendConnectWise(), PretendAutotask(), PretendMailbox()
        config, port = folder / "bridge.toml", free_port(0)
        with huntress, psa, desk, mailbox:
            tables = {
                "data_dir": str(folder / "data"),
                "web": {"port": port},
                "huntress": huntress.settings(),
                "connectors": {"psa": psa.settings(), "desk": desk.settings(), "oncall": mailbox.settings()},
            }
            config.write_text(toml(tables), encoding="utf-8")
            helps = [help_seconds() for _ in range(runs)]
            readies, memories = zip(*(run_figures(folder, config, port, IDLE) for _ in range(runs)), strict=True)
    shares = ", ".join(f"{size:.0f} MB {name}" for name, size in memories[-1].items())
    return [
        Row("`huntress-bridge --help`", "s", helps, 0.25),
        Row("`run` until `/readyz` answers", "s", readies, 1.5, note="embedded Redis, three connectors"),
        Row(
            "`run` idle, resident, all its processes", "MB", [sum(each.values()) for each in memories], 110, note=shares
        ),
    ]
