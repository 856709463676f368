"""Connectors that break the contract, each in one way; each class names a test that must notice."""

from __future__ import annotations

from typing import Any

import structlog
from contract import TOKEN, TestTracker
from example_tracker.connector import PreparedTicket, Tracker

from bridge.models import Note, Ticket, TicketRef
from connectors.base import Finding, Misconfigured, Outcome, OutcomeUnknown, Progress, Rejected, Unavailable


class TakesErrorsForNothing(Tracker):
    noticed_by = "test_a_failed_look_up_is_never_an_empty_one"

    def find(self, reference: str) -> list[TicketRef]:
        try:
            return super().find(reference)
        except Unavailable:
            return []


class FindsAnything(Tracker):
    noticed_by = "test_what_was_made_is_found_under_the_same_id"

    def find(self, reference: str) -> list[TicketRef]:
        return super().find("huntress-7-1")


class SendsAgain(Tracker):
    noticed_by = "test_made_but_not_answered_is_in_doubt_and_then_found"

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        try:
            return super().create(prepared, progress)
        except OutcomeUnknown:
            return super().create(prepared, progress)


class GivesUp(Tracker):
    noticed_by = "test_not_made_and_not_answered_well_is_no_refusal"

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        try:
            return super().create(prepared, progress)
        except OutcomeUnknown as error:
            raise Rejected(str(error)) from None


class PreparesTooMuch(Tracker):
    noticed_by = "test_prepare_changes_nothing_and_create_sends_one_request"

    def prepare(self, ticket: Ticket) -> PreparedTicket:
        self._http.request("POST", f"{self.url}/tickets/1/notes", intent="update", json={})
        return super().prepare(ticket)


class AsksNobody(Tracker):
    noticed_by = "test_every_request_asks_first"

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self._http._before_request = lambda: None


class TellsSecrets(Tracker):
    noticed_by = "test_refused_credentials_are_a_misconfiguration"

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        try:
            return super().create(prepared, progress)
        except Misconfigured as error:
            raise Misconfigured(f"{error}: {TOKEN}") from None


class LogsSecrets(Tracker):
    noticed_by = "test_check_finds_nothing_where_all_is_well"

    def check(self) -> list[Finding]:
        structlog.get_logger().debug("asking", token=TOKEN)
        return super().check()


class ForgetsTheMarker(Tracker):
    noticed_by = "test_a_note_carries_its_marker"

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        super().note(ref, "", note, progress)


class ForgetsToWait(Tracker):
    noticed_by = "test_a_busy_system_is_left_alone"

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        try:
            return super().create(prepared, progress)
        except Unavailable as error:
            raise Unavailable(str(error)) from None


class Crashes(Tracker):
    noticed_by = "test_a_refused_connection_was_certainly_not_sent"

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        try:
            return super().create(prepared, progress)
        except Outcome as error:
            raise RuntimeError(str(error)) from None


class MixesFields(Tracker):
    noticed_by = "test_no_text_escapes_its_field"

    def prepare(self, ticket: Ticket) -> PreparedTicket:
        prepared = super().prepare(ticket)
        lines = dict(line.split(": ", 1) for line in ticket.text.splitlines() if line.startswith("Bcc: "))
        return PreparedTicket({**prepared.body, **lines})


CARELESS: list[type[Tracker]] = [
    TakesErrorsForNothing,
    FindsAnything,
    SendsAgain,
    GivesUp,
    PreparesTooMuch,
    AsksNobody,
    TellsSecrets,
    LogsSecrets,
    ForgetsTheMarker,
    ForgetsToWait,
    Crashes,
    MixesFields,
]

for connector in CARELESS:
    suite = type(f"Test{connector.__name__}", (TestTracker,), {"connector_class": connector})
    globals()[suite.__name__] = suite
del suite, TestTracker
