"""The page of one process that asks people to log in, and browsers before it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.demo.run import free_port, toml
from bridge.runtime import Runtime
from bridge.settings import load
from bridge.web.app import create_app

PASSWORD = "twelve or more of them"
TOKEN = "a token of a monitor"
#: Tables of `[web]`: everybody logs in; a proxy says who it is; for this machine alone.
ASKING = {"host": "0.0.0.0", "password": PASSWORD, "token": TOKEN}
BEHIND = {
    "trusted_proxies": ["10.0.0.0/24"],
    "trusted_proxy_header": "X-Forwarded-User",
    "allowed_hosts": ["page.test"],
}
LOCAL: dict[str, Any] = {}


class Door:
    """One process and its page. Use `open` of the fixture; no ticket system stands behind it."""

    def __init__(self, redis_url: str, folder: Path, web: dict[str, Any], **tables: Any) -> None:
        self.config = folder / "bridge.toml"
        self._tables = {
            "redis": {"url": redis_url},
            "huntress": {"api_key": "key", "api_secret": "secret"},
            "connectors": {},
        } | tables
        self._port = free_port(0)
        self.write(web)
        self.runtime = Runtime(load(self.config, environ={}), lambda: load(self.config, environ={}))

    def __enter__(self) -> Door:
        self.runtime.__enter__()
        self.app: Flask = create_app(self.runtime)
        self.site = self.app.extensions["site"]
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.__exit__()

    def write(self, web: dict[str, Any]) -> None:
        self.config.write_text(toml(self._tables | {"web": {"port": self._port} | web}), "utf-8")
        self.config.chmod(0o600)

    def browser(self, address: str = "127.0.0.1", **headers: str) -> Browser:
        return Browser(self, address, headers)

    def keys(self) -> dict[str, bytes]:
        """Everything in the store."""
        client = self.runtime.store.client
        return {str(key): client.dump(key) for key in client.keys("*")}  # type: ignore[misc]

    def later(self, seconds: float) -> None:
        self.runtime.store.clock_offset += seconds


class Browser:
    """Keeps cookies, and sends from `address`, with `headers`."""

    def __init__(self, door: Door, address: str, headers: dict[str, str]) -> None:
        self.door = door
        self.client: FlaskClient = door.app.test_client()
        self._environ = {"REMOTE_ADDR": address}
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, base: str | None = None, **more: Any
    ) -> TestResponse:
        return self.client.open(
            path,
            method=method,
            headers=self._headers | (headers or {}),
            environ_base=self._environ,
            base_url=base,
            buffered=True,
            **more,
        )

    def get(self, path: str = "/", **more: Any) -> TestResponse:
        return self.ask("GET", path, **more)

    def token(self) -> str:
        """Of the forms that this browser is shown."""
        found = re.search(r'<meta name="csrf-token" content="([0-9a-f]+)">', self.get("/login", **FOLLOW).text)
        assert found, "the page has no token"
        return found[1]

    def post(self, path: str, **fields: str) -> TestResponse:
        """Sends a form of the page's own."""
        return self.ask("POST", path, data={"csrf_token": self.token(), **fields})

    def log_in(self, password: str = PASSWORD, **fields: str) -> TestResponse:
        return self.post("/login", password=password, **fields)

    def cookie(self, name: str = "bridge_page") -> str:
        found = self.client.get_cookie(name)
        return found.value if found else ""


FOLLOW: dict[str, Any] = {"follow_redirects": True}
