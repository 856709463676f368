"""The bridge of the soak as it is run in production: its processes, their Redis, and who starts again what ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from pathlib import Path
from typing import Any

import psutil

from bridge.demo.run import free_port, toml
from bridge.demo.webhook_sender import SECRET
from tests.benchmarks.soak_verdict import PAGES
from tests.conftest import RedisServer

#: The command as it is installed beside this Python.
COMMAND = str(Path(sys.executable).with_name("huntress-bridge"))
#: By name, the command's argument.
PROCESSES = {"poller": "poller", "worker 1": "worker", "worker 2": "worker", "web": "web"}
#: The one that is killed now and then. It is always young, so that its curves say nothing of growth.
KILLED = "worker 2"
MEGABYTE = 1e6
#: How a line of the log says its level.
LEVELS = {level: f'"level": "{level}"'.encode() for level in ("info", "warning", "error", "critical")}
#: States of deliveries, as `bridge.models.DeliveryState` has them.
STATES = ("pending", "creating", "created", "rejected", "held", "closed", "handled", "gone")


class Outside:
    """The pretend systems (`tests.benchmarks.soak_world`). Its `url`s are in `tables`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._log = (folder / "world.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.soak_world"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self.tables = self._exchange(settings)

    def ask(self, name: str, *arguments: Any) -> dict[str, Any]:
        """What a method of `World` answers."""
        return self._exchange([name, *arguments])

    def _exchange(self, question: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the pretend systems ended: {Path(self._log.name).read_text()[-2000:]}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._log.close()


class Role:
    """One process of the bridge under supervision; its log is read and emptied as it grows."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name.replace(' ', '')}.log"
        #: Processor seconds of processes that are gone.
        self.spent = 0.0
        self.starts = 0
        #: Lines of the log by level, and the last ones of the worst.
        self.levels: Counter[str] = Counter()
        self.worst: deque[str] = deque(maxlen=20)
        self._cpu = 0.0

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [COMMAND, "--config", str(self.folder / "bridge.toml"), PROCESSES[self.name]],
                stdout=stream,
                stderr=stream,
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")},
                start_new_session=True,
            )
        self.seen = psutil.Process(self.process.pid)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def look(self) -> dict[str, float]:
        """Memory in MB, open files, threads, processor seconds. Raises `psutil.NoSuchProcess`."""
        with self.seen.oneshot():
            times = self.seen.cpu_times()
            self._cpu = times.user + times.system
            return {
                "memory": self.seen.memory_info().rss / MEGABYTE,
                "files": self.seen.num_fds(),
                "threads": self.seen.num_threads(),
                "cpu": self.spent + self._cpu,
            }

    def again(self) -> None:
        """Starts it anew after its end."""
        self.spent, self._cpu = self.spent + self._cpu, 0.0
        self.start()

    def read_log(self) -> None:
        """Counts what was logged since, and throws it away."""
        text = self.log.read_bytes()
        os.truncate(self.log, 0)
        for line in text.splitlines():
            level = next((name for name, mark in LEVELS.items() if mark in line), "traceback")
            self.levels["traceback" if b'"exception"' in line else level] += 1
            if level not in ("info", "warning"):
                self.worst.append(line[:500].decode("utf-8", "replace"))


class Site:
    """Everything that is not outside."""

    def __init__(self, folder: Path, tables: dict[str, Any]) -> None:
        self.folder = folder
        self.port = free_port(0)
        self.server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder))
        whole = {
            "data_dir": str(folder / "data"),
            "redis": {"url": self.server.url},
            "web": {"port": self.port},
            "webhooks": {"secret": SECRET},
            "poll": {"interval": 15, "scope": "account"},
            **tables,
        }
        config = folder / "bridge.toml"
        config.write_text(toml(whole), "utf-8")
        config.chmod(0o600)
        self.roles = [Role(name, folder) for name in PROCESSES]
        #: Processes that ended by themselves.
        self.surprises: list[str] = []

    def start(self) -> None:
        self.server.start()
        self.client = self.server.client()
        for role in self.roles:
            role.start()
        deadline = time.monotonic() + 60
        while any(b'"ready"' not in role.log.read_bytes() for role in self.roles):
            if time.monotonic() > deadline or any(role.process.poll() is not None for role in self.roles):
                raise RuntimeError("\n".join(role.log.read_text("utf-8")[-2000:] for role in self.roles))
            time.sleep(0.1)

    def restart_redis(self) -> None:
        self.server.restart()

    def kill_worker(self) -> None:
        role = next(role for role in self.roles if role.name == KILLED)
        role.kill()
        role.again()

    def supervise(self) -> None:
        """Starts again what ended by itself, which nothing should."""
        for role in self.roles:
            if role.process.poll() is not None:
                role.read_log()
                self.surprises.append(f"{role.name} ended with {role.process.returncode}")
                role.again()

    def look(self) -> dict[str, Any]:
        """Processes and Redis, as far as they can be seen now."""
        seen: dict[str, Any] = {"processes": {role.name: role.look() for role in self.roles}}
        for role in self.roles:
            role.read_log()
        info = self.client.info()
        counts = {state: self.client.zcard(f"bridge:state:{state}") for state in STATES}
        broker = info.get("db1", {}).get("keys", 0)
        seen["redis"] = {
            "memory": info["used_memory"] / MEGABYTE,
            "resident": info["used_memory_rss"] / MEGABYTE,
            "keys": info.get("db0", {}).get("keys", 0),
            "broker_keys": broker,
            "clients": info["connected_clients"],
            "cpu": info["used_cpu_user"] + info["used_cpu_sys"],
        }
        seen["states"] = counts
        cycle = self.client.hget("bridge:poll", "cycle_seconds")
        seen["cycle"] = float(cycle) if cycle else None
        seen["ready"] = self.client.zcard("bridge:ready:psa")
        seen["pages"] = {path: self._get(path) for path in PAGES}
        return seen

    def _get(self, path: str) -> float | None:
        """Seconds until the page was there; None: it was not."""
        began = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                answer.read()
        except (OSError, urllib.error.URLError):
            return None
        return time.monotonic() - began

    def kinds(self) -> dict[str, dict[str, float]]:
        """By the first word of their names, how many keys there are and what one of them needs, in bytes."""
        names: Counter[str] = Counter()
        sampled: dict[str, list[int]] = {}
        for key in self.client.scan_iter("*", count=2000):
            kind = str(key).split(":")[1]
            names[kind] += 1
            if names[kind] % 97 == 1 and len(sampled.setdefault(kind, [])) < 200:
                sampled[kind].append(int(self.client.memory_usage(key) or 0))
        return {
            kind: {"keys": count, "bytes": sum(sampled[kind]) / len(sampled[kind])} for kind, count in names.items()
        }

    def stop(self) -> list[str]:
        """SIGTERM to everything; who did not end in order."""
        started = [role for role in self.roles if role.starts]
        for role in started:
            role.process.send_signal(signal.SIGTERM)
        wrong = []
        for role in started:
            try:
                code = role.process.wait(60)
            except subprocess.TimeoutExpired:
                code = -1
            if code != 0:
                wrong.append(f"{role.name} ended with {code} after SIGTERM")
            role.read_log()
        return wrong

    def end(self) -> None:
        """Leaves nothing running and nothing lying about."""
        for role in self.roles:
            if role.starts and role.process.poll() is None:
                role.kill()
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
