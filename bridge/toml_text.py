"""Plain data written as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from bridge.text import spelled


def toml(tables: dict[str, Any], path: str = "") -> str:
    """A whole document; tables within tables get headers of their own."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines = [f"{name(key)} = {value_text(value)}" for key, value in plain.items()]
    for key, value in tables.items():
        if isinstance(value, dict):
            lines += ["", f"[{path}{name(key)}]", toml(value, f"{path}{name(key)}.")]
    return "\n".join(lines)


def name(key: str) -> str:
    """A key as it stands in front of its value."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else value_text(key)


def value_text(value: Any) -> str:
    """A value on one line; a table becomes an inline one."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name(key)} = {value_text(inner)}" for key, inner in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for lone surrogates, which no file can hold.
        text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
        # What is not seen, or turns the direction of writing, is spelled out: a person reads this.
        return "".join(each if each.isprintable() else spelled(each) for each in text)
    return json.dumps(value)
