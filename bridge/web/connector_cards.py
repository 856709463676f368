"""What the page says about each connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, SecretStr

from bridge.counters import Counters
from bridge.delivery import Service
from bridge.idempotency import Pause
from bridge.runtime import Runtime
from bridge.settings import secrets
from bridge.text import one_line
from bridge.web.concerns import SLOW
from bridge.web.times import lasted
from bridge.web.troubles import passing, waiting, why
from connectors.base import ConnectorSettings
from connectors.redaction import redact

#: What a pause of each kind means, and what a person does about it.
PAUSES = {
    "rate": (
        "asked to wait",
        "The ticket system asked to be left alone for a while. Deliveries go on by themselves; there is nothing to do.",
    ),
    "misconfigured": (
        "misconfigured",
        "Mend what is said above, in the ticket system or in the configuration. It is tried again by itself; once it "
        "is mended, “Probe now” saves the wait. Nothing is lost meanwhile.",
    ),
    "unfindable": (
        "creates what it cannot find",
        "Let the API user see all boards or queues and their tickets, then press “Probe now”. Nothing more is created "
        "until then, because a ticket that cannot be found again might be made twice.",
    ),
}
ANOTHER_PAUSE = ("paused", "It is tried again by itself.")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key for people. Of what is secret, or may hold a secret, only whether it is set."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Card:
    """One connector. `scheduled` and `under_way` count deliveries."""

    name: str
    type: str
    system: str
    pause: Pause | None
    #: The pause in a few words, and what to do.
    paused_as: str
    what_to_do: str
    #: Does it only ask for a rest, which needs nobody yet?
    passing: bool
    #: How many reports have no ticket yet, since when and why; '' when none, or the connector is paused.
    waiting: str
    #: Has one of them waited for longer than a ticket takes?
    slow: bool
    scheduled: int
    under_way: int
    #: Why the others wait while the first ticket since the start is being proven findable; '' otherwise.
    proving: str
    carries_notices: bool
    #: Answers since the store began, by status, the most frequent first.
    answers: tuple[tuple[str, int], ...]
    given: tuple[Setting, ...]
    defaults: tuple[Setting, ...]

    @property
    def may_probe(self) -> bool:
        return self.pause is not None and self.pause.next_probe is not None


def cards(runtime: Runtime) -> list[Card]:
    """One for each configured connector, in the configuration's order. Raises `redis.RedisError`."""
    requests = Counters(runtime.store).totals().requests
    return [card(runtime, service, requests) for service in runtime.services.values()]


def card(runtime: Runtime, service: Service, requests: Mapping[tuple[str, str], int]) -> Card:
    store, name = runtime.store, service.name
    pause = store.paused(name)
    paused_as, what_to_do = PAUSES.get(pause.kind, ANOTHER_PAUSE) if pause else ("", "")
    proving = store.proving_report(name)
    hidden = secrets(runtime.settings)
    given = service.settings.model_fields_set | {"type"}
    shown = list(shown_settings(service.settings, hidden))
    first = next((each for each in waiting(runtime) if each.connector == name), None)
    return Card(
        name=name,
        type=service.connector.type,
        system=redact(service.connector.system(), hidden),
        pause=replace(pause, reason=one_line(pause.reason)) if pause else None,
        paused_as=paused_as,
        what_to_do=what_to_do,
        passing=pause is not None and passing(pause, store.now()),
        waiting=""
        if first is None
        else f"{first.count:,}, the first for {lasted(first.longest)}{one_line(why(runtime, first))}",
        slow=first is not None and first.longest > SLOW,
        scheduled=store.scheduled(name),
        under_way=store.under_way(name, service.group),
        proving=""
        if proving is None
        else f"The first ticket since the start (report {proving}) is being looked up by its reference; others wait.",
        carries_notices=name in runtime.settings.alerts.connectors,
        answers=_answers(name, requests),
        given=tuple(setting for setting in shown if setting.key in given),
        defaults=tuple(setting for setting in shown if setting.key not in given),
    )


def _answers(name: str, requests: Mapping[tuple[str, str], int]) -> tuple[tuple[str, int], ...]:
    found = [(status, count) for (system, status), count in requests.items() if system == f"connector:{name}"]
    return tuple(sorted(found, key=lambda each: (-each[1], each[0])))


def shown_settings(settings: ConnectorSettings, hidden: Sequence[str]) -> Iterator[Setting]:
    """Every key of a connector's table; `hidden` are all secrets, masked wherever they stand."""
    plain = settings.model_dump(mode="json")
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, SecretStr) or not field.repr:
            bare = value.get_secret_value() if isinstance(value, SecretStr) else value
            yield Setting(key, "set, not shown" if bare else "not set")
        else:
            yield Setting(key, redact(_words(plain[key]), hidden) or "empty")


def _words(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return "; ".join(f"{key} = {words}" for key, each in value.items() if (words := _words(each)))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
