"""What ``log.read`` and ``log.read_batches`` return: async iterators over a walk through the log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from woodpecker.client.batch import Batch
from woodpecker.client.entry import Entry
from woodpecker.client.environment import Environment
from woodpecker.client.reader_start import seq_at, tail
from woodpecker.client.reader_walk import Walk
from woodpecker.core.reading import parse_end, parse_start
from woodpecker.errors import Closed, InvalidRequest

__all__ = ["BatchReader", "End", "EntryReader", "Start", "read", "read_batches", "seq_at", "tail"]


class HasPosition(Protocol):
    """A cursor: the next seq to read."""

    @property
    def position(self) -> int:
        """All below it are done."""


Start = int | str | datetime | HasPosition
End = int | str | datetime


def read_batches(
    env: Environment,
    name: str,
    log_id: str,
    *,
    start: Start = "earliest",
    end: End | None = None,
    follow: bool = False,
) -> BatchReader:
    """Batches from ``start`` to ``end``; nothing is read before the first is asked for.

    Args:
        start: seq | -n (n before the tail) | "earliest" | "latest" | datetime with a timezone (first
            entry at or after it) | cursor.
        end: exclusive: seq | datetime | "tail". Without ``follow`` never beyond the tail as it is when
            reading begins, which is the default.
        follow: wait for what is not written yet; ends when the log does, or at ``end``.
    Raises: InvalidRequest: ``start`` or ``end`` is none of these.
    """
    return BatchReader(env, name, log_id, start=start, end=end, follow=follow)


def read(
    env: Environment,
    name: str,
    log_id: str,
    *,
    start: Start = "earliest",
    end: End | None = None,
    follow: bool = False,
) -> EntryReader:
    """As ``read_batches``, entry by entry."""
    return EntryReader(BatchReader(env, name, log_id, start=start, end=end, follow=follow))


class BatchReader:
    """Async iterator of the batches of a log; what ``log.read_batches`` returns.

    Leaving the loop releases everything; ``aclose`` (or ``async with``) does it at once.
    Raises, while iterating:
        OutOfRange: the start, or what comes next, was trimmed (``earliest``) or is not written (``tail``).
        NotFound: the log was deleted. Corrupt: stored bytes fail their checks, with the place.
        Unavailable: stores were away for a minute; with ``follow`` it keeps trying.
    Cancellation: at any point; go on by a new reader from ``batch.end_seq``.
    Concurrency: one task at a time.
    """

    def __init__(
        self,
        env: Environment,
        name: str,
        log_id: str,
        *,
        start: Start,
        end: End | None,
        follow: bool,
    ) -> None:
        walk = Walk(env, name, log_id, parse_start(start), parse_end(end), follow=follow)
        # the generator does not know this object: dropping the reader ends it at once
        self._batches = walk.batches()
        self._is_busy = False
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._is_busy:
            raise InvalidRequest(
                "another task is waiting in this reader: give each task a reader of its own"
            )
        if self._is_closed:
            raise Closed("this reader is closed: open a new one")
        self._is_busy = True
        try:
            return await anext(self._batches)
        finally:
            self._is_busy = False

    async def aclose(self) -> None:
        """Stop reading and release everything. Raises: InvalidRequest: a task is waiting in it."""
        if self._is_busy:
            raise InvalidRequest("another task is waiting in this reader: cancel that task first")
        self._is_closed = True
        await self._batches.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class EntryReader:
    """Async iterator of the entries of a log; what ``log.read`` returns. Else as ``BatchReader``."""

    def __init__(self, batches: BatchReader) -> None:
        self._batches = batches
        self._entries: Iterator[Entry] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry:
        entry = next(self._entries, None)
        if entry is not None:
            return entry
        self._entries = iter(await anext(self._batches))
        return next(self._entries)  # a batch is never empty

    async def aclose(self) -> None:
        """Stop reading and release everything. Raises: InvalidRequest: a task is waiting in it."""
        self._entries = iter(())
        await self._batches.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
