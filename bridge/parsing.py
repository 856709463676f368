"""From the source's JSON to the frozen models. Nothing here raises on odd shapes, except `ParseError` without an id.

The live API sends objects where lists are documented, lists where strings are, nulls anywhere; a report is worth a
ticket all the same. Text is cleaned here, once, of what could break out of a line, a header, a store or a reader's eye.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.broken_integration import RAISED_TO, is_broken_integration
from bridge.models import Account, Agent, IncidentReport, Kind, Membership, Organization, Remediation

#: Largest id: the vendor's are int64.
_MAX_ID = 2**63 - 1
#: Years outside of these are typing errors of somebody, and overflow when shown in another time zone.
_YEARS = range(1970, 2200)
#: Epoch numbers above are milliseconds (seconds would lie in the year 5138).
_EPOCH_MS = 100_000_000_000

#: Everything that some reader takes for a line break; `str.splitlines` and mail headers among them.
_LINE_BREAK = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
#: Controls, bidirectional overrides and isolates (text would read other than it is), lone surrogates (not encodable).
_UNSAFE = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACE = re.compile("[\n\t]+")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?))?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?", re.A
)


class ParseError(ValueError):
    """This cannot be taken for what it should be; `str()` is a sentence for people."""


def parse_report(raw: Any) -> IncidentReport:
    """An incident report of either dialect. Raises `ParseError` when it has no usable id."""
    fields = _object(raw, "incident report")
    remediations, total = _remediations(fields.get("remediations"))
    return IncidentReport(
        id=_id(fields, "incident report"),
        account_id=_id_of(fields, "account"),
        organization_id=_id_of(fields, "organization"),
        agent_id=_id_of(fields, "agent"),
        subject=line(fields.get("subject")),
        summary=text(fields.get("summary")),
        body=text(fields.get("body")),
        severity=word(fields.get("severity")),
        status=word(fields.get("status")),
        platform=word(fields.get("platform")),
        indicator_types=_names(fields.get("indicator_types")),
        indicator_counts=_counts(fields.get("indicator_counts")),
        remediations=remediations,
        remediations_total=total,
        created_at=time(fields.get("created_at")),
        sent_at=time(fields.get("sent_at")),
        closed_at=time(fields.get("closed_at")),
        status_updated_at=time(fields.get("status_updated_at")),
        updated_at=time(fields.get("updated_at")),
    )


def parse_escalation(raw: Any, kind: Kind = Kind.ESCALATION) -> IncidentReport:
    """An escalation or platform action, from a listing or a single read. Raises `ParseError` without a usable id.

    A platform action that says that Huntress cannot send tickets is `critical`, see `bridge.broken_integration`.
    """
    what = kind.replace("_", " ")
    fields = _object(raw, what)
    named = fields.get("organizations")
    named = named if isinstance(named, list) else [] if named is None else [named]
    organizations = tuple(dict.fromkeys(filter(None, map(_organization, named))))
    subject, type_, subtype = (line(fields.get(name)) for name in ("subject", "type", "subtype"))
    given = word(fields.get("severity"))
    severity = RAISED_TO if is_broken_integration(kind, subject, type_, subtype) else given
    alone = organizations[0].id if len(named) == 1 and organizations else None
    return IncidentReport(
        id=_id(fields, what),
        kind=kind,
        account_id=_id_of(fields, "account"),
        organization_id=alone if named else _id_of(fields, "organization"),
        subject=subject,
        summary=_entities(fields.get("entities")),
        severity=severity,
        given_severity=given if given != severity else "",
        status=word(fields.get("status")),
        type=type_,
        subtype=subtype,
        organizations=organizations,
        created_at=time(fields.get("created_at")),
        closed_at=time(fields.get("resolved_at")),
        updated_at=time(fields.get("updated_at")),
    )


def parse_organization(raw: Any) -> Organization:
    """Raises `ParseError` when it has no usable id."""
    fields = _object(raw, "organization")
    return Organization(_id(fields, "organization"), line(fields.get("name")), line(fields.get("key")))


def parse_account(raw: Any) -> Account:
    """Raises `ParseError` when it has no usable id."""
    fields = _object(raw, "account")
    return Account(_id(fields, "account"), line(fields.get("name")), line(fields.get("subdomain")))


def parse_agent(raw: Any) -> Agent:
    """Raises `ParseError` when it has no usable id."""
    fields = _object(raw, "agent")
    return Agent(
        id=_id(fields, "agent"),
        organization_id=_id_of(fields, "organization"),
        hostname=line(fields.get("hostname")),
        domain_name=line(fields.get("domain_name")),
        platform=word(fields.get("platform")),
        os=line(fields.get("os")),
        serial_number=line(fields.get("serial_number")),
        ipv4_address=line(fields.get("ipv4_address")),
        external_ip=line(fields.get("external_ip")),
        mac_addresses=_names(fields.get("mac_addresses")),
        tags=_names(fields.get("tags")),
        firewall_status=line(fields.get("firewall_status")),
        last_callback_at=time(fields.get("last_callback_at")),
    )


def parse_membership(raw: Any) -> Membership:
    """A membership, or a user as the older form has it (names and role beside the id).

    Raises `ParseError` when it has no usable id.
    """
    fields = _object(raw, "membership")
    nested = fields.get("user")
    user = nested if isinstance(nested, Mapping) else fields
    place, number = fields.get("organization"), _id_of(fields, "organization")
    named = line(place.get("name")) if isinstance(place, Mapping) else ""
    return Membership(
        id=_id(fields, "membership"),
        permissions=", ".join(_names(fields.get("permissions") or fields.get("role"))),
        name=line(user.get("name")) or f"{line(user.get('first_name'))} {line(user.get('last_name'))}".strip(),
        email=line(user.get("email")),
        organization=None if number is None else Organization(number, named),
    )


def parse_remediation(raw: Any) -> Remediation:
    """Never fails: a plain string is an action."""
    if not isinstance(raw, Mapping):
        return Remediation(action=line(raw))
    return Remediation(
        id=whole_number(raw.get("id"), least=1),
        type=word(raw.get("type")),
        action=line(raw.get("action")),
        parameters=_parameters(raw.get("parameters")),
        status=word(raw.get("status")),
        approved_by=_person(raw.get("approved_by")),
        completed_at=time(raw.get("completed_at")),
    )


def text(value: Any) -> str:
    """`value` as clean text of several lines; containers as JSON; nulls, booleans and empty containers as nothing."""
    if isinstance(value, str):
        # What has nothing but printable characters has nothing to be cleaned of; to see that is far faster.
        if value.replace("\n", "").isprintable():
            return value
    elif value is None or isinstance(value, bool) or value in ([], {}):
        return ""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        except (ValueError, TypeError, RecursionError):
            return ""
    return _UNSAFE.sub("", _LINE_BREAK.sub("\n", value))


def line(value: Any) -> str:
    """`value` as clean text of one line."""
    if isinstance(value, str) and value.isprintable():
        return value.strip()
    return _SPACE.sub(" ", text(value)).strip()


def word(value: Any) -> str:
    """`value` as a lower-case word of the source's vocabulary."""
    return line(value).lower()


def whole_number(value: Any, least: int = 0) -> int | None:
    """An integer from a number or a numeric string, at most int64; None for everything else. A bool is no number."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,19}\s*", value, re.A):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if least <= value <= _MAX_ID else None


def time(value: Any) -> datetime | None:
    """A point in time in UTC, from ISO 8601 and its relatives or an epoch number; None when it cannot be read.

    Times without a zone are taken as UTC, as the vendor writes them.
    """
    try:
        moment = _from_text(value.strip()) if isinstance(value, str) else _from_epoch(value)
        moment = moment and moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment and moment.year in _YEARS else None


def _from_text(value: str) -> datetime | None:
    match = _TIME.fullmatch(value)
    if not match:
        number = re.fullmatch(r"\d{9,13}(\.\d+)?", value, re.A)
        return _from_epoch(float(value)) if number else None
    day, clock, zone = match.groups()
    offset = "+00:00" if zone in (None, "Z", "UTC", "GMT") else zone
    return datetime.fromisoformat(f"{day}T{clock or '00:00'}{offset}")


def _from_epoch(value: Any) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return datetime.fromtimestamp(value / 1000 if value >= _EPOCH_MS else value, UTC)


def _object(raw: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ParseError(f"this {what} is {_kind(raw)} where an object is expected")
    return raw


def _kind(raw: Any) -> str:
    kinds = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", int: "a number", float: "a number"}
    return kinds.get(type(raw), "something else")


def _id(fields: Mapping[str, Any], what: str) -> int:
    found = whole_number(fields.get("id"), least=1)
    if found is None:
        raise ParseError(f"this {what} has no usable id: {line(fields.get('id'))[:60] or 'none given'}")
    return found


def _id_of(fields: Mapping[str, Any], owner: str) -> int | None:
    """`<owner>_id`, else the id of a nested `<owner>` (as the vendor's webhooks and escalations have it)."""
    nested = fields.get(owner)
    inner = nested.get("id") if isinstance(nested, Mapping) else None
    return whole_number(fields.get(f"{owner}_id"), least=1) or whole_number(inner, least=1)


def _names(value: Any) -> tuple[str, ...]:
    """Names from a list, a comma-separated string, or an object: `{"footholds": 1}` or `{"0": "footholds"}`."""
    found: Iterable[Any]
    if isinstance(value, Mapping):
        found = [v if isinstance(v, str) and k.isdigit() else k for k, v in value.items() if v]
    elif isinstance(value, list):
        found = [item for item in value if not isinstance(item, Mapping | list)]
    else:
        found = text(value).split(",")
    return tuple(dict.fromkeys(name for name in map(line, found) if name))


def _counts(value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping):
        return ()
    counts = ((line(name), whole_number(count)) for name, count in value.items())
    return tuple((name, count) for name, count in counts if name and count is not None)


def _remediations(value: Any) -> tuple[tuple[Remediation, ...], int]:
    """The remediations given, and how many there are: today's object with a count, yesterday's array, or one alone."""
    items: Any = value
    total = None
    if isinstance(value, Mapping):
        total = whole_number(value.get("total_count"))
        items = value.get("items")
        if "items" not in value:
            items = [value] if "action" in value else [v for v in value.values() if isinstance(v, Mapping)]
        elif isinstance(items, Mapping):
            items = [items] if "action" in items else list(items.values())
    if not isinstance(items, list):
        items = []
    found = tuple(r for r in map(parse_remediation, items) if r != Remediation())
    return found, max(total or 0, len(found))


def _organization(value: Any) -> Organization | None:
    """One of the organizations that an escalation names; None where it has no usable id."""
    fields = value if isinstance(value, Mapping) else {"id": value}
    number = whole_number(fields.get("id"), least=1)
    return None if number is None else Organization(number, line(fields.get("name")), line(fields.get("key")))


def _entities(value: Any) -> str:
    """What an escalation is about, a line each; the source lists the first few only."""
    items = value.get("items") if isinstance(value, Mapping) else value
    items = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    lines = []
    for item in items:
        details = "; ".join(f"{name} {given}".strip() for name, given in _parameters(item.get("details")) if given)
        name = " ".join(filter(None, (line(item.get("type")) or "Entity", line(item.get("id")))))
        lines.append(f"{name}: {line(details)}" if details else name)
    total = whole_number(value.get("total_count")) if isinstance(value, Mapping) else None
    more = (total or 0) - len(lines)
    return "\n".join([*lines, *([f"{more} more in the Huntress portal"] if more > 0 else [])])


def _parameters(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs from `[{"name": …, "description": …}]`, an object, or a plain string (its name is then empty)."""
    if isinstance(value, Mapping):
        pairs = [(line(name), text(given)) for name, given in value.items()]
    elif isinstance(value, list):
        pairs = [pair for item in value for pair in _pairs(item)]
    else:
        pairs = [("", text(value))]
    return tuple(pair for pair in pairs if any(pair))


def _pairs(item: Any) -> list[tuple[str, str]]:
    if not isinstance(item, Mapping):
        return [("", text(item))]
    name = next((key for key in ("name", "key") if key in item), None)
    given = next((key for key in ("value", "description") if item.get(key) is not None), None)
    if name and given:
        return [(line(item[name]), text(item[given]))]
    return [(line(key), text(value)) for key, value in item.items()]


def _person(value: Any) -> str:
    if isinstance(value, Mapping):
        return line(value.get("name")) or line(value.get("email"))
    return line(value)
