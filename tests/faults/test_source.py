"""A source that fails, talks nonsense, shifts its pages while they are read, and forgets whole organizations.

What is open at the source has one open ticket in either PSA. Nothing is taken for ended that is not.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import requests

from bridge.demo.huntress import Pagination
from bridge.demo.server import Fault, FaultKind
from tests.end_to_end.conftest import Bridge, World, wait_until
from tests.faults.figures import Figures
from tests.faults.judge import connectors, wait_until_quiet
from tests.faults.site import Site
from tests.faults.source import Source, Watch

#: Dialects and ways of paging; each has a site of its own.
SOURCES: tuple[tuple[str, Pagination], ...] = (
    ("incident_reports", "token"),
    ("incident_reports", "next_page"),
    ("reports", "total_pages"),
)
#: Items on a page: few, so that every listing has several.
PAGE = 2
#: Reports that have their tickets before anything happens.
BEFORE = 24
LISTING = "/(incident_)?reports$"
#: A value that only requests for later pages have: of a token, or of a number that no organization has here.
LATER = "^(W.*|[4-9])$"

#: Ways to fail.
FAULTS: tuple[tuple[FaultKind, dict[str, Any]], ...] = (
    ("status", {"status": 500}),
    ("garbage", {"body": '{"incident_reports": [{"id": 1, "status": "se'}),
    ("drop", {}),
    ("status", {"status": 502, "body": "<html>bad gateway</html>"}),
    ("status", {"status": 503}),
    ("garbage", {"body": "<html>welcome</html>"}),
    ("garbage", {"body": '{"incident_reports": null, "reports": {}}'}),
    ("garbage", {"body": '["incident_reports"]'}),
    ("hang", {"delay": 1}),
)
#: Each way to fail, on later pages and on all.
LONG_WAYS = tuple((kind, how, about) for kind, how in FAULTS for about in (LATER, ""))
SHORT_WAYS = (LONG_WAYS[0], LONG_WAYS[3])
#: Listings whose pages shift, and seconds of everything at once, in either form.
LONG, SHORT = (40, 240.0), (4, 5.0)
#: Seconds after which what must happen counts as never.
PATIENCE = 90.0
#: Years of reports that are older than any store.
LONG_AGO = (1999, 2010, 2019, 2024)
#: The organization that disappears.
GONE = 2

MakeWorld = Callable[..., World]
MakeBridge = Callable[..., Bridge]
Report = Callable[[Figures], None]


class Scene:
    """A `run` on a source of its own."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.world = site.world
        self.server = site.world.huntress
        self.dice = random.Random(seed)
        self.source = Source(site.world, self.dice)

    def status(self) -> Any:
        return requests.get(f"http://127.0.0.1:{self.site.bridge.port}/status", timeout=10).json()

    def shown(self) -> int:
        """Reports that the bridge takes for open."""
        return int(self.status()["reports"]["open"])

    def calm(self) -> float:
        """Nothing goes wrong any more. Returns seconds until tickets and page are as the source has it."""
        self.server.after_page = lambda _: None
        self.server.faults.clear()
        self.source.show()
        settled = self.site.judge.wait_until_complete(PATIENCE, self.source.open())
        wait_until(lambda: self.shown() == len(self.source.open()), PATIENCE, "what is shown as open is what is open")
        return settled

    def statuses(self, numbers: Collection[int]) -> dict[tuple[str, int], Any]:
        """The status of each ticket of these reports, by connector and id."""
        found: dict[tuple[str, int], Any] = {}
        for name, psa in self.world.psas().items():
            ids = [id for number in numbers for id in psa.ids(number)]
            with psa.server.lock:
                found |= {(name, id): psa.state.tickets[id]["status"] for id in ids}
        return found

    def row(self, fault: str, faults: int, settled: float) -> Figures:
        judge = self.site.judge
        lost, doubled = len(judge.missing(self.source.open())), len(judge.doubled())
        return Figures(f"5 source: {fault}", self.source.next - 1, faults, lost, doubled, settled)


def organization_of(number: int) -> int:
    """As `World.reports` has it."""
    return (number - 1) % 3 + 1


def wait_until_failed(fault: Fault, times: int) -> None:
    before = fault.times or 0
    wait_until(lambda: before - (fault.times or 0) >= times, PATIENCE, "listings fail")


def fail(scene: Scene, ways: Sequence[tuple[FaultKind, dict[str, Any], str]]) -> Figures:
    """One way of failing after the other, while reports end and appear."""
    settled = 0.0
    for kind, how, about in ways:
        shown = scene.shown()
        fault = scene.server.fault(kind, path=LISTING, about=about, times=10_000, **how)
        wait_until_failed(fault, 1)
        scene.source.end()
        newest = scene.source.appear()
        if about:
            waited = scene.site.judge.wait_until_complete(PATIENCE, [newest])
            assert waited < PATIENCE, "what is shown before the page that fails is open"
        wait_until_failed(fault, 6 if scene.server.dialect == "reports" else 2)
        assert scene.shown() >= shown, f"a listing that broke off says nothing of what is over ({kind}, {how})"
        settled = max(settled, scene.calm())
    return scene.row("5xx, garbage and lost connections, on every page or on later ones", len(ways), settled)


def shift(scene: Scene, listings: int) -> Figures:
    """Reports end and appear between the pages of every listing."""
    scene.server.after_page = scene.source.shift
    wait_until(lambda: scene.source.shifts >= listings, 2 * PATIENCE, "listings shift")
    settled = scene.calm()
    return scene.row("reports appear and end between pages", listings, settled)


def mix(scene: Scene, seconds: float) -> Figures:
    """Everything at once: reports appear, change, end and vanish for a while, pages shift, any request fails."""
    dice, server, source = scene.dice, scene.server, scene.source
    faults = 0
    until = time.monotonic() + seconds
    server.after_page = lambda request: source.shift(request) if dice.random() < 0.2 else None
    # Under `reports` what two complete listings do not show is over.
    hide = 0 if server.dialect == "reports" else 2
    while time.monotonic() < until:
        happening = dice.choices(("appear", "end", "change", "hide", "show", "fail"), (8, 4, 3, hide, 1, 4))[0]
        if happening == "fail":
            kind, how = dice.choice(FAULTS)
            path, about = dice.choice((LISTING, "/organizations", "")), dice.choice((LATER, ""))
            server.fault(kind, path=path, about=about, times=dice.randint(1, 4), **how)
            faults += 1
        else:
            getattr(source, happening)()
        time.sleep(dice.uniform(0.05, 0.4))
    settled = scene.calm()
    return scene.row("all of it at random", faults, settled)


def begin_anew(scene: Scene, years: Sequence[int]) -> Figures:
    """The store is lost between two runs, and there are reports from long before it was first made."""
    settled = 0.0
    for year in years:
        long_ago = f"{year}-01-02T03:04:05Z"
        scene.source.appear(sent_at=long_ago, created_at=long_ago, updated_at=long_ago)
        settled = max(settled, scene.calm())
        scene.site.wait_until_quiet()
        scene.site.stop()
        shutil.rmtree(scene.site.bridge.data_dir)
        scene.site.again(0)
        scene.site.wait_until_ready()
        wait_until(lambda: scene.shown() == len(scene.source.open()), PATIENCE, "all are listed again")
        rows = wait_until_quiet(scene.site.bridge)
        of_open = [row for row in rows if row["report_id"] in scene.source.open()]
        assert {row["state"] for row in of_open} == {"created"}
        assert len(of_open) == 2 * len(scene.source.open()), "each ticket was found again"
        assert {row["state"] for row in rows} <= {"created", "closed"}
    return scene.row("a store begun anew beside its tickets, reports older than it", len(years), settled)


def lose_organization(scene: Scene) -> Figures:
    """An organization disappears with its reports open, and comes back."""
    server, source = scene.server, scene.source
    server.page_size_cap = 500
    by_organization = server.dialect == "reports"
    with server.lock:
        organization = server.organizations.pop(GONE)
        its = [number for number in source.open() if number in server.reports and organization_of(number) == GONE]
        # Under `reports` its listing is not found; else the account's listing still has some of its reports.
        source.hide(*(its if by_organization else its[::2]))
    if by_organization:
        server.fault("status", path=LISTING, about=f"^{GONE}$", times=None, status=404)
    statuses = scene.statuses(its)
    source.appear(3)
    others = {number for number in source.open() if not by_organization or organization_of(number) != GONE}
    settled = scene.site.judge.wait_until_complete(PATIENCE, others)
    if by_organization:
        wait_until(
            lambda: f"organization {GONE}" in scene.status()["poll"]["error"], PATIENCE, "it is said which one is gone"
        )
    scene.site.client.delete("bridge:organizations:at")  # the list of organizations is due again
    wait_until(lambda: not scene.status()["poll"]["error"], PATIENCE, "the list of organizations goes without it")
    source.appear(3)
    others = {number for number in source.open() if not by_organization or organization_of(number) != GONE}
    settled = max(settled, scene.site.judge.wait_until_complete(PATIENCE, others))
    assert statuses.items() <= scene.statuses(its).items(), "its tickets are as they were"
    with server.lock:
        server.organizations[GONE] = organization
    scene.site.client.delete("bridge:organizations:at")
    settled = max(settled, scene.calm())
    return scene.row("an organization disappears and comes back", 1, settled)


def play(site: Site, seed: int, long: bool) -> list[Figures]:
    """Everything that may befall one source, one after the other."""
    scene = Scene(site, seed)
    listings, seconds = LONG if long else SHORT
    scene.source.appear(BEFORE)
    site.judge.wait_until_complete(PATIENCE)
    with Watch(scene.source) as watch:
        scene.calm()
        rows = [
            fail(scene, LONG_WAYS if long else SHORT_WAYS),
            shift(scene, listings),
            mix(scene, seconds),
            begin_anew(scene, LONG_AGO if long else LONG_AGO[:1]) if seed == 0 else lose_organization(scene),
        ]
        site.wait_until_quiet()
    site.stop()
    shutil.rmtree(site.bridge.data_dir)
    assert not watch.wrongly_completed
    assert site.orderly(), "a traceback in a log"
    return rows


def together(rows: Sequence[Figures]) -> Figures:
    return replace(
        rows[0],
        reports=sum(row.reports for row in rows),
        faults=sum(row.faults for row in rows),
        lost=sum(row.lost for row in rows),
        doubled=sum(row.doubled for row in rows),
        settled=max(row.settled for row in rows),
    )


@pytest.mark.timeout(3600)
def test_a_source_that_fails(
    make_world: MakeWorld, make_bridge: MakeBridge, long: bool, report_figures: Report
) -> None:
    def make(dialect: str, pagination: Pagination) -> Site:
        world = make_world(dialect=dialect)
        world.huntress.pagination = pagination
        world.huntress.page_size_cap = PAGE
        return Site(world, make_bridge(world, connectors=connectors(world)), ("run",))

    sites = [make(*source) for source in SOURCES]
    with ThreadPoolExecutor(len(sites)) as pool:
        played = list(pool.map(play, sites, range(len(sites)), [long] * len(sites)))
    rows: dict[str, list[Figures]] = {}
    for row in (row for rows_of_site in played for row in rows_of_site):
        rows.setdefault(row.fault, []).append(row)
    for of_a_kind in rows.values():
        report_figures(together(of_a_kind))
