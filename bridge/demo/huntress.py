"""A pretend Huntress: the vendor's API as documented today, and as the guide describes it, over the same data.

Raw JSON goes out as it was put in, however odd, so that tests can serve what live accounts were seen to serve.
"""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from bridge.demo import scenario
from bridge.demo.server import PretendServer, Received, Reply

Dialect = Literal["incident_reports", "reports"]
Pagination = Literal["token", "next_page", "total_pages"]

#: Key of an item in its dictionary, and the item: whatever a test put there.
Item = tuple[int, Any]

_UNFINISHED = ("open", "sent", "auto_remediating")


class PretendHuntress(PretendServer):
    """`organizations`, `agents`, `reports` and `summaries` map ids to raw JSON; change them while `lock` is held.

    With `dialect = "reports"` there is no `/incident_reports`, and `/reports` lists incidents instead of `summaries`.
    Every resource is also served under `/accounts/<account id>/`, as resellers' keys want it.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        dialect: Dialect = "incident_reports",
        pagination: Pagination | None = None,
        organizations: int = 0,
        advertise: str = "",
    ) -> None:
        super().__init__(host, port, advertise=advertise)
        self.dialect = dialect
        self.pagination = pagination or ("token" if dialect == "incident_reports" else "total_pages")
        self.credentials = ("hk_pretend", "hs_pretend-secret")
        self.account: Any = dict(scenario.ACCOUNT)
        self.organizations: dict[int, Any] = {raw["id"]: raw for raw in scenario.organizations(organizations)}
        self.agents: dict[int, Any] = {}
        self.reports: dict[int, Any] = {}
        #: The vendor's monthly summaries, which `/reports` lists in the current dialect.
        self.summaries: dict[int, Any] = {}
        self.escalations: dict[int, Any] = {}
        self.platform_actions: dict[int, Any] = {}
        #: The account's users with their roles; None: the key may not list them.
        self.memberships: dict[int, Any] | None = {raw["id"]: raw for raw in scenario.memberships()}
        #: May the key change anything? An account's default key may not.
        self.writable = True
        #: Most items on a page, whatever `limit` asks for.
        self.page_size_cap = 500
        #: Requests allowed in 60 s, as the vendor counts them; 0: any number.
        self.rate_limit = 0
        #: Value of the `Retry-After` header that goes with 429; None: no header, as the vendor's document has it.
        self.retry_after: str | None = None
        #: Called after each page of a listing was made, `lock` held: what it changes comes between two pages.
        self.after_page: Callable[[Received], object] = lambda _: None
        #: Answer a single resource inside its envelope? Live answers were seen without.
        self.wrapped = True
        self._taken: deque[float] = deque()
        for prefix in ("/v1", r"/v1/accounts/(?:\d+)"):
            self._resources(prefix)
        # The vendor does not offer these under a reseller's prefix.
        self._further("escalation", lambda: self.escalations)
        self._further("platform_action", lambda: self.platform_actions)
        self.route("GET", "/v1/account", lambda _: self._one("account", self.account))
        self.route("GET", r"/v1/accounts/\d+", lambda _: self._one("account", self.account))
        self.route("GET", "/v1/actor", lambda _: Reply(200, {"account": self.account}))

    def _resources(self, prefix: str) -> None:
        def listed(key: str, items: Callable[[], dict[int, Any]], *filters: str) -> Callable[[Received], Reply]:
            return lambda request: self._page(
                key, [i for i in items().items() if _fits(i[1], request.query, filters)], request
            )

        self.route("GET", f"{prefix}/organizations", listed("organizations", lambda: self.organizations, "name", "key"))
        self.route("GET", rf"{prefix}/organizations/(\d+)", self._single("organization", lambda: self.organizations))
        agent_filters = ("organization_id", "platform", "hostname")
        self.route("GET", f"{prefix}/agents", listed("agents", lambda: self.agents, *agent_filters))
        self.route("GET", rf"{prefix}/agents/(\d+)", self._single("agent", lambda: self.agents))
        self.route("GET", f"{prefix}/memberships", self._list_memberships)
        self.route("GET", f"{prefix}/reports", self._list_reports)
        self.route("GET", f"{prefix}/incident_reports", self._list_incident_reports)
        self.route("GET", rf"{prefix}/incident_reports/(\d+)", self._single("incident_report", self._incident_reports))
        self.route("GET", rf"{prefix}/incident_reports/(\d+)/remediations", self._list_remediations)
        self.route("POST", rf"{prefix}/incident_reports/(\d+)/resolution", self._resolve_report)

    def _further(self, name: str, items: Callable[[], dict[int, Any]]) -> None:
        self.route("GET", f"/v1/{name}s", lambda request: self._list_further(f"{name}s", items(), request))
        self.route("GET", rf"/v1/{name}s/(\d+)", self._single(name, items))

    def _single(self, key: str, items: Callable[[], dict[int, Any]]) -> Callable[[Received, str], Reply]:
        return lambda _, number: self._one(key, items().get(int(number), _MISSING))

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """A ready `[huntress]` table for this server."""
        key, secret = self.credentials
        table = {"base_url": f"{self.url}/v1", "api_key": key, "api_secret": secret, "requests_per_minute": 6000}
        return table | overrides

    def add_report(self, **fields: Any) -> int:
        """Adds an open report made of `fields` and what is missing; returns its id.

        In the current dialect it is a complete one, of a kind that follows from its id; under `reports` it has an id, a
        status, a time and `fields` only (`organization_id` decides where it is listed and is not shown).
        """
        with self.lock:
            number = fields.get("id") or max([1000, *self.reports]) + 1
            now = datetime.now(UTC)
            of = fields.get("organization_id", next(iter(self.organizations), 1))
            if self.dialect == "reports":
                raw = {
                    "id": number,
                    "organization_id": of,
                    "status": "open",
                    "created_at": scenario.stamp(now),
                } | fields
            else:
                organization = self.organizations.get(of)
                named = organization if isinstance(organization, dict) and "name" in organization else {"name": "Test"}
                agent = self.agents.get(fields.get("agent_id", 0))
                raw = scenario.incident(number, {**named, "id": of}, agent, now, **fields)
            self.reports[number] = raw
            return number

    def add_escalation(self, organizations: Sequence[int] = (), **fields: Any) -> int:
        """Adds an open escalation that concerns these organizations; none: the account. Returns its id."""
        return self._add_further(self.escalations, scenario.escalation, 2000, organizations, fields)

    def add_platform_action(self, organizations: Sequence[int] = (), **fields: Any) -> int:
        """Adds an open platform action, by default the one about a broken integration. Returns its id."""
        return self._add_further(self.platform_actions, scenario.platform_action, 3000, organizations, fields)

    def _add_further(
        self,
        items: dict[int, Any],
        make: Callable[..., dict[str, Any]],
        least: int,
        organizations: Sequence[int],
        fields: dict[str, Any],
    ) -> int:
        with self.lock:
            number: int = fields.pop("id", max([least, *items]) + 1)
            now = scenario.stamp(datetime.now(UTC))
            named = [self.organizations.get(each) or scenario.organization(each) for each in organizations]
            items[number] = make(number, named, **({"created_at": now, "updated_at": now} | fields))
            return number

    def resolve_escalation(self, number: int) -> None:
        """Ends an escalation, as a partner does."""
        self._resolve(self.escalations[number])

    def resolve_platform_action(self, number: int) -> None:
        """Ends a platform action."""
        self._resolve(self.platform_actions[number])

    def _resolve(self, raw: dict[str, Any]) -> None:
        with self.lock:
            now = scenario.stamp(datetime.now(UTC))
            raw |= {"status": "resolved", "resolved_at": now, "updated_at": now}

    def close_report(self, number: int, status: str = "closed") -> None:
        """Ends a report, as the SOC or a partner does."""
        with self.lock:
            now = scenario.stamp(datetime.now(UTC))
            self.reports[number] |= {"status": status, "closed_at": now, "status_updated_at": now, "updated_at": now}

    def _resolve_report(self, _: Received, number: str) -> Reply:
        if not self.writable:
            return Reply(403, {"message": "There was an issue with your API credential or permissions."})
        report = self._incident_reports().get(int(number), _MISSING)
        if not isinstance(report, dict):
            return _NOT_FOUND
        held = report.get("remediations") or {}
        unapproved = any(each.get("status") == "unapproved" for each in held.get("items", []))
        if unapproved or report.get("status") != "sent":
            message = "Confirm that all remediations are approved and report status is 'sent'."
            return Reply(409, {"message": message})
        self.close_report(int(number))
        return Reply(201, {"incident_report": report})

    def answer(self, request: Received) -> Reply:
        if self.rate_limit and not self._within_rate():
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return Reply(429, {"message": "Rate limit exceeded"}, headers)
        key, secret = self.credentials
        expected = "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()
        if request.headers.get("Authorization") != expected:
            return Reply(401, {"message": "The credentials could not be authenticated."})
        account = request.path.removeprefix("/v1/accounts/").split("/")[0]
        if request.path.startswith("/v1/accounts/") and account != str(self.account.get("id")):
            return Reply(404, {"message": f"account {account} does not exist"})
        return super().answer(request)

    def _within_rate(self) -> bool:
        now = time.monotonic()
        while self._taken and self._taken[0] <= now - 60:
            self._taken.popleft()
        if len(self._taken) >= self.rate_limit:
            return False
        self._taken.append(now)
        return True

    def _incident_reports(self) -> dict[int, Any]:
        return {} if self.dialect == "reports" else self.reports

    def _list_incident_reports(self, request: Received) -> Reply:
        if self.dialect == "reports":
            return _NOT_FOUND
        filters = ("status", "severity", "platform", "organization_id", "agent_id")
        return self._page(
            "incident_reports", [i for i in self.reports.items() if _fits(i[1], request.query, filters)], request
        )

    def _list_reports(self, request: Received) -> Reply:
        if self.dialect == "incident_reports":
            filters: tuple[str, ...] = ("organization_id", "type")
            return self._page(
                "reports", [i for i in self.summaries.items() if _fits(i[1], request.query, filters)], request
            )
        filters = ("organization_id", "status")
        found = [(number, raw) for number, raw in self.reports.items() if _fits(raw, request.query, filters)]
        return self._page("reports", [(number, _without_organization(raw)) for number, raw in found], request)

    def _list_further(self, key: str, items: dict[int, Any], request: Received) -> Reply:
        # Only the single read has the entities.
        listed = [
            (number, {k: v for k, v in raw.items() if k != "entities"} if isinstance(raw, dict) else raw)
            for number, raw in items.items()
        ]
        wanted = request.query.get("organization_id")
        found = [
            item
            for item in listed
            if _fits(item[1], request.query, ("status", "severity", "subtype"))
            and (wanted is None or wanted in _organization_ids(item[1]))
        ]
        return self._page(key, found, request)

    def _list_memberships(self, request: Received) -> Reply:
        if self.memberships is None:
            return Reply(403, {"message": "There was an issue with your API credential or permissions."})
        filters = ("permissions",)
        found = [item for item in self.memberships.items() if _fits(item[1], request.query, filters)]
        return self._page("memberships", found, request)

    def _list_remediations(self, request: Received, number: str) -> Reply:
        report = self._incident_reports().get(int(number), _MISSING)
        if report is _MISSING:
            return _NOT_FOUND
        held = report.get("remediations") if isinstance(report, dict) else None
        items = held.get("items") if isinstance(held, dict) else held
        return self._page("remediations", list(enumerate(items if isinstance(items, list) else [])), request)

    def _one(self, key: str, raw: Any) -> Reply:
        if raw is _MISSING:
            return _NOT_FOUND
        return Reply(200, {key: raw} if self.wrapped else raw)

    def _page(self, key: str, items: list[Item], request: Received) -> Reply:
        query = request.query
        default = 10 if self.pagination == "token" else 25
        try:
            asked = int(query.get("limit", default))
            page = int(query.get("page", 1))
            after = _read_token(query["page_token"]) if self.pagination == "token" and "page_token" in query else None
        except ValueError:
            return Reply(400, {"message": "limit, page or page_token is not valid"})
        if asked < 1 or asked > 500 or page < 1:
            return Reply(400, {"message": "limit must be between 1 and 500, page at least 1"})
        limit = min(asked, self.page_size_cap)
        descending = query.get("sort_direction", "desc") == "desc"

        def rank(item: Item) -> list[Any]:
            return [_sort_value(item, query.get("sort_field", "id")), item[0]]

        items = sorted(items, key=rank, reverse=descending)
        if self.pagination == "token":
            if after is not None:
                items = [i for i in items if (rank(i) < after if descending else rank(i) > after)]
            shown, rest = items[:limit], items[limit:]
            pagination: dict[str, Any] = {}
            if rest:
                token = base64.urlsafe_b64encode(json.dumps(rank(shown[-1])).encode()).decode()
                url = f"{self.url}{request.path}?page_token={token}&limit={limit}"
                pagination = {"next_page_token": token, "next_page_url": url}
        else:
            shown = items[(page - 1) * limit : page * limit]
            pagination = self._numbered(page, limit, len(shown), len(items), request.path)
        self.after_page(request)
        return Reply(200, {key: [raw for _, raw in shown], "pagination": pagination})

    def _numbered(self, page: int, limit: int, shown: int, total: int, path: str) -> dict[str, Any]:
        pages = -(-total // limit)
        if self.pagination == "total_pages":
            return {"current_page": page, "total_pages": pages}
        more = {"next_page": page + 1, "next_page_url": f"{self.url}{path}?page={page + 1}&limit={limit}"}
        now = {"current_page": page, "current_page_count": shown, "limit": limit, "total_count": total}
        return now | (more if page < pages else {"next_page": None, "next_page_url": None})


_MISSING = object()
_NOT_FOUND = Reply(404, {"message": "The resource does not exist, or your account may not access it."})


def _fits(raw: Any, query: Mapping[str, str], filters: tuple[str, ...]) -> bool:
    """Does `raw` pass the filters among `query`? What has no value worth comparing counts as open, in every place."""
    wanted = {name: query[name] for name in filters if name in query}
    if not isinstance(raw, dict):
        return wanted.get("status", "sent") in ("sent", "open")
    return all(_equal(name, raw.get(name), value) for name, value in wanted.items())


def _equal(name: str, given: Any, wanted: str) -> bool:
    if name != "status":
        return str(given) == wanted
    if not isinstance(given, str):
        return wanted in ("sent", "open")
    return given.strip().lower() in (_UNFINISHED if wanted == "open" else (wanted,))


def _organization_ids(raw: Any) -> set[str]:
    return {str(each["id"]) for each in raw["organizations"]} if isinstance(raw, dict) else set()


def _sort_value(item: Item, name: str) -> Any:
    number, raw = item
    if name == "id":
        return number
    return str(raw.get(name)) if isinstance(raw, dict) else ""


def _read_token(token: str) -> list[Any]:
    """Where the last page ended. Raises ValueError."""
    after = json.loads(base64.urlsafe_b64decode(token.encode()))
    if not isinstance(after, list):
        raise ValueError("not a page token")
    return after


def _without_organization(raw: Any) -> Any:
    return {k: v for k, v in raw.items() if k != "organization_id"} if isinstance(raw, dict) else raw
