"""The notes that the bridge itself adds to tickets."""

from __future__ import annotations

from bridge.models import Agent, Note, Organization
from bridge.text import prose, quoted


class _What(dict[str, str]):
    """Names of things to do. A comment is one of its own each, with a name made for it (`bridge.arrivals`)."""

    def __missing__(self, item: str) -> str:
        if not item.startswith("comment-"):
            raise KeyError(item)
        return self["comment"]


#: What each thing still to be done to a ticket is called in sentences.
WHAT = _What(
    {
        "complete": "completing the ticket (number, link, host)",
        "verify": "looking up the new ticket by its reference",
        "details": "the note with organization and host details",
        "plain": "the note on the plain rendering",
        "duplicate": "the note on a second ticket",
        "comment": "the note with a comment from Huntress",
    }
)


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


def duplicate(other: str) -> Note:
    """A second ticket carries the same reference."""
    text = f"Ticket {other} carries the same Huntress reference. This one, with the lower id, is kept up to date."
    return Note("duplicate", "Second ticket for the same report", text)


def comment(key: str, text: str) -> Note:
    """What somebody wrote on the report in Huntress, word for word."""
    # A marker in it would pass for that of another note, which would then never be added.
    words = prose(text).replace("[huntress-", "[ huntress-")
    return Note(key, "Comment in Huntress", f"A comment on this report in Huntress:\n\n{quoted(words)}")
