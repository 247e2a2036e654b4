"""A drawing of latency against load: one SVG file, made by hand, for any browser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from woodpecker.bench.report import Report, Row
from woodpecker.errors import InvalidRequest

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 50, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
PERCENTILES = {"p50_ms": ("p50", ""), "p99_ms": ("p99", "6 3"), "p999_ms": ("p99.9", "2 3")}
STYLE = "text{font:12px sans-serif}.grid{stroke:#ddd}path{fill:none;stroke-width:1.8}"

Point = tuple[float, float]


def latency_svg(report: Report) -> str:
    """Each percentile over the entries asked for a second, both on a logarithmic scale, one colour a series.

    Rows of one series have the same name but for the load (`` at ...``). Raises: InvalidRequest: none has.
    """
    series: dict[str, list[Row]] = {}
    for row in report.rows:
        if "asked_s" in row.figures:
            series.setdefault(row.name.partition(" at ")[0], []).append(row)
    if not series:
        raise InvalidRequest("nothing to draw: --plot needs rows of the open loop (--rate)")
    drawn = [row for rows in series.values() for row in rows]
    x = _Scale([row.figures["asked_s"] for row in drawn], LEFT, WIDTH - RIGHT)
    y = _Scale([row.figures[name] for row in drawn for name in PERCENTILES], HEIGHT - BOTTOM, TOP)
    title = f"{report.command} on {report.store}: latency (ms) against load (entries/s)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="{TOP - 22}">{escape(title)}</text>',
        *_grid(x, y),
        *_lines(series, x, y),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """Values on a logarithmic axis from ``begin`` to ``end`` pixels, whole decades."""

    def __init__(self, values: Sequence[float], begin: int, end: int) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._low = math.floor(math.log10(min(positive)))
        high = math.ceil(math.log10(max(positive)))
        self._decades = max(1, high - self._low)
        self._begin, self._end = begin, end

    @property
    def marks(self) -> list[float]:
        """Where lines of the grid stand."""
        return [10.0 ** (self._low + step) for step in range(self._decades + 1)]

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (math.log10(max(value, 10.0**self._low)) - self._low) / self._decades
        return round(self._begin + (self._end - self._begin) * share, 1)


def _grid(x: _Scale, y: _Scale) -> Iterator[str]:
    for mark in x.marks:
        at = x.at(mark)
        yield f'<path class="grid" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{at}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{mark:,.10g}</text>'
    for mark in y.marks:
        at = y.at(mark)
        yield f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{mark:,.10g}</text>'


def _lines(series: dict[str, list[Row]], x: _Scale, y: _Scale) -> Iterator[str]:
    height = TOP
    for number, (name, rows) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        for figure, (text, dashes) in PERCENTILES.items():
            points = sorted((row.figures["asked_s"], row.figures[figure]) for row in rows)
            stroke = f'stroke="{colour}" stroke-dasharray="{dashes}"'
            yield f'<path {stroke} d="{_path(points, x, y)}"/>'
            for load, latency in points:
                yield f'<circle cx="{x.at(load)}" cy="{y.at(latency)}" r="2.5" fill="{colour}"/>'
            left = WIDTH - RIGHT + 14
            yield f'<path {stroke} d="M{left} {height}h26"/>'
            label = escape(f"{name}, {text}")
            yield f'<text x="{left + 32}" y="{height + 4}">{label}</text>'
            height += 18


def _path(points: Sequence[Point], x: _Scale, y: _Scale) -> str:
    return "M" + "L".join(f"{x.at(load)} {y.at(latency)}" for load, latency in points)
