"""Real Redis Sentinels on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from bridge.demo.run import free_port
from bridge.embedded import server_binary

#: The service that they watch.
SERVICE = "main"


class SentinelServer:
    """Watches the primary at `host` and `primary`, a port; counts it as down after `down_after` seconds.

    It listens on `address` and runs by the command `within`, if given, on another host.
    """

    def __init__(
        self,
        folder: Path,
        primary: int,
        *,
        quorum: int = 1,
        down_after: float = 0.3,
        host: str = "127.0.0.1",
        address: str = "127.0.0.1",
        within: Sequence[str] = (),
    ) -> None:
        self.address = address
        self.port = free_port(0)
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind {address}\nprotected-mode no\n"
            f"sentinel monitor {SERVICE} {host} {primary} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {round(down_after * 1000)}\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
        )
        with (folder / "sentinel.log").open("wb") as log:
            command = [*within, str(server_binary()), str(config), "--sentinel"]
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def client(self) -> redis.Redis:
        return redis.Redis(self.address, self.port, decode_responses=True)

    def sees(self, *, replicas: int, sentinels: int = 0) -> bool:
        """Does it know of that many replicas and other Sentinels by now?"""
        with self.client() as client, contextlib.suppress(redis.ConnectionError, KeyError):
            state = client.sentinel_masters()[SERVICE]
            return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (replicas, sentinels)
        return False

    def primary(self) -> int:
        """The port of the server that it calls the primary."""
        with self.client() as client:
            return int(client.sentinel_masters()[SERVICE]["port"])

    def follows(self, port: int) -> bool:
        """Is the server at `port` a replica that follows the primary?"""
        with self.client() as client:
            found = {int(one["port"]): one for one in client.sentinel_slaves(SERVICE)}
        return port in found and found[port]["master-link-status"] == "ok" and not found[port]["is_disconnected"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextlib.contextmanager
def sentinels(
    primary: int, *, number: int = 1, replicas: int = 1, down_after: float = 0.3, within: float = 20
) -> Iterator[list[SentinelServer]]:
    """So many Sentinels that know each other and the replicas."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(number):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp")))
            started.append(SentinelServer(folder, primary, quorum=number // 2 + 1, down_after=down_after))
            stack.callback(started[-1].kill)
        wait_until_known(started, replicas=replicas, within=within)
        yield started


def wait_until_known(started: Sequence[SentinelServer], *, replicas: int, within: float = 20) -> None:
    """Returns when they know each other and the replicas."""
    deadline = time.monotonic() + within
    while not all(one.sees(replicas=replicas, sentinels=len(started) - 1) for one in started):
        assert time.monotonic() < deadline, "the Sentinels do not find each other and the replicas"
        time.sleep(0.05)


def sentinel_url(started: Sequence[SentinelServer]) -> str:
    return f"redis+sentinel://{','.join(f'{one.address}:{one.port}' for one in started)}/{SERVICE}/0"
