"""Curves over time as one SVG of four small panels, readable at 800 pixels on light and on dark ground. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bridge.web.charts import round_up

#: In units of the picture, which is drawn as many pixels wide.
PANEL_WIDTH, PANEL_HEIGHT = 400.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 24.0, 46.0, 26.0
#: Seen well on white and on black alike.
COLOURS = ("#3b82c4", "#d9822b", "#3a9d5d", "#b0589b", "#8c7853", "#c2453f")
GREY = "#808890"
#: Most points of a line; of what lies between them, the highest is drawn.
MOST_POINTS = 180


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; a gap where there is no value."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """Some curves on one scale, from 0. `least`: what the scale reaches at least."""

    title: str
    lines: Sequence[Line]
    least: float = 1.0


def picture(title: str, seconds: Sequence[float], panels: Sequence[Panel]) -> str:
    """The SVG. `seconds`: when each value was taken, since the start."""
    rows = math.ceil(len(panels) / 2)
    width, height = 2 * PANEL_WIDTH, rows * PANEL_HEIGHT
    drawn = "\n".join(
        f'<g transform="translate({number % 2 * PANEL_WIDTH:g} {number // 2 * PANEL_HEIGHT:g})">\n'
        f"{_panel(panel, seconds)}\n</g>"
        for number, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="system-ui, sans-serif" font-size="11" fill="{GREY}" role="img">\n'
        f"<title>{escape(title)}</title>\n{drawn}\n</svg>\n"
    )


def _panel(panel: Panel, seconds: Sequence[float]) -> str:
    highest = max((value for line in panel.lines for value in line.values if value is not None), default=0.0)
    top = max(round_up(highest), panel.least)
    end = max(seconds, default=0.0) or 1.0
    parts = [f'<text x="{LEFT:g}" y="16" font-size="13" font-weight="600">{escape(panel.title)}</text>']
    x = LEFT
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        parts.append(f'<path d="M{x:g} 29h12" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 16:g}" y="33">{escape(line.name)}</text>')
        x += 28 + 6.2 * len(line.name)
    for part in (0.0, 0.5, 1.0):
        y = _y(part * top, top)
        parts.append(f'<path d="M{LEFT:g} {y:g}H{PANEL_WIDTH - RIGHT:g}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(f'<text x="{LEFT - 5:g}" y="{y + 4:g}" text-anchor="end">{part * top:,.4g}</text>')
    for minute in minutes(end):
        at = _x(minute * 60, end)
        parts.append(f'<text x="{at:g}" y="{PANEL_HEIGHT - 10:g}" text-anchor="middle">{minute} min</text>')
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        path = outline([*zip(seconds, line.values, strict=True)], end, top)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>')
    return "\n".join(parts)


def outline(points: Sequence[tuple[float, float | None]], end: float, top: float) -> str:
    """The path of one curve, `end` seconds wide and `top` high; a new start after each gap."""
    every = math.ceil(len(points) / MOST_POINTS) or 1
    path, pen = [], "M"
    for start in range(0, len(points), every):
        held = [(value, when) for when, value in points[start : start + every] if value is not None]
        if not held:
            pen = "M"
            continue
        value, when = max(held)
        path.append(f"{pen}{_x(when, end):.1f} {_y(value, top):.1f}")
        pen = "L"
    return "".join(path)


def minutes(end: float) -> range:
    """Up to seven marks for a time of so many seconds."""
    whole = int(end / 60)
    step = next((step for step in (1, 2, 5, 10, 15, 20, 30) if whole <= 6 * step), 60)
    return range(0, whole + 1, step)


def _x(when: float, end: float) -> float:
    return LEFT + when / end * (PANEL_WIDTH - LEFT - RIGHT)


def _y(value: float, top: float) -> float:
    return PANEL_HEIGHT - BOTTOM - value / top * (PANEL_HEIGHT - TOP - BOTTOM)
