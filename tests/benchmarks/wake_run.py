"""`run` as a user has it, but for polls that may come more often than once a second: for `latency`, which needs many.

As `python -m tests.benchmarks.wake_run CONFIG SECONDS`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bridge import logs
from bridge.processes import Process
from bridge.runtime import Runtime
from bridge.settings import load


def main(config: Path, seconds: float) -> None:
    settings = load(config, dict(os.environ))
    poll = settings.poll.model_copy(update={"interval": seconds})
    with Runtime(settings.model_copy(update={"poll": poll})) as runtime:
        Process(runtime, ("poller", "worker", "web")).run()


if __name__ == "__main__":
    logs.configure()
    main(Path(sys.argv[1]), float(sys.argv[2]))
