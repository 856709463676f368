"""Connections that keep one deadline for a whole request, however slowly the other side talks.

The time-out that `requests` takes is per socket operation: a server that sends a byte a second holds a thread for ever.
Here one watchdog thread for the process shuts down the socket of any request that outlives its deadline, which ends the
read or write that its own thread is blocked in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import requests.adapters
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

#: Seconds after which an idle connection is not used again: far ends and firewalls drop those silently, and a request
#: that dies on one would be in doubt.
IDLE_SECONDS = 30.0

#: The last bytes of a long request, few enough to leave in one call: held back until `before_send` was asked once more.
LAST_BYTES = 1024

#: Idle connections kept per host; the most that a connector's `concurrency` can be.
POOL_SIZE = 100


class Attempt:
    """One request on its way: what `HttpSession` must know to judge a failure.

    `before_send` is asked right before bytes of the request leave, the last ones included; what it raises stops them.
    Bytes that the other side has not taken after `deliver_within` seconds are thrown away.
    """

    def __init__(self, timeout: float, before_send: Callable[[], None], deliver_within: float) -> None:
        self.timeout = timeout
        self.deliver_within = deliver_within
        self.deadline = time.monotonic() + timeout
        self._before_send = before_send
        #: What `before_send` raised: the request did not leave as a whole.
        self.stopped: Exception | None = None
        #: Bytes of the request, not only of the connection's set-up, may have reached the other side.
        self.sent = False
        #: The watchdog has cut the connection; what was read may be incomplete.
        self.expired = False
        self._lever: socket.socket | None = None
        self._owns_lever = False

    def remaining(self) -> float:
        """Seconds until the deadline, possibly negative."""
        return self.deadline - time.monotonic()

    def ask(self) -> None:
        """May bytes leave now? Raises what `before_send` raises."""
        try:
            self._before_send()
        except Exception as error:
            self.stopped = error
            raise


class _Watchdog:
    """Cuts the connections of attempts past their deadline. One thread, started with the first attempt."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._attempts: set[Attempt] = set()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watch(self, attempt: Attempt) -> Iterator[Attempt]:
        with self._changed:
            self._attempts.add(attempt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="http-deadlines", daemon=True)
                self._thread.start()
            elif attempt.deadline <= min(other.deadline for other in self._attempts):
                self._changed.notify()
        _current.attempt = attempt
        try:
            yield attempt
        finally:
            _current.attempt = None
            with self._changed:
                self._attempts.discard(attempt)
                if attempt._owns_lever and attempt._lever:
                    attempt._lever.close()

    def hold(self, attempt: Attempt, lever: socket.socket | None) -> None:
        """`lever` is a duplicate of the socket that `attempt` uses from now on."""
        with self._changed:
            attempt._lever = lever
            if attempt.expired:
                _cut(lever)

    def release(self, lever: socket.socket) -> None:
        """The connection is done with `lever`; an attempt that still reads the answer keeps it to its own end."""
        attempt: Attempt | None = getattr(_current, "attempt", None)
        with self._changed:
            if attempt and attempt._lever is lever:
                attempt._owns_lever = True
            else:
                lever.close()

    def _watch(self) -> None:
        with self._changed:
            while True:
                for attempt in self._attempts:
                    if not attempt.expired and attempt.remaining() <= 0:
                        attempt.expired = True
                        _cut(attempt._lever)
                waiting = [attempt.remaining() for attempt in self._attempts if not attempt.expired]
                self._changed.wait(max(min(waiting), 0) if waiting else None)


def _cut(lever: socket.socket | None) -> None:
    if lever:
        with contextlib.suppress(OSError):
            forget_unsent(lever)
            lever.shutdown(socket.SHUT_RDWR)


def forget_unsent(connection: socket.socket) -> None:
    """Makes the coming close a reset: what the kernel still holds is never delivered."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def bound_delivery(connection: socket.socket, seconds: float) -> None:
    """Lets the kernel give up bytes that the other side has not taken after `seconds`, even if this process is gone.

    By itself it repeats them for a quarter of an hour (Linux, tcp(7): TCP_USER_TIMEOUT), and a network that comes back
    would deliver a create long after anybody reckons with it. Systems without the option keep their own limit.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(seconds * 1000)))


class _Lookups:
    """Name look-ups that can be waited for with a limit: the C library's own cannot be interrupted.

    One thread per name being looked up, however many connections wait for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[Any]]] = {}

    def addresses(self, host: str, port: int, timeout: float) -> list[Any]:
        """As `socket.getaddrinfo`. Raises TimeoutError or socket.gaierror."""
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.strip("[]"))
            return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        with self._lock:
            future = self._running.get((host, port))
            if future is None:
                future = self._running[host, port] = Future()
                threading.Thread(target=self._look_up, args=(host, port, future), name="dns", daemon=True).start()
        return future.result(timeout)

    def _look_up(self, host: str, port: int, future: Future[list[Any]]) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed = error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, "not a host name")
            self._forget(host, port)
            future.set_exception(failed)
        else:
            self._forget(host, port)
            future.set_result(found)

    def _forget(self, host: str, port: int) -> None:
        with self._lock:
            del self._running[host, port]


_current = threading.local()
_watchdog = _Watchdog()
lookups = _Lookups()


def _after_fork() -> None:
    global _watchdog, lookups
    _watchdog, lookups = _Watchdog(), _Lookups()


os.register_at_fork(after_in_child=_after_fork)


def attempt(
    timeout: float, before_send: Callable[[], None] = lambda: None, deliver_within: float | None = None
) -> contextlib.AbstractContextManager[Attempt]:
    """Everything this thread sends through a `DeadlineAdapter` inside the block ends after `timeout` seconds.

    `before_send` and `deliver_within` (at most and by default `timeout`) are those of `Attempt`.
    """
    return _watchdog.watch(Attempt(timeout, before_send, min(deliver_within or timeout, timeout)))


class _Watched(HTTPConnection):
    """A connection whose socket the watchdog can shut down, and that notes when the request itself goes out."""

    _lever: socket.socket | None = None
    _connecting = False
    _used_at = 0.0

    def _new_conn(self) -> socket.socket:
        current: Attempt = _current.attempt
        host = self._dns_host  # with the trailing dot that `host` drops
        port = self.port or self.default_port
        late = ConnectTimeoutError(self, "no connection in time")
        try:
            addresses = lookups.addresses(host, port, max(current.remaining(), 0))
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError:
            raise late from None
        failure: OSError = OSError("the name has no address")
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            # A silent address must leave time for the ones after it.
            share = current.remaining() / (len(addresses) - tried)
            if share <= 0:
                raise late
            connection = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    connection.setsockopt(*option)
                bound_delivery(connection, current.deliver_within)
                connection.settimeout(share)
                connection.connect(address)
                connection.settimeout(max(current.remaining(), 0.001))
                # A duplicate: TLS takes the descriptor away from this object, and its own thread may close it any time.
                self._lever = connection.dup()
            except OSError as error:
                connection.close()
                failure = error
            else:
                _watchdog.hold(current, self._lever)
                return connection
        if isinstance(failure, TimeoutError):
            raise late
        raise NewConnectionError(self, str(failure.strerror or failure)) from failure

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._used_at = time.monotonic()
        if self._lever:
            _watchdog.hold(_current.attempt, self._lever)
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if self._connecting:  # the CONNECT to a proxy
            super().send(data)
            return
        current: Attempt = _current.attempt
        for part in _parts(data):
            try:
                current.ask()
            except Exception:
                forget_unsent(self.sock)
                raise
            current.sent = True
            super().send(part)

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._used_at < IDLE_SECONDS and super().is_connected

    def close(self) -> None:
        lever, self._lever = self._lever, None
        try:
            super().close()
        finally:
            if lever:
                _watchdog.release(lever)


def _parts(data: Any) -> list[Any]:
    """What goes out in one piece each. A long body blocks in the middle; its end must not leave unasked."""
    if isinstance(data, bytes) and len(data) > LAST_BYTES:
        return [data[:-LAST_BYTES], data[-LAST_BYTES:]]
    return [data]


class _WatchedTls(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


class DeadlineAdapter(requests.adapters.HTTPAdapter):
    """Transport of `requests`, to be used inside `attempt`; never sends anything twice by itself."""

    def __init__(self) -> None:
        super().__init__(pool_connections=10, pool_maxsize=POOL_SIZE, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager
