"""Kind ``file``: the open part of a segment is one append-only file on a local file system.

Acknowledged means synced to that disk. Protocol, section 6; the rules are in ``core/file_rules``,
the layout of the directory in ``file_place``, of the side file in ``file_side``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from woodpecker.core.ids import Kind
from woodpecker.core.manifest import FilePlace, Segment
from woodpecker.direct_file import NO_ROOM, DataFile
from woodpecker.errors import Corrupt, InvalidRequest, NotFound, NotWritten, Unavailable
from woodpecker.runtime.runtime import Runtime
from woodpecker.runtime.threads import Lane, Threads
from woodpecker.segments.base import ReadManifest, Recovered, SegmentRef
from woodpecker.segments.file_aligned import Buffers
from woodpecker.segments.file_append import Appender
from woodpecker.segments.file_index import Index, Indexes
from woodpecker.segments.file_place import BufferDirectory, make_directory, sync_directory
from woodpecker.segments.file_reader import FileSource, check_place
from woodpecker.segments.file_recovery import (
    fence_lost,
    first_position,
    owner_of,
    recover,
    try_lock,
)
from woodpecker.segments.file_seal import seal
from woodpecker.segments.file_side import SideFile
from woodpecker.segments.file_wake import Wakes
from woodpecker.segments.file_writer import Disk, FileWriter, open_writers_limit
from woodpecker.storage.base import ObjectStore

T = TypeVar("T")

_WRITING_THREADS = 4  # so many logs may wait for the disk at once; more only queue there
_OTHER_THREADS = 4  # opening, reading, recovering: kept apart, so that writes never wait for those


NOTHING_FOUND = Recovered(end=None, bytes=0, first_timestamp_us=0, last_timestamp_us=0, facts=())


class FileSegments:
    """Segments in one buffer directory. See the port, ``SegmentStore``. Used from one event loop."""

    kind = Kind.FILE

    def __init__(
        self,
        directory: Path,
        runtime: Runtime,
        *,
        read_only: bool = False,
        open_writers: int | None = None,
    ) -> None:
        self._directory = BufferDirectory(directory, runtime, read_only=read_only)
        self._read_only = read_only
        self._writing = Threads("woodpecker-file-write", _WRITING_THREADS)
        self._others = Threads("woodpecker-file", _OTHER_THREADS)
        self._disk = Disk(runtime, open_writers=open_writers or open_writers_limit())
        self._buffers = Buffers()
        self._indexes = Indexes()
        self._wakes = Wakes(runtime)

    async def prepare(
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[FilePlace | None, FileWriter]:
        self._check_writable()
        place, appender = await self._run(
            lambda: self._prepare(log_id, segment), lambda made: made[1].close(trim=False)
        )
        writer = FileWriter(
            appender, Lane(self._writing), self._disk, self._buffers, timeout_ms=timeout_ms
        )
        return place, writer

    async def recover(self, ref: SegmentRef, *, token: str) -> Recovered:
        self._check_writable()
        return await self._run(lambda: self._recover(ref))

    async def salvage(self, ref: SegmentRef, *, token: str) -> Recovered:
        self._check_writable()
        return await self._run(lambda: self._salvage(ref))

    def source(self, ref: SegmentRef) -> FileSource:
        return FileSource(
            ref,
            self._directory,
            self._index(ref.log_id, ref.segment),
            Lane(self._others),
            self._wakes,
            read_only=self._read_only,
        )

    async def hand_over(self, ref: SegmentRef) -> bool:
        """False: only this machine can reach the file."""
        return False

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        """Nothing fences by name here: a sleeping writer looks at the mapping it holds."""
        self._check_writable()
        await self._run(lambda: self._drop(ref, keep_directory=keep_fence))

    async def seal_in_place(
        self, ref: SegmentRef, tail: bytes, at: int, objects: ObjectStore, key: str
    ) -> bool:
        """See the port. False: a stopped writer holds the file, or ``key`` lies elsewhere or is taken."""
        self._check_writable()
        target = objects.local_path(key)
        if target is None:
            return False
        return await self._run(lambda: self._seal(ref, target, tail, at))

    async def held(self, log_id: str) -> Sequence[tuple[int, str]]:
        """See the port: attempts that never opened their segment leave files that no manifest names."""
        return await self._run(lambda: self._held(log_id))

    async def logs(self) -> Sequence[str]:
        """Ids of the logs that have a directory here: for the orphan sweep."""
        return await self._run(self._log_ids)

    async def close(self) -> None:
        self._wakes.close()
        self._writing.stop()
        self._others.stop()

    # ------------------------------------------------------------------ in threads

    def _prepare(self, log_id: str, segment: Segment) -> tuple[FilePlace, Appender]:
        place = self._directory.place()
        data_path = self._directory.data_path(log_id, segment)
        side_path = self._directory.side_path(log_id, segment)
        make_directory(data_path.parent)
        try:
            file = DataFile.open(data_path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise Unavailable(
                f"segment {segment.id} was prepared by this writer before ({data_path}): drop it first"
            ) from None
        try:
            # the lock comes first: from here on a taker-over finds that a writer may live
            assert try_lock(file.fd)
            side = SideFile.create(side_path, owner_of(log_id, segment, place.boot))
        except BaseException:
            file.close()
            data_path.unlink()
            raise
        return place, self._equip(log_id, segment, file, side)

    def _equip(self, log_id: str, segment: Segment, file: DataFile, side: SideFile) -> Appender:
        """Room and zeros for the first blocks, and all of it durable."""
        start, index = first_position(segment), self._index(log_id, segment)
        appender = Appender(file, side, start, index, self._buffers, self._writing)
        try:
            appender.room.ensure(1)
            appender.zeros.first()
            os.fsync(file.fd)
            sync_directory(file.path.parent)
        except BaseException:
            appender.close(trim=False)
            file.path.unlink()
            side.path.unlink()
            raise
        return appender

    def _recover(self, ref: SegmentRef) -> Recovered:
        try:
            return self._take_over(ref, accept_loss=False)
        except FileNotFoundError as error:
            raise Corrupt(
                f"{error.filename} is missing though the end of its log lies in it: restore the file, "
                "or give the end of the log up with `woodpecker log recover NAME --accept-loss`",
                where=str(error.filename),
            ) from error

    def _salvage(self, ref: SegmentRef) -> Recovered:
        try:
            return self._take_over(ref, accept_loss=True)
        except FileNotFoundError:
            side_path = self._directory.side_path(ref.log_id, ref.segment)
            boot = self._directory.place().boot
            fence_lost(ref.log_id, ref.segment, side_path=side_path, boot=boot)
            return NOTHING_FOUND

    def _take_over(self, ref: SegmentRef, *, accept_loss: bool) -> Recovered:
        return recover(
            ref.log_id,
            ref.segment,
            data_path=self._data_path(ref),
            side_path=self._directory.side_path(ref.log_id, ref.segment),
            boot=self._directory.place().boot,
            accept_loss=accept_loss,
        )

    def _drop(self, ref: SegmentRef, *, keep_directory: bool) -> None:
        data_path = self._data_path(ref)
        for path in (data_path, self._directory.side_path(ref.log_id, ref.segment)):
            path.unlink(missing_ok=True)
        self._indexes.forget(ref.log_id, ref.segment.id, ref.segment.token)
        if not keep_directory:
            self._remove_if_empty(data_path.parent)

    @staticmethod
    def _remove_if_empty(path: Path) -> None:
        try:
            path.rmdir()
        except OSError:
            return  # other segments are there, or it is gone

    def _seal(self, ref: SegmentRef, target: Path, tail: bytes, at: int) -> bool:
        path = self._data_path(ref)
        try:
            return seal(path, target, tail, at)
        except FileNotFoundError as error:
            raise NotFound(f"{path} is gone: sealed or deleted; read the manifest") from error

    def _held(self, log_id: str) -> list[tuple[int, str]]:
        found = (self._directory.path / log_id).glob("*-*.s*")
        return sorted({(int(number), token) for number, _, token in
                       (path.stem.partition("-") for path in found)})  # fmt: skip

    def _log_ids(self) -> list[str]:
        return sorted(path.name for path in self._directory.path.glob("*/") if path.is_dir())

    # ------------------------------------------------------------------ helpers

    def _data_path(self, ref: SegmentRef) -> Path:
        """Raises: Unavailable: it is on another host, or in another directory."""
        path = self._directory.data_path(ref.log_id, ref.segment)
        here = self._directory.place()
        if ref.segment.place is not None:  # else it was prepared, but never opened
            check_place(ref.segment.place, here, str(path))
        return path

    def _index(self, log_id: str, segment: Segment) -> Index:
        return self._indexes.of(log_id, segment.id, segment.token)

    def _check_writable(self) -> None:
        if self._read_only:
            raise InvalidRequest(f"{self._directory.path} was opened for reading only")

    async def _run(self, work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        try:
            return await self._others.run(work, discard)
        except OSError as error:
            what = f"{error.filename or self._directory.path}: {error.strerror}"
            if error.errno in NO_ROOM:
                raise NotWritten(f"{what}; free space on that disk and try again") from error
            raise Unavailable(f"{what}; see to that directory and try again") from error
