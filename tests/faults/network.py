"""Hosts of their own on one machine: network namespaces with a line to the store and one to the world.

The servers listen on the addresses of two bridges that lead to these namespaces only, not on loopback, which every
namespace has for itself. A line is cut in the bridge: the host sees its link up and hears nothing, as when something
fails far away. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: The lines of a host, each to a network of its own.
LINES = ("store", "world")


class NoNetwork(Exception):
    """Namespaces cannot be made here; the text says why."""


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NoNetwork(f"{name} (iproute2) is not installed")
    return found


def _run(*command: str) -> str:
    done = subprocess.run([_tool(command[0]), *command[1:]], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise NoNetwork(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Network:
    """Made and unmade by `network`. `address` is where servers listen, by the name of the line that leads there."""

    tag: str
    address: dict[str, str]
    hosts: list[str] = field(default_factory=list)

    def add_host(self) -> str:
        """One more host; its name is that of its namespace."""
        host = f"{self.tag}h{len(self.hosts) + 1}"
        _run("ip", "netns", "add", host)
        self.hosts.append(host)
        _run("ip", "-n", host, "link", "set", "lo", "up")
        for line in LINES:
            here, bridge = self._port(host, line), self._bridge(line)
            _run("ip", "link", "add", here, "type", "veth", "peer", "name", line, "netns", host)
            _run("ip", "link", "set", here, "master", bridge, "up")
            _run("ip", "-n", host, "addr", "add", f"{self.of(host, line)}/24", "dev", line)
            _run("ip", "-n", host, "link", "set", line, "up")
            # As behind a router: that nobody answers any more is not known on the spot.
            mac = Path(f"/sys/class/net/{bridge}/address").read_text().strip()
            _run(
                "ip", "-n", host, "neigh", "replace", self.address[line], "lladdr", mac, "dev", line, "nud", "permanent"
            )
        return host

    def within(self, host: str) -> tuple[str, ...]:
        """What stands before a command that runs on `host`."""
        return (_tool("ip"), "netns", "exec", host)

    def of(self, host: str, line: str) -> str:
        """The address of `host` on one of its lines."""
        return f"{self.address[line].rpartition('.')[0]}.{self.hosts.index(host) + 2}"

    def cut(self, host: str, *lines: str) -> None:
        """Nothing goes to or comes from `host` over these lines."""
        for line in lines:
            _run("bridge", "link", "set", "dev", self._port(host, line), "state", "0")

    def rejoin(self, host: str, *lines: str) -> None:
        for line in lines:
            _run("bridge", "link", "set", "dev", self._port(host, line), "state", "3")

    def _bridge(self, line: str) -> str:
        return f"{self.tag}{line}"

    def _port(self, host: str, line: str) -> str:
        return f"{host}{line[0]}"


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Two networks without hosts. Raises `NoNetwork`; leaves nothing behind."""
    if os.geteuid() != 0:
        raise NoNetwork("only root can make network namespaces")
    tag = f"hb{secrets.token_hex(2)}"
    draw = random.SystemRandom()
    first = f"10.{draw.randint(200, 250)}.{draw.randint(0, 127) * 2}"
    second = f"{first.rpartition('.')[0]}.{int(first.rpartition('.')[2]) + 1}"
    made = Network(tag, dict(zip(LINES, (f"{first}.1", f"{second}.1"), strict=True)))
    with contextlib.ExitStack() as stack:
        for line in LINES:
            bridge = made._bridge(line)
            # A fixed address: else a bridge takes that of its lowest port, which changes with every host.
            mac = ":".join(["02", *(secrets.token_hex(1) for _ in range(5))])
            _run("ip", "link", "add", bridge, "address", mac, "type", "bridge")
            stack.callback(_forget, "ip", "link", "del", bridge)
            _run("ip", "addr", "add", f"{made.address[line]}/24", "dev", bridge)
            _run("ip", "link", "set", bridge, "up")
        try:
            yield made
        finally:
            for host in made.hosts:
                _forget("ip", "netns", "del", host)


def _forget(*command: str) -> None:
    with contextlib.suppress(NoNetwork):
        _run(*command)
