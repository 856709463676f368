"""The wire to Autotask's REST API: zone, credentials, queries and pages, and what its answers mean.

Sources: the vendor's developer help (zones, threads, thresholds, paging) and, where it is silent, what public clients
observed. Autotask answers plain validation errors with status 500 and `{"errors": ["…"]}`, and too many threads with
other statuses than 429; both are told apart here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from connectors import lenient_json
from connectors.autotask_settings import AutotaskSettings
from connectors.base import ConnectorContext, Misconfigured, Outcome, OutcomeUnknown, Rejected, Unavailable
from connectors.http import Answer, HttpSession, Intent, redact, retry_after_seconds, same_site

#: Seconds a discovered zone is kept.
ZONE_KEPT = 24 * 3600.0
#: Seconds to wait after a 429 that names no time.
RATE_PAUSE = 60.0
#: Seconds to wait when only too many of our requests ran at the same time.
THREAD_PAUSE = 5.0
#: Records asked for in one page; the most that Autotask gives.
PAGE = 500
#: Pages followed at most: 100,000 records. A server that always names a next page ends here.
PAGES = 200
#: Most characters of Autotask's own sentences that are passed on.
SENTENCE = 400

_THREADS = re.compile(r"itgenatr005|thread threshold", re.IGNORECASE)
_PERMISSION = re.compile(r"adequate permission", re.IGNORECASE)
_ABSENT = re.compile(r"no matching records? found", re.IGNORECASE)

T = TypeVar("T")


class _Unauthorized(Misconfigured):
    """401: nothing was carried out; wrong credentials, or the tenant has moved to another zone."""


class Missing(Misconfigured):
    """There is no such record or address."""


class _NothingThere(Missing):
    """404, before it is said what was asked for."""


class _NoZoneService(Misconfigured):
    """There is no zone service at an address."""


class Unanswered(Unavailable):
    """Autotask answered a question with an error of its own; asking again may help."""


class Refused(Rejected):
    """Autotask's validation said no to a create."""


class Kept(Generic[T]):
    """A value that is asked for when it is older than `seconds`. Two threads may ask at once; both answers are good."""

    def __init__(self, load: Callable[[], T], seconds: float, clock: Callable[[], float]) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._held: tuple[float, T] | None = None

    @property
    def known(self) -> T | None:
        """The value last seen, however old."""
        return self._held[1] if self._held else None

    @property
    def age(self) -> float:
        """Seconds since the value was asked for."""
        return self._clock() - self._held[0] if self._held else float("inf")

    def get(self, fresh: bool = False) -> T:
        """The value; raises what the question for it raises."""
        held = self._held
        if held and not fresh and self._clock() - held[0] < self._seconds:
            return held[1]
        value = self._load()
        self._held = (self._clock(), value)
        return value

    def forget(self) -> None:
        """Has the value asked for again, because it is known to have changed."""
        self._held = None


@dataclass(frozen=True, slots=True)
class Zone:
    """Where a tenant's API and its web pages live; both addresses end with a slash."""

    url: str
    web_url: str


class AutotaskApi:
    """Requests to one tenant. Credentials go only to the discovered zone, never to the discovery itself."""

    def __init__(
        self,
        name: str,
        settings: AutotaskSettings,
        context: ConnectorContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._secrets = [
            secret
            for secret in (settings.secret.get_secret_value(), settings.integration_code.get_secret_value())
            if secret
        ]
        session = partial(
            HttpSession,
            name=f"Autotask ({name})",
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            insecure_http=settings.insecure_http,
            secrets=self._secrets,
            before_request=context.before_request,
            before_send=context.before_send,
            answered=context.answered,
            deliver_within=settings.settle / 2,
            explain=self.explain,
        )
        agent = {"User-Agent": context.user_agent}
        self._discovery = session(headers=agent, classify=self._classify_discovery)
        self._session = session(
            headers=agent
            | {
                "ApiIntegrationCode": settings.integration_code.get_secret_value(),
                "UserName": settings.username,
                "Secret": settings.secret.get_secret_value(),
            },
            classify=self._classify,
        )
        self._zone = Kept(self._discover, ZONE_KEPT, clock)

    def close(self) -> None:
        self._discovery.close()
        self._session.close()

    # Requests

    def call(self, method: str, path: str, *, intent: Intent = "read", json: Any = None) -> Answer:
        """One request to the zone, `path` relative to `V1.0/` or an address inside the zone.

        After a 401 the zone is asked for once more. What got a 401 was certainly not carried out, so a create too is
        sent again if the tenant turns out to have moved.
        """
        zone = self.zone()
        try:
            return self._send(zone, method, path, intent, json)
        except _Unauthorized as refused:
            moved = self._zone.get(fresh=True)
            if moved.url == zone.url:
                raise Misconfigured(str(refused)) from None
            return self._send(moved, method, path, intent, json)

    def _send(self, zone: Zone, method: str, path: str, intent: Intent, json: Any) -> Answer:
        try:
            return self._session.request(method, _address(zone, path), intent=intent, json=json)
        except _NothingThere:
            shown = "the next page that it named" if _absolute(path) else path
            raise Missing(f"Autotask has nothing at {shown} (404): check zone_url, or the id asked for") from None

    def get(self, path: str) -> Mapping[str, Any]:
        """The JSON object at `path`."""
        return self._object(self.call("GET", path))

    def item(self, path: str) -> Mapping[str, Any] | None:
        """The record at `path`; None when Autotask says that there is none (an error is never None)."""
        try:
            body = self.get(path)
        except Missing:
            return None
        found = body.get("item")
        if "item" not in body or not (found is None or isinstance(found, dict)):
            raise Unavailable(f"Autotask answered {path} without an item")
        return found

    def query(
        self, entity: str, filters: Sequence[Mapping[str, Any]], include: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Every record of `entity` that fits, over all pages, with the fields `include` (none named: all).

        A page is asked for by POST with the unchanged body, at the address that the page before named: Autotask
        answers 405 to a GET there. That address is followed only inside the zone.
        """
        body: dict[str, Any] = {"filter": list(filters), "maxRecords": PAGE}
        if include:
            body["includeFields"] = list(include)
        return self._pages("POST", f"{entity}/query", body)

    def any(self, entity: str) -> bool:
        """Is there any record of `entity` that the API user sees?"""
        body = {"filter": [{"op": "gt", "field": "id", "value": 0}], "maxRecords": 1, "includeFields": ["id"]}
        path = f"{entity}/query"
        return bool(self.listed(path, self._object(self.call("POST", path, json=body)).get("items")))

    def children(self, path: str) -> list[dict[str, Any]]:
        """Every record of the child collection at `path`, over all pages."""
        return self._pages("GET", path, None)

    def _pages(self, method: str, path: str, body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        what = path
        for _ in range(PAGES):
            page = self._object(self.call(method, path, json=body))
            found += self.listed(what, page.get("items"))
            details = page.get("pageDetails")
            address = details.get("nextPageUrl") if isinstance(details, dict) else None
            if not address:
                return found
            path = str(address)
        raise Unavailable(f"Autotask named more than {PAGES} pages of {what}")

    @staticmethod
    def listed(path: str, items: Any) -> list[dict[str, Any]]:
        """The records in `items`. Raises `Unavailable` when they cannot be read."""
        records = lenient_json.records(items)
        if records is None:
            raise Unavailable(f"Autotask answered {path} without a list of records")
        return records

    def _object(self, answer: Answer) -> Mapping[str, Any]:
        if not isinstance(answer.json, dict):
            raise Unavailable("Autotask answered with something that is not its API's JSON")
        if answer.json.get("errors"):
            raise Unavailable(f"Autotask answered with errors: {self.explain(answer)}")
        return answer.json

    def change(self, method: str, path: str, record: Mapping[str, Any], intent: Intent = "update") -> int:
        """Makes or changes a record. Its id, as answered (`{"itemId": n}`); raises `OutcomeUnknown` without one."""
        answer = self.call(method, path, intent=intent, json=record)
        body = answer.json if isinstance(answer.json, dict) else {}
        item_id = body.get("itemId")
        if body.get("errors") or not isinstance(item_id, int) or isinstance(item_id, bool) or item_id <= 0:
            said = self.explain(answer) or "no itemId"
            raise OutcomeUnknown(f"Autotask answered {answer.status}, but with {said}; whether it did it is not known")
        return item_id

    # Zone

    def zone(self) -> Zone:
        """The tenant's zone. One that is past its time is still used while the discovery fails: a 401 would tell."""
        try:
            return self._zone.get()
        except Outcome:
            if known := self._zone.known:
                return known
            raise

    def _discover(self) -> Zone:
        settings = self._settings
        if not settings.username.strip():
            raise Misconfigured("username is empty: give the user name (key) of an Autotask API-only user")
        start = urlsplit(settings.zone_url)
        answer = self._ask_zone()
        body = answer.json if isinstance(answer.json, dict) else {}
        url = body.get("url")
        if not isinstance(url, str) or not url:
            raise Misconfigured(
                f"zone_url: {start.netloc} did not answer with an Autotask zone; is it the right address?"
            )
        if not _plain(url) or not same_site(settings.zone_url, url):
            raise Misconfigured(
                f"zone_url: {start.netloc} names a zone at another site ({redact(url[:200], self._secrets)}); "
                "credentials are not sent there"
            )
        return Zone(url=url.rstrip("/") + "/", web_url=self._web_url(url, body.get("webUrl")))

    def _ask_zone(self) -> Answer:
        """The zone service's answer. Public clients know its address with `v1.0` and with `1.0`."""
        root = f"{self._settings.zone_url}/atservicesrest"
        user = {"user": self._settings.username}
        try:
            return self._discovery.request("GET", f"{root}/v1.0/zoneInformation", params=user)
        except _NoZoneService:
            return self._discovery.request("GET", f"{root}/1.0/zoneInformation", params=user)

    def _web_url(self, url: str, web_url: Any) -> str:
        """Where people open tickets: `webUrl` if it belongs to the same site, else `wwN` for `webservicesN`."""
        if isinstance(web_url, str) and web_url and _plain(web_url) and same_site(self._settings.zone_url, web_url):
            return web_url.rstrip("/") + "/"
        parts = urlsplit(url)
        return f"{parts.scheme}://{re.sub('^webservices', 'ww', parts.netloc, flags=re.IGNORECASE)}/"

    # What answers mean

    def explain(self, answer: Answer) -> str:
        """Autotask's own sentences (`errors`, strings or objects with a `message`); "" when it gave none."""
        errors = answer.json.get("errors") if isinstance(answer.json, dict) else None
        if not isinstance(errors, list):
            return ""
        said = (error.get("message") if isinstance(error, dict) else error for error in errors)
        line = " ".join(sentence for sentence in said if isinstance(sentence, str))
        clean = " ".join("".join(c if c.isprintable() else " " for c in line[:5000]).split())
        return redact(clean, self._secrets)[:SENTENCE]  # redacted before it is cut, or half a secret could stay

    def _classify(self, answer: Answer, intent: Intent) -> Outcome | None:
        said = self.explain(answer)
        if busy := _busy(answer):
            return busy
        if answer.status == 401:
            return _Unauthorized(
                "Autotask refused the credentials (401): check username, secret and integration_code, and that the API "
                "user is active with the security level “API User (API-only)”"
            )
        if answer.status == 403 or _PERMISSION.search(said):
            return Misconfigured(
                f"Autotask's API user may not do this ({said or 'status 403'}): give its security level the permission"
            )
        if answer.status == 404:
            return _NothingThere("Autotask has nothing there (404)")
        if answer.status != 500 or not said:
            return None
        if intent != "create" and _ABSENT.search(said):
            return Missing(f"Autotask has no such record: {said}")
        if intent == "read":
            return Unanswered(f"Autotask could not answer: {said}")
        return Refused(f"Autotask refused: {said}") if intent == "create" else Rejected(f"Autotask refused: {said}")

    def _classify_discovery(self, answer: Answer, intent: Intent) -> Outcome | None:
        if busy := _busy(answer):
            return busy
        if answer.status == 500:
            return Misconfigured(
                f"Autotask found no zone for the user {self._settings.username!r} (status 500): check username; it is "
                "the API user's key with its domain"
            )
        if answer.status in (404, 405):
            host = urlsplit(self._settings.zone_url).netloc
            return _NoZoneService(f"zone_url: {host} is not an Autotask zone service (status {answer.status})")
        return None


def made_despite(refused: Refused, what: str, find: Callable[[], T | None]) -> T:
    """What `find` finds of a create that was refused, with a status 500. Raises `refused` when it finds nothing."""
    try:
        found = find()
    except Outcome as failed:
        raise OutcomeUnknown(f"{refused}; and whether the {what} exists could not be asked: {failed}") from None
    if not found:
        raise refused
    return found


def _busy(answer: Answer) -> Unavailable | None:
    threads = _THREADS.search(answer.text)
    if answer.status != 429 and not threads:
        return None
    named = retry_after_seconds(answer.headers.get("Retry-After"))
    if threads:
        return Unavailable("Autotask has too many requests of this integration at once", named or THREAD_PAUSE)
    return Unavailable("Autotask's request limit is used up (429)", RATE_PAUSE if named is None else named)


def _address(zone: Zone, path: str) -> str:
    if not _absolute(path):
        return f"{zone.url}V1.0/{path}"
    if _origin(path) != _origin(zone.url):
        raise Misconfigured("Autotask named a next page outside its own zone; it is not followed")
    return path


def _absolute(path: str) -> bool:
    return path.lower().startswith(("http:", "https:"))


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _plain(url: str) -> bool:
    """An http(s) address of a host without user information, query or fragment."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and named and "@" not in parts.netloc and not (parts.query or parts.fragment)
    )
