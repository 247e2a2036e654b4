"""``bench open``: taking over a log whose writer was killed with much that is not sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from woodpecker.bench.append import Say, size_text
from woodpecker.bench.machine import now
from woodpecker.bench.processes import child
from woodpecker.bench.raw_file import forget_cache, read_files
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.errors import Corrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlan:
    """``volume_bytes`` in one open segment; ``in_flight``: entries between flushes (0: none)."""

    repeats: int
    volume_bytes: int
    size: int = 16_384
    in_flight: int = 0


async def run(target: Target, wanted: OpenPlan, say: Say) -> list[Row]:
    """One row: the median of ``open_writer`` and of the first append behind it."""
    opened, appended, raw = [], [], []
    for number in range(wanted.repeats):
        name = f"bench-open-{number}"
        say(f"open {number + 1} of {wanted.repeats}: writing {size_text(wanted.volume_bytes)}")
        arguments = (str(wanted.volume_bytes), str(wanted.size), str(wanted.in_flight))
        async with child("write", target.url, name, *arguments):
            pass
        files = _data_files(target)
        forget_cache(files)
        if files:
            raw.append(read_files(files, direct=True).seconds)
        times = await _take_over(target, name, wanted.volume_bytes // wanted.size)
        opened.append(times[0])
        appended.append(times[1])
    figures = {"open_s": median(opened), "first_append_s": median(appended)}
    limit = {"read_all_s": median(raw)} if raw else {}
    blocks = f", flushed every {wanted.in_flight}" if wanted.in_flight else ""
    name = f"open {size_text(wanted.volume_bytes)} un-sealed, {size_text(wanted.size)}{blocks}"
    return [Row(name=name, figures=figures, limit=limit)]


async def _take_over(target: Target, name: str, count: int) -> tuple[float, float]:
    async with target.connect(background=False) as client:
        log = await client.open_log(name)
        begin = now()
        writer = await log.open_writer()
        opened = now()
        seq = await writer.append(b"first")
        appended = now()
        await writer.close()
        if seq != count:
            raise Corrupt(f"log {name} went on at {seq} after {count} entries", where=name)
        await client.delete_log(name)
    return opened - begin, appended - begin


def _data_files(target: Target) -> list[Path]:
    if target.directory is None or not target.is_file:
        return []
    return sorted(target.directory.glob("buffer/*/*.seg"), key=lambda path: path.stat().st_mtime)[
        -1:
    ]
