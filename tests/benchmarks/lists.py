"""How long the lists of a large account take, and what memory fifty thousand agents need. Not a test: prints a table.

Run it with the Python that huntress-bridge is installed for: `python tests/benchmarks/lists.py`. Memory needs Linux.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bridge.demo.run import toml
from tests.crowd import BY_NAME, ORGANIZATIONS, Crowd, serve_agents

COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))
FEW, MANY = 500, 50_000
#: Goals: seconds of the whole command, megabytes, requests to Huntress in the first minute with the default budget.
GOALS = {"organizations list": 10.0, "organizations match": 5.0, "agents, more memory": 20.0, "requests": 15.0}


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


def main() -> None:
    crowd = Crowd()
    seen: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-")))
        for system in crowd.systems:
            stack.enter_context(system)
        tables = {"data_dir": str(folder / "data"), "connectors": crowd.connectors()}
        config = folder / "bridge.toml"

        # The default budget, of which commands take half: what asks for more has to wait, and would not meet its goal.
        config.write_text(toml(tables | {"huntress": crowd.huntress.settings(requests_per_minute=30)}), "utf-8")
        seen["organizations list"], _, output = run(folder, "organizations", "list", "--json")
        rows = json.loads(output.read_text("utf-8"))
        ways = [place["matched_by"] for row in rows for place in row["companies"]]
        if (len(rows), ways.count("name")) != (ORGANIZATIONS, 2 * BY_NAME):
            raise SystemExit(f"{len(rows)} organizations, {ways.count('name')} times by name")
        table, _, _ = run(folder, "organizations", "list")
        seen["organizations match"], _, output = run(folder, "organizations", "match", "psa")
        proposed = sum(line.split(",")[2] != "" for line in output.read_text("utf-8").splitlines()[1:])
        seen["requests"] = len(crowd.huntress.received)

        config.write_text(toml(tables | {"huntress": crowd.huntress.settings()}), "utf-8")
        serve_agents(crowd.huntress, FEW)
        _, few, _ = run(folder, "agents", "list", "--csv")
        serve_agents(crowd.huntress, MANY)
        seconds, many, output = run(folder, "agents", "list", "--csv")
        lines = output.read_text("utf-8").count("\n")
        seen["agents, more memory"] = many - few

    click.echo(f"Python {'.'.join(map(str, sys.version_info[:3]))}, {os.cpu_count()} cores")
    click.echo(f"{ORGANIZATIONS} organizations, {BY_NAME} by name in each PSA; {proposed} of the others proposed")
    click.echo(
        f"as a table {table:.2f} s; {lines - 1} agents in {seconds:.1f} s, peak {many:.0f} MB; {FEW}: {few:.0f} MB"
    )
    click.echo(f"{'what':24} {'seen':>9} {'goal':>9}")
    for what, goal in GOALS.items():
        click.echo(f"{what:24} {seen[what]:9.2f} {goal:9.2f}")
    sys.exit(0 if all(seen[what] <= goal for what, goal in GOALS.items()) else 1)


if __name__ == "__main__":
    main()
