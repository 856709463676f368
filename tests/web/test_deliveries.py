"""The pages of deliveries: what they list, what they say of one, what can be done there. Hostile text stays text."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import urlencode

import pytest
import structlog

from bridge.bookkeeping import Bookkeeping
from bridge.models import DeliveryState, Kind, Organization, TicketRef
from bridge.retrying import retry_all
from bridge.runtime import Runtime
from bridge.text import one_line
from bridge.web.delivery_rows import NAMES_KEPT, Names, ticket_url
from tests.bridge.stage import MakeStage, Stage
from tests.conftest import RedisServer
from tests.end_to_end.test_hostile import BIDI, CONTROL, MARKUP, TEMPLATE
from tests.web.conftest import Page, words

REFUSAL = "<script>alert(2)</script> summary: the field is too long"


#: What the form on one delivery's page carries beside its fields.
FROM: dict[str, Any] = {"from": "delivery"}


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    stage = make("psa", "desk")
    stage.runtime.books.save_organizations([Organization(1, "Alder & Sons"), Organization(2, "Blue <b>water</b>")])
    return stage


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


def settle(stage: Stage, number: int, connector: str, state: DeliveryState, reason: str = REFUSAL) -> None:
    claim = stage.claim(number, connector)
    assert not isinstance(claim, str)
    stage.store.release(claim, state=state, reason=reason, result=True)


def listed(page: Page, path: str = "/deliveries") -> list[str]:
    """The deliveries on a page of the list, by the names that their boxes send."""
    index = page.site.index
    if not index.progress.ready:
        index.fill()
    assert index.follow()
    return re.findall(r'name="pick" value="([^"]*)"', page.get(path))


# -- the list ----------------------------------------------------------------------------------------------------------


def test_an_empty_store_is_said_in_words(page: Page) -> None:
    page.site.index.fill()
    text = words(page.get("/deliveries"))
    assert "There is no delivery yet" in text
    assert "0 deliveries, latest change first." in text
    assert "Retry all" not in text


def test_a_row_says_what_it_is_and_leads_on(page: Page, stage: Stage) -> None:
    stage.store.remember({"subdomain": "examplemsp"})
    stage.report(7, subject="HIGH - Foothold on WS-7", severity="high", connectors=["psa"])
    stage.work()
    assert listed(page) == ["7|psa"]
    html = page.get("/deliveries")
    text = words(html)
    assert "1 delivery, latest change first." in text
    ticket = stage.delivery(7).ticket
    assert ticket is not None
    for part in ("HIGH - Foothold on WS-7", "Alder & Sons", "high", "psa", "created", ticket.number):
        assert part in text
    assert 'href="/deliveries/7/psa"' in html
    assert f'href="{escape(ticket.url)}" rel="noreferrer"' in html
    assert "/org/1/infection_reports/7" in html


def test_while_the_list_is_prepared_it_says_so(page: Page, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.report(1, 2)
    index = page.site.index
    monkeypatch.setattr(index, "start", lambda: None)  # nobody fills it
    text = words(page.get("/deliveries"))
    assert "The list is being prepared (0 %)" in text
    assert words(page.get("/deliveries/retry-all")).count("The list is being prepared") == 1
    index.fill()
    assert "being prepared" not in words(page.get("/deliveries"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"1|psa", "1|desk", "2|psa", "2|desk", "e3|psa", "e3|desk"}),
        ("state=attention", {"1|psa", "2|desk"}),
        ("state=rejected", {"1|psa"}),
        ("state=waiting&connector=psa", {"2|psa", "e3|psa"}),
        ("severity=critical", {"2|psa", "2|desk"}),
        ("severity=other", {"e3|psa", "e3|desk"}),
        ("organization=2", {"2|psa", "2|desk"}),
        ("organization=77", set()),
        ("text=alder", {"1|psa", "1|desk"}),
        ("text=water+ransom&connector=desk", {"2|desk"}),
        ("text=nothing+like+it", set()),
        ("state=lost&organization=x&severity=dire", {"1|psa", "1|desk", "2|psa", "2|desk", "e3|psa", "e3|desk"}),
    ],
)
def test_each_filter_shows_what_it_says_and_stays_chosen(
    page: Page, stage: Stage, query: str, expected: set[str]
) -> None:
    stage.report(1, subject="LOW - Foothold")
    stage.report(2, severity="critical", organization_id=2, subject="CRITICAL - Ransom note")
    stage.report(3, kind=Kind.ESCALATION, severity="weird", organization_id=None, subject="Call us")
    settle(stage, 1, "psa", DeliveryState.REJECTED)
    settle(stage, 2, "desk", DeliveryState.HELD)
    assert set(listed(page, f"/deliveries?{query}")) == expected
    html = page.get(f"/deliveries?{query}")
    assert ("Nothing matches this filter." in html) == (not expected)
    chosen = dict(part.split("=") for part in query.split("&") if part)
    for name, value in chosen.items():
        if name == "text":
            assert f'value="{value.replace("+", " ")}"' in html
        elif value not in ("lost", "x", "dire"):
            assert f'<option value="{value}" selected>' in html
        else:
            assert f"{value!r}" in words(html)


def test_pages_follow_one_another(page: Page, stage: Stage) -> None:
    stage.report(*range(1, 61), connectors=["psa"])
    first = listed(page)
    assert len(first) == 50
    [older] = re.findall(r'href="(/deliveries\?[^"]*before=[^"]*)"', page.get("/deliveries?severity=low"))
    assert "severity=low" in older
    second = listed(page, older.replace("&amp;", "&"))
    assert len({*first, *second}) == 60
    [newer] = re.findall(r'href="(/deliveries\?[^"]*after=[^"]*)"', page.get(older.replace("&amp;", "&")))
    assert listed(page, newer.replace("&amp;", "&")) == first
    assert "There is nothing more in this direction." in page.get("/deliveries?before=1-1")


def test_the_list_as_a_file_has_the_same_rows(page: Page, stage: Stage) -> None:
    stage.report(1, subject="=HYPERLINK(1)")
    stage.report(2, subject="HIGH - b", severity="high")
    page.site.index.fill()
    answer = page.client.get("/deliveries.csv?severity=low")
    assert answer.headers["Content-Disposition"] == "attachment; filename=deliveries.csv"
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert {(row["report_id"], row["connector"], row["state"]) for row in rows} == {
        ("1", "psa", "pending"),
        ("1", "desk", "pending"),
    }
    assert rows[0]["subject"] == "'=HYPERLINK(1)"
    assert rows[0]["organization"] == "Alder & Sons"


# -- one delivery ------------------------------------------------------------------------------------------------------


def test_one_delivery_tells_its_story(page: Page, stage: Stage) -> None:
    stage.report(5, subject="HIGH - Foothold", severity="high", body="the whole body")
    stage.work()
    html = page.get("/deliveries/5/psa")
    text = words(html)
    ticket = stage.delivery(5).ticket
    assert ticket is not None
    for part in ("First seen", "Looked up by its reference: no ticket yet", "The create request was let out"):
        assert part in text
    assert text.index("First seen") < text.index("Ticket created")
    assert "after it was first seen" in text
    assert "> the whole body" in text
    assert "The same report elsewhere" in text
    assert 'href="/deliveries/5/desk"' in html
    assert "The ticket is followed" in text
    assert "Retry now" not in text


@pytest.mark.parametrize(
    ("state", "then", "advice", "buttons"),
    [
        (DeliveryState.REJECTED, "refused this ticket for good", "huntress-bridge link 5 psa TICKET", (True, True)),
        (DeliveryState.HELD, "a ticket may exist or not", "Look for huntress-5-5", (True, True)),
        (DeliveryState.PENDING, "It is tried again", "Retry tries it at once", (True, True)),
        (DeliveryState.HANDLED, "a person took care of it", "Retry takes it up again", (True, False)),
        (DeliveryState.GONE, "the ticket is gone", "huntress-bridge link 5 psa TICKET", (False, True)),
    ],
)
def test_each_state_says_what_happens_next_and_what_to_do(
    page: Page, stage: Stage, state: DeliveryState, then: str, advice: str, buttons: tuple[bool, bool]
) -> None:
    stage.report(5, connectors=["psa"])
    settle(stage, 5, "psa", state)
    text = words(page.get("/deliveries/5/psa"))
    assert REFUSAL in text
    assert then in text
    assert advice in text
    assert ("Retry now" in text or "Take it up again" in text, "Mark as handled" in text) == buttons


def test_a_paused_connector_is_why_it_waits(page: Page, stage: Stage) -> None:
    stage.report(5, connectors=["psa"])
    stage.store.pause("psa", "misconfigured", 600, "board: there is no board Security", probe_in=60)
    text = words(page.get("/deliveries/5/psa"))
    assert "the connector is paused: board: there is no board Security" in text
    assert "as soon as the connector is served again" in text


def test_a_connector_that_is_configured_no_more_is_named(page: Page, stage: Stage) -> None:
    stage.report(5, connectors=["old"])
    text = words(page.get("/deliveries/5/old"))
    assert "no connector old is configured any more" in text
    assert "Configure [connectors.old] again" in text


@pytest.mark.parametrize(
    "path", ["/deliveries/9/psa", "/deliveries/1/nobody", "/deliveries/x/psa", "/deliveries/²/psa"]
)
def test_an_unknown_delivery_is_a_sentence(page: Page, stage: Stage, path: str) -> None:
    stage.report(1, connectors=["psa"])
    assert "There is no delivery of a report" in words(page.get(path, 404))


# -- what can be done --------------------------------------------------------------------------------------------------


def test_chosen_ones_are_retried(page: Page, stage: Stage) -> None:
    stage.report(1, 2, 3, connectors=["psa"])
    stage.work()
    stage.report(4, 5, connectors=["psa"])
    for number in (4, 5):
        settle(stage, number, "psa", DeliveryState.REJECTED)
    page.site.index.fill()
    text = words(page.press("/deliveries/retry", pick=["4|psa", "5|psa", "1|psa", "99|psa", "junk"], state="attention"))
    assert "2 deliveries due now." in text
    assert "1 delivery left alone" in text
    assert "1 delivery not there any more." in text
    assert "Nothing matches this filter." in text, "the list is as it is after the retry"
    assert [stage.delivery(number).state for number in (4, 5)] == [DeliveryState.PENDING] * 2
    stage.work()
    assert stage.delivery(4).state is DeliveryState.CREATED


def test_nothing_chosen_is_said(page: Page, stage: Stage) -> None:
    stage.report(1, connectors=["psa"])
    assert "Nothing was chosen, so nothing was retried." in words(page.press("/deliveries/retry"))
    answer = page.post("/deliveries/handle", status=400, reason="called them")
    assert "Nothing was chosen" in words(answer.text)
    assert 'value="called them"' in answer.text


@pytest.mark.parametrize(
    ("query", "retried"),
    [
        ({}, {1, 2, 3}),
        ({"state": "rejected"}, {1, 2}),
        ({"state": "rejected", "severity": "critical"}, {2}),
        ({"text": "ransom"}, {2}),
        ({"state": "handled"}, {5}),
        ({"state": "created"}, set()),
        ({"connector": "desk"}, set()),
    ],
)
def test_all_that_match_are_retried_after_a_question(
    page: Page, stage: Stage, query: dict[str, str], retried: set[int]
) -> None:
    stage.report(4, connectors=["psa"])
    stage.work()
    stage.report(1, 3, 5, connectors=["psa"])
    stage.report(2, connectors=["psa"], severity="critical", subject="CRITICAL - Ransom note")
    for number, state in ((1, "rejected"), (2, "rejected"), (3, "held"), (5, "handled")):
        settle(stage, number, "psa", DeliveryState(state))
    page.site.index.fill()
    address = "/deliveries/retry-all?" + "&".join(f"{name}={value}" for name, value in query.items())
    question = words(page.get(address))
    if retried:
        assert f"Retry {len(retried)} deliver{'y' if len(retried) == 1 else 'ies'} now?" in question
    else:
        assert "Nothing here can be retried" in question
    page.press("/deliveries/retry-all", **query)
    waiting = {number for number in (1, 2, 3, 5) if stage.delivery(number).state is DeliveryState.PENDING}
    assert waiting == retried
    assert stage.delivery(4).state is DeliveryState.CREATED


def test_marking_as_handled_needs_a_reason_that_is_kept(page: Page, stage: Stage) -> None:
    stage.report(1, 2, 3, connectors=["psa"])
    settle(stage, 1, "psa", DeliveryState.REJECTED)
    assert not isinstance(stage.claim(2, "psa"), str)  # a worker is at it
    page.site.index.fill()
    for reason, said in (("", "A reason is needed"), (" \r\n ", "A reason is needed"), ("x" * 501, "longer than 500")):
        answer = page.post("/deliveries/handle", status=400, pick="1|psa", reason=reason)
        assert said in words(answer.text)
        assert 'value="1|psa" aria-label="Report 1 to psa" checked' in answer.text
        answer = page.post("/deliveries/handle", status=400, reason=reason, pick="1|psa", **FROM)
        assert "What happens next" in answer.text
    assert stage.delivery(1).state is DeliveryState.REJECTED
    stage.report(4, connectors=["psa"])
    stage.work()
    text = words(
        page.press("/deliveries/handle", pick=["1|psa", "2|psa", "9|psa"], reason="  Called\r\nthe <i>customer</i> ")
    )
    assert "1 delivery marked as handled." in text
    assert "A worker is at report 2 for psa right now" in text
    assert "There is no delivery of report 9 to psa." in text
    assert stage.delivery(1).state is DeliveryState.HANDLED
    assert stage.delivery(1).reason == "Called the <i>customer</i>"
    text = words(page.get("/deliveries/1/psa"))
    assert "Marked as handled by a person" in text
    assert "Called the <i>customer</i>" in text


def test_one_delivery_is_steered_on_its_own_page(page: Page, stage: Stage) -> None:
    stage.report(1, connectors=["psa"])
    settle(stage, 1, "psa", DeliveryState.REJECTED)
    answer = page.post("/deliveries/retry", pick="1|psa", **FROM)
    assert answer.location == "/deliveries/1/psa"
    assert "1 delivery due now." in words(page.get(answer.location))
    answer = page.post("/deliveries/handle", pick="1|psa", reason="by hand", **FROM)
    assert answer.location == "/deliveries/1/psa"
    assert stage.delivery(1).state is DeliveryState.HANDLED


def test_each_action_is_audited(page: Page, stage: Stage) -> None:
    stage.report(1, 2, connectors=["psa"])
    page.site.index.fill()
    with structlog.testing.capture_logs() as logs:
        page.post("/deliveries/retry", pick="1|psa")
        page.post("/deliveries/handle", pick=["1|psa", "8|psa"], reason="by hand")
        page.post("/deliveries/retry-all", state="waiting")
    told = [
        (each["action"], each.get("report_id"), each.get("outcome", "done"), each.get("reason") or each.get("filter"))
        for each in logs
        if each["event"] == "action on the page"
    ]
    assert told == [
        ("retry", 1, "done", None),
        ("handle", 1, "done", "by hand"),
        ("handle", 8, "refused", "by hand"),
        ("retry all that match", None, "done", "?state=waiting"),
    ]


def test_retry_of_many_counts_what_there_was(stage: Stage) -> None:
    stage.report(1, 2, 3, connectors=["psa"])
    settle(stage, 1, "psa", DeliveryState.REJECTED)
    stage.store.pause("psa", "misconfigured", 600, "no board", probe_in=600)
    before = retry_all(stage.store, [(1, "psa"), (2, "psa"), (77, "psa")])
    assert dict(before) == {"rejected": 1, "pending": 1, "": 1}
    pause = stage.store.paused("psa")
    assert pause is not None
    assert pause.next_probe == 0.0, "the connector is probed at once"


# -- what comes from outside -------------------------------------------------------------------------------------------


HOSTILE = [MARKUP, TEMPLATE, f"invoice{BIDI}fdp.exe", CONTROL, "'\"><svg onload=alert(3)>", "javascript:alert(1)"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(page: Page, stage: Stage, text: str) -> None:
    stage.report(
        1, subject=text, summary=text, body=text, severity=text, platform=text, status="sent", connectors=["psa"]
    )
    stage.runtime.books.save_organizations([Organization(1, text)])
    claim = stage.claim(1, "psa")
    assert not isinstance(claim, str)
    url = f"javascript:alert(1)//{text}"
    stage.store.record(claim, TicketRef(f"1{text}", f"2{text}", url), remark=text)
    page.site.index.fill()
    for path in ("/deliveries", "/deliveries/1/psa", "/", f"/deliveries?{urlencode({'text': text})}"):
        body = page.get(path)
        assert "<svg onload" not in body
        assert "<script>alert" not in body
        assert not re.search(r'(href|src|action)="(?!/|#main)', body), path
        assert not {character for character in body if ord(character) < 32 and character != "\n"}
        assert not set(body) & {*BIDI, "\x7f", "\x9b"}
    assert " ".join(one_line(text).split())[:40] in words(page.get("/deliveries/1/psa"))


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("{psa}/v4_6_release/services/system_io/Service/fv_sr100_request.rails?recid=1", True),
        ("http://evil.example/1", False),
        ("javascript:alert(1)", False),
        ("{psa}\\@evil.example/", False),
        ("//evil.example/1", False),
        ("", False),
    ],
)
def test_a_ticket_is_a_link_only_to_its_own_system(stage: Stage, url: str, linked: bool) -> None:
    settings = stage.service("psa").settings
    address = url.format(psa=getattr(settings, "url", "").rstrip("/"))
    assert ticket_url(TicketRef("1", url=address), settings) == (address if linked else "")
    assert ticket_url(TicketRef("1", url=address), None) == ""


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/deliveries", "/deliveries/1/psa", "/deliveries/retry-all", "/deliveries.csv"])
def test_without_redis_each_page_says_so(
    make: MakeStage, make_redis_server: Callable[..., RedisServer], path: str
) -> None:
    server = make_redis_server("--appendonly", "yes")
    stage = make("psa", url=server.url)
    stage.report(1)
    page = Page(stage)
    page.site.index.fill()
    assert page.client.get(path).status_code == 200
    server.stop()
    answer = page.client.get(path)
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text
    server.start()
    assert page.client.get(path).status_code == 200


def test_a_full_disk_is_a_sentence(page: Page, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.report(*range(1, 400))
    page.site.index.fill()
    with page.site.index._open() as database:
        [(used,)] = database.execute("PRAGMA page_count").fetchall()
        database.execute(f"PRAGMA max_page_count = {used}")
    stage.report(*range(400, 1200), subject="LOW - more than there is room for")
    page.site.index._followed_at = 0.0
    answer = page.client.get("/deliveries")
    assert answer.status_code == 503
    assert "make room there" in answer.text


def test_names_are_read_anew_now_and_then(stage: Stage) -> None:
    now = [0.0]
    books = Bookkeeping(stage.store)
    names = Names(books, clock=lambda: now[0])
    assert names.all()[1] == "Alder & Sons"
    books.save_organizations([Organization(1, "Alder\u202e Group")])
    assert names.all()[1] == "Alder & Sons"
    now[0] += NAMES_KEPT
    assert names.all()[1] == "Alder Group"


def test_the_runtime_ends_the_index(make: MakeStage) -> None:
    stage = make("psa")
    page = Page(stage)
    page.get("/deliveries")
    runtime: Runtime = stage.runtime
    runtime.__exit__()
    assert not page.site.index._thread.is_alive()
    runtime.__enter__()
