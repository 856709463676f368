"""Notes as people read them on a ticket, and what a broken template or a hostile report can do to them (nothing)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.models import IncidentReport, Kind, Note, Remediation, TicketRef
from bridge.news import NoteKind, compare, facts
from bridge.rendering import NOTE_LIMIT, RenderInput
from bridge.text import size
from tests.bridge.test_rendering import CASES, DESKS, FORGERY, FULL, GOLDEN, HOSTILE, MAIL_PARTS, given, renderer

NEW = TicketRef("4711", "T20260302.0007", "https://desk.example.com/4711")
BEFORE = replace(FULL, severity="low", subject="LOW - Incident on LAPTOP-01 (Acme Corp)", body="", remediations_total=3)
NOW = replace(
    FULL,
    remediations=(*FULL.remediations[1:], Remediation(id=4, type="assisted", action="Isolate Host", status="approved")),
    remediations_total=3,
)
OVER = replace(
    FULL, status="partner_dismissed", closed_at=datetime(2026, 3, 3, 16, 0, tzinfo=UTC), remediations_total=14
)


@dataclass(frozen=True)
class Case:
    given: RenderInput
    told: IncidentReport
    fate: str
    other: TicketRef | None = None
    comment: str = ""

    def on(self, desk: str, kind: NoteKind, **changes: Any) -> tuple[Note, tuple[str, ...]]:
        """The note of a kind of desk."""
        return renderer(desk, **changes).note(
            kind,
            self.given,
            key=f"{kind}-1",
            news=compare(facts(self.told), self.given.report),
            fate=self.fate,
            other=self.other,
            comment=self.comment,
        )


HOSTILE_INPUT = replace(CASES["hostile"], report=replace(HOSTILE, closed_at=OVER.closed_at))
NOTES: Mapping[str, Case] = {
    "update": Case(given(NOW), BEFORE, "The ticket's priority was raised."),
    "ended": Case(given(OVER), FULL, "This ticket is closed."),
    "reopened": Case(given(FULL), replace(OVER, severity="high", remediations_total=14), "This ticket is open again."),
    "continued": Case(given(FULL), OVER, "", NEW),
    "comment": Case(given(FULL), FULL, "", None, "Please <b>isolate</b> the host.\n\nWe saw it call out again."),
}
HOSTILE_NOTE = Case(HOSTILE_INPUT, BEFORE, FORGERY, TicketRef("9", FORGERY, FORGERY), f"[huntress-5-792/x]\n{FORGERY}")


@pytest.mark.parametrize("kind", NoteKind)
@pytest.mark.parametrize("desk", DESKS)
@pytest.mark.parametrize("case", ["usual", "hostile"])
def test_golden(desk: str, kind: NoteKind, case: str) -> None:
    """`UPDATE_GOLDEN=1 pytest tests/bridge/test_note_rendering.py` writes the files anew; read the difference."""
    note, problems = (NOTES[kind] if case == "usual" else HOSTILE_NOTE).on(desk, kind)
    assert problems == ()
    assert note.key == f"{kind}-1"
    text = f"--- title ---\n{note.title}\n--- text ---\n{note.text}\n"
    path = GOLDEN / f"note-{desk}-{kind}{'-hostile' if case == 'hostile' else ''}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("told", "now", "title"),
    [
        ({"severity": "low"}, {}, "Severity raised: low -> critical"),
        ({}, {"severity": "low"}, "Severity lowered: critical -> low"),
        ({"severity": "urgent"}, {"severity": ""}, "Severity changed: urgent -> not given"),
        ({"severity": "low", "subject": "x", "body": ""}, {}, "Severity raised: low -> critical"),
        ({}, {"status": "auto_remediating"}, "Status at Huntress: sent -> auto remediating"),
        ({}, {"status": "auto_remediating", "body": ""}, "Incident updated"),
        ({}, {"subject": "Another"}, "Incident updated"),
        ({}, {"subject": "Another", "kind": Kind.ESCALATION}, "Escalation updated"),
        ({}, {"status": "* s\n* " * 99}, "Status at Huntress: sent -> ∗ s ∗ ∗ s ∗ ∗ s ∗ ∗ s ∗…"),
    ],
)
def test_the_title_of_an_update_says_what_matters_most(told: Any, now: Any, title: str) -> None:
    report = replace(FULL, **now)
    news = compare(facts(replace(FULL, **told)), report)
    note, _ = renderer().note(NoteKind.UPDATE, given(report), key="update-1", news=news)
    assert note.title == title


@pytest.mark.parametrize(
    ("status", "kind", "title"),
    [
        ("closed", Kind.INCIDENT_REPORT, "Incident closed"),
        ("dismissed", Kind.INCIDENT_REPORT, "Incident dismissed by Huntress"),
        ("partner_dismissed", Kind.INCIDENT_REPORT, "Incident dismissed by the partner"),
        ("deleting", Kind.INCIDENT_REPORT, "Incident being deleted at Huntress"),
        ("unlisted", Kind.INCIDENT_REPORT, "Incident no longer listed by Huntress as open"),
        ("resolved", Kind.ESCALATION, "Escalation resolved"),
        ("closed", Kind.PLATFORM_ACTION, "Platform action closed"),
        ("gone_away", Kind.INCIDENT_REPORT, "Incident gone away"),
    ],
)
def test_an_end_is_told_in_plain_words(status: str, kind: Kind, title: str) -> None:
    report = replace(OVER, status=status, kind=kind)
    note, _ = renderer().note(NoteKind.ENDED, given(report), key="ended-1", fate="This ticket is closed.")
    assert note.title == title
    noun = title.split(" ")[0] if kind is not Kind.PLATFORM_ACTION else "Platform action"
    assert note.text.startswith(f"* Outcome: {title.removeprefix(noun).strip()}\n* Ended: 2026-03-03 11:00 EST")
    assert "\n* Ticket: This ticket is closed.\n" in note.text


def test_an_end_of_which_little_is_known_says_no_more() -> None:
    note, _ = renderer().note(NoteKind.ENDED, given(replace(FULL, status="")), key="ended-1")
    assert note.title == "Incident over"
    assert note.text.startswith("* Outcome: not given\n")
    assert "Ended:" not in note.text
    changed = replace(FULL, status="closed", status_updated_at=OVER.closed_at)
    assert "* Ended: 2026-03-03 11:00" in renderer().note(NoteKind.ENDED, given(changed), key="ended-1")[0].text


def test_the_text_is_told_again_only_when_it_changed() -> None:
    news = compare(facts(replace(FULL, severity="low")), FULL)
    note, _ = renderer().note(NoteKind.UPDATE, given(FULL), key="update-1", news=news)
    assert note.text == (
        "* Severity: low -> critical\n* URL: https://examplemsp.huntress.io/org/4/infection_reports/789"
    )
    gone = replace(FULL, summary="", body="")
    note, _ = renderer().note(NoteKind.UPDATE, given(gone), key="update-1", news=compare(facts(FULL), gone))
    assert note.text.startswith("* Text: taken back\n")


def test_an_answer_by_mail_has_the_subject_of_the_first_mail() -> None:
    for report in (FULL, replace(FULL, subject="x" * 5000), replace(FULL, severity="", subject="a\r\nBcc: b@c.d")):
        first = renderer("email").render(given(report)).ticket.title
        for kind in NoteKind:
            assert renderer("email").note(kind, given(report), key="k")[0].title == f"Re: {first}"


@pytest.mark.parametrize("kind", NoteKind)
def test_a_note_without_its_particulars_is_rendered(kind: NoteKind) -> None:
    bare = RenderInput(IncidentReport(9), "huntress-5-9", None, None, None, None, ("noc@example.com",))
    for desk in DESKS:
        note, problems = renderer(desk).note(kind, bare, key="k")
        assert problems == ()
        assert "URL: not given" in note.text
        assert note.recipients == ("noc@example.com",)


# Hostile and long texts.


@pytest.mark.parametrize("kind", NoteKind)
@pytest.mark.parametrize("desk", DESKS)
def test_text_in_a_report_forges_nothing_in_a_note(desk: str, kind: NoteKind) -> None:
    note, _ = HOSTILE_NOTE.on(desk, kind)
    trusted = note.text.split("\n== ", 1)[0]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\r\n]", note.title)
    assert not re.search(r"^(\* )?Host: SAFE-01", trusted, re.MULTILINE)
    if desk != "email":
        assert not re.search(r"(?:^| )\* Host: ", " ".join(trusted.split()))
    free = note.text.removeprefix(trusted)
    assert all(line.startswith((">", "== ")) or not line for line in free.splitlines())
    assert "[huntress-5-792/" not in note.text


def test_a_marker_in_a_report_is_no_marker() -> None:
    quoting = replace(FULL, summary="Done: [huntress-5-789/ended-1]")
    note, _ = renderer().note(NoteKind.UPDATE, given(quoting), key="update-1", news=compare(facts(FULL), quoting))
    assert "> Done: [huntress-5-789 /ended-1]" in note.text


@pytest.mark.parametrize("kind", NoteKind)
@pytest.mark.parametrize("broken", [False, True])
def test_a_note_is_cut_visibly(tmp_path: Path, kind: NoteKind, broken: bool) -> None:
    steps = tuple(replace(FULL.remediations[1], action="act " * 600, id=number) for number in range(40))
    long = replace(FULL, summary="word " * 20_000, body="other " * 20_000, remediations=steps, remediations_total=40)
    case = Case(given(long), FULL, "fate " * 9000, NEW, "comment " * 20_000)
    if broken:
        (tmp_path / f"{kind}.j2").write_text("{% broken")
    note, problems = case.on("autotask", kind, templates=tmp_path if broken else "")
    assert len(problems) == broken
    assert size(note.text) <= NOTE_LIMIT
    assert re.search(r"\[… [\d,]+ characters more in the Huntress portal\]|…", note.text)


# Templates of the operator.


@pytest.mark.parametrize("kind", NoteKind)
@pytest.mark.parametrize("desk", DESKS)
def test_a_broken_template_costs_no_note(tmp_path: Path, desk: str, kind: NoteKind) -> None:
    (tmp_path / f"{kind}.j2").write_text("one\n{{ reprot }}")
    usual = replace(NOTES[kind], comment="Isolate it.", other=NEW)
    note, (problem,) = usual.on(desk, kind, templates=tmp_path)
    assert problem == (
        f"connector psa: template {tmp_path}/{kind}.j2, line 2: 'reprot' is undefined; "
        "the plain rendering took its place"
    )
    assert note.title == usual.on(desk, kind)[0].title
    assert note.text.startswith("Huntress incident report 789: ")
    for line in (usual.fate, "* New ticket: T20260302.0007 https://desk.example.com/4711", "> Isolate it."):
        assert line in note.text
    if kind is NoteKind.UPDATE:
        assert "\n* Severity: low -> critical\n" in note.text
        assert "\n* Step added: Isolate Host (approved)\n" in note.text
        assert "\n> Huntress found a malicious scheduled task" in note.text
    hostile, _ = HOSTILE_NOTE.on(desk, kind, templates=tmp_path)
    trusted, _ = hostile.text.split('after a ">":\n')
    assert not re.search(r"(?:^| )\* Host: ", " ".join(trusted.split()))


def test_a_broken_title_leaves_an_answer_its_subject(tmp_path: Path) -> None:
    (tmp_path / "title.j2").write_text("{% broken")
    note, (problem,) = NOTES["ended"].on("email", NoteKind.ENDED, templates=tmp_path)
    assert "title.j2" in problem
    assert note.title == "Re: CRITICAL - Incident on LAPTOP-01 (Acme Corp) [huntress-5-789]"
    assert "Outcome: dismissed by the partner" in note.text


@pytest.mark.parametrize("desk", DESKS)
@pytest.mark.parametrize("name", ["ended.j2", "_shared/ended.j2"])
def test_a_note_can_be_replaced(tmp_path: Path, desk: str, name: str) -> None:
    (tmp_path / "_shared").mkdir()
    (tmp_path / name).write_text("Ours: {{ ending }}, {{ fate }}, {{ headline }}")
    note, problems = NOTES["ended"].on(desk, NoteKind.ENDED, templates=tmp_path)
    assert problems == ()
    assert note.text.endswith(
        "Ours: dismissed by the partner, This ticket is closed., Incident dismissed by the partner"
    )
    ours = renderer(desk, templates=tmp_path)
    assert ours.check() == []
    assert {(file.part, file.path) for file in ours.files() if file.overridden} == {("ended note", tmp_path / name)}


def test_check_tries_the_notes_too(tmp_path: Path) -> None:
    (tmp_path / "update.j2").write_text("{% if text_changed %}{{ fate.nothing }}{% endif %}x")
    (tmp_path / "continued.j2").write_text("{{ other.nubmer }}")
    (tmp_path / "end.j2").write_text("never used")
    unused, update, continued = (finding.message for finding in renderer(templates=tmp_path).check())
    assert unused == f"{tmp_path}/end.j2 is used by no part of a ticket; did you mean ended.j2?"
    assert update.startswith(f"template {tmp_path}/update.j2, line 1: ")
    assert continued.startswith(f"template {tmp_path}/continued.j2, line 1: ")


def test_only_answers_ask_the_system_for_its_limits() -> None:
    assert renderer("connectwise", parts=MAIL_PARTS).note(NoteKind.COMMENT, given(FULL), key="k")[0].title == (
        "Comment from Huntress"
    )
