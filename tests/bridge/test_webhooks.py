"""Webhooks on a real store and a real socket: what is refused changes nothing, what is taken is taken once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import structlog

from bridge.arrivals import Arrivals
from bridge.demo import scenario
from bridge.demo.run import free_port
from bridge.demo.webhook_sender import SECRET, WebhookSender, payload
from bridge.leadership import Leadership
from bridge.models import DeliveryState, Kind
from bridge.parsing import parse_report
from bridge.poller import WANTED_EVERY, Poller
from bridge.reconcile import LATER
from bridge.settings import ConfigurationError, load
from bridge.web.server import WebServer
from bridge.web.webhooks import LOG_EVERY, PATH, Refusals
from bridge.webhook_signature import TOLERANCE, Refused, sign, signing_key, verify
from bridge.webhooks import LONGEST_BODY, LONGEST_COMMENT, parse
from tests.bridge.stage import Stage, Systems

NOW = 1_772_439_342.0
BODY = b'{"event_type": "incident_report.created"}'
OTHER = "whsec_" + base64.b64encode(b"another key of the same length").decode()


def signed(*, secret: str = SECRET, at: float = NOW, body: bytes = BODY, **changes: str) -> dict[str, str]:
    headers = WebhookSender("", secret, clock=lambda: at).headers(body, "msg_1")
    return headers | {f"svix-{name}": value for name, value in changes.items()}


# The signature


def test_the_scheme_is_the_documented_one() -> None:
    """Key, signed text and encoding, spelled out; the example's key and message are Svix' own."""
    secret, key = "whsec_plJ3nmyCDGBKInavdOK15jsl", base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    body = b'{"event_type":"ping","data":{"success":true}}'
    text = b"msg_loFOjxBNrRLzqYUf.1731705121." + body
    expected = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert sign(signing_key(secret), "msg_loFOjxBNrRLzqYUf", "1731705121", body) == expected
    assert expected == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


@pytest.mark.parametrize(
    "headers",
    [
        signed(),
        signed(at=NOW - TOLERANCE),
        signed(at=NOW + TOLERANCE),
        signed(signature=f"v1,AAAA v1a,xyz {signed()['svix-signature']}"),
        signed(signature=f"{signed()['svix-signature']} {signed(secret=OTHER)['svix-signature']}"),
    ],
    ids=["now", "just old enough", "just young enough", "among others", "while the secret is replaced"],
)
def test_a_genuine_message_is_known_by_its_id(headers: dict[str, str]) -> None:
    assert verify(headers, BODY, SECRET, NOW) == "msg_1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        (signed(id=""), 400),
        (signed(id="msg.1"), 400),
        (signed(id="m" * 129), 400),
        (signed(timestamp="soon"), 400),
        (signed(timestamp="١٢٣"), 400),
        (signed(timestamp="-1"), 400),
        (signed(at=NOW - TOLERANCE - 1), 400),
        (signed(at=NOW + TOLERANCE + 1), 400),
        (signed(signature=""), 401),
        (signed(signature="v1,"), 401),
        (signed(signature="v1,ünïcode"), 401),
        (signed(signature=signed()["svix-signature"][:-1]), 401),
        (signed(signature=signed()["svix-signature"].removeprefix("v1,")), 401),
        (signed(signature=signed()["svix-signature"].replace("v1,", "v2,")), 401),
        (signed(signature=signed(body=BODY + b" ")["svix-signature"]), 401),
        (signed(timestamp=str(int(NOW) - 1)), 401),
        (signed(id="msg_2"), 401),
        (signed(secret=OTHER), 401),
    ],
)
def test_what_is_not_genuine_is_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(Refused) as refused:
        verify(headers, BODY, SECRET, NOW)
    assert refused.value.status == status
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!", "cGxhaW4=", "whsec_YWJj\u00fc", "unreadable"])
def test_a_secret_that_is_none_is_refused_with_its_key_and_never_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(None, {"BRIDGE_CONFIG": "", "BRIDGE_WEBHOOKS__SECRET": secret})
    assert str(refused.value).startswith("webhooks.secret (BRIDGE_WEBHOOKS__SECRET) is no webhook's signing secret")
    assert "Huntress portal" in str(refused.value)
    assert secret == "whsec_" or secret not in str(refused.value)


# The event


def body(event_type: str = "incident_report.created", number: int = 1, **fields: Any) -> bytes:
    raw = scenario.incident(number, scenario.organization(1), scenario.agent(1, 1))
    return json.dumps(payload(event_type, raw) | fields).encode()


def test_a_created_event_is_the_report_as_a_listing_shows_it_but_for_what_webhooks_leave_out() -> None:
    raw = scenario.incident(1, scenario.organization(1), scenario.agent(1, 1))
    listed = parse_report(raw)
    event = parse("msg_1", body())
    assert event.report == replace(listed, remediations=(), remediations_total=0, created_at=listed.sent_at)
    assert event.report.indicator_types == listed.indicator_types != ()
    assert (event.kind, event.account_id, event.open, event.wants_poll) == (Kind.INCIDENT_REPORT, 5, True, True)


@pytest.mark.parametrize(
    ("fields", "open"),
    [
        ({"status": "sent"}, True),
        ({"status": "auto_remediating"}, True),
        ({"status": None}, True),
        ({"status": "closed"}, False),
        ({"status": "dismissed"}, False),
        ({"status": "draft"}, False),
        ({"sent_at": None}, False),
    ],
)
def test_an_event_s_report_is_open_when_a_listing_would_say_so(fields: dict[str, Any], open: bool) -> None:
    assert parse("msg_1", body(**fields)).open is open


@pytest.mark.parametrize(
    ("raw", "kind", "wants_poll"),
    [
        ({"event_type": "escalation.created", "id": 3, "organizations": []}, Kind.ESCALATION, True),
        ({"event_type": "platform_action.overdue", "id": 3, "message": "late"}, Kind.PLATFORM_ACTION, True),
        ({"event_type": "platform_action.notification", "id": "n1", "subject": "x"}, Kind.PLATFORM_ACTION, False),
        ({"event_type": "account_notice.notification", "id": "n1", "subject": "x\nlevel=error"}, None, False),
        ({"event_type": "something.new"}, None, False),
    ],
)
def test_events_of_other_kinds_are_known_by_their_type(
    raw: dict[str, Any], kind: Kind | None, wants_poll: bool
) -> None:
    event = parse("msg_1", json.dumps(raw).encode())
    assert (event.kind, event.wants_poll, event.report, event.open) == (kind, wants_poll, None, False)
    assert "\n" not in event.subject


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"event_type": null}',
        b'{"event_type": "incident_report.created"}',
        b'{"event_type": "incident_report.created", "id": "one"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_event_is_refused(garbage: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse("msg_1", garbage)
    assert refused.value.status == 422


def test_a_comment_is_cleaned_and_kept_up_to_a_length() -> None:
    event = parse("msg_1", body("incident_report.comment_added", comment=" see \u202e\x00this\r\n" + "x" * 30_000))
    assert event.comment.startswith("see this\nxxx")
    assert len(event.comment) <= LONGEST_COMMENT
    assert "more in the Huntress portal" in event.comment


# The server


class Web:
    """The page of a stage's process on a port of its own, and a sender that knows it."""

    def __init__(self, stage: Stage, systems: Systems) -> None:
        self.stage = stage
        self.systems = systems
        self.store = stage.store
        self.server = WebServer(stage.runtime)
        self.port = stage.runtime.settings.web.port
        self.sender = WebhookSender(f"http://127.0.0.1:{self.port}{PATH}")

    def raw(self, number: int, **fields: Any) -> dict[str, Any]:
        return scenario.incident(number, scenario.organization(1), scenario.agent(1, 1), **fields)

    def send(self, number: int = 1, event_type: str = "incident_report.created", **more: Any) -> int:
        return self.sender.send(event_type, self.raw(number), **more)

    def keys(self) -> dict[str, bytes]:
        """Everything in the store."""
        client = self.store.client
        return {str(key): client.dump(key) for key in client.keys("*")}  # type: ignore[misc]


@pytest.fixture
def make(redis_url: str, tmp_path: Path, systems: Systems) -> Iterator[Callable[..., Web]]:
    with contextlib.ExitStack() as stack:

        def make(*, url: str = redis_url, connectors: dict[str, Any] | None = None, **tables: Any) -> Web:
            tables = {"web": {"port": free_port(0)}, "webhooks": {"secret": SECRET}} | tables
            named = connectors or {name: systems.table(name) for name in ("psa", "desk")}
            stage = stack.enter_context(Stage(url, tmp_path, systems, named, **tables))
            web = Web(stage, systems)
            stopping = threading.Event()
            thread = threading.Thread(target=lambda: web.server.serve(stopping))
            thread.start()
            stack.callback(thread.join)
            stack.callback(stopping.set)
            return web

        yield make


@pytest.fixture
def web(make: Callable[..., Web]) -> Web:
    return make()


def test_a_created_event_makes_the_deliveries_at_once_and_the_poll_makes_no_more(web: Web) -> None:
    assert web.send() == 204
    assert {web.stage.delivery(1, name).state for name in ("psa", "desk")} == {DeliveryState.PENDING}
    assert web.store.open_reports() == 1
    assert web.stage.work()
    web.systems.huntress.reports[1] = web.raw(1)
    poller(web).cycle()
    web.stage.wait(30)
    for name in ("psa", "desk"):
        assert web.systems.psa(name).references() == {"huntress-5-1": 1}
        assert web.stage.delivery(1, name).state is DeliveryState.CREATED
    report = web.store.report(1)
    assert report is not None
    assert report.remediations, "the poller's snapshot took the place of the webhook's"


def poller(web: Web) -> Poller:
    runtime = web.stage.runtime
    leadership = Leadership(web.store, "poller", patience=1e9)
    assert leadership.attempt()
    return Poller(
        web.store, runtime.books, lambda: runtime.assembly.source, lambda: runtime.settings, runtime.routes, leadership
    )


def test_a_report_that_the_poller_knows_keeps_its_snapshot(web: Web) -> None:
    web.systems.huntress.reports[1] = web.raw(1)
    poller(web).cycle()
    before = web.store.client.hgetall(web.store.key("report:1"))
    assert web.send(severity="low", subject="another") == 204
    assert web.store.client.hgetall(web.store.key("report:1")) == before
    assert Arrivals(web.store).polling_wanted() is not None


@pytest.mark.parametrize("fields", [{"status": "closed"}, {"status": "draft"}, {"sent_at": None}])
def test_what_a_listing_would_not_show_as_open_waits_for_the_poll(web: Web, fields: dict[str, Any]) -> None:
    assert web.send(**fields) == 204
    assert web.store.delivery(1, "psa") is None
    assert web.store.report(1) is None
    assert Arrivals(web.store).polling_wanted() is not None


def test_routing_is_that_of_the_poller(make: Callable[..., Web], systems: Systems) -> None:
    only = {"indicator_types": ["footholds"]}
    web = make(connectors={"psa": systems.table("psa", only=only), "desk": systems.table("desk")})
    assert web.send(indicator_counts={}) == 204
    assert web.store.report(1) is None, "where indicators decide and are not told, the poll decides"
    assert web.send(2, indicator_counts={"footholds": 1}) == 204
    assert web.store.delivery(2, "psa") is not None


def test_an_organization_that_is_not_served_gets_no_ticket(make: Callable[..., Web]) -> None:
    web = make(organizations={"disabled": [1]})
    assert web.send() == 204
    assert web.store.report(1) is None


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"secret": OTHER}, 401),
        ({"ago": TOLERANCE + 5}, 400),
        ({"ago": -TOLERANCE - 5}, 400),
        ({"body": b"[]"}, 422),
        ({"body": b'{"event_type": "incident_report.created", "id": 0}'}, 422),
        ({"body": body(account={"id": 6, "name": "Other MSP"})}, 422),
    ],
    ids=["wrong signature", "old", "ahead", "no event", "no id", "another account"],
)
def test_what_is_refused_changes_nothing(web: Web, how: dict[str, Any], status: int) -> None:
    before = web.keys()
    ago = how.get("ago", 0.0)
    sender = WebhookSender(web.sender.url, how.get("secret", SECRET), clock=lambda: time.time() - ago)
    content = how.get("body", body())
    assert sender.post(content, sender.headers(content)) == status
    assert web.keys() == before


def test_a_replayed_message_is_refused_and_changes_nothing(web: Web) -> None:
    content = body("incident_report.comment_added", comment="first")
    headers = web.sender.headers(content, "msg_1")
    assert web.sender.post(content, headers) == 204
    before = web.keys()
    assert web.sender.post(content, headers) == 409
    assert web.keys() == before
    again = web.sender.headers(content, "msg_1")  # the sender's own repetition: signed anew, same id
    assert web.sender.post(content, again) == 409
    mark = next(key for key in before if ":webhook:" in key)
    left = web.store.client.pttl(mark)
    assert 2 * TOLERANCE - 60 < left / 1000 <= 2 * TOLERANCE
    web.store.client.delete(mark)  # its time is over
    assert web.sender.post(content, web.sender.headers(content, "msg_1")) == 204
    assert len(web.stage.delivery(1, "psa").todo) == 1, "even taken twice, a comment is one"


def test_a_script_that_runs_twice_because_its_answer_was_lost_is_no_replay(web: Web) -> None:
    script, lost = web.store.script, []

    def twice(name: str, *arguments: object, client: Any = None) -> Any:
        lost.append(script(name, *arguments, client=client))
        return script(name, *arguments, client=client)

    web.store.script = twice  # type: ignore[method-assign]
    event = parse("msg_1", body("incident_report.comment_added", comment="once"))
    assert Arrivals(web.store).arrive(event, web.stage.runtime.routes()) == "known"
    assert lost == ["new"]
    assert len(web.stage.delivery(1, "psa").todo) == 1


def test_an_endless_body_is_cut_off_before_anything_is_done(web: Web) -> None:
    before = web.keys()
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {LONGEST_BODY + 1}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 "), "answered without waiting for the body"
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk, sent = b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 0
        with contextlib.suppress(OSError):
            while sent < 100 * len(chunk):
                connection.sendall(chunk)
                sent += len(chunk)
            pytest.fail(f"{sent} bytes were taken")
    assert web.keys() == before


def test_without_a_secret_there_are_no_webhooks(make: Callable[..., Web]) -> None:
    web = make(webhooks={"secret": ""})
    assert web.send() == 404
    assert web.store.report(1) is None


def test_a_changed_secret_file_counts_without_a_restart(make: Callable[..., Web], tmp_path: Path) -> None:
    secret = tmp_path / "signing-secret"
    secret.write_text(SECRET + "\n")
    web = make(webhooks={"secret_file": str(secret)})
    assert web.send(1) == 204
    secret.write_text(OTHER)
    assert web.stage.runtime.reload()
    assert web.send(2) == 401
    web.sender.secret = OTHER
    assert web.send(2) == 204


def test_without_a_known_account_or_a_store_the_sender_is_to_try_again(
    make: Callable[..., Web], make_redis_server: Callable[..., Any]
) -> None:
    server = make_redis_server()
    web = make(url=server.url)
    web.store.client.hdel(web.store.key("meta"), "account_id")
    web.store._remembered.clear()
    assert web.send() == 503
    assert web.store.report(1) is None
    web.store.remember({"account_id": "5"})
    server.kill()
    began = time.monotonic()
    assert web.send() == 503
    assert time.monotonic() - began < 5
    server.start()
    assert web.send() == 204
    assert web.store.report(1) is not None, "after Redis came back empty as well"


def test_refusals_do_not_fill_the_log() -> None:
    now = 0.0
    refusals = Refusals(clock=lambda: now)
    with structlog.testing.capture_logs() as logged:
        for _ in range(1000):
            refusals.log(Refused(401, "why"), now)
        refusals.log(Refused(400, "why"), now)
        now = LOG_EVERY
        refusals.log(Refused(401, "why"), now)
    assert [(each["status"], each["not_logged_before"]) for each in logged] == [(401, 0), (400, 0), (401, 999)]


def test_no_answer_shows_the_secret_or_the_body(web: Web) -> None:
    answer = requests.post(web.sender.url, data=b"attacker's words", headers=signed(at=time.time()), timeout=10)
    assert answer.status_code == 401
    assert answer.text == "refused: its signature is missing, or not made with [webhooks] secret\n"


# Comments


@pytest.mark.parametrize("when", ["before the ticket", "after it"])
@pytest.mark.parametrize("name", ["psa", "desk"])
def test_each_comment_becomes_one_note(web: Web, name: str, when: str) -> None:
    psa = web.systems.psa(name)
    assert web.send() == 204
    if when == "after it":
        web.stage.wait(30)
    for number in (1, 2):
        text = f"Comment {number}\n[huntress-5-1/details]"  # as if it were a note of ours
        assert web.send(1, "incident_report.comment_added", comment=text, message_id=f"msg_c{number}") == 204
    web.stage.wait(30)
    ticket = psa.ids(1)
    assert len(ticket) == 1
    notes = [note for note in psa.notes(ticket[0]) if "> Comment" in note]
    assert [f"> Comment {number}" in note for number, note in enumerate(notes, 1)] == [True, True], notes
    assert all("[huntress-5-1/details]" not in note for note in notes), "no text passes for the marker of another note"
    assert set(web.stage.delivery(1, name).todo) <= LATER


def test_a_comment_that_comes_while_another_is_told_is_told_next(web: Web) -> None:
    assert web.send() == 204
    web.stage.wait(30)
    psa = web.systems.psa("psa")
    assert web.send(1, "incident_report.comment_added", comment="first") == 204
    later: list[int] = []

    def meanwhile(request: Any) -> None:
        if request.method == "POST" and "first" in request.body.decode() and not later:
            later.append(web.send(1, "incident_report.comment_added", comment="second"))

    web.systems.connectwise.meanwhile = meanwhile
    web.stage.wait(30)
    assert later == [204]
    assert sum("> second" in note for note in psa.notes(psa.ids(1)[0])) == 1
    assert set(web.stage.delivery(1).todo) <= LATER


def test_a_comment_before_anything_else_is_in_the_ticket_that_the_poll_makes(web: Web) -> None:
    more = {"status": "draft", "comment": "early"}  # nothing that makes a ticket by itself
    assert web.send(1, "incident_report.comment_added", **more) == 204
    assert web.store.delivery(1, "psa") is None
    web.systems.huntress.reports[1] = web.raw(1)
    poller(web).cycle()
    web.stage.wait(30)
    psa = web.systems.psa("psa")
    assert sum("> early" in note for note in psa.notes(psa.ids(1)[0])) == 1


# The poller


class Skipping(threading.Event):
    """Instead of waiting, moves the store's clock on."""

    def __init__(self, web: Web) -> None:
        super().__init__()
        self.store = web.store
        #: Seconds, without those that really went by.
        self.waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        self.store.clock_offset += timeout or 0.0
        return self.is_set()


@pytest.mark.parametrize(
    ("before", "during", "rested"),
    [([], [], 300.0), ([1], [], 300.0), ([], [1], WANTED_EVERY), ([1], [2, 3], WANTED_EVERY)],
    ids=["nothing came", "the cycle saw it", "it came since", "several came since"],
)
def test_events_bring_the_next_poll_forward_but_to_one_in_ten_seconds(
    make: Callable[..., Web], before: list[int], during: list[int], rested: float
) -> None:
    web = make(poll={"interval": 300})
    polling = poller(web)
    assert [web.send(number) for number in before] == [204] * len(before)
    web.store.clock_offset += 1
    started = web.store.now()
    web.store.clock_offset += 0.5
    assert [web.send(number) for number in during] == [204] * len(during)
    skipping = Skipping(web)
    polling._rest(skipping, started)
    assert web.store.now() - started >= rested - 2
    assert skipping.waited <= rested + 1
