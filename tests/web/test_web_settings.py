"""`[web]`: which settings are refused, and that a page for others is not served without a log-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.check import advice
from bridge.demo.run import toml
from bridge.settings import ConfigurationError, Settings, load
from bridge.web.server import WebServer
from tests.web.door import PASSWORD, Door

PROXY = {"trusted_proxies": ["10.0.0.5"], "trusted_proxy_header": "X-Forwarded-User"}


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., Settings]:
    def loaded(**web: Any) -> Settings:
        config = tmp_path / "bridge.toml"
        config.write_text(toml({"web": web}), "utf-8")
        return load(config, environ={})

    return loaded


@pytest.mark.parametrize(
    "web",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.0.0.2"},
        {"host": "0.0.0.0", "password": PASSWORD},
        {"host": "0.0.0.0", **PROXY},
        {"host": "127.0.0.1", **PROXY},
        {"host": "127.0.0.1", "password": PASSWORD, "trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"]},
        {"allowed_hosts": ["bridge.example.com", "::1"], "session_idle": "1h", "secure_cookies": "always"},
    ],
)
def test_these_may_be_served(loaded: Callable[..., Settings], web: dict[str, Any]) -> None:
    loaded(**web).require_page()


@pytest.mark.parametrize(
    ("web", "why"),
    [
        ({"host": "0.0.0.0"}, "web.host is 0.0.0.0, which others can reach"),
        ({"host": "::"}, "web.host is ::, which others can reach"),
        ({"host": "192.0.2.1", "token": "a token of a monitor"}, "web.host is 192.0.2.1"),
        ({"host": "bridge.example.com"}, "web.host is bridge.example.com"),
        ({"trusted_proxies": ["10.0.0.5"]}, "web.trusted_proxies lets others reach the page"),
    ],
)
def test_these_may_not(loaded: Callable[..., Settings], web: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(**web).require_page()
    [problem] = refused.value.problems
    assert problem.startswith(why)
    for key in ("web.password_file", "web.trusted_proxy_header", "web.trusted_proxies"):
        assert key in problem, "it says what to set"


def test_the_check_says_so_before(loaded: Callable[..., Settings]) -> None:
    [told] = advice(loaded(host="0.0.0.0"))
    assert told.startswith("`run` and `web` do not start: web.host is 0.0.0.0")
    assert list(advice(loaded())) == []


def test_the_page_does_not_start_without_a_log_in(open_door: Callable[..., Door]) -> None:
    with pytest.raises(ConfigurationError, match="people must log in"):
        WebServer(open_door({"host": "0.0.0.0"}).runtime)


@pytest.mark.parametrize(
    ("web", "problem"),
    [
        ({"password": "short one"}, "web.password is too short (9 characters); use at least 12"),
        ({"token": "short one"}, "web.token is too short (9 characters); use at least 16"),
        ({"trusted_proxy_header": "X-User"}, "web.trusted_proxy_header is believed only from a proxy whose address is"),
        ({**PROXY, "trusted_proxy_header": "X User"}, "web.trusted_proxy_header is no header's name"),
        ({**PROXY, "trusted_proxy_header": "cookie"}, "web.trusted_proxy_header is a header that every browser sends"),
        ({**PROXY, "trusted_proxy_header": "Authorization"}, "web.trusted_proxy_header is a header that every browser"),
        ({"trusted_proxies": ["10.0.0.5/8"]}, "web.trusted_proxies is no address or network such as"),
        ({"trusted_proxies": ["proxy"]}, "web.trusted_proxies is no address or network such as"),
        ({"allowed_hosts": ["https://x.test"]}, "web.allowed_hosts is no host's name such as"),
        ({"allowed_hosts": ["*"]}, "web.allowed_hosts is no host's name such as"),
        ({"session_idle": "10s"}, "web.session_idle must be"),
        ({"secure_cookies": "never"}, "web.secure_cookies must be"),
    ],
)
def test_mistakes_are_told(loaded: Callable[..., Settings], web: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(**web)
    [told] = refused.value.problems
    assert told.startswith(problem)
    assert "short one" not in told


def test_secrets_come_from_files(loaded: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    settings = loaded(password_file=str(tmp_path / "secret"), token_file=str(tmp_path / "secret"))
    assert settings.web.password.get_secret_value() == settings.web.token.get_secret_value() == PASSWORD
    assert PASSWORD not in str(settings.masked())
    (tmp_path / "secret").write_text("too few")
    with pytest.raises(ConfigurationError, match="too short"):
        loaded(password_file=str(tmp_path / "secret"))
