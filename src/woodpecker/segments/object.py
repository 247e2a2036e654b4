"""Kind ``object`` (memory-buffer mode): blocks are numbered objects in a bucket (protocol, section 5).

The rules are in ``core/object_append.py`` (a writer's pipeline) and ``core/fence_walk.py`` (ending
somebody else's segment); this driver only carries out their effects against an object store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from woodpecker.codec import endmark, keys
from woodpecker.codec.block import HEADER_BYTES, Block, BlockHeader, parse_header
from woodpecker.core import fence_walk
from woodpecker.core.backoff import delay_ms
from woodpecker.core.fence_walk import Seen
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import End, FilePlace, Segment
from woodpecker.core.register import BlockFacts
from woodpecker.errors import (
    AlreadyExists,
    Corrupt,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import (
    ReadManifest,
    Recovered,
    SegmentRef,
)
from woodpecker.segments.object_reader import ObjectSource
from woodpecker.segments.object_tail import Tails
from woodpecker.segments.object_writer import ObjectSegmentWriter
from woodpecker.segments.prefetch import Load, closing, in_order
from woodpecker.storage.base import ObjectStore

READS_AT_ONCE = 32
NOTHING = Recovered(end=None, bytes=0, first_timestamp_us=0, last_timestamp_us=0, facts=())
MARK_TRIES = 20


class ObjectSegments:
    """Segments of kind ``object`` under one root of one object store."""

    kind = Kind.OBJECT

    def __init__(self, objects: ObjectStore, runtime: Runtime) -> None:
        self._objects = objects
        self._runtime = runtime
        self._tails = Tails()
        self._probed = False

    async def prepare(
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[FilePlace | None, ObjectSegmentWriter]:
        """Nothing needs to exist before the first block; the store is probed once.

        Raises: InvalidRequest: the store ignores create-if-absent, so that it cannot fence.
        """
        await self._probe()
        writer = ObjectSegmentWriter(
            self._objects,
            self._runtime,
            log_id=log_id,
            segment=segment,
            tails=self._tails,
            read_manifest=read_manifest,
            timeout_ms=timeout_ms,
        )
        return None, writer

    async def _probe(self) -> None:
        if self._probed:
            return
        fault = await self._objects.probe("create_if_absent")
        if fault is not None:
            raise InvalidRequest(
                f"{self._objects.url} cannot hold a log: {fault}. Use a store that honours "
                "conditional writes, or buffer= with kind 'file'"
            )
        self._probed = True

    async def recover(self, ref: SegmentRef, *, token: str) -> Recovered:
        """Walk to the end of the segment and mark it (see ``core/fence_walk.py``)."""
        walker = _Walker(self._objects, self._runtime, ref, token)
        count = await walker.run()
        if count == 0:
            return NOTHING
        return await self._describe(ref, count)

    async def salvage(self, ref: SegmentRef, *, token: str) -> Recovered:
        """Blocks from the beginning up to the first that fails its checks; a mark stops the writer."""
        try:
            count = await _Walker(self._objects, self._runtime, ref, token).run()
        except (
            Corrupt
        ):  # a strange object stands where the mark should be: it stops a writer as well
            count = 1 << 40
        source, blocks = self.source(ref), 0
        try:
            async for _ in source.blocks(ref.segment.base_seq):
                blocks += 1
        except (Corrupt, NotFound):
            pass
        blocks = min(blocks, count)
        return await self._describe(ref, blocks) if blocks else NOTHING

    async def _describe(self, ref: SegmentRef, count: int) -> Recovered:
        last = await self._read_block(ref, count - 1)
        first = last.header if count == 1 else await self._read_header(ref, 0)
        facts: Sequence[BlockFacts] = ()
        if last.header.facts_before:
            facts = await self._facts(ref, count - 1)
        if last.header.has_facts:
            facts = (*facts, last.facts())
        return Recovered(
            end=End(block=count - 1, seq=last.header.end_seq, digest=last.header.digest.hex()),
            bytes=await self._total_bytes(ref, count),
            first_timestamp_us=first.base_timestamp_us,
            last_timestamp_us=last.last_timestamp_us,
            facts=facts,
        )

    async def _facts(self, ref: SegmentRef, count: int) -> list[BlockFacts]:
        """Register facts of blocks [0, count), in order; only headers of blocks without any are read."""

        async def one(number: int) -> BlockFacts | None:
            if not (await self._read_header(ref, number)).has_facts:
                return None
            return (await self._read_block(ref, number)).facts()

        loads = (Load(size_bytes=0, start=partial(one, number)) for number in range(count))
        reads = in_order(self._runtime, loads, max_loads=READS_AT_ONCE, max_bytes=0)
        async with closing(reads):
            return [facts async for facts in reads if facts is not None]

    async def _read_header(self, ref: SegmentRef, number: int) -> BlockHeader:
        key = keys.block(ref.log_id, ref.segment.id, number)
        data, _ = await self._objects.get(key, start=0, length=HEADER_BYTES)
        where = f"{self._objects.url}/{key}"
        return _checked(parse_header(data, where=where), ref, number, where)

    async def _read_block(self, ref: SegmentRef, number: int) -> Block:
        key = keys.block(ref.log_id, ref.segment.id, number)
        data, _ = await self._objects.get(key)
        block = Block.parse(data, where=f"{self._objects.url}/{key}")
        _checked(block.header, ref, number, block.where)
        return block

    async def _total_bytes(self, ref: SegmentRef, count: int) -> int:
        total = 0
        async for page in self._objects.list(keys.segment_prefix(ref.log_id, ref.segment.id)):
            for info in page:
                number = keys.parse_block(info.key)[2]
                total += info.size if number < count else 0
        return total

    def source(self, ref: SegmentRef) -> ObjectSource:
        """Reader of the blocks, OPEN or CLOSED."""
        return ObjectSource(
            self._objects, self._runtime, ref, lambda: self._tails.find(ref.log_id, ref.segment.id)
        )

    async def seal_in_place(
        self, ref: SegmentRef, tail: bytes, at: int, objects: ObjectStore, key: str
    ) -> bool:
        """Never possible: blocks are objects of their own."""
        return False

    async def hand_over(self, ref: SegmentRef) -> bool:
        """False: every client is as close to the bucket as any other."""
        return False

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        """Delete block objects; end marks, told by their size, only without ``keep_fence``."""
        prefix = keys.segment_prefix(ref.log_id, ref.segment.id)
        async for page in self._objects.list(prefix):
            doomed = [
                info.key for info in page if not (keep_fence and endmark.is_mark_size(info.size))
            ]
            if doomed:
                await self._objects.delete(doomed)

    async def held(self, log_id: str) -> Sequence[tuple[int, str]]:
        """None: blocks are found by listing the object store."""
        return ()

    async def close(self) -> None:
        """Nothing is held besides the object store, which its opener closes."""


class _Walker:
    """Carries out one fence walk."""

    def __init__(self, objects: ObjectStore, runtime: Runtime, ref: SegmentRef, token: str) -> None:
        self._objects = objects
        self._runtime = runtime
        self._ref = ref
        self._mark = endmark.encode(
            log_id=ref.log_id, segment_id=ref.segment.id, epoch=ref.segment.epoch, token=token
        )
        self._attempts = 0

    async def run(self) -> int:
        """Number of blocks of the segment; a mark stands at that number."""
        walk, effect = fence_walk.step(fence_walk.Walk(), await self._list())
        while not isinstance(effect, fence_walk.Ended):
            event = await (
                self._put_mark(effect.number)
                if isinstance(effect, fence_walk.Mark)
                else self._look(effect.number)
            )
            walk, effect = fence_walk.step(walk, event)
        return effect.count

    async def _list(self) -> fence_walk.Listed:
        blocks: set[int] = set()
        marks: set[int] = set()
        prefix = keys.segment_prefix(self._ref.log_id, self._ref.segment.id)
        async for page in self._objects.list(prefix):
            for info in page:
                number = keys.parse_block(info.key)[2]
                (marks if endmark.is_mark_size(info.size) else blocks).add(number)
        return fence_walk.Listed(blocks=frozenset(blocks), marks=frozenset(marks))

    async def _put_mark(self, number: int) -> fence_walk.Event:
        try:
            await self._objects.create(self._key(number), self._mark)
        except AlreadyExists:
            return await self._look(number)
        except (OutcomeUnknown, Unavailable):
            self._attempts += 1
            if self._attempts > MARK_TRIES:
                raise Unavailable(
                    f"{self._objects.url}: no definite answer to {MARK_TRIES} tries to fence segment "
                    f"{self._ref.segment.id}; opening the writer can be tried again at any time"
                ) from None
            await self._runtime.sleep_ms(delay_ms(self._attempts, self._runtime.random()))
            return await self._look(number)
        return fence_walk.Created()

    async def _look(self, number: int) -> fence_walk.Looked:
        """What is at ``number``; the first bytes tell, not the size."""
        key = self._key(number)
        try:
            data, info = await self._objects.get(key, start=0, length=HEADER_BYTES)
        except NotFound:
            return fence_walk.Looked(seen=Seen.NOTHING)
        where = f"{self._objects.url}/{key}"
        if endmark.is_mark_size(info.size):
            endmark.parse(data, where=where)
            return fence_walk.Looked(seen=Seen.MARK)
        _checked(parse_header(data, where=where), self._ref, number, where)
        return fence_walk.Looked(seen=Seen.BLOCK)

    def _key(self, number: int) -> str:
        return keys.block(self._ref.log_id, self._ref.segment.id, number)


def _checked(header: BlockHeader, ref: SegmentRef, number: int, where: str) -> BlockHeader:
    """Raises: Corrupt: this block belongs elsewhere."""
    found = (header.log_id, header.segment_id, header.epoch, header.number)
    if found != (ref.log_id, ref.segment.id, ref.segment.epoch, number):
        raise Corrupt(f"{where}: a block of another place lies here", where=where)
    return header
