"""Companies that are offered to a person for the organizations that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.companies import Companies
from bridge.models import Company, Organization
from bridge.proposals import SHOWN
from bridge.text import one_line, shorten
from bridge.web.company_lookups import LookUp, place


@dataclass(frozen=True, slots=True)
class Option:
    """A company to choose; `taken_by` is the organization that is this company already, or is proposed for it."""

    company: Company
    label: str
    score: int
    taken_by: int | None


@dataclass(frozen=True, slots=True)
class Offer:
    """One organization and what may be its company; `proposed` where one stands out."""

    organization: Organization
    name: str
    proposed: Company | None
    score: int
    options: tuple[Option, ...]


def offers(
    known: LookUp, connector: str, organizations: Mapping[int, Organization], companies: Companies
) -> list[Offer]:
    """The proposals of the last look-up that still hold, the surest first."""
    places = {one.id: place(companies, connector, one, known) for one in organizations.values()}
    taken = {where.company.id: id for id, where in places.items() if where and where.own and where.company}
    found = []
    for proposal in known.proposals:
        one, where = proposal.organization, places.get(proposal.organization.id)
        if where is None or where.own:
            continue
        options = tuple(
            Option(each.company, _label(each.company), each.score, taken.get(each.company.id, each.taken_by))
            for each in proposal.candidates[:SHOWN]
        )
        proposed = proposal.company if proposal.company and proposal.company.id not in taken else None
        if proposed and all(option.company.id != proposed.id for option in options):
            options = (Option(proposed, _label(proposed), proposal.score, None), *options)
        found.append(Offer(one, shorten(one_line(one.name), 100), proposed, proposal.score, options))
    return found


def _label(company: Company) -> str:
    return f"{shorten(one_line(company.name or company.identifier), 100)} (id {company.id})"
