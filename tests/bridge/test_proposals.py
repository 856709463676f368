"""Companies that are proposed to a person: the one that stands out, never one that is somebody else's."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bridge.csv_output import inert
from bridge.models import Company, Organization
from bridge.organizations_file import OrganizationsFile
from bridge.proposals import COLUMNS, Proposal, proposals_csv, propose

COMPANIES = [
    Company("11", "Northwind Dental, Inc.", "NWD"),
    Company("12", "Contoso Legal LLP", "CONTOSO"),
    Company("13", "Fabrikam Clinic 4", "FAB4"),
    Company("14", "Tailspin Toys East", "TTE"),
    Company("15", "Tailspin Toys West", "TTW"),
    Company("16", "Müller Präzision GmbH", "MUELLER"),
    Company("17", "O'Brien & Sons", "OBRIEN"),
]


def proposed(name: str, taken: dict[str, int] | None = None) -> Proposal:
    (proposal,) = propose([Organization(1, name)], COMPANIES, taken or {})
    return proposal


@pytest.mark.parametrize(
    ("name", "company"),
    [
        ("northwind dental", "11"),  # a legal form more or less
        ("Dental Northwind Ltd", "11"),  # the order of the words
        ("Nortwind Dental", "11"),  # a letter
        ("Muller Prazision", "16"),  # accents
        ("OBrien and Sons", "17"),
        ("Fabrikam Clinic 4 LLC", "13"),
        ("Fabrikam Clinic 5", ""),  # another number is another customer
        ("Tailspin Toys", ""),  # two fit alike
        ("Contoso", ""),  # half a name
        ("Woodgrove Bank", ""),
        ("", ""),
        ("***", ""),
    ],
)
def test_a_company_is_proposed_only_where_it_stands_out(name: str, company: str) -> None:
    found = proposed(name).company
    assert (found.id if found else "") == company


def test_what_comes_near_is_shown_although_it_is_not_proposed() -> None:
    proposal = proposed("Tailspin Toys")
    assert proposal.company is None
    assert {candidate.company.id for candidate in proposal.candidates[:2]} == {"14", "15"}
    row = read([proposal])[0]
    assert (row["company"], row["score"]) == ("", "")
    assert "Tailspin Toys East (id 14)" in row["candidates"]
    assert "Tailspin Toys West (id 15)" in row["candidates"]
    assert read([proposed("Zzyzx")])[0]["candidates"] == "nothing alike"


def test_a_company_that_is_another_organizations_is_never_proposed() -> None:
    proposal = proposed("Northwind Dental", taken={"11": 77})
    assert proposal.company is None
    assert "Northwind Dental, Inc. (id 11, is organization 77)" in read([proposal])[0]["candidates"]


def test_two_organizations_are_not_proposed_the_same_company() -> None:
    surest, other = propose([Organization(1, "Northwnd Dental"), Organization(2, "Northwind Dental")], COMPANIES, {})
    assert (surest.organization.id, surest.company) == (2, COMPANIES[0])
    assert (other.organization.id, other.company) == (1, None)
    assert other.candidates[0].taken_by == 2


def test_the_surest_come_first() -> None:
    names = ("Woodgrove", "Nortwind Dental", "Contoso Legal")
    ranked = propose([Organization(number, name) for number, name in enumerate(names, 1)], COMPANIES, {})
    assert [proposal.organization.name for proposal in ranked] == ["Contoso Legal", "Nortwind Dental", "Woodgrove"]
    assert ranked[0].score == 100


# -- as CSV ------------------------------------------------------------------------------------------------------------

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    "＝cmd",
    "\t=1+1",
    "two\nlines\r\n=1+1",
    'quoted " and , and ; =1+1',
    'x";=cmd|" /C calc"!A0',
    "\x1b[31mred\x9b\x07",
    "invoice\u202efdp.exe",
    "a\u2028=b",
)


def read(proposals: list[Proposal]) -> list[dict[str, str]]:
    text = "".join(proposals_csv("psa", proposals))
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_hostile_names_are_plain_text_in_every_spreadsheet(name: str, delimiter: str) -> None:
    """Also where the spreadsheet takes another mark for the end of a cell than the file does."""
    company = Company("21", name, name)
    proposals = propose([Organization(5, name)], [company], {})
    text = "".join(proposals_csv("psa", proposals))
    assert text.count("\n") == 2
    assert all(character.isprintable() for character in text.replace("\n", ""))
    cells = [cell.strip() for row in csv.reader(io.StringIO(text), delimiter=delimiter) for cell in row]
    assert [cell for cell in cells if cell.lstrip('"').startswith(("=", "+", "-", "@", "＝"))] == []


def test_the_configuration_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "organizations.csv"
    organizations = [
        Organization(1, "Northwind Dental"),
        Organization(2, "Woodgrove"),
        *(Organization(10 + number, name) for number, name in enumerate(HOSTILE)),
    ]
    path.write_text("".join(proposals_csv("psa", propose(organizations, COMPANIES, {}))), "utf-8")
    file = OrganizationsFile.load(path)
    assert path.read_text("utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert [row.company for row in file.rows("psa")] == ["11"]
    row = file.row(1, "psa")
    assert row is not None
    assert row.company == "11"
    assert file.row(2, "psa") is None


def test_plain_text_stays_as_it_is() -> None:
    for text in ("Acme, Inc.", "A-B Consulting", "2026-01-02", "192.0.2.1", "Müller & Söhne; Köln", "a=b"):
        assert inert(text) == text
