"""One reader's way through a log, whatever becomes of its segments meanwhile (log protocol, section 8).

It holds a place in the chain and a copy of the manifest. What the copy names is read until a source
has nothing more or has lost its blocks; then the manifest is read again and the walk goes on from its
place. ``core/reading.py`` decides what continues the chain.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from woodpecker.client.batch import Batch
from woodpecker.client.environment import Environment
from woodpecker.client.patience import PATIENCE_MS, Patience, Waiting
from woodpecker.client.reader_start import Range, resolve_range
from woodpecker.client.reader_wait import TailWait
from woodpecker.client.sealing import written_ahead
from woodpecker.codec.block import Block
from woodpecker.core.ids import State
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.core.reading import (
    EndSpot,
    Fit,
    Place,
    Spot,
    check_place,
    enter,
    fit,
    is_finished,
    is_read_through,
)
from woodpecker.errors import Corrupt, NotFound, Unavailable, WoodpeckerError
from woodpecker.observability.base import SILENT
from woodpecker.observability.names import Counter, Gauge
from woodpecker.segments.base import BlockSource
from woodpecker.segments.prefetch import closing

MAX_LOST = 5  # times in a row that blocks an unchanged manifest names may be missing


class Walk:
    """Mutable state of one reader; used by one task at a time."""

    def __init__(
        self,
        env: Environment,
        name: str,
        log_id: str,
        start: Spot,
        end: EndSpot | None,
        *,
        follow: bool,
    ) -> None:
        self._env = env
        self._name = name
        self._log_id = log_id
        self._start = start
        self._end = end
        self._follow = follow
        bound_ms = None if follow else PATIENCE_MS
        self._patience = Patience(env.runtime, f"log {name!r}", bound_ms)
        self._waiting = Waiting(env.runtime, f"log {name!r}", bound_ms)
        self._wait = TailWait(env, name, log_id)
        self._range = Range(start=0, end_seq=None, end_us=None)
        self._place = Place(seq=0)
        self._is_done = False
        self._opened: tuple[Segment, BlockSource] | None = None
        self._version: str | None = None
        self._lost = 0

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All batches of the range, in order."""
        self._env.levels.put(self, Gauge.OPEN_READERS, 1)
        try:
            await self._begin()
            while not self._is_done:
                manifest = await self._look()
                if manifest is None:
                    continue
                try:
                    async with closing(self._through(manifest)) as batches:
                        async for batch in batches:
                            yield batch
                except NotFound as error:
                    await self._bear_loss(manifest, error)
                except Unavailable as error:
                    await self._patience.bear(error)
        finally:
            self._env.levels.put(self, Gauge.OPEN_READERS, 0)
            await self._wait.close()
            await self._close_source()

    async def _begin(self) -> None:
        self._range = await resolve_range(
            self._env, self._name, self._log_id,
            start=self._start, end=self._end, follow=self._follow,
        )  # fmt: skip
        self._place = Place(seq=self._range.start)
        end_seq = self._range.end_seq
        self._is_done = end_seq is not None and self._range.start >= end_seq
        self._waiting.progress()

    async def _look(self) -> Manifest | None:
        """Read the manifest and look where we are in it; None: the store is away."""
        self._wait.before_look()
        try:
            manifest, version = await self._env.catalog.look(self._name, log_id=self._log_id)
        except Unavailable as error:
            await self._patience.bear(error)
            return None
        if version != self._version:
            self._lost = 0
        self._version = version
        await self._wait.looked(version)
        check_place(self._place, manifest)
        return manifest

    async def _through(self, manifest: Manifest) -> AsyncIterator[Batch]:
        """Batches of all segments from our place on, until the manifest must be read again."""
        segments = self._env.segments(manifest, from_seq=self._place.seq)
        async with closing(segments):
            async for segment in segments:
                place = enter(self._place, segment, manifest)
                if place is None:
                    continue
                self._place = place
                async with closing(self._segment(manifest, segment)) as batches:
                    async for batch in batches:
                        yield batch
                if self._is_done or segment.end is None:
                    return
        self._is_done = is_finished(self._place, manifest)
        if not self._is_done:
            await self._wait_for(None)

    async def _segment(self, manifest: Manifest, segment: Segment) -> AsyncIterator[Batch]:
        """Batches of one segment; of an OPEN one until the manifest must be read again."""
        source = await self._source(manifest, segment)
        while True:
            async with closing(self._blocks(source, segment)) as blocks:
                async for block in blocks:
                    batch = self._take(block, segment)
                    if batch is not None:
                        yield batch
                    if self._is_done:
                        return
            if segment.end is None:
                if await self._wait_for(source):
                    return
            elif is_read_through(self._place, segment):
                return
            else:
                raise NotFound(f"log {self._name!r}: segment {segment.id} ended before its end")

    async def _blocks(self, source: BlockSource, segment: Segment) -> AsyncIterator[Block]:
        """Blocks that continue the chain from our place."""
        for back in (0, 1):
            # one step back a block we know must be there: what follows it is what we look for
            seq = max(segment.base_seq, self._place.seq - back)
            fits = Fit.SKIP
            async with closing(source.blocks(seq)) as blocks:
                async for block in blocks:
                    header = block.header
                    fits = fit(
                        self._place,
                        base_seq=header.base_seq,
                        count=header.count,
                        prev_digest=header.prev_digest,
                        digest=header.digest,
                    )
                    if fits is Fit.TAKE:
                        yield block
                    elif fits is Fit.BREAK:
                        break
            if fits is not Fit.BREAK:
                return
        raise self._broken(segment)

    def _take(self, block: Block, segment: Segment) -> Batch | None:
        """Move behind ``block``; what of it is in the range, if anything."""
        header, place = block.header, self._place
        if header.number == 0 and header.prev_digest.hex() != segment.prev_digest:
            raise self._broken(segment)
        begin, end = place.seq - header.base_seq, block.count
        end_seq, end_us = self._range.end_seq, self._range.end_us
        if end_seq is not None and header.end_seq >= end_seq:
            end = end_seq - header.base_seq
            self._is_done = True
        if end_us is not None and block.count and block.last_timestamp_us >= end_us:
            end = min(end, block.index_at(end_us))
            self._is_done = True
        self._place = Place(seq=header.end_seq, digest=header.digest, segment_id=segment.id)
        self._patience.success()
        self._waiting.progress()
        self._lost = 0
        if end <= begin:
            return None
        batch = Batch(block, begin, end)
        if self._env.observer is not SILENT:
            self._env.observer.count(Counter.READ_ENTRIES, len(batch))
            self._env.observer.count(Counter.READ_BYTES, batch.payload_bytes)
        return batch

    async def _wait_for(self, source: BlockSource | None) -> bool:
        """Wait at the tail. Returns: whether the manifest must be read again."""
        self._waiting.check(self._place.seq)
        self._patience.success()
        return await self._wait.wait(source, self._place.seq)

    async def _bear_loss(self, manifest: Manifest, error: NotFound) -> None:
        """Blocks that the manifest names are not there: it has moved, or soon will.

        Raises:
            Corrupt: it has not, and they are closed for good.
        """
        await self._close_source()
        self._lost += 1
        if self._lost == 1:
            return  # most likely sealed or trimmed meanwhile: look at once
        is_open = manifest.open_segment is not None
        if is_open and manifest.segments[-1].id == self._place.segment_id:
            await self._wait_for(None)  # a take-over is under way, or stopped half-way
        elif self._lost > MAX_LOST:
            raise Corrupt(f"{error}; the metadata still names it", where=self._name) from error
        else:
            await self._patience.bear(error)

    async def _source(self, manifest: Manifest, segment: Segment) -> BlockSource:
        if self._opened is not None and self._opened[0] == segment:
            return self._opened[1]
        await self._close_source()
        shown = segment
        if self._lost and segment.state is State.CLOSED:
            shown = await written_ahead(self._env, manifest, segment) or segment
        source = self._env.source(manifest, shown)
        self._opened = segment, source
        return source

    async def _close_source(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[1].close()

    def _broken(self, segment: Segment) -> WoodpeckerError:
        return Corrupt(
            f"log {self._name!r}: segment {segment.id} does not continue what was read up to seq "
            f"{self._place.seq}",
            where=f"{self._name} segment {segment.id}",
        )
