"""What people did is kept, shown and found; and what a person reads when a request cannot be answered."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import g

from bridge.web.activity import SHOWN, activity
from bridge.web.audit import KEPT
from bridge.web.visitor import Visitor
from tests.conftest import RedisServer
from tests.web.door import ASKING, BEHIND, LOCAL, Door

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m' onmouseover='x"


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door(LOCAL)


def test_an_action_is_kept_with_who_when_what_and_why(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    with door.app.test_request_context("/"):
        g.visitor = Visitor("192.0.2.1", "localhost", https=False)
        door.site.audit("retry", person="kim", report_id="12", connector="psa", reason="board\nmended", tickets=[1, 2])
        door.site.audit("probe", person="kim", outcome="failed", connector="psa", reason=None, note="")
    logged = capsys.readouterr().out
    assert "action=retry" in logged
    assert "report_id=12" in logged
    failed, done = door.site.audit_log.entries()
    assert (done.person, done.address, done.action, done.outcome) == ("kim", "192.0.2.1", "retry", "done")
    assert done.what == {"report_id": "12", "connector": "psa", "reason": "board mended", "tickets": "1, 2"}
    assert abs(done.at - door.runtime.store.now()) < 60
    assert (failed.outcome, failed.what) == ("failed", {"connector": "psa"})


def test_what_people_did_is_bounded_and_refusals_do_not_push_it_out(door: Door) -> None:
    audit_log, store = door.site.audit_log, door.runtime.store
    audit_log.write("kim", "192.0.2.1", "retry", "done", {})
    for name, most in KEPT.items():
        store.client.rpush(
            store.key(name), *['{"at":1,"person":"x","address":"","action":"y","outcome":"done"}'] * most
        )
    for number in range(5):
        audit_log.write("nobody", "192.0.2.9", "log in", "refused", {"number": number})
    assert {store.client.llen(store.key(name)) for name in KEPT} == {KEPT["page:audit"] + 1, KEPT["page:refused"]}
    audit_log.write("kim", "192.0.2.1", "retry", "done", {})
    assert {store.client.llen(store.key(name)) for name in KEPT} == set(KEPT.values())
    whole = list(audit_log.entries())
    assert len(whole) == sum(KEPT.values())
    assert [each.action for each in whole[:7]] == ["retry", *["log in"] * 5, "retry"]


def test_pages_and_words(door: Door) -> None:
    for number in range(SHOWN + 3):
        what = {"report_id": number, "reason": "the Board was mended" if number % 2 else "asked by phone"}
        door.site.audit_log.write("kim", "192.0.2.1", "retry", "done", what)
    first, second = (activity(door.site.audit_log, "", page) for page in (1, 2))
    assert (len(first.entries), first.more) == (SHOWN, True)
    assert (len(second.entries), second.more) == (3, False)
    assert first.entries[0].what["report_id"] == str(SHOWN + 2)
    assert len(activity(door.site.audit_log, "BOARD kim").entries) == (SHOWN + 3) // 2
    assert activity(door.site.audit_log, "nobody").entries == ()
    browser = door.browser()
    assert "asked by phone" not in browser.get("/activity?text=board").text
    assert "No action has these words." in browser.get("/activity?text=nobody").text
    assert 'href="/activity?page=2"' in browser.get("/activity").text
    for page in ("0", "-1", "x", "99999999999999999999"):
        assert browser.get(f"/activity?page={page}").status_code == 200


def test_what_people_and_proxies_say_is_inert(open_door: Callable[..., Door]) -> None:
    door = open_door(BEHIND)
    door.site.audit_log.write(HOSTILE, "192.0.2.1", HOSTILE, "done", {"reason": HOSTILE})
    said = {"X-Forwarded-User": "<b>kim</b>"}
    text = door.browser("10.0.0.5").get(f"/activity?text={'<script>'}", headers=said, base="http://page.test").text
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;kim" in text
    assert "onmouseover='x" not in text
    cell = re.findall(r'data-label="Particulars"><span>(.*?)</td>', text)[0]
    assert not re.search(r"[\u202e\x1b]", cell)


@pytest.mark.parametrize("web", [LOCAL, ASKING])
def test_a_page_that_fails_shows_no_trace(
    open_door: Callable[..., Door], web: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    door = open_door(web)

    def fails() -> str:
        raise RuntimeError("a secret detail")

    door.app.add_url_rule("/fails", "fails", fails)
    person = door.browser()
    if web is ASKING:
        assert person.get("/fails").status_code == 303
        person.log_in()
    answer = person.get("/fails")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    number = re.search(r"The log has it as ([0-9a-f]{8})\.", answer.text)
    assert number
    logged = capsys.readouterr().out
    assert number[1] in logged
    assert "RuntimeError: a secret detail" in logged


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "There is no such page"),
        ("GET", "/logout", 405, "This cannot be done here"),
        ("POST", "/activity", 405, "This cannot be done here"),
    ],
)
def test_errors_are_sentences(door: Door, method: str, path: str, status: int, sentence: str) -> None:
    browser = door.browser()
    answer = browser.get(path) if method == "GET" else browser.post(path)
    assert answer.status_code == status
    assert sentence in answer.text
    assert ("Allow" in answer.headers) is (status == 405)


def test_without_redis_it_says_so_to_those_who_may_know(
    open_door: Callable[..., Door], make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server()
    door = open_door(ASKING, redis={"url": server.url})
    person = door.browser()
    person.log_in()
    server.kill()
    answer = person.get("/")
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text
    assert person.get("/status").get_json() == {"ok": False, "problems": ["Redis does not answer"]}
    stranger = door.browser()
    assert stranger.get("/").status_code == 303
    assert stranger.get("/healthz").status_code == 200
    assert stranger.get("/readyz").text == "Redis does not answer\n"
    assert stranger.get("/static/page.css").status_code == 200
