"""How long the lists of a large account take, and what memory fifty thousand agents need. Memory needs Linux."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bridge.demo.run import toml
from tests.benchmarks.table import Row
from tests.crowd import BY_NAME, ORGANIZATIONS, Crowd, serve_agents

COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))
FEW, MANY = 500, 50_000
#: Rows by name: unit and goal. Requests are those to Huntress in the first minute, with the default budget.
GOALS = {
    f"`organizations list`, {ORGANIZATIONS:,} organizations": ("s", 10.0),
    f"`organizations match`, {ORGANIZATIONS:,} organizations": ("s", 5.0),
    "both lists' requests to Huntress": ("", 15.0),
    f"`agents list`, {MANY:,} agents: memory beyond what {FEW} need": ("MB", 20.0),
}


def run(folder: Path, *arguments: str) -> tuple[float, float, Path]:
    """Seconds, peak megabytes resident, and the output of one command."""
    output = folder / "output"
    began = time.perf_counter()
    with output.open("wb") as stream:
        process = subprocess.Popen([COMMAND, "--config", folder / "bridge.toml", *arguments], stdout=stream)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, output


def measure(runs: int) -> list[Row]:
    found = [lists() for _ in range(runs)]
    return [
        Row(what, unit, values, goal)
        for (what, (unit, goal)), values in zip(GOALS.items(), zip(*found, strict=True), strict=True)
    ]


def lists() -> tuple[float, float, float, float]:
    """What `GOALS` says, once."""
    crowd = Crowd()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-")))
        for system in crowd.systems:
            stack.enter_context(system)
        tables = {"data_dir": str(folder / "data"), "connectors": crowd.connectors()}
        config = folder / "bridge.toml"

        # The default budget, of which commands take half: what asks for more has to wait, and would not meet its goal.
        config.write_text(toml(tables | {"huntress": crowd.huntress.settings(requests_per_minute=30)}), "utf-8")
        listing, _, output = run(folder, "organizations", "list", "--json")
        rows = json.loads(output.read_text("utf-8"))
        ways = [place["matched_by"] for row in rows for place in row["companies"]]
        if (len(rows), ways.count("name")) != (ORGANIZATIONS, 2 * BY_NAME):
            raise SystemExit(f"{len(rows)} organizations, {ways.count('name')} times by name")
        matching, _, output = run(folder, "organizations", "match", "psa")
        if not any(line.split(",")[2] for line in output.read_text("utf-8").splitlines()[1:]):
            raise SystemExit("nothing was proposed")
        requests = len(crowd.huntress.received)

        config.write_text(toml(tables | {"huntress": crowd.huntress.settings()}), "utf-8")
        serve_agents(crowd.huntress, FEW)
        _, few, _ = run(folder, "agents", "list", "--csv")
        serve_agents(crowd.huntress, MANY)
        _, many, output = run(folder, "agents", "list", "--csv")
        if (lines := output.read_text("utf-8").count("\n")) != 1 + MANY:
            raise SystemExit(f"{lines - 1} of {MANY} agents")
    return listing, matching, requests, many - few
