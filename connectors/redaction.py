"""Keeps secrets out of sentences: what a system or a library says passes through `redact` before a person sees it."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

#: Shorter secrets are left alone: replacing them would shred every sentence, and the gaps would spell them out.
SHORTEST_SECRET = 4
#: Most secrets that are remembered of those that no configuration holds; the oldest go first.
LEARNED_KEPT = 4

_learned: deque[str] = deque(maxlen=LEARNED_KEPT)


def learn(secret: str) -> None:
    """Remembers a secret that was learned while running, such as an access token, for what is logged from now on."""
    if secret not in _learned:
        _learned.append(secret)


def learned() -> tuple[str, ...]:
    """The newest secrets given to `learn`."""
    return tuple(_learned)


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` with every secret, also as base64, percent-encoded or JSON-escaped, replaced by `***`.

    Base64 is recognized wherever the secret stands in the encoded text, so `user:secret` needs no mention of its own;
    the whole encoded word goes. Secrets shorter than `SHORTEST_SECRET` characters are not looked for.
    """
    for pattern in _patterns(tuple(secrets)):
        text = pattern.sub("***", text)
    return text


@lru_cache(maxsize=64)
def _patterns(given: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    secrets = sorted({secret for secret in given if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True)
    if not secrets:
        return ()
    encoded = sorted({core for secret in secrets for core in _base64_cores(secret)}, key=len, reverse=True)
    # Only from the start of a word, or a long word would be searched once from each of its characters.
    words = rf"(?<![\w+/-])[\w+/-]*(?:{'|'.join(map(re.escape, encoded))})[\w+/-]*=*"
    return re.compile(words), re.compile("|".join("".join(map(_spellings, secret)) for secret in secrets))


def _spellings(character: str) -> str:
    """One character as it is, percent-encoded (a space also as plus), or escaped as JSON and Python do."""
    data = character.encode("utf-8", "surrogatepass")
    spellings = [
        re.escape(character),
        "".join(f"(?i:%{byte:02x})" for byte in data),
        rf"\\{re.escape(character)}",
        rf"(?i:\\u{ord(character):04x})",
    ]
    if character == " ":
        spellings.append(r"\+")
    return f"(?:{'|'.join(spellings)})"


def _base64_cores(secret: str) -> set[str]:
    """What base64 makes of `secret` alone inside a longer text, for each of the three places it can take in a group."""
    data = secret.encode("utf-8", "surrogatepass")
    cores = set()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + data).decode()
        core = encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        cores |= {core, core.translate(str.maketrans("+/", "-_"))}
    return cores
