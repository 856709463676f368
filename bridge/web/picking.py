"""What a person chose and wrote in a form about deliveries."""

from __future__ import annotations

from werkzeug.datastructures import MultiDict

from bridge.models import report_key
from bridge.reading import Pair
from bridge.steering import LONGEST_REASON
from bridge.text import one_line

#: Most deliveries taken from one form; a page shows fewer.
MOST = 500


class NoReason(Exception):
    """The form lacks something; the sentence says what."""


def picked(form: MultiDict[str, str]) -> list[Pair]:
    """The deliveries marked in a form; what is no name of one is left out."""
    found: dict[Pair, None] = {}
    for name in form.getlist("pick")[:MOST]:
        report, bar, connector = name.partition("|")
        try:
            key = report_key(report)
        except ValueError:
            continue
        if bar and connector:
            found[key, connector] = None
    return list(found)


def reason_in(form: MultiDict[str, str]) -> str:
    """Why deliveries are handled. Raises `NoReason`."""
    reason = one_line(form.get("reason", ""))
    if not reason:
        raise NoReason("A reason is needed, so nothing was marked: say what was done, for whoever looks here next.")
    if len(reason) > LONGEST_REASON:
        raise NoReason(f"The reason is longer than {LONGEST_REASON} characters, so nothing was marked. Shorten it.")
    return reason
