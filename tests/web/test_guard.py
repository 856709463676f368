"""Everything is refused but to those who may: every address of the page, every method, every way of coming."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from werkzeug.test import TestResponse

from bridge.web.guard import PUBLIC
from tests.web.door import ASKING, BEHIND, LOCAL, TOKEN, Browser, Door

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
CHANGING = METHODS[3:]
MONITORED = {"/status", "/metrics"}


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door(ASKING)


def addresses(door: Door) -> Iterator[tuple[str, str]]:
    """Every endpoint with an address; what stands in angle brackets is made up."""
    adapter = door.app.url_map.bind("localhost")
    for rule in door.app.url_map.iter_rules():
        yield (
            rule.endpoint,
            adapter.build(rule.endpoint, dict.fromkeys(rule.arguments, "1"), method=min(rule.methods or ())),
        )


def guarded(door: Door) -> list[str]:
    """Addresses that are not for everybody, and one that does not exist."""
    found = [path for endpoint, path in addresses(door) if endpoint not in PUBLIC]
    assert len(found) > 10
    return [*found, "/no/such/page"]


def unlike(
    paths: list[str], methods: tuple[str, ...], ask: Callable[[str, str], TestResponse], expected: set[int]
) -> list[str]:
    """Requests that were answered otherwise than expected."""
    answers = [(method, path, ask(method, path).status_code) for path in paths for method in methods]
    assert answers
    return [f"{method} {path}: {status}" for method, path, status in answers if status not in expected]


def test_what_anybody_may_ask_for_is_this_and_no_more(door: Door) -> None:
    public = {path for endpoint, path in addresses(door) if endpoint in PUBLIC}
    assert public == {"/healthz", "/readyz", "/static/1", "/webhooks/huntress"}
    stranger = door.browser()
    assert stranger.get("/healthz").text == stranger.get("/readyz").text == "ok\n"
    assert stranger.get("/static/page.css").status_code == 200
    assert stranger.get("/static/..%2fapp.py").status_code == 404
    assert stranger.ask("POST", "/webhooks/huntress", data=b"{}").status_code == 404
    paths = ["/healthz", "/readyz", "/static/page.css"]
    assert unlike(paths, CHANGING, stranger.ask, {401}) == []


def test_without_a_session_every_page_and_action_refuses(door: Door) -> None:
    stranger, before = door.browser(), door.keys()
    for path in guarded(door):
        answer = stranger.get(path)
        if path == "/login":
            assert answer.status_code == 200
        elif path in MONITORED:
            assert (answer.status_code, answer.get_json()["ok"]) == (401, False)
        else:
            assert answer.status_code == 303, path
            assert answer.location.startswith("/login")
    actions = [path for path in guarded(door) if path != "/login"]
    assert unlike(actions, (*CHANGING, "OPTIONS"), stranger.ask, {401}) == []
    assert unlike(actions, ("GET",), lambda method, path: stranger.get(path, headers={"X-Live": "1"}), {401}) == []
    assert door.keys() == before


def test_a_session_that_was_made_up_is_none(door: Door) -> None:
    stranger = door.browser()
    for value in ("A" * 43, "", "x", "../page:audit", "A" * 4000):
        stranger.client.set_cookie("bridge_page", value)
        assert unlike([path for path in guarded(door) if path != "/login"], ("GET",), stranger.ask, {303, 401}) == []


def forgeries(door: Door, person: Browser) -> dict[str, Callable[[str, str], TestResponse]]:
    """Requests of a person's browser that the person did not mean."""
    token, other = person.token(), door.browser().token()
    here = "http://localhost"

    def send(headers: dict[str, str], token: str = token) -> Callable[[str, str], TestResponse]:
        return lambda method, path: person.ask(
            method, path, headers=headers, data={"csrf_token": token} if token else {}
        )

    return {
        "no token": send({}, ""),
        "a token of another browser": send({}, other),
        "a token that is no text of ours": send({}, "\N{SNOWMAN}\x00" * 32),
        "a token of ours, shortened": send({}, token[:-1]),
        "another browser's in the header": send({"X-CSRF-Token": other}),
        "an origin elsewhere": send({"Origin": "https://elsewhere.test"}),
        "an origin nowhere": send({"Origin": "null"}),
        "an origin on another port": send({"Origin": f"{here}:81"}),
        "an origin that is no address": send({"Origin": "http://["}),
        "an origin that starts as ours": send({"Origin": f"{here}.elsewhere.test"}),
        "another site": send({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}),
        "a neighbour": send({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Origin": here}),
    }


@pytest.mark.parametrize("web", [ASKING, LOCAL, {**ASKING, **BEHIND}])
def test_forged_and_cross_site_actions_are_refused_and_do_nothing(
    open_door: Callable[..., Door], web: dict[str, object]
) -> None:
    door = open_door(web)
    person = door.browser()
    if web is not LOCAL:
        assert person.log_in().status_code == 303
    before = deliveries(door)
    for name, ask in forgeries(door, person).items():
        assert unlike(guarded(door), CHANGING, ask, {403}) == [], name
    assert deliveries(door) == before
    assert person.get("/").status_code == 200, "and the person is still there"


def deliveries(door: Door) -> dict[str, bytes]:
    """The store, without what was written down of the refusals."""
    return {key: value for key, value in door.keys().items() if not key.endswith("page:refused")}


def test_refused_actions_of_a_person_are_written_down(door: Door) -> None:
    person = door.browser()
    person.log_in()
    person.ask("POST", "/logout")
    entry = next(door.site.audit_log.entries())
    assert (entry.person, entry.action, entry.outcome) == ("operator", "login.leave", "refused")


@pytest.mark.parametrize("web", [ASKING, LOCAL])
def test_another_sites_name_that_was_pointed_here_is_refused(
    open_door: Callable[..., Door], web: dict[str, object]
) -> None:
    door = open_door(web)
    person = door.browser()
    for base in ("http://rebound.test", "http://localhost.rebound.test:8080", "http://127.0.0.1.rebound.test"):
        ask = lambda method, path, base=base: person.ask(method, path, base=base)  # noqa: E731
        assert unlike(guarded(door), METHODS, ask, {400}) == [], base
    for base in ("http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080", "http://LOCALHOST."):
        assert person.get("/login", base=base).status_code in (200, 303), base


@pytest.mark.parametrize(
    ("web", "host", "known"),
    [
        (LOCAL, "192.0.2.7:8080", False),
        (ASKING, "192.0.2.7:8080", True),
        (ASKING, "[2001:db8::7]", True),
        (ASKING, "page.test", False),
        ({**ASKING, "allowed_hosts": ["Page.Test"]}, "PAGE.test:8443", True),
        ({**ASKING, "allowed_hosts": ["page.test"]}, "sub.page.test", False),
        ({**ASKING, "host": "bridge.test"}, "bridge.test", True),
    ],
)
def test_names_of_the_page(open_door: Callable[..., Door], web: dict[str, object], host: str, known: bool) -> None:
    answer = open_door(web).browser().get("/login", base=f"http://{host}")
    assert (answer.status_code != 400) is known, answer.text


def test_where_nobody_logs_in_a_proxy_opens_the_page_to_nobody(open_door: Callable[..., Door]) -> None:
    door = open_door(LOCAL)
    assert door.browser().get("/").status_code == 200
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        ask = lambda method, path, name=name: door.browser().ask(method, path, headers={name: "x"})  # noqa: E731
        assert unlike(guarded(door), METHODS, ask, {403}) == [], name
    assert door.browser().get("/healthz", headers={"X-Forwarded-For": "x"}).status_code == 200
    webhook = door.browser().ask(
        "POST", "/webhooks/huntress", headers={"X-Forwarded-For": "x"}, base="http://hooks.test"
    )
    assert "[webhooks] secret is empty" in webhook.text, "events come through a proxy, under its name"


def test_parts_of_the_page_are_not_embedded_elsewhere(open_door: Callable[..., Door]) -> None:
    person = open_door(LOCAL).browser()
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert person.get("/", headers=cross | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert person.get("/", headers=cross | {"Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("path", sorted(MONITORED))
def test_a_monitor_needs_the_token(open_door: Callable[..., Door], path: str) -> None:
    door = open_door(ASKING)
    monitor = door.browser()

    def status(authorization: str, method: str = "GET", base: str | None = None) -> int:
        return monitor.ask(method, path, headers={"Authorization": authorization}, base=base).status_code

    right = f"Bearer {TOKEN}"
    assert status(right) in (200, 503)
    assert status(right.lower()[:6] + right[6:]) in (200, 503)
    # A monitor on the same network asks under any name.
    assert status(right, base="http://web:8080") in (200, 503)
    for wrong in ("", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN):
        assert status(wrong) == 401, wrong
    assert status(right, "POST") == 401
    assert monitor.get("/", headers={"Authorization": right}).status_code == 303, "the token is for monitors only"


@pytest.mark.parametrize(("token", "expected"), [("", {200, 503}), (TOKEN, {401})])
def test_status_on_loopback_is_open_unless_a_token_is_set(
    open_door: Callable[..., Door], token: str, expected: set[int]
) -> None:
    assert open_door({"token": token}).browser().get("/status").status_code in expected


def test_with_a_session_every_page_opens(door: Door) -> None:
    person = door.browser()
    person.log_in()
    pages = [
        path for endpoint, path in addresses(door) if endpoint not in PUBLIC and "1" not in path and path != "/logout"
    ]
    assert unlike(pages, ("GET",), person.ask, {200, 303, 405, 503}) == []
    assert person.get("/").status_code == person.get("/activity").status_code == 200


# What a proxy says


@pytest.mark.parametrize(
    ("peer", "headers", "admitted", "address"),
    [
        ("10.0.0.5", {"X-Forwarded-User": "kim"}, True, "10.0.0.5"),
        ("10.0.0.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "192.0.2.1"}, True, "192.0.2.1"),
        ("10.0.0.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "6.6.6.6, 192.0.2.1, 10.0.0.9"}, True, "192.0.2.1"),
        ("10.0.0.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "192.0.2.1:4711"}, True, "192.0.2.1"),
        ("10.0.0.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "<b>, 10.0.0.9"}, True, "10.0.0.9"),
        ("::ffff:10.0.0.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "[2001:db8::1]:9"}, True, "2001:db8::1"),
        ("10.0.0.5", {}, False, ""),
        ("10.0.0.5", {"X-Forwarded-User": ""}, False, ""),
        ("10.0.0.5", {"X-Remote-User": "kim"}, False, ""),
        ("10.0.1.5", {"X-Forwarded-User": "kim"}, False, ""),
        ("10.0.1.5", {"X-Forwarded-User": "kim", "X-Forwarded-For": "10.0.0.5"}, False, ""),
        ("127.0.0.1", {"X-Forwarded-User": "kim"}, False, ""),
    ],
)
def test_who_a_proxy_says_it_is_counts_from_the_proxy_alone(
    open_door: Callable[..., Door], peer: str, headers: dict[str, str], admitted: bool, address: str
) -> None:
    door = open_door(BEHIND)
    browser = door.browser(peer)
    answer = browser.get("/activity", headers=headers, base="http://page.test")
    assert answer.status_code == (200 if admitted else 303)
    if admitted:
        assert "kim" in answer.text
        browser.ask("POST", "/logout", headers=headers, base="http://page.test")
        entry = next(door.site.audit_log.entries())
        assert (entry.person, entry.address) == ("kim", address)


def test_a_proxy_passes_on_name_and_scheme(open_door: Callable[..., Door]) -> None:
    door = open_door(BEHIND)
    said = {"X-Forwarded-User": "kim", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "page.test"}
    browser = door.browser("10.0.0.5")
    first = browser.get("/", headers=said, base="http://10.9.9.9:8080")
    [cookie] = first.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-bridge_page=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert first.headers["Strict-Transport-Security"] == "max-age=31536000"
    for origin, status in (("https://page.test", 303), ("https://10.9.9.9:8080", 403)):
        answer = browser.ask(
            "POST",
            "/logout",
            headers=said | {"Origin": origin, "Cookie": cookie.split(";")[0]},
            base="http://10.9.9.9:8080",
            data={"csrf_token": first.text.split('name="csrf-token" content="')[1][:64]},
        )
        assert answer.status_code == status, origin


def test_two_names_of_one_person_are_none(open_door: Callable[..., Door]) -> None:
    """The proxy did not strip what the client sent."""
    door = open_door(BEHIND)
    client = door.app.test_client()
    headers = [("X-Forwarded-User", "root"), ("X-Forwarded-User", "kim")]
    answer = client.get("/", headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.5"}, base_url="http://page.test")
    assert answer.status_code == 303
