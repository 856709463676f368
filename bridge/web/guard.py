"""Who may ask for what. Everything is refused but what is named here.

A new page or action needs nothing to be safe: without a person it is refused, and without a form's token it does
nothing.

The token is ours and not a library's: it follows from the session's id by one keyed digest, so nothing is stored or
signed, and there is no second session beside the one in Redis, as Flask-WTF's would be.
"""

from __future__ import annotations

import hmac

from flask import Flask, Response, g, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from bridge.web.sessions import LOCAL, Person, form_token, new_id, well_formed
from bridge.web.site import Site
from bridge.web.visitor import Visitor, known_host, visitor
from bridge.webhooks import LONGEST_BODY
from connectors.addresses import is_loopback

#: Asked by anybody. The webhook's sender signs what it sends.
PUBLIC = frozenset({"healthz", "readyz", "static_file", "webhooks.take"})
#: Asked by people who have not logged in yet; posts carry a token all the same.
BEFORE_LOG_IN = frozenset({"login.show", "login.enter"})
#: Blueprints asked by monitors, with a token of their own.
MONITORED = frozenset({"status", "metrics"})
#: Methods that change nothing.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Most bytes of a request's body, where nothing longer is expected, and most fields of a form.
BODY = 262_144
FIELDS = 2_000
#: Blueprints that take whole reports.
LONG = frozenset({"webhooks", "previews"})


class Guard:
    """Stands before every endpoint of `app`."""

    def __init__(self, app: Flask, site: Site) -> None:
        self.site = site
        #: The address that is really listened on; a reloaded configuration does not move it.
        self._on_loopback = is_loopback(site.runtime.settings.web.host)
        app.config.update(MAX_CONTENT_LENGTH=BODY, MAX_FORM_MEMORY_SIZE=LONGEST_BODY, MAX_FORM_PARTS=FIELDS)
        app.before_request(self.admit)
        app.after_request(self.leave)
        app.jinja_env.globals["csrf_token"] = self.csrf_token

    def admit(self) -> ResponseReturnValue | None:
        """Lets the request through (None), or answers it."""
        endpoint = request.endpoint
        web = self.site.runtime.settings.web
        g.visitor = visitor(request, web)
        g.person, g.browser = None, well_formed(request.cookies.get(self.cookie_name()))
        request.max_content_length = LONGEST_BODY + 1 if request.blueprint in LONG else BODY
        if endpoint in PUBLIC or (request.blueprint in MONITORED and self._monitor()):
            return None
        refusal = self._refuse_way(g.visitor)
        if refusal is not None:
            return refusal
        g.person = self._person(g.visitor)
        if request.blueprint in MONITORED and g.person is LOCAL and self._token():
            g.person = None  # where a token is configured, being on this machine is not enough
        if g.person is None and endpoint not in BEFORE_LOG_IN:
            return self._ask_to_log_in()
        if request.method not in SAFE:
            return self._refuse_forged()
        return None

    def local(self) -> bool:
        """Does the page serve this machine alone, so that nobody logs in?"""
        web = self.site.runtime.settings.web
        return self._on_loopback and not web.has_log_in and not web.trusted_proxies

    def csrf_token(self) -> str:
        """The token for the forms of this answer."""
        if not g.get("browser"):
            g.browser = g.new_browser = new_id()
        return form_token(g.browser)

    def give_session(self, response: Response, value: str, *, name: str = "page", seconds: int | None = None) -> None:
        """Gives the browser a cookie; '' takes it away. `seconds`: how long it is kept, else until the browser ends."""
        secure = self.secure()
        response.set_cookie(
            self.cookie_name(name),
            value,
            max_age=seconds if value else 0,
            secure=secure,
            httponly=True,
            samesite="Strict",
            path="/",
        )

    def cookie_name(self, name: str = "page") -> str:
        """`__Host-` keeps neighbouring sites and plain http from setting it."""
        return f"{'__Host-' if self.secure() else ''}bridge_{name}"

    def secure(self) -> bool:
        """Do cookies go over https only?"""
        return bool(g.visitor.https) or self.site.runtime.settings.web.secure_cookies == "always"

    # -- the checks, in their order ------------------------------------------------------------------------------------

    def _refuse_way(self, who: Visitor) -> ResponseReturnValue | None:
        """By which way did it come: under which name, through what, from which site?"""
        web = self.site.runtime.settings.web
        if not known_host(who, web, local=self.local()):
            return refused(
                400,
                "This page does not go by that name",
                f'It was asked for as "{who.host_name[:100]}". If that is right, add the name to [web] allowed_hosts.',
            )
        if self.local() and who.by_proxy:
            return refused(
                403,
                "This page is for the machine it runs on",
                "The request came through a proxy. To serve people elsewhere set a password in [web], and the proxy's "
                "address in trusted_proxies.",
            )
        site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode", "navigate")
        if site not in ("same-origin", "none") and (request.method not in SAFE or mode != "navigate"):
            return refused(403, "Refused", "Another site sent this request; nothing was done.")
        return None

    def _person(self, who: Visitor) -> Person | None:
        web = self.site.runtime.settings.web
        if self.local():
            return LOCAL
        if who.person:
            return Person(who.person, "proxy")
        if not g.browser or not web.password.get_secret_value():
            return None
        return self.site.sessions.find(g.browser, web, used="X-Live" not in request.headers)

    def _monitor(self) -> bool:
        """Is it a monitor with the right token?"""
        token = self._token()
        if not token:
            return False
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), token.encode())
        return scheme.lower() == "bearer" and right and request.method in SAFE

    def _token(self) -> str:
        return self.site.runtime.settings.web.token.get_secret_value()

    def _ask_to_log_in(self) -> ResponseReturnValue:
        if request.blueprint in MONITORED:
            sentence = "Give the token of [web] as Authorization: Bearer, or log in on the page."
            answer = jsonify(ok=False, problems=[sentence])
            return answer, 401, {"WWW-Authenticate": 'Bearer realm="huntress-bridge"'}
        if request.method in ("GET", "HEAD") and "X-Live" not in request.headers:
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                # By a link from elsewhere, in a mail perhaps: the browser kept the cookie back. It sends it when this
                # answer asks again.
                return render_template("again.html"), 200
            here = request.full_path if request.query_string else request.path
            return redirect(url_for("login.show", next=None if here == "/" else here), 303)
        return refused(401, "Your session has ended", "Nothing was done. Log in again, then repeat it.")

    def _refuse_forged(self) -> ResponseReturnValue | None:
        origin = request.headers.get("Origin")
        here = g.visitor.host.lower()
        # Compared as text: anybody may send what no parser takes.
        if origin is not None and origin.lower() not in (f"http://{here}", f"https://{here}"):
            self._note("came from another site")
            return refused(
                403,
                "Refused",
                "Another site sent this, or a proxy in between changes the Host header; nothing was done. A proxy must "
                "pass the Host header on, or send X-Forwarded-Host and be named in trusted_proxies of [web].",
            )
        # Before the body is looked at, as long as can be.
        given = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
        if sum(len(request.form.getlist(name)) for name in request.form) > FIELDS:
            return refused(413, "Too much at once", f"A form may have {FIELDS} fields; nothing was done. Choose fewer.")
        if not g.browser or not hmac.compare_digest(given.encode(), form_token(g.browser).encode()):
            self._note("its form's token is missing or wrong")
            return refused(
                403,
                "Refused",
                "The page you sent this from is too old, or cookies are off; nothing was done. Go back, reload the "
                "page and try again.",
            )
        return None

    def _note(self, why: str) -> None:
        if g.person is not None:
            self.site.audit(request.endpoint or "nothing", outcome="refused", reason=why)

    # -- what leaves ---------------------------------------------------------------------------------------------------

    def leave(self, response: Response) -> Response:
        """Every answer's headers."""
        headers = response.headers
        headers["Content-Security-Policy"] = POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        # Not no-referrer: with that browsers say no Origin in forms either.
        headers["Referrer-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = PERMISSIONS
        versioned = request.endpoint == "static_file" and "v" in request.args and response.status_code == 200
        headers["Cache-Control"] = "private, max-age=31536000, immutable" if versioned else "no-store"
        who: Visitor | None = g.get("visitor")
        if who is not None and who.https:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if g.get("new_browser"):
            self.give_session(response, g.new_browser)
        return response


POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"


def refused(status: int, title: str, text: str) -> tuple[str, int]:
    """A page that says why nothing was done."""
    return render_template("problem.html", title=title, text=text), status
