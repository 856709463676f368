"""What the contract of `connectors.testing` is made of: pretend systems, their faults, and how a test sets about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import pytest

from bridge.models import CompanyMatch, CompanySource, Organization, Ticket, TicketRef
from connectors.base import Connector, ConnectorContext, Outcome, Unavailable
from connectors.redaction import redact

#: What a request does at the pretend system: nothing, make a ticket (or mail), anything else that changes something.
Kind = Literal["read", "create", "change"]

#: How a pretend system is told to misbehave.
Fault = Literal[
    "drop",  # end the connection without doing anything
    "commit_drop",  # do it, then end the connection without an answer
    "silent",  # do nothing and never answer, until stopped
    "error",  # say that something is wrong with the system (such as 503) without doing anything
    "commit_error",  # do it, then say so (such as 500)
    "busy",  # ask to come back in `RETRY_AFTER` seconds, without doing anything (429)
    "denied",  # refuse the credentials
    "garbage",  # answer a success whose content makes no sense, without doing anything
]

#: Seconds that `busy` names.
RETRY_AFTER = 7

#: Seconds that a request may take in these tests.
TIMEOUT = 1.0


@dataclass(frozen=True)
class SeenTicket:
    """A ticket as the system holds it."""

    id: str
    reference: str
    title: str
    #: All other texts, wherever they are kept.
    texts: Sequence[str]
    company: str = ""
    #: Every further field or header, except what differs from ticket to ticket anyway (ids, dates).
    fields: Mapping[str, object] | None = None


class PretendSystem(Protocol):
    """A stand-in for the outside system, on loopback."""

    def settings(self) -> Mapping[str, Any]:
        """A connector table that fits this system, as it would stand in the configuration, credentials included."""

    def secrets(self) -> Sequence[str]:
        """What of `settings` may appear nowhere."""

    def requests(self) -> Sequence[Kind]:
        """What was received so far, in order, faulty or not."""

    def tickets(self) -> Sequence[SeenTicket]:
        """The tickets (or mails) that exist, oldest first."""

    def notes(self, ticket_id: str) -> Sequence[str]:
        """The texts of the notes on a ticket."""

    def misbehave(self, fault: Fault, kind: Kind | None = None) -> None:
        """Every further request of this kind, or every one, meets this fault."""

    def behave(self) -> None:
        """Ends all faults."""

    def stop(self) -> None:
        """Nothing listens any more."""


@runtime_checkable
class Deleting(Protocol):
    """What a pretend system offers besides when people can delete its tickets."""

    def delete(self, ticket_id: str) -> None:
        """A person deletes the ticket."""


class Gate:
    """`before_request` that counts, and that can be shut like a paused connector's."""

    def __init__(self) -> None:
        self.calls = 0
        self.shut = False

    def __call__(self) -> None:
        self.calls += 1
        if self.shut:
            raise Unavailable("the connector is paused", RETRY_AFTER)


class Remembered:
    """`Progress` in memory. `lost`: the lease is lost, nothing can be saved any more."""

    def __init__(self) -> None:
        self.saved: dict[str, str] = {}
        self.lost = False

    def get(self) -> Mapping[str, str]:
        return dict(self.saved)

    def save(self, key: str, value: str) -> None:
        if self.lost:
            raise Unavailable("the lease was lost")
        self.saved[key] = value


class ContractBase:
    """The fixtures of the contract, and what its tests have in common."""

    connector_class: ClassVar[type[Connector]]
    #: Does the system say how long to wait when it is busy?
    names_retry_after: ClassVar[bool] = True

    @pytest.fixture
    def system(self) -> Iterator[PretendSystem]:
        """The pretend system, listening."""
        raise NotImplementedError("give a fixture `system`")

    @pytest.fixture
    def gate(self) -> Gate:
        return Gate()

    @pytest.fixture
    def connector(self, system: PretendSystem, gate: Gate) -> Iterator[Connector]:
        connector = self.make(system, gate)
        yield connector
        connector.close()

    @pytest.fixture(autouse=True)
    def no_secret_is_told(
        self, system: PretendSystem, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> Iterator[None]:
        """Neither logs at debug level nor output hold a secret, whatever the test does."""
        caplog.set_level(logging.DEBUG)
        yield
        shown = capfd.readouterr()
        assert_no_secret(system, caplog.text + shown.out + shown.err)

    def make(self, system: PretendSystem, gate: Gate, **overrides: Any) -> Connector:
        """A connector for `system`. Override it when yours needs more."""
        table = {"timeout": TIMEOUT, **system.settings(), **overrides}
        settings = self.connector_class.settings_class.model_validate(table)
        return self.connector_class("contract", settings, ConnectorContext(before_request=gate))

    def ticket(self, connector: Connector, number: int = 1, **changes: Any) -> Ticket:
        """A sample ticket within the connector's declared limits."""
        company = None
        listed = connector.companies()
        if listed is not None:
            assert listed, "the pretend system must have a company"
            company = CompanyMatch(listed[0], CompanySource.NAME)
        ticket = Ticket(
            reference=f"huntress-7-{number}",
            report_id=number,
            title=f"CRITICAL - Incident on HOST-{number}",
            text=f"A foothold was found.\nReference: huntress-7-{number}\n",
            notice=f"Security incident {number} is being worked on.",
            html=f"<!doctype html><title>Incident</title><p>A foothold was found. huntress-7-{number}</p>",
            severity="critical",
            source_severity="critical",
            organization=Organization(1, "Organization 1"),
            company=company,
        )
        return replace(ticket, **changes)

    def create(self, connector: Connector, ticket: Ticket) -> TicketRef:
        return connector.create(connector.prepare(ticket), Remembered())

    def findable(self) -> None:
        if not self.connector_class.can_find:
            pytest.skip("this system cannot be asked")

    def outcome(self, system: PretendSystem, call: Callable[[], object]) -> Outcome:
        """The outcome that `call` ends in: a sentence without a secret."""
        with pytest.raises(Outcome) as raised:
            call()
        assert str(raised.value), "an outcome must say what happened"
        assert_no_secret(system, str(raised.value))
        return raised.value


def assert_no_secret(system: PretendSystem, text: str) -> None:
    # Compared here, so that a failing test does not show the secret once more.
    untouched = redact(text, system.secrets()) == text
    assert untouched, "a secret, perhaps encoded, appears in an error, a log, an output or a representation"
