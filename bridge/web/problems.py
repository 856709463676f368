"""What a person reads when a request cannot be answered. Never a trace: the log has it."""

from __future__ import annotations

import secrets

import redis
import structlog
from flask import Flask, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, InternalServerError

from bridge.web.guard import MONITORED

log = structlog.get_logger(__name__)

#: Title and sentence by status.
TEXTS = {
    400: ("This request cannot be read", "Nothing was done. Go back, reload the page and try again."),
    404: ("There is no such page", "The menu leads to all there are."),
    405: ("This cannot be done here", "Nothing was done. Start from the page that offers it."),
    413: ("This is too long", "Nothing was done. Choose fewer at once, or shorten the text."),
    429: ("Too many requests", "Nothing was done. Wait a little, then try again."),
}
NO_REDIS = (
    "The page reads everything from Redis, and Redis does not answer. Nothing is lost: what is open is listed again as "
    "soon as it does. Check [redis] url, or, for the embedded one, the log and the disk of data_dir."
)


def register(app: Flask) -> None:
    """Makes every error of `app` a sentence."""

    @app.errorhandler(redis.RedisError)
    def no_redis(_: redis.RedisError) -> ResponseReturnValue:
        if request.blueprint in MONITORED:
            return jsonify(ok=False, problems=["Redis does not answer"]), 503
        return _page(503, "Redis does not answer", NO_REDIS)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> ResponseReturnValue:
        if error.code is None or error.code < 400:
            return error
        title, text = TEXTS.get(error.code, ("This request cannot be answered", "Nothing was done."))
        response = app.make_response(_page(error.code, title, text))
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> ResponseReturnValue:
        number = secrets.token_hex(4)
        log.error("the page failed", error_id=number, endpoint=request.endpoint, method=request.method, exc_info=error)
        text = f"This is a mistake in huntress-bridge; deliveries go on without the page. The log has it as {number}."
        return _page(InternalServerError.code, "The page failed", text)


def _page(status: int, title: str, text: str) -> tuple[str, int]:
    g.setdefault("person", None)
    return render_template("problem.html", title=title, text=text), status
