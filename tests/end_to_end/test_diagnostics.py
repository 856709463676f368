"""The support bundle says what helps, whatever is broken, and in no byte of it is a secret or a customer's name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import Result
from pydantic import BaseModel, SecretStr

from bridge.demo.run import free_port
from bridge.settings import load
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.inside import inside
from tests.end_to_end.test_secrets import _secret, spellings

MakeBridge = Callable[..., Bridge]
#: Everything that may stand in a place of its own: header, URL, file, variable.
NAMES = (
    *("huntress.api_key", "huntress.api_secret", "webhooks.secret", "alerts.heartbeat_url", "redis.url"),
    *("psa.public_key", "psa.private_key", "proxied.proxy", "desk.secret", "desk.integration_code"),
    *("oncall.password", "oauth.client_secret", "web.password", "web.token"),
)


class Bundle:
    """What `diagnostics` wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}
        self.bytes = path.read_bytes() + b"\n".join(self.files.values())

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.files[f"{name}.json"])

    def holds(self, secret: str) -> bool:
        return any(spelling in self.bytes for spelling in spellings(secret))


def gathered(
    bridge: Bridge, *arguments: str, code: int = 0, variables: Mapping[str, str] | None = None
) -> tuple[Bundle, Result]:
    path = bridge.folder / f"{len(list(bridge.folder.glob('*.zip')))}.zip"
    done = inside("diagnostics", "--output", path, *arguments, config=bridge.config, **(variables or {}))
    assert done.exit_code == code, done.output
    return Bundle(path), done


def full(world: World, secrets: dict[str, str], dead: int, folder: Path) -> dict[str, Any]:
    """Tables in which every key that can hold a secret holds one; some from the environment and from files."""
    (folder / "webhook").write_text(f"{secrets['webhooks.secret']}\n", encoding="utf-8")
    psa = world.connectwise.settings(timeout=2, settle=2)
    desk = world.autotask.settings(timeout=2, settle=2)
    oncall = world.mailbox.settings(timeout=2)
    proxy = quote(secrets["proxied.proxy"], safe="")
    return {
        "huntress": world.huntress.settings(timeout=2) | {"api_secret": secrets["huntress.api_secret"], "proxy": ""},
        "web": {"port": free_port(0), "password": secrets["web.password"], "token": secrets["web.token"]},
        "webhooks": {"secret_file": str(folder / "webhook")},
        "alerts": {"heartbeat_url": f"http://127.0.0.1:{dead}/{secrets['alerts.heartbeat_url']}"},
        "connectors": {
            "psa": psa | {name: secrets[f"psa.{name}"] for name in ("public_key", "private_key")},
            "proxied": psa | {"proxy": f"http://somebody:{proxy}@127.0.0.1:{dead}", "reference_suffix": "-p"},
            "desk": desk | {name: secrets[f"desk.{name}"] for name in ("secret", "integration_code")},
            "oncall": oncall | {"password": secrets["oncall.password"]},
            "oauth": oncall
            | {
                "password": "",
                "auth": "xoauth2",
                "client_id": "client",
                "client_secret": secrets["oauth.client_secret"],
                "token_url": f"http://127.0.0.1:{dead}/token",
            },
        },
    }


@pytest.fixture
def planted(
    world: World, make_bridge: MakeBridge, make_redis_server: Callable[..., RedisServer]
) -> tuple[Bridge, dict[str, str], dict[str, str]]:
    """A bridge that worked with many secrets in a world that repeats them; its secrets, and its variables."""
    secrets = {name: _secret("-") for name in NAMES} | {
        name: _secret() for name in ("huntress.api_secret", "psa.private_key", "oncall.password", "oauth.client_secret")
    }
    secrets["webhooks.secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    server = make_redis_server()
    with server.client() as client:
        client.config_set("requirepass", secrets["redis.url"])
    world.huntress.credentials = (secrets["huntress.api_key"], secrets["huntress.api_secret"])
    world.mailbox.users["bridge@example.com"] = secrets["oncall.password"]
    bridge = make_bridge(world)
    bridge.write(**full(world, secrets, free_port(0), bridge.folder))
    password = quote(secrets["redis.url"], safe="")
    variables = {
        "BRIDGE_HUNTRESS__API_KEY": secrets["huntress.api_key"],
        "BRIDGE_REDIS__URL": f"unix://:{password}@{server.socket}?db=0",
    }
    text = bridge.config.read_text("utf-8")
    bridge.config.write_text(text.replace(f'api_key = "{world.huntress.settings()["api_key"]}"\n', ""), "utf-8")
    bridge.variables = variables
    told = " ".join(secrets.values())
    world.reports(3)
    for system in (world.connectwise, world.autotask):
        system.fault("status", method="POST", path="ickets$", status=400, times=None, body={"message": told})
    bridge("run", "--once", "--wait", "4")
    return bridge, secrets, variables


def secret_keys(model: BaseModel, prefix: str = "") -> Iterator[str]:
    for name, value in model:
        if isinstance(value, SecretStr):
            yield f"{prefix}{name}"
        elif isinstance(value, BaseModel):
            yield from secret_keys(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from secret_keys(inner, f"{prefix}{name}.{key}.")


def test_no_secret_and_no_customer_is_in_any_byte(
    planted: tuple[Bridge, dict[str, str], dict[str, str]], world: World
) -> None:
    bridge, secrets, variables = planted
    bundle, done = gathered(bridge, variables=variables)
    settings = load(bridge.config, bridge.environment())
    assert set(bundle["configuration"]["secrets"]) == set(secret_keys(settings)), "every secret is accounted for"
    empty = {key for key, origin in bundle["configuration"]["secrets"].items() if origin == "not set"}
    others = {f"connectors.{name}" for name in ("oncall.client_secret", "oauth.password")}
    assert empty == {"redis.broker_url", *others}, "every other one is planted"
    assert [name for name, secret in secrets.items() if bundle.holds(secret) or secret in done.output] == []
    assert bundle.path.stat().st_mode & 0o777 == 0o600
    names = {raw["name"] for raw in world.huntress.organizations.values()}
    assert len(names) == 3
    assert [name for name in names if name.encode() in bundle.bytes] == []
    assert b"incident on" not in bundle.bytes.lower(), "no subject of a report"
    assert b"bridge@" not in bundle.bytes
    # What helps is there.
    assert bundle["problems"] == []
    origins = bundle["configuration"]["secrets"]
    assert origins["huntress.api_key"] == origins["redis.url"] == "set, from the environment"
    assert origins["webhooks.secret"] == "set, from a file"
    assert origins["huntress.api_secret"] == "set, in the configuration file"
    assert origins["redis.broker_url"] == "not set"
    assert set(variables) <= set(bundle["configuration"]["variables"])
    assert bundle["status"]["deliveries"]["created"] == 3, "the mails"
    assert sum(each["deliveries"] for each in bundle["errors"]) == 12
    assert {each["connector"] for each in bundle["errors"]} == {"psa", "proxied", "desk", "oauth"}
    assert all(each["reason"] for each in bundle["errors"])
    assert bundle["timings"]["seconds_from_seen_to_ticket"]["oncall"]["newest_deliveries"] == 3
    assert len(bundle["histories"]) == 12
    assert bundle["histories"][0]["events"][0]["what"] == "seen"
    assert bundle["redis"]["keys_by_kind"]["delivery"] == 15
    assert bundle["versions"]["packages"]["redis"]
    assert b"huntress_bridge" in bundle.files["metrics.txt"]
    listed = bundle.files["README.txt"].decode()
    assert all(name in listed for name in bundle.files if name != "README.txt")


def test_texts_and_names_come_only_where_they_are_asked_for(
    planted: tuple[Bridge, dict[str, str], dict[str, str]], world: World
) -> None:
    bridge, secrets, variables = planted
    bundle, _ = gathered(bridge, "--with-reports", "--with-names", variables=variables)
    assert world.huntress.reports[1]["subject"].encode() in bundle.bytes
    assert set(bundle["reports"]["waiting"]) == {"1", "2", "3"}
    assert [name for name, secret in secrets.items() if bundle.holds(secret)] == []


def test_the_bundle_is_written_beside_a_bridge_that_works(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    process = bridge.start("run")
    wait_until(lambda: '"polled"' in bridge.log(), 20)
    wait_until(lambda: len(gathered(bridge)[0]["processes"]) == 3, 20)
    bundle, _ = gathered(bridge)
    assert {each["role"] for each in bundle["processes"]} == {"poller", "worker", "web"}
    assert {each["pid"] for each in bundle["processes"]} == {process.pid}
    assert bundle["status"]["ok"] is True
    assert bundle["redis"]["server"]["aof_enabled"] == 1
    assert bridge.stop(process) == 0


def test_the_bundle_is_written_while_redis_is_away(world: World, make_bridge: MakeBridge) -> None:
    secret = _secret("-")
    bridge = make_bridge(world, redis={"url": f"redis://:{secret}@127.0.0.1:{free_port(0)}/0"})
    bundle, done = gathered(bridge, code=1)
    assert "Redis does not answer" in bundle["problems"][0]
    assert "Redis does not answer" in done.stderr
    assert bundle["configuration"]["secrets"]["redis.url"] == "set, in the configuration file"
    assert bundle["findings"] == []
    assert "status.json" not in bundle.files
    assert not bundle.holds(secret)


BROKEN: dict[str, Callable[[str], str]] = {
    "an unknown key": lambda text: f"unknown = 1\n{text}",
    "a key of the wrong type": lambda text: text.replace("interval = 1", 'interval = "now and then"'),
    "no TOML at all": lambda text: f"{text}\n[",
    "a secret in the wrong place": lambda text: text.replace("interval = 1", "interval = 1\napi_key = '{secret}'"),
    "an organizations file that is missing": lambda text: f'{text}\n[organizations]\nfile = "missing.csv"\n',
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_the_bundle_is_written_when_the_configuration_is_wrong(
    world: World, make_bridge: MakeBridge, wrong: str
) -> None:
    secret, another = _secret("-"), _secret("-")
    bridge = make_bridge(world)
    bridge.write(huntress=world.huntress.settings() | {"api_secret": secret})
    text = bridge.config.read_text("utf-8")
    bridge.config.write_text(BROKEN[wrong](text).replace("{secret}", another), "utf-8")
    bundle, _ = gathered(bridge, code=1, variables={"BRIDGE_CONNECTORS__PSA__PRIVATE_KEY": another})
    assert bundle["problems"]
    assert bundle["configuration"]
    assert bundle["versions"]["python"]
    assert not bundle.holds(secret)
    assert not bundle.holds(another)


def test_an_existing_file_is_left_alone(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    there = bridge.folder / "there.zip"
    there.write_text("mine", encoding="utf-8")
    done = inside("diagnostics", "--output", there, config=bridge.config)
    assert done.exit_code == 2
    assert "File exists" in done.stderr
    assert there.read_text("utf-8") == "mine"
    done = inside("diagnostics", config=bridge.config)
    assert done.exit_code == 0
    (made,) = bridge.folder.glob("huntress-bridge-diagnostics-*.zip")
    assert made.name in done.stdout
    assert "Look through it before you send it" in done.stdout
