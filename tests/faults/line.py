"""The line between the bridge and its Redis: slow, or led to another server, while both ends stay as they are."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self


class Line:
    """A TCP relay on `host`. What a client sends at once arrives at once, `delay` seconds later; answers do not wait.

    `target` is the Unix socket or the (host, port) that new connections lead to; those that exist stay where they are.
    """

    def __init__(self, target: str | tuple[str, int], host: str = "127.0.0.1") -> None:
        self.target = target
        self.delay = 0.0
        self.host = host
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="line", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10), "the line does not listen"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def _serve(self) -> None:
        self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connect, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._done.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if isinstance(self.target, str):
                there_reader, there_writer = await asyncio.open_unix_connection(self.target)
            else:
                there_reader, there_writer = await asyncio.open_connection(*self.target)
            with contextlib.closing(there_writer):
                ways = [
                    asyncio.ensure_future(self._pump(reader, there_writer, lambda: asyncio.sleep(self.delay))),
                    asyncio.ensure_future(self._pump(there_reader, writer, lambda: asyncio.sleep(0))),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: Callable[[], Awaitable[None]]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await wait()
                writer.write(chunk)
                await writer.drain()
