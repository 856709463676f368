"""What everything that speaks to the store shares: names of keys, Redis' clock, and its scripts (`bridge/lua`)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import redis
from redis.client import Pipeline


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
        """Runs one script; on a pipeline (`client`) it is only queued, for `execute`."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.client.register_script(script_text(name))
        sent: list[int | str] = [round(self.clock_offset * 1000), self.birth, *map(str, arguments)]
        if isinstance(client, Pipeline):
            return client.evalsha(script.sha, 1, self.prefix, *sent)
        return script(keys=[self.prefix], args=sent, client=client)

    def execute(self, pipeline: Pipeline) -> list[Any]:
        """Carries out a pipeline without a transaction, with scripts in it, in one round trip.

        redis-py would ask before each whether the server has them. Here all is sent once more to one that lacks any.
        """
        commands = list(pipeline.command_stack)
        try:
            return pipeline.execute()
        except redis.exceptions.NoScriptError:
            for script in list(self._scripts.values()):
                self.client.script_load(script.script)
            pipeline.command_stack = commands
            return pipeline.execute()

    def now(self) -> float:
        """Redis' clock, in seconds since the epoch."""
        return self.moment(self.client.time())

    def moment(self, time: tuple[int, int]) -> float:
        """What Redis' command TIME answered, in seconds since the epoch."""
        return time[0] + time[1] / 1e6 + self.clock_offset
