"""The list of deliveries as a file of comma-separated values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from bridge.csv_output import csv_row
from bridge.printing import moment
from bridge.web.delivery_filter import Filter
from bridge.web.delivery_rows import Row, rows
from bridge.web.delivery_table import BATCH, named_so
from bridge.web.site import Site

COLUMNS = (
    "report_id",
    "organization_id",
    "organization",
    "severity",
    "subject",
    "connector",
    "state",
    "ticket",
    "ticket_url",
    "reason",
    "attempts",
    "first_seen",
    "updated_at",
)


def lines(site: Site, wanted: Filter, names: Mapping[int, str]) -> Iterator[str]:
    """Every delivery that fits, read in batches: a list of many is never held at once."""
    yield csv_row(COLUMNS)
    fitting = site.index.pairs(wanted, named=named_so(wanted.words(), names))
    while batch := list(itertools.islice(fitting, BATCH)):
        for row in rows(site.runtime, site.runtime.store.read_deliveries(batch), names):
            yield csv_row(_cells(row))


def _cells(row: Row) -> Iterator[str]:
    for name in COLUMNS:
        value = getattr(row, name)
        if name in ("first_seen", "updated_at"):
            value = moment(value)
        yield "" if value is None else str(value)
