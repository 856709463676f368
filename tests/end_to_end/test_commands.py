"""Every command's words and exit code, as its user meets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import Result

from bridge.demo import connectwise as pretend
from bridge.demo import scenario
from bridge.demo.run import toml
from bridge.models import DeliveryState
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.end_to_end.inside import inside

MakeBridge = Callable[..., Bridge]
COMMANDS = (
    *("run", "poller", "worker", "web", "check", "render", "explain"),
    *("deliveries", "retry", "handle", "link", "healthcheck", "demo"),
    *("organizations", "agents", "memberships", "reports"),
    *("init", "test-ticket"),
)
PSA: dict[str, Any] = {
    "type": "connectwise",
    "url": "https://psa.example.com",
    "company_id": "msp",
    "public_key": "public-key",
    "private_key": "private-key",
    "client_id": "00000000-0000-4000-8000-000000000000",
    "board": "Security",
    "default_company": "Catchall",
    "priorities": {"critical": "Priority 1 - Critical", "high": "Priority 2 - High"},
}
DESK: dict[str, Any] = {
    "type": "autotask",
    "zone_url": "https://desk.example.com",
    "username": "api@example.com",
    "secret": "the-secret",
    "integration_code": "CODE",
    "queue": "Security",
    "default_company": 175,
}
MAIL: dict[str, Any] = {
    "type": "email",
    "host": "127.0.0.1",
    "security": "none",
    "sender": "bridge@example.com",
    "recipients": ["oncall@example.com"],
}
TABLES: dict[str, Any] = {
    "huntress": {"api_key": "key", "api_secret": "the-api-secret"},
    "connectors": {"psa": PSA, "desk": DESK, "oncall": MAIL},
}


class Command:
    """The command line in a folder with a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self.write("bridge.toml")

    def write(self, name: str, **changes: Any) -> Path:
        path = self.folder / name
        path.write_text(toml({"data_dir": str(self.folder / "data")} | TABLES | changes), encoding="utf-8")
        return path

    def __call__(self, *arguments: str | Path, **variables: str) -> Result:
        return inside(*arguments, config=None, **variables)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """In an empty folder with a configuration, and without variables of ours."""
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path)


# -- where the configuration comes from --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["check"], {}),  # ./bridge.toml
        (["--config", "other.toml", "check"], {}),
        (["check", "--config", "other.toml"], {}),
        (["--config", "no-such.toml", "check", "--config", "other.toml"], {}),  # the nearer one
        (["check"], {"BRIDGE_CONFIG": "other.toml"}),
        (["check", "--config", "other.toml"], {"BRIDGE_CONFIG": "no-such.toml"}),
    ],
)
def test_the_configuration_is_found(command: Command, arguments: list[str], variables: dict[str, str]) -> None:
    if "other.toml" in [*arguments, *variables.values()]:
        command.write("other.toml")
        command.config.write_text("not even TOML", encoding="utf-8")
    result = command(*arguments, **variables)
    assert (result.exit_code, result.output) == (0, "all well\n")


def test_a_configuration_that_is_not_there(command: Command) -> None:
    for result in (command("check", "--config", "no-such.toml"), command("check", BRIDGE_CONFIG="no-such.toml")):
        assert result.exit_code == 2
        assert "configuration: cannot read the configuration file no-such.toml: No such file" in result.stderr
    command.config.unlink()
    result = command("check")
    assert result.exit_code == 2
    assert [line.split(" ")[1] for line in result.stderr.splitlines()] == [
        "huntress.api_key",
        "huntress.api_secret",
        "no",
    ]


def test_variables_override_the_file_key_by_key(command: Command) -> None:
    changed = {
        "BRIDGE_CONNECTORS__PSA__PRIORITIES": '{"critical": "Hot"}',
        "BRIDGE_CONNECTORS__PSA__REFERENCE_SUFFIX": "-b",
        "BRIDGE_ORGANIZATIONS__DISABLED": "[2, 3]",
        "BRIDGE_PORT": "tcp://10.0.0.1:80",  # Kubernetes
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
    }
    result = command("explain", "--severity", "critical", **changed)
    assert result.exit_code == 0, result.stderr
    psa = result.stdout.split("psa (connectwise)")[1].split("desk (autotask)")[0]
    assert "reference: huntress-5-1001-b" in psa
    assert "priority: Hot" in psa
    result = command("explain", "--organization", "3", **changed)
    assert result.stdout.count(": no: organization 3 is in [organizations] disabled") == 3


@pytest.mark.parametrize(
    ("text", "variables", "told"),
    [
        ("[poll]\nintervall = 5", {}, "poll.intervall is not a known key; the nearest known one is poll.interval"),
        (
            "[connectors.psa]\ntype = 'connectwise'\nbord = 'x'",
            {},
            "connectors.psa.bord is not a known key; the nearest ",
        ),
        ("", {"BRIDGE_POLL__INTERVALL": "5"}, "BRIDGE_POLL__INTERVALL"),
        ("", {"BRIDGE_POLL__INTERVALL": "5"}, "BRIDGE_POLL__INTERVAL"),
        ("", {"BRIDGE_HUNTRESS_API_KEY": "x"}, "BRIDGE_HUNTRESS__API_KEY"),
        ("", {"BRIDGE_ORGANIZATIONS__ONLY": "1,2"}, "must be a JSON list"),
        ("[connectors.PSA]\ntype = 'connectwise'", {}, "[a-z][a-z0-9_]*"),
        ("[huntress]\napi_key = 'x'\napi_key_file = 'y'", {}, "api_key and api_key_file are both given"),
    ],
)
def test_what_is_not_known_is_named_with_the_nearest(
    command: Command, text: str, variables: dict[str, str], told: str
) -> None:
    command.config.write_text(text, encoding="utf-8")
    result = command("check", **variables)
    assert result.exit_code == 2
    assert told in result.stderr.replace("huntress.api_key and huntress.api_key_file", "api_key and api_key_file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["run", "--dry-run"],
        ["run", "--once", "--wait", "soon"],
        ["deliveries", "--state", "lost"],
        ["retry", "--state", "created"],
        ["healthcheck", "everything"],
        ["render"],
        ["render", "no_such_connector"],
        ["retry", "--connector", "no_such_connector"],
        ["handle", "1", "--connector", "no_such_connector", "--reason", "done"],
        ["handle", "1", "--connector", "psa"],
        ["handle", "1", "--connector", "psa", "--reason", " "],
        ["link", "1", "no_such_connector", "5"],
        ["link", "one", "psa", "5"],
        ["check", "--log-level", "loud"],
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(command: Command, arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not (command.folder / "data").exists()


def test_help_names_every_command(command: Command) -> None:
    told = command("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name}  +[A-Z]", told, re.MULTILINE), name
        assert command(name, "--help").exit_code == 0


# -- render and explain ------------------------------------------------------------------------------------------------


def test_the_sample_reads_well_in_every_connector(command: Command) -> None:
    told = {}
    for name in ("psa", "desk", "oncall"):
        result = command("render", name)
        assert (result.exit_code, result.stderr) == (0, "")
        told[name] = result.stdout
    subject = scenario.SAMPLES["full"]["subject"]
    for name, text in told.items():
        lines = text.splitlines()
        assert lines[0] == f"title: {subject} [huntress-5-1001]"
        assert lines[1] == "reference: huntress-5-1001"
        for wanted in (
            f"Subject: {subject}",
            "Organization: Acme Corp (id 1)",
            "Host: DESKTOP-01 (agent 1)",
            "Severity: high",
            "Sent: 2026-03-02 08:15 UTC",
            "URL: https://sample.huntress.io/org/1/infection_reports/1001",
            "Reference: huntress-5-1001",
        ):
            assert wanted in [line.removeprefix("* ") for line in lines], (name, wanted)
        assert "== WHAT HUNTRESS ASKS TO BE DONE ==" in lines
        assert "None" not in text
        assert "not at hand" not in text
    notice = "notice: Security incident report 1001 from Huntress. Details are in the internal notes."
    assert notice in told["psa"]
    assert notice in told["desk"]
    assert "--- html ---\n<!doctype html>" in told["oncall"]


def test_a_report_from_a_file(command: Command) -> None:
    path = command.folder / "report.json"
    for raw in (scenario.SAMPLES["minimal"], {"incident_report": scenario.SAMPLES["minimal"]}):
        path.write_text(json.dumps(raw), encoding="utf-8")
        result = command("render", "psa", "--report", path)
        assert result.exit_code == 0
        assert "[huntress-5-1002]" in result.stdout.splitlines()[0]
        assert command("explain", "--report", path).stdout.startswith(
            "report 1002: severity high (the source says nothing)"
        )
    path.write_text(json.dumps(scenario.SAMPLES["hostile"]), encoding="utf-8")
    result = command("render", "oncall", "--report", path)
    assert result.exit_code == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.stdout)


@pytest.mark.parametrize(
    ("raw", "options", "title", "explained"),
    [
        (scenario.escalation(7, [scenario.organization(2)]), (), "[huntress-5-e7]", "escalation 7: severity high, org"),
        ({"escalation": {"id": 7}}, (), "HIGH - Escalation 7 [severity not given] [huntress-5-e7]", "escalation 7: "),
        (
            {"platform_action": scenario.platform_action(8, severity="low")},
            (),
            "[huntress-5-p8]",
            "platform action 8: severity critical (the source says low; raised, because Huntress says that it cannot",
        ),
        (scenario.platform_action(8), ("--kind", "platform_action"), "[huntress-5-p8]", "platform action 8: "),
        (scenario.platform_action(8), (), "[huntress-5-e8]", "escalation 8: "),
    ],
)
def test_an_escalation_from_a_file(
    command: Command, raw: dict[str, Any], options: tuple[str, ...], title: str, explained: str
) -> None:
    path = command.folder / "report.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    result = command("render", "oncall", "--report", path, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].endswith(title)
    assert command("explain", "--report", path, *options).stdout.startswith(explained)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an incident report: this incident report is a list"),
        (b'{"id": true}', "has no usable id"),
        (b'{"platform_action": {"id": 0}}', "not a platform action: this platform action has no usable id"),
        (b"[" * 5_000 + b"]" * 5_000, "not an incident report"),
    ],
)
@pytest.mark.parametrize("name", ["render", "explain"])
def test_a_report_that_is_none(command: Command, name: str, data: bytes, told: str) -> None:
    path = command.folder / "report.json"
    path.write_bytes(data)
    result = command(*[name, *(["psa"] if name == "render" else [])], "--report", path)
    assert result.exit_code == 2
    assert f"--report {path}: " in result.stderr
    assert told in result.stderr
    missing = command(*[name, *(["psa"] if name == "render" else [])], "--report", command.folder / "no-such.json")
    assert missing.exit_code == 2


def test_explain_says_which_and_why(world: World, make_bridge: MakeBridge) -> None:
    connectors = world.connectors()
    connectors["oncall"] |= {"only": {"severities": ["critical"]}, "on_close": "nothing", "reopen": "never"}
    lasting = [{"from": "2020-01-01T00:00Z", "to": "2120-01-01T00:00Z"}]
    connectors["desk"] |= {"maintenance": lasting, "on_close": "note", "reopen_within": "36h"}
    bridge = make_bridge(world, connectors=connectors, organizations={"file": "organizations.csv"})
    rows = "organization_id,connector,company,recipients\n2,psa,ORG3,\n2,oncall,,night@example.com\n"
    (bridge.folder / "organizations.csv").write_text(rows, encoding="utf-8")
    told = inside("explain", "--organization", "2", "--severity", "low", config=bridge.config)
    assert told.exit_code == 0, told.stderr
    lines = [line.strip() for line in told.stdout.splitlines()]
    assert lines[0] == "report 1001: severity low, organization 2 (Organization 2)"
    assert "psa (connectwise): yes: takes it" in lines
    assert "company: Organization 3 (by file)" in lines
    assert "company: Organization 2 (by name)" in lines
    assert "priority: Priority 4 - Low" in lines
    assert "oncall (email): no: severity low is not in only.severities" in lines
    assert any(line.startswith("title: ") and line.endswith("connectwise/title.j2") for line in lines)
    place = lines.index("desk (autotask): yes: takes it")
    psa, desk = lines[:place], lines[place:]
    assert "held back: no" in psa
    assert (
        "when it is over: its ticket gets a note and the closed status, unless people work on it (on_close = close)"
        in psa
    )
    assert "held back: maintenance until 2120-01-01 00:00 UTC (critical reports go out)" in desk
    assert "when it is over: its ticket gets a note (on_close = note)" in desk
    again = "its ticket is reopened within 36h after the end, then a new one is made (reopen = within)"
    assert f"when it is open again: {again}" in desk
    told = inside("explain", "--organization", "2", "--severity", "critical", config=bridge.config)
    assert "recipients: night@example.com (organizations file)" in told.stdout
    assert "oncall (email): yes: takes it: severity critical is in only.severities" in told.stdout
    assert "when it is open again: a new ticket is made (reopen = never)" in told.stdout
    told = inside("explain", "--organization", "3", "--severity", "critical", config=bridge.config)
    assert f"recipients: {connectors['oncall']['recipients'][0]}\n" in told.stdout


# -- templates ---------------------------------------------------------------------------------------------------------


BROKEN = {
    "a name that is not there": ("Hello\n{{ report.subjct }}\n", 2),
    "syntax": ("one\ntwo\n{% if %}\n", 3),
    "an error": ("{{ 1 / 0 }}", 1),
    "a filter": ("\n\n\n{{ report.subject | shout }}", 4),
    "an escape": ("{{ ''.__class__.__mro__ }}", 1),
    "nothing": ("{# silence #}", 0),
    "no end": ("\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", 2),
    "all memory": ("{{ subject | center(9999999999) }}", 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_template_is_found_by_check_and_replaced_by_render(command: Command, kind: str) -> None:
    text, line = BROKEN[kind]
    folder = command.folder / "own"
    folder.mkdir()
    path = folder / "text.j2"
    path.write_text(text, encoding="utf-8")
    command.write("bridge.toml", connectors={"psa": PSA | {"templates": str(folder)}})
    place = f"template {path}" + (f", line {line}" if line else "")
    checked = command("check")
    assert checked.exit_code == 1
    found = checked.stdout.splitlines()
    assert found[-1] == "1 finding"
    assert found[0].startswith(f"connectors.psa.templates: {place}: ")
    rendered = command("render", "psa")
    assert rendered.exit_code == 1
    assert rendered.stderr.startswith(f"connector psa: {place}: ")
    assert "the plain rendering took its place" in rendered.stderr
    assert "Huntress incident report 1001: " in rendered.stdout


def test_a_template_file_that_nothing_uses(command: Command) -> None:
    folder = command.folder / "own"
    folder.mkdir()
    (folder / "titel.j2").write_text("{{ subject }}", encoding="utf-8")
    command.write("bridge.toml", connectors={"psa": PSA | {"templates": str(folder)}})
    checked = command("check")
    assert checked.exit_code == 1
    assert f"{folder / 'titel.j2'} is used by no part of a ticket; did you mean title.j2?" in checked.stdout
    command.write("bridge.toml", connectors={"psa": PSA | {"templates": "no-such-folder"}})
    assert command("check").exit_code == 2
    assert "no-such-folder" in command("check").stderr


def test_a_broken_template_costs_no_ticket(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    folder = bridge.folder / "own"
    folder.mkdir()
    (folder / "text.j2").write_text("{{ report.subjct }}", encoding="utf-8")
    bridge.write(connectors={name: table | {"templates": "own"} for name, table in world.connectors().items()})
    world.report(1)
    done = inside("run", "--once", config=bridge.config)
    assert done.exit_code == 0, done.stdout + done.stderr
    [psa], [desk] = world.connectwise.tickets.values(), world.autotask.tickets.values()
    assert "Huntress incident report 1: " in psa["initialInternalAnalysis"]
    said = f"template {folder.resolve() / 'text.j2'}, line 1: "
    for notes in (
        [note["text"] for note in world.connectwise.notes[psa["id"]]],
        [note["description"] for note in world.autotask.notes[desk["id"]]],
        [mail.raw.decode().replace("=\r\n", "") for mail in world.mailbox.messages],
    ):
        assert len([text for text in notes if said in text]) == 1, notes
    assert all(said in row["reason"] for row in deliveries(bridge))


# -- deliveries, retry, link -------------------------------------------------------------------------------------------


KEYS: dict[str, type | tuple[type, ...]] = {
    "report_id": int,
    "organization_id": (int, type(None)),
    "connector": str,
    "state": str,
    "ticket_id": (str, type(None)),
    "ticket_number": (str, type(None)),
    "ticket_url": (str, type(None)),
    "attempts": int,
    "reason": (str, type(None)),
    "next_attempt_at": (str, type(None)),
    "updated_at": str,
}


def deliveries(bridge: Bridge) -> list[dict[str, Any]]:
    answer = inside("deliveries", "--json", config=bridge.config)
    assert answer.exit_code == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)
    return rows


def test_a_rejected_delivery_is_shown_and_retried(world: World, make_bridge: MakeBridge) -> None:
    world.reports(2)
    refusal = {
        "code": "InvalidObject",
        "message": "ticket object is invalid",
        "errors": [{"message": "Type is required."}],
    }
    world.connectwise.fault("status", method="POST", path="/tickets$", status=400, body=refusal)
    world.autotask.fault("status", method="POST", path="/Tickets$", status=503, times=None)
    tables = {"psa": world.connectwise.settings(), "desk": world.autotask.settings(settle=2)}
    bridge = make_bridge(world, connectors=tables)
    empty = inside("deliveries", config=bridge.config)
    assert (empty.exit_code, empty.stdout) == (0, "no deliveries\n")
    assert deliveries(bridge) == []
    first = inside("run", "--once", "--wait", "5", config=bridge.config)
    assert first.exit_code == 1, first.stdout
    assert re.search(r"^report [12] to psa: rejected: .*Type is required", first.stdout, re.MULTILINE)
    assert re.search(r"^report [12] to desk: (creating|pending): .*503", first.stdout, re.MULTILINE)

    rows = deliveries(bridge)
    assert len(rows) == 4
    for row in rows:
        assert row.keys() >= KEYS.keys()
        assert all(isinstance(row[name], kind) for name, kind in KEYS.items()), row
        assert row["state"] in set(DeliveryState)
        for name in ("next_attempt_at", "updated_at"):
            assert row[name] is None or datetime.fromisoformat(row[name]).tzinfo
        assert row["state"] == "created" or row["reason"]
    [rejected] = [row for row in rows if row["state"] == "rejected"]
    assert "Type is required." in rejected["reason"]
    assert (rejected["ticket_id"], rejected["next_attempt_at"]) == (None, None)
    told = inside("deliveries", "--state", "rejected", config=bridge.config)
    assert told.exit_code == 0
    assert told.stdout.count("Type is required.") == 1
    assert "created" not in told.stdout
    assert json.loads(inside("deliveries", "--json", "--state", "rejected", config=bridge.config).stdout) == [rejected]

    number = str(rejected["report_id"])
    for arguments in (("999",), ("--state", "held"), (number, "--connector", "desk", "--state", "rejected")):
        answer = inside("retry", *arguments, config=bridge.config)
        assert (answer.exit_code, answer.stdout) == (1, ""), arguments
        assert "nothing fits" in answer.stderr

    world.autotask.faults.clear()
    process = bridge.start("run")
    wait_until(lambda: '"polled"' in bridge.log(), 20)
    assert len(world.connectwise.tickets) == 1
    answer = inside("retry", "--state", "rejected", config=bridge.config)
    assert (answer.exit_code, answer.stdout) == (0, "1 due now\n")
    wait_until(lambda: len(world.connectwise.tickets) == 2, 10)
    wait_until(lambda: len(world.autotask.tickets) == 2, 30)
    wait_until(lambda: {row["state"] for row in deliveries(bridge)} == {"created"}, 10)
    assert inside("retry", config=bridge.config).exit_code == 1
    assert bridge.stop(process) == 0
    for found in (world.connectwise_references(), world.autotask_references()):
        assert dict(found) == {"huntress-5-1": 1, "huntress-5-2": 1}


def test_what_a_person_took_care_of_is_left_until_it_is_retried(world: World, make_bridge: MakeBridge) -> None:
    world.reports(1)
    world.connectwise.fault("status", method="POST", path="/tickets$", status=400, body={"message": "No."})
    bridge = make_bridge(world, connectors=world.connectors("psa"))
    assert inside("run", "--once", "--wait", "5", config=bridge.config).exit_code == 1
    mark = ("handle", "1", "--connector", "psa", "--reason")
    for _ in range(2):
        answer = inside(*mark, "called\nthe customer", config=bridge.config)
        assert (answer.exit_code, answer.stdout) == (0, "report 1 is marked as handled in psa\n")
    [row] = deliveries(bridge)
    assert (row["state"], row["reason"]) == ("handled", "called the customer")
    assert inside("run", "--once", "--wait", "5", config=bridge.config).exit_code == 0
    assert inside("retry", "1", config=bridge.config).exit_code == 1
    assert not world.connectwise.tickets
    assert inside("retry", "1", "--state", "handled", config=bridge.config).stdout == "1 due now\n"
    assert inside("run", "--once", "--wait", "10", config=bridge.config).exit_code == 0
    assert len(world.connectwise.tickets) == 1
    for number, why in (("1", "has its ticket in psa"), ("9", "there is no delivery of report 9")):
        answer = inside("handle", number, "--connector", "psa", "--reason", "done", config=bridge.config)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert why in answer.stderr


def by_hand(world: World) -> int:
    """A ConnectWise ticket that a person made."""
    answer = requests.post(
        f"{world.connectwise.url}/v4_6_release/apis/3.0/service/tickets",
        json={"summary": "By hand", "company": {"id": 1}, "board": {"name": "Security"}},
        auth=(f"{pretend.COMPANY_ID}+{pretend.PUBLIC_KEY}", pretend.PRIVATE_KEY),
        headers={"clientId": pretend.CLIENT_ID},
        timeout=5,
    )
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_a_linked_ticket_is_the_reports(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    psa, desk = by_hand(world), world.autotask.add_ticket()
    early = inside("link", "1", "psa", str(psa), config=bridge.config)
    assert early.exit_code == 1
    assert "account is not known yet" in early.stderr
    assert inside("run", "--once", config=bridge.config).exit_code == 0
    number = world.autotask.tickets[desk]["ticketNumber"]
    for connector, ticket, shown in (("psa", f"#{psa}", str(psa)), ("desk", number, number)):
        linked = inside("link", "1", connector, ticket, config=bridge.config)
        assert (linked.exit_code, linked.stderr) == (0, "")
        assert linked.stdout == f"report 1 is ticket {shown} in {connector}\n"
    assert world.connectwise.tickets[psa]["externalXRef"] == "huntress-5-1"
    assert world.autotask.tickets[desk]["externalID"] == "huntress-5-1"
    for arguments, told in (
        (("1", "psa", str(psa)), "report 1 already is ticket"),
        (("2", "psa", str(psa)), "already carries 'huntress-5-1'"),
        (("2", "psa", "999999"), "has no ticket 999999"),
        (("2", "desk", "T20200101.0001"), "T20200101.0001"),
        (("2", "oncall", "5"), "cannot link"),
    ):
        answer = inside("link", *arguments, config=bridge.config)
        assert answer.exit_code == 1, arguments
        assert told in answer.stderr
    world.reports(2)
    assert inside("run", "--once", config=bridge.config).exit_code == 0
    assert dict(world.connectwise_references()) == {"huntress-5-1": 1, "huntress-5-2": 1}
    assert dict(world.autotask_references()) == {"huntress-5-1": 1, "huntress-5-2": 1}
    assert world.connectwise.tickets[psa]["summary"] == "By hand"
    states = {(row["report_id"], row["connector"]): row for row in deliveries(bridge)}
    assert {row["state"] for row in states.values()} == {"created"}
    assert states[1, "psa"]["ticket_id"] == str(psa)


# -- health ------------------------------------------------------------------------------------------------------------


def test_healthcheck_tells_a_running_process_from_none(world: World, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(world)
    assert inside("healthcheck", config=bridge.config).exit_code == 1
    process = bridge.start("run")
    wait_until(lambda: '"ready"' in bridge.log(), 20)
    wait_until(lambda: bridge("healthcheck").returncode == 0, 15)
    for role in ("poller", "worker", "web"):
        answer = inside("healthcheck", role, config=bridge.config)
        assert (answer.exit_code, answer.stdout) == (0, "ok\n"), role
    assert bridge.stop(process) == 0
    for role, told in (("worker", "no worker of huntress-bridge runs on this host"), ("web", "does not answer")):
        answer = inside("healthcheck", role, config=bridge.config)
        assert answer.exit_code == 1
        assert told in answer.stdout
