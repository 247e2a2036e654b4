"""Reader of a segment of kind ``object`` while it is OPEN or CLOSED: only the contiguous prefix counts.

A mark, or a missing block, is never an answer by itself: reading stops there and the caller reads the
manifest. In the writer's own process the newest blocks come from memory (``object_tail.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from woodpecker.codec import endmark, keys
from woodpecker.codec.block import HEADER_BYTES, Block, BlockHeader, parse_header
from woodpecker.errors import Corrupt, NotFound
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.object_tail import ObjectTail
from woodpecker.segments.prefetch import Load, closing, in_order
from woodpecker.storage.base import ObjectStore

PREFETCH_BLOCKS = 8
PREFETCH_BYTES = 32 << 20
USUAL_BLOCK_BYTES = 4 << 20  # the cut size; a listing would tell the true one
FIRST_LOOK_MS, LAST_LOOK_MS = 20.0, 1_000.0


class ObjectSource:
    """BlockSource over numbered block objects."""

    def __init__(
        self,
        objects: ObjectStore,
        runtime: Runtime,
        ref: SegmentRef,
        find_tail: Callable[[], ObjectTail | None],
    ) -> None:
        self._objects = objects
        self._runtime = runtime
        self._ref = ref
        self._find_tail = find_tail
        self._last_tail: ObjectTail | None = None
        self._end = ref.segment.end
        self._next = 0  # where the last reading stopped: block number
        self._next_seq = ref.segment.base_seq
        self._seen = 0  # blocks that ``visible_end`` has counted already

    @property
    def _tail(self) -> ObjectTail | None:
        """The tail, while a writer of this process writes the segment."""
        if self._last_tail is None:  # perhaps our writer has opened the segment only just now
            self._last_tail = self._find_tail()
        tail = self._last_tail
        return tail if tail is not None and not tail.is_closed else None

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        """See the port."""
        first = await self._locate(seq)
        count = await self._count(first)
        loads = (
            Load(size_bytes=USUAL_BLOCK_BYTES, start=partial(self._fetch, number))
            for number in range(first, count)
        )
        fetched = in_order(
            self._runtime, loads, max_loads=PREFETCH_BLOCKS, max_bytes=PREFETCH_BYTES
        )
        async with closing(fetched):
            async for block in fetched:
                if block is None:
                    if self._end is not None:
                        raise NotFound(f"{self._where()}: a block of the closed segment is gone")
                    return
                self._next, self._next_seq = block.header.number + 1, block.header.end_seq
                yield block

    async def check_rest(self) -> None:
        """See the port: behind E stands a mark (or, after a salvage, whatever stopped the walk)."""
        if self._end is None:
            return
        key = self._key(self._end.block + 1)
        where = f"{self._objects.url}/{key}"
        try:
            data, info = await self._objects.get(key)
        except NotFound as error:
            raise Corrupt(
                f"{where}: the end mark is missing: a writer that wakes up could go on here",
                where=where,
            ) from error
        if endmark.is_mark_size(info.size):
            mark = endmark.parse(data, where=where)
            if (mark.log_id, mark.segment_id) != (self._ref.log_id, self._ref.segment.id):
                raise Corrupt(f"{where}: the end mark of another segment is here", where=where)

    async def visible_end(self) -> int:
        """See the port."""
        if self._end is not None:
            return self._end.seq
        tail = self._tail
        if tail is not None:
            return tail.end_seq
        count = self._seen = await self._count(max(self._next, self._seen))
        if count == 0:
            return self._ref.segment.base_seq
        header = await self._header(count - 1)
        return header.end_seq if header is not None else self._next_seq

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        """See the port. Without a writer in this process: looks at the next key, ever more rarely."""
        until = self._runtime.monotonic_ms() + timeout_ms
        pause = FIRST_LOOK_MS
        while self._runtime.monotonic_ms() < until:
            tail = self._tail
            if tail is not None:
                await self._wait_tail(tail, seq, until - self._runtime.monotonic_ms())
                return
            info = await self._objects.head(self._key(max(self._next, self._seen)))
            if info is not None and not endmark.is_mark_size(info.size):
                return  # behind a mark nothing comes: then it is for the manifest to move
            await self._runtime.sleep_ms(min(pause, until - self._runtime.monotonic_ms()))
            pause = min(pause * 1.5, LAST_LOOK_MS)

    async def _wait_tail(self, tail: ObjectTail, seq: int, timeout_ms: float) -> None:
        if tail.count and tail.end_seq > seq:
            return
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await tail.moved()
        except TimeoutError:
            return

    async def seq_at(self, timestamp_us: int) -> int:
        """See the port: by bisection over block headers, then inside the block."""
        low, high = 0, await self._count(0)
        while low < high:
            middle = (low + high) // 2
            block = await self._fetch(middle)
            if block is None:
                high = middle
            elif block.last_timestamp_us < timestamp_us:
                low = middle + 1
            else:
                high = middle
        block = await self._fetch(low)
        if block is None:
            return await self.visible_end()
        for index in range(block.count):
            if block.timestamp_of(index) >= timestamp_us:
                return block.header.base_seq + index
        return block.header.end_seq

    async def close(self) -> None:
        """Nothing is held open."""

    # --- finding blocks ---

    async def _locate(self, seq: int) -> int:
        """Number of the block holding ``seq``; of zero-entry blocks before it, the first after it."""
        if seq == self._next_seq:
            return self._next
        if seq <= self._ref.segment.base_seq:
            return 0
        low, high = 0, await self._count(0)  # the last block whose base_seq is <= seq
        while high - low > 1:
            middle = (low + high) // 2
            header = await self._header(middle)
            if header is None or header.base_seq > seq:
                high = middle
            else:
                low = middle
        return low

    async def _count(self, known: int) -> int:
        """Blocks of the contiguous prefix, of which [0, known) are known to exist."""
        if self._end is not None:
            return self._end.block + 1
        tail = self._tail
        if tail is not None:
            return tail.count
        prefix = keys.segment_prefix(self._ref.log_id, self._ref.segment.id)
        start_after = self._key(known - 1) if known else ""
        count = known
        async for page in self._objects.list(prefix, start_after=start_after):
            for info in page:
                is_next = keys.parse_block(info.key)[2] == count
                if not is_next or endmark.is_mark_size(info.size):
                    return count
                count += 1
        return count

    async def _header(self, number: int) -> BlockHeader | None:
        try:
            data, info = await self._objects.get(self._key(number), start=0, length=HEADER_BYTES)
        except NotFound:
            return None
        if endmark.is_mark_size(info.size):
            return None
        return parse_header(data, where=f"{self._objects.url}/{self._key(number)}")

    async def _fetch(self, number: int) -> Block | None:
        """The verified block, or None for a mark or a hole."""
        tail = self._tail
        recent = None if tail is None else tail.recent(number)
        where = f"{self._objects.url}/{self._key(number)}"
        if recent is not None:
            return Block.parse(recent, where=where)
        try:
            data, info = await self._objects.get(self._key(number))
        except NotFound:
            return None
        if endmark.is_mark_size(info.size):
            return None
        block = Block.parse(data, where=where)
        header, segment = block.header, self._ref.segment
        if (header.log_id, header.segment_id, header.epoch, header.number) != (
            self._ref.log_id,
            segment.id,
            segment.epoch,
            number,
        ):
            raise Corrupt(f"{where}: a block of another place lies here", where=where)
        return block

    def _key(self, number: int) -> str:
        return keys.block(self._ref.log_id, self._ref.segment.id, number)

    def _where(self) -> str:
        return f"{self._objects.url}: log {self._ref.log_id}, segment {self._ref.segment.id}"
