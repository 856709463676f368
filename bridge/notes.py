"""The notes that the bridge itself adds to tickets."""

from __future__ import annotations

from bridge.models import Agent, Note, Organization

#: Start of the name of a note on a refused resolution in what is to do to a ticket, and of its key; a piece of the
#: report's digest follows.
RESOLUTION = "resolution-"

#: What each thing still to be done to a ticket is called in sentences.
_WHAT = {
    "complete": "completing the ticket (number, link, host)",
    "verify": "looking up the new ticket by its reference",
    "details": "the note with organization and host details",
    "plain": "the note on the plain rendering",
    "duplicate": "the note on a second ticket",
    "status": "looking at the ticket's first status",
    "continued": "the note on the former ticket",
    "comment": "the note with a comment from Huntress",
    "resolution": "the note that Huntress did not resolve the report",
}

#: What each step that follows a report is called in sentences.
STEPS = {
    "update": "the note on what changed",
    "end": "telling the ticket that its report is over",
    "reopen": "telling the ticket that its report is open again",
}


def what(item: str) -> str:
    """What a thing still to be done to a ticket is called; some, like each comment, have a name of their own."""
    return _WHAT[item.partition("-")[0]]


#: What the note of each kind says, by the start of its key.
_SAID = {
    "update": "what changed in the report",
    "ended": "the report is over",
    "reopened": "the report is open again",
    "continued": "a new ticket goes on with the report",
    "comment": "a comment from Huntress",
    "details": "details that came after the ticket was made",
    "plain": "why the ticket has the plain rendering",
    "duplicate": "a second ticket for the same report",
    "resolution": "Huntress did not resolve the report",
}


def said(key: str) -> str:
    """What the note with `key` says, for people, with the key by which it is found in the ticket."""
    if key.endswith("-refused"):
        return f"the ticket system did not close the ticket ({key})"
    kind = key.partition("-")[0]
    return f"{_SAID[kind]} ({key})" if kind in _SAID else key


def details(organization: Organization | None, agent: Agent | None) -> Note:
    """Organization and host, which the source did not give in time for the ticket."""
    lines = ["Details that came after this ticket was made."]
    if organization is not None:
        lines.append(f"* Organization: {organization.name or 'not given'} (id {organization.id})")
    if agent is not None:
        fields = {
            "Host": agent.hostname,
            "Platform": agent.platform,
            "Operating system": agent.os,
            "Domain": agent.domain_name,
            "Serial number": agent.serial_number,
            "Address": agent.ipv4_address,
            "External address": agent.external_ip,
            "Isolation": agent.firewall_status,
        }
        lines += [f"* {name}: {value}" for name, value in fields.items() if value]
    return Note("details", "Host details", "\n".join(lines))


def plain(remark: str) -> Note:
    """Why this ticket is in the built-in plain rendering."""
    text = f"This ticket was written in the built-in plain form, because: {remark or 'a template failed'}."
    return Note("plain", "Plain rendering", text)


def close_refused(key: str, refusal: str) -> Note:
    """The note with `key` said that the ticket is closed, and the ticket system did not take that."""
    text = f"The ticket system did not close this ticket: {refusal.rstrip('.')}. Please close it by hand."
    return Note(f"{key}-refused", "Ticket not closed", text)


def not_resolved(key: str, why: str) -> Note:
    """The report stays open at the source although people closed its tickets."""
    text = (
        f"All tickets of this report are closed, so Huntress was asked to resolve it, and did not: {why} The report is "
        "still open there, and nothing was approved: please look at its remediations in the Huntress portal. Huntress "
        "is asked again when the report changes."
    )
    return Note(key, "Report not resolved", text)


def duplicate(other: str) -> Note:
    """A second ticket carries the same reference."""
    text = f"Ticket {other} carries the same Huntress reference. This one, with the lower id, is kept up to date."
    return Note("duplicate", "Second ticket for the same report", text)
