"""`run --once` from nothing to tickets, again, and with the store lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import Bridge, World

MakeBridge = Callable[..., Bridge]


def references(world: World, count: int, first: int = 1) -> set[str]:
    return {f"huntress-5-{number}" for number in range(first, first + count)}


def assert_once_each(world: World, wanted: set[str]) -> None:
    assert dict(world.connectwise_references()) == dict.fromkeys(wanted, 1)
    assert dict(world.autotask_references()) == dict.fromkeys(wanted, 1)


def test_twelve_reports_of_three_organizations(world: World, make_bridge: MakeBridge) -> None:
    world.reports(12)
    bridge = make_bridge(world)
    wanted = references(world, 12)

    first = bridge("run", "--once")
    assert first.returncode == 0, first.stdout + first.stderr
    assert_once_each(world, wanted)
    assert dict(world.mail_references()) == dict.fromkeys(wanted, 1)
    for ticket in world.connectwise.tickets.values():
        number = int(ticket["externalXRef"].rsplit("-", 1)[1])
        assert ticket["company"]["id"] == 1000 + (number - 1) % 3 + 1
        assert ticket["summary"].startswith(world.huntress.reports[number]["subject"])
    for ticket in world.autotask.tickets.values():
        number = int(ticket["externalID"].rsplit("-", 1)[1])
        assert ticket["companyID"] == 2000 + (number - 1) % 3 + 1

    states = {(row["report_id"], row["connector"]): row for row in bridge.deliveries()}
    assert len(states) == 36
    assert {row["state"] for row in states.values()} == {"created"}
    assert all(row["ticket_url"] for (_, name), row in states.items() if name != "oncall")
    assert states[(1, "desk")]["ticket_number"].startswith("T")

    again = bridge("run", "--once")
    assert again.returncode == 0, again.stdout + again.stderr
    assert_once_each(world, wanted)
    assert dict(world.mail_references()) == dict.fromkeys(wanted, 1)

    shutil.rmtree(bridge.data_dir)
    lost = bridge("run", "--once")
    assert lost.returncode == 0, lost.stdout + lost.stderr
    assert_once_each(world, wanted)
    assert {row["state"] for row in bridge.deliveries()} == {"created"}


def test_an_end_that_has_to_wait_is_waited_for_and_one_that_is_not_told_is_said(
    world: World, make_bridge: MakeBridge
) -> None:
    world.reports(2)
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    assert bridge("run", "--once").returncode == 0
    for number, times, wait, code in ((1, 1, "60", 0), (2, None, "4", 1)):
        with world.huntress.lock:
            world.huntress.reports[number]["status"] = "closed"
        world.connectwise.fault("status", method="GET", path="/tickets/[0-9]+$", status=503, times=times)
        done = bridge("run", "--once", "--wait", wait)
        assert done.returncode == code, done.stdout + done.stderr
    assert "telling the ticket that its report is over waits" in done.stdout
    assert [row["state"] for row in sorted(bridge.deliveries(), key=lambda row: row["report_id"])] == [
        "closed",
        "created",
    ]


@pytest.mark.parametrize("pagination", ["token", "next_page", "total_pages"])
def test_every_form_of_paging_is_read_to_its_end(world: World, make_bridge: MakeBridge, pagination: str) -> None:
    world.huntress.pagination = pagination  # type: ignore[assignment]
    world.huntress.page_size_cap = 5
    world.reports(12)
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    assert bridge("run", "--once").returncode == 0
    assert dict(world.connectwise_references()) == dict.fromkeys(references(world, 12), 1)


def test_the_reports_dialect_over_thirty_organizations(
    make_world: Callable[..., World], make_bridge: MakeBridge
) -> None:
    world = make_world(30, "reports")
    world.huntress.page_size_cap = 25
    world.reports(60, organizations=30)
    bridge = make_bridge(world, huntress=world.huntress.settings(dialect="reports"))
    done = bridge("run", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = references(world, 60)
    assert_once_each(world, wanted)
    for ticket in world.connectwise.tickets.values():
        number = int(ticket["externalXRef"].rsplit("-", 1)[1])
        assert ticket["company"]["id"] == 1000 + (number - 1) % 30 + 1
    assert {row["organization_id"] for row in bridge.deliveries()} == set(range(1, 31))


def test_auto_finds_the_reports_dialect(make_world: Callable[..., World], make_bridge: MakeBridge) -> None:
    world = make_world(3, "reports")
    world.reports(3)
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    assert bridge("run", "--once").returncode == 0
    assert len(world.connectwise.tickets) == 3


def test_a_dry_run_says_what_it_would_make_and_writes_nothing(world: World, make_bridge: MakeBridge) -> None:
    world.reports(3)
    bridge = make_bridge(world)
    rehearsal = bridge("run", "--once", "--dry-run")
    assert rehearsal.returncode == 0, rehearsal.stderr
    assert rehearsal.stdout.count(": create;") == 9
    assert "company: Organization 2" in rehearsal.stdout
    assert not bridge.data_dir.exists()
    assert not world.connectwise.tickets
    assert not world.autotask.tickets
    assert not world.mailbox.messages
    assert {request.method for request in world.huntress.received} == {"GET"}


def test_waiting_is_exit_code_1_and_wrong_credentials_are_2(world: World, make_bridge: MakeBridge) -> None:
    world.reports(1)
    bridge = make_bridge(world)
    world.autotask.fault("status", method="POST", path="/Tickets$", status=503, times=None)
    waits = bridge("run", "--once", "--wait", "3")
    assert waits.returncode == 1
    assert "report 1 to desk" in waits.stdout
    bridge.write(huntress=world.huntress.settings(api_secret="wrong"))
    refused = bridge("run", "--once", "--wait", "3")
    assert refused.returncode == 2
    assert "huntress.api_key" in refused.stdout + refused.stderr or "api_key" in refused.stdout + refused.stderr


def test_not_before_only_and_disabled_leave_reports_alone(world: World, make_bridge: MakeBridge) -> None:
    world.report(1, 1, sent_at="2026-01-01T00:00:00Z")
    world.report(2, 1, sent_at="2026-11-01T00:00:00Z")
    world.report(3, 2, sent_at="2026-11-01T00:00:00Z")
    world.report(4, 3, sent_at="2026-11-01T00:00:00Z")
    bridge = make_bridge(
        world,
        connectors=world.connectors("psa"),
        poll={"interval": 1, "not_before": "2026-10-01"},
        organizations={"only": [1, 2], "disabled": [2]},
    )
    assert bridge("run", "--once").returncode == 0
    assert set(world.connectwise_references()) == {"huntress-5-2"}
