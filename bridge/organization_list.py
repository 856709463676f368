"""Which company every organization is in one connector, and how that was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge.companies import Companies, NoCompany
from bridge.delivery import Service
from bridge.models import Company, CompanySource, Organization
from bridge.proposals import Proposal, propose


@dataclass(frozen=True, slots=True)
class Place:
    """An organization's place in one connector. Without a company there is only a reason, or nothing to say."""

    company: Company | None = None
    source: CompanySource | None = None
    reason: str = ""

    @property
    def own(self) -> bool:
        """Is the company the organization's own, and not the catch-all?"""
        return self.source in (CompanySource.FILE, CompanySource.NAME)


def places(service: Service, companies: Companies, organizations: Iterable[Organization]) -> dict[int, Place]:
    """The place of each organization, by its id. Raises an `Outcome` when the ticket system cannot be asked."""
    found = {}
    for organization in organizations:
        try:
            match = companies.match(service.connector, service.settings, organization.id, organization)
        except NoCompany as error:
            found[organization.id] = Place(reason=str(error))
        else:
            found[organization.id] = Place(match.company, match.source, match.reason) if match else Place()
    return found


def proposals(
    organizations: Iterable[Organization], placed: Mapping[int, Place], companies: Sequence[Company]
) -> list[Proposal]:
    """A proposal for each organization that has no company of its own, the surest first."""
    taken = {place.company.id: id for id, place in placed.items() if place.own and place.company}
    return propose([one for one in organizations if not placed[one.id].own], companies, taken)
