"""The wheel, built and installed into an empty environment, beside folders that are named like its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.end_to_end import conftest as end_to_end
from tests.end_to_end.conftest import Bridge, World, wait_until

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("bridge", "connectors", "templates")


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline, with the build back-end that the tests bring."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel, and borrows nothing but the dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    options = ("--no-index", "--no-deps", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    assert (site / "bridge").is_dir()
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    # A path file's own entries stand behind the environment's, and path files in them are not read.
    (site / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        world = World()
        for system in world.systems:
            system.start()
            stack.callback(system.stop)
        yield world


@pytest.fixture
def make_bridge(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bridge]]:
    """The installed command, in a folder with decoys."""
    monkeypatch.setattr(end_to_end, "COMMAND", environment / "huntress-bridge")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for room in ("bridge", "connectors"):
        (tmp_path / room).mkdir()
        for name in ("__init__", "models", "cli", "base", "registry", "connectwise"):
            (tmp_path / room / f"{name}.py").write_text(
                "raise SystemExit('the decoy was imported')\n", encoding="utf-8"
            )
    for kind in ("_shared", "connectwise", "autotask", "email"):
        (tmp_path / "templates" / kind).mkdir(parents=True)
        for name in ("title", "text", "html", "notice", "ticket", "incident"):
            (tmp_path / "templates" / kind / f"{name}.j2").write_text("DECOY", encoding="utf-8")
    with ExitStack() as stack:

        def make(world: World, **tables: object) -> Bridge:
            bridge = Bridge(tmp_path, world, tables)
            stack.callback(bridge.end)
            return bridge

        yield make


def test_the_wheel_holds_everything_that_the_rooms_hold_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kinds = (".py", ".j2", ".lua")
    there = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in kinds}
    assert {name for name in inside if name.endswith(kinds)} == there
    assert {name.split("/")[0] for name in inside} == set(ROOMS)
    assert sum(name.endswith(".j2") for name in inside) >= 10
    assert sum(name.endswith(".lua") for name in inside) >= 15


def test_the_environment_imports_what_was_installed(environment: Path, tmp_path: Path) -> None:
    code = "import bridge, connectors; print(bridge.__file__, connectors.__file__)"
    done = subprocess.run(
        [environment / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count(str(environment.parent)) == 2


@pytest.mark.parametrize("connector", ["psa", "desk", "oncall"])
def test_render_uses_the_real_templates(world: World, make_bridge: Callable[..., Bridge], connector: str) -> None:
    bridge = make_bridge(world)
    rendered = bridge("render", connector)
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    assert "DECOY" not in rendered.stdout
    assert "huntress-5-" in rendered.stdout


def test_poller_and_worker_deliver_beside_the_decoys(
    world: World, make_bridge: Callable[..., Bridge], make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    bridge = make_bridge(world, redis={"url": server.url})
    world.reports(2)
    processes = [bridge.start("worker"), bridge.start("poller")]
    wait_until(lambda: len(world.connectwise.tickets) == len(world.autotask.tickets) == 2)
    wait_until(lambda: len(world.mailbox.messages) == 2)
    assert [bridge.stop(process) for process in processes] == [0, 0]
    for ticket in world.connectwise.tickets.values():
        number = int(ticket["externalXRef"].rsplit("-", 1)[1])
        assert ticket["summary"].startswith(world.huntress.reports[number]["subject"])
    sent = [*world.connectwise.received, *world.autotask.received]
    assert not any(b"DECOY" in request.body for request in sent)
    assert not any("DECOY" in str(mail.message) for mail in world.mailbox.messages)


def test_the_embedded_redis_comes_with_the_dependencies(make_bridge: Callable[..., Bridge], world: World) -> None:
    bridge = make_bridge(world)
    assert bridge.deliveries() == []
    assert os.access(bridge.data_dir / "appendonlydir", os.R_OK)
