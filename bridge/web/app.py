"""The web application of one process: which pages there are, and what all of them share."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import redis
from flask import Flask, Response, g, request, send_from_directory, url_for

from bridge.broker import quick_client
from bridge.printing import moment
from bridge.runtime import Runtime
from bridge.web import (
    activity,
    connectors,
    deliveries,
    login,
    organizations,
    overview,
    previews,
    problems,
    quarantine,
    status,
)
from bridge.web.guard import PUBLIC, Guard
from bridge.web.metrics import metrics
from bridge.web.sessions import ToldInterface
from bridge.web.site import Site
from bridge.web.times import ago, lasted
from bridge.web.webhooks import webhooks

#: Pages in the order of the menu: endpoint and title.
MENU = (
    ("overview.show", "Overview"),
    ("deliveries.show", "Deliveries"),
    ("organizations.show", "Organizations"),
    ("previews.show", "Templates"),
    ("connectors.show", "Connectors"),
    ("quarantine.show", "Quarantine"),
    ("activity.show", "Activity"),
)
#: Answered without a look at Redis first.
WITHOUT_REDIS = PUBLIC | {"status.show", "metrics.show"}
STATIC = Path(__file__).parent / "static"


def create_app(runtime: Runtime) -> Flask:
    """The WSGI application of one process."""
    app = Flask("bridge.web", static_folder=None, template_folder=str(Path(__file__).parent / "pages"))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    site = Site(runtime, quick_client(runtime.url))
    app.extensions["site"] = site
    # Before anything else that looks at a request.
    guard = Guard(app, site)
    app.session_interface = ToldInterface(site.sessions)
    app.register_blueprint(webhooks(runtime, site.asked_first, site.refusals))
    app.register_blueprint(metrics(site))
    app.register_blueprint(login.blueprint(site, guard))
    for page in (status, overview, deliveries, organizations, previews, connectors, quarantine, activity):
        app.register_blueprint(page.blueprint(site))
    problems.register(app)

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

    @app.context_processor
    def shared() -> dict[str, Any]:
        return {"menu": MENU, "person": g.get("person"), "asset": asset}

    app.jinja_env.filters.update(moment=moment, ago=ago, seconds=lasted)
    return app


@functools.cache
def asset(name: str) -> str:
    """Address of a static file; another one when the file is another, so that browsers may keep it."""
    content = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return url_for("static_file", name=name, v=content[:12])
