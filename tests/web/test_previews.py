"""The page Templates: a report as it would be in a connector, beside its templates; nothing is sent, nothing runs."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from markupsafe import escape

from bridge.demo import scenario
from bridge.models import Agent, Kind, Organization
from bridge.render_guard import GUARD
from bridge.web.previews import AT_ONCE, SAMPLES, WRITTEN
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.end_to_end.test_hostile import MARKUP, TEMPLATE
from tests.web.conftest import Page, words

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return make("psa", "desk", "oncall")


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An operator's folder of templates."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("connector", ["psa", "desk", "oncall"])
def test_every_sample_is_rendered_as_everything_in_every_connector(
    page: Page, systems: Systems, connector: str
) -> None:
    for what in WRITTEN:
        for sample in SAMPLES if what == "ticket" else ("full", "escalation"):
            html = page.get(f"/templates?connector={connector}&what={what}&sample={sample}")
            assert "Every template rendered. Nothing was sent." in html
            assert "<script>alert" not in html
            assert "<img src=x" not in html
    assert systems.connectwise.received == systems.autotask.received == []
    assert systems.mailbox.messages == []


def test_the_ticket_stands_beside_its_templates(page: Page) -> None:
    text = words(page.get("/templates?connector=psa"))
    assert "The ticket in psa" in text
    assert "HIGH - Incident on DESKTOP-01 (Acme Corp)" in text
    assert "Reference huntress-5-1001" in text
    assert "Priority Priority 2 - High" in text
    assert "connectwise/text.j2 built-in" in text


def test_mail_has_a_part_in_html_and_it_is_shown_as_source_only(page: Page) -> None:
    html = page.get("/templates?connector=oncall&sample=hostile")
    assert "Shown as source" in html
    assert "&lt;html" in html
    assert "<iframe" not in html
    assert "Priority" not in words(html).split("Beside the texts")[1].split("Templates used")[0]


def test_a_template_that_fails_is_shown_with_its_line(make: MakeStage, own: Path) -> None:
    (own / "text.j2").write_text("first\n<b>{{ report.nothing }}</b>\nthird\n", "utf-8")
    html = Page(make("psa", templates=str(own))).get("/templates?connector=psa")
    assert "1 template failed" in words(html)
    bad = html.split('class="code-line bad"')[1].split('class="code-line"')[0]
    assert words(f"<p {bad}").startswith("2 <b>{{ report.nothing }}</b> ▶ connector psa: template")
    assert "line 2" in bad
    assert html.count('class="code-line bad"') == 1
    assert "own failed" in words(html)
    assert "the plain rendering took its place" in html
    assert "Acme Corp" in html, "the plain text is not shown"


def test_a_template_that_fails_as_a_whole_is_named(make: MakeStage, own: Path) -> None:
    (own / "text.j2").write_text("{# nothing #}", "utf-8")
    html = Page(make("psa", templates=str(own))).get("/templates?connector=psa")
    assert "it rendered nothing" in html
    assert "own failed" in words(html)


def test_a_note_that_fails_is_shown_with_its_line(make: MakeStage, own: Path) -> None:
    (own / "ended.j2").write_text("\n\n{% for %}\n", "utf-8")
    page = Page(make("psa", templates=str(own)))
    html = page.get("/templates?connector=psa&what=ended")
    assert '<span class="code-line bad"><span class="code-number">3</span>' in html
    assert "Every template rendered" in page.get("/templates?connector=psa&what=ticket")


def test_a_template_without_end_is_stopped(make: MakeStage, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GUARD, "template_seconds", 0.3)
    monkeypatch.setattr(GUARD, "later_seconds", 0.3)
    (own / "title.j2").write_text(ENDLESS, "utf-8")
    text = words(Page(make("psa", templates=str(own))).get("/templates?connector=psa"))
    assert "it takes more than 0.3 s of processor time" in text


def test_slow_templates_leave_threads_for_the_rest_of_the_page(
    make: MakeStage, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GUARD, "template_seconds", 0.5)
    (own / "title.j2").write_text(ENDLESS, "utf-8")
    page = Page(make("psa", templates=str(own)))
    begin = threading.Barrier(AT_ONCE + 1)

    def preview() -> tuple[int, str]:
        client = page.client.application.test_client()
        begin.wait(30)
        answer = client.get("/templates?connector=psa")
        return answer.status_code, words(answer.text)

    with ThreadPoolExecutor(AT_ONCE + 1) as browsers:
        answers = sorted(each.result() for each in [browsers.submit(preview) for _ in range(AT_ONCE + 1)])
    assert [status for status, _ in answers] == [200] * AT_ONCE + [503]
    assert "Other previews are being made" in answers[-1][1]


def test_a_changed_template_is_shown_at_once(make: MakeStage, own: Path) -> None:
    page = Page(make("psa", templates=str(own)))
    for title in ("first", "second"):
        (own / "title.j2").write_text(f"{title} of mine", "utf-8")
        html = page.get("/templates?connector=psa")
        assert f'aria-label="Title">{title} of mine' in html
        assert "title.j2 own" in words(html)


def test_a_stored_report_is_rendered_with_what_is_known_of_it(page: Page, stage: Stage) -> None:
    stage.runtime.books.save_organization(Organization(1, "Known Organization"))
    stage.runtime.books.save_agent(Agent(4, hostname="KNOWN-HOST"))
    stage.report(77, agent_id=4)
    page.site.index.fill()
    text = words(page.get("/templates?connector=desk&report=77"))
    assert "Known Organization" in text
    assert "KNOWN-HOST" in text
    assert "Reference huntress-5-77" in text
    assert '<option value="77">LOW - x</option>' in page.get("/templates")


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [("12345", 404, "No report 12345 is in the store"), ("<b>x", 400, "is no report id"), ("e5", 404, "No report e5")],
)
def test_a_report_that_is_not_there_is_said(page: Page, report: str, status: int, said: str) -> None:
    html = page.get(f"/templates?report={report}", status=status)
    assert said in html
    assert "<b>x" not in html


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (scenario.SAMPLES["full"], "", "huntress-5-1001"),
        ({"incident_report": scenario.SAMPLES["minimal"]}, "", "huntress-5-1002"),
        (scenario.escalation(9, []), "", "huntress-5-e9"),
        (scenario.platform_action(9), Kind.PLATFORM_ACTION.value, "huntress-5-p9"),
        ({"id": 8, "subject": MARKUP, "body": TEMPLATE}, "", "huntress-5-8"),
    ],
)
def test_a_pasted_report_is_rendered_and_stays_in_its_field(page: Page, raw: object, kind: str, said: str) -> None:
    answer = page.post("/templates", status=200, connector="psa", json=json.dumps(raw), kind=kind)
    html = answer.get_data(as_text=True)
    assert said in words(html)
    assert "&#34;id&#34;" in html
    assert "<script>alert" not in html
    assert "49" not in words(html).split("The ticket in psa")[1].split("Beside the texts")[0], "it was compiled"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Nothing was pasted"),
        ("{<b>", "not JSON"),
        ("[]", "not an incident report"),
        ('{"id": "x"}', "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_and_not_lost(page: Page, text: str, said: str) -> None:
    html = page.post("/templates", status=422, connector="desk", json=text).get_data(as_text=True)
    assert said in html
    assert f">{escape(text)}</textarea>" in html
    assert "<option selected>desk</option>" in html


def test_nonsense_in_the_address_is_the_first_there_is(page: Page) -> None:
    text = words(page.get("/templates?connector=nobody&what=everything&sample=none"))
    assert "The ticket in psa" in text
