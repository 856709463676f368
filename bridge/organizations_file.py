"""The CSV file that says which company an organization is in each ticket system."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.base import why_unreadable

_REQUIRED = ("organization_id", "connector", "company")
#: Columns for the person who edits the file.
_IGNORED = ("organization_name", "company_name", "score", "candidates")
_COLUMNS = (*_REQUIRED, "recipients", *_IGNORED)
_CONNECTOR = re.compile("[a-z][a-z0-9_]*")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f]+@[^\s@<>,;:\"()\\\x00-\x1f]+")


class OrganizationsFileError(ValueError):
    """The file cannot be used. `problems` are sentences with line numbers; `str()` is one to a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Row:
    """What the file says about one organization in one connector."""

    #: Empty where only recipients are given.
    company: str
    recipients: tuple[str, ...]
    #: Line in the file, counted from 1.
    line: int


class OrganizationsFile:
    """The rows of one file, by organization id and connector."""

    def __init__(self, path: Path, rows: dict[tuple[int, str], Row]) -> None:
        self.path = path
        self._rows = rows

    @classmethod
    def load(cls, path: Path) -> OrganizationsFile:
        """Reads the file. Raises `OrganizationsFileError` with every mistake in it."""
        rows: dict[tuple[int, str], Row] = {}
        problems: list[str] = []
        for line, cells in _lines(path, _text(path), problems):
            _read_row(line, cells, rows, problems)
        if problems:
            raise OrganizationsFileError(problems)
        return cls(path, rows)

    def row(self, organization_id: int, connector: str) -> Row | None:
        return self._rows.get((organization_id, connector))

    def rows(self, connector: str) -> list[Row]:
        """The rows of one connector, by line."""
        return [row for (_, name), row in self._rows.items() if name == connector]

    def connectors(self) -> dict[str, int]:
        """The connectors named, with the line where each is first; a name nobody configured is a typing error."""
        first: dict[str, int] = {}
        for (_, name), row in self._rows.items():
            first.setdefault(name, row.line)
        return first


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OrganizationsFileError([f"cannot read {path} ({why_unreadable(path, error)})"]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            where = "it looks like UTF-16"
        else:
            line = data.count(b"\n", 0, error.start) + 1
            where = f"byte 0x{data[error.start]:02x} in line {line}"
        raise OrganizationsFileError([f"{path} is not UTF-8 text ({where}); save it as CSV UTF-8"]) from None


def _lines(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row that is not blank, as line number and cells by column."""
    delimiter = delimiter_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.append(f"line {line}: cannot be read as CSV ({error}); is a quotation mark without its partner?")
            return
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = column_names(cells)
            mistakes = list(_header_mistakes(header))
            if mistakes:
                problems.extend(f"line {line}: {mistake}" for mistake in mistakes)
                return
        elif any(cell.strip() for cell in cells[len(header) :]):
            problems.append(
                f"line {line}: has {len(cells)} cells for {len(header)} columns; put cells that contain "
                f"{delimiter!r} in quotation marks"
            )
        else:
            padded = [*cells, *[""] * (len(header) - len(cells))]
            yield line, {name: cell.strip() for name, cell in zip(header, padded, strict=False)}
    if header is None:
        problems.append(f"{path} is empty; its first line names the columns: {', '.join(_REQUIRED)}")


def delimiter_of(text: str) -> str:
    """What separates the cells of the file with this content: the mark that makes most known columns of its header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;", key=lambda mark: len(set(column_names(header.split(mark))) & set(_COLUMNS)))


def column_names(cells: Sequence[str]) -> list[str]:
    """The cells of a header as columns are named."""
    return [cell.strip().strip('"').strip().lower() for cell in cells]


def _header_mistakes(header: list[str]) -> Iterator[str]:
    while header and not header[-1]:
        header.pop()
    for name in dict.fromkeys(header):
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known columns are {', '.join(_COLUMNS)}"
            yield f"unknown column {name!r}; {hint}"
        elif header.count(name) > 1:
            yield f"column {name} is there {header.count(name)} times"
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        yield f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing"


def _read_row(line: int, cells: dict[str, str], rows: dict[tuple[int, str], Row], problems: list[str]) -> None:
    before = len(problems)
    given, connector, company = (cells[name] for name in _REQUIRED)
    if not re.fullmatch("[0-9]{1,18}", given):
        problems.append(f"line {line}: organization_id {given!r} is not a whole number")
    if not _CONNECTOR.fullmatch(connector):
        problems.append(f"line {line}: connector {connector!r} is not a connector's name")
    if any(not character.isprintable() for character in company):
        problems.append(f"line {line}: company {company!r} contains line breaks or invisible characters")
    recipients = tuple(dict.fromkeys(re.split(r"[\s,;]+", cells.get("recipients", "").strip(" ,;\t\r\n"))))
    recipients = tuple(address for address in recipients if address)
    problems.extend(
        f"line {line}: recipient {address!r} is not a mail address"
        for address in recipients
        if not _ADDRESS.fullmatch(address)
    )
    if len(problems) > before or not (company or recipients):
        return
    key = (int(given), connector)
    if key in rows:
        problems.append(
            f"line {line}: organization {key[0]} has a row for {connector} already, in line {rows[key].line}; keep one"
        )
        return
    rows[key] = Row(company, recipients, line)
