"""`healthcheck`: is this host's process doing its work?"""

from __future__ import annotations

import os
import socket

import redis
import requests

from bridge.bookkeeping import Bookkeeping
from bridge.broker import store_client
from bridge.embedded import EmbeddedRedis, EmbeddedRedisError
from bridge.idempotency import IdempotencyStore
from bridge.settings import Settings

#: Seconds without a sign of life after which a process counts as hung.
STALE = 15.0


def health_problem(settings: Settings, role: str | None) -> str:
    """Why the process of `role` (None: whatever runs here) does not do its work; '' when it does."""
    if role == "web":
        return _web_problem(settings)
    url = settings.redis.url.get_secret_value()
    embedded = None
    try:
        if not url:
            embedded = EmbeddedRedis(settings.data_dir)
            url = embedded.acquire()
        client = store_client(url)
        try:
            store = IdempotencyStore(client, settings.redis.namespace)
            return _beat_problem(Bookkeeping(store), role)
        finally:
            client.close()
    except (redis.RedisError, EmbeddedRedisError) as error:
        return f"Redis does not answer ({error})"
    finally:
        if embedded is not None:
            embedded.release()


def _beat_problem(books: Bookkeeping, role: str | None) -> str:
    what = role or "process"
    now = books.store.now()
    here = [beat for beat in books.heartbeats(role or "", socket.gethostname()) if _runs(beat.pid)]
    if not here:
        return f"no {what} of huntress-bridge runs on this host"
    for beat in here:
        if abs(now - beat.at) > STALE:
            return f"{beat.role} (pid {beat.pid}) gave no sign of life for {abs(now - beat.at):.0f} s: it hangs"
        if beat.problem:
            return f"{beat.role} (pid {beat.pid}): {beat.problem}"
    return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _web_problem(settings: Settings) -> str:
    host = settings.web.host
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    if ":" in host:
        host = f"[{host}]"
    session = requests.Session()
    session.trust_env = False
    try:
        answer = session.get(f"http://{host}:{settings.web.port}/readyz", timeout=5)
    except requests.RequestException as error:
        return f"the page does not answer ({type(error).__name__})"
    finally:
        session.close()
    return "" if answer.status_code == 200 else f"the page answers {answer.status_code}: {answer.text.strip()[:200]}"
