"""Runs the benchmarks and prints one table: `python -m tests.benchmarks [NAME …] [--runs 5]`.

Ends with 1 where a goal is missed. Each module of this folder that has a function `measure(runs)` is one of them. The
peers come with `pip install -e '.[benchmarks]'`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys

import click

import tests.benchmarks
from bridge import logs
from tests.benchmarks.table import Row, table


def benchmarks() -> dict[str, object]:
    """By name, those modules that have `measure`."""
    names = [each.name for each in pkgutil.iter_modules(tests.benchmarks.__path__) if each.name != "__main__"]
    modules = {name: importlib.import_module(f"tests.benchmarks.{name}") for name in sorted(names)}
    return {name: module for name, module in modules.items() if hasattr(module, "measure")}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--runs", default=5, show_default=True, help="How often each figure is measured.")
def main(names: tuple[str, ...], runs: int) -> None:
    """Measures what NAMES say, or everything."""
    known = benchmarks()
    for name in names:
        if name not in known:
            raise click.UsageError(f"{name} is no benchmark; there are: {', '.join(known)}")
    rows: list[Row] = []
    for name in names or known:
        click.echo(f"… {name}", err=True)
        rows += known[name].measure(runs)  # type: ignore[attr-defined]
    click.echo(f"CPython {platform.python_version()}, {os.cpu_count()} cores, {runs} runs: min – median – max\n")
    click.echo(table(rows))
    sys.exit(0 if all(row.met() for row in rows) else 1)


if __name__ == "__main__":
    logs.configure("error")
    main()
