"""What an Autotask tenant says about its fields: lengths, required ones, picklists; and how values are fitted to them.

Every tenant has its own queues, statuses, priorities and lengths. They are read from `…/entityInformation/fields`
(standard fields) and `…/entityInformation/userDefinedFields`, whose items share one shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.base import Misconfigured, NameOrId

#: How many choices an error names.
CHOICES_SHOWN = 10

_INTEGERS = frozenset({"integer", "int", "int32", "int64", "long", "short", "byte"})


class NotOffered(Misconfigured):
    """The tenant has no such field or choice, as far as its last answer tells; `setting` is the key that names it."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting


def fold(label: str) -> str:
    """`label` as it is compared: case and runs of white space do not matter."""
    return " ".join(label.split()).casefold()


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a picklist. Ticket picklists have whole numbers as ids, user-defined ones any text."""

    id: int | str
    label: str
    active: bool
    #: Made by Autotask itself.
    system: bool
    #: Id of the choice of `Field.parent` that this one belongs to; "" when it belongs to none.
    parent: str


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a ticket or a ticket note."""

    name: str
    data_type: str
    #: Most UTF-16 units it takes; None: not limited, or not said.
    length: int | None
    required: bool
    read_only: bool
    pick_list: bool
    #: Name of the picklist field that the choices depend on, e.g. `issueType` for `subIssueType`.
    parent: str
    choices: tuple[Choice, ...]

    def choose(self, setting: str, value: NameOrId, parent: str | None = None) -> int | str:
        """Id of the active choice that `value` (a label, or a number as id) means.

        `parent` is the chosen id of the field `self.parent`. Raises `NotOffered`, naming `setting` and the choices.
        """
        offered = [choice for choice in self.choices if choice.active]
        if parent is not None:
            offered = [choice for choice in offered if choice.parent in ("", parent)]
        if isinstance(value, str):
            found = [choice for choice in offered if fold(choice.label) == fold(value)]
        else:
            found = [choice for choice in offered if str(choice.id) == str(value)]
        if len(found) == 1:
            return found[0].id
        shown = f'"{value}"' if isinstance(value, str) else f"id {value}"
        if found:
            ids = ", ".join(str(choice.id) for choice in found)
            raise NotOffered(setting, f"{shown} is ambiguous in Autotask's {self.name} (ids {ids}); give the id")
        raise NotOffered(setting, f"{shown} is not an active choice of Autotask's {self.name}; {_listing(offered)}")

    def label(self, setting: str, number: str) -> str:
        """Label of the choice with this id, active or not. Raises `NotOffered` when there is none."""
        for choice in self.choices:
            if str(choice.id) == number:
                return choice.label
        raise NotOffered(setting, f"Autotask's {self.name} has no choice {number}")

    def offers(self, number: str) -> bool:
        """Is there an active choice with this id?"""
        return any(choice.active and str(choice.id) == number for choice in self.choices)

    def take(self, setting: str, value: str | int | float | bool) -> str | int | float | bool:
        """`value` as this field without a picklist takes it; texts are cut to the field's length."""
        if self.data_type in _INTEGERS and isinstance(value, str):
            if not value.strip().isdecimal():
                raise NotOffered(setting, f'Autotask\'s {self.name} takes a number (an id), not "{value}"')
            return int(value)
        if self.data_type == "string":
            return fit(value if isinstance(value, str) else str(value), self.length)
        return value


def _listing(offered: Sequence[Choice]) -> str:
    if not offered:
        return "it has none"
    names = ", ".join(f'"{choice.label}" ({choice.id})' for choice in offered[:CHOICES_SHOWN])
    more = len(offered) - CHOICES_SHOWN
    return f"choose one of {names}" + (f" or {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one entity, found by name in any case."""

    entity: str
    by_name: Mapping[str, Field]

    def get(self, name: str) -> Field | None:
        return self.by_name.get(name.casefold())

    def named(self, setting: str, name: str) -> Field:
        """The field `name`; raises `NotOffered` when there is none."""
        field = self.get(name)
        if field is None:
            raise NotOffered(setting, f"Autotask's {self.entity} have no field {name!r}; use its API name")
        return field

    def length(self, name: str, default: int) -> int:
        """Most UTF-16 units of the text field `name`."""
        field = self.get(name)
        return field.length if field and field.length else default


def text_field(name: str, length: int) -> Field:
    """A text field that can be written, where the tenant describes none."""
    return Field(name, "string", length, required=False, read_only=False, pick_list=False, parent="", choices=())


def only_choice(name: str, number: int) -> Field:
    """A picklist that offers `number` alone, where the tenant describes none."""
    choice = Choice(number, str(number), active=True, system=False, parent="")
    return Field(name, "integer", None, required=True, read_only=False, pick_list=True, parent="", choices=(choice,))


def parse_fields(entity: str, items: Iterable[Any]) -> Fields:
    """Reads the list `fields` of an entityInformation answer; what has no name is left out.

    Key names are matched in any case: the 2020 specification has them in PascalCase, the API answers in camelCase.
    """
    parsed = (
        _field({str(key).lower(): value for key, value in item.items()}) for item in items if isinstance(item, dict)
    )
    return Fields(entity, {field.name.casefold(): field for field in parsed if field.name})


def _field(raw: Mapping[str, Any]) -> Field:
    length = raw.get("length")
    choices = raw.get("picklistvalues")
    return Field(
        name=_text(raw.get("name")),
        data_type=_text(raw.get("datatype") or raw.get("type")).lower(),
        length=length if isinstance(length, int) and length > 0 else None,
        required=raw.get("isrequired") is True,
        read_only=raw.get("isreadonly") is True,
        pick_list=raw.get("ispicklist") is True,
        parent=_text(raw.get("picklistparentvaluefield")),
        choices=tuple(_choices(choices if isinstance(choices, list) else [])),
    )


def _choices(items: Iterable[Any]) -> Iterable[Choice]:
    for item in items:
        if not isinstance(item, dict):
            continue
        raw = {str(key).lower(): value for key, value in item.items()}
        value = _text(raw.get("value"))
        yield Choice(
            id=int(value) if value.isascii() and value.removeprefix("-").isdecimal() else value,
            label=_text(raw.get("label")),
            active=raw.get("isactive") is True,
            system=raw.get("issystem") is True,
            parent=_text(raw.get("parentvalue")),
        )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# Autotask runs on .NET, where a text's length is counted in UTF-16 units: an emoji takes two. Cutting by characters
# could leave a title that the tenant refuses, and a refused title costs the ticket.


def prefix(text: str, limit: int) -> int:
    """How many characters from the start of `text` take at most `limit` UTF-16 units."""
    used = 0
    for index, character in enumerate(text):
        used += 2 if character > "\uffff" else 1
        if used > limit:
            return index
    return len(text)


def fit(text: str, limit: int | None) -> str:
    """`text`, cut to `limit` UTF-16 units with an ellipsis where it is longer."""
    if limit is None or prefix(text, limit) == len(text):
        return text
    return text[: prefix(text, limit - 1)].rstrip() + "…"


#: Pieces shorter than this are parted as they are, so that each takes something of the text.
_ROOM_FOR_MARK = 20


def part(text: str, limit: int) -> tuple[str, str]:
    """`text` parted at a line end, else at a space: at most `limit` UTF-16 units of it, and the rest.

    A line that starts with ">" goes on as one in the rest: what it quotes must not pass for text of ours there.
    """
    end = prefix(text, limit)
    if end == len(text):
        return text, ""
    for mark in ("\n", " "):
        at = text.rfind(mark, end // 2, end + 1)
        if at > 0:
            end = at
            break
    rest = text[end:].lstrip()
    cut_line = text[text.rfind("\n", 0, end) + 1 : end]
    quoted = cut_line.startswith(">") and text[end] != "\n" and limit > _ROOM_FOR_MARK
    return text[:end].rstrip(), f"> {rest}" if quoted and rest else rest


def pages(text: str, limit: int) -> list[str]:
    """`text` in pieces of at most `limit` UTF-16 units, parted as by `part`."""
    piece, rest = part(text, limit)
    pieces = [piece]
    while rest:
        piece, rest = part(rest, limit)
        pieces.append(piece)
    return pieces
