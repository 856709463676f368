"""The text of notices: the templates in `templates/alerts`, and a plain sentence should one of them fail."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from bridge.causes import Cause
from bridge.models import Account, Notice
from bridge.notices import Claim
from bridge.sandbox import Templates, environment
from bridge.text import clean, one_line, shorten
from connectors.http import redact

log = structlog.get_logger(__name__)

#: Characters of a subject.
SUBJECT_LIMIT = 200


class NoticeText:
    """Writes notices. Times are shown in `timezone`; `secrets` are masked, whoever brought them in."""

    def __init__(self, timezone: str, secrets: Sequence[str]) -> None:
        folder = Path(__file__).resolve().parent.parent / "templates"  # built in: they need no process of their own
        self._environment = environment(Templates((folder,), timezone, edition=0), autoescape=False)
        self._secrets = secrets

    def write(self, claim: Claim, cause: Cause | None, *, account: Account | None, gone: bool, now: float) -> Notice:
        """The notice that is claimed. `cause` is None when it is over; `gone`: its connector is not configured."""
        kind, _, connector = claim.cause.partition(":")
        variables: dict[str, Any] = {
            "kind": kind,
            "connector": connector,
            "over": claim.over,
            "gone": gone,
            "since": datetime.fromtimestamp(claim.since, UTC),
            "now": datetime.fromtimestamp(now, UTC),
            "minutes": max(1, int((now - claim.since) / 60)),
            "account": f"{account.id} {account.name}".strip() if account else None,
            "host": socket.gethostname(),
            "count": cause.count if cause else 0,
            "deliveries": cause.deliveries if cause else (),
            "reason": cause.reason if cause else "",
            "next_probe": datetime.fromtimestamp(cause.next_probe, UTC) if cause and cause.next_probe else None,
        }
        try:
            subject = self._render("alerts/subject.j2", variables)
            text = self._render("alerts/notice.txt.j2", variables)
        except Exception:  # a broken template must not keep a person in the dark
            log.exception("a template of notices failed; a plain sentence goes out", cause=claim.cause)
            subject = f"[huntress-bridge] {'over: ' if claim.over else ''}{claim.cause}"
            text = f"{subject}\nSee huntress-bridge deliveries, huntress-bridge check --online and /status."
        start = f"huntress-{account.id if account else 0}-notice-{round(claim.since * 1000)}"
        first, this = (
            f"{start}-{which}-{kind}-{connector}".rstrip("-") for which in (0, "over" if claim.over else claim.number)
        )
        return Notice(
            key=this,
            subject=shorten(one_line(subject), SUBJECT_LIMIT),
            text=clean(text).strip() + "\n",
            answers=first if claim.over or claim.number else "",
        )

    def _render(self, name: str, variables: dict[str, Any]) -> str:
        return redact(self._environment.get_template(name).render(variables), self._secrets)
