"""``woodpecker append``: bytes of a file or of stdin become entries."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import typer

from woodpecker.cli.appending import Appended, Appender
from woodpecker.cli.cutting import Format, make_cutter
from woodpecker.cli.feed import Feed
from woodpecker.cli.logs import Name
from woodpecker.cli.output import print_json
from woodpecker.cli.progress import Progress
from woodpecker.cli.session import Session
from woodpecker.client.log import Log
from woodpecker.errors import WoodpeckerError

CHUNK_BYTES = 2 << 20
SESSION_CHUNK_BYTES = 1 << 20  # fixed: a producer's batches must be cut alike by every run


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command("append")(append)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    name: str
    file: str
    form: Format
    entry_bytes: int
    producer: str | None


def append(
    ctx: typer.Context,
    name: Name,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="default: stdin")] = "-",
    form: Annotated[
        Format,
        typer.Option("--format", help="lines: an entry per line; jsonl: as `read` prints it; raw: pieces"),
    ] = Format.LINES,
    entry_bytes: Annotated[
        int, typer.Option(min=1, max=64 << 20, metavar="N", help="size of an entry with --format raw")
    ] = 1 << 20,
    producer: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="exactly once: an id for this input; the same command again goes on where it stopped",
        ),
    ] = None,
) -> None:
    """Append FILE or stdin to a log; takes the log over. Prints the first and last seq."""
    session: Session = ctx.obj
    request = _Request(
        name=name, file=file, form=form, entry_bytes=entry_bytes, producer=producer
    )

    async def work(log: Log) -> Appended:
        return await _append(log, request)

    done = session.with_log(name, work, background=True)
    if session.is_json:
        print_json(done)
    elif done.count:
        print(f"{done.count} entries appended to {name}: seq {done.first_seq} .. {done.last_seq}")
    else:
        print(f"nothing to append to {name}; its next seq is {done.next_seq}")
    if done.skipped_batches and not session.is_json:
        print(f"{done.skipped_batches} batches were there already", file=sys.stderr)


async def _append(log: Log, request: _Request) -> Appended:
    chunk_bytes = CHUNK_BYTES if request.producer is None else SESSION_CHUNK_BYTES
    feed = Feed(request.file, chunk_bytes, exact=request.producer is not None)
    try:
        async with await log.open_writer(producer=request.producer) as writer:
            appender = Appender(writer, by_session=request.producer is not None)
            with Progress(feed.size_bytes, sys.stderr) as progress:
                return await _pass_on(feed, request, appender, progress)
    finally:
        feed.close()


async def _pass_on(
    feed: Feed, request: _Request, appender: Appender, progress: Progress
) -> Appended:
    cutter = make_cutter(request.form, request.entry_bytes)
    try:
        async for chunk in _chunks(feed):
            await appender.put(cutter.cut(chunk))
            progress.advance(len(chunk))
        await appender.put(cutter.rest())
        return await appender.finish()
    except WoodpeckerError as error:
        error.args = (f"{error} ({_so_far(await appender.settle())})",)
        raise
    except asyncio.CancelledError:
        print(f"woodpecker: stopped; {_so_far(await appender.settle())}", file=sys.stderr)
        raise


async def _chunks(feed: Feed) -> AsyncIterator[bytes]:
    while chunk := await feed.read():
        yield chunk


def _so_far(done: Appended) -> str:
    if not done.count:
        return "nothing was appended"
    return f"appended so far: {done.count} entries, seq {done.first_seq} .. {done.last_seq}"
