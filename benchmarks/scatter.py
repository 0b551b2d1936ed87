"""A picture of predictions against simulations, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

SIZE, MARGIN = 420, 48
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of a model: (simulated, predicted, planned) cycles, relative to its fastest plan."""

    name: str
    points: tuple[tuple[float, float, float], ...]


def scatter(series: Sequence[Series]) -> str:
    """Return two panels, predicted and planned over simulated cycles, on logarithmic axes."""
    most = max(max(point) for one in series for point in one.points) * 1.05
    least = min(min(point) for one in series for point in one.points) / 1.05
    width, height = 2 * SIZE, SIZE + 24 * len(series)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for panel, title in ((1, "predicted"), (2, "planned")):
        parts += _panel(series, panel, title, (least, most))
    for number, one in enumerate(series):
        y = SIZE + 24 * number + 8
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<circle cx="{MARGIN}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{MARGIN + 12}" y="{y}">{one.name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    series: Sequence[Series], which: int, title: str, span: tuple[float, float]
) -> list[str]:
    """Return one panel; the line is where both are equal."""
    least, most = span
    left, inner = (which - 1) * SIZE + MARGIN, SIZE - 2 * MARGIN

    def place(value: float) -> float:
        return inner * log(value / least) / log(most / least)

    def x_of(value: float) -> str:
        return f"{left + place(value):.1f}"

    def y_of(value: float) -> str:
        return f"{SIZE - MARGIN - place(value):.1f}"

    parts = [
        f'<rect x="{left}" y="{MARGIN}" width="{inner}" height="{inner}" fill="none" stroke="#888"/>',
        f'<line x1="{x_of(least)}" y1="{y_of(least)}" x2="{x_of(most)}" y2="{y_of(most)}" stroke="#bbb"/>',
        f'<text x="{left}" y="{MARGIN - 10}">{title} over simulated, fastest plan = 1</text>',
    ]
    for tick in (1, 2, 3, 5, 10):
        if least <= tick <= most:
            parts.append(f'<text x="{x_of(tick)}" y="{SIZE - MARGIN + 16}">{tick}</text>')
            parts.append(f'<text x="{left - 16}" y="{y_of(tick)}">{tick}</text>')
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        parts += [
            f'<circle cx="{x_of(point[0])}" cy="{y_of(point[which])}" r="2.5" fill="{colour}" '
            'fill-opacity="0.6"/>'
            for point in one.points
        ]
    return parts
