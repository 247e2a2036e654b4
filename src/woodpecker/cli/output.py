"""Printing results: JSON that stays stable, or text for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def print_json(value: object) -> None:
    """One JSON document on one line; dataclasses become objects, bytes base64."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns under their names; numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    all_rows = [[_cell(value) for value in row] for row in rows]
    for index, name in enumerate(head):
        numbers = all(row[index].replace(".", "").isdigit() for row in all_rows if row[index])
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in all_rows:
        table.add_row(*row)
    _print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """One fact a line, aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        lines = _cell(value).split("\n")
        print(f"{name:<{width}}  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<{width}}  {line}")


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _print(table: Table) -> None:
    from rich.console import Console

    # without a terminal lines are not cut: whoever reads them is a program
    width = None if sys.stdout.isatty() else 500
    text = Console(file=sys.stdout, width=width, markup=False, highlight=False)
    with text.capture() as captured:
        text.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def bytes_text(count: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def time_text(milliseconds: int) -> str:
    """A moment in UTC; empty for none."""
    if not milliseconds:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
