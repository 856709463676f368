"""The log-in and the log-out."""

from __future__ import annotations

import hashlib
import hmac
import math
import re

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for

from bridge.web.attempts import KNOWN_FOR
from bridge.web.guard import Guard
from bridge.web.sessions import well_formed
from bridge.web.site import Site

#: Whom everybody is who knows the password.
OPERATOR = "operator"


def blueprint(site: Site, guard: Guard) -> Blueprint:
    pages = Blueprint("login", __name__)

    @pages.get("/login")
    def show() -> Response:
        if g.person is not None:
            return _on()
        if not site.runtime.settings.web.password.get_secret_value():
            return _not_offered()
        return make_response(render_template("login.html", problem="", offered=True))

    @pages.post("/login")
    def enter() -> Response:
        web = site.runtime.settings.web
        if not web.password.get_secret_value():
            return _not_offered()
        device = well_formed(request.cookies.get(guard.cookie_name("device")))
        lane = g.visitor.lane
        wait, then = site.attempts.begin(lane, device)
        if wait:
            return _wait(wait)
        if not _right(request.form.get("password", ""), web.password.get_secret_value()):
            locked = f"; the next attempt waits {then:.0f} s" if then else ""
            site.audit("log in", outcome="refused", person="nobody", reason=f"wrong password{locked}")
            return make_response(render_template("login.html", problem=WRONG, offered=True), 401)
        device = site.attempts.succeeded(lane, device)
        if g.browser:
            site.sessions.end(g.browser)
        session = site.sessions.begin(OPERATOR, web)
        site.audit("log in", person=OPERATOR)
        answer = _on()
        guard.give_session(answer, session)
        guard.give_session(answer, device, name="device", seconds=KNOWN_FOR)
        return answer

    @pages.post("/logout")
    def leave() -> Response:
        site.audit("log out")
        site.sessions.end(g.browser)
        answer = make_response(redirect(url_for("login.show"), 303))
        guard.give_session(answer, "")
        return answer

    def _not_offered() -> Response:
        return make_response(render_template("login.html", problem=NO_PASSWORD, offered=False), 401)

    def _wait(seconds: float) -> Response:
        # Nothing is stored of it: whoever asks again and again is not to fill the log.
        whole = math.ceil(seconds)
        how_long = f"{whole} seconds" if whole < 120 else f"{math.ceil(whole / 60)} minutes"
        problem = f"Too many attempts. The password was not looked at; try again in {how_long}."
        answer = make_response(render_template("login.html", problem=problem, offered=True), 429)
        answer.headers["Retry-After"] = str(whole)
        return answer

    return pages


WRONG = "That is not the password."
NO_PASSWORD = "No log-in is offered here: [web] has no password, and no trusted proxy said who you are."  # noqa: S105


def _right(given: str, password: str) -> bool:
    """Compared by digests, so that the time it takes tells neither length nor content."""
    here, there = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, password))
    return bool(password) and hmac.compare_digest(here, there)


def _on() -> Response:
    """To the page that was asked for before the log-in."""
    return make_response(redirect(local_path(request.values.get("next", "")), 303))


def local_path(wanted: str) -> str:
    """`wanted` if it is a path on this page, else `/`: a link must not lead to another site after the log-in."""
    # Not by a parser: what one refuses must not cost the log-in.
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted
    inside = wanted.startswith("/") and not wanted.startswith("//")
    return wanted if plain and inside and re.split("[?#]", wanted)[0] not in ("/login", "/logout") else "/"
