"""Reader of one ``file`` segment on this host: OPEN up to what its writer published, CLOSED up to E."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from woodpecker.codec.block import Block, BlockHeader
from woodpecker.core.file_rules import Position, padded
from woodpecker.core.ids import State
from woodpecker.core.manifest import FilePlace
from woodpecker.direct_file import DataFile
from woodpecker.errors import Closed, Corrupt, NotFound, Unavailable
from woodpecker.runtime.threads import Lane
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.file_index import Index
from woodpecker.segments.file_place import BufferDirectory
from woodpecker.segments.file_recovery import first_position, identity_of, owner_of
from woodpecker.segments.file_side import Owner, SideFile
from woodpecker.segments.file_wake import Wakes
from woodpecker.segments.file_walk import Bound, Walk

T = TypeVar("T")


def check_place(place: FilePlace | None, here: FilePlace, what: str) -> FilePlace:
    """The segment's place, if its file is in this directory of this host. Raises: Unavailable."""
    assert place is not None, f"{what} has no place"
    if place.host != here.host:
        raise Unavailable(
            f"{what} is on host {place.host}, this is host {here.host}: go there, or bring that disk back"
        )
    if place.buffer != here.buffer:
        raise Unavailable(
            f"{what} is in buffer directory {place.buffer}, this client uses {here.buffer} on the same "
            "host: connect with the buffer directory it was written to"
        )
    return place


class FileSource:
    """See the port, ``BlockSource``. Files are opened at first use and kept open until ``close``."""

    def __init__(
        self, ref: SegmentRef, directory: BufferDirectory, index: Index, lane: Lane,
        wakes: Wakes, *, read_only: bool,
    ) -> None:  # fmt: skip
        self._ref = ref
        self._directory = directory
        self._index = index
        self._lane = lane
        self._wakes = wakes
        self._read_only = read_only
        self._first = first_position(ref.segment)
        self._identity = identity_of(ref.log_id, ref.segment)
        self._file: DataFile | None = None
        self._side: SideFile | None = None
        self._is_void = False  # another boot: nothing counts as published until take-over
        self._resume: Position | None = None  # where the last iteration ended
        self._is_closed = False

    @property
    def _data_path(self) -> Path:
        return self._directory.data_path(self._ref.log_id, self._ref.segment)

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        place = await self._start(lambda: self._find(seq))
        expect_bytes = 0
        reading = self._read(place, expect_bytes)
        try:
            while True:
                found, place = await reading
                if not found:
                    self._resume = place
                    return
                expect_bytes = found[-1].header.size_bytes
                reading = self._read(place, expect_bytes)  # while these are looked at
                for block in found:
                    yield block
        finally:
            if not reading.cancel() and not reading.cancelled():
                reading.exception()  # of blocks nobody waits for any more

    def _read(
        self, place: Position, expect_bytes: int
    ) -> asyncio.Future[tuple[list[Block], Position]]:
        return self._start(lambda: self._walk().read(place, self._bound(), expect_bytes))

    async def visible_end(self) -> int:
        if self._ref.segment.end is not None:
            return self._ref.segment.end.seq
        await self._opened()
        if self._is_void or self._side is None:
            return self._first.seq
        return max(self._first.seq, self._side.published_seq)

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        """Return when ``visible_end()`` may be above ``seq``, or after ``timeout_ms``.

        It may return early. Raises: as ``blocks``.
        """
        await self._opened()
        if await self.visible_end() > seq:
            return
        side = self._side
        if side is None or self._is_void or self._ref.segment.end is not None:
            await self._wakes.poll(lambda: self._is_closed, timeout_ms)  # nothing will ever come
            return

        def is_due() -> bool:
            return self._is_closed or side.published_seq > seq

        if side.is_writable:
            side.ask_to_be_woken()
            await self._wakes.wait(side.path, is_due, timeout_ms)
        else:
            await self._wakes.poll(is_due, timeout_ms)

    async def seq_at(self, timestamp_us: int) -> int:
        found = await self._start(lambda: self._find_time(timestamp_us))
        return await self.visible_end() if found is None else found

    async def check_rest(self) -> None:
        await self._start(self._check_padding)

    def _check_padding(self) -> None:
        place = self._first
        for header, view in self._walk().verified(self._first, self._bound()):
            dirty = bytes(view[header.size_bytes :]).lstrip(b"\0")
            if dirty:
                where = f"{self._data_path}@{place.offset + len(view) - len(dirty)}"
                raise Corrupt(f"{where}: padding between blocks is not zero", where=where)
            place = place.after(header)

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await self._lane.start(self._release)

    def _release(self) -> None:
        """On the lane, behind every read."""
        if self._file is not None:
            self._file.close()
        if self._side is not None:
            self._side.close()

    def _bound(self) -> Bound:
        end = self._ref.segment.end
        if end is not None:
            return Bound(block=end.block + 1)
        if self._side is None or self._is_void:
            return Bound(offset=0)
        return Bound(offset=self._side.published_bytes)

    def _walk(self) -> Walk:
        assert self._file is not None
        return Walk(self._file, self._identity, self._index)

    def _find(self, seq: int) -> Position:
        """Where the first block is that ends behind ``seq``, or is empty and lies at it."""
        if self._resume is not None and self._resume.seq == seq:
            return self._resume
        near = self._index.before_seq(seq) or self._hinted(seq) or self._first
        place = near
        for place, header in self._walk().headers(near, self._bound()):
            if header.end_seq > seq or (header.count == 0 and header.base_seq >= seq):
                return place
            place = place.after(header)  # noqa: PLW2901  what is left when the headers end
        return place

    def _hinted(self, seq: int) -> Position | None:
        """The writer's hint, if it is a place below ``seq``: saves the walk to it."""
        hint = self._side.hint() if self._side is not None else None
        if hint is None or hint.position.seq >= seq or not self._bound().allows(hint.position):
            return None
        return hint.position

    def _find_time(self, timestamp_us: int) -> int | None:
        walk, bound = self._walk(), self._bound()
        before: tuple[Position, BlockHeader] | None = None
        next_seq: int | None = None
        near = self._index.before_time(timestamp_us) or self._first
        for place, header in walk.headers(near, bound):
            if not header.count:
                continue
            if header.base_timestamp_us >= timestamp_us:
                next_seq = header.base_seq
                break
            before = (place, header)
        if before is None:
            return next_seq
        place, header = before
        block = walk.read(place, bound, padded(header.size_bytes))[0][0]
        inside = block.index_at(timestamp_us)
        return header.base_seq + inside if inside < block.count else next_seq

    async def _opened(self) -> None:
        """Have the files open. Raises: as ``blocks``."""
        if self._file is None or self._is_closed:
            await self._start(lambda: None)

    def _start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have a thread do ``work`` on the open files."""
        if self._is_closed:
            raise Closed(f"this reader of {self._data_path} is closed")
        return self._lane.start(lambda: self._on_lane(work))

    def _on_lane(self, work: Callable[[], T]) -> T:
        try:
            if self._file is None:
                self._open()
            return work()
        except FileNotFoundError as error:
            raise NotFound(
                f"{error.filename} is gone: sealed, trimmed or deleted; read the manifest"
            ) from error
        except OSError as error:
            raise Unavailable(f"{self._data_path} cannot be read: {error.strerror}") from error

    def _open(self) -> None:
        """Raises: OSError, NotFound, Unavailable."""
        log_id, segment = self._ref.log_id, self._ref.segment
        here = self._directory.place()
        place = check_place(segment.place, here, str(self._data_path))
        file = DataFile.open(self._data_path, os.O_RDONLY)
        try:
            side_path = self._directory.side_path(log_id, segment)
            self._side = self._open_side(side_path, owner_of(log_id, segment, place.boot))
        except BaseException:
            file.close()
            raise
        self._is_void = place.boot != here.boot
        self._file = file

    def _open_side(self, path: Path, owner: Owner) -> SideFile | None:
        """The side file: a must while OPEN, a help (its hint) once CLOSED."""
        is_open = self._ref.segment.state is State.OPEN
        try:
            side = SideFile.open(path, owner, read_only=self._read_only)
        except PermissionError:
            side = SideFile.open(path, owner, read_only=True)
        except FileNotFoundError:
            if is_open:
                raise
            return None
        if side is None and is_open:
            raise Unavailable(
                f"{path} is not the side file made with its segment: nothing is known to be "
                "readable before a take-over; open a writer to recover the log"
            )
        return side
