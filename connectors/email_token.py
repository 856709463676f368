"""Microsoft's client credentials: an application's own access token for SMTP log-in by XOAUTH2.

The application needs the permission `SMTP.SendAsApp` and a service principal in Exchange; the token's scope is
`https://outlook.office365.com/.default`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from connectors.base import OutcomeUnknown, Unavailable
from connectors.email_message import one_line
from connectors.email_smtp import WrongSetting
from connectors.http import Answer, HttpSession, Intent
from connectors.redaction import learn, redact

SCOPE = "https://outlook.office365.com/.default"
#: Seconds before a token's end from which on it is no longer used.
MARGIN = 300
_SENTENCE_LIMIT = 300
#: OAuth errors (RFC 6749, 5.2) that another secret does not mend.
_SETTING_OF_ERROR = {"invalid_request": "tenant", "unauthorized_client": "client_id", "invalid_scope": "client_id"}


class TokenSource:
    """Access tokens, fetched when needed and kept until five minutes before they end. Shared by threads."""

    def __init__(
        self,
        *,
        url: str,
        client_id: str,
        client_secret: SecretStr,
        session: Callable[..., HttpSession] = HttpSession,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        """`options` go to the `HttpSession`."""
        self._url = url
        self._client_id = client_id
        self._secret = client_secret.get_secret_value()
        self._clock = clock
        self._session = session(secrets=[self._secret], explain=self._explain, classify=self._classify, **options)
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def get(self) -> str:
        """A token. Raises `Unavailable`, or `Misconfigured` when the application is refused."""
        with self._lock:
            if not self._token or self._clock() >= self._until:
                self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """The mail server refused `token`: the next `get` asks for another one."""
        with self._lock:
            if self._token == token:
                self._token = ""

    def close(self) -> None:
        self._session.close()

    def _fetch(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret,
            "scope": SCOPE,
        }
        self._token = ""
        try:
            answer = self._session.request("POST", self._url, data=form)
        except OutcomeUnknown as error:  # no mail is on its way yet
            raise Unavailable(f"no access token: {error}", error.retry_after) from None
        body = answer.json if isinstance(answer.json, dict) else {}
        token, seconds = body.get("access_token"), body.get("expires_in", 0)
        try:
            lifetime = float(seconds)
        except (TypeError, ValueError):
            lifetime = 0.0
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise Unavailable("no access token: the token endpoint's answer holds none; check token_url")
        learn(token)
        self._token, self._until = token, self._clock() + lifetime - MARGIN

    def _explain(self, answer: Answer) -> str:
        body = answer.json if isinstance(answer.json, dict) else {}
        words = str(body.get("error_description") or body.get("error") or "")
        # Trace and correlation ids follow on further lines.
        return redact(one_line(words.partition("\n")[0]), [self._secret])[:_SENTENCE_LIMIT]

    def _classify(self, answer: Answer, intent: Intent) -> Exception | None:
        if answer.status not in (400, 401, 403):
            return None
        body = answer.json if isinstance(answer.json, dict) else {}
        setting = _SETTING_OF_ERROR.get(str(body.get("error")), "client_secret")
        reason = self._explain(answer) or f"HTTP {answer.status}"
        return WrongSetting(
            setting,
            f"no access token for client_id {self._client_id}: {reason}. Check tenant, client_id and client_secret",
        )
