"""The container files, as far as they can be judged without an engine; `tests/containers/run` uses a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.processes import STOP_SECONDS

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", ".ci/build.lock")
#: A host name with a dot in it, in an address or as the start of an image's name.
HOST = re.compile(r"https?://|(?:FROM|image:)\s+[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?/")


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package to version and number of hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        match = re.match(r"([a-z0-9._-]+)==(\S+)", line)
        assert match, f"{name}: {line} pins nothing"
        found[match[1]] = match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))
    return found


def plain(requirement: str) -> str:
    """The normalized name of the package in a requirement."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def services() -> Iterator[tuple[str, str]]:
    """Each service of the compose file with its text, what `<<` merges into it included."""
    text = (ROOT / "docker-compose.yml").read_text()
    shared = re.search(r"^x-bridge: &bridge\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    block = re.search(r"^services:\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    assert shared
    assert block
    for name, body in re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", block[1], re.MULTILINE):
        merged = re.sub("^", "  ", shared[1], flags=re.MULTILINE) if "<<: *bridge" in body else ""
        yield name, body + merged


SERVICES = dict(services())


@pytest.mark.parametrize(
    ("file", "table", "key"), [(LOCKS[0], "project", "dependencies"), (LOCKS[1], "build-system", "requires")]
)
def test_every_dependency_is_locked_by_hash(file: str, table: str, key: str, project: dict[str, Any]) -> None:
    pins = locked(file)
    assert {plain(requirement) for requirement in project[table][key]} <= pins.keys()
    assert [name for name, (_, hashes) in pins.items() if not hashes] == []


@pytest.mark.parametrize("requirement", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
def test_the_locked_version_is_one_the_project_allows(requirement: str) -> None:
    least = re.search(r">=([0-9.]+)", requirement)
    version, _ = locked("requirements.lock")[plain(requirement)]
    assert least
    assert numbers(version) >= numbers(least[1])


def numbers(version: str) -> list[int]:
    """Its leading numbers, comparable."""
    return [int(part) for part in re.findall(r"\d+", version)][:3]


@pytest.mark.parametrize("name", [*LOCKS, "Dockerfile", "docker-compose.yml"])
def test_no_registry_or_index_is_named(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if "redis://" not in line]
    assert [line for line in lines if HOST.search(line) or "--index-url" in line or "--find-links" in line] == []


def test_the_image_is_not_root_and_takes_locked_wheels_only(dockerfile: str) -> None:
    final = dockerfile.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 1000:1000$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["huntress-bridge"]' in final
    assert "STOPSIGNAL SIGTERM" in final
    installs = re.findall(r"pip install (.*)", dockerfile)
    assert installs
    assert all("--require-hashes" in install or "--no-deps dist/" in install for install in installs)


def test_the_build_sees_no_configuration_and_no_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(" ".join(copied).split())


def test_the_services_are_those_of_the_design() -> None:
    assert SERVICES.keys() == {"redis", "poller", "worker", "web"}
    for name in ("poller", "worker", "web"):
        assert f"command: [{name}]" in SERVICES[name]
        assert f"healthcheck, {name}]" in SERVICES[name]
        assert "condition: service_healthy" in SERVICES[name]
        assert 'user: "${RUN_AS_UID:-1000}:${RUN_AS_GID:-1000}"' in SERVICES[name]
        # Anything else could not run several times.
        assert "container_name" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_comes_back(name: str) -> None:
    text = SERVICES[name]
    for promise in (
        "read_only: true\n",
        "cap_drop:\n",
        "- ALL\n",
        "- no-new-privileges:true\n",
        "restart: unless-stopped\n",
        "healthcheck:\n",
    ):
        assert promise in text, f"{name} lacks {promise.strip()}"
    assert re.search(r"^ +user: (?!root|.?0\b)\S", text, re.MULTILINE)
    assert "privileged: true" not in text


def test_redis_keeps_every_write_and_throws_nothing_away() -> None:
    text = SERVICES["redis"]
    for option in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction", "- redis:/data"):
        assert option in text


def test_only_the_page_is_published_and_on_loopback_only() -> None:
    published = {name: re.findall(r"^ +- \"(.*):\d+\"$", text, re.MULTILINE) for name, text in SERVICES.items()}
    assert published == {"redis": [], "poller": [], "worker": [], "web": ["127.0.0.1:${PAGE_PORT:-8080}"]}


def test_the_worker_may_stop_for_longer_than_it_gives_its_requests() -> None:
    grace = re.search(r"stop_grace_period: (\d+)s", SERVICES["worker"])
    assert grace
    assert int(grace[1]) >= STOP_SECONDS + 5


def test_no_top_level_name_or_version() -> None:
    """1.29 refuses `name`; v2 warns of `version`."""
    top = re.findall(r"^(\S+?):", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert set(top) == {"x-bridge", "services", "volumes"}


def compose() -> list[str]:
    """The compose command of this machine; empty: there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    return []


@pytest.mark.skipif(not compose(), reason="there is no compose command on this machine")
def test_compose_itself_takes_the_files(tmp_path: Path) -> None:
    files = ["-f", str(ROOT / "docker-compose.yml"), "-f", str(ROOT / "tests/containers/compose.test.yml")]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CONFIG_FOLDER": str(tmp_path)}
    for chosen in (files[:2], files):
        checked = subprocess.run([*compose(), *chosen, "config", "-q"], capture_output=True, text=True, env=environ)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_container_test_is_executable_and_bash_takes_it() -> None:
    for name in ("run", "stand_ins"):
        path = ROOT / "tests/containers" / name
        assert os.access(path, os.X_OK)
        assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""


def test_the_pretend_world_writes_a_configuration_with_its_secrets_in_files(tmp_path: Path) -> None:
    (tmp_path / "mail.pem").touch()
    made = subprocess.run(
        [sys.executable, str(ROOT / "tests/containers/pretend.py"), "configure", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    tables = tomllib.loads((tmp_path / "bridge.toml").read_text())
    assert tables["connectors"].keys() == {"psa", "desk", "oncall"}
    text = json.dumps(tables)
    secrets = {path.read_text().strip() for path in (tmp_path / "secrets").iterdir()}
    assert len(secrets) == 9
    assert not [secret for secret in secrets if secret in text]
