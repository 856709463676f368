"""The questions of `init`, each answer tried at the system that it is about. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bridge.check import OwnBudget
from bridge.huntress import SourceError
from bridge.models import Account
from bridge.runtime import make_source
from bridge.settings_reading import ConfigurationError, Key
from bridge.setup_draft import Draft, Unfit
from bridge.setup_prompts import Prompts
from connectors.addresses import is_loopback
from connectors.base import Choice, Connector, ConnectorContext, Outcome
from connectors.questions import Question
from connectors.registry import connector_classes

SOURCE = (
    Question("api_key", "API key", "Made in the Huntress portal: menu > API Credentials."),
    Question("api_secret", "API secret"),
)
#: Names that new connectors get, by type.
NAMES = {"connectwise": "psa", "autotask": "desk", "email": "oncall"}


class Interview:
    """Asks a person for what a draft still lacks."""

    def __init__(self, draft: Draft, prompts: Prompts) -> None:
        self.draft = draft
        self.prompts = prompts
        #: What was answered before, and is asked again.
        self._again: set[Key] = set()

    def hold(self) -> None:
        """The whole of it."""
        self.source()
        self.ticket_systems()
        self.rest()

    # -- the source ----------------------------------------------------------------------------------------------------

    def source(self) -> None:
        """The key, until it opens an account or the person goes on without."""
        self.prompts.say("Enter takes what stands in brackets. Ctrl-C leaves nothing behind.")
        self.prompts.head("Huntress")
        while True:
            for question in SOURCE:
                self.ask(("huntress", question.key), question)
            account, problem = self.account()
            if account is not None:
                named = f"{account.name} (account {account.id})" if account.name else f"account {account.id}"
                self.prompts.say(f"  The key opens {named}.")
                return
            if not self.once_more(problem, [("huntress", question.key) for question in SOURCE]):
                return

    def account(self) -> tuple[Account | None, str]:
        """The account that the key opens, else why it opens none."""
        try:
            source = make_source(self.draft.settings(), OwnBudget())
        except ConfigurationError as error:
            return None, error.problems[0]
        try:
            return source.account(), ""
        except SourceError as error:
            return None, str(error)
        finally:
            source.close()

    def once_more(self, problem: str, keys: Sequence[Key]) -> bool:
        """Says what is wrong; shall these be asked again?"""
        self.prompts.say(f"  That does not work: {problem}")
        if not self.prompts.confirm("Change the answers? Enter at a question keeps what was there."):
            return False
        self._again.update(keys)
        return True

    # -- ticket systems ------------------------------------------------------------------------------------------------

    def ticket_systems(self) -> None:
        """Those that were named, else as many as the person wants."""
        for name, kind in self.draft.connectors().items():
            self.prompts.head(f"{kind.type}: {name}")
            self.connector(name, kind)
        if self.draft.connectors():
            return
        while True:
            self.prompts.head("Ticket system")
            kinds = [Choice(kind, kind) for kind in sorted(connector_classes())]
            chosen = self.prompts.choose("Which kind?", kinds)
            name = self.new_connector(chosen.id if chosen else kinds[0].id)
            self.connector(name, self.draft.connectors()[name])
            if not self.prompts.confirm("Another ticket system?", default=False):
                return

    def new_connector(self, kind: str) -> str:
        while True:
            name = self.prompts.text("Its name in the configuration", NAMES.get(kind, kind))
            try:
                self.draft.add_connector(name, kind)
            except Unfit as error:
                self.prompts.say(f"  {error}")
            else:
                return name

    def connector(self, name: str, kind: type[Connector]) -> None:
        """What it needs to be reached, until it is; then what it lets one choose."""
        questions = kind.questions()
        first = [question for question in questions if not question.choices]
        keys = [self.key(name, question) for question in first]
        while True:
            for question in first:
                self.ask(self.key(name, question), question)
            problem = self.problem(name, {question.key for question in first})
            if not problem:
                self.prompts.say("  It answers.")
                break
            if not self.once_more(problem, keys):
                self.prompts.say("  Then it cannot list what there is to choose from: what you type is not tried.")
                break
        for question in questions:
            if question.choices and problem:
                self.ask(self.key(name, question), question)
            elif question.choices:
                self.choose(name, question)

    @contextmanager
    def reached(self, name: str) -> Iterator[Connector]:
        """The connector as far as it has been answered. Raises `ConfigurationError` and `Outcome`."""
        table = self.draft.settings(name).connectors[name]
        connector = connector_classes()[table.type](name, table, ConnectorContext())
        try:
            yield connector
        finally:
            connector.close()

    def problem(self, name: str, keys: set[str]) -> str:
        """Why the connector cannot be reached with these answers; '' when it can."""
        try:
            with self.reached(name) as connector:
                found = [finding for finding in connector.check() if finding.setting.partition(".")[0] in keys]
        except ConfigurationError as error:
            return error.problems[0]
        except Outcome as outcome:
            return str(outcome)
        return f"{found[0].setting}: {found[0].message}" if found else ""

    def choose(self, name: str, question: Question) -> None:
        """One answer that the ticket system lists; where it lists none, whatever the person types."""
        key = self.key(name, question)
        if self.draft.answer(key) is not None or self.draft.given_outside(key):
            return
        try:
            with self.reached(name) as connector:
                choices = connector.choices(question.key)
        except (ConfigurationError, Outcome) as error:
            self.prompts.say(f"  What there is to choose from cannot be listed: {error}")
            choices = None
        if not choices:
            self.ask(key, question)
            return
        chosen = self.prompts.choose(
            question.prompt, choices, otherwise=question.otherwise, default=self.default(key, question)
        )
        if chosen is not None:
            self.draft.set(key, _value(chosen, choices))

    # -- the rest ------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """What remains to be decided."""
        self.prompts.head("The bridge")
        self.ask(("timezone",), Question("timezone", "Time zone of times in tickets, such as America/New_York"))
        self.ask(
            ("poll", "not_before"),
            Question(
                "not_before",
                "Incidents sent before are left alone",
                'An ISO date, or "now": those that are open today stay with whoever has them.',
                default="now",
            ),
        )
        host = self.draft.answer(("web", "host"))
        password = ("web", "password")
        if host and not is_loopback(str(host)) and self.draft.is_secret(password):
            self.ask(password, Question("password", "Password of the page", "Others than this machine can reach it."))

    # -- asking --------------------------------------------------------------------------------------------------------

    def key(self, name: str, question: Question) -> Key:
        head, dot, tail = question.key.partition(".")
        return ("connectors", name, head, tail) if dot else ("connectors", name, head)

    def default(self, key: Key, question: Question) -> str:
        """What Enter means: what was answered before, else the question's default, else the setting's own."""
        before: Any = self.draft.answer(key)
        if before is not None:
            return ", ".join(map(str, before)) if isinstance(before, list) else str(before)
        if question.default:
            return question.default
        if key[0] != "connectors" or len(key) != 3:
            return "UTC" if key == ("timezone",) else ""
        info = self.draft.connectors()[key[1]].settings_class.model_fields.get(key[2])
        own = info.default if info is not None and not info.is_required() else ""
        return str(own) if isinstance(own, (str, int)) else ""

    def ask(self, key: Key, question: Question) -> None:
        """Until there is an answer that the loader takes. What was answered before is asked only when it was wrong."""
        if self.draft.given_outside(key) or (self.draft.answer(key) is not None and key not in self._again):
            return
        if question.only_with and not self.draft.answer((*key[:-1], question.only_with)):
            return
        self._again.discard(key)
        if question.help:
            self.prompts.say(f"  {question.help}")
        while True:
            before = self.draft.answer(key)
            if self.draft.is_secret(key):
                typed = self.prompts.secret(question.prompt, kept=before is not None)
            else:
                default = self.default(key, question)
                open_ends = f" (Enter: {question.otherwise})" if question.otherwise and not default else ""
                typed = self.prompts.text(f"{question.prompt}{open_ends}", default)
            if not typed:
                if before is not None or question.otherwise:
                    return
                continue
            try:
                self.draft.put(key, typed)
            except Unfit as error:
                self.prompts.say(f"  {error}")
            else:
                return


def _value(chosen: Choice, choices: Sequence[Choice]) -> str | int:
    """What the configuration says for it: its name, where no other has the same, else its id."""
    alike = [each for each in choices if each.name.strip().casefold() == chosen.name.strip().casefold()]
    return chosen.name if len(alike) == 1 or not chosen.id.isdecimal() else int(chosen.id)
