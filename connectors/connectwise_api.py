"""Speaking to ConnectWise PSA's REST interface: codebase discovery, error bodies, paging.

Facts are from the vendor's developer guide and its OpenAPI document 2026.4 unless a comment says otherwise.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from connectors import lenient_json
from connectors.base import ConnectorContext, Misconfigured, Outcome, Unavailable
from connectors.connectwise_settings import ConnectWiseSettings, hosted_hint, is_hosted
from connectors.http import LONGEST_RETRY_AFTER, Answer, HttpSession, Intent, redact, same_site

#: Most rows the vendor gives per page.
PAGE_SIZE = 1000
#: A listing longer than this many pages is not believed; 200,000 companies is more than anybody has.
MAX_PAGES = 200
#: Codes of a refusal that is about the connection, not about what was sent.
_SETUP_CODES = ("Security", "Unauthorized")


class Missing(Misconfigured):
    """A 404 that a fresh codebase did not mend: no such record, or (hosted) wrong credentials."""


class UnknownCompanyId(Misconfigured):
    """The site does not know the login company id."""


def one_line(text: object, limit: int = 500) -> str:
    """Text of the other side, fit for a sentence: no control characters, no line breaks, at most `limit` long."""
    if not isinstance(text, str):
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def explain(answer: Answer) -> str:
    """ConnectWise's error body as one sentence; empty when there is none.

    Two shapes are documented: `{"code", "message", "errors": [{"code", "message", "field"}]}`, and with 429
    `{"error", "message"}`. `x-cw-request-id` is what the vendor's support asks for.
    """
    body = answer.json if isinstance(answer.json, dict) else {}
    said = one_line(body.get("message")) or one_line(body.get("error")) or one_line(body.get("code"))
    details = [
        one_line(error.get("message")) + (f" (field {one_line(error['field'], 60)})" if error.get("field") else "")
        for error in lenient_json.records(body.get("errors")) or ()
    ]
    details = [detail for detail in details if detail]
    sentence = ": ".join(part for part in (said.rstrip(". "), "; ".join(details)) if part)
    request_id = answer.headers.get("x-cw-request-id", "")
    if sentence and re.fullmatch(r"[A-Za-z0-9-]{1,64}", request_id):
        sentence += f" [request {request_id}]"
    return one_line(sentence, 5000)


class ConnectWiseApi:
    """Requests below `<site>/<codebase>apis/3.0`. Shared by threads; raises outcomes only."""

    def __init__(self, name: str, settings: ConnectWiseSettings, context: ConnectorContext) -> None:
        self.name = name
        self.url = settings.url
        self.company_id = settings.company_id
        public_key, private_key = settings.public_key.get_secret_value(), settings.private_key.get_secret_value()
        self._secrets = (private_key, public_key, settings.client_id)
        accept = "application/vnd.connectwise.com+json"
        if settings.api_version:
            # Must be the first media type; without a version the server answers with its latest models.
            accept += f"; version={settings.api_version}"

        def session(headers: Mapping[str, str], auth: tuple[str, str] | None) -> HttpSession:
            return HttpSession(
                name=name,
                timeout=settings.timeout,
                ca_file=settings.ca_file,
                proxy=settings.proxy,
                insecure_http=settings.insecure_http,
                headers={"User-Agent": context.user_agent, **headers},
                auth=auth,
                secrets=self._secrets,
                before_request=context.before_request,
                before_send=context.before_send,
                answered=context.answered,
                deliver_within=settings.settle / 2,
                explain=self._explain,
                classify=self._classify,
            )

        # Discovery needs no credentials, so it gets none.
        self._open = session({}, None)
        self._session = session(
            {"Accept": accept, "clientId": settings.client_id}, (f"{settings.company_id}+{public_key}", private_key)
        )
        self._base = ""
        self._lock = threading.Lock()

    def base(self) -> str:
        """`https://<site>/<codebase>apis/3.0`, discovered once. Raises `Misconfigured` for an unknown company id."""
        with self._lock:
            if not self._base:
                self._base = self._discover()
            return self._base

    def request(
        self,
        method: str,
        path: str,
        *,
        intent: Intent = "read",
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
    ) -> Answer:
        """One request; after a 404 the codebase is discovered anew, because an upgrade of a hosted site changes it.

        A create is not sent again here: one create, one request.
        """
        base = self.base()
        try:
            return self._session.request(method, base + path, intent=intent, params=params, json=json)
        except Missing:
            if not self._moved(base):
                raise
        if intent == "create":
            raise Unavailable("ConnectWise was upgraded and answers under another codebase now; the next try uses it")
        return self._session.request(method, self.base() + path, intent=intent, params=params, json=json)

    def rows(self, path: str, params: Mapping[str, str | int] | None = None) -> list[dict[str, Any]]:
        """One page of a listing."""
        return self._page(path, dict(params or {}))[0]

    def all_rows(
        self, path: str, params: Mapping[str, str | int] | None = None, max_pages: int = MAX_PAGES
    ) -> list[dict[str, Any]]:
        """A whole listing, at most `max_pages` pages of 1000, by id. Pages are counted, links are never followed."""
        seen: dict[int, dict[str, Any]] = {}
        for page in range(1, max_pages + 1):
            wanted = {**(params or {}), "orderBy": "id asc", "pageSize": PAGE_SIZE, "page": page}
            rows, more = self._page(path, wanted)
            fresh = {row_id(row): row for row in rows if row_id(row) not in seen}
            seen.update(fresh)
            if not fresh or not (more or len(rows) >= PAGE_SIZE):
                break
        seen.pop(0, None)
        return list(seen.values())

    def close(self) -> None:
        self._open.close()
        self._session.close()

    def _page(self, path: str, params: Mapping[str, str | int]) -> tuple[list[dict[str, Any]], bool]:
        answer = self.request("GET", path, params=params)
        rows = lenient_json.records(answer.json)
        if rows is None:
            raise Unavailable(f"ConnectWise answered GET {path} with something that is not a list of records")
        return rows, 'rel="next"' in answer.headers.get("Link", "")

    def _moved(self, base: str) -> bool:
        with self._lock:
            if self._base == base:
                self._base = self._discover()
            return self._base != base

    def _discover(self) -> str:
        try:
            answer = self._open.request("GET", f"{self.url}/login/companyinfo/{quote(self.company_id, safe='')}")
        except Missing:
            raise Misconfigured(
                f"url = {self.url!r}: no ConnectWise PSA answers there; give the site's address"
            ) from None
        if answer.json is None and answer.text.strip() == "null":
            raise UnknownCompanyId(
                f"company_id = {self.company_id!r}: unknown company id at {self.url}; "
                "it is the one typed in at login, and the site must be the one you log in to"
            )
        if not isinstance(answer.json, dict):
            raise Unavailable(f"{self.url} answered the codebase discovery with something that is not a JSON object")
        codebase = answer.json.get("Codebase")
        if not isinstance(codebase, str) or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*/?", codebase):
            raise Misconfigured(f"{self.url} names no usable codebase for company id {self.company_id!r}")
        return f"{self._site(answer.json)}/{codebase.rstrip('/')}/apis/3.0"

    def _site(self, info: Mapping[str, Any]) -> str:
        """Where requests go. Only hosted sites send one elsewhere; a provider's own server may name an inner host."""
        named = info.get("SiteUrl") or info.get("SiteURL")
        if not info.get("IsCloud") or not isinstance(named, str):
            return self.url
        scheme = urlsplit(self.url).scheme
        try:
            parts = urlsplit(named if "://" in named else f"{scheme}://{named}")
            host = parts.netloc
            if is_hosted(f"https://{host}") and not host.startswith("api-"):
                host = f"api-{host}"
            site = f"{parts.scheme}://{host}"
            accepted = same_site(self.url, site)
        except ValueError:
            accepted = False
        if not accepted:
            raise Misconfigured(
                f"url = {self.url!r}: ConnectWise names another site for this company, {one_line(named, 100)!r}; "
                "credentials are not sent there. If it is right, put it into url"
            )
        return site

    def _explain(self, answer: Answer) -> str:
        # Redacted before it is cut, or half a secret could stay; cut, so that the hint is not.
        said = one_line(redact(explain(answer), self._secrets), 200)
        return ". ".join(part for part in (said, self._hint(answer)) if part)

    def _hint(self, answer: Answer) -> str:
        if answer.status in (400, 401, 403, 404) and hosted_hint(self.url):
            return hosted_hint(self.url)
        if answer.status == 400 and "API version" in explain(answer):
            return 'The server does not know these models: set api_version = "", or to one that it names'
        if answer.status == 401:
            return "Check company_id, public_key and private_key"
        if answer.status == 403:
            return "Check client_id and the security role of the API member"
        if answer.status == 404:
            return "Check url; hosted ConnectWise also answers so to a wrong company_id or wrong keys"
        return ""

    def _classify(self, answer: Answer, intent: Intent) -> Outcome | None:
        """What differs from the shared table, whose sentences this does not pass through."""
        body = answer.json if isinstance(answer.json, dict) else {}
        said = self._explain(answer) or "without a readable reason"
        sentence = f"{self.name}: ConnectWise answered {answer.status}: {said}"
        if answer.status == 404:
            return Missing(sentence)
        # "SSL is required" comes from hosted sites whose host lacks its prefix; a wrong version is no ticket's fault.
        if answer.status == 400 and (body.get("code") in _SETUP_CODES or "API version" in explain(answer)):
            return Misconfigured(sentence)
        if answer.status == 429 and not answer.headers.get("Retry-After"):
            named = re.search(r"in (\d{1,4}) seconds", explain(answer))
            return Unavailable(sentence, min(float(named[1]), LONGEST_RETRY_AFTER)) if named else None
        return None


def row_id(row: object) -> int:
    """The record's id; 0 when there is none that can be believed."""
    value = row.get("id") if isinstance(row, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def text_of(row: Mapping[str, Any], key: str) -> str:
    """The row's text under `key`; empty when there is none."""
    value = row.get(key)
    return value if isinstance(value, str) else ""
