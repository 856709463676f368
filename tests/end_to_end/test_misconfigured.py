"""What a person got wrong: it is named, it stops nothing else, and what waits goes out by itself once it is mended."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.demo.run import free_port
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.inside import inside

MakeBridge = Callable[..., Bridge]
#: Seconds within which what waits goes out after a mend: a beat to notice it, a probe, a turn, on a busy machine.
MENDED = 12


def references(*numbers: int) -> set[str]:
    return {f"huntress-5-{number}" for number in numbers}


def status(bridge: Bridge) -> tuple[int, dict[str, Any]]:
    answer = requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=5)
    return answer.status_code, answer.json()


def deliveries(bridge: Bridge) -> list[dict[str, Any]]:
    """By the command, in the folder of the configuration, whose files are named relative to it."""
    rows: list[dict[str, Any]] = json.loads(inside("deliveries", "--json", config=bridge.config).stdout)
    return rows


def ready(bridge: Bridge, *arguments: str) -> subprocess.Popen[str]:
    """`run`, once it is ready."""
    process = bridge.start("run", *arguments)
    wait_until(lambda: '"ready"' in bridge.log() or process.poll() is not None, 20)
    assert process.poll() is None, bridge.log()
    return process


def reread(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGHUP)


@pytest.fixture
def closed_port() -> int:
    return free_port(0)


# -- check -------------------------------------------------------------------------------------------------------------


def broken_connectors(world: World, closed: int) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Connector tables with one mistake each, and what `check --online` must say of it."""
    psa, desk, mail = world.connectwise.settings, world.autotask.settings, world.mailbox.settings
    nowhere = f"http://127.0.0.1:{closed}"
    return {
        "psa_key": (
            psa(private_key="not-the-key"),
            ["public_key: ", "401", "Check company_id, public_key and private_key"],
        ),
        "psa_company_id": (
            psa(company_id="nobody"),
            ["company_id: ", "unknown company id", "the one typed in at login"],
        ),
        "psa_board": (psa(board="Securty"), ["board: ", "'Securty'", "There are: ", "“Security”"]),
        "psa_status": (psa(status="Brand new"), ["status: ", "'Brand new'", "on board “Security”", "There are: "]),
        "psa_priority": (
            psa(priorities={"critical": "Priority 0", "high": "Priority 2 - High"}),
            ["priorities.critical: ", "'Priority 0'", "“Priority 1 - Critical”"],
        ),
        "psa_company": (
            psa(default_company="Catch-all"),
            ["default_company: ", "'Catch-all'", "similar are “Catchall”"],
        ),
        "psa_field": (psa(fields={"type": "Securty"}), ["fields.type: ", "'Securty'", "“Security”"]),
        "psa_away": (psa(url=nowhere), [f"127.0.0.1:{closed}", "refused", "cannot be reached", "check its address"]),
        "desk_key": (desk(secret="not-the-secret"), ["secret: ", "401", "check username, secret and integration_code"]),
        "desk_user": (desk(username="nobody@example.com"), ["username: ", "nobody@example.com", "check username"]),
        "desk_queue": (desk(queue="Securty"), ["queue: ", '"Securty"', "choose one of", '"Security" (29683482)']),
        "desk_status": (desk(status="Brand new"), ["status: ", "Brand new", "New"]),
        "desk_priority": (desk(priorities={"high": "Hot"}), ["priorities.high: ", "Hot", "High"]),
        "desk_company": (
            desk(default_company=999),
            ["default_company: ", "id 999 is no active company", "give its id"],
        ),
        "desk_away": (
            desk(zone_url=nowhere),
            [f"127.0.0.1:{closed}", "refused", "cannot be reached", "check its address"],
        ),
        "mail_key": (mail(password="not-the-password"), ["password: ", "535", "check username and password"]),
        "mail_away": (mail(port=closed), [f"127.0.0.1:{closed}", "refused", "cannot be reached", "check its address"]),
    }


def suffixed(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Several connectors that reach one system must differ in this."""
    return table | {"reference_suffix": f"-{name.replace('_', '')}"[:12]}


def test_check_names_every_mistake_at_once_and_what_to_do(
    world: World, make_bridge: MakeBridge, closed_port: int
) -> None:
    world.mailbox.users["bridge@example.com"] = "the-password"
    tables = {name: suffixed(name, table) for name, (table, _) in broken_connectors(world, closed_port).items()}
    bridge = make_bridge(
        world,
        connectors=tables,
        huntress=world.huntress.settings(api_secret="not-the-secret"),
        organizations={"file": "organizations.csv", "only": [1]},
    )
    rows = [
        "organization_id,connector,company",
        "1,psa_board,Acme Corp",
        "1,psa_priority,Acme Inc",
        "2,desk_queue,4711",
    ]
    (bridge.folder / "organizations.csv").write_text("\n".join(rows), encoding="utf-8")
    checked = bridge("check", "--online")
    assert checked.returncode == 1, checked.stdout + checked.stderr
    lines = checked.stdout.splitlines()
    for name, (_, wanted) in broken_connectors(world, closed_port).items():
        told = [line for line in lines if line.startswith((f"connectors.{name}.", f"connectors.{name}:"))]
        assert told, f"nothing about {name}:\n{checked.stdout}"
        assert [line for line in told if all(words in line for words in wanted)], (name, told)
    [huntress] = [line for line in lines if line.startswith("huntress")]
    assert "401" in huntress
    assert "api_key and api_secret" in huntress
    csv = [line for line in lines if line.startswith("organizations.file: line ")]
    assert [line.split(";")[0] for line in csv] == [
        "organizations.file: line 3: psa_priority has no single company 'Acme Inc'",
        "organizations.file: line 4: desk_queue has no single company '4711'",
    ]
    assert lines[-1] == f"{len(lines) - 1} findings"
    assert not checked.stderr


def test_check_of_a_right_configuration_finds_nothing(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    for arguments in (("check",), ("check", "--online")):
        checked = inside(*arguments, config=bridge.config)
        assert (checked.exit_code, checked.stdout, checked.stderr) == (0, "all well\n", "")
    assert not world.connectwise.tickets
    assert not world.autotask.tickets
    assert not world.mailbox.messages


def test_check_warns_of_secrets_that_everybody_can_read(world: World, make_bridge: MakeBridge) -> None:
    secret = Path(make_bridge(world).folder, "key")
    secret.write_text("hk_pretend")
    secret.chmod(0o644)
    source = {key: value for key, value in world.huntress.settings().items() if key != "api_key"}
    bridge = make_bridge(world, huntress={**source, "api_key_file": str(secret)})
    warned = inside("check", config=bridge.config)
    assert (warned.exit_code, warned.stdout) == (0, "nothing wrong, 1 warning\n")
    assert f"every account of this machine can read these secrets; chmod 600 {secret}" in warned.stderr
    secret.chmod(0o600)
    assert inside("check", config=bridge.config).stdout == "all well\n"


def test_check_tries_the_streams_that_are_turned_on(world: World, make_bridge: MakeBridge) -> None:
    sources = {"escalations": True, "platform_actions": True}
    checked = inside("check", "--online", config=make_bridge(world, sources=sources).config)
    assert (checked.exit_code, checked.stdout) == (0, "all well\n")
    reseller = make_bridge(world, sources=sources, huntress=world.huntress.settings(account_id=5))
    checked = inside("check", "--online", config=reseller.config)
    assert checked.exit_code == 1
    told = checked.stdout.splitlines()
    assert [line.split(":")[0] for line in told[:-1]] == ["sources.escalations", "sources.platform_actions"]
    assert "Set [sources] escalations = false" in told[0]


def test_a_bad_configuration_is_told_whole(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(
        world,
        poll={"intervall": 1},
        timezone="Mars/Olympus",
        connectors={
            "psa": world.connectwise.settings(company_id="", visibility="public"),
            "desk": {"type": "autotas"},
            "Mail": world.mailbox.settings(),
        },
    )
    for arguments in (("check", "--online"), ("run",), ("deliveries",)):
        answer = inside(*arguments, config=bridge.config)
        assert answer.exit_code == 2, arguments
        problems = answer.stderr.splitlines()
        assert all(line.startswith("configuration: ") for line in problems), problems
        for key in ("poll.intervall", "timezone", "psa.company_id", "psa.visibility", "desk.type", "connectors.Mail"):
            assert sum(key in line for line in problems) == 1, (key, problems)
        assert "the nearest known one is poll.interval" in answer.stderr
    assert not bridge.data_dir.exists()


# -- run ---------------------------------------------------------------------------------------------------------------


def test_the_others_are_served_and_all_goes_out_once_mended(world: World, make_bridge: MakeBridge) -> None:
    """A wrong board, mended in the file with SIGHUP; a wrong key, mended in its secret file alone."""
    bridge = make_bridge(world)
    secret = bridge.folder / "desk-secret"
    secret.write_text("not-the-secret\n", encoding="utf-8")
    desk = {name: value for name, value in world.autotask.settings().items() if name != "secret"}
    tables = {
        "psa": world.connectwise.settings(board="Securty"),
        "desk": desk | {"secret_file": str(secret)},
        "oncall": world.mailbox.settings(),
    }
    bridge.write(connectors=tables)
    world.reports(6)
    process = ready(bridge)
    wait_until(lambda: len(world.mailbox.messages) == 6, 20)

    def both_paused() -> bool:
        return all(status(bridge)[1]["connectors"][name]["state"] == "paused" for name in ("psa", "desk"))

    wait_until(both_paused, 20)
    code, told = status(bridge)
    assert code == 503
    assert "connector psa is paused: " in " ".join(told["problems"])
    assert "'Securty'" in told["connectors"]["psa"]["reason"]
    assert "401" in told["connectors"]["desk"]["reason"]
    assert told["connectors"]["oncall"]["state"] == "serving"
    assert not world.connectwise.tickets
    assert not world.autotask.tickets
    for row in deliveries(bridge):
        assert row["state"] == ("created" if row["connector"] == "oncall" else "pending")
        assert row["connector"] == "oncall" or row["reason"]
    world.report(7)
    wait_until(lambda: len(world.mailbox.messages) == 7, 10)

    secret.write_text(world.autotask.secret, encoding="utf-8")
    wait_until(lambda: len(world.autotask.tickets) == 7, MENDED, "the secret file was mended")
    assert status(bridge)[0] == 503
    assert not world.connectwise.tickets

    bridge.write(connectors=tables | {"psa": world.connectwise.settings()})
    reread(process)
    wait_until(lambda: len(world.connectwise.tickets) == 7, MENDED, "the board was mended")
    wait_until(lambda: status(bridge)[0] == 200, 10)
    assert bridge.stop(process) == 0
    for found in (world.connectwise_references(), world.autotask_references(), world.mail_references()):
        assert dict(found) == dict.fromkeys(references(*range(1, 8)), 1)
    assert "Traceback" not in bridge.log()


def test_every_mistake_pauses_its_own_connector_until_it_is_mended(
    world: World, make_bridge: MakeBridge, closed_port: int
) -> None:
    world.mailbox.users["bridge@example.com"] = "the-password"
    broken = {
        name: table
        for name, (table, _) in broken_connectors(world, closed_port).items()
        if not name.endswith(("_company", "_away"))  # these stop single reports, or are waited for
    }
    tables = {name: suffixed(name, table) for name, table in broken.items()}
    bridge = make_bridge(world, connectors=tables | {"oncall": world.mailbox.settings()})
    world.report(1, severity="high")
    world.report(2, severity="critical")
    process = ready(bridge)
    wait_until(lambda: set(world.mail_references()) == references(1, 2), 20)

    def states() -> dict[str, str]:
        return {name: told["state"] for name, told in status(bridge)[1]["connectors"].items()}

    wait_until(lambda: states() == dict.fromkeys(broken, "paused") | {"oncall": "serving"}, 25, "all paused")
    code, told = status(bridge)
    assert code == 503
    for name, (_, wanted) in broken_connectors(world, closed_port).items():
        if name in broken:
            assert all(words in told["connectors"][name]["reason"] for words in wanted), told["connectors"][name]
            assert any(f"connector {name} is paused: " in problem for problem in told["problems"])
    for row in deliveries(bridge):
        assert row["state"] == ("created" if row["connector"] == "oncall" else "pending")
        assert row["connector"] == "oncall" or row["reason"], row
    assert not world.connectwise.tickets
    assert not world.autotask.tickets

    right = {"psa": world.connectwise.settings(), "desk": world.autotask.settings(), "mail": world.mailbox.settings()}
    mended = {name: suffixed(name, right[name.split("_")[0]]) for name in broken}
    bridge.write(connectors=mended | {"oncall": world.mailbox.settings()})
    reread(process)
    expected = {f"huntress-5-{number}{table['reference_suffix']}" for number in (1, 2) for table in mended.values()}

    def delivered() -> set[str]:
        found = (world.connectwise_references(), world.autotask_references(), world.mail_references())
        return {reference for references in found for reference in references}

    wait_until(lambda: expected <= delivered(), MENDED + 10, "everything was mended")
    wait_until(lambda: status(bridge)[0] == 200, 10)
    assert bridge.stop(process) == 0
    assert "Traceback" not in bridge.log()


def test_a_company_that_is_missing_stops_only_its_organization(world: World, make_bridge: MakeBridge) -> None:
    """No catch-all, one organization without a company: it waits alone, until its row stands in the CSV."""
    world.connectwise.companies = [row for row in world.connectwise.companies if row[0] != 1002]
    file = Path("organizations.csv")
    table = world.connectwise.settings()
    del table["default_company"]
    bridge = make_bridge(world, connectors={"psa": table}, organizations={"file": str(file)})
    (bridge.folder / file).write_text("organization_id;connector;company\n", encoding="utf-8")
    world.reports(3)
    process = ready(bridge)
    wait_until(lambda: set(world.connectwise_references()) == references(1, 3), 15)
    code, told = status(bridge)
    assert (code, told["connectors"]["psa"]["state"]) == (200, "serving")
    [waiting] = [row for row in deliveries(bridge) if row["state"] != "created"]
    assert waiting["report_id"] == 2
    assert "organization 'Organization 2' (id 2) has no company in psa" in waiting["reason"]
    assert "add a row to organizations.csv" in waiting["reason"]
    (bridge.folder / file).write_text("organization_id;connector;company\n2;psa;ORG3\n", encoding="utf-8-sig")
    wait_until(lambda: set(world.connectwise_references()) == references(1, 2, 3), MENDED, "only the CSV was mended")
    [ticket] = [t for t in world.connectwise.tickets.values() if t["externalXRef"] == "huntress-5-2"]
    assert ticket["company"]["id"] == 1003
    assert bridge.stop(process) == 0


def test_a_wrong_huntress_key_is_told_and_mended_by_its_file(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    secret = bridge.folder / "api-secret"
    secret.write_text("not-the-secret", encoding="utf-8")
    huntress = {name: value for name, value in world.huntress.settings().items() if name != "api_secret"}
    bridge.write(huntress=huntress | {"api_secret_file": str(secret)})
    world.report(1)
    process = ready(bridge)
    wait_until(lambda: "did not accept the API key" in status(bridge)[1]["poll"]["error"], 10)
    secret.write_text(world.huntress.credentials[1], encoding="utf-8")
    wait_until(lambda: set(world.connectwise_references()) == references(1), MENDED)
    assert status(bridge)[1]["poll"]["error"] == ""
    assert bridge.stop(process) == 0


def test_an_unreachable_system_is_waited_for(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    world.connectwise.stop()
    world.mailbox.stop()
    world.reports(2)
    process = ready(bridge)
    wait_until(lambda: len(world.autotask.tickets) == 2, 15)

    def reasons() -> list[str]:
        return [row["reason"] or "" for row in deliveries(bridge) if row["connector"] != "desk"]

    wait_until(lambda: all("refused" in reason for reason in reasons()), 10)
    world.connectwise.start()
    world.mailbox.start()
    wait_until(lambda: set(world.connectwise_references()) == references(1, 2), 25)
    wait_until(lambda: set(world.mail_references()) == references(1, 2), 25)
    assert bridge.stop(process) == 0


# -- an invalid change -------------------------------------------------------------------------------------------------


def test_an_invalid_change_is_refused_and_the_old_stays(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    world.report(1)
    process = ready(bridge)
    wait_until(lambda: set(world.connectwise_references()) == references(1), 15)
    right = bridge.config.read_text("utf-8")
    spoiled = {
        "No such file or directory": None,
        "is not valid TOML": right.replace('type = "connectwise"', 'type = "connectwise'),
        "poll.intervall": right.replace("interval", "intervall"),
        "[redis] and data_dir change only with a restart": right + '\n[redis]\nnamespace = "other"\n',
    }
    for told, text in spoiled.items():
        assert text != right
        bridge.config.unlink() if text is None else bridge.config.write_text(text, encoding="utf-8")
        reread(process)
        wait_until(lambda told=told: told in "".join(problems(bridge)), 10, told)  # type: ignore[misc]
        assert told in bridge.log()
    assert bridge.log().count("is refused, the old one stays in use") == len(spoiled)
    world.report(2)
    wait_until(lambda: set(world.connectwise_references()) == references(1, 2), 10)
    bridge.config.write_text(right, encoding="utf-8")
    reread(process)
    wait_until(lambda: not problems(bridge), 10)

    bridge.config.write_text("data_dir = 5\n", encoding="utf-8")
    reread(process)
    wait_until(lambda: problems(bridge), 10)
    assert bridge.stop(process) == 0
    assert "Traceback" not in bridge.log()
    bridge.config.write_text(right, encoding="utf-8")
    process = ready(bridge)
    assert problems(bridge) == [], "a start with a right configuration ends what was refused before"
    assert bridge.stop(process) == 0


def problems(bridge: Bridge) -> list[str]:
    return list(status(bridge)[1]["configuration_problems"].values())


# -- Redis and a second process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("run", "redis://127.0.0.1:{port}/0"),
        ("poller", "unix:///tmp/no-such-folder/redis.sock?db=0"),
        ("deliveries", "redis://127.0.0.1:{port}/0"),
    ],
)
def test_a_redis_that_is_not_there(world: World, make_bridge: MakeBridge, url: str, command: str) -> None:
    bridge = make_bridge(world, redis={"url": url.format(port=free_port(0))})
    answer = inside(command, config=bridge.config)
    assert answer.exit_code == 2
    assert "Redis does not answer" in answer.stderr
    assert "[redis] url" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not bridge.data_dir.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379", "redis://127.0.0.1:port/0"])
def test_a_redis_url_that_is_none(world: World, make_bridge: MakeBridge, url: str) -> None:
    answer = inside("run", config=make_bridge(world, redis={"url": url}).config)
    assert answer.exit_code == 2
    assert "redis.url" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_something_else_listens_where_redis_should(world: World, make_bridge: MakeBridge) -> None:
    port = world.huntress.url.rpartition(":")[2]
    answer = inside("deliveries", config=make_bridge(world, redis={"url": f"redis://127.0.0.1:{port}/0"}).config)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("redis: ")
    assert "Traceback" not in answer.stderr


def test_separate_processes_need_a_shared_redis(world: World, make_bridge: MakeBridge) -> None:
    answer = inside("worker", config=make_bridge(world).config)
    assert answer.exit_code == 2
    assert "redis.url is empty" in answer.stderr


def test_a_second_run_on_one_data_folder_ends(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    process = ready(bridge)
    for arguments in (("run",), ("run", "--once")):
        second = bridge(*arguments, timeout=20)
        assert second.returncode == 2
        assert str(bridge.data_dir) in second.stderr
        assert str(process.pid) in second.stderr
        assert "Traceback" not in second.stderr
    assert process.poll() is None
    assert status(bridge)[0] == 200
    assert bridge.stop(process) == 0


def test_a_port_that_is_taken(world: World, make_bridge: MakeBridge) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bridge = make_bridge(world, web={"port": taken.getsockname()[1]})
        answer = bridge("run", timeout=20)
    assert answer.returncode == 2
    assert "configuration: web.port: cannot listen on 127.0.0.1" in answer.stderr


def test_connectors_that_share_tickets_are_refused(world: World, make_bridge: MakeBridge) -> None:
    psa, desk, mail = world.connectors().values()
    same = {"one": psa, "two": psa, "three": desk, "four": desk, "five": mail, "six": mail}
    bridge = make_bridge(world, connectors=same)
    for arguments, code in ((("check",), 1), (("run",), 2)):
        answer = inside(*arguments, config=bridge.config)
        assert answer.exit_code == code, arguments
        told = [line for line in (answer.stdout + answer.stderr).splitlines() if "reach the same system" in line]
        assert len(told) == 2
        assert "connectors.two and connectors.one " in told[0]
        assert "connectors.four and connectors.three " in told[1]
        assert all("reference_suffix" in line for line in told)
    for name in ("two", "four"):
        same[name] = same[name] | {"reference_suffix": "-b"}
    bridge.write(connectors=same)
    assert inside("check", config=bridge.config).exit_code == 0
