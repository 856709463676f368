"""The companies of a ConnectWise PSA, listed once an hour and matched here; and new ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from bridge.models import Company, Organization
from connectors.base import Misconfigured, NameOrId, OutcomeUnknown, Rejected
from connectors.connectwise_api import ConnectWiseApi, one_line, row_id, text_of
from connectors.connectwise_lookup import same_name, shown

#: Seconds that the list is believed.
TTL = 3600.0
#: A company that is not found is looked for in a fresh list, unless the list is younger than this (seconds).
REFRESH_AFTER = 60.0

#: Most characters of a company's identifier that every release takes (older ones: 25, today's: 156).
IDENTIFIER_LIMIT = 25
#: Most characters of a company's name.
NAME_LIMIT = 156


class Companies:
    """All companies that are not deleted and that the API member sees. Shared by threads."""

    def __init__(self, api: ConnectWiseApi, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._cached: tuple[float, list[Company]] | None = None
        self._asking = threading.Lock()

    def forget(self) -> None:
        self._cached = None

    def listed(self, younger_than: float = TTL) -> list[Company]:
        cached = self._cached
        if cached and self._clock() - cached[0] < younger_than:
            return cached[1]
        with self._asking:
            if self._cached is not cached and self._cached:  # another thread has just asked
                return self._cached[1]
            rows = self._api.all_rows("/company/companies", {"fields": "id,identifier,name,deletedFlag"})
            companies = [_company(row) for row in rows if not row.get("deletedFlag")]
            self._cached = (self._clock(), companies)
            return companies

    def one(self, value: NameOrId) -> Company | None:
        """The company that a configured value means; None: there is none, or there are several."""
        found = _matching(self.listed(), value)
        if not found:
            found = _matching(self.listed(younger_than=REFRESH_AFTER), value)
        return found[0] if len(found) == 1 else None

    def check(self, setting: str, value: NameOrId) -> None:
        """Raises `Misconfigured` with a sentence that helps when `value` means no company, or several."""
        if self.one(value):
            return
        companies = self.listed()
        ids = [company.id for company in _matching(companies, value)]
        if ids:
            raise Misconfigured(
                f"{setting} = {shown(value)}: several companies fit; give one of the ids {', '.join(ids)}"
            )
        names = dict.fromkeys(name for company in companies for name in (company.identifier, company.name) if name)
        near = ", ".join(f"“{name}”" for name in get_close_matches(str(value), names, n=3))
        raise Misconfigured(
            f"{setting} = {shown(value)}: none of the {len(companies)} companies that the API member sees has this "
            f"identifier, name or id" + (f"; similar are {near}" if near else "")
        )

    def create(self, organization: Organization, reference: str) -> Company:
        """The company whose identifier is `reference`, made when there is none.

        The identifier, because it is what ConnectWise refuses to give twice ("Company ID already in use"): of two who
        make the same company at once, one is refused. A company of the same name is a person's to decide on.
        """
        name = one_line(organization.name, NAME_LIMIT)
        if not name or len(reference) > IDENTIFIER_LIMIT:
            raise Rejected(f"organization {organization.id}: its name or id makes no company; make one in ConnectWise")
        if made := self._carrying(reference):
            return made
        for company in self.listed():
            if same_name(company.name) == same_name(name):
                raise Rejected(
                    f"ConnectWise already has a company “{one_line(company.name, 100)}” "
                    f"({one_line(company.identifier, 60)}, id {company.id}); whether it is organization "
                    f"{organization.id} is for a person to decide, in the organizations file"
                )
        # Required are identifier and name; everything else gets the system's default. Public integrations send the
        # company's first site as well, under the name it has in a new company.
        body = {"identifier": reference, "name": name, "site": {"name": "Main"}}
        try:
            answer = self._api.request("POST", "/company/companies", intent="create", json=body)
        except Rejected:
            if made := self._carrying(reference):  # another worker was first
                return made
            raise
        finally:
            self.forget()
        if not row_id(answer.json):
            raise OutcomeUnknown(f"ConnectWise answered {answer.status} to the new company, but without its id")
        return _company(answer.json)

    def _carrying(self, reference: str) -> Company | None:
        fresh = self.listed(younger_than=0)
        return next((company for company in fresh if same_name(company.identifier) == same_name(reference)), None)


def _company(row: Mapping[str, Any]) -> Company:
    return Company(str(row_id(row)), text_of(row, "name"), text_of(row, "identifier"))


def _matching(companies: Sequence[Company], value: NameOrId) -> list[Company]:
    """A number is an id; text is an identifier, else a name, and digits may be an id as well."""
    if isinstance(value, int):
        return [company for company in companies if company.id == str(value)]
    wanted = same_name(value)
    if not wanted:
        return []
    found = [c for c in companies if same_name(c.identifier) == wanted]
    found = found or [c for c in companies if same_name(c.name) == wanted]
    return found + [c for c in companies if c.id == wanted and c not in found]
