"""What happens to reports in three connectors, and whether every ticket and thread tells it, once."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bridge.demo import scenario
from tests.faults.site import Site
from tests.psa import PSAS, reference

CONNECTORS = (*PSAS, "oncall")
#: What may happen to a report, by the kind of note that tells it.
RISES, ENDS, REOPENS = KINDS = ("update", "ended", "reopened")

#: Ids of priorities and statuses in the pretend PSAs.
LOW, CRITICAL = {"psa": 7, "desk": 3}, {"psa": 6, "desk": 4}
OPEN, CLOSED = {"psa": 201, "desk": 1}, {"psa": 203, "desk": 5}


@dataclass
class Story:
    """What happened to a report."""

    severity: str = "low"
    over: bool = False
    #: Notes that its tickets must have, by kind.
    notes: Counter[str] = field(default_factory=Counter)


class Stories:
    """What happens to reports, and whether every ticket and thread tells it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.world = site.world
        self.told: dict[int, Story] = {}

    def begin(self, number: int) -> None:
        self.told[number] = Story()
        self.world.report(number, (number - 1) % 3 + 1, severity="low", summary=f"Seen once, as {number}.")

    def happen(self, numbers: Mapping[str, int]) -> None:
        """What each kind of note tells happens to its report, at the same time."""
        with self.world.huntress.lock:
            for kind, number in numbers.items():
                story, raw = self.told[number], self.world.huntress.reports[number]
                if kind == ENDS:
                    self.world.huntress.close_report(number)
                else:
                    raw["updated_at"] = scenario.stamp(datetime.now(UTC))
                if kind == RISES:
                    raw |= {"severity": "critical", "summary": f"Seen again, as {number}."}
                    story.severity = "critical"
                if kind == REOPENS:
                    raw |= {"status": "sent", "closed_at": None}
                story.over = kind == ENDS
                story.notes[kind] += 1

    def notes(self, name: str, number: int) -> Counter[tuple[str, str]]:
        """(kind, key) of every note on the report's tickets; of every reply in its thread."""
        if name == "oncall":
            ids = [str(mail.message["Message-ID"]) for mail in list(self.world.mailbox.messages)]
            found = [re.match(rf"<{reference(number)}\.([a-z]+)-([0-9a-f]+)@", id) for id in ids]
        else:
            psa = self.world.psas()[name]
            marker = re.compile(rf"\[{reference(number)}/([a-z]+)-([0-9a-f]+)\]\s*$")
            found = [marker.search(text) for id in psa.ids(number) for text in psa.notes(id)]
        return Counter((match[1], match[2]) for match in found if match and match[1] in KINDS)

    def lost(self) -> list[str]:
        """What some ticket or thread does not tell."""
        missing = []
        for name in CONNECTORS:
            for number, story in list(self.told.items()):
                kinds = Counter(kind for kind, _ in self.notes(name, number))
                missing += [f"{name} {number}: {kind}" for kind in (story.notes - kinds).elements()]
                if name in PSAS:
                    missing += [f"{name} {number}: {what}" for what in self._wrong(name, number, story)]
        return missing

    def _wrong(self, name: str, number: int, story: Story) -> Iterator[str]:
        psa = self.world.psas()[name]
        wanted = (CLOSED if story.over else OPEN)[name], (CRITICAL if story.severity == "critical" else LOW)[name]
        with psa.server.lock:
            tickets = [psa.state.tickets[id] for id in psa.ids(number)]
            stands = [tuple(map(_id, (ticket["status"], ticket["priority"]))) for ticket in tickets]
        if wanted not in stands:
            yield f"status and priority are {stands}, not {wanted}"

    def doubled(self) -> list[str]:
        """Tickets beyond the first, and notes and replies that tell the same once more or tell what never was."""
        extra = [f"{name}: {one}" for name, one in self.site.judge.doubled()]
        for name in CONNECTORS:
            for number, story in self.told.items():
                notes = self.notes(name, number)
                kinds = Counter(kind for kind, _ in (notes if name == "oncall" else notes.elements()))
                extra += [f"{name} {number}: {kind}" for kind in (kinds - story.notes).elements()]
        return extra

    def repeated_mails(self) -> int:
        """Mails that were sent again, each with the Message-ID that it had."""
        return sum(count - 1 for number in self.told for count in self.notes("oncall", number).values())

    def at_rest(self) -> bool:
        """Does no delivery have anything left to tell?"""
        for number, story in self.told.items():
            for name in CONNECTORS:
                key = f"bridge:delivery:{number}:{name}"
                state, owner, plan = self.site.client.hmget(key, "state", "owner", "plan")
                if owner or plan or state != ("closed" if story.over else "created"):
                    return False
        return True

    def wait_until_told(self, seconds: float) -> None:
        """Gives up after `seconds`, for `lost` to tell what is missing."""
        deadline = time.monotonic() + seconds
        while (self.lost() or not self.at_rest()) and time.monotonic() < deadline:
            time.sleep(0.2)


def _id(value: Any) -> int:
    """ConnectWise's references are objects."""
    return int(value["id"] if isinstance(value, dict) else value)
