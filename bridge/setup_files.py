"""Writes a draft: `bridge.toml` for people to read, and a file for each secret, mode 600, in `secrets/`, mode 700.

Either everything is written or nothing. No file that exists is changed: a configuration that is replaced is kept beside
the new one, and goes on naming its own secrets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bridge.settings import Settings
from bridge.settings_reading import Key, Table
from bridge.setup_draft import Draft
from bridge.toml_text import name, value_text
from connectors.base import PsaSettings

HEAD = """\
# Written by `huntress-bridge init`. bridge.example.toml explains every key; what is not here has its default.
# After a change: huntress-bridge check --online
"""
#: What stands before a key, by table and key.
REMARKS: dict[Key, str] = {
    ("poll", "not_before"): '# Incidents sent before are left alone. "now" is the first start; an ISO date outlasts a '
    "lost data_dir.",
}
MATCHING = """\
# Organizations without a company of the same name go to default_company. This proposes companies for them:
# huntress-bridge organizations match {connector} --output organizations.csv
# file = "organizations.csv"
"""


@dataclass(frozen=True)
class Written:
    """What is there now."""

    config: Path
    secrets: tuple[Path, ...]
    #: Where the configuration that was replaced is kept.
    backup: Path | None


@dataclass
class Files:
    """The place where everything goes: `config` and the folder `secrets` beside it."""

    config: Path
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _made: list[Path] = field(default_factory=list)

    def write(self, draft: Draft) -> Written:
        """Writes it all. Raises `OSError`, after which nothing of it is left."""
        try:
            names = dict(self._secrets(draft))
            temporary = self.config.with_name(f".{self.config.name}.{os.getpid()}")
            self._create(temporary, toml_of(draft, {key: self._shown(path) for key, path in names.items()}))
            backup = self._back_up()
            temporary.replace(self.config)
        except BaseException:  # also ctrl-C
            self._undo()
            raise
        return Written(self.config, tuple(names.values()), backup)

    def _secrets(self, draft: Draft) -> Iterator[tuple[Key, Path]]:
        if not draft.secrets:
            return
        folder = self.config.parent / "secrets"
        with suppress(FileExistsError):
            folder.mkdir(0o700)
            self._made.append(folder)
        for key, secret in draft.secrets.items():
            stem = "_".join(key[1:] if key[0] == "connectors" else key)
            yield key, self._secret(folder, stem, f"{secret}\n")

    def _secret(self, folder: Path, stem: str, text: str) -> Path:
        """A new file with this text; under another name where one of that name exists."""
        number = 1
        while True:
            path = folder / (stem if number == 1 else f"{stem}_{number}")
            try:
                self._create(path, text)
            except FileExistsError:
                number += 1
            else:
                return path

    def _create(self, path: Path, text: str) -> None:
        # Never readable for others, not even for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._made.append(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)

    def _back_up(self) -> Path | None:
        if not self.config.exists():
            return None
        backup = self.config.with_name(f"{self.config.name}.{self.now():%Y%m%dT%H%M%SZ}.bak")
        os.link(self.config, backup)
        self._made.append(backup)
        return backup

    def _undo(self) -> None:
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def _shown(self, path: Path) -> str:
        """As the configuration names it: paths there are relative to the folder that the bridge is started in."""
        with suppress(ValueError):
            return str(path.resolve().relative_to(Path.cwd()))
        return str(path.resolve())


def toml_of(draft: Draft, files: Mapping[Key, str]) -> str:
    """The configuration; `files` name the secrets' files by key."""
    tables = _tables(draft, files)
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    parts = [HEAD, "".join(_lines((), plain))]
    parts += [f"[{key}]\n{''.join(_lines((key,), table))}" for key, table in tables.items() if key not in plain]
    for connector, kind in draft.connectors().items():
        order = [part for question in kind.questions() for part in (question.key, f"{question.key}_file")]
        given = draft.tables["connectors"][connector] | _named(files, ("connectors", connector))
        ordered = {key: given[key] for key in ["type", *order] if key in given} | given
        parts.append(f"[connectors.{connector}]\n{''.join(_lines(('connectors', connector), ordered))}")
    return "\n".join(filter(None, parts))


def _tables(draft: Draft, files: Mapping[Key, str]) -> Table:
    """Everything but the connectors, in the order of the settings."""
    tables: Table = {}
    for key in Settings.model_fields:
        given = draft.tables.get(key, {})
        named = _named(files, (key,))
        if key != "connectors" and (given or named):
            tables[key] = named | given if isinstance(given, dict) else given
        if key == "organizations" and "file" not in tables.get(key, {}):
            kinds = draft.connectors().items()
            hint = next((name for name, kind in kinds if issubclass(kind.settings_class, PsaSettings)), None)
            if hint:
                tables[key] = {MATCHING.format(connector=hint): None} | tables.get(key, {})
    return tables


def _named(files: Mapping[Key, str], table: Key) -> dict[str, str]:
    """The keys of `table` that name files."""
    return {f"{key[-1]}_file": path for key, path in files.items() if key[:-1] == table}


def _lines(table: Key, values: Table) -> Iterator[str]:
    """A line for each value; a key without one is a remark."""
    for key, value in values.items():
        if value is None:
            yield key
            continue
        if remark := REMARKS.get((*table, key)):
            yield f"{remark}\n"
        yield f"{name(key)} = {value_text(value)}\n"
