"""What the pretend ConnectWise takes as a ticket and what it refuses, with error bodies of the real one's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.demo.connectwise_tables import FLAGS, INITIAL_TEXTS, REFERENCES, TEXT_LIMITS, TICKET_FIELDS, Board, Row
from bridge.demo.server import Reply

#: Rows that a reference field may name on a board; None: any id is taken.
Choices = Callable[[str, Board], "Sequence[Row] | None"]

_READ_ONLY = frozenset({"id", "_info", "closedFlag", "recordType", "mergedParentTicket", "hasMergedChildTicketFlag"})
_KEYS_OF_A_REFERENCE = frozenset({"id", "name", "identifier"})


class Refused(Exception):
    """The request is answered with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def forbidden(message: str = "You do not have permission.") -> Refused:
    return Refused(Reply(403, {"code": "Security", "message": message, "errors": None}))


def invalid(field: str, message: str, code: str = "InvalidField", resource: str = "ticket") -> Refused:
    detail = {"code": code, "message": message, "resource": resource, "field": field}
    body = {"code": "InvalidObject", "message": f"{resource} object is invalid", "errors": [detail]}
    return Refused(Reply(400, body))


def missing(field: str, resource: str = "ticket", where: str = "") -> Refused:
    return invalid(field, f"The {field} field is required{where}.", "MissingRequiredField", resource)


def too_long(field: str, limit: int, resource: str = "ticket") -> Refused:
    message = f"The field {field} must be a string with a maximum length of {limit}."
    return invalid(field, message, "StringLength", resource)


def not_found(message: str) -> Refused:
    return Refused(Reply(404, {"code": "NotFound", "message": message, "errors": None}))


def check_values(body: Mapping[str, Any]) -> None:
    """Names, types and lengths, as far as they need no look at other tables."""
    for field, value in body.items():
        if field not in TICKET_FIELDS:
            raise invalid(field, f"The field {field} is not a field of a ticket.")
        if value is None:
            continue
        if field in REFERENCES:
            if not isinstance(value, dict) or not value.keys() & _KEYS_OF_A_REFERENCE:
                raise invalid(field, f"Error converting value to type '{field.capitalize()}Reference'.")
        elif field in TEXT_LIMITS or field in INITIAL_TEXTS:
            limit = TEXT_LIMITS.get(field)
            if not isinstance(value, str):
                raise invalid(field, f"The field {field} must be a string.")
            if limit and len(value) > limit:
                raise too_long(field, limit)
        elif field in FLAGS:
            if not isinstance(value, bool):
                raise invalid(field, f"The field {field} must be true or false.")
        elif field in ("severity", "impact") and value not in ("Low", "Medium", "High"):
            raise invalid(field, f"The field {field} must be Low, Medium or High.")


def build(body: object, boards: Mapping[int, Board], choices: Choices) -> Row:
    """The ticket that a create with `body` makes, but for its id. Raises `Refused`."""
    if not isinstance(body, dict):
        raise Refused(
            Reply(400, {"code": "InvalidObject", "message": "The request body is not an object.", "errors": []})
        )
    check_values(body)
    for field in ("summary", "company"):
        if not body.get(field):
            raise missing(field)
    board = _board(body.get("board"), boards)
    for field in board.required:
        if not body.get(field):
            raise missing(field, where=f" on board {board.name}")
    ticket: Row = {"recordType": "ServiceTicket", "severity": "Medium", "impact": "Medium"}
    ticket |= {field: value for field, value in body.items() if value is not None and field not in _READ_ONLY}
    ticket["board"] = {"id": board.id, "name": board.name}
    ticket.setdefault("status", {"id": next(row["id"] for row in board.statuses if row["defaultFlag"])})
    for field in REFERENCES & ticket.keys() - {"board"}:
        ticket[field] = resolve(field, ticket[field], board, choices)
    return set_closed(ticket, board)


def set_closed(ticket: Row, board: Board) -> Row:
    """Whether a ticket is closed follows from its status."""
    status = next(row for row in board.statuses if row["id"] == ticket["status"]["id"])
    ticket["closedFlag"] = status["closedStatus"]
    return ticket


def resolve(field: str, given: Mapping[str, Any], board: Board, choices: Choices) -> Row:
    """The whole reference for `{"id"}`, `{"name"}` or `{"identifier"}`. Raises `Refused` when nothing fits."""
    rows = choices(field, board)
    if rows is None:
        return dict(given)
    for row in rows:
        if all(row.get(key) == value for key, value in given.items() if key in _KEYS_OF_A_REFERENCE):
            return {key: row[key] for key in ("id", "identifier", "name") if key in row}
    raise invalid(
        field, f"{field} {given.get('id', given.get('name'))} was not found or does not belong to board {board.name}."
    )


def _board(given: Any, boards: Mapping[int, Board]) -> Board:
    if given is None:
        return next(iter(boards.values()))
    for board in boards.values():
        if not board.inactive and (
            board.id == given.get("id") or ("id" not in given and board.name == given.get("name"))
        ):
            return board
    raise invalid("board", f"board {given.get('id', given.get('name'))} was not found or is inactive.")


def patched(ticket: Row, operations: object, board: Board, choices: Choices) -> Row:
    """A copy of `ticket` with the operations of a PATCH applied. Raises `Refused`."""
    if not isinstance(operations, list):
        raise invalid("patch", "The request body must be an array of operations.")
    changed = dict(ticket)
    for operation in operations:
        name, path, value = (operation.get(key) for key in ("op", "path", "value"))
        if name not in ("add", "replace", "remove") or not isinstance(path, str):
            raise invalid("op", "The operation is not supported.")
        if "/" in path.strip("/"):
            continue  # a part of a reference: answered 200, and nothing changes
        if path not in TICKET_FIELDS - _READ_ONLY - set(
            INITIAL_TEXTS
        ):  # names have no leading slash and mind their case
            raise invalid(path, f"The path {path} is not a field of a ticket.")
        if name == "remove":
            changed.pop(path, None)
            continue
        check_values({path: value})
        changed[path] = resolve(path, value, board, choices) if path in REFERENCES else value
    return set_closed(changed, board)


#: Most characters of a company's identifier (older releases) and name.
_COMPANY_LIMITS = {"identifier": 25, "name": 156}


def new_company(body: object, taken: Sequence[str]) -> tuple[str, str]:
    """Identifier and name of the company that a create with `body` makes. Raises `Refused`."""
    given = body if isinstance(body, dict) else {}
    for field, limit in _COMPANY_LIMITS.items():
        value = given.get(field)
        if not isinstance(value, str) or not value.strip():
            raise missing(field, "company")
        if len(value) > limit:
            raise too_long(field, limit, "company")
    if given["identifier"].casefold() in {identifier.casefold() for identifier in taken}:
        raise invalid("identifier", "Company ID already in use.", "ObjectExists", "company")
    return given["identifier"], given["name"]
