"""A connector from another package: installed, found by its entry point, and held to the contract."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "example_connector"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed in it, by pip and without a network."""
    folder = tmp_path_factory.mktemp("example")
    source, target = folder / "source", folder / "target"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source), folder=folder)
    return folder


def run(*command: str, folder: Path, exit_code: int = 0) -> str:
    path = os.pathsep.join([str(folder / "target"), str(folder / "source")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def run_pytest(folder: Path, *arguments: str, exit_code: int = 0) -> str:
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder / "source"), "--tb=short"]
    return run(sys.executable, "-m", "pytest", *options, *arguments, folder=folder, exit_code=exit_code)


def test_the_entry_point_is_found_beside_the_built_in_ones(installed: Path) -> None:
    code = (
        "from connectors.registry import connector_classes, registry_errors\n"
        "assert registry_errors() == [], registry_errors()\n"
        "found = connector_classes()\n"
        "print(sorted(found), found['tracker'].__module__)"
    )
    shown = run(sys.executable, "-c", code, folder=installed)
    assert shown.strip() == "['autotask', 'connectwise', 'email', 'tracker'] example_tracker.connector"


def test_its_templates_are_installed_with_it_and_render(installed: Path) -> None:
    folder = installed / "target" / "example_tracker" / "templates"
    assert sorted(path.name for path in folder.iterdir()) == ["text.j2", "title.j2"]
    code = (
        "from bridge.rendering import Renderer, samples\n"
        "from connectors.base import ConnectorContext\n"
        "from example_tracker.connector import Tracker, TrackerSettings\n"
        "settings = TrackerSettings(type='tracker', url='https://tracker.example', token='some')\n"
        "connector = Tracker('tracker', settings, ConnectorContext())\n"
        "renderer = Renderer(connector, settings, timezone='UTC', portal_url='https://portal.example')\n"
        "assert renderer.check() == [], renderer.check()\n"
        "rendered = renderer.render(next(samples()))\n"
        "assert rendered.problems == (), rendered.problems\n"
        "print(rendered.ticket.title, rendered.ticket.text)"
    )
    shown = run(sys.executable, "-c", code, folder=installed)
    assert "[huntress-" in shown
    assert "- Report: " in shown


def test_it_keeps_the_contract(installed: Path) -> None:
    shown = run_pytest(installed, str(installed / "source" / "contract.py"))
    assert " passed" in shown
    assert "failed" not in shown


def test_the_contract_notices_careless_connectors(installed: Path) -> None:
    code = "from careless import CARELESS\nfor c in CARELESS: print(f'Test{c.__name__}::{c.noticed_by}')"
    tests = run(sys.executable, "-c", code, folder=installed).split()
    assert len(tests) >= 12
    file = installed / "source" / "careless.py"
    shown = run_pytest(installed, *[f"{file}::{test}" for test in tests], "-rfE", exit_code=1)
    told = [line for line in shown.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert [test for test in tests if not any(test in line for line in told)] == []
