"""What goes into a bundle of `diagnostics`, as plain data. Masking is its caller's."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pydantic import SecretStr

from bridge.printing import moment
from bridge.runtime import make_companies
from bridge.settings import Settings
from bridge.settings_reading import PREFIX, read_toml, variable
from connectors.base import SettingsModel

#: Each file in a few words.
ABOUT = {
    "versions.json": "versions of this program, Python, the system and the libraries",
    "configuration.json": "the configuration without secrets; which secrets are set, and from where",
    "findings.json": "what `check` finds without asking anybody",
    "status.json": "how all is going: polls, connectors and their pauses, alerts, webhooks, counts",
    "errors.json": "reasons of deliveries that wait or were refused, with how many have each",
    "histories.json": "what happened to some of those, step by step",
    "timings.json": "how long a poll, Redis and a ticket take",
    "metrics.txt": "all metrics, among them requests by their status, as Prometheus reads them",
    "processes.json": "the processes and their last sign of life",
    "redis.json": "the Redis server, and how much of what it stores",
    "quarantine.json": "reports that cannot be parsed, by id, with the reason",
    "reports.json": "reports that wait or cannot be parsed, whole",
    "problems.json": "what could not be gathered",
}

#: Variables that change how requests go out; only their names are told.
_RELEVANT = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ", "KUBERNETES_SERVICE_HOST")


def versions() -> dict[str, Any]:
    packages = {"huntress-bridge"}
    packages |= {point.dist.name for point in metadata.entry_points(group="huntress_bridge.connectors") if point.dist}
    for requirement in metadata.requires("huntress-bridge") or []:
        if "extra ==" not in requirement:
            packages.add(requirement.split(";")[0].split(">")[0].split("=")[0].split("[")[0].strip())
    found = {}
    for name in sorted(packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {
        "at": moment(time.time()),
        "python": sys.version,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "locale": os.environ.get("LC_ALL") or os.environ.get("LANG") or "",
        "container": os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
        "packages": found,
    }


def variables(environ: Mapping[str, str]) -> list[str]:
    """Names of the environment variables that matter; never their values."""
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) or name in _RELEVANT or (name.lower().endswith("_proxy") and environ[name])
    )


def configuration(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    file: Mapping[str, Any] = read_toml(settings.source) if settings.source else {}
    return {
        "file": str(settings.source) if settings.source else "none",
        "variables": variables(environ),
        "secrets": dict(_origins(settings, (), file, environ)),
        "settings": settings.masked(),
    }


def _origins(
    model: Any, key: tuple[str, ...], table: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Every secret by its key, and where it came from."""
    fields = model.items() if isinstance(model, Mapping) else model
    for name, value in fields:
        inner = (*key, name)
        if isinstance(value, SecretStr):
            yield ".".join(inner), _origin(value, inner, table, environ)
        elif isinstance(value, (SettingsModel, Mapping)):
            below = table.get(name)
            yield from _origins(value, inner, below if isinstance(below, Mapping) else {}, environ)


def _origin(value: SecretStr, key: tuple[str, ...], table: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    if not value.get_secret_value():
        return "not set"
    name = key[-1]
    above = [variable(key[:depth]) for depth in range(1, len(key))]
    if environ.get(variable(key)) or any(environ.get(each) for each in above):
        return "set, from the environment"
    if environ.get(variable((*key[:-1], f"{name}_file"))) or table.get(f"{name}_file"):
        return "set, from a file"
    return "set, in the configuration file"


def findings(settings: Settings) -> list[dict[str, str]]:
    from bridge.check import advice, check_offline

    found = [{"setting": finding.setting, "message": finding.message} for finding in check_offline(settings)]
    return found + [{"setting": "warning", "message": sentence} for sentence in advice(settings)]


def names_in_file(settings: Settings) -> Iterator[tuple[str, str]]:
    """Companies that the organizations file names, each with what may stand in its place."""
    companies = make_companies(settings)
    for connector in companies.connectors():
        for row in companies.rows(connector):
            yield row.company, f"the company of line {row.line}"
