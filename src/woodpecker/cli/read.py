"""``woodpecker read``: entries of a log to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer

from woodpecker.cli.cutting import NO_EOL
from woodpecker.cli.logs import Name
from woodpecker.cli.positions import end_of, start_of
from woodpecker.cli.records import lines_of
from woodpecker.cli.session import Session
from woodpecker.client.batch import Batch
from woodpecker.client.client import Client
from woodpecker.segments.prefetch import closing


class Shape(StrEnum):
    """How entries are printed."""

    LINES = "lines"
    JSONL = "jsonl"
    RAW = "raw"
    HEX = "hex"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    name: str
    start: str
    end: str | None
    follow: bool
    shape: Shape
    limit: int | None


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("read")(read)


def read(
    ctx: typer.Context,
    name: Name,
    start: Annotated[
        str,
        typer.Option("--from", metavar="X", help="seq, earliest, latest, -n, time with zone, cursor:NAME"),
    ] = "earliest",
    end: Annotated[
        str | None, typer.Option("--to", metavar="Y", help="exclusive: seq, time with zone, tail")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as entries come")] = False,
    shape: Annotated[
        Shape,
        typer.Option("--format", help="lines, raw: payloads as they are; jsonl: with seq, headers, time"),
    ] = Shape.LINES,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="at most N entries")] = None,
) -> None:
    """Print entries of a log."""
    session: Session = ctx.obj
    request = _Request(
        name=name, start=start, end=end, follow=follow, shape=shape, limit=limit
    )

    async def work(client: Client) -> None:
        await _copy(client, request, sys.stdout.buffer)

    session.with_client(work, reads=True)


async def _copy(client: Client, request: _Request, out: BinaryIO) -> None:
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
            entry.payload if any(name == NO_EOL for name, _ in entry.headers) else entry.payload + b"\n"
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
