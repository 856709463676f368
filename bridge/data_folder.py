"""The data folder: made, locked, and kept open to its owner.

It must lie on a local file system; network file systems do not keep a lock through a fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class EmbeddedRedisError(Exception):
    """The embedded Redis or its folder cannot be used; the text says why and what to do."""


class DataFolderBusy(Exception):
    """Another `run` works on the same data folder."""


@contextlib.contextmanager
def exclusive_run(data_dir: Path) -> Iterator[None]:
    """Holds the folder for one `run`. The lock ends with its process, however it ends.

    Raises `DataFolderBusy` in a second `run`, `EmbeddedRedisError` where the folder cannot be used.
    """
    data_dir = Path(data_dir).resolve()
    make_folder(data_dir)
    fd = open_lock(data_dir / "run.lock")
    try:
        if not lock(fd, fcntl.LOCK_EX):
            pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise DataFolderBusy(f"another run works on this data folder (pid {pid}): {data_dir}")
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def make_folder(data_dir: Path) -> None:
    """Makes it, private to us, where it is missing."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error


def open_lock(path: Path) -> int:
    """A descriptor that no child process inherits by itself."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from error
    give_to_owner(path, path.parent)
    return fd


def lock(fd: int, operation: int, timeout: float = 0.0) -> bool:
    """Takes the lock, within `timeout` seconds. False when another holds it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        except OSError as error:
            raise EmbeddedRedisError(
                f"the data folder's file system keeps no locks ({error.strerror}). Set data_dir to a local folder."
            ) from error
        else:
            return True


def foreign_owner(data_dir: Path) -> os.stat_result | None:
    """The folder's owner, where that is not root but we are: we must leave nothing that it cannot open tomorrow."""
    owner = data_dir.stat()
    return owner if os.geteuid() == 0 and owner.st_uid != 0 else None


def give_to_owner(path: Path, data_dir: Path) -> None:
    """See `foreign_owner`."""
    if owner := foreign_owner(data_dir):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _unusable(data_dir: Path, error: OSError) -> EmbeddedRedisError:
    return EmbeddedRedisError(
        f"the data folder {data_dir} cannot be used: {error.strerror}. "
        f"Set data_dir to a local folder that uid {os.geteuid()} may write to."
    )
