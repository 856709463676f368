"""Times as the page says them."""

from __future__ import annotations


def ago(at: float | None, now: float) -> str:
    """How long ago `at` was (both in seconds since the epoch), or how far ahead, for people."""
    if at is None:
        return "never"
    far = abs(at - now)
    if far < 1:
        return "now"
    length = lasted(far) if far >= 9.5 else f"{far:.0f} s"
    return f"in {length}" if at > now else f"{length} ago"


def lasted(seconds: float | None) -> str:
    """A length of time for people: 40 ms, 1.4 s, 12 s, 5 min, 3 h, 2 days."""
    if seconds is None:
        return "not known"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((60, "s"), (3600, "min"), (86400, "h")):
        if seconds < size * (2 if unit != "s" else 1.5):
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
