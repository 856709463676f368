"""Sends the pretend Huntress' events as the vendor does: by Svix, signed, with what a report has at that moment."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bridge.demo import scenario
from bridge.webhook_signature import sign, signing_key

#: A signing secret, as the portal shows it.
SECRET = "whsec_" + "cHJldGVuZC1zaWduaW5nLWtleS0wMDAx"
#: What webhooks leave out of a report.
_LEFT_OUT = ("indicator_types", "remediations")


class WebhookSender:
    """`url` is where the bridge takes webhooks; `clock` gives the time to sign with, in seconds since the epoch."""

    def __init__(self, url: str, secret: str = SECRET, *, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.secret = secret
        self.clock = clock

    def headers(self, body: bytes, message_id: str = "") -> dict[str, str]:
        """What goes with `body`; a new id unless one is given."""
        message_id = message_id or f"msg_{secrets.token_hex(13)}"
        timestamp = str(int(self.clock()))
        signature = sign(signing_key(self.secret), message_id, timestamp, body)
        return {"svix-id": message_id, "svix-timestamp": timestamp, "svix-signature": signature}

    def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer. Raises `OSError` and `http.client.HTTPException` when there is none."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=15)  # Svix waits as long
        try:
            connection.request("POST", where.path, body, {"Content-Type": "application/json", **headers})
            return connection.getresponse().status
        finally:
            connection.close()

    def send(self, event_type: str, raw: Mapping[str, Any], *, message_id: str = "", **more: Any) -> int:
        """One event about a report, given as the API would list it; `more` are fields of the payload. As `post`."""
        body = json.dumps(payload(event_type, raw) | more).encode()
        return self.post(body, self.headers(body, message_id))


def payload(event_type: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an event about a report."""
    kept = {name: value for name, value in raw.items() if name not in _LEFT_OUT}
    organization_id = raw.get("organization_id")
    return {
        "event_type": event_type,
        **kept,
        "account": {"id": scenario.ACCOUNT_ID, "name": scenario.ACCOUNT["name"]},
        "organization": {"id": organization_id, "name": None},
        "created_at": raw.get("sent_at"),
        "api_url": f"https://api.huntress.io/v1/incident_reports/{raw.get('id')}",
    }
