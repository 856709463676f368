"""What a ticket costs beside its requests: round trips to Redis, connections, messages to the renderer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from bridge import render_guard
from bridge.demo import server
from tests.bridge.stage import MakeStage, Systems
from tests.conftest import RedisServer
from tests.psa import Psa

#: Claim, gate, record, release; and what several turns have in common.
MOST_ROUND_TRIPS = 5
#: Deliveries at the same time, and deliveries.
SLOTS, DELIVERIES = 3, 24


def test_a_ticket_takes_few_round_trips_to_redis(
    make: MakeStage, make_redis_server: Callable[..., RedisServer], systems: Systems
) -> None:
    redis_server = make_redis_server()
    stage = make("psa", url=redis_server.url)
    stage.report(*range(1, 12))
    stage.turn(1)  # it proves that what is made is found, and asks for everything that is kept
    with redis_server.client() as client:
        before = client.info("stats")["total_reads_processed"]
        for number in range(2, 12):
            stage.turn(number)
        asked = client.info("stats")["total_reads_processed"] - before
    assert len(systems.connectwise.tickets) == 11
    assert asked / 10 <= MOST_ROUND_TRIPS, asked


def test_a_ticket_takes_one_message_to_the_process_that_renders(make: MakeStage, systems: Systems) -> None:
    stage = make("psa")
    stage.report(1)
    with mock.patch.object(render_guard._Helper, "ask", autospec=True, side_effect=render_guard._Helper.ask) as ask:
        stage.turn(1)
    assert len(systems.connectwise.tickets) == 1
    assert ask.call_count == 1


def test_requests_share_a_connection_for_each_place(make: MakeStage, psa: Psa) -> None:
    stage = make(psa.name, concurrency=SLOTS)
    stage.report(*range(1, DELIVERIES + 2))
    accept = server._Listener.get_request
    with (
        mock.patch.object(server._Listener, "get_request", autospec=True, side_effect=accept) as accepted,
        ThreadPoolExecutor(SLOTS) as pool,
    ):
        stage.turn(DELIVERIES + 1, psa.name)
        list(pool.map(lambda number: stage.turn(number, psa.name), range(1, DELIVERIES + 1)))
    assert len(psa.references()) == DELIVERIES + 1
    to_psa = [call for call in accepted.call_args_list if call.args[0].pretend is psa.server]
    # The discovery, which needs no credentials, has one of its own.
    assert 1 <= len(to_psa) <= SLOTS + 1
