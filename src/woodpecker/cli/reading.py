"""Copying entries of a log to a stream of bytes, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from woodpecker.cli.cutting import NO_EOL
from woodpecker.cli.formats import Shape
from woodpecker.cli.positions import end_of, start_of
from woodpecker.cli.records import lines_of
from woodpecker.client.batch import Batch
from woodpecker.client.client import Client
from woodpecker.segments.prefetch import closing


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be printed, and how."""

    name: str
    start: str
    end: str | None
    follow: bool
    shape: Shape
    limit: int | None


async def copy_out(client: Client, request: Request, out: BinaryIO) -> None:
    """Write what ``request`` names to ``out``. Raises: as ``Log.read_batches``; BrokenPipeError."""
    log = await client.open_log(request.name)
    start = await start_of(client.environment, log, request.start)
    batches = log.read_batches(start, end_of(request.end), follow=request.follow)
    left = request.limit
    write = SHAPES[request.shape]
    async with closing(batches):
        if left == 0:
            return
        async for found in batches:
            batch = found if left is None else found.head(left)
            write(batch, out)
            if request.follow:
                out.flush()
            if left is not None:
                left -= len(batch)
                if left == 0:
                    break
    out.flush()


def _lines(batch: Batch, out: BinaryIO) -> None:
    payloads = batch.payloads
    if any(batch.headers):
        out.writelines(
            entry.payload
            if any(name == NO_EOL for name, _ in entry.headers)
            else entry.payload + b"\n"
            for entry in batch
        )
        return
    out.write(b"\n".join(payloads))
    out.write(b"\n")


def _raw(batch: Batch, out: BinaryIO) -> None:
    out.writelines(batch.views)


def _jsonl(batch: Batch, out: BinaryIO) -> None:
    out.write(lines_of(batch))


def _hex(batch: Batch, out: BinaryIO) -> None:
    out.writelines(payload.hex().encode() + b"\n" for payload in batch.payloads)


SHAPES: dict[Shape, Callable[[Batch, BinaryIO], None]] = {
    Shape.LINES: _lines,
    Shape.RAW: _raw,
    Shape.JSONL: _jsonl,
    Shape.HEX: _hex,
}
