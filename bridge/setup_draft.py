"""A configuration in the making: answers by key, secrets apart from them, judged by the real loader."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from bridge.settings import Settings
from bridge.settings_loading import Loader
from bridge.settings_reading import ConfigurationError, Key, Table, decode, keys_of, overlay, value_type, variable
from connectors.base import Connector, read_secret
from connectors.questions import Question
from connectors.registry import connector_classes


class Unfit(Exception):
    """An answer cannot be taken; the sentence says why."""


@dataclass
class Draft:
    """What has been answered so far."""

    environ: Mapping[str, str]
    tables: Table = field(default_factory=dict)
    #: By key, what goes to files of its own.
    secrets: dict[Key, str] = field(default_factory=dict)

    def connectors(self) -> dict[str, type[Connector]]:
        """The classes of the connectors that have been named."""
        classes = connector_classes()
        return {name: classes[table["type"]] for name, table in self.tables.get("connectors", {}).items()}

    def add_connector(self, name: str, kind: str) -> None:
        """Names one more. Raises `Unfit`."""
        classes = connector_classes()
        if kind not in classes:
            raise Unfit(f"{kind!r} is no connector type; there are: {', '.join(sorted(classes))}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise Unfit(f"{name!r}: a connector's name has small letters, digits and _, and starts with a letter")
        if name in Settings.model_fields:
            raise Unfit(f"{name!r} is the name of a table; give the connector another one")
        if name in self.tables.get("connectors", {}):
            raise Unfit(f"there are two connectors named {name}")
        self.tables.setdefault("connectors", {})[name] = {"type": kind}

    def key(self, path: str) -> Key:
        """The key that a dotted path means; a connector's name stands for its table. Raises `Unfit`."""
        parts = tuple(path.split(".", 1)) if path.split(".")[0] in self.tables.get("connectors", {}) else ()
        key = ("connectors", parts[0], *_below(parts[1])) if len(parts) == 2 else tuple(path.split("."))
        if key[0] == "connectors" and (len(key) < 3 or key[1] not in self.tables.get("connectors", {})):
            raise Unfit(f"{path}: name the connector first, with --connector NAME=TYPE")
        if value_type(key, self._known()) is None:
            raise Unfit(f"{path} is not a known key")
        return key

    def is_secret(self, key: Key) -> bool:
        """Does it belong into a file of its own?"""
        return (*key[:-1], f"{key[-1]}_file") in self._known()

    def given_outside(self, key: Key) -> bool:
        """Does a variable of the environment say it? Then it is not asked for and not written."""
        return any(self.environ.get(variable((*key[:-1], name))) for name in (key[-1], f"{key[-1]}_file"))

    def answer(self, key: Key) -> Any:
        """What was answered; None: nothing yet."""
        if key in self.secrets:
            return self.secrets[key]
        value: Any = self.tables
        for part in key:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def put(self, key: Key, text: str) -> None:
        """Takes `text` as the answer. Raises `Unfit` when it cannot be one, and keeps what was there before."""
        before = copy.deepcopy((self.tables, self.secrets))
        if self.is_secret(key):
            self.secrets[key] = text
        else:
            self.set(key, self._value(key, text))
        if problem := self.problem(key):
            self.tables, self.secrets = before
            raise Unfit(problem)

    def put_secret_file(self, key: Key, path: str) -> None:
        """Takes a secret from a file that exists, for `key` without its `_file`. Raises `Unfit`."""
        try:
            text = read_secret(Path(path), ".".join(key))
        except ValueError as error:
            raise Unfit(str(error)) from None
        if not text:
            raise Unfit(f"{'.'.join(key)}: {path} is empty")
        self.put(key, text)

    def set(self, key: Key, value: Any) -> None:
        """Sets a value that is known to fit."""
        table = self.tables
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = value

    def problem(self, key: Key) -> str:
        """What the loader says against `key`, as a sentence; '' when nothing."""
        pattern = re.compile(re.escape(".".join(key)) + r"(?![A-Za-z0-9_.])")
        return next((sentence for sentence in self.problems() if pattern.match(sentence)), "")

    def problems(self) -> tuple[str, ...]:
        """Everything that the loader says against the whole."""
        problems: list[str] = []
        for tables in (self.tables, {name: table for name, table in self.tables.items() if name != "connectors"}):
            try:
                settings = self._loaded(tables, self.secrets)
            except ConfigurationError as error:
                problems += (each for each in error.problems if each not in problems)
                continue  # what is wrong with the connectors hides nothing about the source
            whole = tables is self.tables
            for demand in (settings.require_source, *([settings.require_connectors] if whole else [])):
                try:
                    demand()
                except ConfigurationError as error:
                    problems += error.problems
            break
        return tuple(problems)

    def settings(self, *connectors: str) -> Settings:
        """As the loader makes them, with these connectors alone, and what is still to be chosen filled in.

        Raises `ConfigurationError`.
        """
        kinds, given = self.connectors(), self.tables.get("connectors", {})
        tables = self.tables | {"connectors": {name: given[name] for name in connectors}}
        for name in connectors:
            for question in required(kinds[name]):
                if question.choices and question.key not in given[name]:
                    tables = overlay(tables, _nested(("connectors", name, question.key), "?"))
        return self._loaded(tables, self.secrets)

    def _loaded(self, tables: Table, secrets: Mapping[Key, str]) -> Settings:
        for key, secret in secrets.items():
            if key[0] != "connectors" or key[1] in tables.get("connectors", {}):
                tables = overlay(tables, _nested(key, secret))
        return Loader(tables, self.environ, None).settings()

    def _value(self, key: Key, text: str) -> Any:
        annotation = value_type(key, self._known())
        if get_origin(annotation) is list and not text.lstrip().startswith("["):
            parts = [part.strip() for part in text.split(",") if part.strip()]
            with suppress(ValidationError):  # the loader says what is wrong
                return TypeAdapter(annotation).validate_python(parts)
            return parts
        try:
            value = decode(text, annotation)
        except ValueError as error:
            raise Unfit(f"{'.'.join(key)} {error}") from None
        # The file is for people, so numbers stand there as numbers.
        plain = annotation in (int, float, bool) and re.fullmatch(r"[0-9]{1,9}|true|false", text)
        return json.loads(text) if plain else value

    def _known(self) -> dict[Key, Any]:
        known = keys_of(Settings)
        for name, connector in self.connectors().items():
            known |= keys_of(connector.settings_class, ("connectors", name))
        return known


def required(connector: type[Connector]) -> Iterator[Question]:
    """Its questions about settings that have no default."""
    fields = connector.settings_class.model_fields
    for question in connector.questions():
        info = fields.get(question.key)
        if info is not None and info.is_required():
            yield question


def _below(path: str) -> Key:
    """The key within a connector's table; what stands behind `fields.` may have dots itself."""
    head, dot, tail = path.partition(".")
    return (head, tail) if dot else (head,)


def _nested(key: Key, value: Any) -> Table:
    return {key[0]: _nested(key[1:], value) if len(key) > 1 else value}
