"""What a check of the store can find (`bridge.store_check`): what each finding means, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.models import ReportKey


@dataclass(frozen=True, slots=True)
class FindingKind:
    """`mends`: what a repair does, '' where a person has to look."""

    what: str
    means: str
    mends: str = ""


#: By the code that the scripts answer (`lua/check_*.lua`).
KINDS = {
    "lost": FindingKind(
        "the delivery is named, but its record is gone",
        "nobody knows any more what became of it, and its report is open",
        "it is written anew as in doubt: its ticket is looked up before any is made",
    ),
    "dangling": FindingKind(
        "the delivery is named, but its record is gone",
        "its report is not open any more, so nothing is to be done for it",
        "what names it is removed",
    ),
    "no_reference": FindingKind(
        "the record has no reference",
        "its ticket can neither be looked up nor made",
        "the reference is written again",
    ),
    "unreadable": FindingKind(
        "a field of the record cannot be read",
        "workers fail at this delivery",
        "the field is emptied; a doubt, and a lease, begin now",
    ),
    "unknown_state": FindingKind(
        "the record has no state that is known",
        "no worker takes it up",
        "it counts as created where it has a ticket, else its ticket is looked up before any is made",
    ),
    "no_ticket": FindingKind(
        "it counts as created, but names no ticket",
        "its ticket is told nothing any more",
        "its ticket is looked up before any is made",
    ),
    "has_ticket": FindingKind(
        "it names a ticket, but counts as not created",
        "it waits for something that is done",
        "it counts as created",
    ),
    "maybe_sent": FindingKind(
        "it counts as not begun, but its create may have been carried out",
        "a second ticket could be made",
        "its ticket is looked up before any is made",
    ),
    "not_in_state": FindingKind(
        "it is missing among the deliveries of its state",
        "lists, page and metrics do not show it",
        "it is entered there",
    ),
    "in_other_state": FindingKind(
        "it is named among the deliveries of another state",
        "lists, page and metrics count it twice",
        "that entry is removed",
    ),
    "not_waiting": FindingKind(
        "it is missing among the reports that wait for a ticket",
        "nobody is told when it is late",
        "it is entered there",
    ),
    "waits_no_more": FindingKind(
        "it is named among the reports that wait for a ticket, but does not wait",
        "page and alerts call it late",
        "that entry is removed",
    ),
    "not_scheduled": FindingKind(
        "there is something to do for it, but it is not scheduled", "it would never move", "it is scheduled"
    ),
    "twice_scheduled": FindingKind("it is scheduled twice", "it is taken up more than once", "one entry is removed"),
    "scheduled_in_vain": FindingKind(
        "it is scheduled, though a person has to act first", "a worker would take it up", "it is no longer scheduled"
    ),
    "too_late": FindingKind(
        "it is scheduled for later than its record says", "it waits longer than it has to", "it is scheduled in time"
    ),
    "wrong_turn": FindingKind(
        "it waits with another urgency than its record says",
        "it is taken up too late or too early",
        "it is entered with its own urgency",
    ),
    "no_report": FindingKind(
        "the store has nothing of its report",
        "it waits until Huntress lists the report again, and news of it could pass for known",
        "the next listing writes the report anew; one that is not listed is asked for by itself",
    ),
    "open_and_missing": FindingKind(
        "the report counts as listed and as no longer listed", "its end may be asked for in vain", "it counts as listed"
    ),
    "over_and_open": FindingKind(
        "the report is over, but counts as open", "its end is asked for again and again", "it no longer counts as open"
    ),
    "forgotten": FindingKind(
        "the report is not over, but counts as neither open nor gone",
        "its tickets would stay open when it ends",
        "Huntress is asked about it by itself",
    ),
    "unreadable_report": FindingKind(
        "the stored report cannot be read",
        "what is to be said of it is not known",
        "the next listing writes it anew",
    ),
    "no_notice": FindingKind(
        "a notice is listed that does not exist", "page and alerts meet nothing", "that entry is removed"
    ),
    "unlisted_notice": FindingKind(
        "a notice exists that is not listed", "nobody is told that its cause is over", "it is listed"
    ),
    "vain_slot": FindingKind(
        "a slot is held for a delivery that does not exist", "one delivery less is under way", "the slot is freed"
    ),
    "no_name": FindingKind("an index has an entry that names no report", "readers fail at it", "the entry is removed"),
    "vain_proof": FindingKind(
        "what is said of the connector's proof cannot be right",
        "its deliveries may wait for nothing",
        "the next create is proven again",
    ),
    "wrong_type": FindingKind(
        "a key holds another kind of data than it should",
        "what reads it fails; the rest is not checked before that is mended",
    ),
    "unknown_key": FindingKind(
        "keys of a kind that this version does not know", "another version wrote them, or another program"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, as it was in one moment. `key`: without the namespace, where it is no delivery's."""

    code: str
    report_id: ReportKey | None = None
    connector: str = ""
    key: str = ""
    mended: bool = False
    #: Why it could not be mended, or how many there are.
    more: str = ""

    @property
    def kind(self) -> FindingKind:
        return KINDS[self.code]

    @property
    def where(self) -> str:
        """What it is about, as people read it."""
        if self.report_id is None:
            return self.key
        return f"report {self.report_id}" + (f", {self.connector}" if self.connector else "")

    def sentence(self) -> str:
        kind = self.kind
        then = f"mended: {kind.mends}" if self.mended else f"--repair: {kind.mends}" if kind.mends else "left as it is"
        return f"{self.where}: {kind.what}; {kind.means}{f' ({self.more})' if self.more else ''}. {then}"

    def as_json(self) -> dict[str, object]:
        kind = self.kind
        return {
            "code": self.code,
            "report_id": self.report_id,
            "connector": self.connector,
            "key": self.key,
            "what": kind.what,
            "means": kind.means,
            "repair": kind.mends,
            "mended": self.mended,
            "more": self.more,
        }
