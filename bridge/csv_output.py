"""Rows of CSV with text of the outside world in them, which a spreadsheet must not take for formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from bridge.text import one_line

#: What starts a formula, also in full width, at the start of a cell or behind what some locale takes for its end.
_FORMULA = re.compile(r"(^|[;,|\"\t])(\s*)(?=[=+\-@＝＋－＠])")


def inert(text: str) -> str:
    """`text` on one line, with an apostrophe before whatever a spreadsheet would calculate."""
    return _FORMULA.sub(r"\1\2'", one_line(text))


def csv_row(cells: Iterable[str]) -> str:
    """One line of CSV, its line break included, in which nothing but plain text is left of the cells."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(inert, cells))
    return line.getvalue()
