"""How the pretend Autotask checks what it is sent, and finds what it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from bridge.demo.autotask_tables import Row
from bridge.demo.server import Reply


class Refused(Exception):
    """A request that is answered with errors: by Autotask's habit a status 500, whatever is wrong."""

    def __init__(self, *errors: str, status: int = 500) -> None:
        super().__init__(*errors)
        self.reply = Reply(status, {"errors": list(errors)})


def refused(sentence: str, doing: str) -> Refused:
    return Refused(f"{sentence}  | Error {doing} entity for record number [1].")


def checked(
    body: Any, fields: Sequence[Row], doing: str, *, complete: bool, known: Mapping[str, Collection[int]]
) -> Row:
    """`body` with the fields' own spelling, if it is valid. `known` has the ids that exist, by entity.

    `complete`: is this a new record, which needs its required fields?
    """
    if not isinstance(body, dict):
        raise refused("The request body is not an object.", doing)
    by_name = {str(field["name"]).lower(): field for field in fields}
    record: Row = {}
    for name, value in body.items():
        field = by_name.get(str(name).lower())
        if field is None:
            if name == "userDefinedFields":
                record[name] = value
                continue
            raise refused(f"Could not find member '{name}' on the entity.", doing)
        if value is None or (field["isReadOnly"] and field["name"] == "id"):
            continue
        _check_value(field, value, doing, known)
        record[field["name"]] = value
    missing = [
        field["name"]
        for field in fields
        if field["isRequired"] and not field["isReadOnly"] and record.get(field["name"]) in (None, "")
    ]
    if complete and missing:
        raise refused(f"Missing Required Field: {missing[0]}.", doing)
    _check_dependent(record, fields, doing)
    return record


def _check_value(field: Row, value: Any, doing: str, known: Mapping[str, Collection[int]]) -> None:
    name = field["name"]
    if field["isReadOnly"]:
        raise refused(f"{name} is read-only.", doing)
    if field["dataType"] == "string":
        if not isinstance(value, str):
            raise refused(f"Unexpected character encountered while parsing value. Path '{name}'.", doing)
        # .NET counts UTF-16 units.
        if field["length"] and len(value.encode("utf-16-le", "surrogatepass")) // 2 > field["length"]:
            raise refused(f"String value exceeds maximum length (field:{name}).", doing)
    if field["dataType"] == "integer" and (isinstance(value, bool) or not isinstance(value, int)):
        raise refused(f"Could not convert string to integer. Path '{name}'.", doing)
    if field["isPickList"] and not any(c["value"] == str(value) and c["isActive"] for c in field["picklistValues"]):
        raise refused(f"Value does not exist for the required picklist field {name}.", doing)
    entity = field["referenceEntityType"]
    if entity in known and value not in known[entity]:
        raise refused(f"Value does not reference an existing entity for {name} .", doing)


def _check_dependent(record: Row, fields: Sequence[Row], doing: str) -> None:
    for field in fields:
        parent = field["picklistParentValueField"]
        if not parent or field["name"] not in record:
            continue
        chosen = next(c for c in field["picklistValues"] if c["value"] == str(record[field["name"]]))
        if chosen["parentValue"] and chosen["parentValue"] != str(record.get(parent)):
            raise refused(f"The {field['name']} does not belong to the {parent}.", doing)


def matching(rows: Iterable[Row], body: Any) -> list[Row]:
    """The rows, by id, that fit the filter of a query's body."""
    filters = body.get("filter") if isinstance(body, dict) else None
    if not isinstance(filters, list) or not filters:
        raise Refused("The filter property is required.")
    return sorted((row for row in rows if all(_fits(row, one) for one in filters)), key=lambda row: int(row["id"]))


def _fits(row: Row, one: Any) -> bool:
    operator = str(one.get("op", "")).lower()
    if operator in ("and", "or"):
        return {"and": all, "or": any}[operator](_fits(row, inner) for inner in one["items"])
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise Refused(f"Unable to find op {operator} in filter.")
    held, asked = _value(row, str(one["field"]), one.get("udf") is True), one.get("value")
    return compare(_plain(held), _plain(asked))


def _value(row: Row, name: str, custom: bool) -> Any:
    if custom:
        named = [field for field in row.get("userDefinedFields", []) if field["name"].lower() == name.lower()]
        return named[0]["value"] if named else None
    found = [key for key in row if key.lower() == name.lower()]
    if not found:
        raise Refused(f"Unable to find {name} in the entity.")
    return row[found[0]]


def _plain(value: Any) -> Any:
    """As the database compares: texts in any case."""
    return value.lower() if isinstance(value, str) else value


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda held, asked: held == asked,
    "noteq": lambda held, asked: held != asked,
    "gt": lambda held, asked: held is not None and held > asked,
    "gte": lambda held, asked: held is not None and held >= asked,
    "in": lambda held, asked: held in [_plain(value) for value in asked],
    "exist": lambda held, asked: held not in (None, ""),
    "contains": lambda held, asked: str(asked) in str(held or ""),
    "beginswith": lambda held, asked: str(held or "").startswith(str(asked)),
}
