"""Is this webhook from the source, and now? Huntress sends through Svix, whose scheme this is.

Source: https://docs.svix.com/receiving/verifying-payloads/how-manual. While a secret is replaced, Svix signs with the
old and the new one, so it is enough to know either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping

#: Seconds that a webhook's time may differ from this machine's clock, either way; what Svix itself advises.
TOLERANCE = 300.0
#: What every signing secret starts with.
PREFIX = "whsec_"

# Svix' ids look like msg_2b8xHGZmvCqqTNtL7QTJVTbRyv8; the scheme forbids only the full stop, by which it joins.
_ID = re.compile(r"[!-\-/-~]{1,128}")


class Refused(Exception):
    """A webhook that is not taken. `str()` is a sentence for people, `status` the HTTP status that goes with it."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(sentence)


def signing_key(secret: str) -> bytes:
    """The bytes to sign with. Raises `ValueError`, without the secret, when it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key or not secret.startswith(PREFIX):
        raise ValueError(
            f"is no webhook's signing secret; the Huntress portal shows it (View Signing Secret): {PREFIX}, then base64"
        )
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """One entry of the header `svix-signature`. `timestamp` is in seconds since the epoch."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """The message's id, the same whenever it is sent again. Raises `Refused`.

    `headers` are by lower-case name; `now` is in seconds since the epoch.
    """
    message_id, timestamp = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
    if not _ID.fullmatch(message_id) or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise Refused(400, "the headers svix-id and svix-timestamp are missing or garbled")
    age = now - int(timestamp)
    if abs(age) > TOLERANCE:
        way = "old" if age > 0 else "ahead"
        raise Refused(400, f"it is {abs(age):.0f} s {way}, at most {TOLERANCE:.0f} are allowed; check both clocks")
    expected = sign(signing_key(secret), message_id, timestamp, body).encode("ascii")
    given = headers.get("svix-signature", "").encode("utf-8", "replace").split(b" ")
    if not any(hmac.compare_digest(expected, each) for each in given):
        raise Refused(401, "its signature is missing, or not made with [webhooks] secret")
    return message_id
