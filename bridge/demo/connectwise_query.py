"""What the pretend ConnectWise knows of the real one's query language: conditions, order, fields, pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_CLAUSE = re.compile(
    r"\s*(?P<field>[A-Za-z_][\w/]*)\s*(?P<operator>!=|<=|>=|=|<|>|like\b|contains\b)\s*"
    r'(?P<value>"[^"]*"|-?\d+(?:\.\d+)?|true|false|null)\s*',
    re.IGNORECASE,
)
_AND = re.compile(r"and\b", re.IGNORECASE)


class BadQuery(Exception):
    """The query is not understood; the real one answers 400 with the code `ApiFindCondition`."""


def select(rows: Sequence[Row], query: Mapping[str, str], known: frozenset[str]) -> tuple[list[dict[str, Any]], bool]:
    """The page of `rows` that `query` asks for, and whether another follows. Raises `BadQuery`."""
    wanted = parse_conditions(query.get("conditions", ""), known)
    chosen = [row for row in rows if wanted(row)]
    order = query.get("orderBy", "").split()
    if order:
        _known(order[0], known)
        # Stable and total for the mixed, partly empty values of a column.
        chosen.sort(key=lambda row: _sort_key(_at(row, order[0])), reverse=order[-1].lower() == "desc")
    size, page = _number(query, "pageSize", 25), _number(query, "page", 1)
    if size > 1000:
        raise BadQuery("pageSize must not be larger than 1000")
    window = chosen[(page - 1) * size : page * size]
    fields = [name.strip() for name in query.get("fields", "").split(",") if name.strip()]
    for name in fields:
        _known(name, known)
    shown = [{k: v for k, v in row.items() if not fields or k in {f.split("/")[0] for f in fields}} for row in window]
    return shown, page * size < len(chosen)


def parse_conditions(text: str, known: frozenset[str]) -> Callable[[Row], bool]:
    """A predicate for `a="x" AND b/id=1`. Text is compared without regard to case, `*` stands for anything."""
    clauses: list[Callable[[Row], bool]] = []
    rest = text.strip()
    while rest:
        match = _CLAUSE.match(rest)
        if not match:
            raise BadQuery(f"String at position {len(text) - len(rest)} was not recognized: {rest[:60]}")
        _known(match["field"], known)
        clauses.append(_clause(match["field"], match["operator"].lower(), match["value"]))
        rest = rest[match.end() :]
        if rest:
            joined = _AND.match(rest)
            if not joined or not rest[joined.end() :].strip():
                raise BadQuery(f"Expected AND before: {rest[:60]}")
            rest = rest[joined.end() :]
    return lambda row: all(clause(row) for clause in clauses)


def _clause(field: str, operator: str, literal: str) -> Callable[[Row], bool]:
    if literal.startswith('"'):
        text = literal[1:-1]
        if operator == "contains":
            text = f"*{text}*"
        joker = "%" if operator == "like" else "*"
        pattern = re.compile(".*".join(re.escape(part) for part in text.split(joker)), re.IGNORECASE | re.DOTALL)

        def matches(row: Row) -> bool:
            value = _at(row, field)
            return isinstance(value, str) and pattern.fullmatch(value.rstrip()) is not None

        if operator in ("=", "like", "contains"):
            return matches
        if operator == "!=":
            return lambda row: not matches(row)
        raise BadQuery(f"Operator {operator} does not apply to text")
    constants: dict[str, Any] = {"true": True, "false": False, "null": None}
    number = constants[literal.lower()] if literal.lower() in constants else float(literal)
    compare: dict[str, Callable[[Any], bool]] = {
        "=": lambda value: bool(value == number),
        "!=": lambda value: bool(value != number),
        "<": lambda value: value is not None and bool(value < number),
        "<=": lambda value: value is not None and bool(value <= number),
        ">": lambda value: value is not None and bool(value > number),
        ">=": lambda value: value is not None and bool(value >= number),
    }
    if operator not in compare:
        raise BadQuery(f"Operator {operator} needs text")
    return lambda row: compare[operator](_at(row, field))


def _at(row: Row, path: str) -> Any:
    value: Any = row
    for step in path.split("/"):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _known(path: str, known: frozenset[str]) -> None:
    if path.split("/")[0] not in known:
        raise BadQuery(f"Could not find the field {path[:60]}")


def _sort_key(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, (int, float)) else (1, 0.0, str(value))


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        raise BadQuery(f"{name} must be a positive number")
    return int(value)
