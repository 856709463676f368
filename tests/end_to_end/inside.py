"""The command line inside the test's own process: quick, for what needs no process of its own."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import structlog
from click.testing import CliRunner, Result

from bridge.cli import main


def inside(*arguments: str | Path, config: Path | None = None, **variables: str) -> Result:
    """Runs one command, in the folder of its configuration. What it did not expect to go wrong is raised here."""
    given = [] if config is None else ["--config", str(config)]
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        with contextlib.chdir(config.parent if config else "."):
            result = CliRunner().invoke(main, [*given, *map(str, arguments)], env=variables)
    finally:
        # The command logs to the runner's own standard error, which is closed now.
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
