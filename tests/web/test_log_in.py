"""The log-in: who gets in, how long it lasts, and how little a guesser gets done. Time passes on the store's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import flash

from bridge.web.attempts import FREE, LONGEST_WAIT, REMEMBERED, TOGETHER
from bridge.web.login import local_path
from bridge.web.sessions import digest
from tests.web.door import ASKING, PASSWORD, Browser, Door

WRONG = "not the password at all"


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door(ASKING)


@pytest.fixture
def person(door: Door) -> Browser:
    """Logged in, and from an address of its own."""
    browser = door.browser("192.0.2.1")
    assert browser.log_in().status_code == 303
    return browser


def inside(browser: Browser) -> bool:
    return browser.get("/activity").status_code == 200


# Sessions


def test_the_password_opens_the_page_and_leads_where_one_wanted_to_go(door: Door) -> None:
    browser = door.browser()
    refused = browser.get("/activity?text=a+b&page=2")
    assert refused.location == "/login?next=/activity?text%3Da%2Bb%26page%3D2"
    form = browser.get(refused.location).text
    assert 'name="next" value="/activity?text=a+b&amp;page=2"' in form
    assert browser.log_in(next="/activity?text=a+b&page=2").location == "/activity?text=a+b&page=2"
    assert inside(browser)
    assert browser.get("/login").location == "/"


@pytest.mark.parametrize("password", ["", WRONG, PASSWORD + " ", PASSWORD[:-1], PASSWORD.upper(), "\x00", "\udcff"])
def test_anything_else_does_not(door: Door, password: str) -> None:
    browser = door.browser()
    answer = browser.log_in(password.encode("utf-8", "replace").decode())
    assert answer.status_code == 401
    assert "That is not the password." in answer.text
    assert not inside(browser)


@pytest.mark.parametrize(
    "wanted",
    [
        "https://elsewhere.test/",
        "//elsewhere.test",
        "/\\elsewhere.test",
        "\\/elsewhere.test",
        "/\t/elsewhere.test",
        "/\n/elsewhere.test",
        "javascript:alert(1)",
        "//[",
        "http://[",
        "elsewhere",
        "/login?next=/",
        "/logout",
        "",
    ],
)
def test_the_log_in_leads_to_no_other_site(wanted: str) -> None:
    assert local_path(wanted) == "/"


def test_a_session_has_a_new_id_that_redis_never_knows(door: Door, person: Browser) -> None:
    stranger = door.browser()
    stranger.token()
    before = stranger.cookie()
    stranger.log_in()
    ids = [stranger.cookie(), person.cookie()]
    assert len({before, *ids}) == 3
    client = door.runtime.store.client
    everything = repr([(key, client.type(key), client.dump(key)) for key in client.keys("*")])
    for secret in (before, *ids, stranger.cookie("bridge_device"), stranger.token(), PASSWORD):
        assert secret
        assert secret not in everything
    stranger.client.set_cookie("bridge_page", before)
    assert not inside(stranger)


def test_strangers_store_nothing(door: Door) -> None:
    before = door.keys()
    for _ in range(3):
        stranger = door.browser()
        stranger.get("/")
        stranger.token()
        stranger.ask("POST", "/login", data={"password": PASSWORD})
    assert door.keys() == before


def test_a_session_ends_when_nobody_uses_it(door: Door, person: Browser) -> None:
    for _ in range(4):
        door.later(1700)
        assert inside(person)
    door.later(1801)
    assert not inside(person)
    assert not door.runtime.store.client.exists(door.runtime.store.key(f"page:session:{digest(person.cookie())}"))


def test_a_page_that_refreshes_by_itself_is_no_use(door: Door, person: Browser) -> None:
    for _ in range(17):
        assert person.get("/", headers={"X-Live": "1"}).status_code == 200
        door.later(100)
    door.later(101)
    assert person.get("/", headers={"X-Live": "1"}).status_code == 401


def test_every_session_ends(door: Door, person: Browser) -> None:
    for _ in range(28):
        assert inside(person)
        door.later(1500)
    door.later(1300)
    assert not inside(person)


def test_after_the_log_out_the_session_is_none_for_anybody(door: Door, person: Browser) -> None:
    value = person.cookie()
    assert person.post("/logout").location == "/login"
    assert not person.cookie()
    thief = door.browser()
    thief.client.set_cookie("bridge_page", value)
    assert not inside(thief)


def test_another_password_ends_every_session(door: Door, person: Browser) -> None:
    changed: dict[str, Any] = {**ASKING, "password": "another one, as long"}
    door.write(changed)
    assert inside(person)
    assert door.runtime.reload()
    assert not inside(person)
    assert person.log_in().status_code == 401
    assert person.log_in(changed["password"]).status_code == 303
    assert inside(person)


def test_a_password_that_was_taken_away_opens_nothing(door: Door, person: Browser) -> None:
    """The configuration may say so, but the address that is listened on stays."""
    door.write({"host": "127.0.0.1"})
    assert door.runtime.reload()
    assert not inside(person)
    assert person.get("/", headers={"X-Live": "1"}).status_code == 401
    answer = person.get("/login")
    assert answer.status_code == 401
    assert "No log-in is offered here" in answer.text
    assert person.log_in("").status_code == 401
    assert not inside(person)


def test_two_processes_share_their_sessions(door: Door, person: Browser, open_door: Callable[..., Door]) -> None:
    other = open_door(ASKING).browser()
    assert not inside(other)
    other.client.set_cookie("bridge_page", person.cookie())
    assert inside(other)


def test_a_link_from_elsewhere_asks_again_with_the_cookie(door: Door) -> None:
    """The browser keeps a SameSite=Strict cookie back; the answer makes it ask from here, where it sends it."""
    from_mail = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = door.browser().get("/activity", headers=from_mail)
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0">' in answer.text
    assert "Set-Cookie" not in answer.headers, "it would take the place of the one kept back"
    again = door.browser().get("/activity", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"})
    assert again.status_code == 303


# Guessing


def waits(door: Door, browser: Browser, attempts: int) -> list[int]:
    """Seconds that a guesser waits after each attempt."""
    found = []
    for _ in range(attempts):
        assert browser.log_in(WRONG).status_code == 401
        answer = browser.log_in(WRONG)
        if answer.status_code == 401:
            found.append(0)
            continue
        assert answer.status_code == 429
        found.append(int(answer.headers["Retry-After"]))
        assert "Too many attempts" in answer.text
        assert "not looked at" in answer.text
        door.later(found[-1])
    return found


def test_a_guesser_waits_twice_as_long_each_time(door: Door) -> None:
    guesser = door.browser("192.0.2.9")
    for _ in range(FREE - 1):
        assert guesser.log_in(WRONG).status_code == 401
    found = waits(door, guesser, 13)
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT]


def test_while_it_waits_not_even_the_right_password_is_looked_at(door: Door) -> None:
    guesser = door.browser("192.0.2.9")
    for _ in range(FREE + 3):
        guesser.log_in(WRONG)
        door.later(1)
    before = guesser.log_in()
    assert before.status_code == 429
    for _ in range(20):
        assert guesser.log_in().status_code == 429
    door.later(int(before.headers["Retry-After"]))
    assert guesser.log_in().status_code == 303, "asking again and again makes the wait no longer"


def test_a_log_in_forgets_the_failed_attempts_and_so_does_time(door: Door) -> None:
    for _ in range(3):
        clumsy = door.browser("192.0.2.9")
        for _ in range(FREE - 1):
            assert clumsy.log_in(WRONG).status_code == 401
        assert clumsy.log_in().status_code == 303
    door.browser("192.0.2.9").log_in(WRONG)
    store = door.runtime.store
    assert 0 < store.client.ttl(store.key("page:attempts:192.0.2.9")) <= REMEMBERED


def test_other_addresses_do_not_wait_for_the_guesser(door: Door) -> None:
    guesser = door.browser("192.0.2.9")
    for _ in range(FREE + 1):
        guesser.log_in(WRONG)
    assert guesser.log_in().status_code == 429
    assert door.browser("192.0.2.10").log_in().status_code == 303


@pytest.mark.parametrize("addresses", [["2001:db8::{:x}"], ["192.0.2.9"]])
def test_one_machine_with_many_addresses_is_one_guesser(
    door: Door, open_door: Callable[..., Door], addresses: list[str]
) -> None:
    """And all processes count together."""
    doors = [door, open_door(ASKING)]
    statuses = [
        doors[number % 2].browser(addresses[0].format(number + 1)).log_in(WRONG).status_code
        for number in range(FREE + 1)
    ]
    assert statuses == [401] * FREE + [429]


def test_many_guessers_together_are_slowed_and_shut_nobody_out_who_was_here_before(door: Door, person: Browser) -> None:
    """`person` used one attempt of this minute."""
    statuses = [door.browser(f"198.51.100.{number}").log_in(WRONG).status_code for number in range(TOGETHER + 5)]
    assert statuses == [401] * (TOGETHER - 1) + [429] * 6
    person.post("/logout")
    assert door.browser("203.0.113.1").log_in().status_code == 429, "a browser that nobody knows waits with them"
    assert person.log_in().status_code == 303
    assert [door.browser(here).log_in().status_code for here in ("127.0.0.1", "::1")] == [303, 303], "nor this machine"
    assert door.browser("127.0.0.2").log_in().status_code == 429, (
        "which has one address, or it could guess with millions"
    )
    door.later(61)
    assert door.browser("203.0.113.1").log_in().status_code == 303


def test_a_guesser_behind_the_same_address_locks_nobody_out_who_was_here_before(door: Door, person: Browser) -> None:
    guesser = door.browser("192.0.2.1")
    for _ in range(FREE + 3):
        guesser.log_in(WRONG)
    assert guesser.log_in(WRONG).status_code == 429
    person.post("/logout")
    assert person.log_in().status_code == 303


def test_a_known_browser_is_slowed_as_well(door: Door, person: Browser) -> None:
    person.post("/logout")
    statuses = [person.log_in(WRONG).status_code for _ in range(FREE + 1)]
    assert statuses == [401] * FREE + [429]


def test_a_made_up_device_is_none(door: Door) -> None:
    statuses = []
    for number in range(FREE + 1):
        guesser = door.browser("192.0.2.9")
        guesser.client.set_cookie("bridge_device", f"{number:A>43}")
        statuses.append(guesser.log_in(WRONG).status_code)
    assert statuses == [401] * FREE + [429]


def test_waits_are_written_down_and_what_was_not_looked_at_is_not(door: Door) -> None:
    guesser = door.browser("192.0.2.9")
    for _ in range(FREE + 5):
        guesser.log_in(WRONG)
    reasons = [entry.what["reason"] for entry in door.site.audit_log.entries()]
    assert reasons == ["wrong password; the next attempt waits 1 s", *["wrong password"] * (FREE - 1)]


def test_log_ins_are_written_down_and_no_password_is(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    browser = door.browser("192.0.2.9")
    browser.log_in(WRONG)
    browser.log_in()
    browser.post("/logout")
    told = [(each.action, each.outcome, each.person, each.address) for each in door.site.audit_log.entries()]
    assert told == [
        ("log out", "done", "operator", "192.0.2.9"),
        ("log in", "done", "operator", "192.0.2.9"),
        ("log in", "refused", "nobody", "192.0.2.9"),
    ]
    logged = "".join(capsys.readouterr())
    assert "action='log in'" in logged
    assert WRONG not in logged
    assert PASSWORD not in logged


def test_what_an_action_says_is_shown_once_and_to_its_person_alone(open_door: Callable[..., Door]) -> None:
    door = open_door(ASKING)

    def act() -> str:
        flash("Retried <b>psa</b>. " + "A long sentence. " * 500, "done")
        return ""

    door.app.add_url_rule("/act", "act", act, methods=["POST"])
    person, other = door.browser(), door.browser()
    assert person.log_in().status_code == other.log_in().status_code == 303
    assert person.post("/act").status_code == 200
    headers: dict[str, str]
    for browser, headers in ((other, {}), (person, {"X-Live": "1"})):
        assert "Retried" not in browser.get("/activity", headers=headers).text
    assert 'role="status">Retried &lt;b&gt;psa&lt;/b&gt;. A long' in person.get("/activity").text
    assert "Retried" not in person.get("/activity").text
