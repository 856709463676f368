"""Small bar charts as geometry: the page draws them as SVG, with their numbers in a table beside. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

#: In units of the picture; it is drawn as wide as its card.
WIDTH, HEIGHT = 420.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 16.0, 10.0, 22.0


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of value, one for each day; None: nothing is known of that day.

    `kind` is its class in the style sheet.
    """

    name: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across, or a day's name below."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture and what it shows as a table: a row for each day, `columns` being the series' names."""

    name: str
    title: str
    summary: str
    bars: tuple[Bar, ...]
    lines: tuple[Tick, ...]
    days: tuple[Tick, ...]
    series: tuple[Series, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    empty: bool

    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


def bars(
    name: str,
    title: str,
    days: Sequence[date],
    series: Sequence[Series],
    *,
    stacked: bool,
    least: float,
    shown: Callable[[float], str],
) -> Chart:
    """A bar for each series and day, on top of each other or side by side.

    `least`: what the scale reaches at least. `shown` writes a value for people.
    """
    columns = [[each.values[index] or 0.0 for each in series] for index in range(len(days))]
    highest = max((sum(column) if stacked else max(column, default=0.0) for column in columns), default=0.0)
    top = max(round_up(highest), least)
    scale = (HEIGHT - TOP - BOTTOM) / top
    slot = (WIDTH - LEFT - RIGHT) / max(len(days), 1)
    drawn: list[Bar] = []
    for index, (day, column) in enumerate(zip(days, columns, strict=True)):
        base = HEIGHT - BOTTOM
        wide = slot * 0.72 if stacked else slot * 0.72 / max(len(series), 1)
        for place, (each, value) in enumerate(zip(series, column, strict=True)):
            if value <= 0:
                continue
            tall = max(value * scale, 1.0)
            x = LEFT + index * slot + slot * 0.14 + (0 if stacked else place * wide)
            text = f"{day_name(day)}: {shown(value)} {each.name}"
            drawn.append(Bar(round(x, 1), round(base - tall, 1), round(wide, 1), round(tall, 1), each.kind, text))
            base -= tall if stacked else 0
    every = max(1, math.ceil(len(days) / 7))
    named = [
        Tick(round(LEFT + (index + 0.5) * slot, 1), day_name(day))
        for index, day in enumerate(days)
        if (len(days) - 1 - index) % every == 0
    ]
    lines = [Tick(round(HEIGHT - BOTTOM - part * top * scale, 1), shown(part * top)) for part in (0, 0.5, 1)]
    table = [
        (
            day.isoformat(),
            tuple("" if value is None else shown(value) for value in (each.values[index] for each in series)),
        )
        for index, day in enumerate(days)
    ]
    return Chart(
        name=name,
        title=title,
        summary=f"{title}, {day_name(days[0])} to {day_name(days[-1])}; at most {shown(highest)}." if days else title,
        bars=tuple(drawn),
        lines=tuple(lines),
        days=tuple(named),
        series=tuple(series),
        rows=tuple(table),
        empty=not drawn,
    )


def round_up(value: float) -> float:
    """The next value with one digit that a scale ends well at, such as 4, 20 or 600."""
    if value <= 0:
        return 0.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 3, 4, 6, 8, 10) if step * size >= value * 0.9999)


def day_name(day: date) -> str:
    """Such as `9 Mar`; the same everywhere, whatever the machine's language."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{day.day} {months[day.month - 1]}"
