"""Sessions of people who logged in, in Redis.

A session's id is 256 random bits and is in the browser's cookie alone: Redis knows its digest. From the same bits comes
the token that every form carries, so that only a page of ours, shown to this browser, can post. A browser that has not
logged in has such an id too, for the log-in's form, but nothing about it is stored.

===============================  =======================================================================================
``page:session:<digest>``        hash: `person`, `began`, `seen` (ms), `proof`; expires when idle
``page:told:<digest>``           sentences to show on the next page
===============================  =======================================================================================
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import redis
from flask import Flask, Request, Response, g, request
from flask.sessions import SessionInterface, SessionMixin

from bridge.idempotency import IdempotencyStore
from bridge.web_settings import WebSettings

#: Seconds between two notes that a session is in use.
_NOTED_EVERY = 30.0
#: Seconds that a sentence waits for the page that shows it.
_TOLD_FOR = 300
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


def new_id() -> str:
    """256 random bits, 43 characters."""
    return secrets.token_urlsafe(32)


def well_formed(value: str | None) -> str:
    """`value` if it can be an id, else ''."""
    return value if value and _ID.fullmatch(value) else ""


def digest(value: str) -> str:
    """What may be stored of an id."""
    return hashlib.sha256(value.encode("ascii")).hexdigest()


def form_token(value: str) -> str:
    """The token of forms shown to the browser that has the id `value`; tells nothing of it."""
    return hmac.digest(value.encode("ascii"), b"form token", hashlib.sha256).hex()


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `how` is `local`, `password` or `proxy`."""

    name: str
    how: str


LOCAL = Person("local", "local")


class Sessions:
    """Methods raise `redis.RedisError` when Redis is away. `client` is one that does not wait long."""

    def __init__(self, store: IdempotencyStore, client: redis.Redis) -> None:
        self._store = store
        self._client = client

    def begin(self, name: str, web: WebSettings) -> str:
        """Logs `name` in. Returns the new session's id."""
        value = new_id()
        key = self._key(value)
        now = round(self._now() * 1000)
        fields: dict[Any, Any] = {"person": name, "began": now, "seen": now, "proof": _proof(value, web)}
        with self._client.pipeline() as pipe:
            pipe.hset(key, mapping=fields)
            pipe.expire(key, round(web.session_idle))
            pipe.execute()
        return value

    def find(self, value: str, web: WebSettings, *, used: bool) -> Person | None:
        """Who has the session with the id `value`; None: it has ended. `used`: a person did something just now."""
        key = self._key(value)
        person, began, seen, proof = cast(
            "list[str | None]", self._client.hmget(key, "person", "began", "seen", "proof")
        )
        if person is None or began is None or seen is None or proof is None:
            return None
        now = self._now()
        idle, age = now - int(seen) / 1000, now - int(began) / 1000
        same_password = hmac.compare_digest(proof, _proof(value, web))
        if idle > web.session_idle or age > web.session_length or not same_password:
            self._client.delete(key)
            return None
        if used and idle > _NOTED_EVERY:
            self._store.script("page_session", digest(value), round(web.session_idle), client=self._client)
        return Person(person, "password")

    def end(self, value: str) -> None:
        """Logs the person with the session `value` out."""
        self._client.delete(self._key(value), self._told(value))

    def tell(self, value: str, sentences: list[Any]) -> None:
        """Keeps what `flash` was given for the next page that the browser with the id `value` asks for."""
        self._client.set(self._told(value), json.dumps(sentences), ex=_TOLD_FOR)

    def told(self, value: str) -> list[Any]:
        """What is to be shown; once."""
        text = cast("str | None", self._client.getdel(self._told(value)))
        return [tuple(each) for each in json.loads(text)] if text else []

    def _now(self) -> float:
        seconds, micros = self._client.time()
        return seconds + micros / 1e6 + self._store.clock_offset

    def _key(self, value: str) -> str:
        return self._store.key(f"page:session:{digest(value)}")

    def _told(self, value: str) -> str:
        return self._store.key(f"page:told:{digest(value)}")


def _proof(value: str, web: WebSettings) -> str:
    """Ties a session to the password it began with. The id is the key, so it helps nobody to guess the password."""
    password = web.password.get_secret_value().encode()
    return hmac.digest(value.encode("ascii"), b"password" + password, hashlib.sha256).hex()


class Told(dict[str, Any], SessionMixin):
    """What Flask keeps between two requests of one browser: for us the sentences given to `flash`, nothing else."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self._sessions = sessions
        self._asked = False

    def _load(self) -> None:
        if not self._asked:
            self._asked = True
            # A page that refreshes itself must not take what is meant for the one that a person comes to next.
            if g.get("person") is not None and g.get("browser") and "X-Live" not in request.headers:
                # The page that says that Redis is away comes by here too.
                with suppress(redis.RedisError):
                    if waiting := self._sessions.told(g.browser):
                        self["_flashes"] = waiting

    def __contains__(self, key: object) -> bool:
        self._load()
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._load()
        return super().get(key, default)


class ToldInterface(SessionInterface):
    """Flask's own would keep them in a signed cookie, which is too small for what ticket systems say."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def open_session(self, app: Flask, request: Request) -> Told:
        return Told(self._sessions)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        waiting = dict(session).get("_flashes")
        # Strangers store nothing.
        if waiting and g.get("person") is not None and g.get("browser"):
            self._sessions.tell(g.browser, waiting)
