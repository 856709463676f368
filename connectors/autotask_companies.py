"""The companies of an Autotask tenant: listed, looked up, and made for an organization that has none.

A company that is made carries the organization's reference in `companyNumber` (in the tenant's pages “Organization
Number”): a text of its own of every company, which can be searched, and which Autotask itself fills nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bridge.models import Company, Organization
from connectors.autotask_api import AutotaskApi, Kept, Refused, made_despite
from connectors.autotask_catalog import FIELDS_KEPT, Value, offered, read_fields, resolve
from connectors.autotask_fields import Fields, fit, fold
from connectors.autotask_settings import AutotaskSettings
from connectors.base import Misconfigured, NameOrId, Rejected, Unavailable

#: Seconds that the list of companies is kept.
COMPANIES_KEPT = 3600.0
#: Seconds for which that list is fresh enough to believe that a name is not in it; it may be many pages.
COMPANIES_BELIEVED = 60.0

# Lengths where the tenant names none, from the vendor's help on the Companies entity.
NAME_LENGTH = 100
NUMBER_LENGTH = 50
#: `companyType` of a customer, which is Autotask's own (the vendor's help on creating resources).
CUSTOMER = 1

_LISTED = ("id", "companyName", "companyNumber", "isActive")
#: Fields that every company we make has, whatever the tenant requires.
_OWN = ("companyname", "companynumber", "companytype", "isactive")


class Companies:
    """Every method may ask Autotask and raise its outcomes."""

    def __init__(
        self, api: AutotaskApi, settings: AutotaskSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._settings = settings
        self._listed = Kept(self._list, COMPANIES_KEPT, clock)
        self._fields = Kept(lambda: read_fields(api, "Companies"), FIELDS_KEPT, clock)

    def all(self, fresh: bool = False) -> tuple[Company, ...]:
        """All active companies."""
        return self._listed.get(fresh)

    def _list(self) -> tuple[Company, ...]:
        return tuple(_parse(self._search("isActive", True)))

    def _search(self, field: str, value: Any) -> list[dict[str, Any]]:
        return self._api.query("Companies", [{"op": "eq", "field": field, "value": value}], _LISTED)

    def named(self, value: NameOrId) -> Company | None:
        """The active company with this id, or else unique name, company number or (from a CSV file) id as text."""
        if isinstance(value, int):
            return self._by_id(value)
        found = _named(self.all(), value)
        if not found and self._listed.age > COMPANIES_BELIEVED:
            found = _named(self.all(fresh=True), value)
        return found[0] if len(found) == 1 else None

    def _by_id(self, number: int) -> Company | None:
        if self._listed.age < COMPANIES_KEPT:
            for company in self.all():
                if company.id == str(number):
                    return company
        item = self._api.item(f"Companies/{number}")
        if item is None:  # there may be no such address either, so the list decides
            listed = self.all(fresh=self._listed.age > COMPANIES_BELIEVED)
            return next((company for company in listed if company.id == str(number)), None)
        found = next(iter(_parse([item])), None)
        return found if found and found.id == str(number) else None

    # Making one

    def make(self, organization: Organization, reference: str) -> Company:
        """The company that carries `reference`, made when there is none.

        Raises `Rejected` when there is a company of the organization's name without the reference: whether that is the
        same customer, a person must say.
        """
        if found := self._carrying(reference):
            return found
        name = " ".join(organization.name.split())
        if not name:
            raise Rejected(f"organization {organization.id} has no name, so no company can be made for it in Autotask")
        name = fit(name, self._fields.get().length("companyName", NAME_LENGTH))
        self._assert_free(name, organization)
        body = self._body(name, reference)
        try:
            made = Company(str(self._api.change("POST", "Companies", body, intent="create")), name, reference)
        except Refused as refused:
            made = made_despite(refused, "company", lambda: self._carrying(reference))
        self._listed.forget()
        return made

    def _carrying(self, reference: str) -> Company | None:
        items = self._search("companyNumber", reference)
        if any(fold(str(item.get("companyNumber") or "")) != reference.casefold() for item in items):
            raise Unavailable(f"Autotask was asked for companies with number {reference} and answered with others")
        if not items:
            return None
        found = sorted(_parse(items), key=lambda company: int(company.id))
        if not found:
            raise Rejected(
                f"Autotask's company {_shown(items[0])} was made for this organization ({reference}) and is inactive; "
                "activate it, or give the organization another company in the organizations file"
            )
        return found[0]

    def _assert_free(self, name: str, organization: Organization) -> None:
        taken = [item for item in self._search("companyName", name) if fold(str(item.get("companyName"))) == fold(name)]
        if taken:
            state = " and is inactive" if taken[0].get("isActive") is False else ""
            raise Rejected(
                f"Autotask has a company {_shown(taken[0])} already{state}; if it is the customer of Huntress's "
                f"organization {organization.id}, give it to that one in the organizations file"
            )

    def _body(self, name: str, reference: str) -> dict[str, Value]:
        body, fields = self.defaults()
        missing = [
            field.name
            for key, field in fields.by_name.items()
            if field.required and not field.read_only and key not in _OWN and field.name not in body and key != "id"
        ]
        if missing:
            keys = ", ".join(f"company_defaults.{field}" for field in missing)
            raise Misconfigured(f"company_defaults: Autotask requires more of every new company; set {keys}")
        if fields.length("companyNumber", NUMBER_LENGTH) < len(reference):
            raise Misconfigured(f"Autotask's companyNumber is too short for {reference}; make its companies by hand")
        return {"companyType": CUSTOMER, "isActive": True} | body | {"companyName": name, "companyNumber": reference}

    def defaults(self) -> tuple[dict[str, Value], Fields]:
        """`company_defaults` as the tenant takes them, and its fields of a company. Raises `NotOffered`."""
        given = {name: value for name, value in self._settings.company_defaults.items() if value != ""}

        def use(fields: Fields) -> tuple[dict[str, Value], Fields]:
            return resolve(fields, given, table="company_defaults"), fields

        return offered(self._fields, use)


def _shown(item: Mapping[str, Any]) -> str:
    return f'"{str(item.get("companyName") or "")[:NAME_LENGTH]}" (id {item.get("id")})'


def _named(companies: Sequence[Company], value: str) -> list[Company]:
    wanted = fold(value)
    if not wanted:
        return []
    by_name = [company for company in companies if fold(company.name) == wanted]
    return by_name or [company for company in companies if wanted in (fold(company.identifier), company.id)]


def _parse(items: Iterable[Mapping[str, Any]]) -> Iterable[Company]:
    for item in items:
        company_id = item.get("id")
        if isinstance(company_id, int) and item.get("isActive") is not False:
            name, number = item.get("companyName"), item.get("companyNumber")
            yield Company(
                str(company_id), name if isinstance(name, str) else "", number if isinstance(number, str) else ""
            )
