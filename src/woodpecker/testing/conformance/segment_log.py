"""A log played by the suite of segment stores: its manifest is a variable, its drivers are the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from woodpecker.codec.block import Block, PackedBlock, pack
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.ids import ZERO_DIGEST, State
from woodpecker.core.manifest import End, Manifest, Place, Segment, placed
from woodpecker.core.register import EndLog, GrantProducer
from woodpecker.errors import Fenced, OutcomeUnknown
from woodpecker.segments.base import SegmentRef, SegmentStore, SegmentWriter

TIMEOUT_MS = 20_000
TAKER = "f" * 32
FIRST_US = 1_700_000_000_000_000


@dataclass
class FakeLog:
    """A log whose manifest is a variable: opens and closes segments without any CAS."""

    log_id: str = "0123456789abcdef" * 2
    epoch: int = 1
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = Manifest(name="orders", log_id=self.log_id, created_at_ms=0)

    async def read_manifest(self) -> Manifest:
        return self.manifest

    async def open(
        self, store: SegmentStore, *, timeout_ms: int = TIMEOUT_MS, base: End | None = None
    ) -> OpenSegment:
        """Prepare and open the next segment, as the log's only writer."""
        segment, place, writer = await self.prepare(store, timeout_ms=timeout_ms)
        return self.open_prepared(placed(segment, place), writer, base=base)

    async def prepare(
        self, store: SegmentStore, *, timeout_ms: int = TIMEOUT_MS
    ) -> tuple[Segment, Place | None, SegmentWriter]:
        """Make the next segment ready; where it begins is not known yet."""
        segment = Segment(
            id=self.manifest.next_segment_id,
            kind=store.kind,
            state=State.OPEN,
            epoch=self.epoch,
            token=f"{self.epoch:032x}",
            base_seq=0,
            prev_digest=ZERO_DIGEST,
        )
        place, writer = await store.prepare(
            self.log_id, segment, read_manifest=self.read_manifest, timeout_ms=timeout_ms
        )
        return segment, place, writer

    def open_prepared(
        self, segment: Segment, writer: SegmentWriter, *, base: End | None = None
    ) -> OpenSegment:
        """The CAS that opens it, behind the end of the segment before (or ``base``)."""
        last = self.manifest.segments[-1].end if self.manifest.segments else base
        if last is not None:
            segment = replace(segment, base_seq=last.seq, prev_digest=last.digest)
        self.put(segment)
        writer.begin(segment)
        return OpenSegment(log=self, writer=writer, segment_id=segment.id)

    def take_over(self) -> None:
        """Step 1 of a take-over, before anything is fenced: the CAS that raises the epoch."""
        self.epoch += 1
        token = f"{self.epoch:032x}"
        self.manifest = replace(self.manifest, epoch=self.epoch, token=token)

    def put(self, segment: Segment) -> None:
        """Add or replace a segment in the manifest."""
        others = [other for other in self.manifest.segments if other.id != segment.id]
        self.manifest = replace(
            self.manifest,
            epoch=self.epoch,
            token=f"{self.epoch:032x}",
            next_segment_id=max(self.manifest.next_segment_id, segment.id + 1),
            segments=(*others, segment),
        )

    def ref(self, segment_id: int = -1) -> SegmentRef:
        """The segment as the manifest shows it now; the last one by default."""
        found = [s for s in self.manifest.segments if segment_id in (-1, s.id)]
        return SegmentRef(log_id=self.log_id, segment=found[-1], name=self.manifest.name)

    def close(self, end: End, segment_id: int = -1) -> SegmentRef:
        """The closing CAS."""
        segment = self.ref(segment_id).segment
        self.put(replace(segment, state=State.CLOSED, end=end))
        return self.ref(segment.id)


@dataclass
class OpenSegment:
    """One segment being written: packs blocks as the writer's driver does."""

    log: FakeLog
    writer: SegmentWriter
    segment_id: int
    blocks: list[PackedBlock] = field(default_factory=list)
    acknowledged_seq: int = -1  # after the last acknowledged entry; -1 if none
    has_facts: bool = False

    @property
    def segment(self) -> Segment:
        return self.log.ref(self.segment_id).segment

    @property
    def end(self) -> End:
        last = self.blocks[-1].header
        return End(block=last.number, seq=last.end_seq, digest=last.digest.hex())

    def pack(
        self,
        payloads: Sequence[bytes] = (),
        *,
        control: EndLog | GrantProducer | None = None,
        producer: str = "",
        timestamps: list[int] | None = None,
    ) -> PackedBlock:
        """The next block; it must be submitted next."""
        segment = self.segment
        last = self.blocks[-1].header if self.blocks else None
        draft = Draft(last.end_seq if last else segment.base_seq)
        draft.payloads = list(payloads)
        draft.payload_bytes = sum(map(len, payloads))
        draft.timestamps = timestamps
        if control is not None:
            draft.controls.append(control)
        if producer:
            draft.batches.append(
                BatchMark(first=0, count=len(payloads), producer=producer, producer_epoch=1)
            )
        block = pack(
            draft,
            log_id=self.log.log_id,
            segment_id=segment.id,
            epoch=segment.epoch,
            number=len(self.blocks),
            prev_digest=last.digest if last else bytes.fromhex(segment.prev_digest),
            base_timestamp_us=FIRST_US + len(self.blocks),
            lac=-1,
            facts_before=self.has_facts,
            allocate=self.writer.allocate,
        )
        self.has_facts = self.has_facts or block.header.has_facts
        self.blocks.append(block)
        return block

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Hand a block over; counts it once it is acknowledged."""
        future = self.writer.submit(block)

        def acknowledged(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                self.acknowledged_seq = max(self.acknowledged_seq, block.header.end_seq)

        future.add_done_callback(acknowledged)
        return future

    async def append(self, *payloads: bytes) -> None:
        """One block, until it is acknowledged."""
        block = self.pack(payloads)
        self.writer.reserve(len(block.buffer))
        await self.submit(block)

    async def finish(self) -> SegmentRef:
        """Close as a live writer does; returns the closed segment."""
        await self.writer.finish(self.end)
        return self.log.close(self.end, self.segment_id)


async def read(store: SegmentStore, ref: SegmentRef, seq: int = 0) -> list[Block]:
    """All that is visible from ``seq`` on."""
    source = store.source(ref)
    try:
        return [block async for block in source.blocks(seq)]
    finally:
        await source.close()


def payloads_of(blocks: Sequence[Block]) -> list[bytes]:
    return [payload for block in blocks for payload in block.payloads]


async def until_visible(store: SegmentStore, ref: SegmentRef, seq: int) -> None:
    """Wait until more than ``seq`` is visible; looking again and again is a fault."""
    source = store.source(ref)
    looks = 0
    while await source.visible_end() <= seq:
        looks += 1
        assert looks < 1000, "wait_visible returns at once though there is nothing new"
        await source.wait_visible(seq, 1000)
        await asyncio.sleep(0)
    await source.close()


async def write_until_failure(
    segment: OpenSegment, begun: asyncio.Event, after_blocks: int
) -> None:
    """Write as fast as the slots allow, until the writer ends; ``begun`` is set once there is enough."""
    waiting: list[asyncio.Future[None]] = []
    try:
        while True:
            waiting.append(segment.submit(segment.pack([b"x" * 500])))
            if len(waiting) >= segment.writer.slots:
                await waiting.pop(0)
            is_some_safe = segment.acknowledged_seq > 0
            if len(segment.blocks) >= after_blocks and is_some_safe:
                begun.set()  # from here on the end cannot be nothing
            await asyncio.sleep(0)
    except (Fenced, OutcomeUnknown):
        await asyncio.gather(*waiting, return_exceptions=True)
