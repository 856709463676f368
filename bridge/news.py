"""What a ticket was told of its report, and what has become different since. Pure.

The store keeps `facts` with the delivery; `compare` reads them beside the report as it is now. Only what people act on
counts: severity, status, subject, the report's text and the steps that Huntress asks for.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeVar

from bridge.models import IncidentReport, Remediation, severity_rank
from bridge.text import one_line, shorten
from bridge.ticket_view import NOT_GIVEN

#: Characters of the facts; the steps that do not fit are left out.
MOST_FACTS = 1500
_WORD, _STEP, _SUBJECT = 40, 60, 200
_Value = TypeVar("_Value")


class NoteKind(StrEnum):
    """Why a ticket gets a note that a template writes, `<kind>.j2`."""

    UPDATE = "update"
    ENDED = "ended"
    REOPENED = "reopened"
    #: On the old ticket: a new one was made, because the report was opened again.
    CONTINUED = "continued"
    #: Somebody at Huntress wrote a comment.
    COMMENT = "comment"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different, in words ready for people and on one line each."""

    what: str
    #: Empty for what was not there before, such as a step that Huntress asks for in addition.
    before: str
    #: Empty for what is there no longer.
    after: str


@dataclass(frozen=True, slots=True)
class News:
    """What is different from what a ticket was told."""

    changes: tuple[Change, ...]
    #: Is the summary or the body another?
    text_changed: bool
    #: The source's word for the severity that the ticket was told.
    severity_before: str
    severity_rose: bool


def facts(report: IncidentReport) -> str:
    """What a ticket that shows `report` was told, as compact JSON; the order of the steps has no say in it."""
    return _Facts.of(report).as_json()


def compare(told: str, report: IncidentReport) -> News | None:
    """What is different in `report` from the facts `told`; None when nothing is, or when `told` cannot be read."""
    before, now = _Facts.read(told), _Facts.of(report)
    if before is None:
        return None
    changes = (*_field_changes(before, now), *_step_changes(before, now))
    text_changed = before.text != now.text
    if not changes and not text_changed:
        return None
    rose = severity_rank(now.severity) < severity_rank(before.severity)
    return News(changes, text_changed, before.severity, rose)


@dataclass(frozen=True, slots=True)
class _Step:
    """A remediation: its id, or a digest of what it asks for, with its state and its name."""

    key: str
    status: str
    name: str


@dataclass(frozen=True, slots=True)
class _Facts:
    severity: str
    status: str
    subject: str
    #: Digest of summary and body.
    text: str
    steps: tuple[_Step, ...]
    #: How many steps there are; Huntress lists only the first ten, and not all of these may have fitted.
    total: int

    @classmethod
    def of(cls, report: IncidentReport) -> Self:
        return cls(
            severity=_short(report.severity, _WORD),
            status=_short(report.status, _WORD),
            subject=_short(report.subject, _SUBJECT),
            text=_digest(" ".join(report.summary.split()), " ".join(report.body.split())),
            steps=tuple(_steps(report.remediations)),
            total=max(report.remediations_total, len(report.remediations)),
        )

    @classmethod
    def read(cls, told: str) -> Self | None:
        try:
            severity, status, subject, text, steps, total = json.loads(told)
            severity, status, subject, text = (_checked(word, str) for word in (severity, status, subject, text))
            return cls(severity, status, subject, text, tuple(_read_steps(steps)), _checked(total, int))
        except (ValueError, TypeError, RecursionError):
            return None

    @property
    def complete(self) -> bool:
        return len(self.steps) >= self.total

    def as_json(self) -> str:
        for count in range(len(self.steps), -1, -1):
            steps = [[step.key, step.status, step.name] for step in self.steps[:count]]
            values = [self.severity, self.status, self.subject, self.text, steps, self.total]
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
            if len(text) <= MOST_FACTS:
                break
        return text


def _steps(remediations: tuple[Remediation, ...]) -> Iterator[_Step]:
    """In an order of their own. Steps that cannot be told apart are numbered."""
    seen: Counter[str] = Counter()
    for step in sorted(map(_step, remediations), key=lambda step: (step.key, step.status)):
        seen[step.key] += 1
        number = seen[step.key]
        yield step if number == 1 else _Step(f"{step.key}.{number}", step.status, step.name)


def _step(remediation: Remediation) -> _Step:
    key = str(remediation.id)
    if remediation.id is None:
        asked = (part for pair in remediation.parameters for part in pair)
        key = _digest(remediation.type, remediation.action, *asked)
    name = remediation.action or remediation.type.replace("_", " ") or NOT_GIVEN
    return _Step(key, _short(remediation.status, _WORD), _short(name, _STEP))


def _read_steps(steps: Any) -> Iterator[_Step]:
    for key, status, name in steps:
        yield _Step(_checked(key, str), _checked(status, str), _checked(name, str))


def _checked(value: Any, kind: type[_Value]) -> _Value:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _short(text: str, limit: int) -> str:
    return shorten(one_line(text), limit)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _field_changes(before: _Facts, now: _Facts) -> Iterator[Change]:
    if before.severity != now.severity:
        yield Change("Severity", before.severity or NOT_GIVEN, now.severity or NOT_GIVEN)
    if before.status != now.status:
        yield Change("Status at Huntress", _state(before.status), _state(now.status))
    if before.subject != now.subject:
        yield Change("Subject", before.subject or NOT_GIVEN, now.subject or NOT_GIVEN)


def _step_changes(before: _Facts, now: _Facts) -> Iterator[Change]:
    """A step that is missing in a list which is not complete is neither new nor gone; then the total has to do."""
    old, new = ({step.key: step for step in each.steps} for each in (before, now))
    for key, step in new.items():
        if key in old and old[key].status != step.status:
            yield Change(f'Step "{step.name}"', _state(old[key].status), _state(step.status))
    if before.complete:
        for step in (step for key, step in new.items() if key not in old):
            yield Change("Step added", "", f"{step.name} ({_state(step.status)})")
    if now.complete:
        for step in (step for key, step in old.items() if key not in new):
            yield Change("Step removed", f"{step.name} ({_state(step.status)})", "")
    if before.total != now.total and not (before.complete and now.complete):
        yield Change("Steps asked for", str(before.total), str(now.total))


def _state(status: str) -> str:
    return status.replace("_", " ") or NOT_GIVEN
