"""What a connector needs to be told before it can serve, as questions that `init` asks a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Question:
    """One setting that a person is asked for. Whether it is secret, and of which type, the settings class says."""

    #: The setting's key in the connector's table, e.g. `board` or `priorities.high`.
    key: str
    #: What is asked, without punctuation at its end.
    prompt: str
    #: One more sentence: where the answer is found.
    help: str = ""
    #: What no answer means; empty: the setting's own default, and where it has none there must be an answer.
    default: str = ""
    #: May it be left open? What that means, e.g. `the board's default`.
    otherwise: str = ""
    #: Does `Connector.choices` list the answers? These questions come last, when the ticket system can be asked.
    choices: bool = False
    #: Key of a setting without which this one is not asked.
    only_with: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that the ticket system offers."""

    id: str
    name: str
    #: What it takes by itself when nothing is said.
    default: bool = False


#: How urgent reports are told apart; a connector with `priorities` asks for one each.
PRIORITIES = tuple(
    Question(f"priorities.{severity}", f"Priority of {severity} incidents", otherwise="its own default", choices=True)
    for severity in ("critical", "high", "low")
)


def required_questions(model: type[BaseModel]) -> Sequence[Question]:
    """A question for each setting without a default: what a connector that asks none of its own cannot do without."""
    return [
        Question(name, name.replace("_", " ").capitalize(), info.description or "")
        for name, info in model.model_fields.items()
        if info.is_required() and name != "type"
    ]
