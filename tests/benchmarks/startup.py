"""How fast the command answers and is ready, and what it holds in memory while idle. Not a test: prints a table.

Run it with the Python that huntress-bridge is installed for: `python tests/benchmarks/startup.py`. Memory needs Linux.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.mailbox import PretendMailbox
from bridge.demo.run import free_port, toml

COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))

#: Samples of each time; the median counts.
SAMPLES = 5
#: Seconds after `run` is ready until its memory is looked at.
IDLE = 8.0
#: Goals: seconds, seconds, megabytes.
GOALS = {"--help": 0.4, "run ready": 2.0, "run idle memory": 130.0}


def help_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def ready_seconds(port: int, began: float) -> float:
    """Seconds from `began` until the page says that this process can serve."""
    while time.perf_counter() - began < 60:
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
    raise SystemExit("run was not ready within a minute")


def resident(pids: set[int]) -> dict[str, float]:
    """Megabytes resident (`VmRSS`) of each process, by its name and id."""
    found = {}
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        found[f"{fields['Name'].strip()} ({pid})"] = int(fields["VmRSS"].split()[0]) / 1024
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
    """Seconds until `run` is ready, and what it holds after `idle` seconds (0: not looked at)."""
    began = time.perf_counter()
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "--config", config, "run"], cwd=folder, stdout=log, stderr=log)
    try:
        ready = ready_seconds(port, began)
        time.sleep(idle)
        memory = resident(processes(process.pid, folder / "data")) if idle else {}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return ready, memory


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        folder = Path(name)
        huntress = PretendHuntress(organizations=3)
        psa, desk, mailbox = PretendConnectWise(), PretendAutotask(), PretendMailbox()
        systems = (huntress, psa, desk, mailbox)
        for system in systems:
            system.start()
        port = free_port(0)
        tables = {
            "data_dir": str(folder / "data"),
            "web": {"port": port},
            "huntress": huntress.settings(),
            "connectors": {"psa": psa.settings(), "desk": desk.settings(), "oncall": mailbox.settings()},
        }
        config = folder / "bridge.toml"
        config.write_text(toml(tables), encoding="utf-8")
        try:
            helps = [help_seconds() for _ in range(SAMPLES)]
            readies = [run_figures(folder, config, port, 0)[0] for _ in range(SAMPLES - 1)]
            last, memory = run_figures(folder, config, port, IDLE)
        finally:
            for system in systems:
                system.stop()
    seen = {
        "--help": statistics.median(helps),
        "run ready": statistics.median([*readies, last]),
        "run idle memory": sum(memory.values()),
    }
    worst = {"--help": max(helps), "run ready": max(*readies, last)}
    version = ".".join(map(str, sys.version_info[:3]))
    click.echo(f"Python {version}, {os.cpu_count()} cores, median of {SAMPLES}")
    click.echo(f"{'what':20} {'seen':>9} {'worst':>9} {'goal':>9}")
    for what, goal in GOALS.items():
        unit = "MB" if what.endswith("memory") else "s"
        shown = f"{worst[what]:7.2f} {unit}" if what in worst else ""
        click.echo(f"{what:20} {seen[what]:6.2f} {unit:2} {shown:>9} {goal:6.2f} {unit:2}")
    click.echo(json.dumps({name: round(size, 1) for name, size in memory.items()}))
    sys.exit(0 if all(seen[what] <= goal for what, goal in GOALS.items()) else 1)


if __name__ == "__main__":
    main()
