"""The page Quarantine: everything raw, and nothing of it alive."""

from __future__ import annotations

import json

import pytest

from bridge.bookkeeping import QUARANTINE_RAW
from bridge.web.quarantine import PER_PAGE
from tests.bridge.stage import MakeStage, Stage
from tests.end_to_end.test_hostile import BIDI, CONTROL, MARKUP, SURROGATES, TEMPLATE
from tests.web.conftest import Page, words


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return make("psa")


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


def test_an_empty_quarantine_says_so(page: Page) -> None:
    assert "Nothing is in quarantine" in page.get("/quarantine")


@pytest.mark.parametrize("text", [MARKUP, TEMPLATE, CONTROL, BIDI, SURROGATES, "]]>--></pre><script>x</script>"])
def test_hostile_reports_are_inert_text(page: Page, stage: Stage, text: str) -> None:
    raw = json.dumps({"id": 7, "subject": text, text: [text]})
    stage.runtime.books.quarantine("7", 7, f"its id is {text}", raw)
    html = page.get("/quarantine")
    assert "<script>" not in html
    assert "<img src=x" not in html
    assert "evil.example/'>" not in html
    assert all(character.isprintable() for character in html if character != "\n")
    assert "Report 7" in words(html)


def test_json_is_indented_and_invisible_characters_are_spelled_out(page: Page, stage: Stage) -> None:
    stage.runtime.books.quarantine("x1", None, "no id", json.dumps({"id": None, "subject": "fdp\u202eexe é"}))
    html = page.get("/quarantine")
    assert "{\n  &#34;id&#34;: null,\n  &#34;subject&#34;: &#34;fdp\\u202eexe é&#34;\n}" in html
    assert "A report without a usable id" in html
    assert "no id" in html


@pytest.mark.parametrize("raw", ["[" * 9000 + "]" * 9000, "no JSON {", '{"id": ' + "9" * 9000 + "}", ""])
def test_what_no_reader_takes_is_shown_as_it_came(page: Page, stage: Stage, raw: str) -> None:
    stage.runtime.books.quarantine("x1", None, "odd", raw)
    assert "What Huntress sent" in page.get("/quarantine")


def test_brackets_within_brackets_do_not_blow_the_page_up(page: Page, stage: Stage) -> None:
    raw = f"[{','.join(['[' * 300 + ']' * 300] * 30)}]"
    stage.runtime.books.quarantine("x1", None, "odd", raw)
    html = page.get("/quarantine")
    assert raw in html
    assert len(html) < 3 * QUARANTINE_RAW


def test_what_was_cut_says_so(page: Page, stage: Stage) -> None:
    stage.runtime.books.quarantine("8", 8, "too odd", json.dumps(["x" * QUARANTINE_RAW]))
    assert "Only the beginning is kept" in page.get("/quarantine")


def test_many_are_shown_page_by_page_newest_first(page: Page, stage: Stage) -> None:
    for number in range(1, PER_PAGE + 6):
        stage.store.clock_offset += 1
        stage.runtime.books.quarantine(str(number), number, "odd", "{}")
    first, second = words(page.get("/quarantine")), words(page.get("/quarantine?page=2"))
    assert f"{PER_PAGE + 5} reports could not be read" in first
    assert f"Report {PER_PAGE + 5} " in first
    assert "Page 2 of 2" in second
    assert "Report 5 " in second
    assert "Page 2 of 2" in words(page.get("/quarantine?page=99"))
    assert "Page 1 of 2" in words(page.get("/quarantine?page=x"))


def test_downloads_are_files_and_never_pages(page: Page, stage: Stage) -> None:
    key = "../../x\r\nSet-Cookie: a=b"
    stage.runtime.books.quarantine(key, None, MARKUP, MARKUP)
    stage.runtime.books.quarantine("9", 9, "odd", "{}")
    one = page.client.get("/quarantine/download", query_string={"key": key})
    entry = json.loads(one.get_data())
    assert (entry["report_id"], entry["reason"], entry["raw"]) == (None, MARKUP, MARKUP)
    assert one.mimetype == "application/json"
    assert one.headers["X-Content-Type-Options"] == "nosniff"
    assert one.headers["Content-Disposition"] == 'attachment; filename="quarantine-xSet-Cookieab.json"'
    everything = json.loads(page.get("/quarantine/download"))
    assert [entry["report_id"] for entry in everything] == [None, 9]
    page.get("/quarantine/download?key=none", status=404)
