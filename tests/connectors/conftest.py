"""What tests of connectors have in common. `psa` and `connect` are those of ConnectWise; other tests have their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from bridge.demo.connectwise import PretendConnectWise
from connectors.base import ConnectorContext
from connectors.connectwise import ConnectWise, ConnectWiseSettings

Connect = Callable[..., ConnectWise]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class NoProgress:
    def get(self) -> Mapping[str, str]:
        return {}

    def save(self, key: str, value: str) -> None:
        raise AssertionError("one request needs no progress")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def psa(clock: Clock) -> Iterator[PretendConnectWise]:
    with PretendConnectWise(clock=clock) as server:
        yield server
        assert server.handler_errors == []


@pytest.fixture
def connect(psa: PretendConnectWise, clock: Clock) -> Iterator[Connect]:
    made: list[ConnectWise] = []

    def make(**overrides: Any) -> ConnectWise:
        settings = ConnectWiseSettings.model_validate(psa.settings(**{"timeout": 5, **overrides}))
        made.append(ConnectWise("psa", settings, ConnectorContext(), clock))
        return made[-1]

    yield make
    for connector in made:
        connector.close()
