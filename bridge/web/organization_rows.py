"""What the page says about each organization: its companies, and what came for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.companies import Companies
from bridge.models import CompanySource, Organization
from bridge.organization_list import Place
from bridge.text import one_line, shorten
from bridge.web.company_lookups import LookUp, place
from bridge.web.delivery_table import Incidents

#: What the list may be narrowed to, with the words for it.
SHOWN = {
    "": "all",
    "unmapped": "without a company of their own",
    "incidents": "with deliveries in 30 days",
    "unsettled": "with something that waits or was refused",
}
NOTHING = Incidents(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cell:
    """One organization in one connector. `company` is empty where only `why` is to be said."""

    connector: str
    company: str = ""
    company_id: str = ""
    #: `file`, `name`, `catch-all`, `none` (no company at all), `unknown` (not looked up), or '' (nothing to say).
    way: str = ""
    why: str = ""

    @property
    def lacking(self) -> bool:
        """Has the organization no company of its own here?"""
        return self.way in ("catch-all", "none")


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """One line of the list."""

    id: int
    name: str
    served: bool
    cells: tuple[Cell, ...]
    incidents: Incidents

    @property
    def lacking(self) -> bool:
        return any(cell.lacking for cell in self.cells)


def rows(
    organizations: Iterable[Organization],
    connectors: Sequence[str],
    companies: Companies,
    lookups: Mapping[str, LookUp | None],
    incidents: Mapping[int, Incidents],
    not_served: Iterable[int],
) -> list[OrganizationRow]:
    """Every organization by name. `lookups` are of the connectors whose systems have companies."""
    left_out = frozenset(not_served)
    found = [
        OrganizationRow(
            id=one.id,
            name=shorten(one_line(one.name), 100) or "without a name",
            served=one.id not in left_out,
            cells=tuple(cell(companies, name, one, lookups) for name in connectors),
            incidents=incidents.get(one.id, NOTHING),
        )
        for one in organizations
    ]
    return sorted(found, key=lambda row: (row.name.casefold(), row.id))


def cell(companies: Companies, name: str, one: Organization, lookups: Mapping[str, LookUp | None]) -> Cell:
    if name not in lookups:
        recipients = companies.recipients(name, one.id)
        return Cell(name, ", ".join(recipients), way="file" if recipients else "")
    return _cell(name, place(companies, name, one, lookups[name]))


def _cell(name: str, place: Place | None) -> Cell:
    if place is None:
        return Cell(name, way="unknown")
    if place.company is None:
        return Cell(name, way="none" if place.reason else "", why=place.reason)
    company, catch_all = place.company, place.source is CompanySource.CATCH_ALL
    shown = shorten(one_line(company.name or company.identifier), 100)
    return Cell(name, shown or company.id, company.id, str(place.source), place.reason if catch_all else "")


def narrowed(found: Iterable[OrganizationRow], text: str, shown: str) -> list[OrganizationRow]:
    """Those that a person asked for: `shown` is a key of `SHOWN`, `text` words in a name, a company or an id."""
    words = text.casefold().split()
    return [row for row in found if _fits(row, shown) and all(word in _words(row) for word in words)]


def _fits(row: OrganizationRow, shown: str) -> bool:
    return {
        "": True,
        "unmapped": row.lacking,
        "incidents": row.incidents.recent > 0,
        "unsettled": row.incidents.unsettled > 0,
    }.get(shown, True)


def _words(row: OrganizationRow) -> str:
    companies = (f"{cell.company} {cell.company_id}" for cell in row.cells)
    return f"{row.id} {row.name} {' '.join(companies)}".casefold()
