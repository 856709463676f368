"""Which company in a ticket system an organization is: the organizations file, else an equal name, else the catch-all.

Never dropped, never guessed: what none of the three can say raises `NoCompany`.
"""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from bridge.models import Company, CompanyMatch, CompanySource, Organization
from bridge.organizations_file import OrganizationsFile, OrganizationsFileError, Row
from connectors.base import Connector, ConnectorSettings, Misconfigured, PsaSettings

#: Seconds between two fresh listings of one connector's companies that were only asked for because a name was missing.
REFRESH_INTERVAL = 600.0

_Value = TypeVar("_Value")


class NoCompany(Misconfigured):
    """An organization has no company of its own, and there is no catch-all that could take its place."""


class Companies:
    """Finds the company, and for e-mail the recipients, of an organization. Shared by threads."""

    def __init__(
        self,
        file: OrganizationsFile | None,
        automatch: Literal["exact", "off"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._automatch = automatch
        self._clock = clock
        self._lock = threading.Lock()
        self._listings: dict[str, threading.Lock] = {}
        self._refreshed: dict[str, float] = {}
        self._indexes: dict[str, tuple[Sequence[Company], dict[str, list[Company]]]] = {}

    def row(self, connector: str, organization_id: int | None) -> Row | None:
        """What the organizations file says about this organization in this connector."""
        if self._file is None or organization_id is None:
            return None
        return self._file.row(organization_id, connector)

    def rows(self, connector: str) -> list[Row]:
        """Every row of the organizations file that names a company in this connector, by line."""
        return [row for row in self._file.rows(connector) if row.company] if self._file else []

    def connectors(self) -> dict[str, int]:
        """Connectors that the organizations file names, each with the first line that does."""
        return dict(self._file.connectors()) if self._file else {}

    def recipients(self, connector: str, organization_id: int | None) -> tuple[str, ...]:
        """Recipients that replace the connector's own for this organization; none: the connector's own."""
        row = self.row(connector, organization_id)
        return row.recipients if row else ()

    def match(
        self,
        connector: Connector,
        settings: ConnectorSettings,
        organization_id: int | None,
        organization: Organization | None,
    ) -> CompanyMatch | None:
        """The company, how it was found, and why it had to be the catch-all. None: nothing to say in this system.

        Raises `NoCompany` when there is no company and no catch-all; the connector's outcomes pass through.
        """
        row = self.row(connector.name, organization_id)
        companies = connector.companies()
        if companies is None:
            if row is None or not row.company:
                return None
            return CompanyMatch(Company(row.company, row.company), CompanySource.FILE)
        if row is not None and row.company:
            company = self._configured(connector, row.company, look_up)
            if company is not None:
                return CompanyMatch(company, CompanySource.FILE)
            why = (
                f"{self._file_name}, line {row.line}, says {row.company!r}, and {connector.name} has no single company "
                "of that id, identifier or name"
            )
        else:
            found = self._by_name(connector, companies, organization)
            if isinstance(found, Company):
                return CompanyMatch(found, CompanySource.NAME)
            why = found
        return self._catch_all(connector, settings, organization_id, organization, why)

    def _configured(
        self, connector: Connector, value: _Value, ask: Callable[[Connector, _Value], Company | None]
    ) -> Company | None:
        found = ask(connector, value)
        if found is None:
            self._refresh(connector)
            found = ask(connector, value)
        return found

    def _by_name(
        self, connector: Connector, companies: Sequence[Company], organization: Organization | None
    ) -> Company | str:
        """The one company of the organization's name, or why there is none."""
        if self._automatch == "off":
            return "it has no row in the organizations file, and matching by name is off"
        name = normalized(organization.name) if organization else ""
        if organization is None or not name:
            return "it has no row in the organizations file, and its name is not known"
        alike = self._indexed(connector, companies, name)
        if not alike:
            alike = self._indexed(connector, self._refresh(connector) or (), name)
        if len(alike) == 1:
            return alike[0]
        if alike:
            ids = ", ".join(company.id for company in alike)
            return f"it has no row in the organizations file, and several companies have its name (ids {ids})"
        return "it has no row in the organizations file, and no company has its name"

    def named(self, connector: Connector, name: str) -> list[Company]:
        """Every company of that name in the connector's present listing; the connector's outcomes pass through."""
        return self._indexed(connector, connector.companies() or (), normalized(name))

    def _indexed(self, connector: Connector, companies: Sequence[Company], name: str) -> list[Company]:
        """The companies of a normalized name. Thousands of organizations ask the same listing, so it is indexed."""
        listing, index = self._indexes.get(connector.name, ((), {}))
        if listing is not companies:
            index = {}
            for company in companies:
                index.setdefault(normalized(company.name), []).append(company)
            self._indexes[connector.name] = (companies, index)
        return index.get(name, [])

    def _refresh(self, connector: Connector) -> Sequence[Company] | None:
        """A listing made after the miss, or the last one where that is young enough. One that failed does not count."""
        with self._lock:
            listing = self._listings.setdefault(connector.name, threading.Lock())
        with listing:  # who misses meanwhile waits, and is served by the same listing
            before = self._refreshed.get(connector.name)
            if before is not None and self._clock() - before < REFRESH_INTERVAL:
                return connector.companies()
            fresh = connector.companies(fresh=True)
            self._refreshed[connector.name] = self._clock()
            return fresh

    def _catch_all(
        self,
        connector: Connector,
        settings: ConnectorSettings,
        organization_id: int | None,
        organization: Organization | None,
        why: str,
    ) -> CompanyMatch:
        if organization_id is None:
            who, why = "a report that names no organization", "the report names no organization"
        elif organization is not None and organization.name:
            who = f"organization {organization.name!r} (id {organization_id})"
        else:
            who = f"organization {organization_id}"
        default = settings.default_company if isinstance(settings, PsaSettings) else None
        key = f"connectors.{connector.name}.default_company"
        if default is None:
            add = f"add a row to {self._file_name}" if self._file else "list it in an organizations file"
            raise NoCompany(f"{who} has no company in {connector.name}: {why}; {add}, or set {key}")
        company = self._configured(connector, default, lambda connector, value: connector.company(value))
        if company is None:
            raise NoCompany(
                f"{key} = {default!r} is no company, or not a single one, in {connector.name}, and it is needed for "
                f"{who}: {why}; name one that exists"
            )
        return CompanyMatch(company, CompanySource.CATCH_ALL, why)

    @property
    def _file_name(self) -> str:
        return self._file.path.name if self._file else "the organizations file"


def normalized(name: str) -> str:
    """`name` as it is compared: compatible characters, case and white space do not count. Everything else does."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def look_up(connector: Connector, value: str) -> Company | None:
    """The company that a cell of the organizations file means: digits are an id first, then an identifier or name."""
    found = connector.company(int(value)) if value.isascii() and value.isdecimal() else None
    return found or connector.company(value)


__all__ = [
    "REFRESH_INTERVAL",
    "Companies",
    "NoCompany",
    "OrganizationsFile",
    "OrganizationsFileError",
    "Row",
    "look_up",
    "normalized",
]
