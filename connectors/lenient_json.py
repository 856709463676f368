"""Reads JSON that Python's own reader gives up on: one absurd value must not cost the page that it stands on."""

from __future__ import annotations

import json
import re
from typing import Any

#: Lists and objects inside each other; what lies deeper is read as null. No documented answer has more than ten.
DEEPEST = 100

# Strings as wholes, so that brackets in them do not count. One that never ends goes to the end, for the time's sake.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def parse(body: bytes) -> Any:
    """The JSON value in `body`; raises `ValueError` when there is none.

    Numbers beyond what Python reads become infinity, what is nested beyond `DEEPEST` becomes null if it has to.
    """
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    text = text.removeprefix("\ufeff")
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        pass
    try:
        return json.loads(_shallow(text), parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def records(value: object) -> list[dict[str, Any]] | None:
    """The records in a list. None for what is no list, or holds no record at all though it is not empty, as `[null]`:
    an unreadable answer is not an empty one.
    """
    if not isinstance(value, list):
        return None
    found = [item for item in value if isinstance(item, dict)]
    return found if found or not value else None


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more than sys.get_int_max_str_digits()
        return float(digits)


def _shallow(text: str) -> str:
    pieces: list[str] = []
    depth = at = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in ("[", "{"):
            depth += 1
            if depth == DEEPEST + 1:
                pieces += [text[at : token.start()], "null"]
        elif mark in ("]", "}"):
            if depth == DEEPEST + 1:
                at = token.end()
            depth -= 1
    return "".join(pieces) + (text[at:] if depth <= DEEPEST else "")
