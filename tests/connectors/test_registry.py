"""The registry with good, broken and clashing packages on the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from connectors import registry
from connectors.autotask import Autotask
from connectors.connectwise import ConnectWise
from connectors.email import Email

GOOD = """
from connectors.base import Connector, ConnectorSettings
class C(Connector):
    type = "tracker"
    settings_class = ConnectorSettings
"""


def package(folder: Path, distribution: str, name: str, value: str, code: str) -> None:
    info = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {value}\n")
    (folder / f"{value.partition(':')[0]}.py").write_text(code)


def loaded(folder: Path) -> list[str]:
    """The types found with `folder` on the path, then the errors, in a fresh process."""
    code = (
        "import structlog; structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))\n"
        "from connectors.registry import *\n"
        "from connectors.registry import connector_classes, registry_errors\n"
        "print(*sorted(connector_classes()), *map(str, registry_errors()), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_built_in_connectors() -> None:
    assert registry.connector_classes() == {"connectwise": ConnectWise, "autotask": Autotask, "email": Email}
    assert registry.registry_errors() == []


def test_the_result_is_the_callers_own() -> None:
    registry.connector_classes().clear()
    assert len(registry.connector_classes()) == 3


BROKEN = {
    "missing": ("C", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "leaving": ("C", "raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("C", "def", "SyntaxError: "),
    "nameless": ("Other", GOOD, "AttributeError: "),
    "stranger": ("C", "C = dict", "it is not a subclass of connectors.base.Connector"),
    "misnamed": ("C", GOOD, "its type is 'tracker', not the entry point's name"),
    "unset": ("C", GOOD.replace("tracker", "unset").replace("= ConnectorSettings", "= dict"), "its settings_class is "),
}


def test_a_broken_package_is_named_and_stops_no_other(tmp_path: Path) -> None:
    for name, (attribute, code, _) in BROKEN.items():
        package(tmp_path, f"bad-{name}", name, f"bad_{name}:{attribute}", code)
    package(tmp_path, "good-desk", "desk", "desk_good:C", GOOD.replace("tracker", "desk"))
    lines = loaded(tmp_path)
    assert lines[:4] == ["autotask", "connectwise", "desk", "email"]
    for name, (attribute, _, reason) in BROKEN.items():
        start = f"connector type {name} of bad-{name} 1.5 (bad_{name}:{attribute}) cannot be used: {reason}"
        assert [line for line in lines if line.startswith(start)], name
    assert len(lines) == 4 + len(BROKEN)


def test_clashing_packages(tmp_path: Path) -> None:
    package(tmp_path, "one", "tracker", "tracker_one:C", GOOD)
    package(tmp_path, "two", "tracker", "tracker_two:C", GOOD)
    package(tmp_path, "aaa", "email", "tracker_three:C", "raise RuntimeError")
    *types, error = loaded(tmp_path)
    assert types == ["autotask", "connectwise", "email"], "no package replaces a built-in connector"
    assert "one 1.5" in error, "two packages with one name are both left out"
    assert "two 1.5" in error
