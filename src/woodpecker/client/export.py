"""Export: one log, as it is now, in one portable, verified file (``codec/export_file.py``)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from woodpecker.client.chain import ChainScan
from woodpecker.client.checkpoints import register_before
from woodpecker.client.cursor import cursors_of
from woodpecker.client.environment import Environment
from woodpecker.client.kept import on_kept
from woodpecker.client.reader_start import tail
from woodpecker.codec import export_file as form
from woodpecker.codec import keys, records
from woodpecker.codec.block import Block, Buffer
from woodpecker.codec.checksum import Checksum
from woodpecker.core.ids import ZERO_DIGEST, State
from woodpecker.core.manifest import Anchor, End, Manifest, Segment
from woodpecker.core.register import EMPTY_REGISTER, Register
from woodpecker.errors import InvalidRequest, NotFound, Unavailable
from woodpecker.segments.prefetch import closing

WRITE_BYTES = 4 << 20
MOVED_TRIES = 8

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""(entries done, entries in all); called now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote or an import read. ``checksum`` is of the file, as it says itself."""

    first_seq: int
    next_seq: int
    digest: str
    entries: int
    blocks: int
    segments: int
    objects: int
    cursors: int
    bytes: int
    checksum: str


async def export_log(
    env: Environment,
    name: str,
    log_id: str,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the readable part of a log, up to the tail as it is now, with cursors, into one file.

    Every block is verified on the way. The file appears under its name only when it is complete and
    on disk; an existing one is replaced. It begins with the segment that holds the trim point.
    Raises:
        NotFound: no such log. Corrupt: it is damaged. InvalidRequest: the path cannot be written.
        Unavailable: a store is away, or the log was trimmed faster than it could be read.
    Cancellation: nothing is left behind but, after a kill, ``<path>.part``.
    """
    target = Path(path)
    export = _Export(env, name, log_id, progress)
    async with _Output(target) as output:
        report = await export.write(output)
        await output.finish()
    return report


class _Output:
    """The file being written: buffered, summed, in a thread; renamed at the end."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._file: BinaryIO | None = None
        self._pending: list[Buffer] = []
        self._pending_bytes = 0
        self.checksum = Checksum()

    async def __aenter__(self) -> Self:
        self._file = await _in_thread(self._target, lambda: self._part.open("wb"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:  # not finished
            self._file.close()
            with contextlib.suppress(OSError):
                self._part.unlink()

    async def write(self, data: Buffer) -> None:
        """Append; ``data`` must not change any more."""
        self.checksum.update(data)
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= WRITE_BYTES:
            await self._flush()

    async def frame(self, kind: bytes, payload: Buffer) -> None:
        """Append one frame."""
        await self.write(form.frame(kind, len(payload)))
        await self.write(payload)

    async def finish(self) -> None:
        """Make the file durable and give it its name."""
        await self._flush()
        await _in_thread(self._target, self._publish)
        self._file = None

    async def _flush(self) -> None:
        file, pending = self._file, self._pending
        assert file is not None
        self._pending, self._pending_bytes = [], 0
        await _in_thread(self._target, lambda: file.writelines(pending))

    def _publish(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._target)
        directory = os.open(self._target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


async def _in_thread(path: Path, work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}") from error


class _Export:
    """One walk over the log."""

    def __init__(self, env: Environment, name: str, log_id: str, progress: Progress | None) -> None:
        self._env = env
        self._name = name
        self._log_id = log_id
        self._progress = progress
        self._register: Register = EMPTY_REGISTER
        self._digest = ZERO_DIGEST
        self._timestamp_us = 0
        self._first_seq = self._next_seq = self._next_segment = self._until = 0
        self._entries = self._blocks = self._segments = 0
        self._scan: ChainScan | None = None  # of the segment being written

    async def write(self, output: _Output) -> ExportReport:
        manifest = await self._env.catalog.read(self._name, log_id=self._log_id)
        self._until = await tail(self._env, self._name, self._log_id)
        manifest, anchor = await self._write_head(output, manifest)
        await self._write_segments(output, manifest)
        objects = await self._write_objects(output, manifest)
        cursors = await self._write_cursors(output)
        return await self._write_tail(output, manifest, anchor, objects, cursors)

    async def _write_head(self, output: _Output, manifest: Manifest) -> tuple[Manifest, Anchor]:
        manifest, anchor = await on_kept(self._env, manifest, self._find_beginning)
        self._first_seq = self._next_seq = anchor.seq
        self._next_segment, self._digest = anchor.first_segment, anchor.digest
        await output.write(form.MAGIC)
        await output.frame(form.HEAD, form.encode_head(manifest, anchor))
        await output.frame(form.REGISTER, records.encode_register(self._register))
        return manifest, anchor

    async def _find_beginning(self, manifest: Manifest) -> tuple[Manifest, Anchor]:
        """The first segment that is kept and reaches above the trim point, and the register there."""
        first = None
        async with closing(self._env.segments(manifest)) as segments:
            async for segment in segments:
                if segment.end is None or segment.end.seq > manifest.trim_point:
                    first = segment
                    break
        if first is None:
            history = self._env.history(manifest)
            self._register = await history.load_register(manifest.register, manifest.register_key)
            seq, digest, number = manifest.next_seq, manifest.digest, manifest.next_segment_id
        else:
            self._register = await register_before(self._env, manifest, first)
            seq, digest, number = first.base_seq, first.prev_digest, first.id
        return manifest, Anchor(first_segment=number, seq=seq, digest=digest)

    async def _write_segments(self, output: _Output, manifest: Manifest) -> None:
        tries = 0
        while True:
            before = self._blocks
            try:
                await self._write_known(output, manifest)
                return
            except NotFound as error:  # sealed, spilled or trimmed meanwhile
                tries = 0 if self._blocks > before else tries + 1
                manifest = await self._env.catalog.read(self._name, log_id=self._log_id)
                if tries == MOVED_TRIES or manifest.anchor.seq > self._next_seq:
                    raise Unavailable(
                        f"log {self._name!r} was trimmed faster than it could be exported "
                        f"({error}); try again"
                    ) from error

    async def _write_known(self, output: _Output, manifest: Manifest) -> None:
        async with closing(self._env.segments(manifest, from_seq=self._next_seq)) as segments:
            async for segment in segments:
                is_new = segment.id >= self._next_segment
                if is_new and segment.base_seq <= self._until:
                    await self._write_segment(output, manifest, segment)

    async def _write_segment(self, output: _Output, manifest: Manifest, segment: Segment) -> None:
        """Its blocks, then what is known of it; an interrupted one goes on where it stopped."""
        if self._scan is None:
            where = f"log {self._name!r} segment {segment.id}"
            self._scan = ChainScan(manifest.log_id, segment, where)
        scan, scan.segment = self._scan, segment
        source = self._env.source(manifest, segment)
        try:
            async with closing(source.blocks(segment.base_seq)) as blocks:
                async for block in blocks:
                    if block.header.number >= len(scan.headers):
                        await self._write_block(output, scan, block)
                    if scan.is_complete or (segment.end is None and scan.next_seq >= self._until):
                        break
        finally:
            await source.close()
        if segment.end is not None:
            scan.finish()
        if scan.headers:
            await output.frame(form.SEGMENT, records.encode_page((_described(scan),)))
            self._register = scan.register(self._register)
            self._digest = scan.headers[-1].digest.hex()
            self._timestamp_us = max(self._timestamp_us, scan.last_timestamp_us)
            self._segments += 1
        self._next_segment = segment.id + 1
        self._scan = None

    async def _write_block(self, output: _Output, scan: ChainScan, block: Block) -> None:
        scan.add(block)
        await output.frame(form.BLOCK, block.buffer)
        self._next_seq = scan.next_seq
        self._entries += block.count
        self._blocks += 1
        if self._progress is not None:
            done = self._next_seq - self._first_seq
            self._progress(done, max(done, self._until - self._first_seq))

    async def _write_objects(self, output: _Output, manifest: Manifest) -> int:
        """Objects of layers above; they lie in the log's first storage."""
        objects = self._env.places.objects(manifest.storages[0])
        prefix = keys.objects_prefix(manifest.log_id)
        count = 0
        async for page in objects.list(prefix):
            for info in page:
                data, _ = await objects.get(info.key)
                named = form.pack_named(info.key.removeprefix(prefix), data)
                await output.frame(form.OBJECT, named)
                count += 1
        return count

    async def _write_cursors(self, output: _Output) -> int:
        count = 0
        async for stored in cursors_of(self._env).all(self._log_id):
            assert stored.cursor is not None
            data = records.encode_cursor(stored.cursor)
            await output.frame(form.CURSOR, form.pack_named(stored.name, data))
            count += 1
        return count

    async def _write_tail(
        self, output: _Output, manifest: Manifest, anchor: Anchor, objects: int, cursors: int
    ) -> ExportReport:
        final = replace(
            manifest,
            next_segment_id=self._next_segment,
            next_seq=self._next_seq,
            digest=self._digest,
            timestamp_us=self._timestamp_us or manifest.timestamp_us,
            ended=self._register.ended,
        )
        await output.frame(form.LAST, records.encode_register(self._register))
        checksum = output.checksum.hex
        await output.frame(form.TAIL, form.encode_tail(final, anchor, output.checksum))
        return ExportReport(
            first_seq=anchor.seq,
            next_seq=final.next_seq,
            digest=final.digest,
            entries=self._entries,
            blocks=self._blocks,
            segments=self._segments,
            objects=objects,
            cursors=cursors,
            bytes=output.checksum.size_bytes,
            checksum=checksum,
        )


def _described(scan: ChainScan) -> Segment:
    """The segment as far as it was written, without anything that only means something here."""
    first, last = scan.headers[0], scan.headers[-1]
    return Segment(
        id=scan.segment.id,
        kind=scan.segment.kind,
        state=State.CLOSED,
        epoch=scan.segment.epoch,
        token="",
        base_seq=first.base_seq,
        prev_digest=first.prev_digest.hex(),
        end=End(block=last.number, seq=last.end_seq, digest=last.digest.hex()),
        bytes=scan.bytes,
        first_timestamp_us=first.base_timestamp_us,
        last_timestamp_us=scan.last_timestamp_us,
        opened_at_ms=scan.segment.opened_at_ms,
        closed_at_ms=scan.segment.closed_at_ms,
    )
