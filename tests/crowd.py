"""An account of thousands: organizations, companies most of which have their names, and tens of thousands of agents."""

from __future__ import annotations

from typing import Any

from bridge.demo import scenario
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.server import Received, Reply

ORGANIZATIONS = 2000
#: So many of them have their company by name; the next have one written otherwise, the last ones have none.
BY_NAME, OTHERWISE = 1700, 200


def _words(text: str) -> list[str]:
    return text.split()


_FIRST = _words(
    "Amber Beacon Cedar Delta Ember Falcon Granite Harbor Iron Juniper Keystone Lantern Meadow Noble Orchard Pioneer "
    "Quarry Raven Summit Timber Urban Valley Willow Yonder Zephyr Alpine Bright Copper Drift Eagle Forest Golden "
    "Hollow Indigo Jasper Kindred Lakeside Marble North Ocean Prairie Quiet River Silver Thunder Union Vista West "
    "Xenon Yellow"
)
_SECOND = _words(
    "Accounting Bakery Chemicals Dental Engineering Foods Gardens Hospitality Insurance Joinery Kitchens Logistics "
    "Machining Nurseries Optics Plumbing Quilting Roofing Surveyors Textiles Upholstery Veterinary Wholesale "
    "Xylography Yachting Zoology Architects Brewing Ceramics Drilling Electric Fisheries Glazing Heating Imports "
    "Jewellers Law Masonry Networks Outfitters"
)
_FORMS = ("Inc.", "LLC", "Ltd", "GmbH")


def organization_name(number: int) -> str:
    """From 1; each is unlike every other."""
    first, second = _FIRST[number % len(_FIRST)], _SECOND[number // len(_FIRST) % len(_SECOND)]
    return f"{first} {second} {_FORMS[number % len(_FORMS)]}"


def company_name(number: int) -> str:
    """What the ticket systems call the organization; '': they do not know it."""
    name = organization_name(number)
    if number <= BY_NAME:
        return name.upper() if number % 3 == 0 else name
    if number > BY_NAME + OTHERWISE:
        return ""
    first, second, _ = name.split()
    return f"{first} {second}, Company" if number % 2 else f"{first}  {second[:-1]}{second[-1] * 2}"


class Crowd:
    """The pretend systems of such an account, started by whoever made it."""

    def __init__(self) -> None:
        self.huntress = PretendHuntress()
        numbers = range(1, ORGANIZATIONS + 1)
        self.huntress.organizations.update(
            {number: scenario.organization(number, name=organization_name(number)) for number in numbers}
        )
        names = [(number, company_name(number)) for number in numbers if company_name(number)]
        self.connectwise = PretendConnectWise(
            [(1, "Catchall", "Catchall"), *((10_000 + number, f"O{number}", name) for number, name in names)]
        )
        self.autotask = PretendAutotask([(175, "Catch-all"), *((20_000 + number, name) for number, name in names)])
        self.systems = (self.huntress, self.connectwise, self.autotask)

    def connectors(self) -> dict[str, Any]:
        return {"psa": self.connectwise.settings(), "desk": self.autotask.settings()}


def serve_agents(huntress: PretendHuntress, count: int) -> None:
    """Lists so many agents, in slices; the pretend Huntress itself would sort all of them for every page."""

    def page(request: Received) -> Reply:
        start, limit = int(request.query.get("page_token", "after 0").split()[1]), int(request.query["limit"])
        end = min(start + limit, count)
        listed = [scenario.agent(number, number % 100 + 1) for number in range(start + 1, end + 1)]
        return Reply(200, {"agents": listed, "pagination": {"next_page_token": f"after {end}"} if end < count else {}})

    huntress.route("GET", "/v1/agents", page)
