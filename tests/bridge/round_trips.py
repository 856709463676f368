"""Counts what a client asks its server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis


@contextlib.contextmanager
def round_trips(client: redis.Redis) -> Iterator[list[Any]]:
    """What the client sends meanwhile, on connections that it makes anew; an entry for each round trip."""
    pool, sent = client.connection_pool, list[Any]()
    connection = pool.connection_class

    class Counting(connection):  # type: ignore[misc, valid-type]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            sent.append(command)
            super().send_packed_command(command, check_health)

    pool.disconnect()
    pool.reset()
    pool.connection_class = Counting
    client.ping()
    sent.clear()  # also what a connection says at its start
    try:
        yield sent
    finally:
        pool.connection_class = connection
