"""The page Activity: who did what here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from flask import Blueprint, render_template, request

from bridge.web.audit import AuditLog, Entry
from bridge.web.site import Site

#: Entries on one page.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Activity:
    """One page of it. `page` counts from 1."""

    entries: tuple[Entry, ...]
    page: int
    more: bool
    text: str


def activity(audit_log: AuditLog, text: str = "", page: int = 1) -> Activity:
    """The entries that have every word of `text`, newest first. Raises `redis.RedisError`."""
    start = (page - 1) * SHOWN
    found = islice((entry for entry in audit_log.entries() if entry.matches(text)), start, start + SHOWN + 1)
    entries = tuple(found)
    return Activity(entries[:SHOWN], page, len(entries) > SHOWN, text)


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("activity", __name__)

    @pages.get("/activity")
    def show() -> str:
        page = min(10_000, max(1, request.args.get("page", 1, type=int)))
        shown = activity(site.audit_log, request.args.get("text", "")[:200].strip(), page)
        return render_template("activity.html", now=site.runtime.store.now(), shown=shown)

    return pages
