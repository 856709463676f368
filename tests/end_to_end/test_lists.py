"""The commands that list what the source has, as their user meets them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import Result

from bridge.demo import scenario
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.run import toml
from bridge.organizations_file import OrganizationsFile
from tests.crowd import BY_NAME, ORGANIZATIONS, OTHERWISE, Crowd, serve_agents
from tests.end_to_end.conftest import COMMAND, Bridge, World, wait_until
from tests.end_to_end.inside import inside

BIDI, ESCAPE = "\u202e", "\x1b[31m"
MAIL = {
    "type": "email",
    "host": "127.0.0.1",
    "security": "none",
    "sender": "bridge@example.com",
    "recipients": ["oncall@example.com"],
}
#: Peak megabytes that fifty thousand agents may take beyond what five hundred do.
FLAT = 20


class Lists:
    """The command with a configuration for pretend systems, on the tests' Redis (which it would warn of)."""

    def __init__(self, folder: Path, redis_url: str, huntress: PretendHuntress, connectors: dict[str, Any]) -> None:
        self.folder = folder
        self.huntress = huntress
        self.config = folder / "bridge.toml"
        self.tables: dict[str, Any] = {
            "data_dir": str(folder / "data"),
            "redis": {"url": redis_url},
            "huntress": huntress.settings(),
            "connectors": connectors,
        }
        self.write()

    def write(self, **tables: Any) -> None:
        self.tables |= tables
        self.config.write_text(toml(self.tables), "utf-8")

    def __call__(self, *arguments: str | Path) -> Result:
        return inside("--log-level", "error", *arguments, config=self.config)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def process(self, *arguments: str, stdout: int | IO[bytes], stderr: int | None = None) -> subprocess.Popen[bytes]:
        whole = [str(COMMAND), "--log-level", "error", "--config", str(self.config), *arguments]
        environment = os.environ | {"PYTHONWARNINGS": "error"}
        return subprocess.Popen(whole, env=environment, stdout=stdout, stderr=stderr)


@pytest.fixture
def huntress() -> Iterator[PretendHuntress]:
    with PretendHuntress(organizations=3) as server:
        yield server


@pytest.fixture
def connectwise(huntress: PretendHuntress) -> Iterator[PretendConnectWise]:
    names = [raw["name"] for raw in huntress.organizations.values()]
    with PretendConnectWise([(1, "Catchall", "Catchall"), (11, "ONE", names[0]), (12, "TWO", "Two by file")]) as server:
        yield server


@pytest.fixture
def lists(tmp_path: Path, redis_url: str, huntress: PretendHuntress, connectwise: PretendConnectWise) -> Lists:
    return Lists(tmp_path, redis_url, huntress, {"psa": connectwise.settings(), "oncall": MAIL})


def name(lists: Lists, number: int, text: str) -> None:
    with lists.huntress.lock:
        lists.huntress.organizations[number] = scenario.organization(number, name=text)


# -- organizations -----------------------------------------------------------------------------------------------------


def test_organizations_with_their_companies_and_how_they_were_found(lists: Lists) -> None:
    file = lists.folder / "organizations.csv"
    file.write_text("organization_id,connector,company\n2,psa,TWO\n", "utf-8")
    lists.write(organizations={"file": str(file), "disabled": [3]})
    rows = lists.json("organizations", "list")
    assert [row["organization_id"] for row in rows] == [1, 2, 3]
    assert [row["served"] for row in rows] == [True, True, False]
    places = [{place["connector"]: place for place in row["companies"]} for row in rows]
    assert [(place["psa"]["company_id"], place["psa"]["matched_by"]) for place in places] == [
        ("11", "name"),
        ("12", "file"),
        ("1", "catch-all"),
    ]
    assert "no company has its name" in places[2]["psa"]["reason"]
    assert {place["oncall"]["company_id"] for place in places} == {None}

    table = lists("organizations", "list")
    assert table.exit_code == 0
    assert re.search(r"^2 .*Two by file \(id 12\), file", table.stdout, re.MULTILINE)
    assert re.search(r"^3 .*\(not served\).*Catchall \(id 1\), catch-all", table.stdout, re.MULTILINE)
    assert "psa: 1 catch-all, 1 file, 1 name" in table.stdout


def test_an_organization_without_any_company_is_listed_all_the_same(
    lists: Lists, connectwise: PretendConnectWise
) -> None:
    lists.write(connectors={"psa": {k: v for k, v in connectwise.settings().items() if k != "default_company"}})
    rows = lists.json("organizations", "list")
    place = rows[2]["companies"][0]
    assert (place["company_id"], place["matched_by"]) == (None, None)
    assert "connectors.psa.default_company" in place["reason"]
    assert "psa: 1 name, 2 without a company" in lists("organizations", "list").stdout


def test_a_ticket_system_that_cannot_be_asked_stops_no_other_column(
    lists: Lists, connectwise: PretendConnectWise
) -> None:
    connectwise.fault("status", path="/company/companies", status=401, times=None)
    result = lists("organizations", "list", "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("psa: ")
    assert [[place["connector"] for place in row["companies"]] for row in json.loads(result.stdout)] == [["oncall"]] * 3
    assert lists("organizations", "match", "psa").exit_code == 1


def test_names_of_hostile_organizations_are_inert_everywhere(lists: Lists) -> None:
    hostile = f"=cmd|' /C calc'!A0{ESCAPE}{BIDI}\r\nsecond \"quoted\", line\x9b"
    name(lists, 4, hostile)
    with lists.huntress.lock:
        lists.huntress.agents[1] = scenario.agent(1, 4, hostname=hostile, os=hostile, tags=[hostile])
    lists.huntress.add_report(organization_id=4, subject=hostile, severity=hostile)
    for command in (
        ["organizations", "list"],
        ["organizations", "list", "--json"],
        ["organizations", "match", "psa"],
        ["agents", "list"],
        ["agents", "list", "--json"],
        ["agents", "list", "--csv"],
        ["reports", "list"],
        ["reports", "list", "--json"],
    ):
        result = lists(*command)
        assert result.exit_code == 0, result.stderr
        assert "=cmd|" in result.stdout
        assert [c for c in result.stdout.replace("\n", "") if not c.isprintable()] == []
    for command in (["organizations", "match", "psa"], ["agents", "list", "--csv"]):
        rows = list(csv.reader(io.StringIO(lists(*command).stdout)))
        assert {len(row) for row in rows} == {len(rows[0])}
        assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))] == []
    lists("organizations", "diff")
    name(lists, 5, hostile)
    assert lists("organizations", "diff").stdout.splitlines()[0].startswith("+ 5 =cmd|")


def test_proposals_are_written_and_overwrite_nothing(lists: Lists) -> None:
    name(lists, 2, "Two File by, Inc.")
    path = lists.folder / "proposals.csv"
    written = lists("organizations", "match", "psa", "--output", path)
    assert (written.exit_code, written.stdout) == (0, "")
    assert "2 organizations have no company of their own in psa; one is proposed for 1" in written.stderr
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    assert [(row["organization_id"], row["company"], row["company_name"]) for row in rows] == [
        ("2", "12", "Two by file"),
        ("3", "", ""),
    ]

    path.write_text("edited by hand", "utf-8")
    refused = lists("organizations", "match", "psa", "--output", path)
    assert (refused.exit_code, path.read_text("utf-8")) == (2, "edited by hand")
    assert "overwrite it with --force" in refused.stderr
    assert lists("organizations", "match", "psa", "--output", path, "--force").exit_code == 0
    assert path.read_text("utf-8").startswith("organization_id,connector,company,organization_name,")

    lists.write(organizations={"file": str(path)})
    assert lists("organizations", "match", "psa", "--output", path, "--force").exit_code == 2
    rows = lists.json("organizations", "list")
    assert [row["companies"][0]["matched_by"] for row in rows] == ["name", "file", "catch-all"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody"], "there is no connector named nobody"),
        (["oncall"], "connector oncall (email) has no companies to match"),
        (["psa", "--output", "no/such/folder.csv"], "cannot write it (No such file or directory)"),
    ],
)
def test_what_cannot_be_matched_is_said(lists: Lists, arguments: list[str], told: str) -> None:
    result = lists("organizations", "match", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_the_difference_is_shown_until_it_is_accepted(lists: Lists) -> None:
    first = lists("organizations", "diff")
    assert first.stdout == "nothing to compare with yet; 3 organizations are remembered from now on\n"
    was = lists.huntress.organizations[2]["name"]
    name(lists, 2, "Renamed")
    name(lists, 4, "Added")
    gone = lists.huntress.organizations.pop(3)["name"]
    for accept in ([], ["--accept"]):
        told = lists("organizations", "diff", *accept).stdout.splitlines()
        assert told[:3] == ["+ 4 Added", f"~ 2 {was} -> Renamed", f"- 3 {gone}"]
        assert told[3].startswith("1 added, 1 renamed, 1 removed since 20")
    assert lists("organizations", "diff").stdout.startswith("0 added, 0 renamed, 0 removed since")


def test_a_listing_that_breaks_off_shows_no_difference(lists: Lists) -> None:
    lists("organizations", "diff")
    lists.huntress.page_size_cap = 2
    lists.huntress.after_page = lambda request: lists.huntress.fault("status", path="/organizations$", status=500)
    result = lists("organizations", "diff", "--accept")
    assert (result.exit_code, result.stdout) == (1, "")
    lists.huntress.after_page = lambda request: None
    lists.huntress.faults.clear()
    assert lists("organizations", "diff").stdout.startswith("0 added, 0 renamed, 0 removed")


def test_a_running_bridge_compares_on_its_own(world: World, make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(world)
    process = bridge.start("run")
    wait_until(lambda: "organizations listed for the first time" in bridge.log())
    assert bridge.stop(process) == 0
    assert '"level": "error"' not in bridge.log()


# -- agents ------------------------------------------------------------------------------------------------------------


def test_agents_of_all_or_of_one_organization(lists: Lists) -> None:
    lists.huntress.page_size_cap = 2
    for number in range(1, 6):
        lists.huntress.agents[number] = scenario.agent(number, number % 2 + 1)
    rows = lists.json("agents", "list")
    assert sorted(row["id"] for row in rows) == [1, 2, 3, 4, 5]
    assert {row["id"] for row in lists.json("agents", "list", "--organization", "2")} == {1, 3, 5}
    one = next(row for row in rows if row["id"] == 1)
    assert one["mac_addresses"] == ["00:00:5e:00:53:01"]
    assert one["last_callback_at"] == "2026-03-02T08:12:42+00:00"

    table = list(csv.DictReader(io.StringIO(lists("agents", "list", "--csv").stdout)))
    assert {row["id"]: row["serial_number"] for row in table} == {str(row["id"]): row["serial_number"] for row in rows}
    text = lists("agents", "list").stdout.splitlines()
    assert len(text) == 6
    assert one["hostname"] in "\n".join(text)


def test_no_agents_are_an_empty_list(lists: Lists) -> None:
    assert lists.json("agents", "list") == []
    assert lists("agents", "list", "--csv").stdout.count("\n") == 1
    assert lists("agents", "list", "--csv", "--json").exit_code == 2


def test_an_array_that_broke_off_is_not_closed(lists: Lists) -> None:
    serve_agents(lists.huntress, 700)
    lists.huntress.fault("status", path="/agents$", about="after", status=500)
    result = lists("agents", "list", "--json")
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 500
    with pytest.raises(json.JSONDecodeError):
        json.loads(result.stdout)


def test_fifty_thousand_agents_in_flat_memory(lists: Lists) -> None:
    def listed(count: int) -> tuple[float, int]:
        """Peak megabytes of the process, and rows."""
        serve_agents(lists.huntress, count)
        output = lists.folder / "agents.csv"
        with output.open("wb") as stream:
            process = lists.process("agents", "list", "--csv", stdout=stream)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        with output.open(encoding="utf-8", newline="") as file:
            return usage.ru_maxrss / 1024, len({row["id"] for row in csv.DictReader(file)})

    few, count = listed(500)
    assert count == 500
    many, count = listed(50_000)
    assert count == 50_000
    assert many - few < FLAT, f"{few:.0f} MB for 500, {many:.0f} MB for 50,000"
    assert len(lists.huntress.requests_to("/agents$")) == 1 + 100


def test_a_reader_that_has_seen_enough_is_no_error(lists: Lists) -> None:
    serve_agents(lists.huntress, 20_000)
    with lists.process("agents", "list", "--csv", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"id,")
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    assert len(lists.huntress.requests_to("/agents$")) < 40


def test_waiting_for_the_budget_is_said(lists: Lists) -> None:
    lists.write(huntress=lists.huntress.settings(requests_per_minute=4))
    serve_agents(lists.huntress, 1500)
    with lists.process("agents", "list", "--csv", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        process.terminate()
    assert re.fullmatch(
        r"huntress: waiting: the budget of 4 requests a minute to Huntress is used up \(\d+ s\); commands take at most "
        r"half of it\n",
        told,
    )
    assert len(lists.huntress.requests_to("/agents$")) == 2


# -- memberships -------------------------------------------------------------------------------------------------------


def test_users_and_what_they_may_do(lists: Lists) -> None:
    rows = {row["membership_id"]: row for row in lists.json("memberships", "list")}
    assert (rows[1]["email"], rows[1]["permissions"], rows[1]["organization_id"]) == (
        "admin@example.com",
        "Admin",
        None,
    )
    assert (rows[2]["name"], rows[2]["permissions"], rows[2]["organization_id"]) == ("Robin Reader", "Read-only", 1)
    table = lists("memberships", "list").stdout
    assert re.search(r"^1 .*admin@example\.com +Admin +whole account", table, re.MULTILINE)


@pytest.mark.parametrize("status", [403, 404])
def test_a_key_that_may_not_list_users_is_told_so(lists: Lists, status: int) -> None:
    lists.huntress.fault("status", path="/memberships$", status=status)
    result = lists("memberships", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"({status})" in result.stderr
    assert "the permission to read users" in result.stderr
    assert result.stderr.count("\n") == 1


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["account", "organization"])
def test_open_reports_by_organization_and_urgency(lists: Lists, scope: str) -> None:
    lists.write(poll={"scope": scope})
    for number, organization, severity in ((1, 2, "low"), (2, 2, "critical"), (3, 1, "high"), (4, 3, "low")):
        lists.huntress.add_report(id=number, organization_id=organization, severity=severity)
    lists.huntress.close_report(4)
    rows = lists.json("reports", "list")
    assert [(row["report_id"], row["organization_id"]) for row in rows] == [(3, 1), (2, 2), (1, 2)]
    assert rows[0]["organization_name"] == lists.huntress.organizations[1]["name"]
    assert [row["report_id"] for row in lists.json("reports", "list", "--organization", "2")] == [2, 1]
    told = lists("reports", "list").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["3", "2", "1"]
    assert "critical" in told[1]


def test_reports_of_the_other_dialect(tmp_path: Path, redis_url: str) -> None:
    with PretendHuntress(organizations=3, dialect="reports") as huntress:
        lists = Lists(tmp_path, redis_url, huntress, {"oncall": MAIL})
        huntress.add_report(id=7, organization_id=2)
        (row,) = lists.json("reports", "list")
        assert (row["report_id"], row["organization_id"], row["severity"]) == (7, 2, None)
        huntress.fault("status", path="/reports$", about="^1$", status=500)
        broken = lists("reports", "list", "--json")
        assert (broken.exit_code, [row["report_id"] for row in json.loads(broken.stdout)]) == (1, [7])
        assert broken.stderr.startswith("organization 1: ")


def test_a_report_that_cannot_be_read_is_said(lists: Lists) -> None:
    lists.huntress.add_report(id=1)
    with lists.huntress.lock:
        lists.huntress.reports[2] = {"id": "two", "status": "sent", "sent_at": "2026-11-01T00:00:00Z"}
    result = lists("reports", "list", "--json")
    assert (result.exit_code, [row["report_id"] for row in json.loads(result.stdout)]) == (1, [1])
    assert "report without an id cannot be read" in result.stderr


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["organizations list", "organizations match psa", "organizations diff", "agents list", "reports list"]
)
def test_a_wrong_key_is_exit_code_2_and_never_shown(lists: Lists, command: str) -> None:
    lists.huntress.credentials = ("another-key", "another-secret")
    result = lists(*command.split())
    assert result.exit_code == 2
    assert result.stderr.startswith("huntress: Huntress did not accept the API key (401")
    assert "hs_pretend-secret" not in result.output


def test_without_credentials_nothing_is_asked(lists: Lists) -> None:
    lists.write(huntress={"base_url": f"{lists.huntress.url}/v1"})
    result = lists("agents", "list")
    assert result.exit_code == 2
    assert "huntress.api_key is empty" in result.stderr
    assert lists.huntress.received == []


# -- an account of thousands -------------------------------------------------------------------------------------------


def test_two_thousand_organizations_within_the_default_budget(tmp_path: Path, redis_url: str) -> None:
    crowd = Crowd()
    with crowd.huntress, crowd.connectwise, crowd.autotask:
        lists = Lists(tmp_path, redis_url, crowd.huntress, crowd.connectors())
        lists.write(huntress=crowd.huntress.settings(requests_per_minute=30))
        rows = lists.json("organizations", "list")
        assert [row["organization_id"] for row in rows] == list(range(1, ORGANIZATIONS + 1))
        ways = Counter((place["connector"], place["matched_by"]) for row in rows for place in row["companies"])
        rest = ORGANIZATIONS - BY_NAME
        assert ways == {
            ("psa", "name"): BY_NAME,
            ("desk", "name"): BY_NAME,
            ("psa", "catch-all"): rest,
            ("desk", "catch-all"): rest,
        }
        assert len(crowd.huntress.received) == 4
        assert len(crowd.connectwise.requests_to("/company/companies")) <= 6
        assert len(crowd.autotask.requests_to("/Companies")) <= 10

        for connector, first in (("psa", 10_000), ("desk", 20_000)):
            path = tmp_path / f"{connector}.csv"
            matched = lists("organizations", "match", connector, "--output", path)
            assert (matched.exit_code, len(path.read_text("utf-8").splitlines())) == (0, 1 + rest)
            file = OrganizationsFile.load(path)
            numbers = range(BY_NAME + 1, BY_NAME + OTHERWISE + 1)
            found = {number: row.company for number in numbers if (row := file.row(number, connector))}
            assert found == {number: str(first + number) for number in numbers}
            assert len(file.rows(connector)) == OTHERWISE
        assert len(crowd.huntress.received) == 12
        assert "waiting" not in matched.stderr
