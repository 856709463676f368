"""Notes on Autotask's tickets: internal ones, each with its marker, and the text that goes on in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge.models import Ticket
from connectors.autotask_api import AutotaskApi, Missing
from connectors.autotask_catalog import Catalog
from connectors.autotask_fields import Fields, fit, pages, part, prefix
from connectors.base import Misconfigured, Outcome, Rejected

# Lengths where the tenant names none, from field information of live tenants.
DESCRIPTION_LENGTH = 8000
NOTE_LENGTH = 32000
NOTE_TITLE_LENGTH = 250
#: Notes that one report's text may fill; what is longer is cut by the renderer, which says so. The templates take
#: 20,000 characters of a summary and 100,000 of a body, and quoting each line can make them twice as long.
TEXT_NOTES = 12
#: Room in a note for its marker.
MARKER_ROOM = 120

NOTE_TITLE = "Huntress incident report"
#: Last line of a description whose text goes on.
CONTINUED = "[continued in the internal notes]"


class Notes:
    """The notes of one tenant's tickets."""

    def __init__(self, api: AutotaskApi, catalog: Catalog) -> None:
        self._api = api
        self._catalog = catalog

    def text_room(self) -> int:
        """UTF-16 units that all notes with one report's text hold."""
        return TEXT_NOTES * self._room()

    def possible(self) -> bool:
        """Does the tenant, as far as it can be asked, take notes that only its own staff sees?"""
        try:
            self.can_be_made()
        except Misconfigured:
            return False
        except Outcome:
            pass
        return True

    def _room(self) -> int:
        return max(1000, known(self._catalog.known_note_fields).length("description", NOTE_LENGTH) - MARKER_ROOM)

    def can_be_made(self) -> None:
        """Raises `Misconfigured` when the tenant takes no note that only its own staff sees."""
        self._catalog.publish()
        self._catalog.note_type()

    def has(self, ticket_id: str, marker: str) -> bool:
        """Does a note of the ticket end with `marker`?"""
        return _has(self._present(ticket_id), marker)

    def add(self, ticket_id: str, marker: str, title: str, text: str) -> None:
        """Adds an internal note, unless one that ends with `marker` is there."""
        self._add(ticket_id, marker, title, text, self._present(ticket_id))

    def add_text(self, ticket_id: str, ticket: Ticket) -> None:
        """Adds the whole text of the ticket, in order, as far as it is not there."""
        present = self._present(ticket_id)
        self._add_pages(ticket_id, ticket.reference, ticket.text, 1, present)

    def add_rest(self, ticket_id: str, ticket: Ticket, description: str) -> None:
        """Adds what of the text does not stand in the ticket's `description`.

        A description that is not the text's beginning as we would write it, because the report or a person changed
        it meanwhile, is no ground to leave anything out: then the notes hold the whole text.
        """
        first, rest = self.divide(ticket.text)
        if not rest:
            return
        present = self._present(ticket_id)
        if _same(description, first) or _has(present, _marker(ticket.reference, 2)):
            self._add_pages(ticket_id, ticket.reference, rest, 2, present)
        else:
            self._add_pages(ticket_id, ticket.reference, ticket.text, 1, present)

    def divide(self, text: str) -> tuple[str, str]:
        """The description that shows `text`, and what has to follow it in notes; "" where it shows everything."""
        limit = self._catalog.ticket_fields().length("description", DESCRIPTION_LENGTH)
        if prefix(text, limit) == len(text):
            return text, ""
        first, rest = part(text, limit - len(CONTINUED) - 2)
        return f"{first}\n\n{CONTINUED}", rest

    def _add_pages(self, ticket_id: str, reference: str, text: str, first: int, present: Sequence[str]) -> None:
        for number, page in enumerate(pages(text, self._room()), start=first):
            title = NOTE_TITLE if number == 1 else f"{NOTE_TITLE} (continued, part {number})"
            self._add(ticket_id, _marker(reference, number), title, page, present)

    def _add(self, ticket_id: str, marker: str, title: str, text: str, present: Sequence[str]) -> None:
        if _has(present, marker):
            return
        fields = self._catalog.note_fields()
        room = fields.length("description", NOTE_LENGTH) - prefix(marker, MARKER_ROOM) - 2
        body = {
            "title": fit(title, fields.length("title", NOTE_TITLE_LENGTH)),
            "description": f"{fit(text, room)}\n\n{marker}",
            "noteType": self._catalog.note_type(),
            "publish": self._catalog.publish(),
        }
        self._api.change("POST", f"Tickets/{int(ticket_id)}/Notes", body)

    def _present(self, ticket_id: str) -> list[str]:
        try:
            items = self._api.children(f"Tickets/{int(ticket_id)}/Notes")
        except Missing:
            raise Rejected(f"Autotask has no ticket {ticket_id}, or does not show it to the API user") from None
        return [description for item in items if isinstance(description := item.get("description"), str)]


def known(ask: Callable[[], Fields]) -> Fields:
    """The fields, or none while the tenant cannot be asked: a ticket can be previewed without it."""
    try:
        return ask()
    except Outcome:
        return Fields("", {})


def _marker(reference: str, number: int) -> str:
    return f"[{reference}/text]" if number == 1 else f"[{reference}/text-{number}]"


def _has(present: Sequence[str], marker: str) -> bool:
    # The marker stands last and is looked for only there: text from outside that quotes one suppresses nothing.
    return any(description.rstrip().endswith(marker) for description in present)


def _same(one: str, other: str) -> bool:
    # What a system stores may have other line ends and less white space around it.
    return one.split() == other.split()
