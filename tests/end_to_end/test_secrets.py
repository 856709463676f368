"""No secret in anything that any command says or keeps, whatever goes wrong, at `--log-level debug`."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets as chance
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import requests
from click.testing import Result

import bridge.demo.connectwise as pretend_connectwise
from bridge.demo.run import free_port
from bridge.demo.server import PretendServer, Received, Reply
from tests.conftest import RedisServer
from tests.end_to_end.conftest import COMMAND, Bridge, World, wait_until
from tests.end_to_end.inside import inside

#: Characters that some quoting or encoding changes: quotes, signs of shells and URLs, a space, letters beyond ASCII.
SPECIAL = "\"'$%&+/=?# \\<>ü€ß"
#: What an HTTP header can carry.
SPECIAL_IN_HEADERS = "\"'$%&+/=?#\\<>"


def _secret(special: str = SPECIAL) -> str:
    return f"{chance.token_hex(6)}{special}{chance.token_hex(6)}"


SECRETS = {
    "huntress.api_key": _secret("-"),
    "huntress.api_secret": _secret(),
    "psa.private_key": _secret(),
    "psa_wrong.private_key": _secret(),
    "proxied.proxy": _secret("-%41+"),
    "desk.secret": _secret(SPECIAL_IN_HEADERS),
    "oncall.password": _secret(),
    "mail_wrong.password": _secret(),
    "oauth.client_secret": _secret(),
    "alerts.heartbeat_url": _secret("-"),
    "redis password": _secret(),
    "in the wrong place": _secret(),
}
PAIRS = {
    "huntress": (SECRETS["huntress.api_key"], SECRETS["huntress.api_secret"]),
    "psa": (f"{pretend_connectwise.COMPANY_ID}+{pretend_connectwise.PUBLIC_KEY}", SECRETS["psa.private_key"]),
    "psa_wrong": (
        f"{pretend_connectwise.COMPANY_ID}+{pretend_connectwise.PUBLIC_KEY}",
        SECRETS["psa_wrong.private_key"],
    ),
}


def spellings(secret: str) -> set[bytes]:
    """The secret as it is and as it may have been encoded, also in the middle of something longer."""
    data = secret.encode()
    found = {data, secret.encode("latin-1", "replace"), quote(secret, safe="").encode(), quote_plus(secret).encode()}
    found |= {quote(secret).encode(), json.dumps(secret)[1:-1].encode(), repr(secret)[1:-1].encode()}
    found |= {json.dumps(secret, ensure_ascii=False)[1:-1].encode(), data.hex().encode()}
    found |= {secret[:12].encode(), secret[-12:].encode()}  # cut short somewhere
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + data)
        core = coded[4 if offset else 0 : len(coded) - 4]
        found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def pair_spellings(user: str, secret: str) -> set[bytes]:
    data = f"{user}:{secret}".encode()
    return {base64.b64encode(data), base64.urlsafe_b64encode(data), base64.b64encode(f"\0{user}\0{secret}".encode())}


def pair_texts(name: str) -> list[str]:
    return sorted(spelling.decode() for spelling in pair_spellings(*PAIRS[name]))


class Echo(PretendServer):
    """A token endpoint that repeats what it was sent."""

    def answer(self, request: Received) -> Reply:
        return Reply(401, {"error": "invalid_client", "error_description": f"no {request.body.decode()}"})


class Collected:
    """Everything said and kept, by where it was."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}

    def add(self, name: str, answer: subprocess.CompletedProcess[str] | Result | bytes | str) -> None:
        if isinstance(answer, subprocess.CompletedProcess | Result):
            self.parts[f"{name}: stdout"] = answer.stdout.encode()
            self.parts[f"{name}: stderr"] = answer.stderr.encode()
        else:
            self.parts[name] = answer if isinstance(answer, bytes) else answer.encode()

    def everything(self) -> str:
        return b"\n".join(self.parts.values()).decode("utf-8", "replace")


def secretive(world: World, echo: Echo, dead: int) -> dict[str, object]:
    """Configuration tables with all the secrets; some are right, some wrong."""
    world.huntress.credentials = (SECRETS["huntress.api_key"], SECRETS["huntress.api_secret"])
    world.autotask.secret = SECRETS["desk.secret"]
    world.mailbox.users["bridge@example.com"] = SECRETS["oncall.password"]
    psa = world.connectwise.settings(timeout=2, settle=2)
    oncall = world.mailbox.settings(timeout=2)
    return {
        "huntress": world.huntress.settings(timeout=2),
        "alerts": {"heartbeat_url": f"{echo.url}/ping/{SECRETS['alerts.heartbeat_url']}", "connectors": ["oncall"]},
        "connectors": {
            "psa": psa | {"private_key": SECRETS["psa.private_key"]},
            "psa_wrong": psa | {"private_key": SECRETS["psa_wrong.private_key"], "reference_suffix": "-w"},
            "proxied": psa
            | {
                "private_key": SECRETS["psa.private_key"],
                "proxy": f"http://somebody:{quote(SECRETS['proxied.proxy'], safe='')}@127.0.0.1:{dead}",
                "reference_suffix": "-p",
            },
            "desk": world.autotask.settings(timeout=2, settle=2),
            "oncall": oncall,
            "mail_wrong": oncall | {"password": SECRETS["mail_wrong.password"]},
            "oauth": oncall
            | {
                "password": "",
                "auth": "xoauth2",
                "client_id": "client",
                "client_secret": SECRETS["oauth.client_secret"],
                "token_url": f"{echo.url}/token",
            },
        },
    }


def mistreat(world: World) -> None:
    """Every system misbehaves in its own way, and repeats the credentials it was sent."""
    huntress, psa, desk = world.huntress, world.connectwise, world.autotask
    echo = " ".join([*PAIRS["huntress"], *pair_texts("huntress")])
    huntress.fault("status", path="organizations", status=500, body={"message": f"cannot do {echo}"})
    huntress.fault("status", path="agents", status=403, body={"error": echo})
    echo = " ".join([SECRETS["psa.private_key"], *pair_texts("psa")])
    target = f"https://evil.example/{quote(echo)}?{quote_plus(echo)}"
    psa.fault("status", method="POST", path="/tickets$", status=503, body={"message": echo})
    psa.fault("status", method="POST", path="/tickets$", status=400, body={"code": "x", "message": echo, "errors": []})
    psa.fault("status", method="POST", path="/tickets$", status=302, headers={"Location": target})
    psa.fault("commit_drop", method="POST", path="/tickets$")
    echo = SECRETS["desk.secret"]
    desk.fault("hang", method="POST", path="/Tickets$", delay=4)
    desk.fault("status", method="POST", path="/Tickets$", status=500, body={"errors": [f"no {echo}", quote(echo)]})
    desk.fault("status", method="POST", path="/Tickets$", status=401, body={"errors": [echo]})
    desk.fault("garbage", path="query", body=f"<html>{echo}")
    world.mailbox.fault("auth_fail")
    world.mailbox.fault("hang")


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    """What a bridge with many secrets said and kept in a bad world."""
    found = Collected()
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(pretend_connectwise, "PRIVATE_KEY", SECRETS["psa.private_key"])
        world, echo = World(3), Echo()
        for system in (*world.systems, echo):
            system.start()
            stack.callback(system.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp")))
        bridge = Bridge(folder, world, secretive(world, echo, free_port(0)))
        stack.callback(bridge.end)
        world.reports(6)
        mistreat(world)
        found.add("run --once", bridge("run", "--once", "--wait", "8", "--log-level", "debug"))

        process = bridge.start("run", "--log-level", "debug")
        wait_until(lambda: '"ready"' in bridge.log(), 20)
        mistreat(world)
        world.reports(3, first=7)
        right = bridge.config.read_text("utf-8")
        wait_until(lambda: '"polled"' in bridge.log(), 20)
        found.add("check --online", bridge("--log-level", "debug", "check", "--online"))
        for name, arguments in {
            "deliveries": ("deliveries",),
            "deliveries --json": ("deliveries", "--json"),
            "explain": ("explain",),
            "retry": ("retry", "--state", "pending"),
            "link": ("link", "1", "psa_wrong", "4711"),
            "healthcheck": ("healthcheck",),
        }.items():
            found.add(name, inside("--log-level", "debug", *arguments, config=bridge.config))
        for connector in ("psa", "desk", "oauth"):
            found.add(f"render {connector}", inside("render", connector, "--log-level", "debug", config=bridge.config))
        found.add("/status", requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=5).text)
        wrong = SECRETS["in the wrong place"]
        for text in (right.replace("[web]\n", f"[web]\nhost = [{json.dumps(wrong)}]\n"), right + f"\n{wrong}"):
            bridge.config.write_text(text, encoding="utf-8")
            refused = bridge.log().count("is refused")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda refused=refused: bridge.log().count("is refused") > refused, 10)  # type: ignore[misc]
            found.add(
                f"/status {len(found.parts)}", requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=5).text
            )
        bridge.config.write_text(right, encoding="utf-8")
        process.send_signal(signal.SIGTERM)
        process.wait(40)
        found.add("run", bridge.log())
        for path in sorted(bridge.data_dir.rglob("*")):
            if path.is_file():
                found.add(f"data_dir/{path.relative_to(bridge.data_dir)}", path.read_bytes())
        yield found


def test_everything_that_was_to_go_wrong_did(collected: Collected) -> None:
    said = collected.everything()
    for sign in (
        "answered 401",
        "answered 503",
        "answered 302 Found; it points to evil.example",
        "no complete answer within 2 s",
        "refused to log",
        "401",
        "Connection refused",
        "is refused, the old one stays in use",
        "is not valid TOML",
        '"level": "debug"',
        "***",
    ):
        assert sign in said, sign
    assert any(name.startswith("data_dir/appendonlydir/") for name in collected.parts)


def test_no_secret_in_any_output_or_file(collected: Collected, subtests: pytest.Subtests) -> None:
    for name in SECRETS:
        with subtests.test(name):
            for place, data in collected.parts.items():
                for spelling in spellings(SECRETS[name]):
                    assert spelling not in data, f"{place} shows {name} as {spelling!r}"


def test_no_credentials_as_they_stand_in_a_header(collected: Collected, subtests: pytest.Subtests) -> None:
    for name in PAIRS:
        with subtests.test(name):
            for place, data in collected.parts.items():
                for spelling in pair_spellings(*PAIRS[name]):
                    assert spelling not in data, f"{place} shows the header of {name}"


def test_the_search_finds_what_it_looks_for(subtests: pytest.Subtests) -> None:
    for name in SECRETS:
        with subtests.test(name):
            secret = SECRETS[name]
            for shown in (
                secret,
                quote_plus(f"key={secret}&x"),
                base64.b64encode(f"user:{secret}".encode()).decode(),
                repr([secret]),
            ):
                assert any(spelling in shown.encode() for spelling in spellings(secret)), shown


# -- mistakes in the configuration itself ------------------------------------------------------------------------------


def _mistakes(secret: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Configuration texts and variables in which a secret stands where it does harm."""
    quoted = json.dumps(secret)
    huntress = "[huntress]\napi_key = 'key'\n"
    return {
        "a string without its end": (f'[huntress]\napi_secret = "{secret[:-2]}\n', {}),
        "no quotes": (f"[huntress]\napi_secret = {secret}\n", {}),
        "a misspelt key": (f"{huntress}api_secrt = {quoted}\n", {}),
        "a secret that is a list": (f"{huntress}api_secret = [{quoted}]\n", {}),
        "a secret that is a table": (f"{huntress}api_secret = {{ value = {quoted} }}\n", {}),
        "a number that is a secret": (f"[web]\nport = {quoted}\n", {}),
        "a choice that is a secret": (f"[huntress]\ndialect = {quoted}\n", {}),
        "a date that is a secret": (f"[poll]\nnot_before = {quoted}\n", {}),
        "a zone that is a secret": (f"timezone = {quoted}\n", {}),
        "both secret and file": (f"{huntress}api_secret = {quoted}\napi_secret_file = 'x'\n", {}),
        "a redis address": (f"[redis]\nurl = {json.dumps('redis://:' + secret + '@[::1')}\n", {}),
        "a base address with credentials": (
            f"[huntress]\nbase_url = {json.dumps('https://u:' + secret + '@x.example')}\n",
            {},
        ),
        "a connector's key": (f"[connectors.psa]\ntype = 'connectwise'\nprivate_key = {quoted}\ncompany_id = 5\n", {}),
        "a connector's unknown key": (f"[connectors.psa]\ntype = 'connectwise'\nprivate_kex = {quoted}\n", {}),
        "a connector's type": (f"[connectors.psa]\ntype = 'autotas'\nsecret = {quoted}\n", {}),
        "an unknown variable": ("", {"BRIDGE_HUNTRESS__API_SECRT": secret}),
        "a variable with the wrong type": ("", {"BRIDGE_WEB__PORT": secret}),
        "a variable that should be JSON": ("", {"BRIDGE_ORGANIZATIONS__ONLY": secret}),
        "a table as JSON": (
            "",
            {"BRIDGE_CONNECTORS": json.dumps({"psa": {"type": "autotask", "secret": secret, "x": 1}})},
        ),
    }


def test_no_secret_in_a_message_about_the_configuration(tmp_path: Path) -> None:
    """In this process, as there are many cases; the commands print nothing but these messages."""
    from bridge.settings import ConfigurationError, load

    for name, (text, variables) in _mistakes(secret := SECRETS["in the wrong place"]).items():
        path = tmp_path / "bridge.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            load(path, environ=variables)
        said = str(caught.getrepr(style="long", showlocals=False)) + repr(caught.value) + str(caught.value.__context__)
        for spelling in spellings(secret):
            assert spelling not in said.encode(), f"{name}: {said}"


@pytest.mark.parametrize("name", ["no quotes", "a misspelt key", "a variable with the wrong type", "a redis address"])
def test_no_secret_in_what_a_command_says_of_it(tmp_path: Path, name: str) -> None:
    text, variables = _mistakes(SECRETS["in the wrong place"])[name]
    path = tmp_path / "bridge.toml"
    path.write_text(text, encoding="utf-8")
    answer = subprocess.run(
        [COMMAND, "run", "--config", path, "--log-level", "debug"],
        capture_output=True,
        timeout=30,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"} | variables,
    )
    assert answer.returncode == 2
    assert answer.stderr
    for spelling in spellings(SECRETS["in the wrong place"]):
        assert spelling not in answer.stdout + answer.stderr


# -- Redis -------------------------------------------------------------------------------------------------------------


def test_no_redis_password_anywhere(tmp_path: Path, short_tmp_path: Path) -> None:
    folder = short_tmp_path / "guarded"
    folder.mkdir()
    server = RedisServer(folder, "--appendonly", "yes")
    world = World(3)
    with contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.kill)
        with server.client() as client:
            client.config_set("requirepass", SECRETS["redis password"])
        world.start(stack)
        world.reports(3)
        url = f"unix://:{quote(SECRETS['redis password'], safe='')}@{server.socket}?db=0"
        wrong = f"unix://:{quote(SECRETS['in the wrong place'], safe='')}@{server.socket}?db=0"
        bridge = Bridge(tmp_path, world, {"redis": {"url": url}, "connectors": world.connectors("psa")})
        found = Collected()
        done = bridge("run", "--once", "--log-level", "debug")
        assert done.returncode == 0, done.stdout + done.stderr
        found.add("run --once", done)
        process = bridge.start("run", "--log-level", "debug")
        wait_until(lambda: '"polled"' in bridge.log(), 20)
        server.kill()
        time.sleep(1.5)
        bridge.kill(process)
        found.add("run without its Redis", bridge.log())
        found.add("deliveries without Redis", bridge("deliveries", "--log-level", "debug"))
        server.start = lambda: None  # type: ignore[method-assign]
        bridge.write(redis={"url": wrong})
        found.add("a wrong password", bridge("check", "--online", "--log-level", "debug"))
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "redis.log":
                found.add(str(path), path.read_bytes())
    assert "Redis does not answer" in found.everything()
    for name in ("redis password", "in the wrong place"):
        for place, data in found.parts.items():
            for spelling in spellings(SECRETS[name]):
                assert spelling not in data, f"{place} shows {name}"
