"""Companies whose names resemble those of organizations without one. Only ever proposed: a person decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rapidfuzz import fuzz, process

from bridge.companies import normalized
from bridge.csv_output import csv_row
from bridge.models import Company, Organization

#: Likeness, of 100, from which on a company is proposed, and by how much it must lead the next one.
PROPOSED, LEAD = 86, 4
#: Least likeness of a company that is worth a look, how many are looked at, and how many of them are shown.
WORTH_A_LOOK, LOOKED_AT, SHOWN = 50, 10, 3
#: Columns of the file; the configuration reads the first three and leaves the others alone.
COLUMNS = ("organization_id", "connector", "company", "organization_name", "company_name", "score", "candidates")

#: Legal forms and small words: people write them in one system and not in the other.
_LEFT_OUT = re.compile(
    "ab|ag|as|bv|co|company|corp|corporation|gmbh|inc|incorporated|kg|limited|llc|llp|lp|ltd|nv|oy|plc|pllc|pty|sa"
    "|sarl|sas|spa|srl|and|the|und"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A company that may be meant. `score` is its likeness, of 100."""

    company: Company
    score: int
    #: The organization that is this company already, or is proposed for it with more likeness.
    taken_by: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """Which company an organization may be, most alike first; `company` only where one stands out."""

    organization: Organization
    candidates: tuple[Candidate, ...] = ()
    company: Company | None = None

    @property
    def score(self) -> int:
        """The likeness of the company proposed, else of the first candidate; 0: there is none."""
        likely = (one.score for one in self.candidates if self.company in (None, one.company))
        return next(likely, 0)


def propose(
    organizations: Iterable[Organization], companies: Sequence[Company], taken: Mapping[str, int]
) -> list[Proposal]:
    """A proposal for each organization, the surest first. `taken` names the organization of a company, by its id.

    A company that is another organization's is shown and never proposed, nor is one whose name has other numbers.
    """
    names = [_comparable(company.name) for company in companies]
    ranked = [Proposal(one, tuple(_candidates(one, companies, names, taken))) for one in organizations]
    ranked.sort(key=lambda proposal: (-proposal.score, proposal.organization.id))
    given: dict[str, int] = {}
    return [_decided(proposal, given) for proposal in ranked]


def _candidates(
    organization: Organization, companies: Sequence[Company], names: Sequence[str], taken: Mapping[str, int]
) -> Iterator[Candidate]:
    wanted = _comparable(organization.name)
    if not wanted:
        return
    alike = process.extract(wanted, names, scorer=fuzz.token_sort_ratio, limit=LOOKED_AT, score_cutoff=WORTH_A_LOOK)
    for _, score, index in alike:
        company = companies[index]
        yield Candidate(company, int(score), taken.get(company.id))


def _decided(proposal: Proposal, given: dict[str, int]) -> Proposal:
    """Fills in the company that stands out. `given` are those proposed so far, and gets this one."""
    candidates = tuple(
        replace(candidate, taken_by=given.get(candidate.company.id)) if candidate.taken_by is None else candidate
        for candidate in proposal.candidates
    )
    proposal = replace(proposal, candidates=candidates)
    numbers = _numbers(proposal.organization.name)
    fitting = [candidate for candidate in candidates if _numbers(candidate.company.name) == numbers]
    if not fitting or fitting[0].taken_by is not None or fitting[0].score < PROPOSED:
        return proposal
    rival = next((candidate.score for candidate in fitting[1:] if candidate.taken_by is None), 0)
    if fitting[0].score - rival < LEAD:
        return proposal
    given[fitting[0].company.id] = proposal.organization.id
    return replace(proposal, company=fitting[0].company)


def _comparable(name: str) -> str:
    """`name` without case, accents, punctuation, legal forms and small words."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", normalized(name)) if not unicodedata.combining(c))
    words = re.findall(r"\w+", plain.replace("'", "").replace("’", "").replace(".", ""))
    return " ".join([word for word in words if not _LEFT_OUT.fullmatch(word)] or words)


def _numbers(name: str) -> list[str]:
    return sorted(re.findall(r"\d+", normalized(name)))


def proposals_csv(connector: str, proposals: Iterable[Proposal]) -> Iterator[str]:
    """The lines of a file that the configuration reads, for a person to edit first."""
    yield csv_row(COLUMNS)
    for proposal in proposals:
        company = proposal.company
        yield csv_row(
            (
                str(proposal.organization.id),
                connector,
                company_cell(company) if company else "",
                proposal.organization.name,
                company.name if company else "",
                str(proposal.score) if company else "",
                "; ".join(map(_shown, proposal.candidates[:SHOWN])) or "nothing alike",
            )
        )


def company_cell(company: Company) -> str:
    """What the configuration takes for this company and no other; ids need no quoting in anybody's spreadsheet."""
    return company.id if company.id.isdecimal() else company.identifier or company.name


def _shown(candidate: Candidate) -> str:
    taken = f", is organization {candidate.taken_by}" if candidate.taken_by is not None else ""
    return f"{candidate.score} {candidate.company.name} (id {candidate.company.id}{taken})"
