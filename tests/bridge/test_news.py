"""What counts as news of a report, and what does not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from bridge.models import IncidentReport, Remediation
from bridge.news import MOST_FACTS, Change, compare, facts

STEPS = (
    Remediation(1, "isolate_host", "Isolate the host", (("host", "PC-7"),), "unapproved"),
    Remediation(2, "delete_file", "Delete the file", (("path", "C:\\evil.exe"),), "approved"),
    Remediation(None, "manual", "Reset the password", (("user", "kim"),), "unapproved"),
    Remediation(None, "manual", "Reset the password", (("user", "lee"),), "unapproved"),
)
REPORT = IncidentReport(
    9,
    subject="LOW - Incident on PC-7 (Acme)",
    summary="A foothold.",
    body="Details of it.",
    severity="low",
    status="sent",
    remediations=STEPS,
    remediations_total=4,
)


def changes(before: IncidentReport, now: IncidentReport) -> list[tuple[str, str, str]]:
    news = compare(facts(before), now)
    return [] if news is None else [(each.what, each.before, each.after) for each in news.changes]


def test_a_report_as_it_was_told_is_no_news() -> None:
    assert compare(facts(REPORT), REPORT) is None
    assert compare(facts(IncidentReport(9)), IncidentReport(9)) is None


def test_the_order_of_the_steps_is_no_news() -> None:
    twice = (*STEPS, replace(STEPS[3], status="completed"))  # cannot be told apart but for its state
    told = facts(replace(REPORT, remediations=twice, remediations_total=5))
    for seed in range(20):
        steps = tuple(random.Random(seed).sample(twice, len(twice)))
        shuffled = replace(REPORT, remediations=steps, remediations_total=5)
        assert facts(shuffled) == told
        assert compare(told, shuffled) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"updated_at": None, "platform": "windows", "agent_id": 3, "indicator_types": ("footholds",)},
        {"summary": "A  foothold.\r\n", "body": "\nDetails of it. "},
        {"remediations_total": 0},
    ],
)
def test_what_nobody_acts_upon_is_no_news(changed: dict[str, Any]) -> None:
    assert compare(facts(REPORT), replace(REPORT, **changed)) is None


@pytest.mark.parametrize(
    "told",
    [
        *("", "{", "null", "7", "{}", "[]", '"abcdef"', "[" * 100_000),
        *('["low","sent","",""]', '["low","sent","",5,[],0]', '["low","sent","","",null,0]'),
        *('["low","sent","","",[],"0"]', '["low","sent","","",[],0,1]'),
        *('["low","sent","","",[["1","approved"]],1]', '["low","sent","","",[["1","approved",null]],1]'),
    ],
)
def test_facts_that_cannot_be_read_tell_nothing(told: str) -> None:
    assert compare(told, REPORT) is None


def test_fields_that_changed_are_named_with_both_values() -> None:
    now = replace(REPORT, severity="critical", status="auto_remediating", subject="CRITICAL - Incident\non PC-7")
    assert changes(REPORT, now) == [
        ("Severity", "low", "critical"),
        ("Status at Huntress", "sent", "auto remediating"),
        ("Subject", "LOW - Incident on PC-7 (Acme)", "CRITICAL - Incident on PC-7"),
    ]
    assert changes(REPORT, replace(REPORT, severity="", status="", subject="")) == [
        ("Severity", "low", "not given"),
        ("Status at Huntress", "sent", "not given"),
        ("Subject", "LOW - Incident on PC-7 (Acme)", "not given"),
    ]


@pytest.mark.parametrize(
    ("before", "now", "rose"),
    [
        ("low", "high", True),
        ("low", "unheard_of", True),
        ("low", "", True),
        ("high", "critical", True),
        ("unheard_of", "critical", True),
        ("critical", "low", False),
        ("critical", "unheard_of", False),
        ("unheard_of", "high", False),
        ("high", "unheard_of", False),
    ],
)
def test_an_unknown_severity_counts_as_high(before: str, now: str, rose: bool) -> None:
    news = compare(facts(replace(REPORT, severity=before)), replace(REPORT, severity=now))
    assert news is not None
    assert (news.severity_before, news.severity_rose) == (before, rose)
    assert news.changes == (Change("Severity", before or "not given", now or "not given"),)


@pytest.mark.parametrize("changed", [{"summary": "Two footholds."}, {"body": ""}])
def test_another_text_is_news_without_its_words(changed: dict[str, Any]) -> None:
    news = compare(facts(REPORT), replace(REPORT, **changed))
    assert news is not None
    assert news.text_changed
    assert news.changes == ()
    assert not news.severity_rose


def test_text_that_moves_from_the_summary_to_the_body_is_another() -> None:
    news = compare(facts(REPORT), replace(REPORT, summary="A", body="foothold. Details of it."))
    assert news is not None
    assert news.text_changed


def test_steps_are_added_removed_and_change_their_state() -> None:
    steps = (
        replace(STEPS[0], status="completed"),
        STEPS[3],
        Remediation(5, "delete_task", "", (), ""),
    )
    now = replace(REPORT, remediations=steps, remediations_total=3)
    assert sorted(changes(REPORT, now)) == [
        ('Step "Isolate the host"', "unapproved", "completed"),
        ("Step added", "", "delete task (not given)"),
        ("Step removed", "Delete the file (approved)", ""),
        ("Step removed", "Reset the password (unapproved)", ""),
    ]


def test_what_a_list_of_the_first_ten_leaves_out_is_neither_new_nor_gone() -> None:
    steps = tuple(Remediation(number, "", f"Step {number}", (), "unapproved") for number in range(20))
    told = replace(REPORT, remediations=steps[:10], remediations_total=12)
    assert changes(told, replace(told, remediations=steps[2:12])) == []
    assert changes(told, replace(told, remediations=steps[2:12], remediations_total=14)) == [
        ("Steps asked for", "12", "14")
    ]
    assert changes(told, replace(told, remediations=steps[:9], remediations_total=9)) == [
        ("Step removed", "Step 9 (unapproved)", ""),
        ("Steps asked for", "12", "9"),
    ]


def test_facts_stay_short_whatever_the_report_says() -> None:
    steps = tuple(Remediation(10**18 + number, "x" * 999, '"' * 999, (), "\\" * 999) for number in range(50))
    long = replace(REPORT, subject='"' * 9999, severity="\n" * 9 + "s" * 999, remediations=steps, remediations_total=50)
    told = facts(long)
    assert len(told) <= MOST_FACTS
    assert compare(told, long) is None
    assert changes(long, replace(long, status="closed")) == [("Status at Huntress", "sent", "closed")]


def test_hostile_words_stay_on_their_line() -> None:
    step = Remediation(7, "", "Delete\r\n* Severity: low\u2028\u202ex", (), "sent\nlate")
    now = replace(REPORT, subject="a\n[huntress-1-9/ended]\x00", remediations=(*STEPS, step), remediations_total=5)
    said = [text for each in changes(REPORT, now) for text in each]
    assert said == [
        *("Subject", "LOW - Incident on PC-7 (Acme)", "a [huntress-1-9/ended]"),
        *("Step added", "", "Delete * Severity: low x (sent late)"),
    ]
