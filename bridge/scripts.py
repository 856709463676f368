"""What everything that speaks to the store shares: names of keys, Redis' clock, and its scripts (`bridge/lua`)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import redis


@functools.cache
def script_text(name: str) -> str:
    """A script's source, behind what all scripts share."""
    folder = Path(__file__).parent / "lua"
    return (folder / "common.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")


class Scripts:
    """One namespace of one server. `clock_offset` (seconds) shifts Redis' clock, for tests."""

    def __init__(self, client: redis.Redis, namespace: str, clock_offset: float = 0) -> None:
        self.client = client
        self.prefix = f"{namespace}:"
        self.clock_offset = clock_offset
        #: The birth mark of the store that this process knows; '' until it was opened.
        self.birth = ""
        self._scripts: dict[str, Any] = {}

    def key(self, name: str) -> str:
        return self.prefix + name

    def script(self, name: str, *arguments: object, client: Any = None) -> Any:
        """Runs one script; on a pipeline (`client`) it is only queued."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.client.register_script(script_text(name))
        offset = round(self.clock_offset * 1000)
        return script(keys=[self.prefix], args=[offset, self.birth, *map(str, arguments)], client=client)

    def now(self) -> float:
        """Redis' clock, in seconds since the epoch."""
        return self.moment(self.client.time())

    def moment(self, time: tuple[int, int]) -> float:
        """What Redis' command TIME answered, in seconds since the epoch."""
        return time[0] + time[1] / 1e6 + self.clock_offset
