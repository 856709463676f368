"""A tracker with three resources: `/me`, `/tickets` and `/tickets/<id>/notes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr

from bridge.models import Note, Ticket, TicketRef
from connectors.base import (
    Connector,
    ConnectorContext,
    ConnectorSettings,
    Finding,
    Misconfigured,
    OutcomeUnknown,
    Progress,
    TemplatePart,
    Unavailable,
)
from connectors.http import HttpSession


class TrackerSettings(ConnectorSettings):
    """One `[connectors.<name>]` table with `type = "tracker"`."""

    type: Literal["tracker"]
    url: str
    token: Annotated[SecretStr, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class PreparedTicket:
    body: Mapping[str, str]


class Tracker(Connector):
    """Tickets have a `reference` that can be searched for."""

    type = "tracker"
    settings_class = TrackerSettings

    def __init__(self, name: str, settings: TrackerSettings, context: ConnectorContext) -> None:
        super().__init__(name, settings, context)
        self.url = settings.url.rstrip("/")
        token = settings.token.get_secret_value()
        self._http = HttpSession(
            name=name,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            insecure_http=settings.insecure_http,
            headers={"User-Agent": context.user_agent, "Authorization": f"Bearer {token}"},
            secrets=[token],
            before_request=context.before_request,
            answered=context.answered,
        )

    def parts(self) -> Sequence[TemplatePart]:
        return (TemplatePart("title", "title.j2", limit=200, single_line=True), TemplatePart("text", "text.j2"))

    def template_folder(self) -> Path:
        return Path(__file__).parent / "templates"

    def system(self) -> str:
        return urlsplit(self.url).netloc

    def check(self) -> list[Finding]:
        try:
            self._http.request("GET", f"{self.url}/me")
        except Misconfigured as error:
            return [Finding("token", str(error))]
        return []

    def find(self, reference: str) -> list[TicketRef]:
        answer = self._http.request("GET", f"{self.url}/tickets", params={"reference": reference})
        if not isinstance(answer.json, list):
            raise Unavailable(f"{self.name}: the tracker answered a search with something that is not a list")
        refs = [self._ref(row) for row in answer.json]
        if None in refs:
            raise Unavailable(f"{self.name}: the tracker answered a search with a ticket without an id")
        return sorted((ref for ref in refs if ref), key=lambda ref: int(ref.id))

    def prepare(self, ticket: Ticket) -> PreparedTicket:
        return PreparedTicket({"reference": ticket.reference, "title": ticket.title, "text": ticket.text})

    def create(self, prepared: PreparedTicket, progress: Progress) -> TicketRef:
        answer = self._http.request("POST", f"{self.url}/tickets", intent="create", json=dict(prepared.body))
        ref = self._ref(answer.json)
        if ref is None:
            raise OutcomeUnknown(f"{self.name}: the tracker answered a create without the ticket's id")
        return ref

    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        text = f"{note.title}\n\n{note.text}\n\n[{reference}/{note.key}]"
        url = f"{self.url}/tickets/{quote(ref.id, safe='')}/notes"
        self._http.request("POST", url, intent="update", json={"text": text})

    def close(self) -> None:
        self._http.close()

    def _ref(self, row: Any) -> TicketRef | None:
        number = row.get("id") if isinstance(row, dict) else None
        return TicketRef(str(number), str(number), f"{self.url}/tickets/{number}") if isinstance(number, int) else None
