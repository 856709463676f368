"""Session, deadline, proxies and TLS: what every connector that speaks HTTP shares.

`connectors.verdicts` has the status table: what comes of a request for the delivery.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import requests
import structlog
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies, select_proxy

from connectors import lenient_json
from connectors.addresses import is_loopback, same_site, split_url
from connectors.base import Misconfigured
from connectors.deadline import DeadlineAdapter, attempt
from connectors.redaction import redact
from connectors.verdicts import LONGEST_RETRY_AFTER, Answer, Intent, TooLong, Verdicts, retry_after_seconds

log = structlog.get_logger()

#: Parameters of a query whose values are never logged, whoever chose them.
_SECRET_PARAMETER = re.compile(r"key|token|secret|password|passwd|pwd|auth|sig|code|credential", re.IGNORECASE)

__all__ = [
    "LONGEST_RETRY_AFTER",
    "Answer",
    "HttpSession",
    "Intent",
    "is_loopback",
    "redact",
    "retry_after_seconds",
    "same_site",
]


class HttpSession:
    """Requests to one system: deadline for the whole request, no redirects, no .netrc, outcomes instead of errors.

    `request` returns the `Answer` for any 2xx and raises the outcome that the status table gives for everything else:
    the vendor's `explain` turns an error body into a sentence, `classify` may override the table for vendor oddities
    (return an outcome to raise, or None to use the table).

    `timeout` is in seconds, from looking up the name to the last byte of the answer. May be used by several threads at
    once; connections are kept and used again, cookies are not. `answered` hears each answer's status, or `none`.
    Without `proxy` the environment's proxy serves all hosts but loopback. Without `ca_file` the environment's
    REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE is trusted, else the well-known authorities. An answer longer than `max_bytes`
    (unpacked) is refused.
    """

    def __init__(
        self,
        *,
        name: str,
        timeout: float,
        ca_file: str = "",
        proxy: str = "",
        insecure_http: bool = False,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        secrets: Sequence[str] = (),
        before_request: Callable[[], None] = lambda: None,
        before_send: Callable[[], None] = lambda: None,
        answered: Callable[[str], None] = lambda status: None,
        deliver_within: float | None = None,
        explain: Callable[[Answer], str] | None = None,
        classify: Callable[[Answer, Intent], Exception | None] | None = None,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._ca_file = ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
        self._ca_checked = False
        self._proxy = proxy
        self._insecure_http = insecure_http
        known = [*secrets, *(auth[1:] if auth else ()), *_proxy_secrets(proxy)]
        self._verdicts = Verdicts(name, known, explain, classify)
        self._before_request = before_request
        self._before_send = before_send
        self._answered = answered
        self._deliver_within = deliver_within
        self._max_bytes = max_bytes
        # Not a `requests.Session`: nothing of what it adds is wanted (cookies, redirects, .netrc, hooks), and looking
        # for it takes a third of a request's processor time.
        self._adapter = DeadlineAdapter()
        self._headers: CaseInsensitiveDict[str | bytes] = CaseInsensitiveDict(
            {
                "User-Agent": "huntress-bridge",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "Connection": "keep-alive",
            }
        )
        if auth:
            pair = base64.b64encode(":".join(auth).encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._headers.update(headers or {})

    def request(
        self,
        method: str,
        url: str,
        *,
        intent: Intent = "read",
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request, once.

        Raises the outcomes of the status table, and whatever `before_request` and `before_send` raise: then it did not
        leave, at least not as a whole.
        """
        parts = self._checked(url)
        proxies = self._proxies(url, parts)
        what = f"{method} {parts.netloc}{parts.path or '/'}"
        self._before_request()
        started = time.monotonic()
        failure: Exception | None = None
        answer: Answer | None = None
        with attempt(self.timeout, self._before_send, self._deliver_within) as sending:
            try:
                prepared = requests.PreparedRequest()
                prepared.prepare(
                    method,
                    url,
                    headers={**self._headers, **(headers or {})},
                    params=_encodable(params),
                    json=json,
                    data=_encodable(data),
                )
                response = self._adapter.send(
                    prepared,
                    timeout=self.timeout,
                    stream=True,
                    verify=self._ca_file or True,
                    proxies=proxies,
                )
                answer = self._read(response)
            # Everything: a library's surprise after a create was sent must end as "in doubt", never as a plain crash.
            except Exception as error:
                failure = error
        if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
            log.debug(
                "request",
                system=self.name,
                method=method,
                url=self._shown(parts, params),
                status=answer.status if answer else None,
                problem="too slow" if sending.expired else type(failure).__name__ if failure else None,
                ms=round((time.monotonic() - started) * 1000),
                bytes=answer.size if answer else None,
            )
        # Raised out here, so that no library's exception, which knows the request and its headers, hangs on to it.
        if sending.stopped:
            raise sending.stopped
        self._answered("none" if failure or sending.expired or answer is None else str(answer.status))
        if failure or sending.expired or answer is None:
            raise self._verdicts.no_answer(
                what, intent, sending, failure, secrets=_proxy_secrets(*(proxies or {}).values())
            )
        if not answer.ok:
            raise self._verdicts.refused(what, intent, answer)
        return answer

    def close(self) -> None:
        """Gives up idle connections."""
        self._adapter.close()

    def _shown(self, parts: SplitResult, params: Mapping[str, str | int] | None) -> str:
        """The address for the log, without what may be a secret in its query."""
        query = [*parse_qsl(parts.query, keep_blank_values=True), *(params or {}).items()]
        masked = [(name, "***" if _SECRET_PARAMETER.search(name) else value) for name, value in query]
        shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
        return self._verdicts.told(f"{shown}?{urlencode(masked, safe='*,/:', errors='replace')}" if masked else shown)

    def _checked(self, url: str) -> SplitResult:
        parts = split_url(url)
        if parts is None:
            shown = self._verdicts.told(url.partition("?")[0])
            raise Misconfigured(f"{self.name}: {shown} is not an http or https address")
        host = parts.hostname or ""
        shown = self._verdicts.told(host)
        if "@" in parts.netloc:
            raise Misconfigured(f"{self.name}: the address of {shown} must not carry credentials")
        if parts.scheme == "http" and not self._insecure_http:
            proxy = urlsplit(self._proxy).hostname if self._proxy else None
            if not is_loopback(host) or (proxy and not is_loopback(proxy)):
                raise Misconfigured(
                    f"{self.name}: plain http to {shown} would show credentials to the network; use https, or set "
                    "insecure_http = true"
                )
        if parts.scheme == "https" and self._ca_file and not self._ca_checked:
            self._check_ca()
        return parts

    def _check_ca(self) -> None:
        try:
            if os.path.isdir(self._ca_file):
                ssl.create_default_context(capath=self._ca_file)
            else:
                ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:  # ssl.SSLError is one too
            reason = "it holds no certificates in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
            raise Misconfigured(
                f"{self.name}: cannot use the certificate authorities in {self._ca_file}: {reason}; check ca_file"
            ) from None
        self._ca_checked = True

    def _proxies(self, url: str, parts: SplitResult) -> dict[str, str] | None:
        if self._proxy:
            proxies = {"http": self._proxy, "https": self._proxy}
        elif is_loopback(parts.hostname or ""):
            return None
        else:
            proxies = dict(get_environ_proxies(url))
        chosen = select_proxy(url, proxies)
        if chosen and chosen.lower().startswith("socks"):
            raise Misconfigured(f"{self.name}: SOCKS proxies are not supported; name an http or https proxy")
        return proxies

    def _read(self, response: requests.Response) -> Answer:
        body = bytearray()
        try:
            for chunk in response.raw.stream(64 * 1024, decode_content=True):
                body += chunk
                if len(body) > self._max_bytes:
                    raise TooLong(f"the answer is longer than {self._max_bytes} bytes")
        except BaseException:
            response.raw.close()
            raise
        finally:
            response.raw.release_conn()
        return Answer(
            status=response.status_code,
            headers=response.headers,
            text=_decode(bytes(body), response.encoding),
            json=_parse(bytes(body)),
            size=len(body),
        )


def _encodable(values: Mapping[str, str | int] | Mapping[str, str] | None) -> dict[str, bytes] | None:
    return None if values is None else {key: str(value).encode("utf-8", "replace") for key, value in values.items()}


def _decode(body: bytes, encoding: str | None) -> str:
    try:
        return body.decode(encoding or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _parse(body: bytes) -> Any:
    try:
        return lenient_json.parse(body)
    except ValueError:
        return None


def _proxy_secrets(*proxies: str) -> list[str]:
    found = []
    for proxy in proxies:
        password = proxy.rpartition("@")[0].rpartition("/")[2].partition(":")[2]
        found += [password, unquote(password)]
    return found
