"""Import: a new log from an export file, with the same positions, verified before it appears.

The file is read twice: first all of it is checked, and the digests the new chain will have are worked
out; then sealed objects are written. Until the last CAS the name is only reserved: an import that is
killed is cleared away like a deletion that was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from woodpecker.client.chain import ChainScan
from woodpecker.client.cursor import cursors_of
from woodpecker.client.deletion import delete_log
from woodpecker.client.environment import Environment
from woodpecker.client.export import ExportReport, Progress
from woodpecker.client.sealed_objects import check_sealed
from woodpecker.codec import export_file as form
from woodpecker.codec import keys, records
from woodpecker.codec.block import Block, Buffer
from woodpecker.codec.checksum import Checksum
from woodpecker.core.commands import ImportLog, SpillPage
from woodpecker.core.ids import Kind, State, check_name
from woodpecker.core.manifest import Anchor, End, Manifest, Options, Segment
from woodpecker.core.register import EMPTY_REGISTER, Register
from woodpecker.core.retention import fold_due, spill_due
from woodpecker.core.transitions import apply
from woodpecker.errors import Corrupt, InvalidRequest, WoodpeckerError
from woodpecker.metadata.history import History

READ_BYTES = 4 << 20

T = TypeVar("T")


async def import_log(
    env: Environment,
    name: str,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> ExportReport:
    """Make the log ``name`` from an export file: same seqs, payloads, headers, times and registers.

    The new log has an id of its own, so the chain digests differ from the exported ones. Its options
    are those of the exported log, but the mode follows the store if that mode cannot be used here.
    Args:
        path: made by ``export_log``.
    Raises:
        AlreadyExists: a log of that name is there. Corrupt(where=): the file is damaged; nothing
        was made. InvalidRequest: no such file, or a newer format. Unavailable, OutcomeUnknown.
    Cancellation: nothing appears; what was written is removed now, or by ``gc`` after a kill.
    """
    check_name(name)
    log_id = env.runtime.token()
    with _opened(Path(path)) as file:
        plan = await _Plan(Path(path), file, log_id, progress).make()
        options = _fitting(env, plan.head.options)
        new = _bare(plan, name, log_id, options, env.runtime.now_us() // 1000)
        reserved = replace(new, deleting=True, epoch=0, next_seq=0, trim_point=0, anchor=Anchor())
        await env.catalog.change(name, ImportLog(log_id=log_id, manifest=reserved))
        try:
            full = await _Writing(env, new, plan, _Frames(Path(path), file)).run()
            await env.catalog.change(name, ImportLog(log_id=log_id, manifest=full))
        except BaseException:
            with contextlib.suppress(WoodpeckerError):
                await delete_log(env, name, force=True, log_id=log_id)
            raise
    return plan.report


def _fitting(env: Environment, options: Options) -> Options:
    """The exported log's options; its mode may be impossible in this store."""
    try:
        env.places.check_kind(options.mode, "")
    except InvalidRequest:
        return replace(options, mode=env.places.default_kind)
    return options


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


class _Frames:
    """Frames of an export file, one after the other."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.offset = 0
        self.checksum = Checksum()

    @property
    def where(self) -> str:
        """The place of the next frame."""
        return f"{self._path} byte {self.offset}"

    async def start(self) -> None:
        """Go to the first frame. Raises: Corrupt: no export file."""
        await self._run(lambda: self._file.seek(0))
        magic = await self._read(len(form.MAGIC))
        if bytes(magic) != form.MAGIC:
            raise Corrupt(f"{self._path} is no export file of Woodpecker", where=str(self._path))
        self.checksum.update(magic)
        self.offset = len(magic)

    async def next(self) -> tuple[bytes, memoryview, str]:
        """Type, payload and place of the next frame; TAIL is the last. Raises: Corrupt."""
        where = self.where
        front = await self._read(form.FRAME_BYTES)
        kind, size = form.parse_frame(front, where=where)
        payload = await self._read(size)
        if len(payload) != size:
            raise Corrupt(f"{where}: the export file ends too early", where=where)
        if kind != form.TAIL:
            self.checksum.update(front)
            self.checksum.update(payload)
        self.offset += len(front) + size
        return kind, memoryview(payload), where

    async def expect_end(self) -> None:
        """Raises: Corrupt: something follows the last frame."""
        if await self._read(1):
            raise Corrupt(
                f"{self.where}: something follows the end of the export", where=self.where
            )

    async def _read(self, size: int) -> bytes:
        if size <= 64 << 10:
            return self._now(lambda: self._file.read(size))  # buffered: rarely a disk's time
        return await self._run(lambda: self._file.read(size))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(self._now, work)

    def _now(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            raise InvalidRequest(f"{self._path} cannot be read: {error}") from error


@dataclass(slots=True, kw_only=True)
class _Planned:
    """What the first reading found: sound, and with the digests of the new chain."""

    head: Manifest
    tail: Manifest
    before: Register  # at the anchor
    after: Register  # at the end
    segments: list[Segment] = field(default_factory=list)  # of the new log, CLOSED
    report: ExportReport


class _Plan:
    """First reading: everything is checked, nothing is written."""

    def __init__(self, path: Path, file: BinaryIO, log_id: str, progress: Progress | None) -> None:
        self._frames = _Frames(path, file)
        self._log_id = log_id
        self._progress = progress
        self._segments: list[Segment] = []
        self._scan: ChainScan | None = None
        self._first_digest = b""
        self._entries = self._blocks = self._objects = self._cursors = 0

    async def make(self) -> _Planned:
        frames = self._frames
        await frames.start()
        head = records.decode_manifest(await self._expect(form.HEAD), where=frames.where)
        before = records.decode_register(await self._expect(form.REGISTER), where=frames.where)
        self._head, self._register = head, before
        self._seq, self._digest = head.anchor.seq, head.anchor.digest
        self._chained = bytes.fromhex(self._digest)  # of the new chain
        last: Register | None = None
        while True:
            kind, payload, where = await frames.next()
            if kind == form.TAIL:
                break
            if kind == form.LAST:
                last = records.decode_register(payload, where=where)
            else:
                self._take(kind, payload, where)
        tail = form.parse_tail(payload, frames.checksum.bytes, where=where)
        await frames.expect_end()
        self._check_end(tail, last, where)
        return _Planned(
            head=head,
            tail=tail,
            before=before,
            after=self._register,
            segments=self._segments,
            report=self._report(tail),
        )

    async def _expect(self, wanted: bytes) -> memoryview:
        kind, payload, where = await self._frames.next()
        if kind != wanted:
            raise Corrupt(f"{where}: {kind!r} where {wanted!r} belongs", where=where)
        return payload

    def _take(self, kind: bytes, payload: memoryview, where: str) -> None:
        if kind == form.BLOCK:
            self._take_block(Block.parse(payload, where=where))
        elif kind == form.SEGMENT:
            self._take_segment(payload, where)
        elif kind == form.OBJECT:
            form.unpack_named(payload, where=where)
            self._objects += 1
        elif kind == form.CURSOR:
            records.decode_cursor(form.unpack_named(payload, where=where)[1], where=where)
            self._cursors += 1
        else:
            raise Corrupt(f"{where}: {kind!r} does not belong here", where=where)

    def _take_block(self, block: Block) -> None:
        header = block.header
        if self._scan is None:
            started = Segment(
                id=header.segment_id,
                kind=Kind.OBJECT,
                state=State.OPEN,
                epoch=header.epoch,
                token="",
                base_seq=self._seq,
                prev_digest=self._digest,
            )
            self._scan = ChainScan(self._head.log_id, started, f"segment {header.segment_id}")
            self._first_digest = self._chained
        self._scan.add(block)
        self._chained = form.rebase(block, self._log_id, self._chained).header.digest
        self._entries += block.count
        self._blocks += 1
        if self._progress is not None:
            self._progress(self._entries, self._entries)

    def _take_segment(self, payload: memoryview, where: str) -> None:
        items = records.decode_page(payload, where=where)
        scan, self._scan = self._scan, None
        told = items[0] if len(items) == 1 else None
        if scan is None or not isinstance(told, Segment):
            raise Corrupt(f"{where}: a segment without blocks", where=where)
        scan.segment = replace(scan.segment, end=told.end)
        scan.finish()
        if (told.id, told.epoch, told.base_seq, told.prev_digest) != (
            scan.segment.id, scan.segment.epoch, self._seq, self._digest,
        ):  # fmt: skip
            raise Corrupt(f"{where}: the segment does not fit its blocks", where=where)
        assert told.end is not None
        self._register = scan.register(self._register)
        self._seq, self._digest = told.end.seq, told.end.digest
        self._segments.append(
            replace(
                told,
                kind=Kind.OBJECT,
                place=None,
                ensemble=None,
                prev_digest=self._first_digest.hex(),
                end=End(block=told.end.block, seq=told.end.seq, digest=self._chained.hex()),
                bytes=scan.bytes,
            )
        )

    def _check_end(self, tail: Manifest, last: Register | None, where: str) -> None:
        found = (self._seq, self._digest, self._register, None)
        if found != (tail.next_seq, tail.digest, last, self._scan):
            raise Corrupt(f"{where}: the totals do not fit what is in the file", where=where)

    def _report(self, tail: Manifest) -> ExportReport:
        return ExportReport(
            first_seq=self._head.anchor.seq,
            next_seq=tail.next_seq,
            digest=self._chained.hex(),
            entries=self._entries,
            blocks=self._blocks,
            segments=len(self._segments),
            objects=self._objects,
            cursors=self._cursors,
            bytes=self._frames.offset,
            checksum=self._frames.checksum.hex,
        )


def _bare(plan: _Planned, name: str, log_id: str, options: Options, now_ms: int) -> Manifest:
    """The new log without segments and registers."""
    head, tail = plan.head, plan.tail
    return Manifest(
        name=name,
        log_id=log_id,
        created_at_ms=now_ms,
        epoch=max([1, *(segment.epoch for segment in plan.segments)]),
        options=options,
        attributes=head.attributes,
        next_segment_id=tail.next_segment_id,
        next_seq=tail.next_seq,
        digest=plan.report.digest,
        timestamp_us=tail.timestamp_us,
        anchor=replace(head.anchor, register=EMPTY_REGISTER),
        trim_point=max(head.trim_point, head.anchor.seq),
        ended=tail.ended,
        losses=head.losses,
    )


class _Writing:
    """Second reading: the objects of the new log."""

    def __init__(
        self, env: Environment, manifest: Manifest, plan: _Planned, frames: _Frames
    ) -> None:
        self._env = env
        self._manifest = manifest
        self._plan = plan
        self._frames = frames
        self._objects = env.places.objects(manifest.storages[0])
        self._history = History(self._objects, env.runtime)
        self._register = plan.before
        self._chained = bytes.fromhex(manifest.anchor.digest)

    async def run(self) -> Manifest:
        await self._frames.start()
        for _ in (form.HEAD, form.REGISTER):
            await self._frames.next()
        segments = [await self._segment(segment) for segment in self._plan.segments]
        await self._rest()
        manifest = await self._with_registers(segments)
        return await self._with_pages(replace(manifest, segments=tuple(segments)))

    async def _segment(self, segment: Segment) -> Segment:
        assert segment.end is not None
        log_id = self._manifest.log_id
        key = keys.sealed(log_id, segment.id, segment.end.seq, segment.end.digest)
        scan = ChainScan(log_id, segment, f"segment {segment.id}")
        await self._objects.write_stream(key, self._parts(scan))
        check = await check_sealed(self._objects, key, log_id, segment)
        self._register = check.register
        return replace(segment, state=State.SEALED, sealed=check.sealed)

    async def _parts(self, scan: ChainScan) -> AsyncIterator[Buffer]:
        offsets: list[int] = []
        offset, pending, size = 0, list[Buffer](), 0
        while not scan.is_complete:
            _, payload, where = await self._frames.next()
            block = form.rebase(
                Block.parse(payload, where=where), self._manifest.log_id, self._chained
            )
            scan.add(block)
            self._chained = block.header.digest
            offsets.append(offset)
            offset += block.header.size_bytes
            pending.append(block.buffer)
            size += len(block.buffer)
            if size >= READ_BYTES:
                yield b"".join(pending)
                pending, size = [], 0
        await self._frames.next()  # SEGM
        scan.finish()
        yield b"".join([*pending, scan.tail(self._register, offsets, offset)])

    async def _rest(self) -> None:
        """Objects of layers above, and cursors."""
        log_id, cursors = self._manifest.log_id, cursors_of(self._env)
        while True:
            kind, payload, where = await self._frames.next()
            if kind == form.TAIL:
                return
            if kind == form.OBJECT:
                name, data = form.unpack_named(payload, where=where)
                await self._objects.write_stream(keys.caller_object(log_id, name), _once(data))
            elif kind == form.CURSOR:
                name, data = form.unpack_named(payload, where=where)
                cursor = records.decode_cursor(data, where=where)
                await cursors.change(log_id, name, partial(_always, cursor))

    async def _with_registers(self, segments: list[Segment]) -> Manifest:
        log_id, manifest, history = self._manifest.log_id, self._manifest, self._history
        first = manifest.anchor.first_segment
        before, before_key = await history.store_register(
            log_id, first, self._plan.before, is_anchor=True
        )
        last_id = segments[-1].id if segments else first
        after, after_key = await history.store_register(log_id, last_id, self._plan.after)
        anchor = replace(manifest.anchor, register=before, register_key=before_key)
        return replace(manifest, anchor=anchor, register=after, register_key=after_key)

    async def _with_pages(self, manifest: Manifest) -> Manifest:
        """Spill as the background worker would, before anybody sees the log."""
        while True:
            segments, run = spill_due(manifest), fold_due(manifest)
            log_id = manifest.log_id
            if segments:
                page = await self._history.store_page(log_id, 0, segments)
            elif run is not None:
                level, first, end = run
                items = manifest.pages[first:end]
                page = await self._history.store_page(log_id, level + 1, items)
            else:
                return manifest
            spilled = apply(manifest, SpillPage(log_id=log_id, page=page))
            assert isinstance(spilled, Manifest), "the page covers what is due"
            manifest = spilled


def _always(wanted: records.Cursor, _found: records.Cursor | None) -> records.Cursor:
    return wanted


async def _once(data: Buffer) -> AsyncIterator[Buffer]:
    yield data
