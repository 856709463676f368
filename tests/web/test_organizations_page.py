"""The page Organizations: how each is mapped, and proposals that a person accepts into the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.demo import scenario
from bridge.models import Company, Organization
from bridge.organizations_file import OrganizationsFile
from bridge.settings import load
from bridge.web.company_lookups import LookUp
from tests.bridge.stage import MakeStage, Stage, Systems
from tests.end_to_end.test_hostile import BIDI, MARKUP, TEMPLATE
from tests.web.conftest import Page, words

NAMES = {1: "Acme Corp", 2: "Northwnd Dental", 3: "Zzyzx"}
HEADER = "organization_id,connector,company"


@pytest.fixture
def systems() -> Iterator[Systems]:
    systems = Systems()
    companies = [(1, "Catchall", "Catchall"), (10, "ACME", "Acme Corp"), (11, "NWD", "Northwind Dental, Inc.")]
    systems.connectwise.companies = companies
    with systems.running():
        yield systems


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "organizations.csv"
    path.write_text(f"{HEADER}\n", "utf-8")
    return path


@pytest.fixture
def stage(make: MakeStage, file: Path) -> Stage:
    return ready(make("psa", "oncall", tables={"organizations": {"file": str(file)}}))


@pytest.fixture
def page(stage: Stage) -> Page:
    return Page(stage)


def ready(stage: Stage) -> Stage:
    stage.runtime.books.save_organizations(Organization(id, name) for id, name in NAMES.items())
    return stage


def line(html: str, name: str) -> str:
    """What the list says about one organization."""
    (row,) = [row for row in re.findall("<tr>.*?</tr>", html, re.DOTALL) if name in row]
    return words(row)


def look_up(page: Page, to: str = "list") -> str:
    return page.press("/organizations/psa/look-up", to=to)


def form(html: str, **fields: str | list[str]) -> dict[str, Any]:
    edition = re.search(r'name="edition" value="([^"]*)"', html)
    assert edition is not None
    return {"edition": edition[1], **fields}


def test_nothing_is_asked_until_a_person_asks(page: Page, systems: Systems) -> None:
    html = page.get("/organizations")
    assert "not looked up choose" in line(html, "Zzyzx")
    assert "not looked up yet" in words(html)
    assert "psa has to be looked up first to tell" in words(page.get("/organizations?show=unmapped"))
    assert systems.connectwise.received == []


def test_each_organization_has_its_company_and_how_it_was_found(page: Page, stage: Stage, file: Path) -> None:
    file.write_text(f"{HEADER},recipients\n2,psa,11,\n3,oncall,,a@example.com\n", "utf-8")
    assert stage.runtime.reload()
    html = look_up(page)
    assert "Acme Corp id 10 name" in line(html, "Acme Corp")
    assert "Northwind Dental, Inc. id 11 file" in line(html, "Northwnd")
    assert "Catchall id 1 catch-all it has no row" in line(html, "Zzyzx")
    assert "a@example.com file" in line(html, "Zzyzx")
    assert "1 without a company of its own" in words(html)
    assert "3 companies, looked up" in words(html)


def test_a_look_at_the_list_asks_no_ticket_system(page: Page, systems: Systems) -> None:
    look_up(page)
    asked = len(systems.connectwise.received)
    for path in ("/organizations", "/organizations/psa/proposals", "/organizations/psa/3"):
        page.get(path)
    assert len(systems.connectwise.received) == asked


def test_a_look_up_that_fails_says_so_and_the_list_stays(page: Page, systems: Systems) -> None:
    systems.connectwise.stop()
    html = look_up(page)
    assert "The look-up failed" in words(html)
    assert "Zzyzx" in html
    assert "are needed for proposals" in page.get("/organizations/psa/proposals")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {1, 2, 3}),
        ("?text=acme", {1}),
        ("?text=CATCHALL", {2, 3}),
        ("?text=3", {3}),
        ("?show=unmapped", {2, 3}),
        ("?show=incidents", {2}),
        ("?show=unsettled", {2}),
        ("?show=nonsense&text=zz", {3}),
        ("?text=nobody", set()),
        ("?page=7", {1, 2, 3}),
    ],
)
def test_the_list_is_narrowed(page: Page, stage: Stage, query: str, shown: set[int]) -> None:
    stage.report(1, organization_id=2, connectors=["psa"])
    page.site.index.fill()
    look_up(page)
    html = page.get(f"/organizations{query}")
    assert {id for id, name in NAMES.items() if f"<strong>{name}<" in html} == shown


def test_deliveries_are_counted_and_lead_to_their_list(page: Page, stage: Stage) -> None:
    stage.report(1, 2, organization_id=2)
    page.site.index.fill()
    html = page.get("/organizations")
    said = line(html, "Northwnd").split("recipients ")[1]
    assert said.startswith("4 deliveries of Northwnd Dental in 30 days 4 4 deliveries of Northwnd Dental that wait")
    assert 'href="/deliveries?organization=2"' in html
    assert line(html, "Zzyzx").endswith("0 0 0")


def test_organizations_that_are_left_out_say_so(make: MakeStage) -> None:
    page = Page(ready(make("psa", tables={"organizations": {"disabled": [3]}})))
    html = page.get("/organizations")
    assert "not served" in line(html, "Zzyzx")
    assert "not served" not in line(html, "Acme")


def test_a_proposal_is_accepted_into_the_file(page: Page, stage: Stage, file: Path) -> None:
    html = look_up(page, to="proposals")
    assert "2 organizations have no company of their own in psa; a company stands out for 1" in words(html)
    assert "Acme" not in words(html).split("Nothing of this is used")[1].split("Northwind")[0]
    answer = page.press("/organizations/psa/accept", **form(html, take="2", **{"company-2": "11"}))
    assert "1 row written to organizations.csv" in words(answer)
    assert file.read_text("utf-8") == f"{HEADER}\n2,psa,11\n"
    assert "1 organization has no company of its own in psa" in words(answer), "it is offered although it is done"
    assert "Northwind Dental, Inc. id 11 file" in line(page.get("/organizations"), "Northwnd")
    assert stage.runtime.reload()
    row = stage.runtime.assembly.companies.row("psa", 2)
    assert row is not None
    assert row.company == "11"


def test_many_are_accepted_at_once_and_another_company_is_chosen_by_search(page: Page, file: Path) -> None:
    look_up(page)
    html = page.get("/organizations/psa/3?q=northwind")
    assert "Northwind Dental, Inc." in html
    assert "Acme Corp" not in html
    fields = form(html, take=["2", "3"], **{"company-2": "11", "company-3": "1"})
    assert "2 rows written" in page.press("/organizations/psa/accept", **fields)
    loaded = OrganizationsFile.load(file)
    assert [row.company for id in (2, 3) if (row := loaded.row(id, "psa"))] == ["11", "1"]
    assert "its company now" in page.get("/organizations/psa/3?q=catchall")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "No organization is marked"),
        ({"take": "2"}, "No company is chosen for Northwnd Dental"),
        ({"take": "2", "company-2": "999"}, "No company is chosen for Northwnd Dental"),
        ({"take": "77", "company-77": "11"}, "No company is chosen for 77"),
        ({"take": "9" * 5000, "company-1": "11"}, "No company is chosen for 9999"),
        ({"take": "x<b>", "company-x<b>": "11"}, "No company is chosen for x&lt;b&gt;"),
    ],
)
def test_what_makes_no_row_is_refused(page: Page, file: Path, fields: dict[str, str], said: str) -> None:
    html = look_up(page, to="proposals")
    assert said in page.press("/organizations/psa/accept", **form(html, **fields))
    assert file.read_text("utf-8") == f"{HEADER}\n"


def test_a_file_that_changed_meanwhile_is_left_alone_and_the_rows_are_shown(page: Page, file: Path) -> None:
    html = look_up(page, to="proposals")
    file.write_text(f"{HEADER}\n1,psa,10\n", "utf-8")
    fields = form(html, take="2", **{"company-2": "11"})
    answer = page.post("/organizations/psa/accept", status=409, **fields).get_data(as_text=True)
    assert "was changed by somebody else" in answer
    assert "2,psa,11,Northwnd Dental" in answer
    assert file.read_text("utf-8") == f"{HEADER}\n1,psa,10\n"


def test_a_broken_file_is_told_and_the_list_goes_on(page: Page, file: Path) -> None:
    file.write_text(f"{HEADER}\nx,psa,<b>1\n", "utf-8")
    html = page.get("/organizations")
    assert "The organizations file is refused" in words(html)
    assert "line 2: organization_id 'x' is not a whole number" in words(html)
    assert "Acme Corp" in html


def test_without_a_file_the_rows_are_a_download(make: MakeStage) -> None:
    page = Page(ready(make("psa")))
    assert "No organizations file is configured" in words(page.get("/organizations"))
    html = look_up(page, to="proposals")
    answer = page.post("/organizations/psa/accept", status=200, **form(html, take="2", **{"company-2": "11"}))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="organizations.csv"'
    assert answer.get_data(as_text=True).splitlines()[1:] == ['2,psa,11,Northwnd Dental,"Northwind Dental, Inc."']


def test_a_changed_configuration_makes_the_look_up_anew(page: Page, stage: Stage) -> None:
    look_up(page)
    text = stage.config.read_text("utf-8").replace('default_company = "Catchall"', 'default_company = "Acme Corp"')
    stage.config.write_text(text, "utf-8")
    assert load(stage.config, environ={}).connectors["psa"] != stage.service("psa").settings
    assert stage.runtime.reload()
    page.get("/organizations")
    look_up(page)
    assert "Acme Corp id 10 catch-all" in line(page.get("/organizations"), "Zzyzx")


@pytest.mark.parametrize("name", [MARKUP, TEMPLATE, BIDI, "=cmd|' /C calc'!A0", 'x" onfocus="alert(1)'])
def test_hostile_names_are_inert(page: Page, stage: Stage, systems: Systems, file: Path, name: str) -> None:
    systems.connectwise.companies.append((66, f"EVIL{name}", f"{name} Inc"))
    stage.runtime.books.save_organizations([Organization(9, f"{name} Ltd")])
    html = look_up(page, to="proposals")
    pages = [html, page.get("/organizations"), page.get("/organizations/psa/9")]
    for each in pages:
        assert "<script>alert" not in each
        assert "<img src=x" not in each
        assert "evil.example/'>" not in each
        assert all(character.isprintable() for character in each if character != "\n")
    page.post("/organizations/psa/accept", **form(html, take="9", **{"company-9": "66"}))
    assert file.read_text("utf-8").splitlines()[1] == "9,psa,66"
    assert "file" in line(page.get("/organizations"), "id 9<")


def test_unknown_connectors_and_organizations_are_no_pages(page: Page) -> None:
    for path in ("nobody/proposals", "oncall/proposals", "psa/77", "psa/x"):
        page.get(f"/organizations/{path}", status=404)
    page.post("/organizations/oncall/look-up", status=404)
    assert "have to be looked up first" in page.press("/organizations/psa/accept", take="2")


def test_a_search_finds_ids_identifiers_parts_of_names_and_likeness() -> None:
    companies = [Company("5", "Alpine Ski House", "ASH"), Company("50", "Lucerne Publishing", "LP"), *_many()]
    known = LookUp(companies, {}, {}, (), None)  # type: ignore[arg-type]
    found = {
        text: [company.id for company in known.search(text)] for text in ("5", "ash", "ski", "Lucern publishng", "")
    }
    assert found["5"][0] == "5"
    assert found["ash"][0] == "5"
    assert found["ski"][0] == "5"
    assert found["Lucern publishng"][0] == "50"
    assert found[""] == []


def _many() -> list[Company]:
    return [Company(str(raw["id"] + 1000), raw["name"]) for raw in scenario.organizations(50)]
