"""The store is backed up and restored as `docs/backup.md` says; an old backup makes no second ticket."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Bridge, World, wait_until

MakeBridge = Callable[..., Bridge]


def copied(source: Path, target: Path) -> None:
    """As `cp --archive` does, without the sockets and locks of a process that runs."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=lambda _, names: [each for each in names if each.endswith(".sock")])


def settled(bridge: Bridge) -> None:
    done = bridge("run", "--once", "--wait", "30")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def bridge(world: World, make_bridge: MakeBridge) -> Bridge:
    for table in (world.connectwise, world.autotask):
        assert table.tickets == {}
    connectors = {
        name: table | ({"settle": 2} if name != "oncall" else {}) for name, table in world.connectors().items()
    }
    return make_bridge(world, connectors=connectors)


def test_a_backup_taken_while_nothing_runs_brings_everything_back(world: World, bridge: Bridge, tmp_path: Path) -> None:
    world.reports(3)
    settled(bridge)
    before = bridge.deliveries()
    copied(bridge.data_dir, tmp_path / "backup")
    shutil.rmtree(bridge.data_dir)
    copied(tmp_path / "backup", bridge.data_dir)
    settled(bridge)
    assert [(each["report_id"], each["connector"], each["ticket_id"]) for each in bridge.deliveries()] == [
        (each["report_id"], each["connector"], each["ticket_id"]) for each in before
    ]
    assert set(world.mail_references().values()) == {1}


def test_an_old_backup_makes_no_second_ticket_and_no_second_note(world: World, bridge: Bridge, tmp_path: Path) -> None:
    world.reports(2)
    settled(bridge)
    copied(bridge.data_dir, tmp_path / "backup")
    world.reports(2, first=3)
    world.report(1, severity="low", updated_at="2099-01-01T00:00:00Z")
    settled(bridge)
    notes = [len(each) for psa in (world.connectwise, world.autotask) for each in psa.notes.values()]
    mails = world.mail_references()
    (told,) = (reference for reference in mails if ".update-" in reference)
    shutil.rmtree(bridge.data_dir)
    copied(tmp_path / "backup", bridge.data_dir)
    settled(bridge)
    assert set(world.connectwise_references().values()) == set(world.autotask_references().values()) == {1}
    assert [len(each) for psa in (world.connectwise, world.autotask) for each in psa.notes.values()] == notes
    again = world.mail_references() - mails
    assert set(again) == {"huntress-5-3", "huntress-5-4", told}, "mail cannot be asked, and goes out once more"
    assert {each["state"] for each in bridge.deliveries()} == {"created"}


def test_a_copy_taken_while_it_runs_can_be_restored(world: World, bridge: Bridge, tmp_path: Path) -> None:
    process = bridge.start("run")
    world.reports(6)
    wait_until(lambda: sum(each["state"] == "created" for each in bridge.deliveries()) >= 6, 30)
    copied(bridge.data_dir, tmp_path / "backup")
    wait_until(lambda: sum(each["state"] == "created" for each in bridge.deliveries()) == 18, 30)
    bridge.stop(process)
    shutil.rmtree(bridge.data_dir)
    copied(tmp_path / "backup", bridge.data_dir)
    settled(bridge)
    assert set(world.connectwise_references().values()) == {1}
    assert set(world.autotask_references().values()) == {1}
    assert len(bridge.deliveries()) == 18
