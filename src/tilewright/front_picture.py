"""A Pareto front as an SVG picture: two metrics as axes, a third one as colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

from tilewright.extract.objective import AnyMetric, Metric
from tilewright.extract.reweigh import Point

_WIDTH, _HEIGHT = 760, 500
_LEFT, _RIGHT, _TOP, _BOTTOM = 96, 40, 64, 64
_LEGEND = 100
"""Width of the legend of a third metric."""

_FONT = "system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif"
_INK, _GRID, _POINT = "#1f2937", "#e5e7eb", "#2563eb"
_LOW, _HIGH = (0xBF, 0xDB, 0xFE), (0x1E, 0x3A, 0x8A)
"""Colours of the least and the largest amount of a third metric."""

_LOGARITHMIC = 8.0
"""From this ratio of the largest to the least amount on, an axis is logarithmic."""

_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount_text(metric: AnyMetric, amount: float) -> str:
    """Write an amount with its unit, in three digits.

    >>> amount_text(Metric.ENERGY, 1_234_567.0), amount_text(Metric.LATENCY, 640)
    ('1.23 uJ', '640 cycles')
    """
    if metric is Metric.ENERGY:
        for factor, unit in ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ")):
            if amount >= factor:
                return f"{_digits(amount / factor)} {unit}"
    return f"{_short(amount)} {metric.unit}"


def _short(amount: float) -> str:
    for factor, letter in _SCALES:
        if amount >= factor:
            return f"{_digits(amount / factor)}{letter}"
    return _digits(amount)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Maps amounts to the pixels `[first, last]`."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool

    def at(self, amount: float) -> float:
        """Return the pixel of an amount."""
        low, high, value = self.low, self.high, amount
        if self.is_log:
            low, high, value = log10(low), log10(high), log10(value)
        return self.first + (value - low) / (high - low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Return round amounts along the axis."""
        if self.is_log:
            decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
        else:
            step = 10.0 ** floor(log10((self.high - self.low) / 2))
            step = next(
                s * step for s in (5, 2, 1, 0.5) if (self.high - self.low) / (s * step) >= 4
            )
            marks = [n * step for n in range(floor(self.low / step), ceil(self.high / step) + 1)]
        return [mark for mark in marks if self.low <= mark <= self.high]


def _axis(amounts: Sequence[float], first: float, last: float) -> _Axis:
    least, most = min(amounts), max(amounts)
    if least > 0 and most / least >= _LOGARITHMIC:
        return _Axis(low=least / 1.25, high=most * 1.25, first=first, last=last, is_log=True)
    margin = (most - least) * 0.12 or max(abs(most) * 0.05, 1.0)
    return _Axis(low=least - margin, high=most + margin, first=first, last=last, is_log=False)


def front_picture(title: str, metrics: tuple[AnyMetric, ...], points: Sequence[Point]) -> str:
    """Return the picture; points are numbered as in the table."""
    x, y = metrics[0], metrics[1]
    right = _WIDTH - _RIGHT - (_LEGEND if len(metrics) > 2 else 0)
    across = _axis([p.amounts[x] for p in points], _LEFT, right)
    up = _axis([p.amounts[y] for p in points], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="{_FONT}" font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="26" font-size="15" font-weight="600">{escape(title)}</text>',
        *_grid(x, y, across, up),
    ]
    if len(metrics) == 2:
        path = " ".join(f"{across.at(p.amounts[x]):.1f},{up.at(p.amounts[y]):.1f}" for p in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{_POINT}" stroke-width="1.5" '
            'stroke-dasharray="3 3"/>'
        )
    else:
        parts += _legend(metrics[2], points)
    for number, point in enumerate(points, 1):
        at = (across.at(point.amounts[x]), up.at(point.amounts[y]))
        parts += _mark(number, at, _colour(metrics, points, point), point.amounts, metrics)
    return "\n".join([*parts, "</svg>", ""])


def _tick(metric: AnyMetric, amount: float) -> str:
    return amount_text(metric, amount) if metric is Metric.ENERGY else _short(amount)


def _title(metric: AnyMetric) -> str:
    return escape(str(metric) if metric is Metric.ENERGY else f"{metric}, {metric.unit}")


def _grid(x: AnyMetric, y: AnyMetric, across: _Axis, up: _Axis) -> list[str]:
    low, high = up.first, up.last
    parts = []
    for mark in across.ticks():
        at = across.at(mark)
        parts.append(
            f'<line x1="{at:.1f}" y1="{low}" x2="{at:.1f}" y2="{high}" stroke="{_GRID}"/>'
            f'<text x="{at:.1f}" y="{low + 18}" text-anchor="middle">{_tick(x, mark)}</text>'
        )
    for mark in up.ticks():
        at = up.at(mark)
        parts.append(
            f'<line x1="{across.first}" y1="{at:.1f}" x2="{across.last}" y2="{at:.1f}" '
            f'stroke="{_GRID}"/><text x="{across.first - 8}" y="{at + 4:.1f}" '
            f'text-anchor="end">{_tick(y, mark)}</text>'
        )
    middle = (across.first + across.last) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 16}" text-anchor="middle" font-weight="600">{_title(x)}</text>'
        f'<text x="{_LEFT}" y="{_TOP - 12}" font-weight="600">{_title(y)}</text>'
    )
    return parts


def _colour(metrics: tuple[AnyMetric, ...], points: Sequence[Point], point: Point) -> str:
    if len(metrics) == 2:
        return _POINT
    amounts = [p.amounts[metrics[2]] for p in points]
    least, most = min(amounts), max(amounts)
    share = (point.amounts[metrics[2]] - least) / (most - least) if most > least else 0.0
    channels = (round(low + share * (high - low)) for low, high in zip(_LOW, _HIGH, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _mark(
    number: int,
    at: tuple[float, float],
    colour: str,
    amounts: Mapping[AnyMetric, float],
    metrics: tuple[AnyMetric, ...],
) -> list[str]:
    text = ", ".join(f"{metric} {amount_text(metric, amounts[metric])}" for metric in metrics)
    return [
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5.5" fill="{colour}" stroke="{_INK}" '
        f'stroke-width="0.8"><title>{number}: {escape(text)}</title></circle>',
        f'<text x="{at[0] + 9:.1f}" y="{at[1] - 7:.1f}">{number}</text>',
    ]


def _legend(metric: AnyMetric, points: Sequence[Point]) -> list[str]:
    amounts = [p.amounts[metric] for p in points]
    left, top, height = _WIDTH - _RIGHT - _LEGEND + 34, _TOP + 24, 160
    low, high = ("#" + "".join(f"{c:02x}" for c in colour) for colour in (_LOW, _HIGH))
    return [
        f'<defs><linearGradient id="third" x1="0" y1="1" x2="0" y2="0"><stop offset="0" '
        f'stop-color="{low}"/><stop offset="1" stop-color="{high}"/></linearGradient></defs>',
        f'<text x="{left}" y="{top - 10}" font-weight="600">{escape(str(metric))}</text>',
        f'<rect x="{left}" y="{top}" width="14" height="{height}" fill="url(#third)"/>',
        f'<text x="{left + 20}" y="{top + 10}">{_short(max(amounts))}</text>',
        f'<text x="{left + 20}" y="{top + height}">{_short(min(amounts))}</text>',
        f'<text x="{left}" y="{top + height + 18}" fill="#6b7280">{escape(metric.unit)}</text>',
    ]
