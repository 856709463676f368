"""The page Quarantine: what could not be read, raw, and why."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from bridge.bookkeeping import QUARANTINE_RAW, Quarantined
from bridge.text import visible
from bridge.web.site import Site
from connectors import lenient_json

#: Entries on one page: each may be long.
PER_PAGE = 20
#: Most characters of one that is shown indented: brackets within brackets become a thousand times as long.
MOST_INDENTED = 10 * QUARANTINE_RAW


@dataclass(frozen=True, slots=True)
class Shown:
    """One entry for people; `text` is what came, indented where it is JSON, its invisible characters spelled out."""

    entry: Quarantined
    reason: str
    text: str
    #: Is the rest of what came not kept?
    cut: bool


def shown(entry: Quarantined) -> Shown:
    cut = len(entry.raw) >= QUARANTINE_RAW
    return Shown(entry, visible(entry.reason), visible(_indented(entry.raw)), cut)


def _indented(raw: str) -> str:
    """`raw` as a person reads it: JSON indented, anything else as it came, and so what would grow beyond all bounds."""
    pieces, size = [], 0
    try:
        parsed = lenient_json.parse(raw.encode("utf-8", "surrogatepass"))
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(parsed):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_INDENTED:
                return raw
    except (ValueError, RecursionError):
        return raw
    return "".join(pieces)


def _record(entry: Quarantined) -> dict[str, Any]:
    return {"report_id": entry.report_id, "reason": entry.reason, "seen_at": entry.seen_at, "raw": entry.raw}


def _download(content: object, name: str) -> Response:
    name = re.sub("[^A-Za-z0-9-]", "", name)[:60] or "entry"
    response = Response(json.dumps(content, indent=2) + "\n", mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="quarantine-{name}.json"'
    return response


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("quarantine", __name__)

    @pages.get("/quarantine")
    def show() -> str:
        entries = site.runtime.books.quarantined()[::-1]
        last = max(1, -(-len(entries) // PER_PAGE))
        page = min(max(1, request.args.get("page", 1, int)), last)
        part = [shown(entry) for entry in entries[(page - 1) * PER_PAGE : page * PER_PAGE]]
        return render_template(
            "quarantine.html", entries=part, count=len(entries), page=page, last=last, now=site.runtime.store.now()
        )

    @pages.get("/quarantine/download")
    def download() -> Response:
        """One entry by its `key`, or all."""
        entries = site.runtime.books.quarantined()
        key = request.args.get("key")
        if key is None:
            return _download([_record(entry) for entry in entries], "all")
        found = next((entry for entry in entries if entry.key == key), None)
        if found is None:
            abort(404)
        return _download(_record(found), str(found.report_id or key))

    return pages
