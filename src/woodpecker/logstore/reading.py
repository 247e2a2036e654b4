"""The reading side of a node: blocks from memory at once, from the disk by a task, later ones when they come.

Who waits for blocks is woken by what happens to the copy; nothing polls. Whoever waits hears at once of the
next block that may be shown, and of news that may concern a reader: a fence, an end, a floor, a copy that
appears. What may be shown is for ``core/replica.py`` to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from woodpecker.codec.block import Block
from woodpecker.codec.compression import Buffer
from woodpecker.codec.journal import RECORD_BYTES, UNIT_BYTES, padded
from woodpecker.codec.messages import Blocks, Find, Found, Read
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Identity, readable, refusal
from woodpecker.errors import Corrupt, InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.logstore.answers import by_error, by_verdict
from woodpecker.logstore.copies import Copies, Copy
from woodpecker.logstore.disk import JournalFile
from woodpecker.logstore.settings import NodeSettings
from woodpecker.logstore.tail_cache import TailCache
from woodpecker.observability.base import Observer
from woodpecker.observability.names import Event
from woodpecker.rpc.base import Responder
from woodpecker.runtime.runtime import Runtime

_GAP_BYTES = 16 << 10  # rather read so much in vain than read twice
_RUN_BYTES = 8 << 20  # read at once, but for one larger block
_MAX_BLOCKS = 1024  # of one answer
_CLOSE_S = 10.0
_TRIES = 3  # a block may be moved while it is being looked for

Key = tuple[str, int]


class Reading:
    """See the module. ``files``: journal files by number, kept up to date by the journal."""

    def __init__(
        self,
        copies: Copies,
        cache: TailCache,
        files: dict[int, JournalFile],
        identity: Identity,
        settings: NodeSettings,
        runtime: Runtime,
        observer: Observer,
    ) -> None:
        self.from_memory = 0  # blocks answered
        self.from_disk = 0
        self._copies = copies
        self._cache = cache
        self._files = files
        self._identity = identity
        self._settings = settings
        self._runtime = runtime
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._waits: dict[Key, dict[_Wait, None]] = {}
        self._slots = asyncio.Semaphore(settings.reads_at_once)
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def waiting(self) -> int:
        """Readers that wait for something to happen."""
        return sum(map(len, self._waits.values()))

    # --- requests ---

    def read(self, request: Read, responder: Responder) -> None:
        """Answer, now or when there is something to tell. Raises: InvalidRequest."""
        if request.first < NO_BLOCK:
            raise InvalidRequest(f"first={request.first}: there is no such block")
        key = request.target.log_id, request.target.segment_id
        if self._answer(self._copies.get(*key), request, responder):
            return
        wait_ms = min(request.wait_ms, self._settings.wait_max_ms)
        if wait_ms <= 0:
            self._answer_nothing(key, request, responder)
            return
        wait = _Wait(request, responder)
        self._waits.setdefault(key, {})[wait] = None
        wait.timer = self._loop.call_later(wait_ms / 1000, self._expired, key, wait)

    def find(self, request: Find, responder: Responder) -> None:
        """Answer, after some reads of the disk."""
        target = request.target
        copy = self._copies.get(target.log_id, target.segment_id)
        verdict = refusal(
            self._identity,
            self._copies.floor(target.log_id),
            None if copy is None else copy.replica,
            target,
        )
        if verdict is not None:
            responder.reply(by_verdict(self._identity.node, target, verdict))
        elif copy is None:
            responder.reply(Found(number=NO_BLOCK))
        else:
            self._spawn(self._find(copy, request, responder), responder)

    # --- what happens to copies ---

    def progressed(self, copy: Copy) -> None:
        """More of the copy may be shown."""
        if not self._waits:
            return
        key = copy.log.log_id, copy.segment_id
        waits = self._waits.get(key)
        if waits is None:
            return
        for wait in list(waits):
            if self._answer(copy, wait.request, wait.responder):
                self._drop(key, wait)

    def news(self, log_id: str, segment_id: int) -> None:
        """Something else happened that readers want to know at once."""
        key = log_id, segment_id
        for wait in self._waits.pop(key, {}):
            wait.stop()
            if not self._answer(self._copies.get(*key), wait.request, wait.responder):
                self._answer_nothing(key, wait.request, wait.responder)

    def floor_raised(self, log_id: str, floor: int) -> None:
        """The segments below it are gone."""
        for waiting_for, segment_id in list(self._waits):
            if waiting_for == log_id and segment_id < floor:
                self.news(log_id, segment_id)

    def stop(self, error: Unavailable) -> None:
        """Nobody waits any more: they are told why."""
        waits, self._waits = self._waits, {}
        for each in waits.values():
            for wait in each:
                wait.stop()
                wait.responder.reply(by_error(error))

    async def close(self, error: Unavailable) -> None:
        """Stop, and wait until nothing is read any more."""
        self.stop(error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- blocks, for others in the node ---

    async def load(self, copy: Copy, numbers: Sequence[int]) -> list[Buffer]:
        """Blocks of a copy, verified. Raises: Corrupt, Unavailable: the copy is gone. OSError."""
        for _ in range(_TRIES):
            try:
                return await self._load(copy, numbers)
            except _Moved:
                continue
        raise Unavailable(f"{copy.name}: its blocks were moved or dropped while they were read")

    # --- inner works ---

    def _answer(self, copy: Copy | None, request: Read, responder: Responder) -> bool:
        """Answer if there is anything to show, or to refuse."""
        target = request.target
        replica = None if copy is None else copy.replica
        verdict = refusal(self._identity, self._copies.floor(target.log_id), replica, target)
        if verdict is not None:
            responder.reply(by_verdict(self._identity.node, target, verdict))
            return True
        if copy is None:
            return False
        top = _top(copy, request)
        first = _first(copy, request)
        if first > top:
            return False
        self._show(copy, first, top, request, responder)
        return True

    def _show(self, copy: Copy, first: int, top: int, request: Read, responder: Responder) -> None:
        limit_bytes = min(request.max_bytes, self._settings.read_max_bytes)
        numbers: Sequence[int] = range(first, top + 1)
        if request.facts_only:
            numbers = list(copy.index.facts(first, top))
        if limit_bytes <= 0 or not numbers:
            responder.reply(_blocks(copy, first, top, ()))
            return
        parts = self._cached(copy, numbers, limit_bytes)
        if parts:
            self.from_memory += len(parts)
            responder.reply(_blocks(copy, numbers[0], top, parts), parts)
            return
        chosen = self._uncached(copy, numbers, limit_bytes)
        self._spawn(self._show_from_disk(copy, chosen, top, responder), responder)

    def _cached(self, copy: Copy, numbers: Sequence[int], limit_bytes: int) -> list[Buffer]:
        """The first of the blocks, as far as they are in memory."""
        parts: list[Buffer] = []
        size = 0
        for number in numbers[:_MAX_BLOCKS]:
            block = self._cache.get(copy, number)
            if block is None or (parts and size + len(block) > limit_bytes):
                break
            parts.append(block)
            size += len(block)
        return parts

    def _uncached(self, copy: Copy, numbers: Sequence[int], limit_bytes: int) -> list[int]:
        """The first of the blocks, up to one that is in memory."""
        chosen: list[int] = []
        size = 0
        for number in numbers[:_MAX_BLOCKS]:
            size += copy.index.size(number)
            if chosen and (size > limit_bytes or self._cache.get(copy, number) is not None):
                break
            chosen.append(number)
        return chosen

    async def _show_from_disk(
        self, copy: Copy, numbers: list[int], top: int, responder: Responder
    ) -> None:
        parts = await self.load(copy, numbers)
        self.from_disk += len(parts)
        responder.reply(_blocks(copy, numbers[0], top, parts), parts)

    async def _load(self, copy: Copy, numbers: Sequence[int]) -> list[Buffer]:
        parts: list[Buffer] = []
        while len(parts) < len(numbers):
            async with self._slots:  # only then looked for: blocks are moved while this waits
                run = _first_run(copy, numbers[len(parts) :])
                parts += await self._load_run(copy, run)
        return parts

    async def _load_run(self, copy: Copy, numbers: Sequence[int]) -> list[Buffer]:
        """Blocks that lie near one another in one file. Raises: _Moved: they do not any more."""
        index = copy.index
        if copy.is_dropped:
            raise _Moved
        number, start = index.place(numbers[0])
        start -= start % UNIT_BYTES
        ends = [index.place(n)[1] + RECORD_BYTES + index.size(n) for n in numbers]
        offsets = [index.place(n)[1] + RECORD_BYTES - start for n in numbers]
        sizes = [index.size(n) for n in numbers]
        file = self._files.get(number)
        if file is None:
            raise _Moved
        try:
            data = await file.read(start, padded(max(ends) - start))
        except OSError as error:
            if self._files.get(number) is not file:
                raise _Moved from error
            raise
        return [
            self._checked(copy, n, data[offset : offset + size])
            for n, offset, size in zip(numbers, offsets, sizes, strict=True)
        ]

    def _checked(self, copy: Copy, number: int, data: memoryview) -> memoryview:
        where = f"block {number} of {copy.name} on node {self._identity.node}"
        try:
            header = Block.parse(data, where=where).header
            if (header.log_id, header.segment_id, header.number) != (
                copy.log.log_id,
                copy.segment_id,
                number,
            ):
                raise Corrupt(f"{where}: there is another block in its place", where=where)
        except Corrupt as error:
            self._observer.event(Event.CORRUPT, log=copy.log.name, where=error.where)
            raise
        return data

    async def _find(self, copy: Copy, request: Find, responder: Responder) -> None:
        top = _top(copy, request)
        begun = copy.index.before_time(request.timestamp_us, top + 1)
        found = next((n for n in range(begun, top + 1) if _count(copy, n)), NO_BLOCK)
        before = next((n for n in range(begun - 1, -1, -1) if _count(copy, n)), NO_BLOCK)
        if before != NO_BLOCK:
            (data,) = await self.load(copy, [before])
            block = Block.parse(data)
            if block.index_at(request.timestamp_us) < block.count:
                found = before
        responder.reply(Found(number=found))

    def _answer_nothing(self, key: Key, request: Read, responder: Responder) -> None:
        copy = self._copies.get(*key)
        first = max(0, request.first)
        if copy is None:
            responder.reply(Blocks(first=first, sizes=(), last=NO_BLOCK, visible=None))
        else:
            top = _top(copy, request)
            responder.reply(_blocks(copy, first, top, ()))

    def _expired(self, key: Key, wait: _Wait) -> None:
        self._drop(key, wait)
        self._answer_nothing(key, wait.request, wait.responder)

    def _drop(self, key: Key, wait: _Wait) -> None:
        wait.stop()
        waits = self._waits[key]
        del waits[wait]
        if not waits:
            del self._waits[key]

    def _spawn(self, work: Coroutine[Any, Any, None], responder: Responder) -> None:
        task = self._runtime.spawn(_answered(work, responder), "read of a node")
        self._tasks[task] = None
        task.add_done_callback(partial(self._tasks.pop))


class _Wait:
    """A reader that waits."""

    __slots__ = ("request", "responder", "timer")

    def __init__(self, request: Read, responder: Responder) -> None:
        self.request = request
        self.responder = responder
        self.timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class _Moved(Exception):
    """A block is not where it was."""


async def _answered(work: Coroutine[Any, Any, None], responder: Responder) -> None:
    try:
        await work
    except asyncio.CancelledError:
        responder.reply(by_error(Unavailable("the node stops")))
        raise
    except (WoodpeckerError, OSError) as error:
        responder.reply(by_error(error))


def _top(copy: Copy, request: Read | Find) -> int:
    """Last block that may be shown."""
    return max(NO_BLOCK, readable(copy.replica, request.limit))


def _first(copy: Copy, request: Read) -> int:
    if request.first != NO_BLOCK:
        return request.first
    tip = copy.replica.queued
    return 0 if tip is None else copy.index.at_seq(request.seq, tip.end_seq)


def _count(copy: Copy, number: int) -> int:
    """Entries of a block."""
    return _end_seq(copy, number) - copy.index.base_seq(number)


def _end_seq(copy: Copy, number: int) -> int:
    tip = copy.replica.queued
    assert tip is not None
    return tip.end_seq if number == tip.number else copy.index.base_seq(number + 1)


def _blocks(copy: Copy, first: int, top: int, parts: Sequence[Buffer]) -> Blocks:
    return Blocks(
        first=first,
        sizes=tuple(map(len, parts)),
        last=top,
        visible=None if top == NO_BLOCK else _end_seq(copy, top),
        is_fenced=copy.replica.fence is not None,
    )


def _first_run(copy: Copy, numbers: Sequence[int]) -> list[int]:
    """The first of the blocks, as far as they are read together: of one file, near one another."""
    run: list[int] = []
    file, start, end = 0, 0, 0
    for number in numbers:
        place = copy.index.place(number)
        after = place[1] + RECORD_BYTES + copy.index.size(number)
        if not run:
            file, start = place
        elif not (
            file == place[0] and end <= place[1] <= end + _GAP_BYTES and after - start <= _RUN_BYTES
        ):
            break
        run.append(number)
        end = after
    return run
