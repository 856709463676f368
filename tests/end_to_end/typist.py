"""A person at a terminal: a command on a pseudo-terminal of its own, typed at and read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

#: Opens its terminal once more, which makes it the session's own, as a shell's is: hidden input needs that.
_IN_A_SESSION = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"


class Typist:
    """Runs one command. Use as a context manager."""

    def __init__(self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_SESSION, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(slave)
        #: Everything that was to be seen.
        self.seen = ""
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def sees(self, text: str, seconds: float = 30) -> None:
        """Waits until `text` stands behind what was seen before."""
        until = time.monotonic() + seconds
        while text not in self.seen[self._read :]:
            assert time.monotonic() < until, f"{text!r} did not come; seen: {self.seen[self._read :]}"
            assert self._more(), f"it ended without {text!r}: {self.seen[self._read :]}"
        self._read = self.seen.index(text, self._read) + len(text)

    def types(self, prompt: str, line: str = "") -> None:
        """Waits for `prompt`, then types `line` and Enter."""
        self.sees(prompt)
        os.write(self.master, f"{line}\r".encode())

    def gives_up(self, prompt: str) -> int:
        """Waits for `prompt`, presses ctrl-C, again where the first came a moment too early; the exit code."""
        self.sees(prompt)
        until = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < until, f"ctrl-C does not end it: {self.seen[self._read :]}"
            os.write(self.master, b"\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
        return self.ends()

    def ends(self, seconds: float = 30) -> int:
        """Reads to the end; the exit code."""
        until = time.monotonic() + seconds
        while self._more():
            assert time.monotonic() < until, f"it did not end: {self.seen[self._read :]}"
        return self.process.wait(seconds)

    def _more(self) -> bool:
        """Reads what has come within a moment; False: the command has ended."""
        if not select.select([self.master], [], [], 0.2)[0]:
            return True
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # nobody has the other side open any more
            return False
        self.seen += piece.decode()
        return bool(piece)
