"""What one Autotask tenant offers: ticket and note fields, user-defined fields; kept for a while.

Turns names from the configuration into the ids that a ticket wants. A name that is not found is looked for once more
in a fresh answer, so that a queue made a minute ago counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from connectors.autotask_api import AutotaskApi, Kept, Missing
from connectors.autotask_fields import Field, Fields, NotOffered, fold, only_choice, parse_fields, text_field
from connectors.autotask_settings import CUSTOM, AutotaskSettings
from connectors.base import Misconfigured, NameOrId

#: Seconds that fields and picklists are kept.
FIELDS_KEPT = 600.0
#: Seconds for which an answer is fresh enough to believe that a name is not in it.
BELIEVED = 5.0

#: Labels of `publish` that only the tenant's own staff sees. “All Autotask Users” may reach contacts, co-managed does.
INTERNAL_LABELS = ("internal only", "internal project team")
NOTE_TYPE_LABEL = "task notes"

#: Every ticket has this field, also where the tenant does not list it; its length is from field information of live
#: tenants.
EXTERNAL_ID = text_field("externalID", 50)

Value = str | int | float | bool
T = TypeVar("T")


def read_fields(api: AutotaskApi, entity: str, *, custom: bool = False) -> Fields:
    """The standard fields of an entity, or its user-defined ones, as the tenant describes them now."""
    path = f"{entity}/entityInformation/{'userDefinedFields' if custom else 'fields'}"
    items = api.get(path).get("fields")
    return parse_fields("user-defined ticket fields" if custom else entity, api.listed(path, items))


def offered(kept: Kept[Fields], use: Callable[[Fields], T]) -> T:
    """What `use` makes of the fields; of fresh ones, when it misses a name in such that are not."""
    try:
        return use(kept.get())
    except NotOffered:
        if kept.age < BELIEVED:
            raise
    return use(kept.get(fresh=True))


class Catalog:
    """Answers of one tenant and the names in them. Every method may ask Autotask and raise its outcomes."""

    def __init__(
        self, api: AutotaskApi, settings: AutotaskSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._settings = settings
        self._tickets = Kept(lambda: read_fields(api, "Tickets"), FIELDS_KEPT, clock)
        self._custom = Kept(lambda: read_fields(api, "Tickets", custom=True), FIELDS_KEPT, clock)
        self._notes = Kept(self._list_note_fields, FIELDS_KEPT, clock)

    def refresh(self) -> None:
        """Reads the fields of tickets again."""
        self._tickets.get(fresh=True)
        if self._uses_custom():
            self._custom.get(fresh=True)

    def refresh_notes(self) -> None:
        """Reads the fields of notes again."""
        self._notes.get(fresh=True)

    def _uses_custom(self) -> bool:
        names = self._settings.fields
        return self._standard_reference() is None or any(
            name.startswith(CUSTOM) or not self._tickets.get().get(name) for name in names
        )

    # Tickets

    def ticket_fields(self) -> Fields:
        return self._tickets.get()

    def known_ticket_fields(self) -> Fields:
        """The ticket's fields as last seen, however long ago; asked for only when never seen."""
        return self._tickets.known or self._tickets.get()

    def pick(self, setting: str, field: str, value: NameOrId) -> int | str:
        """Id that `value` means in the ticket's picklist `field`."""
        return offered(self._tickets, lambda fields: fields.named(setting, field).choose(setting, value))

    def status(self, setting: str, value: NameOrId) -> str:
        """As `pick`, for the status that `value` means, as text."""
        return str(self.pick(setting, "status", value))

    def status_name(self, number: str) -> str:
        """Label of the status with this id; "" when the tenant names none."""
        try:
            return offered(self._tickets, lambda fields: fields.named("status", "status").label("status", number))
        except NotOffered:
            return ""

    def offers_status(self, number: str) -> bool:
        """Can a ticket be given the status with this id?"""
        field = self._tickets.get().get("status")
        return field is not None and field.offers(number)

    def reference_field(self) -> tuple[Field, bool]:
        """The field that carries the reference, and whether it is a user-defined one."""
        standard = self._standard_reference()
        if standard:
            return standard, False
        custom = self._settings.reference_field.removeprefix(CUSTOM)
        return offered(self._custom, lambda fields: fields.named("reference_field", custom)), True

    def _standard_reference(self) -> Field | None:
        name = self._settings.reference_field
        if name.startswith(CUSTOM):
            return None
        unlisted = EXTERNAL_ID if name.casefold() == EXTERNAL_ID.name.casefold() else None
        return self._tickets.get().get(name) or unlisted

    def standard_values(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Body of a ticket for those of the configured `given` fields that are standard ones."""
        named = {name: value for name, value in given.items() if value != "" and not name.startswith(CUSTOM)}
        return offered(self._tickets, lambda fields: resolve(fields, named)) if named else {}

    def custom_values(self, given: Mapping[str, Value]) -> list[dict[str, Any]]:
        """`userDefinedFields` of a ticket for those of the configured `given` fields that are user-defined."""
        named = {
            name.removeprefix(CUSTOM): value for name, value in given.items() if value != "" and name.startswith(CUSTOM)
        }
        if not named:
            return []
        resolved = offered(self._custom, lambda fields: resolve(fields, named, prefix=CUSTOM))
        return [{"name": name, "value": value} for name, value in resolved.items()]

    def settable(self, name: str) -> None:
        """Raises `Misconfigured` when the configured field `name` does not exist or cannot be written."""
        custom = name.startswith(CUSTOM)
        kept, bare = (self._custom, name.removeprefix(CUSTOM)) if custom else (self._tickets, name)
        offered(kept, lambda fields: _settable(fields, f"fields.{name}", bare))

    # Notes

    def _list_note_fields(self) -> Fields:
        try:
            return read_fields(self._api, "TicketNotes")
        except Missing:
            publish, note_type = self._settings.note_publish, self._settings.note_type
            if isinstance(publish, int) and isinstance(note_type, int):
                return Fields(
                    "TicketNotes",
                    {"publish": only_choice("publish", publish), "notetype": only_choice("noteType", note_type)},
                )
            raise Misconfigured(
                "note_publish: Autotask has nothing at TicketNotes/entityInformation/fields, so the values that a note "
                "may have are not known; set note_publish and note_type as numbers, note_publish to one that no "
                "contact sees"
            ) from None

    def note_fields(self) -> Fields:
        """The fields of a note; where the tenant does not list them, the two whose values are configured as ids."""
        return self._notes.get()

    def known_note_fields(self) -> Fields:
        """As `known_ticket_fields`."""
        return self._notes.known or self._notes.get()

    def publish(self) -> int | str:
        """`publish` of a note that no contact sees."""
        return offered(self._notes, lambda fields: _publish(fields, self._settings.note_publish))

    def note_type(self) -> int | str:
        return offered(self._notes, lambda fields: _note_type(fields, self._settings.note_type))


def resolve(fields: Fields, given: Mapping[str, Value], prefix: str = "", table: str = "fields") -> dict[str, Value]:
    """The configured values `given` as these fields take them. Raises `NotOffered`, naming `<table>.<prefix><name>`."""
    resolved: dict[str, Value] = {}
    # A choice that depends on another field's (subIssueType on issueType) comes after it.
    for name, value in sorted(given.items(), key=lambda item: bool(_parent(fields, item[0]))):
        setting = f"{table}.{prefix}{name}"
        field = _settable(fields, setting, name)
        if field.pick_list:
            wanted = value if isinstance(value, str | int) else str(value)
            parent = resolved.get(field.parent)
            resolved[field.name] = field.choose(setting, wanted, None if parent is None else str(parent))
        else:
            resolved[field.name] = field.take(setting, value)
    return resolved


def _settable(fields: Fields, setting: str, name: str) -> Field:
    field = fields.named(setting, name)
    if field.read_only:
        raise NotOffered(setting, f"Autotask's {field.name} is read-only; remove it")
    return field


def _parent(fields: Fields, name: str) -> str:
    field = fields.get(name)
    return field.parent if field else ""


def _publish(fields: Fields, wanted: NameOrId) -> int | str:
    field = fields.named("note_publish", "publish")
    if wanted != "":
        return field.choose("note_publish", wanted)
    active = [choice for choice in field.choices if choice.active]
    for label in INTERNAL_LABELS:
        for choice in active:
            if fold(choice.label) == label:
                return choice.id
    labels = ", ".join(f'"{choice.label}"' for choice in active)
    raise NotOffered(
        "note_publish",
        f"Autotask offers {labels or 'nothing'} for a note's publish, none of which is known to be internal; "
        "name the one that no contact sees",
    )


def _note_type(fields: Fields, wanted: NameOrId) -> int | str:
    field = fields.named("note_type", "noteType")
    if wanted != "":
        return field.choose("note_type", wanted)
    usable = [choice for choice in field.choices if choice.active and not choice.system]
    preferred = [choice for choice in field.choices if choice.active and fold(choice.label) == NOTE_TYPE_LABEL]
    if not (preferred or usable):
        raise NotOffered("note_type", "Autotask offers no note type that an integration may use; add one there")
    return (preferred or usable)[0].id
