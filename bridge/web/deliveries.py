"""The page Deliveries: the list with its filters, as a page and as a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flask import Blueprint, Response, render_template, request

from bridge.models import SEVERITIES, DeliveryState
from bridge.web import delivery, delivery_actions
from bridge.web.delivery_file import lines
from bridge.web.delivery_filter import OTHER, Filter
from bridge.web.delivery_index import Progress
from bridge.web.delivery_rows import Names, Row, rows
from bridge.web.delivery_table import Place, named_so
from bridge.web.site import Site

#: Deliveries on one page of the list.
SIZE = 50
#: What the states and their groups are called in the filter.
STATES = {
    "attention": "needs a person",
    "waiting": "waiting",
    **{str(state): str(state) for state in DeliveryState},
}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list."""

    wanted: Filter
    rows: list[Row]
    total: int
    newer: str
    older: str
    progress: Progress
    problems: list[str]

    @property
    def filtered(self) -> bool:
        return self.wanted != Filter()


@dataclass(frozen=True, slots=True)
class Choices:
    """What the filters offer: (value, label)."""

    states: list[tuple[str, str]]
    severities: list[tuple[str, str]]
    connectors: list[tuple[str, str]]
    organizations: list[tuple[str, str]]


def listing(site: Site, given: Mapping[str, str], names: Mapping[int, str]) -> Listing:
    """The page of the list that an address asks for. Raises `redis.RedisError`."""
    wanted, problems = Filter.read(given)
    before, after = Place.read(given.get("before", "")), Place.read(given.get("after", ""))
    progress = site.index.look()
    found = site.index.page(
        wanted, SIZE, named=named_so(wanted.words(), names), before=before, after=None if before else after
    )
    deliveries = site.runtime.store.read_deliveries(found.pairs)
    return Listing(
        wanted=wanted,
        rows=rows(site.runtime, deliveries, names),
        total=found.total,
        newer=wanted.query(after=str(found.newer)) if found.newer else "",
        older=wanted.query(before=str(found.older)) if found.older else "",
        progress=progress,
        problems=problems,
    )


def choices(site: Site, wanted: Filter, names: Mapping[int, str]) -> Choices:
    """What there is to filter by; what is filtered by is always among it."""
    connectors = {str(name) for name in site.index.counts("connector")} | set(site.runtime.services)
    organizations = {int(each) for each in site.index.counts("organization")}
    if wanted.organization is not None:
        organizations.add(wanted.organization)
    if wanted.connector:
        connectors.add(wanted.connector)
    named = sorted(((names.get(each, f"organization {each}"), each) for each in organizations), key=_by_name)
    return Choices(
        states=list(STATES.items()),
        severities=[(each, each) for each in (*SEVERITIES, OTHER)],
        connectors=[(name, name) for name in sorted(connectors)],
        organizations=[(str(each), name) for name, each in named],
    )


def _by_name(named: tuple[str, int]) -> tuple[str, int]:
    return named[0].casefold(), named[1]


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("deliveries", __name__)
    names = Names(site.runtime.books)

    @pages.get("/deliveries")
    def show() -> str:
        return page(request.args)

    def page(given: Mapping[str, str], reason: str = "", marked: Iterable[str] = ()) -> str:
        known = names.all()
        found = listing(site, given, known)
        return render_template(
            "deliveries.html",
            listing=found,
            choices=choices(site, found.wanted, known),
            reason=reason,
            marked=set(marked),
            now=site.runtime.store.now(),
        )

    @pages.errorhandler(sqlite3.Error)
    def no_list(error: sqlite3.Error) -> tuple[str, int]:
        text = (
            f"The list of deliveries cannot be kept on this machine's disk ({error}). It is kept where temporary files "
            "go: make room there. No delivery is concerned; `huntress-bridge deliveries` lists them all."
        )
        return render_template("problem.html", title="The list cannot be shown", text=text), 503

    @pages.get("/deliveries.csv")
    def table() -> Response:
        wanted, _ = Filter.read(request.args)
        site.index.look()
        response = Response(lines(site, wanted, names.all()), mimetype="text/csv")
        response.headers["Content-Disposition"] = "attachment; filename=deliveries.csv"
        return response

    one = delivery.add_to(pages, site, names)
    delivery_actions.add_to(pages, site, names, page=page, one=one)
    return pages
