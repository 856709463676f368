"""What a note may say beside the report: the further variables of note templates, and each note's headline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from bridge.models import UNLISTED, Kind, TicketRef, severity_rank
from bridge.news import Change, News, NoteKind
from bridge.text import clean, no_bullets, one_line, shorten
from bridge.ticket_view import NOT_GIVEN, Absent, TicketView, tame

#: Characters of a word of the source in a headline.
_WORD = 24
_NOUNS = {
    Kind.INCIDENT_REPORT: "Incident",
    Kind.ESCALATION: "Escalation",
    Kind.PLATFORM_ACTION: "Platform action",
}
#: How a report ended, by its status.
_ENDINGS = {
    "closed": "closed",
    "dismissed": "dismissed by Huntress",
    "partner_dismissed": "dismissed by the partner",
    "resolved": "resolved",
    "deleting": "being deleted at Huntress",
    UNLISTED: "no longer listed by Huntress as open",
}


@dataclass(frozen=True, slots=True)
class NoteView:
    """What a note is about. The attributes are variables of its template; no `other` ticket becomes `Absent` there."""

    kind: NoteKind
    #: What happened, in a few words.
    headline: str
    changes: tuple[Change, ...] = ()
    #: Is the report's own text another, so that it has to be told again?
    text_changed: bool = False
    #: What became of the ticket, as a sentence.
    fate: str = ""
    #: The ticket that continues this one.
    other: TicketRef | None = None
    comment: str = ""
    #: How the report ended, in plain words.
    ending: str = ""

    def variables(self) -> dict[str, Any]:
        """By name, as templates see them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"other": self.other or Absent(TicketRef)}


def make_note_view(
    kind: NoteKind, view: TicketView, *, news: News | None, fate: str, other: TicketRef | None, comment: str
) -> NoteView:
    """What a note of this kind is about, for the report of `view`."""
    status = view.report.status
    ending = _ENDINGS.get(status, status.replace("_", " ") or NOT_GIVEN)
    return NoteView(
        kind=kind,
        headline=_headline(kind, view, news, ending),
        changes=news.changes if news else (),
        text_changed=news is not None and news.text_changed,
        fate=one_line(fate),
        other=tame(other) if other else None,
        comment=clean(comment),
        ending=ending,
    )


#: What the sample of a note says beside its report: changes, what became of the ticket, another ticket, a comment.
SAMPLE_NEWS = News(
    (Change("Severity", "low", "critical"), Change("Step added", "", "Delete File (unapproved)")),
    text_changed=True,
    severity_before="low",
    severity_rose=True,
)
SAMPLE_FATE = "The ticket's priority was raised."
SAMPLE_OTHER = TicketRef("42", "T-42", "https://tickets.example.com/42")
SAMPLE_COMMENT = "Please isolate the host."


def sample_notes(kind: NoteKind, view: TicketView) -> Iterator[NoteView]:
    """A note with everything there can be in it, and one with nothing."""
    yield make_note_view(kind, view, news=SAMPLE_NEWS, fate=SAMPLE_FATE, other=SAMPLE_OTHER, comment=SAMPLE_COMMENT)
    yield make_note_view(kind, view, news=None, fate="", other=None, comment="")


def _headline(kind: NoteKind, view: TicketView, news: News | None, ending: str) -> str:
    noun = _NOUNS[view.report.kind]
    if kind is NoteKind.ENDED:
        return f"{noun} {_short(ending, 2 * _WORD) if view.report.status else 'over'}"
    if kind is NoteKind.UPDATE:
        return _update(noun, view, news)
    return {
        NoteKind.REOPENED: f"{noun} opened again",
        NoteKind.CONTINUED: f"{noun} opened again: a new ticket continues this one",
        NoteKind.COMMENT: "Comment from Huntress",
    }[kind]


def _update(noun: str, view: TicketView, news: News | None) -> str:
    changes = {change.what: change for change in news.changes} if news else {}
    severity, status = changes.get("Severity"), changes.get("Status at Huntress")
    if news and severity:
        fell = severity_rank(view.report.severity) > severity_rank(news.severity_before)
        verb = "raised" if news.severity_rose else "lowered" if fell else "changed"
        return f"Severity {verb}: {_arrow(severity)}"
    if news and status and len(changes) == 1 and not news.text_changed:
        return f"Status at Huntress: {_arrow(status)}"
    return f"{noun} updated"


def _arrow(change: Change) -> str:
    return f"{_short(change.before, _WORD)} -> {_short(change.after, _WORD)}"


def _short(text: str, limit: int) -> str:
    return shorten(no_bullets(text), limit)
