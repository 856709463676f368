"""The template files behind a ticket or note, line by line, with the lines at which they failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.template_files import TemplateFile
from bridge.text import visible

#: Characters of a file that are shown.
LONGEST = 100_000
_BUILT_IN = Path(__file__).resolve().parent.parent.parent / "templates"


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str
    #: The sentence about what failed here; '' where nothing did.
    failure: str


@dataclass(frozen=True, slots=True)
class Source:
    """One file. `own`: the operator's, not built in. `failed`: something in it did, on a line or as a whole."""

    name: str
    parts: tuple[str, ...]
    own: bool
    failed: bool
    lines: tuple[Line, ...]
    #: Why it cannot be shown; '' when it can.
    problem: str = ""


def sources(files: Sequence[TemplateFile], problems: Sequence[str]) -> list[Source]:
    """Each file once; those that failed come first, then the operator's own."""
    found = [_source(path, files, problems) for path in dict.fromkeys(file.path for file in files)]
    return sorted(found, key=lambda source: (not source.failed, not source.own))


def _source(path: Path, files: Iterable[TemplateFile], problems: Sequence[str]) -> Source:
    mine = [file for file in files if file.path == path]
    parts = tuple(file.part for file in mine)
    failures = dict(_failures(path, problems))
    try:
        text = path.read_text("utf-8")[:LONGEST]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return Source(_name(path), parts, mine[0].overridden, True, (), f"cannot be read: {why}")
    lines = text.splitlines() or [""]
    shown = tuple(Line(number, visible(line), failures.get(number, "")) for number, line in enumerate(lines, 1))
    return Source(_name(path), parts, mine[0].overridden, bool(failures), shown)


def _failures(path: Path, problems: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines of the file that the sentences name, with the sentence; 0: they name the file only."""
    named = re.compile(rf"template {re.escape(str(path))}(?:, line ([0-9]+))?:")
    for problem in problems:
        if found := named.search(problem):
            yield int(found[1] or 0), problem


def _name(path: Path) -> str:
    return str(path.relative_to(_BUILT_IN)) if path.is_relative_to(_BUILT_IN) else str(path)
