"""Reading a pchannel's log for consumers that are behind: in runs of some MiB, each fetched once.

Consumers on the same way share what was read: a run is fetched by one reader whoever asks, and kept as long
as the node's budget lasts. Nobody waits for a slower sharer: a run does not know who reads it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from woodpecker import Log
from woodpecker.client.reader import BatchReader
from woodpecker.errors import Corrupt, Unavailable
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.node.pieces import Piece, pieces_of
from woodpecker.streaming.node.tail import TailBudget

RUN_BYTES = 2 << 20
CACHE_BYTES = 32 << 20  # kept of one log, of the node's budget
OPEN_READERS = 8
FETCHES = 8  # at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All log batches that hold a seq from ``first`` up to ``end``; the first one may begin before."""

    first: int
    end: int
    pieces: Sequence[Piece]
    size_bytes: int

    def holding(self, seq: int) -> Piece:
        """The batch that holds ``seq``. Raises: Corrupt: somebody else wrote into this log."""
        at = bisect_right(self.pieces, seq, key=lambda piece: piece.facts.seq) - 1
        if at < 0 or seq >= self.pieces[at].facts.end:
            where = f"seq {seq}"
            raise Corrupt(f"{where} belongs to no batch of the streaming service", where=where)
        return self.pieces[at]

    def since(self, seq: int) -> Sequence[Piece]:
        """Those that begin at ``seq`` or above."""
        at = bisect_left(self.pieces, seq, key=lambda piece: piece.facts.seq)
        return self.pieces[at:] if at else self.pieces


class Runs:
    """Runs of one log, shared by all consumers of one owner's life. Close it."""

    def __init__(self, log: Log, runtime: Runtime, budget: TailBudget) -> None:
        self.size_bytes = 0  # of those kept
        self._log = log
        self._runtime = runtime
        self._budget = budget
        self._number = budget.join(self)
        self._kept: OrderedDict[int, Run] = OrderedDict()  # by first seq, least recently used first
        self._fetching: dict[int, asyncio.Task[Run]] = {}
        self._readers: OrderedDict[int, BatchReader] = OrderedDict()  # by the seq they read next
        self._turns = asyncio.Semaphore(FETCHES)
        self._is_closed = False

    async def at(self, seq: int, visible: int) -> Run:
        """A run that begins at ``seq``, or holds it; ``visible``: all below can be read, and ``seq`` is.

        Raises: OutOfRange: trimmed. NotFound, Corrupt, Unavailable, InvalidRequest (a newer format).
        Cancellation: the fetch goes on for others.
        """
        if self._is_closed:
            raise Unavailable(f"log {self._log.name!r} is not read here any more")
        assert seq < visible
        kept = self._find(seq)
        if kept is not None:
            return kept
        task = self._fetching.get(seq)
        if task is None:
            task = self._runtime.spawn(self._fetch(seq, visible), f"fetch {self._log.name} {seq}")
            self._fetching[seq] = task
            task.add_done_callback(lambda done: self._fetched(seq, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop fetching and let go."""
        self._is_closed = True
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._kept.clear()
        self._let_go(self.size_bytes, is_evicted=False)
        self._budget.closed(self._number)
        while self._readers:
            await self._readers.popitem()[1].aclose()

    def evict(self, excess_bytes: int) -> int:
        """Let go of those that nobody asked for longest; they can be read again. Returns: bytes freed."""
        freed = 0
        while self._kept and freed < excess_bytes:
            freed += self._kept.popitem(last=False)[1].size_bytes
        self._let_go(freed, is_evicted=True)
        return freed

    def _let_go(self, size_bytes: int, *, is_evicted: bool) -> None:
        self.size_bytes -= size_bytes
        self._budget.freed(size_bytes, is_evicted=is_evicted)

    def _find(self, seq: int) -> Run | None:
        run = self._kept.get(seq)
        if run is None:
            # few are kept: a look at each costs less than to keep them sorted
            run = next((run for run in self._kept.values() if run.first < seq < run.end), None)
        if run is not None:
            self._kept.move_to_end(run.first)
        return run

    def _fetched(self, seq: int, task: asyncio.Task[Run]) -> None:
        del self._fetching[seq]
        if task.cancelled() or task.exception() is not None or self._is_closed:
            return
        run = task.result()
        if not run.pieces or run.pieces[0].facts.seq != run.first or run.first in self._kept:
            return  # begins inside a batch: of no use to others
        self._kept[run.first] = run
        self.size_bytes += run.size_bytes
        self._budget.grew(run.size_bytes)
        if self.size_bytes > CACHE_BYTES:
            self.evict(self.size_bytes - CACHE_BYTES)

    async def _fetch(self, seq: int, visible: int) -> Run:
        """After a take-over all consumers read the end of the log: who waits mostly finds it read by another."""
        async with self._turns:
            return self._find(seq) or await self._read(seq, visible)

    async def _read(self, seq: int, visible: int) -> Run:
        reader = self._readers.pop(seq, None) or self._log.read_batches(seq, follow=True)
        pieces: list[Piece] = []
        end, size = seq, 0
        try:
            while end < visible and size < RUN_BYTES:
                batch = await anext(reader)
                pieces.extend(pieces_of(batch, self._log.name))
                end = batch.end_seq
                size += batch.payload_bytes + 64 * len(batch)
        except BaseException:
            await reader.aclose()
            raise
        await self._put_back(end, reader)
        return Run(first=seq, end=end, pieces=pieces, size_bytes=size)

    async def _put_back(self, end: int, reader: BatchReader) -> None:
        if self._is_closed or end in self._readers:
            await reader.aclose()
            return
        self._readers[end] = reader
        if len(self._readers) > OPEN_READERS:
            await self._readers.popitem(last=False)[1].aclose()
