"""What changed among the organizations since last time, and companies made for those without one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.bookkeeping import Bookkeeping
from bridge.broker import store_client
from bridge.companies import normalized
from bridge.delivery import Service
from bridge.demo import scenario
from bridge.demo.huntress import PretendHuntress
from bridge.demo.run import toml
from bridge.demo.server import Received
from bridge.huntress import SourceError, SourceGarbled, SourceRefused
from bridge.idempotency import IdempotencyStore
from bridge.leadership import Leadership
from bridge.models import Company, Organization
from bridge.organization_sync import BROKE_OFF_AFTER, Changes, OrganizationSync
from bridge.runtime import Runtime
from bridge.settings import load
from connectors.base import Only, OutcomeUnknown, PsaSettings, Rejected
from tests.bridge.test_companies import Desk

HOURS = 3600.0


class Maker(Desk):
    """A ticket system that makes companies, and keeps the reference of each."""

    def __init__(self, *names: str) -> None:
        super().__init__([Company(str(number), name) for number, name in enumerate(names, 1)])
        self.references: dict[str, Company] = {}
        #: What it does with the organization instead.
        self.refusal: Callable[[Organization], Exception | None] = lambda organization: None
        self.named_as: Callable[[str], str] = str

    def create_company(self, organization: Organization, reference: str) -> Company:
        refusal = self.refusal(organization)
        if refusal is not None:
            raise refusal
        if reference not in self.references:
            company = Company(str(len(self.real or ()) + 1), self.named_as(organization.name))
            self.references[reference] = company
            self.real = [*(self.real or ()), company]
        return self.references[reference]

    @property
    def made(self) -> dict[str, str]:
        """Name by reference."""
        return {reference: company.name for reference, company in self.references.items()}


class Ground:
    """A process that leads the polling, with one connector of the test's own in the place of a configured one."""

    def __init__(self, redis_url: str, folder: Path, huntress: PretendHuntress, desk: Maker, **tables: Any) -> None:
        self.huntress, self.desk = huntress, desk
        config = folder / "bridge.toml"
        psa = {"type": "connectwise", "url": "https://psa.example.com", "company_id": "msp", "public_key": "public"}
        psa |= {"private_key": "private", "client_id": "00000000-0000-4000-8000-000000000000", "board": "Security"}
        whole: dict[str, Any] = {"huntress": huntress.settings(), "redis": {"url": redis_url}}
        whole |= {"connectors": {"psa": psa}, "organizations": {"create_companies": ["psa"]}} | tables
        config.write_text(toml(whole), "utf-8")
        self.runtime = Runtime(load(config, environ={}))
        self.only: list[int] = []

    def __enter__(self) -> Ground:
        runtime = self.runtime.__enter__()
        self.store: IdempotencyStore = runtime.store
        self.books: Bookkeeping = runtime.books
        self.leadership = Leadership(self.store, "poller", patience=1e9)
        assert self.leadership.attempt()
        self.books.save_poll(last_complete_at=self.store.now())
        self.sync = OrganizationSync(self.store, self.books, self.assembly, runtime.routes, self.leadership)
        return self

    def __exit__(self, *_: object) -> None:
        self.leadership.stop()
        self.runtime.__exit__()

    def assembly(self) -> Any:
        real = self.runtime.assembly
        settings = PsaSettings(type="desk", only=Only(organizations=self.only))
        service = Service("psa", self.desk, settings, real.services["psa"].renderer)
        return SimpleNamespace(
            settings=real.settings, services={"psa": service}, companies=real.companies, source=real.source
        )

    def name(self, number: int, name: str) -> None:
        """Adds the organization, or gives it another name."""
        with self.huntress.lock:
            self.huntress.organizations[number] = scenario.organization(number, name=name)

    def remembered(self) -> Mapping[int, Organization]:
        baseline = self.books.baseline("sync")
        assert baseline is not None
        return baseline.organizations


@pytest.fixture
def huntress() -> Iterator[PretendHuntress]:
    with PretendHuntress() as server:
        for number, name in enumerate(("Acme", "Binford", "Cyberdyne"), 1):
            server.organizations[number] = scenario.organization(number, name=name)
        yield server


@pytest.fixture
def desk() -> Maker:
    return Maker("Acme", "Binford", "Cyberdyne")


@pytest.fixture
def make_ground(redis_url: str, tmp_path: Path, huntress: PretendHuntress, desk: Maker) -> Callable[..., Ground]:
    return lambda **tables: Ground(redis_url, tmp_path, huntress, desk, **tables)


@pytest.fixture
def ground(make_ground: Callable[..., Ground]) -> Iterator[Ground]:
    with make_ground() as ground:
        yield ground


def events(logs: list[Any]) -> list[tuple[str, int]]:
    """(event, organization id) of each line about one organization."""
    return [(line["event"], line["organization_id"]) for line in logs if "organization_id" in line]


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_added_renamed_and_removed_are_told_by_id() -> None:
    one, two, other, three = (Organization(1, "A"), Organization(2, "B"), Organization(2, "C"), Organization(3, "D"))
    changes = Changes.between({1: one, 2: two}, {2: other, 3: three})
    assert changes == Changes(added=(three,), renamed=((two, other),), removed=(one,))
    assert str(changes) == "1 added, 1 renamed, 1 removed"
    assert changes
    assert not Changes.between({1: one}, {1: Organization(1, "A", "another-key")})


def test_the_first_look_has_nothing_to_compare_with(ground: Ground) -> None:
    with capture_logs() as logs:
        assert ground.sync.sync() == Changes()
    assert [line["event"] for line in logs if line["event"] != "request"] == ["organizations listed for the first time"]
    assert {one.name for one in ground.remembered().values()} == {"Acme", "Binford", "Cyberdyne"}


def test_every_change_is_logged_once(ground: Ground, huntress: PretendHuntress, desk: Maker) -> None:
    ground.sync.sync()
    desk.real = [*(desk.real or ()), Company("4", "Bluth"), Company("5", "Duff")]
    ground.name(2, "Bluth")
    ground.name(4, "Duff")
    with huntress.lock:
        del huntress.organizations[3]
    with capture_logs() as logs:
        changes = ground.sync.sync()
    assert (len(changes.added), len(changes.renamed), len(changes.removed)) == (1, 1, 1)
    assert events(logs) == [("organization added", 4), ("organization renamed", 2), ("organization removed", 3)]
    with capture_logs() as logs:
        assert ground.sync.sync() == Changes()
    assert [line["event"] for line in logs if line["event"] != "request"] == []


@pytest.mark.parametrize("broken", ["status", "garbled"])
def test_a_listing_that_breaks_off_removes_nobody(ground: Ground, huntress: PretendHuntress, broken: str) -> None:
    huntress.page_size_cap = 2
    ground.sync.sync()
    before = ground.remembered()

    def on_first_page(request: Received) -> None:
        if request.path.endswith("/organizations"):
            if broken == "status":
                huntress.fault("status", path="/organizations$", status=500, times=1)
            else:
                huntress.organizations[1] = {"name": "Acme"}  # on the second page, without its id

    huntress.after_page = on_first_page
    with pytest.raises(SourceError):
        ground.sync.sync()
    assert ground.remembered() == before


def test_an_organization_that_cannot_be_read_is_not_taken_for_removed(
    ground: Ground, huntress: PretendHuntress
) -> None:
    ground.sync.sync()
    with huntress.lock:
        huntress.organizations[2] = {"id": "two", "name": "Binford"}
    with pytest.raises(SourceGarbled, match="one of which cannot be read"):
        ground.sync.sync()
    assert 2 in ground.remembered()


def test_another_accounts_key_removes_nobody(ground: Ground, huntress: PretendHuntress) -> None:
    ground.sync.sync()
    ground.store.remember({"account_id": "5"})
    huntress.account["id"] = 6
    with pytest.raises(SourceRefused, match="belongs to Huntress account 6, but this store is of account 5"):
        ground.sync.sync()
    assert len(ground.remembered()) == 3


# -- on schedule -------------------------------------------------------------------------------------------------------


def test_it_looks_every_six_hours_and_after_an_error_no_sooner(ground: Ground, huntress: PretendHuntress) -> None:
    assert ground.sync.look() == Changes()
    ground.store.clock_offset += 6 * HOURS - 5
    assert ground.sync.look() is None
    ground.store.clock_offset += 10
    huntress.fault("status", path="/organizations$", status=500, times=1)
    with pytest.raises(SourceError):
        ground.sync.look()
    ground.store.clock_offset += 60
    assert ground.sync.look() is None
    ground.store.clock_offset += 6 * HOURS
    assert ground.sync.look() == Changes()


def test_a_sync_that_broke_off_is_begun_again_after_ten_minutes(ground: Ground) -> None:
    def deposed(organization: Organization) -> None:
        ground.leadership.stop()

    ground.name(9, "Nobody's")
    ground.name(10, "Nobody Else's")
    ground.desk.refusal = deposed
    assert ground.sync.look() is not None
    assert len(ground.desk.made) == 1
    assert ground.leadership.attempt()
    ground.store.clock_offset += BROKE_OFF_AFTER - 5
    assert ground.sync.look() is None
    ground.store.clock_offset += 10
    ground.desk.refusal = lambda organization: None
    assert ground.sync.look() is not None
    assert len(ground.desk.made) == 2
    ground.store.clock_offset += BROKE_OFF_AFTER + 5
    assert ground.sync.look() is None


def test_only_the_leader_looks_and_only_after_a_complete_poll(ground: Ground, huntress: PretendHuntress) -> None:
    ground.books.save_poll(last_complete_at=None)
    assert ground.sync.look() is None
    ground.books.save_poll(last_complete_at=ground.store.now())
    ground.leadership.stop()
    assert ground.sync.look() is None
    assert huntress.requests_to("/organizations$") == []
    ground.leadership.attempt()
    assert ground.sync.look() is not None


def test_its_thread_survives_errors(ground: Ground, huntress: PretendHuntress, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(threading.Event):
        rounds = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.rounds += 1
            ground.store.clock_offset += 7 * HOURS
            assert ground.leadership.attempt()
            return self.rounds > 3

    huntress.fault("status", path="/organizations$", status=500, times=1)
    ground.desk.refusal = lambda organization: ValueError("a bug")
    ground.name(9, "Nobody's")
    with capture_logs() as logs:
        ground.sync.run(Counted())
    told = [line["event"] for line in logs if line["log_level"] == "error"]
    assert (
        told
        == ["cannot compare the organizations; next try on schedule"]
        + ["an error inside the sync of the organizations"] * 2
    )


# -- making companies --------------------------------------------------------------------------------------------------


def test_missing_companies_are_made_once_by_reference(ground: Ground, desk: Maker) -> None:
    ground.name(4, "Duff")
    ground.sync.sync()
    assert desk.made == {"huntress-org-4": "Duff"}
    ground.sync.sync()
    assert [company.name for company in desk.real or ()].count("Duff") == 1


def test_a_new_company_is_seen_at_once(ground: Ground, desk: Maker) -> None:
    """The catch-all would take its tickets for as long as the old listing is believed."""
    ground.name(4, "Duff")
    ground.sync.sync()
    assert [company.id for company in ground.assembly().companies.named(desk, "duff")] == ["4"]


def test_no_company_is_made_that_is_not_asked_for(make_ground: Callable[..., Ground], desk: Maker) -> None:
    with make_ground(organizations={}) as ground:
        ground.name(4, "Duff")
        ground.sync.sync()
    assert desk.made == {}


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("in the file", []),  # also when the ticket system has no such company: a person has decided
        ("not served", []),
        ("not for this connector", []),
        ("no name", [("no company is made for an organization", 4)]),
        ("two of that name", [("no company is made for an organization", 4)] * 2),
        ("spelt otherwise", []),
    ],
)
def test_whoever_needs_none_gets_none(
    make_ground: Callable[..., Ground], desk: Maker, tmp_path: Path, case: str, told: list[tuple[str, int]]
) -> None:
    table: dict[str, Any] = {"create_companies": ["psa"]}
    name = {"no name": "", "spelt otherwise": "ＡＣＭＥ  "}.get(case, "Duff")
    if case == "in the file":
        path = tmp_path / "organizations.csv"
        path.write_text("organization_id,connector,company\n4,psa,No such company\n", "utf-8")
        table["file"] = str(path)
    if case == "not served":
        table["disabled"] = [4]
    with make_ground(organizations=table) as ground:
        ground.only = [1, 2, 3] if case == "not for this connector" else []
        ground.name(4, name)
        if case == "two of that name":
            ground.name(5, "duff")
        with capture_logs() as logs:
            ground.sync.sync()
    assert desk.made == {}
    assert [event.split(":")[0] for event, _ in events(logs)] == [event for event, _ in told]


def test_a_ticket_system_that_shows_no_companies_gets_none(ground: Ground, desk: Maker) -> None:
    """An API user without the right to see them would make every customer a second time."""
    desk.real = []
    with capture_logs() as logs:
        ground.sync.sync()
    assert desk.made == {}
    assert "shows none at all" in logs[-1]["event"]


def test_a_ticket_system_that_cannot_be_asked_gets_none(ground: Ground, desk: Maker) -> None:
    desk.reachable = False
    ground.name(4, "Duff")
    with capture_logs() as logs:
        ground.sync.sync()
    assert desk.made == {}
    assert logs[-1]["event"] == "cannot make companies; next try on schedule"
    desk.reachable = True
    ground.sync.sync()
    assert desk.made == {"huntress-org-4": "Duff"}


def test_a_renamed_organization_gets_no_second_company_until_a_person_settles_it(ground: Ground, desk: Maker) -> None:
    ground.sync.sync()
    ground.name(1, "Acme Global")
    for _ in range(2):  # again each time
        with capture_logs() as logs:
            ground.sync.sync()
        assert [event.split(":")[0] for event, _ in events(logs)] == [
            "organization renamed",
            "no company is made for an organization",
        ]
        assert desk.made == {}
    desk.real = [Company("1", "Acme Global"), *(desk.real or ())[1:]]
    ground.sync.sync()
    assert desk.made == {}
    assert ground.remembered()[1].name == "Acme Global"


def test_a_refusal_stops_no_other_and_an_unknown_outcome_ends_the_round(ground: Ground, desk: Maker) -> None:
    for number, name in ((4, "Duff"), (5, "Ewing"), (6, "Frobozz")):
        ground.name(number, name)
    desk.refusal = lambda one: Rejected("the name is taken") if one.name == "Frobozz" else None
    with capture_logs() as logs:
        ground.sync.sync()
    assert desk.made == {"huntress-org-4": "Duff", "huntress-org-5": "Ewing"}
    assert ("the company is not made", 6) in events(logs)
    desk.refusal = lambda one: OutcomeUnknown("it may have been made")
    with capture_logs() as logs:
        ground.sync.sync()
    assert logs[-1]["error"] == "it may have been made"
    desk.refusal = lambda one: None
    ground.sync.sync()
    assert desk.made["huntress-org-6"] == "Frobozz"


def test_a_company_that_got_another_name_is_pointed_out(ground: Ground, desk: Maker) -> None:
    desk.named_as = lambda name: name[:4]
    ground.name(4, "Frobozz")
    with capture_logs() as logs:
        ground.sync.sync()
    (line,) = [line for line in logs if line.get("company_name") == "Frob"]
    assert line["log_level"] == "warning"
    assert "add a row to the organizations file" in line["event"]


def test_a_leader_that_was_deposed_makes_no_more(ground: Ground, desk: Maker) -> None:
    for number, name in ((4, "Duff"), (5, "Ewing")):
        ground.name(number, name)

    def deposed(organization: Organization) -> None:
        ground.leadership.stop()

    desk.refusal = deposed
    ground.sync.sync()
    assert len(desk.made) == 1
    assert normalized(next(iter(desk.made.values()))) in ("duff", "ewing")


def test_baselines_of_people_and_of_the_sync_are_apart(redis_url: str) -> None:
    client = store_client(redis_url)
    try:
        store = IdempotencyStore(client, settle=60)
        store.open()
        books = Bookkeeping(store)
        assert books.baseline("diff") is None
        books.save_baseline("diff", {})
        books.save_baseline("sync", {1: Organization(1, "Acme", "acme")})
        diff, sync = books.baseline("diff"), books.baseline("sync")
        assert diff is not None
        assert sync is not None
        assert (dict(diff.organizations), dict(sync.organizations)) == ({}, {1: Organization(1, "Acme", "acme")})
    finally:
        client.close()
