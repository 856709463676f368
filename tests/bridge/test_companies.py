"""Which company an organization is: the file, an equal name, the catch-all; never a guess, never nothing unsaid."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.companies import REFRESH_INTERVAL, Companies, OrganizationsFile, OrganizationsFileError, Row
from bridge.models import Company, CompanyMatch, CompanySource, Note, Organization, Ticket, TicketRef
from connectors.base import (
    Connector,
    ConnectorContext,
    Finding,
    Misconfigured,
    NameOrId,
    Progress,
    PsaSettings,
    Rejected,
    TemplatePart,
    Unavailable,
)

HEADER = "organization_id,connector,company\n"


class Desk(Connector):
    """A ticket system with a list of companies; `None` for one that has none."""

    type = "desk"
    settings_class = PsaSettings

    def __init__(self, companies: Sequence[Company] | None, name: str = "psa") -> None:
        super().__init__(name, None, ConnectorContext())
        #: What the system has, and what the cache still shows.
        self.real = companies
        self.cached = companies
        self.listings = 0
        self.reachable = True

    def parts(self) -> Sequence[TemplatePart]:
        return ()

    def system(self) -> str:
        return "desk"

    def check(self) -> list[Finding]:
        return []

    def companies(self, fresh: bool = False) -> Sequence[Company] | None:
        if fresh:
            if not self.reachable:
                raise Unavailable("psa cannot be reached")
            self.listings += 1
            self.cached = self.real
        return self.cached

    def company(self, value: NameOrId) -> Company | None:
        if isinstance(value, int):
            found = [company for company in self.cached or () if company.id == str(value)]
        else:
            found = [company for company in self.cached or () if value in (company.identifier, company.name)]
        return found[0] if len(found) == 1 else None

    def find(self, reference: str) -> list[TicketRef]:
        return []

    def prepare(self, ticket: Ticket) -> Ticket:
        return ticket

    def create(self, prepared: Any, progress: Progress) -> TicketRef:
        raise Rejected("this desk takes no tickets")

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        raise Rejected("this desk takes no notes")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


ACME = Company("19", "Acme Corp", "ACME")
OTHER = Company("20", "Organization 20", "ORG20")
NUMBERED = Company("21", "4711", "N4711")
CATCHALL = Company("2", "Catchall", "Catchall")
TWIN_A, TWIN_B = Company("30", "Twin GmbH"), Company("31", "TWIN  gmbh")
ALL = (ACME, OTHER, NUMBERED, CATCHALL, TWIN_A, TWIN_B)
WITH_CATCH_ALL = PsaSettings(type="desk", default_company="Catchall")
WITHOUT = PsaSettings(type="desk")


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "organizations.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def load(folder: Path, text: str | bytes) -> OrganizationsFile:
    return OrganizationsFile.load(write(folder, text))


# The file.


@pytest.mark.parametrize(
    "text",
    [
        "organization_id,connector,company,recipients\n4,psa,ACME,\n5,oncall,Example,a@example.com b@example.com\n",
        "\ufefforganization_id,connector,company,recipients\r\n4,psa,ACME,\r\n\r\n5,oncall,Example,a@example.com;b@example.com",
        'organization_id;connector;company;recipients\n4;psa;ACME;\n\n5;oncall;Example;"a@example.com;b@example.com"\n',
        'Organization_ID , Connector,organization_name,recipients,company\n4,psa,"Acme, Inc",,ACME\n'
        '5,oncall,x,"a@example.com, b@example.com",Example\n',
        '"organization_id";"connector";"company";"recipients"\r4;psa;ACME\r'
        "5;oncall;Example;a@example.com b@example.com\r",
        "organization_id,connector,company,recipients,,\n4,psa, ACME ,,,\n,,,,,\n"
        "5,oncall,Example,a@example.com a@example.com b@example.com,,\n",
    ],
)
def test_forms_of_the_file(tmp_path: Path, text: str) -> None:
    file = load(tmp_path, text)
    psa, oncall = file.row(4, "psa"), file.row(5, "oncall")
    assert psa
    assert (psa.company, psa.recipients) == ("ACME", ())
    assert oncall
    assert (oncall.company, oncall.recipients) == ("Example", ("a@example.com", "b@example.com"))
    assert file.row(4, "oncall") is None
    assert file.row(6, "psa") is None


def test_rows_know_their_line(tmp_path: Path) -> None:
    file = load(tmp_path, HEADER + '\n4,psa,"Acme"\n5,psa,\n6,psa,Six\n4,desk,Four\n')
    assert file.rows("psa") == [Row("Acme", (), 3), Row("Six", (), 5)]
    assert file.row(5, "psa") is None
    assert file.connectors() == {"psa": 3, "desk": 6}


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["is empty; its first line names the columns: organization_id, connector, company"]),
        ("\n  \n", ["is empty"]),
        ("organization,connector,company\n", ["line 1: unknown column 'organization'; did you mean organization_", ""]),
        (HEADER.replace("company", "company,colour"), ["line 1: unknown column 'colour'; "]),
        ("organization_id,connector\n1,psa\n", ["line 1: column company missing"]),
        ("organization_id,connector,company,company\n", ["line 1: column company is there 2 times"]),
        (
            "4,psa,ACME\n",
            ["line 1: unknown column '4'", "line 1: unknown column 'psa'", "", "line 1: columns organization"],
        ),
        (HEADER + "four,psa,ACME\n", ["line 2: organization_id 'four' is not a whole number"]),
        (HEADER + "4.0,psa,ACME\n,psa,ACME\n", ["line 2: organization_id '4.0'", "line 3: organization_id ''"]),
        (HEADER + "٤,psa,ACME\n", ["line 2: organization_id"]),
        (HEADER + "4,PSA,ACME\n5,,ACME\n", ["line 2: connector 'PSA'", "line 3: connector ''"]),
        (
            HEADER + "\n4,psa,ACME\n5,psa,Other\n4,psa,ACME\n",
            ["line 5: organization 4 has a row for psa already, in line 3; keep one"],
        ),
        (HEADER + "4,psa,Acme, Inc\n", ["line 2: has 4 cells for 3 columns; put cells that contain ',' in quotation"]),
        (HEADER + '4,psa,"Acme\nInc"\n5,psa,x\n', ["line 2: company 'Acme\\nInc' contains line breaks"]),
        (HEADER + '4,psa,"Acme\n5,psa,x\n', ["line 2: cannot be read as CSV"]),
        (
            "organization_id,connector,company,recipients\n4,mail,A,a@example.com nobody b@x\n5,mail,B,x@y\\r@z\n",
            ["line 2: recipient 'nobody' is not a mail address", "line 3: recipient "],
        ),
        (HEADER + "x,psa,A\n4,psa,A\n4,psa,B\ny,,C\n", ["line 2:", "line 4:", "line 5: org", "line 5: connector"]),
        (HEADER.encode() + b"4,psa,Caf\xe9\n", ["is not UTF-8 text (byte 0xe9 in line 2); save it as CSV UTF-8"]),
        (HEADER.encode("utf-16"), ["is not UTF-8 text (it looks like UTF-16); save it as CSV UTF-8"]),
    ],
)
def test_every_mistake_in_the_file_is_named(tmp_path: Path, text: str | bytes, problems: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(OrganizationsFileError) as raised:
        OrganizationsFile.load(path)
    assert len(raised.value.problems) == len(problems)
    for problem, expected in zip(raised.value.problems, problems, strict=True):
        assert expected in problem
    assert str(raised.value).splitlines() == list(raised.value.problems)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OrganizationsFileError, match=r"cannot read .*nowhere\.csv \(No such file"):
        OrganizationsFile.load(tmp_path / "nowhere.csv")


# The company.


@pytest.mark.parametrize(
    ("cell", "company"),
    [("ACME", ACME), ("Acme Corp", ACME), ("20", OTHER), ("4711", NUMBERED)],
)
def test_the_file_comes_first(tmp_path: Path, cell: str, company: Company) -> None:
    companies = Companies(load(tmp_path, HEADER + f"4,psa,{cell}\n"), "exact")
    match = companies.match(Desk(ALL), WITHOUT, 4, Organization(4, "Catchall"))
    assert match == CompanyMatch(company, CompanySource.FILE)


def test_a_cell_of_digits_is_an_id_before_it_is_a_name(tmp_path: Path) -> None:
    named_like_an_id = Company("77", "19")
    companies = Companies(load(tmp_path, HEADER + "4,psa,19\n"), "exact")
    match = companies.match(Desk((*ALL, named_like_an_id)), WITHOUT, 4, None)
    assert match == CompanyMatch(ACME, CompanySource.FILE)


def test_a_catch_all_given_as_text_is_a_name_even_of_digits() -> None:
    named_like_an_id = Company("77", "19")
    desk = Desk((*ALL, named_like_an_id))
    by_name = Companies(None, "off").match(desk, PsaSettings(type="desk", default_company="19"), 4, None)
    by_id = Companies(None, "off").match(desk, PsaSettings(type="desk", default_company=19), 4, None)
    assert by_name
    assert by_id
    assert (by_name.company, by_id.company) == (named_like_an_id, ACME)


@pytest.mark.parametrize("name", ["Acme Corp", "ACME CORP", "  acme \t corp ", "Acme\u00a0Corp", "\uff21cme Corp"])
def test_an_equal_name_matches(name: str) -> None:
    match = Companies(None, "exact").match(Desk(ALL), WITHOUT, 4, Organization(4, name))
    assert match == CompanyMatch(ACME, CompanySource.NAME)


def test_sharp_s_and_composed_letters_are_equal() -> None:
    desk = Desk((Company("1", "Stra\u00dfe Cafe\u0301"),))
    match = Companies(None, "exact").match(desk, WITHOUT, 4, Organization(4, "STRASSE Caf\u00e9"))
    assert match
    assert match.company.id == "1"


@pytest.mark.parametrize("name", ["Acme", "Acme Corp.", "Acme Corp Inc", "Acme-Corp", "ACME  C0rp", "Corp Acme"])
def test_nothing_less_than_equal_matches(name: str) -> None:
    match = Companies(None, "exact").match(Desk(ALL), WITH_CATCH_ALL, 4, Organization(4, name))
    assert match == CompanyMatch(
        CATCHALL,
        CompanySource.CATCH_ALL,
        "it has no row in the organizations file, and no company has its name",
    )


@pytest.mark.parametrize(
    ("automatch", "organization_id", "organization", "reason"),
    [
        ("exact", 4, Organization(4, "twin GmbH"), "several companies have its name (ids 30, 31)"),
        ("exact", 4, Organization(4, ""), "its name is not known"),
        ("exact", 4, None, "its name is not known"),
        ("exact", None, None, "the report names no organization"),
        ("off", 4, Organization(4, "Acme Corp"), "matching by name is off"),
    ],
)
def test_the_catch_all_says_why(
    automatch: Any, organization_id: int | None, organization: Organization | None, reason: str
) -> None:
    companies = Companies(None, automatch)
    match = companies.match(Desk(ALL), WITH_CATCH_ALL, organization_id, organization)
    assert match
    assert (match.company, match.source) == (CATCHALL, CompanySource.CATCH_ALL)
    assert reason in match.reason
    with pytest.raises(
        Misconfigured, match=r"has no company in psa: .*, or set connectors\.psa\.default_company$"
    ) as no:
        companies.match(Desk(ALL), WITHOUT, organization_id, organization)
    assert reason in str(no.value)


def test_a_company_the_system_does_not_have_falls_to_the_catch_all(tmp_path: Path) -> None:
    companies = Companies(load(tmp_path, HEADER + "\n4,psa,ACNE\n"), "exact")
    organization = Organization(4, "Acme Corp")
    match = companies.match(Desk(ALL), WITH_CATCH_ALL, 4, organization)
    assert match == CompanyMatch(
        CATCHALL,
        CompanySource.CATCH_ALL,
        "organizations.csv, line 3, says 'ACNE', and psa has no single company of that id, identifier or name",
    )
    with pytest.raises(Misconfigured) as raised:
        companies.match(Desk(ALL), WITHOUT, 4, organization)
    assert str(raised.value) == (
        "organization 'Acme Corp' (id 4) has no company in psa: organizations.csv, line 3, says 'ACNE', and psa has no "
        "single company of that id, identifier or name; add a row to organizations.csv, or set "
        "connectors.psa.default_company"
    )


def test_a_catch_all_that_is_not_there_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match=r"^connectors\.psa\.default_company = 'Nobody' is no company"):
        Companies(None, "exact").match(Desk(ALL), PsaSettings(type="desk", default_company="Nobody"), 4, None)


# Fresh listings.


def test_a_company_made_a_moment_ago_is_found() -> None:
    desk = Desk(ALL)
    desk.real = (*ALL, Company("50", "Organization 50"))
    match = Companies(None, "exact").match(desk, WITHOUT, 4, Organization(4, "Organization 50"))
    assert match
    assert (match.company.id, desk.listings) == ("50", 1)


def test_a_company_of_the_file_made_a_moment_ago_is_found(tmp_path: Path) -> None:
    desk = Desk(ALL)
    desk.real = (*ALL, Company("50", "Organization 50"))
    match = Companies(load(tmp_path, HEADER + "4,psa,50\n"), "off").match(desk, WITHOUT, 4, None)
    assert match
    assert (match.company.id, desk.listings) == ("50", 1)


def test_misses_cost_one_listing_per_interval_and_connector() -> None:
    clock = Clock()
    companies = Companies(None, "exact", clock)
    desk, other = Desk(ALL), Desk(ALL, name="other")
    for number in range(20):
        companies.match(desk, WITH_CATCH_ALL, number + 1, Organization(number + 1, "Nobody"))
    assert desk.listings == 1
    companies.match(other, WITH_CATCH_ALL, 1, Organization(1, "Nobody"))
    assert other.listings == 1
    clock.now += REFRESH_INTERVAL - 1
    companies.match(desk, WITH_CATCH_ALL, 1, Organization(1, "Nobody"))
    assert desk.listings == 1
    clock.now += 1
    companies.match(desk, WITH_CATCH_ALL, 1, Organization(1, "Nobody"))
    assert desk.listings == 2


def test_a_listing_that_fails_passes_through_and_does_not_count() -> None:
    desk = Desk(ALL)
    desk.reachable = False
    companies = Companies(None, "exact", Clock())
    for _ in range(2):
        with pytest.raises(Unavailable):
            companies.match(desk, WITH_CATCH_ALL, 4, Organization(4, "Organization 50"))
    desk.reachable = True
    desk.real = (*ALL, Company("50", "Organization 50"))
    match = companies.match(desk, WITH_CATCH_ALL, 4, Organization(4, "Organization 50"))
    assert match
    assert match.source is CompanySource.NAME


def test_threads_that_miss_at_once_share_one_listing() -> None:
    desk = Desk(ALL)
    desk.real = (*ALL, Company("50", "Organization 50"))
    companies = Companies(None, "exact")
    found: list[CompanyMatch | None] = []
    start = threading.Barrier(8)

    def miss() -> None:
        start.wait(10)
        found.append(companies.match(desk, WITH_CATCH_ALL, 4, Organization(4, "Organization 50")))

    threads = [threading.Thread(target=miss) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [match.source for match in found if match] == [CompanySource.NAME] * 8
    assert desk.listings == 1


# Systems without companies.


def test_for_mail_the_company_is_text_and_recipients_come_from_the_file(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        "organization_id,connector,company,recipients\n4,oncall,Acme (gold),a@example.com b@example.com\n"
        "5,oncall,,c@example.com\n",
    )
    companies = Companies(file, "exact")
    mail = Desk(None, name="oncall")
    assert companies.match(mail, WITHOUT, 4, Organization(4, "Acme Corp")) == CompanyMatch(
        Company("Acme (gold)", "Acme (gold)"), CompanySource.FILE
    )
    assert companies.match(mail, WITHOUT, 5, Organization(5, "Organization 5")) is None
    assert companies.match(mail, WITHOUT, None, None) is None
    assert companies.recipients("oncall", 4) == ("a@example.com", "b@example.com")
    assert companies.recipients("oncall", 5) == ("c@example.com",)
    assert companies.recipients("oncall", 6) == companies.recipients("oncall", None) == ()
    assert Companies(None, "exact").recipients("oncall", 4) == ()


def test_rows_for_the_check_are_those_with_a_company(tmp_path: Path) -> None:
    file = load(tmp_path, "organization_id,connector,company,recipients\n5,psa,,c@example.com\n6,psa,Six,\n")
    assert Companies(file, "exact").rows("psa") == [Row("Six", (), 3)]
    assert Companies(None, "exact").rows("psa") == []
