"""The web application of one process: which pages there are, and what all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from flask import Flask, Response, render_template, request, send_from_directory

from bridge.broker import quick_client
from bridge.printing import moment
from bridge.runtime import Runtime
from bridge.web import connectors, deliveries, organizations, overview, previews, quarantine, status
from bridge.web.site import Site
from bridge.web.webhooks import webhooks

#: Pages in the order of the menu: endpoint and title.
MENU = (
    ("overview.show", "Overview"),
    ("deliveries.show", "Deliveries"),
    ("organizations.show", "Organizations"),
    ("previews.show", "Templates"),
    ("connectors.show", "Connectors"),
    ("quarantine.show", "Quarantine"),
)
#: Answered without a look at Redis first.
WITHOUT_REDIS = frozenset({"healthz", "readyz", "static_file", "status.show", "webhooks.take"})
STATIC = Path(__file__).parent / "static"


def create_app(runtime: Runtime) -> Flask:
    """The WSGI application of one process."""
    app = Flask("bridge.web", static_folder=None, template_folder=str(Path(__file__).parent / "pages"))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    site = Site(runtime, quick_client(runtime.url))
    app.extensions["site"] = site
    app.register_blueprint(webhooks(runtime, site.asked_first, site.refusals))
    for page in (status, overview, deliveries, organizations, previews, connectors, quarantine):
        app.register_blueprint(page.blueprint(site))

    @app.get("/healthz")
    def healthz() -> Response:
        """This process is alive."""
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        """This process can serve: its Redis answers."""
        try:
            site.asked_first.ping()
        except redis.RedisError:
            return Response("Redis does not answer\n", status=503, mimetype="text/plain")
        return Response("ok\n", mimetype="text/plain")

    @app.get("/static/<path:name>")
    def static_file(name: str) -> Response:
        return send_from_directory(STATIC, name)

    @app.before_request
    def redis_answers() -> None:
        if request.endpoint not in WITHOUT_REDIS:
            site.asked_first.ping()

    @app.errorhandler(redis.RedisError)
    def no_redis(_: redis.RedisError) -> tuple[str, int]:
        return render_template("problem.html", title="Redis does not answer", text=NO_REDIS), 503

    @app.errorhandler(404)
    def nothing_here(_: Exception) -> tuple[str, int]:
        return render_template(
            "problem.html", title="There is no such page", text="The menu leads to all there are."
        ), 404

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.context_processor
    def shared() -> dict[str, Any]:
        return {"menu": MENU, "csrf_token": lambda: ""}

    app.jinja_env.filters.update(moment=moment, ago=ago, seconds=lasted)
    return app


NO_REDIS = (
    "The page reads everything from Redis, and Redis does not answer. Nothing is lost: what is open is listed again as "
    "soon as it does. Check [redis] url, or, for the embedded one, the log and the disk of data_dir."
)
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def ago(at: float | None, now: float) -> str:
    """How long ago `at` was (both in seconds since the epoch), or how far ahead, for people."""
    if at is None:
        return "never"
    return f"in {lasted(at - now)}" if at > now else f"{lasted(now - at)} ago"


def lasted(seconds: float | None) -> str:
    """A length of time for people: 0.4 s, 12 s, 5 min, 3 h, 2 days."""
    if seconds is None:
        return "not known"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((60, "s"), (3600, "min"), (86400, "h")):
        if seconds < size * (2 if unit != "s" else 1.5):
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
