"""The house is in order: linter, types, and promises about files that no other test would miss."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bridge.broker import store_client
from bridge.cli import main
from bridge.scripts import script_text
from bridge.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LUA = sorted(path.stem for path in (ROOT / "bridge" / "lua").glob("*.lua") if path.stem != "common")

#: What no file may contain, in pieces so that this one does not: hosts of package registries, and paths of the machine
#: and folders that this project was written on.
FORBIDDEN = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "crates" + ".io",
    "/work" + "/main",
    "/work" + "/shared",
    "../" + "shared/",
)


def assert_clean(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def files() -> Iterator[Path]:
    """Every file that belongs to the project, tracked by git or about to be."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked source archive
        rooms = ("bridge", "connectors", "templates", "tests", "docs")
        found = [*ROOT.glob("*"), *(path for room in rooms for path in (ROOT / room).rglob("*"))]
    return (path for path in found if path.is_file() and "__pycache__" not in path.parts)


def test_the_linter_finds_nothing() -> None:
    assert_clean("ruff", "check", "--no-cache", ".")


def test_the_code_is_formatted() -> None:
    assert_clean("ruff", "format", "--no-cache", "--check", ".")


def test_the_types_are_strict_and_right() -> None:
    assert_clean("mypy")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["strict"] is True


def test_no_file_names_what_is_none_of_its_business() -> None:
    found = []
    for path in files():
        text = path.read_bytes().decode("utf-8", "ignore")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert found == []


def test_connectors_import_nothing_from_bridge_but_its_models() -> None:
    found = []
    for path in (ROOT / "connectors").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong = [name for name in names if name.split(".")[0] == "bridge" and name != "bridge.models"]
            found += [f"{path.name}: {name}" for name in wrong]
    assert found == []


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    named = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for requirement in named:
        line = next(line for line in text.splitlines() if line.strip().startswith(f'"{requirement}",'))
        assert re.search(r"# \w.{5,}$", line.split('",', 1)[1]), f"no comment: {line.strip()}"


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"`[^`\n]*\b{command}\b|huntress-bridge .*\b{command}\b", readme), (
        f"{command} is not in README.md"
    )


TABLES = [name for name, field in Settings.model_fields.items() if not isinstance(field.default, str | Path)]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_of_the_configuration_is_in_the_readme(table: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"\[{table}[].]", readme), f"[{table}] is not in README.md"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = store_client(redis_url)
    yield client
    client.close()


@pytest.mark.parametrize("name", LUA)
def test_every_script_is_loadable_and_used(client: redis.Redis, name: str) -> None:
    digest = client.script_load(script_text(name))
    assert client.script_exists(digest) == [True]
    sources = [path.read_text("utf-8") for path in (ROOT / "bridge").rglob("*.py")]
    assert any(f'"{name}"' in source for source in sources), f"nothing runs {name}.lua"


def test_the_connectors_of_the_example_are_those_of_the_project() -> None:
    """`bridge.example.toml` shows one connector of each built-in type."""
    tables = tomllib.loads((ROOT / "bridge.example.toml").read_text("utf-8"))["connectors"]
    points = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    assert {table["type"] for table in tables.values()} == set(points["huntress_bridge.connectors"])
