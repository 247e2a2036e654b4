"""Handing batches to a writer, several in flight, and counting what became durable."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from woodpecker.cli.cutting import Entries, make_cutter
from woodpecker.cli.feed import Feed
from woodpecker.cli.formats import Format
from woodpecker.cli.progress import Progress
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.core.register import KEPT_RESULTS
from woodpecker.errors import Conflict, WoodpeckerError
from woodpecker.runtime.runtime import SystemRuntime

IN_FLIGHT = 8
CHUNK_BYTES = 2 << 20
SESSION_CHUNK_BYTES = 1 << 20  # fixed: a producer's batches must be cut alike by every run


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be appended, and how."""

    name: str
    file: str
    form: Format
    entry_bytes: int
    producer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What an append did; seqs are None if nothing was written."""

    count: int
    first_seq: int | None
    last_seq: int | None
    next_seq: int
    skipped_batches: int


class Appender:
    """Appends batches in order. With a producer session each has a number, and is written once.

    A repeated run skips what its session has written already; the newest of those are sent again, so
    that an input that is not the same is noticed.
    """

    def __init__(self, writer: LogWriter, *, by_session: bool) -> None:
        self._writer = writer
        self._runtime = SystemRuntime()
        self._next_sequence = 0
        self._known = writer.next_sequence if by_session else None
        self._in_flight: deque[asyncio.Task[range]] = deque()
        self._first: int | None = None
        self._last: int | None = None
        self._count = 0
        self._skipped = 0

    async def put(self, entries: Entries) -> None:
        """Pass one batch on; waits for older ones. Raises: what makes one of them fail."""
        if not entries:
            return
        sequence = None
        if self._known is not None:
            sequence, self._next_sequence = self._next_sequence, self._next_sequence + 1
            if sequence < self._known:
                self._skipped += 1
                if sequence < self._known - KEPT_RESULTS:
                    return
        while len(self._in_flight) >= IN_FLIGHT:
            await self._settle_one()
        work = self._append(entries, sequence)
        self._in_flight.append(self._runtime.spawn(work, "append"))
        await asyncio.sleep(0)  # noqa: TID251  it takes its seqs before the next one does

    async def _append(self, entries: Entries, sequence: int | None) -> range:
        seqs = await self._writer.append_many(entries, sequence=sequence)
        if len(seqs) != len(entries):
            raise Conflict(
                f"batch {sequence} of this producer has {len(seqs)} entries in the log and "
                f"{len(entries)} here: this is not the same input; use another producer id"
            )
        return seqs

    async def _settle_one(self) -> None:
        # shielded: a Ctrl-C must not cut off a batch that is on its way
        seqs = await asyncio.shield(self._in_flight[0])
        self._in_flight.popleft()
        if seqs:
            self._first = seqs[0] if self._first is None else self._first
            self._last = seqs[-1]
            self._count += len(seqs)

    async def finish(self) -> Appended:
        """Wait for all. Raises: what makes one of them fail."""
        while self._in_flight:
            await self._settle_one()
        return self._report()

    async def settle(self) -> Appended:
        """Wait for all, whatever becomes of them, and tell what was written."""
        while self._in_flight:
            try:
                await self._settle_one()
            except WoodpeckerError:
                self._in_flight.popleft()
        return self._report()

    def _report(self) -> Appended:
        return Appended(
            count=self._count,
            first_seq=self._first,
            last_seq=self._last,
            next_seq=self._writer.next_seq,
            skipped_batches=self._skipped,
        )


async def append_input(log: Log, request: Request) -> Appended:
    """Append the whole input. Raises: what makes it fail, with what was written before in the text."""
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
    feed: Feed, request: Request, appender: Appender, progress: Progress
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
