"""A log whose every step a test decides: blocks shown one by one, segments rolled, sealed, trimmed.

Manifests change by the real transitions in a real catalog, sealed objects are real; only the open part
of a segment is a list in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from woodpecker.client.entry import Entry
from woodpecker.client.environment import Environment
from woodpecker.client.reader import BatchReader, EntryReader, read, read_batches
from woodpecker.codec import keys
from woodpecker.codec.block import Block, PackedBlock, pack
from woodpecker.codec.records import digest_of
from woodpecker.codec.sealed import IndexBuilder, encode_tail
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.commands import (
    BuryLog,
    CloseSegment,
    Command,
    CreateLog,
    DropSegments,
    OpenSegment,
    OpenWriter,
    Owner,
    SealSegment,
    SpillPage,
    TrimLog,
)
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Anchor, End, Manifest, Options, Sealed, Segment
from woodpecker.core.register import EMPTY_REGISTER, GrantProducer
from woodpecker.core.transitions import check
from woodpecker.errors import NotFound, Unavailable
from woodpecker.metadata.base import Record
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata
from woodpecker.observability.base import SILENT
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.base import SegmentRef
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore

LOG_ID = "0123456789abcdef" * 2
NAME = "orders"


class FastRuntime(SystemRuntime):
    """The real one, but a minute of waiting passes in a moment; it counts the tasks that run."""

    def __init__(self, speed: float = 1_000.0) -> None:
        super().__init__()
        self.speed = speed
        self.tasks: list[asyncio.Task[object]] = []

    def monotonic_ms(self) -> float:
        return super().monotonic_ms() * self.speed

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1000 / self.speed)

    def spawn(self, work, name):
        task = super().spawn(work, name)
        self.tasks.append(task)
        return task

    def running(self) -> list[str]:
        return [task.get_name() for task in self.tasks if not task.done()]


class OpenPart:
    """Blocks of one segment that are not in a sealed object, as far as they are visible."""

    def __init__(self) -> None:
        self.blocks: list[PackedBlock] = []
        self.moved = asyncio.Event()
        self.looks = 0
        self.is_gone = False
        self.is_away = False
        self.is_flaky = False  # every other look finds nothing
        self.skips_controls = False  # begins at the block that holds the seq, as a store may

    def wake(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


class OpenSource:
    """BlockSource over an ``OpenPart``."""

    def __init__(self, kit: LogKit, ref: SegmentRef) -> None:
        self._part = kit.parts.setdefault(ref.segment.id, OpenPart())
        self._ref = ref
        self._kit = kit
        kit.open_sources += 1

    def _check(self) -> None:
        if self._part.is_away:
            raise Unavailable("the blocks are away")
        self._part.looks += 1
        if self._part.is_gone or (self._part.is_flaky and self._part.looks % 2):
            raise NotFound("the blocks are gone")

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        self._check()
        base_seq, number = self._ref.segment.base_seq, 0
        while number < len(self._part.blocks):
            packed = self._part.blocks[number]
            header = packed.header
            number += 1
            is_empty_at_seq = header.base_seq == header.end_seq == seq
            if self._part.skips_controls and is_empty_at_seq and seq != base_seq:
                continue
            if header.end_seq > seq or header.base_seq >= seq:
                await asyncio.sleep(0)
                yield Block.parse(packed.buffer)
                self._check()

    async def visible_end(self) -> int:
        self._check()
        blocks = self._part.blocks
        return blocks[-1].header.end_seq if blocks else self._ref.segment.base_seq

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        self._kit.waits += 1
        moved = self._part.moved
        if await self.visible_end() > seq:
            return
        try:
            async with asyncio.timeout(timeout_ms / 1000 / self._kit.runtime.speed):
                await moved.wait()
        except TimeoutError:
            return

    async def seq_at(self, timestamp_us: int) -> int:
        async for block in self.blocks(0):
            if block.index_at(timestamp_us) < block.count:
                return block.header.base_seq + block.index_at(timestamp_us)
        return await self.visible_end()

    async def close(self) -> None:
        self._kit.open_sources -= 1


class OpenStore:
    kind = Kind.QUORUM

    def __init__(self, kit: LogKit) -> None:
        self._kit = kit

    def source(self, ref: SegmentRef) -> OpenSource:
        return OpenSource(self._kit, ref)


class KitPlaces:
    def __init__(self, kit: LogKit) -> None:
        self._kit = kit

    def objects(self, storage: str) -> MemoryObjectStore:
        return self._kit.stores.setdefault(storage, MemoryObjectStore(MemoryBucket(), name=storage))

    def segments(self, kind: Kind, storage: str) -> OpenStore:
        return OpenStore(self._kit)


class Metadata(MemoryMetadata):
    """Can be away, and counts what it is asked."""

    is_away = False
    gets = 0

    async def get(self, key: str) -> Record | None:
        self.gets += 1
        if self.is_away:
            raise Unavailable("metadata is away")
        return await super().get(key)


class LogKit:
    """The log, and hands on all of its levers."""

    def __init__(self, runtime: FastRuntime | None = None) -> None:
        self.runtime = runtime or FastRuntime()
        self.parts: dict[int, OpenPart] = {}
        self.stores: dict[str, MemoryObjectStore] = {}
        self.metadata = Metadata(self.runtime)
        self.catalog = Catalog(self.metadata, self.runtime)
        self.env = Environment(
            url="memory://kit",
            runtime=self.runtime,
            observer=SILENT,
            catalog=self.catalog,
            places=KitPlaces(self),  # type: ignore[arg-type]
        )
        self.owner = Owner(log_id=LOG_ID, epoch=0, token="")
        self.waits = 0
        self.open_sources = 0
        self.entries: list[bytes] = []  # all that were ever shown
        self.clock_us = 1_000

    @classmethod
    async def create(cls, runtime: FastRuntime | None = None) -> LogKit:
        kit = cls(runtime)
        await kit.change(
            CreateLog(name=NAME, log_id=LOG_ID, now_ms=0, options=Options(), attributes={})
        )
        await kit.take_over()
        return kit

    async def change(self, command: Command, *, tell: bool = True) -> Manifest:
        manifest = await self.catalog.change(NAME, command)
        broken = check(manifest)
        assert broken is None, broken
        if tell:
            self.env.hub.moved(LOG_ID)
        return manifest

    async def manifest(self) -> Manifest:
        found = (await self.catalog.load(NAME)).manifest
        assert found is not None
        return found

    # --- writing ---

    async def take_over(self) -> None:
        manifest = await self.manifest()
        token = f"{manifest.epoch + 1:032x}"
        await self.change(OpenWriter(log_id=LOG_ID, seen_epoch=manifest.epoch, token=token))
        self.owner = Owner(log_id=LOG_ID, epoch=manifest.epoch + 1, token=token)

    def _next(self, manifest: Manifest, end: End | None = None) -> Segment:
        return Segment(
            id=manifest.next_segment_id,
            kind=Kind.QUORUM,
            state=State.OPEN,
            epoch=self.owner.epoch,
            token=self.owner.token,
            base_seq=manifest.next_seq if end is None else end.seq,
            prev_digest=manifest.digest if end is None else end.digest,
            storage=manifest.storage,
        )

    async def open(self) -> int:
        manifest = await self.manifest()
        segment = self._next(manifest)
        await self.change(OpenSegment(owner=self.owner, segment=segment))
        self.parts.setdefault(segment.id, OpenPart())
        return segment.id

    async def show(
        self,
        payloads: Sequence[bytes | Entry],
        *,
        marks: Sequence[BatchMark] = (),
        timestamps: Sequence[int] | None = None,
    ) -> PackedBlock:
        """Append one block to the OPEN segment; readers may see it. No payloads: a control block."""
        segment = (await self.manifest()).open_segment
        assert segment is not None
        part = self.parts[segment.id]
        last = part.blocks[-1].header if part.blocks else None
        draft = Draft(last.end_seq if last else segment.base_seq)
        entries = [p if isinstance(p, Entry) else Entry(p) for p in payloads]
        draft.payloads.extend(entry.payload for entry in entries)
        draft.payload_bytes = sum(len(entry.payload) for entry in entries)
        if any(entry.headers for entry in entries):
            draft.headers = [entry.headers for entry in entries]
        if timestamps is not None:
            draft.timestamps = list(timestamps)
            self.clock_us = timestamps[-1]
        draft.batches.extend(marks)
        if not payloads:
            draft.controls.append(GrantProducer(id="p", epoch=len(part.blocks) + 1))
        block = pack(
            draft,
            log_id=LOG_ID,
            segment_id=segment.id,
            epoch=segment.epoch,
            number=len(part.blocks),
            prev_digest=last.digest if last else bytes.fromhex(segment.prev_digest),
            base_timestamp_us=self.clock_us,
            lac=-1,
        )
        part.blocks.append(block)
        self.entries.extend(entry.payload for entry in entries)
        part.wake()
        return block

    async def close(self, *, roll: bool = False, end_log: bool = False, upto: int = -1) -> Segment:
        """Close the OPEN segment at its last block (or ``upto``); ``roll`` opens the next as well."""
        manifest = await self.manifest()
        segment = manifest.open_segment
        assert segment is not None
        blocks = self.parts[segment.id].blocks[: upto if upto >= 0 else None]
        end = None
        if blocks:
            last = blocks[-1].header
            end = End(block=last.number, seq=last.end_seq, digest=last.digest.hex())
        following = None
        if roll:
            following = replace(self._next(manifest, end), id=segment.id + 1)
            self.parts.setdefault(following.id, OpenPart())
        await self.change(
            CloseSegment(
                owner=self.owner, segment_id=segment.id, end=end,
                bytes=sum(len(b.buffer) for b in blocks),
                first_timestamp_us=blocks[0].header.base_timestamp_us if blocks else 0,
                last_timestamp_us=blocks[-1].last_timestamp_us if blocks else 0,
                now_ms=0, register=EMPTY_REGISTER, ended=end_log, next=following,
            )
        )  # fmt: skip
        return segment

    async def seal(self, *, drop: bool = True) -> None:
        """Seal the oldest CLOSED segment; ``drop`` its blocks."""
        manifest = await self.manifest()
        segment = next(s for s in manifest.segments if s.state is State.CLOSED)
        assert segment.end is not None
        part = self.parts[segment.id]
        builder, data = IndexBuilder(), bytearray()
        for block in part.blocks[: segment.end.block + 1]:
            builder.add(block.header, len(data))
            data += block.buffer
        data += encode_tail(builder, EMPTY_REGISTER, last_timestamp_us=segment.last_timestamp_us)
        key = keys.sealed(LOG_ID, segment.id, segment.end.seq, segment.end.digest)
        await self.objects(manifest, segment).create(key, bytes(data))
        sealed = Sealed(key=key, size=len(data), checksum=digest_of(data))
        await self.change(
            SealSegment(log_id=LOG_ID, segment_id=segment.id, end=segment.end, sealed=sealed)
        )
        if drop:
            part.is_gone = True
            part.wake()

    def objects(self, manifest: Manifest, segment: Segment) -> MemoryObjectStore:
        store = self.env.objects_of(manifest, segment)
        assert isinstance(store, MemoryObjectStore)
        return store

    async def trim(self, before: int) -> None:
        await self.change(TrimLog(log_id=LOG_ID, before=before, visible=before))

    async def drop_trimmed(self) -> None:
        """Forget and delete all SEALED segments that lie wholly below the trim point."""
        manifest = await self.manifest()
        gone: list[Segment] = []
        kept_id = manifest.next_segment_id
        async for segment in self.env.segments(manifest):
            if (
                segment.sealed is None
                or segment.end is None
                or segment.end.seq > manifest.trim_point
            ):
                kept_id = segment.id
                break
            gone.append(segment)
        last = gone[-1].end
        assert last is not None
        anchor = Anchor(first_segment=kept_id, seq=last.seq, digest=last.digest)
        await self.change(DropSegments(log_id=LOG_ID, anchor=anchor))
        for segment in gone:
            assert segment.sealed is not None
            await self.objects(manifest, segment).delete([segment.sealed.key])

    async def spill(self, count: int) -> None:
        """Move the ``count`` oldest inline segments, all SEALED, into a page."""
        manifest = await self.manifest()
        history = self.env.history(manifest)
        page = await history.store_page(LOG_ID, 0, manifest.segments[:count])
        await self.change(SpillPage(log_id=LOG_ID, page=page))

    async def delete(self) -> None:
        manifest = await self.manifest()
        token = "f" * 32
        await self.change(
            OpenWriter(log_id=LOG_ID, seen_epoch=manifest.epoch, token=token, to_delete=True)
        )
        owner = Owner(log_id=LOG_ID, epoch=manifest.epoch + 1, token=token)
        await self.change(BuryLog(owner=owner, now_ms=0, forced=True))
        for part in self.parts.values():
            part.is_gone = True
            part.wake()

    # --- reading ---

    def read(self, start=0, end=None, *, follow: bool = False) -> EntryReader:
        return read(self.env, NAME, LOG_ID, start=start, end=end, follow=follow)

    def batches(self, start=0, end=None, *, follow: bool = False) -> BatchReader:
        return read_batches(self.env, NAME, LOG_ID, start=start, end=end, follow=follow)

    async def payloads(self, start=0, end=None) -> list[bytes]:
        return [entry.payload async for entry in self.read(start, end)]


class Follower:
    """Reads along in a task of its own."""

    def __init__(self, kit: LogKit, start=0, end=None) -> None:
        self.kit = kit
        self.seen: list[bytes] = []
        self.seqs: list[int] = []
        self._moved = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run(start, end))

    async def _run(self, start, end) -> None:
        try:
            async with self.kit.read(start, end, follow=True) as reader:
                async for entry in reader:
                    self.seen.append(entry.payload)
                    self.seqs.append(entry.seq)
                    self._moved.set()
        finally:
            self._moved.set()

    async def has(self, count: int) -> list[bytes]:
        """Wait until that many were seen."""
        async with asyncio.timeout(10):
            while len(self.seen) < count:
                self._moved.clear()
                if self.task.done():
                    await self.task
                    raise AssertionError(f"ended with {len(self.seen)} of {count}")
                await self._moved.wait()
        return self.seen

    async def idle(self) -> None:
        """Wait until it waits for more at the tail."""
        async with asyncio.timeout(10):
            waits = self.kit.waits
            while self.kit.waits == waits:
                await asyncio.sleep(0.001)

    async def ends(self) -> list[bytes]:
        async with asyncio.timeout(10):
            await self.task
        return self.seen

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
