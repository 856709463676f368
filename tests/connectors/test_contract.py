"""The three built-in connectors keep the contract of `connectors.testing`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connectors.autotask import Autotask
from connectors.connectwise import ConnectWise
from connectors.email import Email
from connectors.testing import ConnectorContract, PretendSystem
from tests.connectors.pretend_systems import AutotaskSystem, ConnectWiseSystem, MailSystem


class TestConnectWise(ConnectorContract):
    connector_class = ConnectWise

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        with ConnectWiseSystem() as system:
            yield system


class TestAutotask(ConnectorContract):
    connector_class = Autotask

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        with AutotaskSystem() as system:
            yield system


class TestEmail(ConnectorContract):
    connector_class = Email
    names_retry_after = False

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        with MailSystem() as system:
            yield system
