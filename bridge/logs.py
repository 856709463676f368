"""Structured logging: one line per step, JSON when nobody looks, never a secret, nothing that steers a terminal."""

from __future__ import annotations

import logging
import secrets as chance
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from connectors.redaction import learned, redact

#: Fields of a line that hold a traceback, whose lines stay lines also for people.
_TRACEBACKS = frozenset({"exception", "stack"})


def new_trace() -> str:
    """An id under which all lines of one turn, or of one poll, are found: 16 hexadecimal digits."""
    return chance.token_hex(8)


def traced(**known: object) -> AbstractContextManager[None]:
    """Every line that this thread logs inside the block carries `known`, whoever logs it."""
    return structlog.contextvars.bound_contextvars(**known)


class _Cleaning:
    """Masks every secret in every value of a log line, and shows what would steer a terminal as `\\x1b` and its like.

    `lines`: may a value have several lines? Not where a report could then write lines that pose as ours.
    """

    def __init__(self, secrets: Callable[[], Sequence[str]], *, lines: bool) -> None:
        self.secrets = secrets
        self.lines = lines

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        secrets = [*self.secrets(), *learned()]
        return {name: self._clean(value, secrets, self.lines or name in _TRACEBACKS) for name, value in event.items()}

    def _clean(self, value: object, secrets: Sequence[str], lines: bool) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(item, secrets, lines) for item in value]
        return _harmless(redact(str(value), secrets), lines)


def _harmless(text: str, lines: bool) -> str:
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


def configure(level: str = "info", secrets: Callable[[], Sequence[str]] = tuple, stream: TextIO | None = None) -> None:
    """Sets up logging for this process, also of the libraries. `level` is debug, info, warning or error."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    people = stream.isatty()
    renderer: list[Processor]
    if people:
        plain = structlog.dev.plain_traceback
        renderer = [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain)]
    else:
        renderer = [structlog.processors.JSONRenderer(ensure_ascii=False)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _Cleaning(secrets, lines=not people),
            *renderer,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It would log each request a second time, with the query as it is.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
