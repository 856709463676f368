"""Which configuration item of Autotask is a Huntress agent?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.autotask_api import AutotaskApi
from connectors.base import Agent

#: What boards carry as a serial number when nobody gave them one.
NO_SERIALS = frozenset(
    {
        "",
        "0",
        "123456789",
        "default string",
        "n/a",
        "na",
        "none",
        "not specified",
        "system serial number",
        "to be filled by o.e.m.",
    }
)
BY_SERIAL = ("serialNumber",)
BY_NAME = ("referenceTitle", "rmmDeviceAuditHostname")


def find_host(api: AutotaskApi, company_id: Any, agent: Agent) -> int | None:
    """Id of the one active item of the company with the agent's serial number, else with its host name; else None."""
    if not isinstance(company_id, int):
        return None
    serial, hostname = agent.serial_number.strip(), agent.hostname.strip()
    if serial.casefold() not in NO_SERIALS and len(found := _items(api, company_id, BY_SERIAL, serial)) == 1:
        return found[0]
    if hostname and len(found := _items(api, company_id, BY_NAME, hostname)) == 1:
        return found[0]
    return None


def _items(api: AutotaskApi, company_id: int, names: Sequence[str], value: str) -> list[int]:
    any_of = [{"op": "eq", "field": name, "value": value} for name in names]
    filters: list[Mapping[str, Any]] = [
        {"op": "eq", "field": "companyID", "value": company_id},
        {"op": "or", "items": any_of},
    ]
    items = api.query("ConfigurationItems", filters, ["id", "companyID", "isActive", *names])
    return [item["id"] for item in items if _is(item, company_id, names, value)]


def _is(item: Mapping[str, Any], company_id: int, names: Sequence[str], value: str) -> bool:
    # The answer is judged here too: a ticket must not point to another customer's computer.
    active = item.get("isActive") is not False and isinstance(item.get("id"), int)
    named = any(str(item.get(name) or "").strip().casefold() == value.casefold() for name in names)
    return active and named and item.get("companyID") == company_id
