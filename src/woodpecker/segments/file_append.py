"""The writing end of one data file: room, zeroing ahead, and the steps of writing one block.

Everything here blocks and runs on the segment's lane, or, for one small block on a fast disk, in the
event loop. Writing into blocks that hold zeros already is twice as fast as into merely allocated ones:
those cost a commit of the file system's journal each.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap

from woodpecker.codec.block import PackedBlock
from woodpecker.core.file_rules import (
    HINT_EVERY_BLOCKS,
    HINT_EVERY_BYTES,
    Position,
    Step,
    after,
    padded,
)
from woodpecker.direct_file import DataFile
from woodpecker.runtime.threads import Threads
from woodpecker.segments.file_aligned import Buffers
from woodpecker.segments.file_index import Index
from woodpecker.segments.file_recovery import try_lock
from woodpecker.segments.file_side import Hint, SideFile

FIRST_ROOM_BYTES = 1 << 20  # ten thousand idle logs must not fill a disk
MOST_ROOM_BYTES = 64 << 20
FIRST_ZEROS_BYTES = 64 << 10
MOST_ZEROS_BYTES = 1 << 20
ZERO_FOR_BYTES = 256 << 10  # larger blocks gain less from zeros than those cost

_ZEROS = memoryview(mmap(-1, MOST_ZEROS_BYTES))


class Room:
    """Space allocated ahead of the blocks, in steps that grow with the file."""

    def __init__(self, file: DataFile, threads: Threads) -> None:
        self._file = file
        self._threads = threads
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_asked = False
        self.end = 0

    def ensure(self, end: int) -> None:
        """Have space up to ``end`` at least. Raises: OSError: none is left."""
        if end <= self.end:
            return
        with self._lock:
            if self._is_closed or end <= self.end:
                return
            step = min(MOST_ROOM_BYTES, max(FIRST_ROOM_BYTES, self.end))
            try:
                self._allocate(max(end, self.end + step))
            except OSError:
                self._allocate(end)  # a nearly full disk: as much as is needed

    def ensure_soon(self, end: int) -> None:
        """Have a thread allocate more before ``end`` comes near the end of what there is."""
        step = min(MOST_ROOM_BYTES, max(FIRST_ROOM_BYTES, self.end))
        if end + step // 2 > self.end and not self._is_asked:
            self._is_asked = True
            self._threads.put(self._more)

    @property
    def is_busy(self) -> bool:
        """Whether a thread has been asked to allocate and is not done."""
        return self._is_asked

    def close(self) -> None:
        with self._lock:
            self._is_closed = True

    def _more(self) -> None:
        try:
            self.ensure(self.end + 1)
        except OSError:
            return  # whoever needs the space will be told
        finally:
            self._is_asked = False

    def _allocate(self, end: int) -> None:
        end = padded(end)
        try:
            os.posix_fallocate(self._file.fd, self.end, end - self.end)
        except OSError:
            os.ftruncate(self._file.fd, self.end)  # what a failed attempt did allocate
            raise
        self.end = end


class ZeroAhead:
    """Zeros written in front of the blocks, by another thread, while the blocks are small."""

    def __init__(self, file: DataFile, room: Room, threads: Threads) -> None:
        self._file = file
        self._room = room
        self._threads = threads
        self._lock = threading.Lock()
        self._is_asked = False
        self._is_off = not file.is_direct  # in the page cache an overwrite gains nothing
        self._is_closed = False
        self.end = 0  # everything below holds zeros or blocks; no zeros are ever written there

    def first(self) -> None:
        """Zero the beginning; tells whether direct writes work at all. Raises: OSError."""
        if not self._is_off:
            self._file.write(_ZEROS[:FIRST_ZEROS_BYTES], 0)
            self.end = FIRST_ZEROS_BYTES

    def take(self, end: int) -> None:
        """Before a block is written up to ``end``: no zeros will be written there, nor are now."""
        if end > self.end:
            with self._lock:
                self.end = max(self.end, end)

    def ask(self, position: int) -> None:
        """After a small block: see to it that the next ones meet zeros."""
        ahead = min(MOST_ZEROS_BYTES, max(FIRST_ZEROS_BYTES, position))
        if self._is_off or self._is_asked or position + ahead // 2 <= self.end:
            return
        start, end = self.end, min(position + ahead, self._room.end)
        if end > start:
            self._is_asked = True
            self._threads.put(lambda: self._zero(start, end))

    @property
    def is_busy(self) -> bool:
        """Whether a thread has been asked to write zeros and is not done."""
        return self._is_asked

    def close(self) -> None:
        with self._lock:
            self._is_closed = True

    def _zero(self, start: int, end: int) -> None:
        with self._lock:
            if self.end == start and not self._is_closed:  # else blocks came faster than we did
                try:
                    self._file.write(_ZEROS[: end - start], start)
                    self.end = end
                except OSError:
                    self._is_off = True  # the write of a block will meet the same and report it
        self._is_asked = False


class Appender:
    """Writes blocks one after another; the first failure ends it."""

    def __init__(
        self, file: DataFile, side: SideFile, start: Position, index: Index,
        buffers: Buffers, threads: Threads,
    ) -> None:  # fmt: skip
        self.file = file
        self.side = side
        self.room = Room(file, threads)
        self.zeros = ZeroAhead(file, self.room, threads)
        self.position = start
        self.error = ""  # why the last block failed
        self.is_stopped = False  # set in the loop: nothing is published any more
        self._index = index
        self._buffers = buffers
        self._last_offset = 0
        self._bytes = 0
        self._first_us = 0
        self._last_us = 0
        self._hinted = start

    def begin(self, start: Position) -> None:
        """Where the segment starts is final; what was published before any block follows it."""
        self.position = start
        self.side.publish(0, start.seq)

    def append(self, block: PackedBlock) -> Step:
        """Write one block by the steps of ``core/file_rules``; returns how it ended."""
        step = Step.WRITE
        while not step.is_end:
            step = after(step, ok=self._do(step, block))
        return step

    def _do(self, step: Step, block: PackedBlock) -> bool:
        match step:
            case Step.WRITE:
                return self._try(lambda: self._write(block))
            case Step.SYNC:
                return self._try(self.file.sync)
            case Step.LOOK:
                return not self.side.is_fenced and not self.is_stopped
            case _:
                self._publish(block)
                return True

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            self.error = f"{self.file.path}: {error.strerror or error}"
            return False
        return True

    def _write(self, block: PackedBlock) -> None:
        size = len(block.buffer)
        start, end = self.position.offset, self.position.offset + padded(size)
        self.room.ensure(end)
        self.zeros.take(end)
        own = block.buffer.obj
        if isinstance(own, mmap):  # packed into a buffer of ours, from its beginning
            own[size : end - start] = bytes(end - start - size)
            self.file.write(memoryview(own)[: end - start], start)
            return
        buffer = self._buffers.take(end - start)
        buffer[:size] = block.buffer
        buffer[size : end - start] = bytes(end - start - size)
        self.file.write(memoryview(buffer)[: end - start], start)
        self._buffers.give(buffer)

    def _publish(self, block: PackedBlock) -> None:
        header = block.header
        self._index.note(self.position, header.base_timestamp_us)
        if self.position.offset == 0:
            self._first_us = header.base_timestamp_us
        self._last_offset = self.position.offset
        self._bytes += header.size_bytes
        self._last_us = block.last_timestamp_us
        self.position = self.position.after(header)
        self.side.publish(self.position.offset, self.position.seq)

    @property
    def is_hint_due(self) -> bool:
        done, hinted = self.position, self._hinted
        return (
            done.offset - hinted.offset >= HINT_EVERY_BYTES
            or done.block - hinted.block >= HINT_EVERY_BLOCKS
        )

    def afterwards(self) -> None:
        """What is due after a block was acknowledged: readers woken, zeros ahead, room ahead."""
        with suppress(OSError):  # readers look by themselves, only later
            self.side.wake()
        if self.position.offset - self._last_offset <= ZERO_FOR_BYTES:
            self.zeros.ask(self.position.offset)
        self.room.ensure_soon(self.position.offset)

    def write_hint(self) -> None:
        """Note how far the file is synced. Failing only makes a recovery slower: nothing needs it."""
        if self._hinted.offset == self.position.offset:
            return
        self._hinted = self.position
        hint = Hint(
            position=self.position,
            last_offset=self._last_offset,
            bytes=self._bytes,
            first_timestamp_us=self._first_us,
            last_timestamp_us=self._last_us,
        )
        with suppress(OSError):
            self.side.write_hint(hint)

    @property
    def is_parked(self) -> bool:
        return not self.file.is_open

    def park(self) -> bool:
        """Let go of lock, descriptors and mapping; False: a thread is at work on the file.

        Only while nothing is being appended. Raises: OSError.
        """
        if self.room.is_busy or self.zeros.is_busy:
            return False
        os.ftruncate(self.file.fd, self.position.offset)  # room ahead: it is taken again on return
        self.room.end = self.zeros.end = self.position.offset
        fcntl.flock(self.file.fd, fcntl.LOCK_UN)  # also of a copy that a forked child may have
        self.file.close()
        self.side.close()
        return True

    def unpark(self) -> bool:
        """Take everything back; False: a taker-over was here. Raises: OSError."""
        side = None
        try:
            self.file.reopen()
            if try_lock(self.file.fd):
                side = SideFile.open(self.side.path, self.side.owner)
            if side is not None and not side.is_fenced:
                self.side, side = side, None
                return True
        except FileNotFoundError:
            pass  # sealed, trimmed or deleted since
        except BaseException:
            if self.file.is_open:
                self.file.close()
            raise
        if side is not None:
            side.close()
        if self.file.is_open:
            self.file.close()
        return False

    def close(self, *, trim: bool) -> None:
        """Release lock, descriptors and mapping; ``trim`` gives unused space back. Raises: OSError."""
        self.room.close()
        self.zeros.close()
        if self.is_parked:
            return
        try:
            if trim:
                os.ftruncate(self.file.fd, self.position.offset)
        finally:
            self.file.close()
            self.side.close()
