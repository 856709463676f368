"""One bridge under load with its supervisor: what is killed, frozen or stopped is there again at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.figures import Figures
from tests.faults.judge import Judge, wait_until_quiet

#: Seconds for a site to deliver everything once the last fault is over: where little has piled up, and where much has.
PATIENCE, LONG_PATIENCE = 300.0, 900.0

#: (connector, report) of a delivery that a process works on.
Held = tuple[str, int]


def wait_until_ready(bridge: Bridge, process: subprocess.Popen[str], number: int = -1) -> None:
    """Looks until the process that started as `number` says so."""
    wait_until(lambda: '"ready"' in bridge.log(number) or process.poll() is not None, 60, "the process is ready")
    assert process.poll() is None, bridge.log(number)


class Site:
    """Pretend systems, a bridge, and its processes by role; `server` is the Redis they share, None the embedded one."""

    def __init__(self, world: World, bridge: Bridge, roles: tuple[str, ...], server: RedisServer | None = None) -> None:
        self.world = world
        self.bridge = bridge
        self.judge = Judge(world)
        self.server = server
        socket = server.socket if server else bridge.data_dir / "redis.sock"
        patience = Retry(ConstantBackoff(0.2), 150, (redis.ConnectionError,))  # Redis may be what was killed
        self.client = redis.Redis(unix_socket_path=str(socket), decode_responses=True, retry=patience)
        self.processes = [(role, bridge.start(role)) for role in roles]

    def wait_until_ready(self) -> None:
        for _, process in self.processes:
            wait_until_ready(self.bridge, process, self.bridge.processes.index(process))

    def again(self, index: int) -> None:
        """Starts a process that is gone, as a supervisor does."""
        role, _ = self.processes[index]
        self.processes[index] = (role, self.bridge.start(role))

    def held(self) -> set[Held]:
        """Deliveries on their way to a ticket that some process holds now."""
        found = set()
        for group in self.client.scan_iter("bridge:slots:*"):
            for member in self.client.zrange(group, 0, -1):
                report, connector = str(member).split("|")
                state, owner = self.client.hmget(f"bridge:delivery:{report}:{connector}", "state", "owner")
                if owner and state in ("pending", "creating"):
                    found.add((connector, int(report)))
        return found

    def wait_until_busy(self) -> None:
        wait_until(self.held, 30, "something is on its way")

    def created(self, held: Held) -> bool:
        return self.client.hget(f"bridge:delivery:{held[1]}:{held[0]}", "state") == "created"

    def looked_up(self, held: Held, after: float) -> float | None:
        """Seconds from `after`, a time.monotonic(), to the first look-up that the PSA received later than it."""
        connector, number = held
        found = [look_up.at for look_up in self.world.psas()[connector].look_ups(number) if look_up.at > after]
        return found[0] - after if found else None

    def freeze(self, index: int) -> None:
        os.killpg(self.processes[index][1].pid, signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        os.killpg(self.processes[index][1].pid, signal.SIGCONT)

    def kill(self, index: int, *, redis_too: bool = False) -> tuple[float, set[Held]]:
        """Kills a whole process group. Returns the moment and what was held then, by any process."""
        self.freeze(index)
        held = self.held()
        if redis_too:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self.bridge.data_dir / "redis.pid").read_text()), signal.SIGKILL)
        self.bridge.kill(self.processes[index][1])
        return time.monotonic(), held

    def wait_until_quiet(self, seconds: float = 60) -> None:
        """Returns when no delivery is on its way any more; only then can no second ticket come."""
        states = ("pending", "creating")
        wait_until(
            lambda: not any(self.client.zcard(f"bridge:state:{state}") for state in states),
            seconds,
            "no delivery is on its way",
        )

    def judged(
        self, fault: str, faults: int, remarks: str = "", *, since: float | None = None, patience: float = PATIENCE
    ) -> Figures:
        """Waits until all is delivered, for `patience` seconds at most; then stops every process and counts.

        `since`: when the last fault was over, by time.monotonic(); None: now.
        """
        since = time.monotonic() if since is None else since
        self.judge.wait_until_complete(patience)
        settled = time.monotonic() - since
        rows = wait_until_quiet(self.bridge)
        assert all(process.poll() is None for _, process in self.processes), "a process ended by itself"
        self.stop()
        assert self.orderly(), next(log for log in self.logs() if "Traceback" in log)[-4000:]
        strange = sorted({row["state"] for row in rows} - {"created", "closed"})
        assert not strange, f"deliveries that a person must look at: {strange}"
        missing, doubled = self.judge.missing(), self.judge.doubled()
        return Figures(fault, len(self.judge.numbers()), faults, len(missing), len(doubled), settled, remarks)

    def stop(self) -> None:
        """SIGTERM to everything; each process ends with exit code 0."""
        for _, process in self.processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(40) for _, process in self.processes]
        assert set(codes) == {0}, [log[-2000:] for log in self.logs()]

    def logs(self) -> list[str]:
        return [self.bridge.log(number) for number in range(len(self.bridge.processes))]

    def orderly(self) -> bool:
        """No process printed a traceback."""
        return not any("Traceback" in log for log in self.logs())
