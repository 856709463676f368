"""The pretend servers' base, over real sockets: everything else is judged by it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from bridge.demo.server import Fault, FaultKind, PretendServer, Received, Reply, Unrest


class Echo(PretendServer):
    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []
        self.route("GET", r"/things/(\d+)", lambda _, number: Reply(200, {"thing": int(number)}))
        self.route("POST", r"/things", self.make)
        self.route("GET", r"/broken", lambda _: Reply(1 // 0))
        self.route("GET", r"/text", lambda _: Reply(200, "plain", {"X-Mark": "1"}))

    def make(self, request: Received) -> Reply:
        self.made.append(request.json)
        return Reply(201, {"made": len(self.made)})


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture
def client() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_routes_and_log(echo: Echo, client: requests.Session) -> None:
    assert client.get(f"{echo.url}/things/7?a=1&b=x%20y&c=").json() == {"thing": 7}
    assert client.post(f"{echo.url}/things", json={"name": "é"}, headers={"X-Key": "k"}).status_code == 201
    assert client.get(f"{echo.url}/nowhere%20else").status_code == 404
    assert client.delete(f"{echo.url}/things/7").status_code == 405
    text = client.get(f"{echo.url}/text")
    assert (text.text, text.headers["x-mark"]) == ("plain", "1")

    seen = echo.received
    assert [(r.method, r.path) for r in seen[:3]] == [
        ("GET", "/things/7"),
        ("POST", "/things"),
        ("GET", "/nowhere else"),
    ]
    assert seen[0].query == {"a": "1", "b": "x y", "c": ""}
    assert (seen[1].json, seen[1].headers["x-key"]) == ({"name": "é"}, "k")
    assert seen[2].target == "/nowhere%20else"
    assert echo.requests_to("/things", "POST") == [seen[1]]
    assert len(echo.requests_to("^/things")) == 3


def test_a_failing_handler_answers_500_and_is_remembered(echo: Echo, client: requests.Session) -> None:
    assert client.get(f"{echo.url}/broken").status_code == 500
    assert "ZeroDivisionError" in echo.handler_errors[0]


def test_keep_alive_uses_one_connection(echo: Echo) -> None:
    with socket.create_connection(echo.url.removeprefix("http://").split(":")) as raw:  # type: ignore[arg-type]
        for number in (1, 2):
            raw.sendall(f"GET /things/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert f'"thing": {number}'.encode() in raw.recv(4096)


def test_without_keep_alive_each_request_connects(echo: Echo, client: requests.Session) -> None:
    echo.keep_alive, echo.handshake = False, 0.2
    began = time.monotonic()
    answers = [client.get(f"{echo.url}/things/7") for _ in range(2)]
    assert [answer.headers["connection"] for answer in answers] == ["close", "close"]
    assert time.monotonic() - began >= 0.4


def test_large_bodies(echo: Echo, client: requests.Session) -> None:
    text = "x" * 5_000_000
    assert client.post(f"{echo.url}/things", json=text).status_code == 201
    assert echo.made == [text]


@pytest.mark.parametrize(
    ("kind", "commits", "seen"),
    [
        ("drop", 0, requests.ConnectionError),
        ("commit_drop", 1, requests.ConnectionError),
        ("hang", 0, requests.ConnectionError),
        ("status", 0, 503),
        ("commit_status", 1, 503),
        ("late", 1, 201),
        ("garbage", 0, 200),
        ("trickle", 1, 201),
    ],
)
def test_faults(echo: Echo, client: requests.Session, kind: FaultKind, commits: int, seen: Any) -> None:
    fault = echo.fault(kind, method="POST", path="things", status=503, delay=0.0005, headers={"Retry-After": "7"})
    assert client.get(f"{echo.url}/things/1").status_code == 200, "the method does not match"

    if isinstance(seen, int):
        answer = client.post(f"{echo.url}/things", json=1)
        assert answer.status_code == seen
        assert (answer.headers.get("Retry-After") == "7") == (kind in ("status", "commit_status", "garbage"))
        if kind == "garbage":
            with pytest.raises(requests.JSONDecodeError):
                answer.json()
    else:
        with pytest.raises(seen):
            client.post(f"{echo.url}/things", json=1)

    assert len(echo.made) == commits
    assert (fault.times, fault.met) == (0, 1)
    assert client.post(f"{echo.url}/things", json=2).status_code == 201, "the fault is used up"


def test_what_was_asked_for_may_be_done_after_the_connection_was_lost(echo: Echo, client: requests.Session) -> None:
    echo.fault("drop_commit", method="POST", path="things", delay=1)
    with pytest.raises(requests.ConnectionError):
        client.post(f"{echo.url}/things", json=1)
    assert echo.made == []
    deadline = time.monotonic() + 10
    while not echo.made and time.monotonic() < deadline:
        time.sleep(0.01)
    assert echo.made == [1]


def test_a_fault_without_times_lasts_and_the_first_match_wins(echo: Echo, client: requests.Session) -> None:
    echo.faults = [Fault("status", path="^/text$", status=418), Fault("status", status=500, times=None)]
    assert [client.get(f"{echo.url}/text").status_code for _ in range(3)] == [418, 500, 500]


def test_unrest_strikes_at_random_and_the_same_with_the_same_seed(echo: Echo, client: requests.Session) -> None:
    def ask() -> str:
        try:
            return str(client.get(f"{echo.url}/text").status_code)
        except requests.ConnectionError:
            return "reset"

    seen = []
    for seed in (1, 1, 2):
        echo.unrest = Unrest(0.5, seed)
        seen.append([ask() for _ in range(60)])
        assert echo.unrest.met == sum(answer != "200" for answer in seen[-1])
        assert 15 < echo.unrest.met < 45
    assert seen[0] == seen[1] != seen[2]
    assert set(seen[0]) == {"200", "reset", "429", "500", "503"}
    echo.faults = [Fault("status", status=418)]
    echo.unrest = Unrest(1, 1)
    assert (ask(), echo.unrest.met) == ("418", 0), "a fault that is meant for the request comes first"
    echo.unrest = None
    assert ask() == "200"


def test_a_drop_is_a_reset(echo: Echo) -> None:
    echo.fault("drop")
    with socket.create_connection(echo.url.removeprefix("http://").split(":")) as raw:  # type: ignore[arg-type]
        raw.sendall(b"GET /text HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


def test_latency_is_served_side_by_side(echo: Echo) -> None:
    echo.latency = 0.2
    started = time.monotonic()
    threads = [threading.Thread(target=requests.get, args=(f"{echo.url}/text",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.2 <= time.monotonic() - started < 1.2
    assert echo.peak_in_flight > 1


def test_stop_ends_hanging_and_idle_connections_at_once(echo: Echo, client: requests.Session) -> None:
    client.get(f"{echo.url}/text")
    echo.fault("hang", delay=600)
    failed = threading.Event()

    def hangs() -> None:
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{echo.url}/text", timeout=600)
        failed.set()

    thread = threading.Thread(target=hangs)
    thread.start()
    while not echo.requests_to("/text")[1:]:
        time.sleep(0.005)
    started = time.monotonic()
    echo.stop()
    thread.join()
    assert failed.is_set()
    assert time.monotonic() - started < 1
    with pytest.raises(requests.ConnectionError):
        client.get(f"{echo.url}/text")


def test_it_comes_back_on_the_same_port(echo: Echo, client: requests.Session) -> None:
    url = echo.url
    echo.stop()
    echo.stop()
    echo.start()
    assert client.get(f"{url}/text").text == "plain"


def test_wildcard_host_and_advertised_name() -> None:
    servers = [PretendServer("0.0.0.0"), PretendServer("127.0.0.1", advertise="psa.example")]
    try:
        assert servers[0].url.startswith("http://127.0.0.1:")
        assert servers[1].url.startswith("http://psa.example:")
    finally:
        for server in servers:
            server.stop()


def test_tls(tmp_path: Path, client: requests.Session) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with PretendServer(advertise="localhost", tls=context) as server:
        assert client.get(f"{server.url}/x", verify=str(bundle)).status_code == 404
        with pytest.raises(requests.exceptions.SSLError):
            client.get(f"{server.url}/x")
        server.fault("drop")
        with pytest.raises(requests.ConnectionError):
            client.get(f"{server.url}/x", verify=str(bundle))
