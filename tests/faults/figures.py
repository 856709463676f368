"""What a row of the fault suite came to, and the table at the end of the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: Name under which a test's report carries its figures.
PROPERTY = "fault figures"

_HEAD = ("fault", "reports", "faults", "lost", "doubled", "settled (s)", "remarks")


@dataclass(frozen=True)
class Figures:
    """One row."""

    #: Number of the row's group and what was done to the bridge, e.g. "1 SIGKILL of `run`".
    fault: str
    #: Open reports that the source had.
    reports: int
    #: How often the fault happened.
    faults: int
    #: Tickets and mails that should be there and are not.
    lost: int
    #: Tickets, or mails to the same recipient, beyond the first with the same reference; notes beyond one per change.
    doubled: int
    #: Seconds from the end of the last fault until every report had its ticket everywhere.
    settled: float
    remarks: str = ""
    #: How many of `doubled` the promise excepts: mails sent again because the answer to the first was lost.
    excepted: int = 0

    def as_property(self) -> tuple[str, dict[str, Any]]:
        """For `record_property`: plain values, which also travel between test processes."""
        return PROPERTY, asdict(self) | {"settled": round(self.settled, 1)}

    def _doubled(self) -> str:
        return f"{self.doubled} (all of them excepted)" if 0 < self.doubled == self.excepted else str(self.doubled)


def total(fault: str, rows: Sequence[Figures], remarks: str = "") -> Figures:
    """One row for sites that shared a fault: their sums, and the longest time that one took to settle."""
    return Figures(
        fault,
        reports=sum(row.reports for row in rows),
        faults=sum(row.faults for row in rows),
        lost=sum(row.lost for row in rows),
        doubled=sum(row.doubled for row in rows),
        settled=max(row.settled for row in rows),
        remarks=remarks,
    )


def table(properties: Iterable[tuple[str, Any]]) -> list[str]:
    """Lines of a Markdown table with the rows among `properties`; none if there is no row."""
    rows = sorted((Figures(**value) for name, value in properties if name == PROPERTY), key=lambda row: row.fault)
    cells = [
        tuple(
            str(cell)
            for cell in (row.fault, row.reports, row.faults, row.lost, row._doubled(), row.settled, row.remarks)
        )
        for row in rows
    ]
    return [f"| {' | '.join(line)} |" for line in (_HEAD, ("---",) * len(_HEAD), *cells)] if cells else []
