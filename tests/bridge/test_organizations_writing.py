"""Rows that the page puts into the organizations file: what people wrote there stays as they wrote it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from bridge import organizations_writing
from bridge.organizations_file import OrganizationsFile
from bridge.organizations_writing import Assignment, NotWritten, edition, write_assignments

ROW = Assignment(7, "psa", "31", "Northwind Dental", "Northwind Dental, Inc.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "organizations.csv"


def written(path: Path, before: str, *rows: Assignment) -> str:
    path.write_bytes(before.encode("utf-8"))
    write_assignments(path, rows or (ROW,), seen=edition(path))
    return path.read_bytes().decode("utf-8")


HEADER = "organization_id,connector,company"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{HEADER}\n1,psa,20\n", f"{HEADER}\n1,psa,20\n7,psa,31\n"),
        (f"{HEADER}\n1,psa,20", f"{HEADER}\n1,psa,20\n7,psa,31\n"),  # no line end at the end
        (f"{HEADER}\r\n1,psa,20\r\n", f"{HEADER}\r\n1,psa,20\r\n7,psa,31\r\n"),
        (f"\ufeff{HEADER}\r\n", f"\ufeff{HEADER}\r\n7,psa,31\r\n"),
        ("company;connector;organization_id\n20;psa;1\n", "company;connector;organization_id\n20;psa;1\n31;psa;7\n"),
        # Odd quoting, blank lines and line breaks in a cell stay; the row of the organization is filled in where it is.
        (
            f'\n{HEADER},organization_name\n"1", psa ,"20","two\r\nlines"\n\n7,psa,,"A ""B"""\n8,psa,4,x\n',
            f'\n{HEADER},organization_name\n"1", psa ,"20","two\r\nlines"\n\n7,psa,31,"A ""B"""\n8,psa,4,x\n',
        ),
        (f'{HEADER}\n"7","psa","5"\r\n1,psa,2\n', f'{HEADER}\n"7","psa","31"\r\n1,psa,2\n'),
        (f"{HEADER}\n007,psa,5\n", f"{HEADER}\n007,psa,31\n"),
        (f"{HEADER}\n7,desk,5\n", f"{HEADER}\n7,desk,5\n7,psa,31\n"),
        (  # one left blank, one that says something: the second
            f"{HEADER},recipients\n7,psa,,\n7,psa,,a@example.com\n",
            f"{HEADER},recipients\n7,psa,,\n7,psa,31,a@example.com\n",
        ),
        (  # a proposal that was left open: its name is another's now, and likeness is what it was
            f"{HEADER},organization_name,company_name,score,candidates\n7,psa,,Northwind Dentl,,,74 x (id 3)\n",
            f"{HEADER},organization_name,company_name,score,candidates\n"
            '7,psa,31,Northwind Dentl,"Northwind Dental, Inc.",,74 x (id 3)\n',
        ),
        (f"{HEADER}\n7,psa\n", f"{HEADER}\n7,psa,31\n"),  # a row cut short
    ],
)
def test_one_row_is_written_and_everything_else_stays(path: Path, before: str, after: str) -> None:
    assert written(path, before) == after


def test_several_rows_are_written_at_once_and_read_back(path: Path) -> None:
    rows = [Assignment(n, "psa", str(n + 20), f"=cmd|{n}", "a\nb") for n in range(1, 40)]
    text = written(path, f"{HEADER},organization_name\n1,psa,,\n", *rows)
    file = OrganizationsFile.load(path)
    assert {n: row.company for n in range(1, 40) if (row := file.row(n, "psa"))} == {
        n: str(n + 20) for n in range(1, 40)
    }
    assert ",=cmd" not in text, "a spreadsheet would calculate it"


def test_a_missing_file_is_made(path: Path) -> None:
    write_assignments(path, [ROW], seen=edition(path))
    assert path.read_text("utf-8").splitlines()[1] == '7,psa,31,Northwind Dental,"Northwind Dental, Inc."'
    assert path.stat().st_mode & 0o777 == 0o644


def test_owner_mode_and_link_stay(path: Path, tmp_path: Path) -> None:
    path.write_text(f"{HEADER}\n", "utf-8")
    path.chmod(0o640)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    write_assignments(link, [ROW], seen=edition(link))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "7,psa,31" in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("before", "row", "said"),
    [
        (f"{HEADER}\nx,psa,1\n", ROW, "has mistakes"),
        (f'{HEADER}\n1,psa,"1\n', ROW, "has mistakes"),
        ("", ROW, "has mistakes"),
        (f"{HEADER}\n", Assignment(7, "psa", "=1+1"), "cannot stand in a spreadsheet"),
        (f"{HEADER}\n", Assignment(7, "Not a name", "31"), "would not be readable"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(path: Path, before: str, row: Assignment, said: str) -> None:
    path.write_text(before, "utf-8")
    with pytest.raises(NotWritten, match=said):
        write_assignments(path, [row], seen=edition(path))
    assert path.read_text("utf-8") == before
    assert list(path.parent.iterdir()) == [path], "something was left behind"


def test_a_file_that_changed_since_it_was_shown_is_left_alone(path: Path) -> None:
    path.write_text(f"{HEADER}\n", "utf-8")
    shown = edition(path)
    path.write_text(f"{HEADER}\n1,psa,20\n", "utf-8")
    with pytest.raises(NotWritten, match="changed by somebody else") as refused:
        write_assignments(path, [ROW], seen=shown)
    assert path.read_text("utf-8") == f"{HEADER}\n1,psa,20\n"
    assert "7,psa,31" in refused.value.rows


def test_two_writers_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"{HEADER}\n", "utf-8")
    monkeypatch.setattr(organizations_writing, "LOCK_WAIT", 0.01)
    other = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(NotWritten, match="another process"):
            write_assignments(path, [ROW], seen=edition(path))
    finally:
        os.close(other)
    write_assignments(path, [ROW], seen=edition(path))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "organizations.csv"
    with pytest.raises(NotWritten, match="make the folder") as refused:
        write_assignments(path, [ROW], seen="")
    assert "7,psa,31" in refused.value.rows


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that not even root may write")
def test_a_folder_that_may_not_be_written_is_named() -> None:
    with pytest.raises(NotWritten, match=r"cannot be written in /sys .*put the rows below into the file") as refused:
        write_assignments(Path("/sys/organizations.csv"), [ROW], seen="")
    assert "7,psa,31" in refused.value.rows
