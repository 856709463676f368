"""What a person asks the list of deliveries for: read from an address, written into one, and turned into SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from bridge.models import SEVERITIES, DeliveryState
from bridge.text import one_line

#: States that are asked for by one word.
GROUPS = {
    "attention": (DeliveryState.REJECTED, DeliveryState.HELD),
    "waiting": (DeliveryState.PENDING, DeliveryState.CREATING),
}
#: Stands for every severity that the source does not document.
OTHER = "other"
#: The condition that everything fits.
ANY = "1"
#: Longest text that is looked for, in characters, and most words of it.
LONGEST_TEXT = 200
MOST_WORDS = 8


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list shows. Empty: everything."""

    #: A state, or a name in `GROUPS`.
    state: str = ""
    connector: str = ""
    #: One of `SEVERITIES`, or `OTHER`.
    severity: str = ""
    organization: int | None = None
    #: Words that must all occur in the report's subject or id, its organization's name or the ticket's number.
    text: str = ""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> tuple[Filter, list[str]]:
        """The filter in an address, and a sentence for each part of it that makes no sense and is left out."""
        problems = []
        state, severity = given.get("state", ""), given.get("severity", "")
        organization, connector = given.get("organization", ""), one_line(given.get("connector", ""))[:100]
        if state and state not in GROUPS and state not in set(DeliveryState):
            problems.append(f"There is no state {state[:40]!r}, so the list shows all states.")
            state = ""
        if severity and severity not in (*SEVERITIES, OTHER):
            problems.append(f"There is no severity {severity[:40]!r} to filter by, so the list shows all.")
            severity = ""
        if organization and not (organization.isascii() and organization.isdecimal() and len(organization) < 19):
            problems.append(f"{organization[:40]!r} is no id of an organization, so the list shows all of them.")
            organization = ""
        text = " ".join(one_line(given.get("text", "")).split())
        if len(text) > LONGEST_TEXT:
            problems.append(f"Only the first {LONGEST_TEXT} characters of the text are looked for.")
            text = text[:LONGEST_TEXT]
        return cls(state, connector, severity, int(organization) if organization else None, text), problems

    @property
    def states(self) -> tuple[DeliveryState, ...]:
        """The states that are shown; none: all."""
        if not self.state:
            return ()
        return GROUPS.get(self.state) or (DeliveryState(self.state),)

    def arguments(self) -> dict[str, str]:
        """As an address carries it."""
        organization = "" if self.organization is None else str(self.organization)
        given = {
            "state": self.state,
            "connector": self.connector,
            "severity": self.severity,
            "organization": organization,
            "text": self.text,
        }
        return {name: value for name, value in given.items() if value}

    def query(self, **more: str) -> str:
        """As the part of an address behind the question mark, with its mark; '' when there is nothing to say."""
        arguments = self.arguments() | more
        return f"?{urlencode(arguments)}" if arguments else ""

    def words(self) -> list[str]:
        return self.text.casefold().split()[:MOST_WORDS]

    def where(self, named: Mapping[str, Collection[int]]) -> tuple[str, dict[str, object]]:
        """A condition in SQL, and its parameters: nothing that a person typed is part of the former.

        `named`: for each word, the organizations whose name contains it.
        """
        parts: list[str] = []
        values: dict[str, object] = {}
        if self.states:
            parts.append(
                "state IN (SELECT value FROM json_each(:states))" if len(self.states) > 1 else "state = :state"
            )
            values |= {"states": json.dumps(self.states), "state": self.states[0]}
        if self.connector:
            parts.append("connector = :connector")
            values["connector"] = self.connector
        if self.severity == OTHER:
            parts.append("severity NOT IN (SELECT value FROM json_each(:severities))")
            values["severities"] = json.dumps(SEVERITIES)
        elif self.severity:
            parts.append("severity = :severity")
            values["severity"] = self.severity
        if self.organization is not None:
            parts.append("organization = :organization")
            values["organization"] = self.organization
        for number, word in enumerate(self.words()):
            part = f"instr(words, :word{number})"
            values[f"word{number}"] = word
            if named.get(word):
                part = f"({part} OR organization IN (SELECT value FROM json_each(:named{number})))"  # noqa: S608
                values[f"named{number}"] = json.dumps(sorted(named[word]))
            parts.append(part)
        return " AND ".join(parts) or ANY, values
