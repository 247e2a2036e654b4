"""The writer's side of the chain of segments: open, fill, roll, close; every step one CAS.

Holds no rule: ``core/rolling.py`` says when, ``core/transitions.py`` what may be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from woodpecker.client.environment import Environment
from woodpecker.client.kept import on_kept
from woodpecker.client.takeover import TakenOver
from woodpecker.codec.block import PackedBlock, pack
from woodpecker.core.batcher import Draft
from woodpecker.core.commands import CloseSegment, OpenSegment
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import End, Manifest, Options, Segment, placed
from woodpecker.core.register import Register
from woodpecker.core.rolling import is_due, is_overgrown, should_prepare
from woodpecker.errors import Corrupt, Fenced, NotFound
from woodpecker.observability.names import Counter, Span
from woodpecker.segments.base import Recovered, SegmentRef, SegmentWriter
from woodpecker.segments.prefetch import closing

DEFAULT_CUT_BYTES = 4 << 20  # until a segment says its own


@dataclass(slots=True, kw_only=True)
class _Open:
    """The segment being written."""

    segment: Segment
    writer: SegmentWriter
    prev_digest: bytes
    opened_ms: float
    blocks: int = 0
    bytes: int = 0
    next_seq: int = 0
    first_timestamp_us: int = 0
    last_timestamp_us: int = 0
    has_facts: bool = False


class SegmentChain:
    """Segments of one writer, one after the other."""

    def __init__(self, env: Environment, name: str, taken: TakenOver) -> None:
        self.owner = taken.owner
        self._env = env
        self._name = name
        self._manifest = taken.manifest
        self._register = taken.register
        self._open: _Open | None = None
        self._ahead: tuple[Segment, SegmentWriter] | None = None  # ready for the next roll
        self._owner_read: asyncio.Task[bool] | None = None
        self.on_roll: Callable[[], None] | None = None  # the open segment wants to go on elsewhere

    @property
    def options(self) -> Options:
        """The log's options as last read; they count from the next segment on."""
        return self._manifest.options

    @property
    def timestamp_us(self) -> int:
        """Of the last entry of the closed part, as last read."""
        return self._manifest.timestamp_us

    @property
    def next_seq(self) -> int:
        """Where the closed part ends, as last read."""
        return self._manifest.next_seq

    @property
    def current(self) -> SegmentWriter | None:
        """The open end, or None: a segment is opened when something waits."""
        return None if self._open is None else self._open.writer

    @property
    def cut_bytes(self) -> int:
        """Target size of a block now."""
        return DEFAULT_CUT_BYTES if self._open is None else self._open.writer.cut_bytes

    @property
    def kind(self) -> Kind:
        """Kind of the open segment, or of the next one."""
        return self.options.mode if self._open is None else self._open.segment.kind

    @property
    def base_seq(self) -> int:
        """Where the open segment begins."""
        assert self._open is not None
        return self._open.segment.base_seq

    @property
    def is_stuck(self) -> bool:
        """Whether the open segment can take no block any more."""
        return self._open is not None and self._open.writer.slots == 0

    @property
    def segment_id(self) -> int:
        """Id of the open segment."""
        assert self._open is not None
        return self._open.segment.id

    @property
    def has_blocks(self) -> bool:
        """Whether the open segment has any block."""
        return self._open is not None and self._open.blocks > 0

    # --- writing ---

    def reserve(self, size_bytes: int) -> None:
        """Room for ``size_bytes`` more than is submitted. Raises: NotWritten."""
        if self._open is not None:
            self._open.writer.reserve(size_bytes)

    def pack(self, draft: Draft, *, base_timestamp_us: int, lac: int) -> PackedBlock:
        """Make the next block of the open segment."""
        at = self._open
        assert at is not None
        return pack(
            draft,
            log_id=self.owner.log_id,
            segment_id=at.segment.id,
            epoch=self.owner.epoch,
            number=at.blocks,
            prev_digest=at.prev_digest,
            base_timestamp_us=base_timestamp_us,
            lac=lac,
            compression=self.options.compression,
            facts_before=at.has_facts,
            allocate=at.writer.allocate,
        )

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Hand the block to the segment; it counts as its last block from here on."""
        at, header = self._open, block.header
        assert at is not None
        if at.blocks == 0:
            at.first_timestamp_us = header.base_timestamp_us
            at.opened_ms = self._env.runtime.monotonic_ms()  # what is empty does not age
        at.blocks += 1
        at.bytes += header.size_bytes
        at.prev_digest = header.digest
        at.next_seq = header.end_seq
        at.last_timestamp_us = block.last_timestamp_us
        at.has_facts = at.has_facts or header.has_facts
        return at.writer.submit(block)

    # --- rolling ---

    def age_left_ms(self) -> float:
        """Until the open segment is old enough to be closed."""
        at, max_age_ms = self._open, self.options.segment_max_age_s * 1000
        if at is None or not at.blocks:
            return max_age_ms
        return max_age_ms - (self._env.runtime.monotonic_ms() - at.opened_ms)

    def is_aged(self) -> bool:
        """Whether the open segment holds something and is old enough to be closed."""
        return self.has_blocks and self.age_left_ms() <= 0

    def is_roll_due(self) -> bool:
        """Whether the open segment is big or old enough, or its store wants to go on elsewhere."""
        at = self._open
        if at is None:
            return False
        age_ms = self._env.runtime.monotonic_ms() - at.opened_ms
        is_full = is_due(self.options, size_bytes=at.bytes, blocks=at.blocks, age_ms=age_ms)
        return (is_full and at.blocks > 0) or at.writer.wants_roll

    def is_overgrown(self) -> bool:
        """Whether it has grown past what may wait for the metadata store."""
        at = self._open
        return at is not None and is_overgrown(self.options, size_bytes=at.bytes, blocks=at.blocks)

    def should_prepare(self) -> bool:
        """Whether it is time to make the next segment ready."""
        at = self._open
        return (
            at is not None
            and self._ahead is None
            and should_prepare(self.options, size_bytes=at.bytes, blocks=at.blocks)
        )

    async def confirm(self) -> None:
        """Read the manifest: that it answers, and is ours, makes it safe to choose an end soon.

        Raises: Unavailable: try again later. Fenced: not ours any more.
        """
        manifest = await self._read()
        if not manifest.owned_by(self.owner.log_id, self.owner.epoch, self.owner.token):
            raise Fenced(
                f"log {self._name!r}: epoch {manifest.epoch} owns it now; open a new writer",
                outcome="not_written",
            )
        self._manifest = manifest

    async def prepare(self) -> None:
        """Read the manifest and make the next segment ready; nothing names it yet.

        Raises: Unavailable, NotWritten: try again later. Fenced: not ours any more.
        """
        await self.confirm()
        manifest = self._manifest
        if self._is_ahead_good(manifest):
            return
        await self._forget_ahead()
        segment = Segment(
            id=manifest.next_segment_id,
            kind=manifest.options.mode,
            state=State.OPEN,
            epoch=self.owner.epoch,
            token=self.owner.token,
            base_seq=manifest.next_seq,
            prev_digest=manifest.digest,
            storage=manifest.storage,
            opened_at_ms=self._env.runtime.now_us() // 1000,
        )
        place, writer = await self._env.store_of(manifest, segment).prepare(
            self.owner.log_id,
            segment,
            read_manifest=self._read,
            timeout_ms=manifest.options.append_timeout_ms,
        )
        self._ahead = (placed(segment, place), writer)

    def _is_ahead_good(self, manifest: Manifest) -> bool:
        """Whether what is ready fits the log's options as they are now."""
        if self._ahead is None:
            return False
        ready, wanted = self._ahead[0], (manifest.next_segment_id, manifest.options.mode)
        is_good = (ready.id, ready.kind, ready.storage) == (*wanted, manifest.storage)
        return is_good and not self._ahead[1].wants_roll

    async def open_next(self) -> None:
        """Prepare and open a segment where none is open.

        Raises: as ``prepare``; OutcomeUnknown: the CAS was not answered.
        """
        await self.prepare()
        assert self._ahead is not None
        ahead, writer = self._ahead
        # made ready while another segment was open, perhaps: it begins where that one was closed
        segment = replace(
            ahead, base_seq=self._manifest.next_seq, prev_digest=self._manifest.digest
        )
        command = OpenSegment(owner=self.owner, segment=segment)
        self._manifest = await self._env.catalog.change(
            self._name, command, timeout_ms=self.options.append_timeout_ms
        )
        self._ahead = None
        self._begin(segment, writer)

    async def roll(self, register: Register) -> None:
        """Close at what was sent, all of it acknowledged, and open the segment made ready.

        From here on nothing is sent in the old segment, whatever becomes of the CAS. If nothing was sent
        in it at all, it is dropped.
        """
        assert self._ahead is not None and self._open is not None
        ahead, writer = self._ahead
        if self._open.blocks:
            closed, end = await self._finish()
            following = replace(ahead, base_seq=end.seq, prev_digest=end.digest)
        else:
            closed, end = await self._leave_empty(), None
            before = closed.segment
            following = replace(ahead, base_seq=before.base_seq, prev_digest=before.prev_digest)
        self._ahead = None
        try:
            with self._env.observer.span(Span.ROLL, log=self._name, segment=closed.segment.id):
                await self._close_cas(closed, end, register, following)
        except BaseException:
            await writer.abandon()
            raise
        self._env.observer.count(Counter.ROLLS, kind=str(closed.segment.kind))
        self._begin(following, writer)

    @property
    def can_be_stranded(self) -> bool:
        """Whether the open segment may lose the means to confirm what was sent, and still be closed."""
        return self._open is not None and self._open.segment.kind is Kind.QUORUM

    async def let_go(self) -> None:
        """Send nothing any more in the open segment."""
        assert self._open is not None
        await self._open.writer.abandon()

    async def recover_open(self) -> Recovered:
        """Fence the open segment, which was let go, and find its end as a taker-over would.

        Raises: as ``SegmentStore.recover``; Unavailable: try again. Fenced: a later opener has closed it.
        """
        assert self._open is not None
        segment = self._open.segment
        ref = SegmentRef(log_id=self.owner.log_id, segment=segment, name=self._name)
        store = self._env.store_of(self._manifest, segment)
        try:
            return await store.recover(ref, token=self.owner.token)
        except (NotFound, Corrupt):
            await self.confirm()  # what is missing or strange may be the doing of a later opener
            raise

    async def close_recovered(self, found: Recovered, register: Register) -> None:
        """Close at the end that was found, and open the segment made ready, unless the log has ended."""
        at = self._open
        assert at is not None
        self._open = None
        at.bytes, at.next_seq = found.bytes, found.end.seq if found.end else at.segment.base_seq
        at.first_timestamp_us = found.first_timestamp_us
        at.last_timestamp_us = found.last_timestamp_us
        following, writer = self._following(at, found.end, register)
        try:
            await self._close_cas(at, found.end, register, following)
        except BaseException:
            if writer is not None:
                await writer.abandon()
            raise
        if following is not None and writer is not None:
            self._begin(following, writer)

    def _following(
        self, at: _Open, end: End | None, register: Register
    ) -> tuple[Segment | None, SegmentWriter | None]:
        """The segment made ready, beginning where the one before ends; none behind the log's end."""
        if register.ended or self._ahead is None:
            return None, None
        ahead, writer = self._ahead
        self._ahead = None
        if end is None:
            before = at.segment
            return replace(ahead, base_seq=before.base_seq, prev_digest=before.prev_digest), writer
        return replace(ahead, base_seq=end.seq, prev_digest=end.digest), writer

    async def close_open(self, register: Register) -> None:
        """Live close without opening another."""
        closed, end = await self._finish()
        await self._close_cas(closed, end, register, None)

    async def close(self, register: Register, *, clean: bool) -> None:
        """Let everything go; with ``clean`` the open segment is closed first."""
        try:
            if clean and self._open is not None:
                await (self.close_open if self._open.blocks else self._drop_open)(register)
        finally:
            await self._forget_ahead()
            if self._open is not None:
                at, self._open = self._open, None
                await at.writer.abandon()
            if self._owner_read is not None:
                self._owner_read.cancel()
                await asyncio.gather(self._owner_read, return_exceptions=True)

    async def _drop_open(self, register: Register) -> None:
        """Nothing was ever sent in the open segment, and nothing will be: the manifest forgets it."""
        await self._close_cas(await self._leave_empty(), None, register, None)

    async def _leave_empty(self) -> _Open:
        assert self._open is not None and not self._open.blocks
        at, self._open = self._open, None
        await at.writer.abandon()
        return at

    async def _finish(self) -> tuple[_Open, End]:
        at = self._open
        assert at is not None and at.blocks
        end = End(block=at.blocks - 1, seq=at.next_seq, digest=at.prev_digest.hex())
        await at.writer.finish(end)
        self._open = None
        return at, end

    async def _close_cas(
        self, at: _Open, end: End | None, register: Register, following: Segment | None
    ) -> None:
        inline, key = register, None
        if end is not None:  # dropped for want of blocks, it leaves the checkpoint before it
            history = self._env.history(self._manifest)
            inline, key = await history.store_register(self.owner.log_id, at.segment.id, register)
        self._manifest = await self._env.catalog.change(
            self._name,
            CloseSegment(
                owner=self.owner,
                segment_id=at.segment.id,
                end=end,
                bytes=at.bytes,
                first_timestamp_us=at.first_timestamp_us,
                last_timestamp_us=at.last_timestamp_us,
                now_ms=self._env.runtime.now_us() // 1000,
                register=inline,
                register_key=key,
                ended=register.ended,
                next=following,
            ),
            timeout_ms=self.options.append_timeout_ms,
        )
        self._env.hub.moved(self.owner.log_id)
        self._env.hub.work(self._name)

    def _begin(self, segment: Segment, writer: SegmentWriter) -> None:
        self._open = _Open(
            segment=segment,
            writer=writer,
            prev_digest=bytes.fromhex(segment.prev_digest),
            opened_ms=self._env.runtime.monotonic_ms(),
            next_seq=segment.base_seq,
        )
        writer.on_roll = self.on_roll
        writer.begin(segment)
        self._env.hub.moved(self.owner.log_id)

    async def _forget_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await ahead[1].abandon()

    # --- reading the manifest ---

    async def _read(self) -> Manifest:
        """Linearizable; a tombstone too, for it means fenced."""
        manifest = (await self._env.catalog.load(self._name)).manifest
        if manifest is None:
            raise Fenced(f"log {self._name!r} was deleted", outcome="unknown")
        return manifest

    async def still_owner(self) -> bool:
        """See ``LogWriter.still_owner``: a read that began before the call does not count."""
        under_way = self._owner_read
        if under_way is not None and not under_way.done():
            await asyncio.gather(asyncio.shield(under_way), return_exceptions=True)
        if self._owner_read is under_way:
            self._owner_read = self._env.runtime.spawn(self._owns(), "still_owner")
            self._owner_read.add_done_callback(_look_at_error)
        assert self._owner_read is not None
        return await asyncio.shield(self._owner_read)

    async def _owns(self) -> bool:
        owner = self.owner
        try:
            return (await self._read()).owned_by(owner.log_id, owner.epoch, owner.token)
        except Fenced:
            return False

    async def find(self, segment_id: int, seq: int) -> Segment | None:
        """The segment that begins at ``seq``, of this incarnation of the log, as the manifest shows it now.

        None: it is not there.
        """
        manifest = (await self._env.catalog.load(self._name)).manifest
        if manifest is None or manifest.is_tombstone or manifest.log_id != self.owner.log_id:
            return None
        try:
            return await on_kept(self._env, manifest, lambda now: self._find(now, segment_id, seq))
        except NotFound:
            return None  # deleted meanwhile

    async def _find(self, manifest: Manifest, segment_id: int, seq: int) -> Segment | None:
        async with closing(self._env.segments(manifest, from_seq=seq)) as segments:
            async for segment in segments:
                if segment.id == segment_id:
                    return segment
        return None


def _look_at_error(task: asyncio.Task[bool]) -> None:
    """Those who asked may have given up since: then nobody else takes it."""
    if not task.cancelled():
        task.exception()
