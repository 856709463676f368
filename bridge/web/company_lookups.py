"""Which companies the organizations are, as the ticket systems said when somebody last had them asked.

A page is shown without asking a ticket system: what it says of companies comes from the last look-up, and from the
organizations file, which is always at hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from bridge.companies import Companies, normalized
from bridge.delivery import Service
from bridge.models import Company, CompanySource, Organization
from bridge.organization_list import Place, places, proposals
from bridge.organizations_writing import Assignment
from bridge.proposals import Proposal, company_cell
from bridge.runtime import Runtime
from bridge.web.background import Background, Run
from connectors.base import Connector

#: Companies that a search shows, and the least likeness (of 100) of those whose names do not contain the words.
HITS, LIKE = 20, 60


@dataclass(frozen=True, slots=True)
class LookUp:
    """What a ticket system and the configuration said at one time."""

    companies: Sequence[Company]
    places: Mapping[int, Place]
    #: What the organizations file said then, by organization.
    cells: Mapping[int, str]
    proposals: tuple[Proposal, ...]
    #: The version of the configuration that it holds for.
    matcher: Companies

    def company(self, id: str) -> Company | None:
        return next((company for company in self.companies if company.id == id), None)

    def search(self, words: str) -> list[Company]:
        """Companies that are meant by `words`: by id or identifier, then by name, the most alike first."""
        wanted = normalized(words)
        if not wanted:
            return []
        named = [company for company in self.companies if wanted in (company.id, normalized(company.identifier))]
        containing = [company for company in self.companies if wanted in normalized(company.name)]
        names = [normalized(company.name) for company in self.companies]
        alike = process.extract(wanted, names, scorer=fuzz.token_sort_ratio, limit=HITS, score_cutoff=LIKE)
        containing.sort(key=lambda company: (len(company.name), company.name))
        found = [*named, *containing, *(self.companies[index] for _, _, index in alike)]
        return list({company.id: company for company in found}.values())[:HITS]


class Lookups:
    """The last look-up of each connector. Shared by threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._runs: Background[LookUp] = Background("look-up", runtime.store.now)

    def names(self) -> list[str]:
        """The connectors whose systems have companies, in the configuration's order."""
        services = self._runtime.services
        return [name for name in services if type(services[name].connector).companies is not Connector.companies]

    def last(self, name: str) -> Run[LookUp] | None:
        return self._runs.last(name)

    def start(self, name: str) -> bool:
        """Asks for the companies; False: that is under way already."""
        service, companies = self._runtime.services[name], self._runtime.assembly.companies
        return self._runs.start(name, lambda: self._look_up(service, companies))

    def wait(self, name: str) -> bool:
        """Waits a moment; False: it goes on."""
        return self._runs.wait(name)

    def found(self, name: str) -> LookUp | None:
        """What is known; None: nothing yet. A look-up that a change of the configuration made old is made anew."""
        run = self.last(name)
        if run is None or run.result is None:
            return None
        if run.result.matcher is not self._runtime.assembly.companies and not run.problem:
            self.start(name)
        return run.result

    def _look_up(self, service: Service, companies: Companies) -> LookUp:
        organizations = list(self._runtime.books.organizations().values())
        placed = places(service, companies, organizations)
        listed = tuple(service.connector.companies() or ())
        rows = ((one.id, companies.row(service.name, one.id)) for one in organizations)
        cells = {id: row.company for id, row in rows if row}
        return LookUp(listed, placed, cells, tuple(proposals(organizations, placed, listed)), companies)


def place(companies: Companies, connector: str, organization: Organization, known: LookUp | None) -> Place | None:
    """Where an organization is as far as is known without asking; None: an equal name or the catch-all decides."""
    row = companies.row(connector, organization.id)
    cell = row.company if row else ""
    if known is not None and organization.id in known.places and known.cells.get(organization.id, "") == cell:
        return known.places[organization.id]
    if not cell:
        return None
    named = known.company(cell) if known and re.fullmatch("[0-9]+", cell) else None
    return Place(named or Company("", cell), CompanySource.FILE)


def assignment(connector: str, organization: Organization, company: Company) -> Assignment:
    """The row that makes `company` the organization's."""
    return Assignment(organization.id, connector, company_cell(company), organization.name, company.name)
