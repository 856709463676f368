"""The source's client: reads accounts, organizations, agents, incident reports and further streams.

It changes nothing, but for one request that only `[huntress] resolve` sends: `HuntressClient.resolve`.

Two dialects exist: `incident_reports`, which the vendor documents (https://api.huntress.io/docs), and `reports`, which
lists incidents under `/reports` with `status=open` and little more than their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import structlog

from bridge.listing import (
    Listing,
    Sieve,
    Unparsable,
    is_open_further,
    is_open_incident,
    is_open_report,
    no_summary,
    sort_out,
)
from bridge.models import (
    FINISHED_STATUSES,
    OPEN_STATUSES,
    Account,
    Agent,
    IncidentReport,
    Kind,
    Membership,
    Organization,
    Remediation,
    ReportKey,
)
from bridge.paging import Pages, PagingError, Params
from bridge.parsing import (
    ParseError,
    line,
    parse_account,
    parse_agent,
    parse_escalation,
    parse_membership,
    parse_organization,
    parse_remediation,
    parse_report,
    whole_number,
    word,
)
from bridge.source_errors import (
    BudgetExhausted,
    SourceDeclined,
    SourceError,
    SourceForbidden,
    SourceGarbled,
    SourceNotFound,
    SourceRefused,
    SourceThrottled,
    SourceUnavailable,
)
from connectors.base import Misconfigured, Outcome
from connectors.http import Answer, HttpSession, Intent, is_loopback, redact, retry_after_seconds

__all__ = [
    "FINISHED_STATUSES",
    "OPEN_STATUSES",
    "Budget",
    "BudgetExhausted",
    "Dialect",
    "HuntressClient",
    "Listing",
    "RequestKind",
    "SourceDeclined",
    "SourceError",
    "SourceForbidden",
    "SourceGarbled",
    "SourceNotFound",
    "SourceRefused",
    "SourceThrottled",
    "SourceUnavailable",
    "Unparsable",
]

log = structlog.get_logger()

Dialect = Literal["incident_reports", "reports"]
RequestKind = Literal["listing", "detail"]

#: Seconds to wait after a 429 that does not say how long: the vendor's window slides over a minute.
RATE_WINDOW = 60.0
#: Longest wait, in seconds, that a 429 is believed to want.
MAX_PENALTY = 900.0
#: Requests tried in all when the source answers 429.
_TRIES = 3
#: Statuses by which open escalations and platform actions can be listed; `sent` ones have none of their own.
_LISTED_FURTHER = ("open", "overdue")
_PLURALS = {Kind.ESCALATION: "escalations", Kind.PLATFORM_ACTION: "platform_actions"}
#: Largest answer taken: a page of 500 reports with long bodies.
_MAX_BYTES = 128 * 1024 * 1024

_T = TypeVar("_T")


class Budget(Protocol):
    """The share of the account's requests that this project may use, common to all its processes."""

    def acquire(self, kind: RequestKind, wait: float | None) -> None:
        """Returns once a request may be sent. Raises `BudgetExhausted` if `wait` seconds (None: any) are not enough."""

    def penalize(self, seconds: float) -> None:
        """The source answered 429: nobody sends anything for this long."""


class HuntressClient:
    """Reads one account. May be shared by threads. Every method raises `SourceError`.

    `account_id` is the child account that a reseller's key is to read; 0: the key's own account. `timeout` is for a
    whole request, `wait`, where a method has it, for the budget; both in seconds.
    `answered` hears each answer's status.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        api_secret: str,
        budget: Budget,
        account_id: int = 0,
        timeout: float = 30,
        ca_file: str = "",
        proxy: str = "",
        insecure_http: bool = False,
        answered: Callable[[str], None] = lambda status: None,
    ) -> None:
        _refuse_unsafe(base_url, insecure_http)
        self._base = base_url.rstrip("/")
        self._prefix = f"/accounts/{account_id}" if account_id else ""
        self._budget = budget
        #: Told of each page of a listing: how many items it has, and how many pages there are, where that is known.
        self.page_came: Callable[[int, int | None], None] = lambda items, total: None
        self._secrets = (api_secret, api_key)
        self._session = HttpSession(
            name="huntress",
            timeout=timeout,
            ca_file=ca_file,
            proxy=proxy,
            insecure_http=insecure_http,
            headers={"Accept": "application/json"},
            auth=(api_key, api_secret),
            secrets=self._secrets,
            classify=self._error_for,
            answered=answered,
            max_bytes=_MAX_BYTES,
        )

    def close(self) -> None:
        """Gives up connections."""
        self._session.close()

    def account(self, wait: float | None = None) -> Account:
        """The account that is read. Where the key may not read it, the organizations say whose they are."""
        try:
            return self._single(self._prefix or "/account", "account", parse_account, None, wait)
        except (SourceForbidden, SourceNotFound) as refused:
            body = self._get(f"{self._prefix}/organizations", {"limit": 1}, "detail", wait)
            first = body.get("organizations") if isinstance(body, Mapping) else None
            any_one = first[0] if isinstance(first, list) and first else None
            number = whole_number(any_one.get("account_id")) if isinstance(any_one, Mapping) else None
            if number is None:
                raise type(refused)(
                    f"{refused} Check that [huntress] base_url ends in /v1, and [huntress] account_id."
                ) from None
            return Account(number)

    def organizations(self, *, whole: bool = False, kind: RequestKind = "detail") -> Iterator[Organization]:
        """All organizations, page by page.

        `whole`: one that cannot be parsed is a `SourceGarbled` and not left out, where absence is to mean something.
        """
        return self._stream("/organizations", "organizations", parse_organization, {}, whole=whole, kind=kind)

    def organization_pages(self) -> Iterator[list[Organization]]:
        """As `organizations`, a page at a time, without waiting for the request budget.

        After `BudgetExhausted` or `SourceThrottled` the next call goes on where this one stopped. Raises `PagingError`.
        """
        path, name = f"{self._prefix}/organizations", "organizations"
        pages = Pages(lambda params: self._get(path, params, "detail", 0), name, {}, self.page_came)

        def parsed(page: list[Any]) -> list[Organization]:
            return list(_parsed(page, name, parse_organization))

        return map(parsed, pages)  # unlike a generator, it goes on after an error

    def organization(self, organization_id: int, wait: float | None = None) -> Organization:
        """One organization."""
        path = f"{self._prefix}/organizations/{organization_id:d}"
        return self._single(path, "organization", parse_organization, organization_id, wait)

    def agents(self, organization_id: int | None = None) -> Iterator[Agent]:
        """All agents, or those of one organization, page by page."""
        return self._stream("/agents", "agents", parse_agent, _of(organization_id))

    def agent(self, agent_id: int, wait: float | None = None) -> Agent:
        """One agent. `SourceNotFound` once it was uninstalled."""
        return self._single(f"{self._prefix}/agents/{agent_id:d}", "agent", parse_agent, agent_id, wait)

    def memberships(self) -> Iterator[Membership]:
        """The account's users with their roles, page by page. `SourceForbidden` or `SourceNotFound`: not for this key.

        https://api.huntress.io/docs, "Users"; older accounts have none such.
        """
        return self._stream("/memberships", "memberships", parse_membership, {})

    def report(self, report_id: int, wait: float | None = None) -> IncidentReport:
        """One incident report as it is now, open or not. Only the `incident_reports` dialect documents this."""
        path = f"{self._prefix}/incident_reports/{report_id:d}"
        return self._single(path, "incident_report", parse_report, report_id, wait)

    def remediations(self, report_id: int, wait: float | None = None) -> tuple[Remediation, ...]:
        """All remediations of a report; the report itself carries the first ten."""
        path = f"/incident_reports/{report_id:d}/remediations"
        found = self._items(path, "remediations", {}, "detail", wait)
        return tuple(parse_remediation(raw) for raw in found)

    def resolve(self, report_id: int) -> None:
        """Asks the source to end a report, once. Approves nothing, and needs a user's key.

        Raises `SourceDeclined` (a step is not approved) or `SourceForbidden` where it does not. After any other
        `SourceUnavailable` than `SourceThrottled` it may have done so all the same.
        https://api.huntress.io/docs, "Incident Reports"
        """
        path = f"{self._prefix}/incident_reports/{report_id:d}/resolution"
        self._budget.acquire("detail", None)
        try:
            self._request("POST", path, intent="update")
        except SourceThrottled as error:
            self._budget.penalize(error.retry_after)
            raise

    def open_reports(self, dialect: Dialect, organization_id: int | None = None) -> Listing:
        """Every report that is open now, of the account or of one organization; whole, or an error that has `shown`."""
        pages = self.open_pages(dialect, organization_id)
        return sort_out((raw for page in pages for raw in page), self.sieve(dialect, organization_id))

    def open_pages(self, dialect: Dialect, organization_id: int | None = None) -> Iterator[list[Any]]:
        """The raw items of `open_reports`, page by page, for a `sieve`. An error comes after what could be read."""
        if dialect == "reports":
            filters = {"status": "open", **_of(organization_id)}
            for page in self._pages("/reports", "reports", filters, "listing"):
                yield list(filter(no_summary, page))
            return
        yield from _each(
            self._pages("/incident_reports", "incident_reports", {"status": status, **_of(organization_id)}, "listing")
            for status in OPEN_STATUSES
        )

    @staticmethod
    def sieve(
        dialect: Dialect,
        organization_id: int | None = None,
        unchanged: Callable[[Any], ReportKey | None] | None = None,
    ) -> Sieve:
        """What tells open reports from others in a listing of this dialect; `unchanged` as `Sieve` has it."""
        if dialect == "reports":
            return Sieve(is_open_report, organization_id, needs_sending=False, unchanged=unchanged)
        return Sieve(is_open_incident, organization_id, needs_sending=True, unchanged=unchanged)

    def changed_reports(self, wait: float | None = None) -> Iterator[list[IncidentReport]]:
        """Reports of every status by their last change, newest first, a page at a time as far as they can be read.

        The vendor documents no filter by time, and one status at most; one listing without costs the fewest requests.
        """
        newest_first = {"sort_field": "updated_at", "sort_direction": "desc"}
        for page in self._pages("/incident_reports", "incident_reports", newest_first, "detail", wait):
            reports = []
            for raw in page:
                with suppress(ParseError):  # what cannot be read ends nothing
                    reports.append(parse_report(raw))
            yield reports

    def further(self, kind: Kind) -> Listing:
        """Every escalation or platform action that is open now; whole, or an error that has `shown`."""
        name = self._further(kind)
        by_status = (self._items(f"/{name}", name, {"status": status}, "listing") for status in _LISTED_FURTHER)
        sieve = Sieve(is_open_further, None, needs_sending=False, parse=partial(parse_escalation, kind=kind))
        return sort_out(_each(by_status), sieve)

    def one_further(self, kind: Kind, number: int, wait: float | None = None) -> IncidentReport:
        """One escalation or platform action as it is now, open or not, with what it is about as its summary."""
        # Live answers were seen without the envelope that the vendor documents.
        path = f"/{self._further(kind)}/{number:d}"
        return self._single(path, kind.value, partial(parse_escalation, kind=kind), number, wait)

    def _further(self, kind: Kind) -> str:
        name = _PLURALS[kind]
        if self._prefix:
            raise SourceForbidden(
                f"Huntress offers {name.replace('_', ' ')} to an account's own key only, not to a reseller's. Set "
                f"[sources] {name} = false, or use a key of the account itself and [huntress] account_id = 0."
            )
        return name

    def detect_dialect(self, organization_ids: Sequence[int] = ()) -> Dialect | None:
        """The dialect that the source speaks; None while nothing is there to tell it by.

        `/incident_reports` decides when it exists. Else `/reports` is looked at: for one of `organization_ids` after
        the other until one has reports, else for the account. Raises `SourceNotFound` when neither carries incidents.
        """
        try:
            body = self._get(f"{self._prefix}/incident_reports", {"limit": 1}, "listing")
        except SourceNotFound:
            return self._look_at_reports(organization_ids)
        if not isinstance(body, Mapping) or not isinstance(body.get("incident_reports"), list):
            raise SourceGarbled("Huntress answered GET /incident_reports without a list of incident_reports.")
        return "incident_reports"

    def _look_at_reports(self, organization_ids: Sequence[int]) -> Dialect | None:
        for organization_id in organization_ids or (None,):
            try:
                body = self._get(f"{self._prefix}/reports", {"limit": 25, **_of(organization_id)}, "listing")
            except SourceNotFound as error:
                raise SourceNotFound(
                    "Huntress has neither /incident_reports nor /reports for this key. Check [huntress] base_url, "
                    f"account_id and what the key may read. {error}"
                ) from None
            items = body.get("reports") if isinstance(body, Mapping) else None
            if not isinstance(items, list):
                raise SourceGarbled("Huntress answered GET /reports without a list of reports.")
            if not items:
                continue
            if all(isinstance(raw, Mapping) and no_summary(raw) and word(raw.get("status")) for raw in items):
                return "reports"
            raise SourceNotFound(
                "Huntress has no /incident_reports for this key (404), and /reports lists summaries, not incidents. "
                "Check [huntress] account_id and what the key, or the user it belongs to, may read."
            )
        return None

    def _single(
        self, path: str, key: str, parse: Callable[[Any], _T], expected_id: int | None, wait: float | None
    ) -> _T:
        body = self._get(path, {}, "detail", wait)
        inner = body.get(key) if isinstance(body, Mapping) else None
        raw = inner if isinstance(inner, Mapping) else body
        try:
            found = parse(raw)
        except ParseError as error:
            raise SourceGarbled(f"Huntress answered GET {path} with something else: {error}.") from None
        if expected_id not in (None, whole_number(raw.get("id"))):
            raise SourceGarbled(f"Huntress answered GET {path} with the {key} of another id.")
        return found

    def _stream(
        self,
        path: str,
        key: str,
        parse: Callable[[Any], _T],
        filters: Params,
        *,
        whole: bool = False,
        kind: RequestKind = "detail",
    ) -> Iterator[_T]:
        return _parsed(self._items(path, key, filters, kind), key, parse, whole=whole)

    def _items(
        self, path: str, key: str, filters: Params, kind: RequestKind, wait: float | None = None
    ) -> Iterator[Any]:
        for page in self._pages(path, key, filters, kind, wait):
            yield from page

    def _pages(
        self, path: str, key: str, filters: Params, kind: RequestKind, wait: float | None = None
    ) -> Iterator[list[Any]]:
        path = self._prefix + path
        try:
            yield from Pages(lambda params: self._get(path, params, kind, wait), key, filters, self.page_came)
        except PagingError as error:
            raise SourceGarbled(f"Huntress answered GET {path} with pages that cannot be used: {error}.") from None

    def _get(self, path: str, params: Params, kind: RequestKind, wait: float | None = None) -> Any:
        """The JSON at `path`. Without `wait`, a 429 is sat out in the budget, a few times; nothing else is repeated."""
        for tries_left in reversed(range(_TRIES)):
            self._budget.acquire(kind, wait)
            try:
                answer = self._request("GET", path, params)
            except SourceThrottled as error:
                self._budget.penalize(error.retry_after)
                if not tries_left or wait is not None:
                    raise
                continue
            if answer.json is None:
                raise SourceGarbled(f"Huntress answered GET {path} with {answer.status} and no JSON.")
            return answer.json
        raise AssertionError("unreachable: the last try returns or raises")

    def _request(self, method: str, path: str, params: Params | None = None, *, intent: Intent = "read") -> Answer:
        try:
            return self._session.request(method, self._base + path, params=params, intent=intent)
        except SourceNotFound as error:
            raise SourceNotFound(f"{method} {path}: {error}") from None
        except Misconfigured as error:
            raise SourceRefused(f"Huntress cannot be asked: {error}.") from None
        except Outcome as error:
            raise SourceUnavailable(f"Huntress did not answer: {error}.") from None

    def _error_for(self, answer: Answer, intent: Intent) -> Exception:
        """What an answer other than 2xx means. The vendor documents no form of error bodies."""
        status, said = answer.status, self._said(answer)
        if intent == "update" and status in (401, 403):
            refused = SourceRefused if status == 401 else SourceForbidden
            return refused(
                f"Huntress does not let this API key resolve incident reports ({status}{said}). An account's default "
                "API key is read-only: give [huntress] api_key and api_secret the key of a user who may resolve "
                "reports, or set [huntress] resolve = false."
            )
        if intent == "update" and status in (409, 422):
            return SourceDeclined(f"Huntress answered {status}{said}.")
        if status == 401:
            return SourceRefused(
                f"Huntress did not accept the API key (401{said}). Check [huntress] api_key and api_secret; a secret "
                "is shown only once, so make a new key if in doubt."
            )
        if status == 403:
            return SourceForbidden(
                f"Huntress does not let this API key read what was asked for (403{said}). Give the key, or the user "
                "it belongs to, access to it; for a reseller's key check [huntress] account_id."
            )
        if status == 404:
            return SourceNotFound(f"Huntress has none such, or this API key may not see it (404{said}).")
        if status == 429:
            retry_after = retry_after_seconds(answer.headers.get("Retry-After"))
            seconds = min(RATE_WINDOW if retry_after is None else retry_after, MAX_PENALTY)
            return SourceThrottled(
                f"The Huntress account has used up its requests (429); the next one goes out in {seconds:.0f} s.",
                seconds,
            )
        if 300 <= status < 400:
            return SourceRefused(
                f"Huntress answered with a redirect ({status}), which is not followed. Set [huntress] base_url to the "
                "address of the API itself."
            )
        return SourceUnavailable(f"Huntress answered {status}{said}.")

    def _said(self, answer: Answer) -> str:
        """The source's own words, short, ready to be put after a status; a page of HTML says nothing."""
        body = answer.json
        given = [body[k] for k in ("message", "error", "errors") if body.get(k)] if isinstance(body, Mapping) else []
        words = given[0] if given else answer.text[:20_000]
        if isinstance(words, str) and words.lstrip().startswith("<"):
            return ""
        said = redact(line(words), self._secrets)[:200]
        return f": {said}" if said else ""


def _parsed(items: Iterable[Any], key: str, parse: Callable[[Any], _T], *, whole: bool = False) -> Iterator[_T]:
    """What can be parsed; `whole`: `SourceGarbled` where something cannot."""
    for raw in items:
        try:
            yield parse(raw)
        except ParseError as error:
            if whole:
                raise SourceGarbled(f"Huntress listed {key}, one of which cannot be read: {error}.") from None
            log.warning("item of a listing left out", listing=key, reason=str(error))


def _each(listings: Iterable[Iterator[_T]]) -> Iterator[_T]:
    """All items or pages. One that breaks off does not keep the next from being read, unless its error is fatal."""
    broke_off: SourceError | None = None
    for listing in listings:
        try:
            yield from listing
        except SourceError as error:
            if error.fatal:
                raise
            broke_off = broke_off or error
    if broke_off is not None:
        raise broke_off


def _refuse_unsafe(base_url: str, insecure_http: bool) -> None:
    """Raises `SourceRefused` for an address that a key must not be sent to."""
    try:
        parts = urlsplit(base_url)
        host, credentials = parts.hostname or "", parts.username or parts.password
    except ValueError:
        raise SourceRefused("[huntress] base_url is not a URL.") from None
    if parts.scheme not in ("https", "http") or not host:
        raise SourceRefused("[huntress] base_url must be a URL such as https://api.huntress.io/v1.")
    if credentials or parts.query or parts.fragment:
        raise SourceRefused("[huntress] base_url must be an address only, without user, password, query or fragment.")
    if parts.scheme == "http" and not insecure_http and not is_loopback(host):
        raise SourceRefused(
            f"[huntress] base_url is plain http to {host}, where everybody on the way could read the API key. "
            "Use https, or set insecure_http = true."
        )


def _of(organization_id: int | None) -> dict[str, str | int]:
    return {} if organization_id is None else {"organization_id": organization_id}
