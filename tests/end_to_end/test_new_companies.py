"""A new organization gets a company in both PSAs, once, also when the process that makes it is killed or frozen."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import redis

from bridge.demo import scenario
from bridge.organization_sync import BROKE_OFF_AFTER
from tests.conftest import RedisServer
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.test_processes import delivered, leader, of, references, short, stop_all

MakeBridge = Callable[..., Bridge]

#: The organization that no PSA knows, and a report of it.
NEW, NAME, REPORT = 9, "Initech", 2
REFERENCE = f"huntress-org-{NEW}"
CONNECTWISE, AUTOTASK = "/company/companies$", "/Companies$"


def settings(world: World, server: RedisServer) -> dict[str, Any]:
    connectors = short(world)
    connectors["desk"]["company_defaults"] = {"ownerResourceID": 4, "phone": "555-0100"}
    return {
        "redis": {"url": server.url},
        "connectors": connectors,
        "organizations": {"create_companies": ["psa", "desk"]},
    }


def arrives(world: World) -> None:
    with world.huntress.lock:
        world.huntress.organizations[NEW] = scenario.organization(NEW, name=NAME)


def posts(world: World) -> tuple[int, int]:
    """Creates that either PSA received."""
    return len(world.connectwise.requests_to(CONNECTWISE, "POST")), len(world.autotask.requests_to(AUTOTASK, "POST"))


def companies(world: World) -> tuple[list[int], list[int]]:
    """Ids of the companies that either PSA has for the organization."""
    with world.connectwise.lock, world.autotask.lock:
        return (
            [number for number, identifier, _ in world.connectwise.companies if identifier == REFERENCE],
            [int(row["id"]) for row in world.autotask.companies if row.get("companyNumber") == REFERENCE],
        )


def ten_minutes_later(client: redis.Redis) -> None:
    """As the sync sees it."""
    key = "bridge:organizations:sync:at"
    client.set(key, str(float(str(client.get(key))) - BROKE_OFF_AFTER))


def its_tickets_go_there(world: World, bridge: Bridge) -> None:
    ([psa], [desk]) = companies(world)
    world.report(REPORT, NEW)
    wait_until(lambda: delivered(world, references(REPORT, REPORT)), why="the organization's report has its tickets")
    [made] = [each for each in world.connectwise.tickets.values() if each["externalXRef"] == f"huntress-5-{REPORT}"]
    assert made["company"]["id"] == psa
    [made] = [each for each in world.autotask.tickets.values() if each["externalID"] == f"huntress-5-{REPORT}"]
    assert made["companyID"] == desk
    listed = bridge("organizations", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    [row] = [row for row in json.loads(listed.stdout) if row["organization_id"] == NEW]
    places = {place["connector"]: (place["company_id"], place["matched_by"]) for place in row["companies"]}
    assert places == {"psa": (str(psa), "name"), "desk": (str(desk), "name")}


def test_killed_in_mid_create_and_started_again_there_is_one_company_each(
    world: World, make_bridge: MakeBridge, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    arrives(world)
    bridge = make_bridge(world, **settings(world, server))
    # ConnectWise carries out the create that its sender did not survive; Autotask never does.
    world.connectwise.fault("late", method="POST", path=CONNECTWISE, delay=2, times=1)
    world.autotask.fault("hang", method="POST", path=AUTOTASK, delay=60, times=1)
    for made in ((1, 0), (1, 1)):
        process = bridge.start("run")
        wait_until(lambda made=made: posts(world) == made, why=f"creates under way: {made}")  # type: ignore[misc]
        bridge.kill(process)
        wait_until(lambda: len(companies(world)[0]) == 1, why="ConnectWise carried it out")
        with server.client() as client:
            ten_minutes_later(client)
    bridge.start("run")
    wait_until(lambda: companies(world)[1], why="Autotask has the company")
    its_tickets_go_there(world, bridge)
    stop_all(bridge)
    assert posts(world) == (1, 2)
    assert [len(each) for each in companies(world)] == [1, 1]


def test_two_pollers_make_one_company_each_also_when_the_one_that_leads_is_frozen(
    world: World, make_bridge: MakeBridge, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server("--appendonly", "yes")
    world.report(1)
    arrives(world)
    bridge = make_bridge(world, **settings(world, server))
    world.connectwise.fault("late", method="POST", path=CONNECTWISE, delay=2, times=1)
    for role in ("poller", "poller", "worker"):
        bridge.start(role)
    wait_until(lambda: posts(world) == (1, 0), why="a create is under way")
    with server.client() as client:
        former = of(bridge, leader(client, "poller"))
        former.send_signal(signal.SIGSTOP)
        wait_until(lambda: leader(client, "poller") not in (0, former.pid), why="the other poller leads")
        ten_minutes_later(client)
        wait_until(lambda: companies(world)[1], why="the other poller makes what is missing")
        former.send_signal(signal.SIGCONT)
        wait_until(lambda: delivered(world, references(1, 1)), why="the first report has its tickets")
        its_tickets_go_there(world, bridge)
        stop_all(bridge)
    assert posts(world) == (1, 1)
    assert [len(each) for each in companies(world)] == [1, 1]
