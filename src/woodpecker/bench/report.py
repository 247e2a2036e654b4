"""What a bench run found: rows of figures, as JSON and as lines for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from woodpecker.bench.figures import change
from woodpecker.errors import InvalidRequest

FORMAT = 1
_PLAIN = {
    "pairs", "creates", "gets", "lists", "peak_rss_mb", "open_fds", "late", "missed", "tasks",
    "node_fds", "node_syncs",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement. ``figures`` carry their unit in the name; ``limit`` is the back end's own.

    ``ratio``: ours to the limit, the median of pairs; for latencies below 1 is better, else above.
    """

    name: str
    figures: Mapping[str, float]
    limit: Mapping[str, float] = field(default_factory=dict)
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rows of one run and what the machine was doing."""

    command: str
    store: str
    rows: Sequence[Row]
    load_average: Sequence[float]
    machine: str = field(default_factory=lambda: f"{platform.machine()}, {os.cpu_count()} cpus")
    python: str = field(default_factory=platform.python_version)
    format: int = FORMAT


def to_json(report: Report) -> str:
    """One JSON document on one line."""
    return json.dumps(asdict(report))


def from_json(text: str, *, where: str) -> Report:
    """Raises: InvalidRequest: not a report of this format."""
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise InvalidRequest(
                f"{where} has format {fields['format']}, this version reads {FORMAT}"
            )
        rows = [Row(**row) for row in fields.pop("rows")]
        return Report(rows=rows, **fields)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(f"{where} is not a report of `woodpecker bench`: {error}") from error


def lines(report: Report) -> list[str]:
    """For people: a row a line, its limit below it."""
    load = " ".join(f"{value:.2f}" for value in report.load_average)
    found = [
        f"bench {report.command} on {report.store}",
        f"{report.machine}, Python {report.python}, load average {load}",
    ]
    for row in report.rows:
        ratio = "" if row.ratio is None else f"  ratio {row.ratio:.2f}"
        found.append(f"{row.name:<40} {_figures(row.figures)}{ratio}")
        if row.limit:
            found.append(f"{'  limit':<40} {_figures(row.limit)}")
        if row.note:
            found.append(f"{'':<4}{row.note}")
    return found


def compare(old: Report, new: Report) -> list[str]:
    """What has changed between two runs, rows of the same name side by side; ratios first."""
    before = {row.name: row for row in old.rows}
    found = []
    for row in new.rows:
        if row.name not in before:
            continue
        was = before[row.name]
        changes = change(was.figures, row.figures)
        if was.ratio and row.ratio:
            changes = {"ratio": row.ratio / was.ratio - 1, **changes}
        text = "  ".join(f"{name} {value:+.0%}" for name, value in changes.items())
        found.append(f"{row.name:<40} {text}")
    return found or ["the two reports have no row in common"]


def _figures(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{_text(name, value)} {name}" for name, value in figures.items())


def _text(name: str, value: float) -> str:
    if name.startswith("usd"):
        return f"{value:.5f}"
    if name in _PLAIN or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
