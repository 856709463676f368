"""Which of a company's configurations is the report's host, for its ticket to link."""

from __future__ import annotations

import re

from bridge.models import Agent
from connectors.connectwise_api import ConnectWiseApi, row_id, text_of
from connectors.connectwise_lookup import same_name

#: Pages of 1000 of a company's configurations that are searched here when a name is unfit for a query.
CONFIGURATION_PAGES = 3

#: In ConnectWise's query language quotes, brackets and `*` have a meaning and no documented escape.
_FIT_FOR_A_QUERY = re.compile(r"[A-Za-z0-9._-]{1,100}")


def attach_host(api: ConnectWiseApi, agent: Agent, company_id: int, ticket_id: int) -> None:
    """Links the configuration that is `agent` to the ticket, unless it is linked or none is certain."""
    configuration = _configuration(api, agent, company_id)
    if configuration:
        path = f"/service/tickets/{ticket_id}/configurations"
        if configuration not in {row_id(row) for row in api.all_rows(path, max_pages=1)}:
            api.request("POST", path, intent="update", json={"id": configuration})


def _configuration(api: ConnectWiseApi, agent: Agent, company_id: int) -> int:
    """Id of the one active configuration with the agent's serial number, else its host name; 0: none or several."""
    for field, wanted in (("serialNumber", agent.serial_number), ("name", agent.hostname)):
        if not wanted.strip():
            continue
        fit = _FIT_FOR_A_QUERY.fullmatch(wanted)
        rows = api.all_rows(
            "/company/configurations",
            {
                "conditions": f"company/id={company_id}" + (f' AND {field}="{wanted}"' if fit else ""),
                "fields": "id,name,serialNumber,activeFlag",
            },
            max_pages=CONFIGURATION_PAGES,
        )
        same = [
            r for r in rows if same_name(text_of(r, field)) == same_name(wanted) and r.get("activeFlag") is not False
        ]
        if len(same) == 1:
            return row_id(same[0])
    return 0
