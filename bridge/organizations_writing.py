"""Puts rows into the organizations file, which people edit too: whatever else stands in it stays, byte for byte."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bridge.csv_output import csv_row, inert
from bridge.organizations_file import OrganizationsFile, OrganizationsFileError, column_names, delimiter_of
from bridge.proposals import COLUMNS
from connectors.base import why_unreadable

#: Seconds to wait for another process that writes the same file.
LOCK_WAIT = 5.0
#: Byte order mark of UTF-8, as spreadsheets write it.
_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One organization's company in one connector. `company` is what the configuration takes: an id, else a name."""

    organization_id: int
    connector: str
    company: str
    organization_name: str = ""
    company_name: str = ""

    def cells(self, columns: Sequence[str]) -> list[str]:
        """A row with these columns."""
        return [inert(str(getattr(self, name, ""))) for name in columns]


class NotWritten(Exception):
    """The file is as it was. `str()` is a sentence; `rows` is CSV for a person to put into the file by hand."""

    rows = ""


def assignments_csv(assignments: Iterable[Assignment]) -> Iterator[str]:
    """The lines of a file that the configuration reads."""
    columns = COLUMNS[:5]
    yield csv_row(columns)
    for assignment in assignments:
        yield csv_row(assignment.cells(columns))


def edition(path: Path) -> str:
    """Tells one content of the file from another; '' while there is no file. Raises `NotWritten` when unreadable."""
    data = _content(path)
    return "" if data is None else hashlib.sha256(data).hexdigest()[:24]


def write_assignments(path: Path, assignments: Sequence[Assignment], *, seen: str) -> None:
    """Puts the assignments into the file, all or none, atomically. `seen`: the `edition` that they were decided on.

    The row of an organization gets the company, where there is one; else it is added at the end. The new file is read
    as the configuration would read it before it takes the old one's place. Raises `NotWritten`.
    """
    path = path.resolve()  # a link stays one
    try:
        with _locked(path.parent):
            _replace(path, assignments, seen)
    except (OSError, NotWritten) as error:
        refusal = error if isinstance(error, NotWritten) else NotWritten(_why(path, error))
        refusal.rows = "".join(assignments_csv(assignments))
        raise refusal from None


def _replace(path: Path, assignments: Sequence[Assignment], seen: str) -> None:
    _unchanged(path, seen)
    data = _content(path)
    written = _with_rows(path, data, assignments).encode("utf-8")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(written)
            _as_before(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
        _must_load(fresh, path, assignments)
        _unchanged(path, seen)
        os.replace(fresh, path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def _unchanged(path: Path, seen: str) -> None:
    if edition(path) != seen:
        raise NotWritten(
            f"{path.name} was changed by somebody else since this was shown, so nothing was written. "
            "Look at what it says now, and choose again."
        )


def _as_before(descriptor: int, path: Path) -> None:
    """The new file belongs to whom the old one did, and is read by the same; a new one is readable like any other."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    with suppress(PermissionError):  # only root may give files away
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _must_load(fresh: Path, path: Path, assignments: Sequence[Assignment]) -> None:
    try:
        loaded = OrganizationsFile.load(fresh)
    except OrganizationsFileError as error:
        said = "; ".join(error.problems[:3]).replace(str(fresh), path.name)
        raise NotWritten(f"{path.name} would not be readable with the new rows: {said}") from None
    for one in assignments:
        row = loaded.row(one.organization_id, one.connector)
        if row is None or row.company != one.company:
            raise NotWritten(
                f"{one.company!r} cannot stand in a spreadsheet as it is, so nothing was written for organization "
                f"{one.organization_id}; put another name or the id of the company into the file by hand"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps two writers apart. The folder carries the lock: the file itself is replaced, and nothing is left behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise NotWritten(
                        f"another process has been writing in {folder} for {LOCK_WAIT:.0f} s, so nothing was written; "
                        "try again"
                    ) from None
                time.sleep(0.05)
            except OSError:
                break  # some network file systems lock no folders; then the look right before the end has to do
        yield
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes | None:
    """None: there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotWritten(f"cannot read {path} ({why_unreadable(path, error)})") from None


def _why(path: Path, error: OSError) -> str:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        mend = "let this process write there, or put the rows below into the file by hand"
    elif error.errno in (errno.EBUSY, errno.EXDEV):
        mend = "the file is mounted by itself and cannot be replaced: mount its folder, or put the rows in by hand"
    elif error.errno == errno.ENOENT:
        mend = "make the folder, or correct [organizations] file"
    else:
        mend = "put the rows below into the file by hand, or try again"
    return (
        f"{path.name} cannot be written in {path.parent} ({error.strerror}; this process is uid {os.getuid()}): {mend}."
    )


# -- the text ----------------------------------------------------------------------------------------------------------


def _with_rows(path: Path, data: bytes | None, assignments: Sequence[Assignment]) -> str:
    """The file's text with the assignments in it. Raises `NotWritten` when the present text cannot be read."""
    if data is None:
        return csv_row(COLUMNS[:5]) + "".join(csv_row(one.cells(COLUMNS[:5])) for one in assignments)
    try:
        OrganizationsFile.load(path)
    except OrganizationsFileError as error:
        raise NotWritten(f"{path.name} has mistakes, mend them first: {'; '.join(error.problems[:3])}") from None
    return _Text(data.decode("utf-8")).with_rows(assignments)


class _Text:
    """A file's text as rows, each with the characters that it is written in. It must be readable."""

    def __init__(self, text: str) -> None:
        self._mark = _MARK if text.startswith(_MARK) else ""
        text = text.removeprefix(_MARK)
        self._delimiter = delimiter_of(text)
        lines = list(io.StringIO(text, newline=""))
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        self._written: list[str] = []
        self._cells: list[list[str]] = []
        before = 0
        for cells in reader:
            self._written.append("".join(lines[before : reader.line_num]))
            self._cells.append(cells)
            before = reader.line_num
        self._header = next(n for n, cells in enumerate(self._cells) if any(cell.strip() for cell in cells))
        self._columns = column_names(self._cells[self._header])
        self._end = _end(self._written[self._header]) or "\n"

    def with_rows(self, assignments: Sequence[Assignment]) -> str:
        places = self._places()
        written = list(self._written)
        for one in assignments:
            place = places.get((str(one.organization_id), one.connector))
            if place is None:
                if not _end(written[-1]):
                    written[-1] += self._end
                written.append(self._row(one.cells(self._columns), quote_all=False))
            else:
                written[place] = self._changed(place, one)
        return self._mark + "".join(written)

    def _places(self) -> dict[tuple[str, str], int]:
        """The row of each organization in each connector; one that says something comes before one left blank."""
        places: dict[tuple[str, str], int] = {}
        says: dict[tuple[str, str], bool] = {}
        for number, cells in enumerate(self._cells):
            if number <= self._header or not any(cell.strip() for cell in cells):
                continue
            row = self._named(cells)
            key = (str(int(row["organization_id"])), row["connector"])
            something = bool(row["company"] or row.get("recipients", "").strip(" ,;"))
            if key not in places or (something and not says[key]):
                places[key], says[key] = number, something
        return places

    def _named(self, cells: Sequence[str]) -> dict[str, str]:
        padded = [*cells, *[""] * (len(self._columns) - len(cells))]
        return {name: cell.strip() for name, cell in zip(self._columns, padded, strict=False)}

    def _changed(self, place: int, one: Assignment) -> str:
        cells = self._cells[place]
        cells += [""] * (len(self._columns) - len(cells))
        fresh = dict(zip(self._columns, one.cells(self._columns), strict=True))
        for number, name in enumerate(self._columns):
            if name in ("company", "company_name") or (name == "organization_name" and not cells[number].strip()):
                cells[number] = fresh[name]
        written = self._written[place]
        quote_all = written.count('"') >= 2 * len(self._columns)
        return self._row(cells, quote_all=quote_all, end=_end(written))

    def _row(self, cells: Sequence[str], *, quote_all: bool, end: str | None = None) -> str:
        line = io.StringIO()
        writer = csv.writer(
            line,
            delimiter=self._delimiter,
            quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
            lineterminator="",
        )
        writer.writerow(cells)
        return line.getvalue() + (self._end if end is None else end)


def _end(written: str) -> str:
    """How a row ends: its line break, or nothing."""
    return written[len(written.rstrip("\r\n")) :]
