"""Makes `Settings` of what was read: merges, finds each connector's model, collects everything that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from bridge.settings import Settings, WorkerSettings, threads_needed
from bridge.settings_reading import (
    ConfigurationError,
    Environment,
    Key,
    KnownKeys,
    Problems,
    Table,
    keys_of,
    overlay,
    secret_texts,
    take_secret_files,
)
from connectors.base import ConnectorSettings, Notifier, PsaSettings, why_unreadable

if TYPE_CHECKING:
    from connectors.base import Connector


class Loader:
    """One attempt to load: what was given, what may be given, and what is wrong."""

    def __init__(self, file: Table, environ: Mapping[str, str], classes: Mapping[str, type[Connector]] | None) -> None:
        self._problems = Problems()
        self.secret_files: list[Path] = []
        self._secrets: set[str] = set()
        self._file = file
        variables = Environment(environ, self._problems)
        in_file = file.get("connectors")
        named = overlay(in_file if isinstance(in_file, dict) else {}, variables.connectors())
        self._broken: dict[str, str] = {}
        if classes is None and named:
            # Imports every connector, so only when there is one.
            from connectors.registry import connector_classes, registry_errors

            classes = connector_classes()
            self._broken = {error.type: str(error) for error in registry_errors()}
        self._models = {kind: connector.settings_class for kind, connector in (classes or {}).items()}
        self._notifiers = {kind for kind, connector in (classes or {}).items() if issubclass(connector, Notifier)}
        self._known: KnownKeys = self._known_keys(named)
        undecided = {name for name in named if ("connectors", name) not in self._known}
        self._environment = variables.values(self._known, undecided)

    def settings(self) -> Settings:
        """What was given, as settings. Raises `ConfigurationError` with everything that is wrong."""
        layers, prepare = (self._environment, self._file), self._prepare

        class Loaded(Settings):
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return tuple(InitSettingsSource(settings_cls, layer) for layer in layers)

            @model_validator(mode="before")
            @classmethod
            def _prepare(cls, merged: Table) -> Table:
                return prepare(merged)

        settings: Settings | None = None
        try:
            settings = Loaded()
        except ValidationError as error:
            self._problems.add_validation(error, (), self._known)
        # Raised here and not above: a traceback must not carry pydantic's error, which holds the values.
        if settings is None or self._problems.sentences:
            raise ConfigurationError(map(self._without_secrets, self._problems.sentences))
        # Of the one class, so that what was loaded twice can be compared.
        return Settings.model_construct(**dict(settings))

    def _known_keys(self, named: Table) -> dict[Key, Any]:
        known = keys_of(Settings)
        for name, table in named.items():
            kind = table.get("type") if isinstance(table, dict) else None
            if isinstance(kind, str) and kind in self._models:
                known[("connectors", name)] = self._models[kind]
                known |= keys_of(self._models[kind], ("connectors", name))
        return known

    def _prepare(self, merged: Table) -> Table:
        """`merged` with secret files read and each connector's table turned into its own settings class."""
        merged = self._take_secrets(merged, Settings, ())
        tables = merged.get("connectors", {})
        if isinstance(tables, dict):
            built = {name: self._connector(name, table) for name, table in tables.items()}
            merged["connectors"] = {name: settings for name, settings in built.items() if settings}
            self._check_threads(merged.get("worker", {}), merged["connectors"])
            for name, settings in merged["connectors"].items():
                self._check_path(("connectors", name, "ca_file"), settings.ca_file)
                self._check_path(("connectors", name, "templates"), settings.templates)
            self._check_alerts(merged.get("alerts"), tables)
            self._check_create_companies(merged.get("organizations"), merged["connectors"], tables)
        for table, key in (("huntress", "ca_file"), ("alerts", "ca_file"), ("organizations", "file")):
            if isinstance(merged.get(table), dict):
                self._check_path((table, key), merged[table].get(key))
        return merged

    def _take_secrets(self, table: Table, model: type[BaseModel], key: Key) -> Table:
        self._secrets.update(secret_texts(table, model))
        table, files = take_secret_files(table, model, key, self._problems)
        self._secrets.update(secret_texts(table, model))
        self.secret_files += files
        return table

    def _connector(self, name: str, table: Any) -> ConnectorSettings | None:
        key = ("connectors", name)
        kind = table.get("type") if isinstance(table, dict) else None
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            self._problems.add(key, f"{self._problems.about(key)}: a connector's name must match [a-z][a-z0-9_]*")
        elif not isinstance(table, dict):
            self._problems.add(key, f"{self._problems.about(key)} must be a table")
        elif not isinstance(kind, str) or kind not in self._models:
            self._problems.add(key, self._problems.about((*key, "type")) + self._not_a_type(kind))
        else:
            model = self._models[kind]
            try:
                return model.model_validate(self._take_secrets(table, model, key))
            except ValidationError as error:
                self._problems.add_validation(error, key, self._known)
        return None

    def _not_a_type(self, kind: Any) -> str:
        known = ", ".join(sorted(self._models))
        if not isinstance(kind, str) or not kind:
            return f" is missing; known types are {known}"
        if kind in self._broken:
            return f": {self._broken[kind]}"
        return f": {kind!r} is not a known connector type; known types are {known}"

    def _check_threads(self, worker: Any, connectors: Mapping[str, ConnectorSettings]) -> None:
        try:
            threads = WorkerSettings.model_validate(worker).threads
        except ValidationError:
            return  # told with everything else that the models find
        if 0 < threads < threads_needed(connectors):
            key = ("worker", "threads")
            self._problems.add(
                key,
                f"{self._problems.about(key)} must be 0 or at least {threads_needed(connectors)}, the connectors' "
                "concurrencies plus two, so that one connector that hangs starves no other",
            )

    def _check_alerts(self, alerts: Any, tables: Table) -> None:
        """The connectors that are to carry notices exist, and can."""
        key = ("alerts", "connectors")
        names = alerts.get("connectors") if isinstance(alerts, dict) else None
        for place, name in enumerate(names if isinstance(names, list) else (), 1):
            table = tables.get(name) if isinstance(name, str) else {}
            kind = table.get("type") if isinstance(table, dict) else None
            if table is None:
                known = ", ".join(tables) or "none"
                self._problems.add(
                    key, f"{self._problems.about(key)}: item {place} is the name of no connector; configured: {known}"
                )
            elif isinstance(kind, str) and kind in self._models and kind not in self._notifiers:
                able = ", ".join(sorted(self._notifiers)) or "none"
                why = f"connector {name} ({kind}) cannot carry notices; types that can: {able}"
                self._problems.add(key, f"{self._problems.about(key)}: {why}")

    def _check_create_companies(
        self, organizations: Any, connectors: Mapping[str, ConnectorSettings], tables: Table
    ) -> None:
        """The connectors that are to make companies exist, have companies, and find what they made by its name."""
        key = ("organizations", "create_companies")
        names = organizations.get("create_companies") if isinstance(organizations, dict) else None
        if not isinstance(names, list) or not names:
            return
        about = self._problems.about(key)
        for place, name in enumerate(names, 1):
            if not isinstance(name, str):
                continue  # told with everything else that the models find
            if name not in tables:
                known = ", ".join(tables) or "none"
                self._problems.add(key, f"{about}: item {place} is the name of no connector; configured: {known}")
            elif name in connectors and not isinstance(connectors[name], PsaSettings):
                self._problems.add(
                    key, f"{about}: connector {name} ({connectors[name].type}) has no companies; remove it"
                )
        if organizations.get("automatch") == "off":
            self._problems.add(
                key, f'{about} needs organizations.automatch = "exact": a company that was made is found by its name'
            )

    def _check_path(self, key: Key, given: object) -> None:
        """A file or folder that cannot be read is told now, not when the first ticket needs it."""
        if not given or not isinstance(given, str):
            return
        try:
            os.listdir(given) if key[-1] == "templates" else Path(given).open("rb").close()
        except OSError as error:
            why = why_unreadable(Path(given), error)
            self._problems.add(key, f"{self._problems.about(key)}: cannot read {given} ({why})")

    def _without_secrets(self, sentence: str) -> str:
        """The last net, for a message, perhaps of a connector from elsewhere, that repeats a value."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= 4:
                sentence = sentence.replace(secret, "***")
        return sentence
