"""Which connectors there are: those of this package and of any other that names some under the same entry point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

from connectors.base import Connector, ConnectorSettings

GROUP = "huntress_bridge.connectors"

#: The distribution whose connectors no other may replace.
OWN_DISTRIBUTION = "huntress-bridge"

log = structlog.get_logger()


class RegistryError(Exception):
    """One entry point that cannot be used; `str()` names it, its distribution and the reason."""

    def __init__(self, point: EntryPoint, reason: str) -> None:
        super().__init__(f"connector type {point.name} of {_origin(point)} ({point.value}) cannot be used: {reason}")
        self.type = point.name


@dataclass(frozen=True, slots=True)
class _Registry:
    classes: dict[str, type[Connector]]
    errors: list[RegistryError]


def connector_classes() -> dict[str, type[Connector]]:
    """The connector classes by `type`, loaded once. What cannot be used is left out; see `registry_errors`."""
    return dict(_registry().classes)


def registry_errors() -> list[RegistryError]:
    """What `connector_classes` left out, and why. One broken package never stops the others."""
    return list(_registry().errors)


@cache
def _registry() -> _Registry:
    registry = _Registry({}, [])
    for name, points in _by_name().items():
        try:
            registry.classes[name] = _load(_only(points))
        except RegistryError as error:
            registry.errors.append(error)
            log.warning("connector left out", type=name, reason=str(error))
    return registry


def _by_name() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _only(points: list[EntryPoint]) -> EntryPoint:
    own = [point for point in points if point.dist and point.dist.name == OWN_DISTRIBUTION]
    chosen, *others = own or points
    if others and not own:
        raise RegistryError(chosen, f"{_origin(others[0])} has one of the same name; remove one of the two packages")
    return chosen


def _load(point: EntryPoint) -> type[Connector]:
    try:
        loaded: Any = point.load()
    # Whatever a package does while it is imported, even leaving the process, concerns its own connector only.
    except (Exception, SystemExit) as error:
        raise RegistryError(point, f"{type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Connector)):
        raise RegistryError(point, "it is not a subclass of connectors.base.Connector")
    if getattr(loaded, "type", None) != point.name:
        raise RegistryError(point, f"its type is {getattr(loaded, 'type', None)!r}, not the entry point's name")
    settings = getattr(loaded, "settings_class", None)
    if not (isinstance(settings, type) and issubclass(settings, ConnectorSettings)):
        raise RegistryError(point, "its settings_class is not a subclass of connectors.base.ConnectorSettings")
    return loaded


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
