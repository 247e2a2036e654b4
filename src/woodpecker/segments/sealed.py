"""Reader of a sealed segment: one immutable object in a bucket or directory (log protocol, section 8).

The end of the object is read first: footer and index, checked against the manifest. Blocks then come
in ranges of whole blocks, several at a time; each is verified, and its place in the chain checked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from functools import partial
from weakref import WeakKeyDictionary

from woodpecker.codec.block import Block, Buffer
from woodpecker.codec.sealed import INDEX_ROW_BYTES, Footer, SealedIndex, parse_footer, parse_index
from woodpecker.core.manifest import End, Sealed
from woodpecker.errors import Corrupt
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.prefetch import Load, closing, in_order
from woodpecker.storage.base import ObjectStore

TAIL_BYTES = 64 << 10  # read from the end at first: footer, register and a usual index
FIRST_RANGE_BYTES = 512 << 10  # ranges double up to the next, so that small reads stay small
RANGE_BYTES = 4 << 20
MAX_RANGES = 8
MAX_AHEAD_BYTES = 32 << 20
CACHED_INDEX_BYTES = 16 << 20  # per object store


class _IndexCache:
    """Indexes of sealed objects of one store, the least used forgotten first."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[str, SealedIndex] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> SealedIndex | None:
        index = self._indexes.get(key)
        if index is not None:
            self._indexes.move_to_end(key)
        return index

    def put(self, key: str, index: SealedIndex) -> None:
        self.drop(key)
        self._indexes[key] = index
        self._bytes += INDEX_ROW_BYTES * len(index)
        while self._bytes > CACHED_INDEX_BYTES and len(self._indexes) > 1:
            self.drop(next(iter(self._indexes)))

    def drop(self, key: str) -> None:
        index = self._indexes.pop(key, None)
        self._bytes -= INDEX_ROW_BYTES * len(index) if index is not None else 0


_CACHES: WeakKeyDictionary[ObjectStore, _IndexCache] = WeakKeyDictionary()


class SealedSource:
    """BlockSource over a sealed object.

    Args:
        ref: a SEALED segment, as the manifest names it.
    Concurrency: any number of tasks of one loop may read at once.
    """

    def __init__(self, objects: ObjectStore, runtime: Runtime, ref: SegmentRef) -> None:
        sealed, end = ref.segment.sealed, ref.segment.end
        assert sealed is not None and end is not None
        self._objects = objects
        self._runtime = runtime
        self._ref = ref
        self._sealed: Sealed = sealed
        self._end: End = end
        self._where = f"{objects.url}/{sealed.key}"
        self._cache = _CACHES.setdefault(objects, _IndexCache())

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        """See the port."""
        if seq > self._end.seq:
            return
        index = await self._index()
        previous: bytes | None = None
        loads = self._ranges(index, _first_block(index, seq))
        results = in_order(self._runtime, loads, max_loads=MAX_RANGES, max_bytes=MAX_AHEAD_BYTES)
        async with closing(results):
            async for blocks in results:
                for block in blocks:
                    self._check_link(block, previous)
                    previous = block.header.digest
                    yield block

    async def visible_end(self) -> int:
        """See the port."""
        return self._end.seq

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        """See the port; nothing is ever added to a sealed segment."""
        if seq >= self._end.seq:
            await self._runtime.sleep_ms(timeout_ms)

    async def seq_at(self, timestamp_us: int) -> int:
        """See the port."""
        index = await self._index()
        for position in range(index.find_time(timestamp_us), len(index)):
            block = (await self._fetch(index, position, position + 1))[0]
            found = block.index_at(timestamp_us)
            if found < block.count:
                return block.header.base_seq + found
        return self._end.seq

    async def check_rest(self) -> None:
        """``verify`` reads sealed objects whole, by itself."""

    async def close(self) -> None:
        """Nothing is held open."""

    # --- index ---

    async def _index(self) -> SealedIndex:
        index = self._cache.get(self._sealed.key)
        if index is None:
            index = await self._load_index()
            self._cache.put(self._sealed.key, index)
        return index

    async def _load_index(self) -> SealedIndex:
        size = self._sealed.size
        tail_start = max(0, size - TAIL_BYTES)
        tail = await self._get(tail_start, size - tail_start)
        footer = parse_footer(tail, object_bytes=size, where=self._where)
        self._check_footer(footer)
        start = footer.index_offset - tail_start
        if start < 0:
            data = await self._get(footer.index_offset, footer.index_bytes)
        else:
            data = memoryview(tail)[start : start + footer.index_bytes]
        return parse_index(data, footer, where=self._where)

    def _check_footer(self, footer: Footer) -> None:
        segment, end = self._ref.segment, self._end
        found = (
            footer.log_id, footer.segment_id, footer.epoch, footer.base_seq, footer.end_seq,
            footer.block_count, footer.prev_digest.hex(), footer.digest.hex(),
        )  # fmt: skip
        wanted = (
            self._ref.log_id, segment.id, segment.epoch, segment.base_seq, end.seq,
            end.block + 1, segment.prev_digest, end.digest,
        )  # fmt: skip
        if found != wanted:
            raise self._corrupt(f"it holds {found}, the manifest names {wanted}")

    # --- blocks ---

    def _ranges(self, index: SealedIndex, first: int) -> Iterator[Load[list[Block]]]:
        max_bytes = FIRST_RANGE_BYTES
        while first < len(index):
            end = index.run(first, max_bytes)
            size_bytes = index.span(first, end)[1]
            yield Load(size_bytes=size_bytes, start=partial(self._fetch, index, first, end))
            first = end
            max_bytes = min(2 * max_bytes, RANGE_BYTES)

    async def _fetch(self, index: SealedIndex, first: int, end: int) -> list[Block]:
        start, length = index.span(first, end)
        view = memoryview(await self._get(start, length))
        return [self._block(index, position, view, start) for position in range(first, end)]

    def _block(self, index: SealedIndex, position: int, view: memoryview, start: int) -> Block:
        offset, size = index.offsets[position], index.sizes[position]
        where = f"{self._where} block {position}"
        block = Block.parse(view[offset - start : offset - start + size], where=where)
        header, segment = block.header, self._ref.segment
        found = (header.log_id, header.segment_id, header.epoch)
        found_at = (header.number, header.base_seq, header.count)
        if found != (self._ref.log_id, segment.id, segment.epoch) or found_at != (
            index.numbers[position], index.base_seqs[position], index.counts[position],
        ):  # fmt: skip
            raise Corrupt(f"{where}: a block of another place lies here", where=where)
        return block

    def _check_link(self, block: Block, previous: bytes | None) -> None:
        """Whether the block follows the one read before it, and fits the segment's two ends."""
        header = block.header
        if header.number == 0:
            previous = bytes.fromhex(self._ref.segment.prev_digest)
        breaks = previous is not None and header.prev_digest != previous
        if header.number == self._end.block:
            breaks = breaks or header.digest.hex() != self._end.digest
        if breaks:
            raise self._corrupt(f"block {header.number} does not fit the chain")

    async def _get(self, start: int, length: int) -> Buffer:
        data, info = await self._objects.get(self._sealed.key, start=start, length=length)
        if info.size != self._sealed.size or len(data) != length:
            raise self._corrupt(
                f"{len(data)} bytes of {info.size} at {start}, not {length} of {self._sealed.size}"
            )
        return data

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"{self._where}: {what}", where=self._where)


def _first_block(index: SealedIndex, seq: int) -> int:
    """Position of the first block not wholly below ``seq``: zero-entry blocks at ``seq`` count."""
    position = bisect_left(index.base_seqs, seq)
    if position and index.base_seqs[position - 1] + index.counts[position - 1] > seq:
        return position - 1
    return position
