"""Jinja templates in their sandbox, in a process of their own with limits of processor time, memory and output.

Jinja's sandbox keeps a template from reaching what it should not. It does not keep it from looping for ever, or from
multiplying a string until memory is full, and in a thread nothing stops that for certain. So `bridge.render_guard` runs
`serve` in a process that holds no secrets and nothing of value, and that may end at any time.

Filters beyond Jinja's own: `given` (a value on one line, or "not given"), `local` (a time in the configured zone),
`prose` (HTML as text), `quoted` (`> ` before every line), `fit(n)` and `shorten(n)` (cut at a word, with a note of what
is missing or an ellipsis), `words` (underscores as spaces). Variables: the view's, in a note also the note's, and
`limit`, of the part, or none.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bridge.note_view import NoteView
from bridge.text import fit, no_bullets, one_line, prose, quoted, shorten
from bridge.ticket_view import NOT_GIVEN, TicketView, local

#: Characters; a template that produces more is taken for broken. Ticket systems take a fraction of it.
MAX_OUTPUT = 4_000_000
#: Bytes of address space. The process takes 30 MB, with a report of 4 MB 75, and with a million lines of emoji 230.
MEMORY = 256 * 1024 * 1024
#: Seconds of processor time that a template stuck in one call of C is given on top; then the kernel ends the process.
HARD_MARGIN = 1.0
#: Exit status: memory ran out, even for saying so.
NO_MEMORY = 77

TOO_MUCH_MEMORY = f"it takes more than {MEMORY // 1024**2} MB of memory"


@dataclass(frozen=True, slots=True)
class Templates:
    """Where templates are searched and the zone they tell times in. Those of a new `edition` are compiled anew."""

    folders: tuple[Path, ...]
    zone: str
    edition: int


@dataclass(frozen=True, slots=True)
class Job:
    """One template to render: a `file` of `templates`, or a `source` from the configuration."""

    templates: Templates
    view: TicketView
    #: What the template is called in errors that know no file.
    what: str
    file: str = ""
    source: str = ""
    html: bool = False
    #: Characters that fit, for the template to know.
    limit: int | None = None
    #: For the template of a note.
    note: NoteView | None = None

    def variables(self) -> dict[str, Any]:
        """By name, as the template sees them."""
        return self.view.variables() | (self.note.variables() if self.note else {}) | {"limit": self.limit}


class TemplateFailure(Exception):
    """A template failed: `where`, with file and line, and why. `overdue`: it was stopped for taking too long."""

    def __init__(self, where: str, why: str, *, overdue: bool = False) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why
        self.overdue = overdue


def too_slow(seconds: float) -> str:
    return f"it takes more than {seconds:g} s of processor time"


class _Overdue(Exception):
    """The processor time of a template is over. Derived from `Exception`, so that Jinja notes the template's line."""


class _Clock:
    """Interrupts a rendering whose processor time is over, and nothing else: the flag is lowered before it returns."""

    def __init__(self) -> None:
        self._rendering = False
        signal.signal(signal.SIGPROF, self._ring)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)

    def render(self, job: Job, seconds: float) -> str:
        """As `render`. Raises `TemplateFailure`, also when it takes more than `seconds` of processor time."""
        try:
            try:
                self._rendering = True
                signal.setitimer(signal.ITIMER_PROF, seconds)
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds + HARD_MARGIN)
                return render(job)
            finally:
                self._rendering = False  # a signal that arrives from here on does nothing
        except _Overdue as error:
            where = _place(error, job)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        raise TemplateFailure(where, too_slow(seconds), overdue=True)

    def _ring(self, _: int, __: FrameType | None) -> None:
        if self._rendering:
            self._rendering = False
            raise _Overdue


def serve(descriptor: int) -> None:
    """Renders what comes in over a connection, until its other end is closed. For a process of its own.

    A message is a pickled `([Job, …], seconds of processor time for each)`. Its answer is JSON: for each job until the
    first that fails, and for that one, `[text]` or `[where, why, overdue]`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever stops the bridge lets it finish; then the connection closes
    _limit_memory()
    try:
        with Connection(descriptor) as connection, suppress(EOFError, ConnectionError):
            _answer_all(connection, _Clock())
    except MemoryError:
        os._exit(NO_MEMORY)


def _answer_all(connection: Connection, clock: _Clock) -> NoReturn:
    while True:
        jobs, seconds = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the process that started this one
        answers: list[list[Any]] = []
        try:
            for job in jobs:
                answers.append([clock.render(job, seconds)])
        except TemplateFailure as failure:
            answers.append([failure.where, failure.why, failure.overdue])
        connection.send_bytes(json.dumps(answers, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _limit_memory() -> None:
    with suppress(OSError, ValueError):  # a system without this limit
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(OSError):  # when memory is short all the same, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def render(job: Job) -> str:
    """The text that a template makes. Raises `TemplateFailure`."""
    pieces, length = [], 0
    try:
        for piece in _template(job).generate(**job.variables()):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_OUTPUT:
                raise TemplateFailure(job.what, f"it produces more than {MAX_OUTPUT:,} characters")
    except (TemplateFailure, _Overdue):
        raise
    except MemoryError as error:
        raise TemplateFailure(_place(error, job), TOO_MUCH_MEMORY) from None
    except Exception as error:  # a template may raise anything
        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        message = error.message if isinstance(error, TemplateSyntaxError) else str(error)
        why = kind + shorten(one_line(message or "no reason given"), 300)
        raise TemplateFailure(_place(error, job), why) from None
    return "".join(pieces)


def _template(job: Job) -> Template:
    if job.source:
        return _from_source(job.templates, job.source)
    return environment(job.templates, autoescape=job.html).get_template(job.file)


@lru_cache(maxsize=64)
def environment(templates: Templates, *, autoescape: bool) -> Environment:
    """The environment of these templates: Jinja's sandbox, and the filters."""
    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(templates.folders),
        autoescape=autoescape,  # by part: `select_autoescape` overlooks names that end in `.html.j2`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "given": _given,
        "local": partial(local, zone=ZoneInfo(templates.zone)),
        "prose": prose,
        "quoted": quoted,
        "fit": fit,
        "shorten": shorten,
        "words": lambda text: str(text).replace("_", " "),
    }
    return made


@lru_cache(maxsize=256)
def _from_source(templates: Templates, source: str) -> Template:
    return environment(templates, autoescape=False).from_string(source)


def _place(error: Exception, job: Job) -> str:
    """The template file and line where `error` arose."""
    file, line = _origin(error, job.templates.folders)
    return (f"template {file}" if file else job.what) + (f", line {line}" if line else "")


def _origin(error: Exception, folders: tuple[Path, ...]) -> tuple[str, int | None]:
    """The template file and line where `error` arose; no file for text that comes from the configuration."""
    if isinstance(error, TemplateSyntaxError):
        return error.filename or "", error.lineno
    found: tuple[str, int | None] = ("", None)
    trace = error.__traceback__
    while trace is not None:  # Jinja rewrites the frames so that they point into its templates
        name = trace.tb_frame.f_code.co_filename
        if name == "<template>":
            found = ("", trace.tb_lineno)
        elif any(Path(name).is_relative_to(folder) for folder in folders):
            found = (name, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _given(value: Any) -> str:
    """`value` on one line, or "not given"; it holds no bullets."""
    if isinstance(value, tuple | list):
        value = ", ".join(str(each) for each in value)
    return no_bullets(shorten(one_line("" if value is None else str(value)), 1000)) or NOT_GIVEN
