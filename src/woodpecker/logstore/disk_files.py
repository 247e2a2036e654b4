"""Adapter: a node's disk as a directory of a local file system.

    lock                    held by the process of the node, for as long as it lives
    <name>                  small files, replaced by rename
    <number>.journal        journal files, preallocated; ``*.new`` is one that was never finished

Journal files are written around the page cache where the file system can, by one thread for the whole
directory. Into space that is merely allocated a small synced write takes twice as long as into written
one, so zeros are written ahead of small writes, by another thread.

A hop to a thread and back costs as much as a quick disk needs for a small write. While nothing else is under
way and syncs are quick (``core.file_rules.Pace``), such a write is made in the loop's thread: what comes
meanwhile would have waited for it anyway.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from woodpecker.core.file_rules import Pace
from woodpecker.direct_file import DataFile
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.filesystems import file_system_of, is_local
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.disk import UNIT_BYTES
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.runtime.threads import Threads, post

MAX_PARTS = 512  # of one system call; Linux takes 1024
ZEROS_BYTES = 512 << 10
ZERO_FOR_BYTES = 128 << 10  # larger writes gain less from zeros than those cost
INLINE_BYTES = 16 << 10  # more than that has come from several writers: they gain by overlap
READ_KEEP_BYTES = 64 << 20
THREADS = 4

_SUFFIX, _NEW = ".journal", ".new"
_ZEROS = memoryview(mmap(-1, ZEROS_BYTES))

T = TypeVar("T")


class DirectoryDisk:
    """``Disk`` in ``path``, made if it is not there. One event loop.

    Raises: Unavailable: another process holds it, or it cannot be used. InvalidRequest: not on a local
    file system: locks and syncs mean nothing there.
    """

    def __init__(self, path: Path) -> None:
        if not is_local(path):
            raise InvalidRequest(
                f"{path} is on {file_system_of(path)}: a node's journal belongs on a local disk "
                "(ext4, xfs, btrfs, ...)"
            )
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            _sync_directory(path.parent)
            self._lock = _lock(path / "lock")
            self._drop_unfinished()
        except OSError as error:
            raise Unavailable(f"{path}: the disk cannot be used: {error}") from error
        self._threads = Threads("woodpecker-disk", THREADS)
        self._writer = _Writer()
        self._buffers = Buffers(READ_KEEP_BYTES)

    async def load(self, name: str) -> bytes | None:
        try:
            return await self._threads.run((self.path / name).read_bytes)
        except FileNotFoundError:
            return None

    async def store(self, name: str, data: bytes) -> None:
        await self._threads.run(lambda: _replace(self.path, name, data))

    async def files(self) -> Sequence[int]:
        paths = await self._threads.run(lambda: list(self.path.glob(f"*{_SUFFIX}")))
        return sorted(int(path.stem) for path in paths if path.stem.isdigit())

    async def create(self, number: int, size_bytes: int) -> DirectoryJournalFile:
        path = self._file(number)
        file = await self._threads.run(lambda: _create(path, size_bytes), DataFile.close)
        return DirectoryJournalFile(number, file, self._writer, self._threads, self._buffers)

    async def open(self, number: int) -> DirectoryJournalFile:
        path = self._file(number)
        file = await self._threads.run(lambda: _open(path), DataFile.close)
        return DirectoryJournalFile(number, file, self._writer, self._threads, self._buffers)

    async def delete(self, number: int) -> None:
        path = self._file(number)
        await self._threads.run(lambda: _delete(path))

    def free_bytes(self) -> tuple[int, int]:
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize

    async def close(self) -> None:
        if self._lock >= 0:
            await self._writer.close()
            self._threads.stop()
            lock, self._lock = self._lock, -1
            os.close(lock)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:012d}{_SUFFIX}"

    def _drop_unfinished(self) -> None:
        for path in self.path.glob(f"*{_NEW}"):
            path.unlink()


class DirectoryJournalFile:
    """``JournalFile`` of a directory."""

    def __init__(
        self, number: int, file: DataFile, writer: _Writer, threads: Threads, buffers: Buffers
    ) -> None:
        self.number = number
        self.size_bytes = file.size
        self._file = file
        self._writer = writer
        self._threads = threads
        self._buffers = buffers
        self._zeros = _ZeroAhead(file, threads)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def write(self, parts: Sequence[memoryview], offset: int) -> asyncio.Future[None]:
        future = self._writer.put(_Write(self._file, self._zeros, parts, offset))
        self._begin()
        future.add_done_callback(lambda _: self._end())
        return future

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        if self._file.fd < 0:
            raise OSError(errno.EBADF, f"journal file {self.number} is closed")
        place = memoryview(self._buffers.take(size_bytes))[:size_bytes]
        count = await self._run(lambda: self._file.read(place, offset))
        return place[:count]

    async def sync(self) -> None:
        await self._run(lambda: os.fdatasync(self._file.fd))

    async def close(self) -> None:
        while self._under_way:
            await self._idle.wait()
        if self._file.fd >= 0:
            self._zeros.close()
            self._file.close()

    async def _run(self, work: Callable[[], T]) -> T:
        """Like ``Threads.run``; the file stays open until the work is really done."""
        self._begin()
        loop = asyncio.get_running_loop()

        def job() -> T:
            try:
                return work()
            finally:
                post(loop, self._end)

        return await self._threads.run(job)

    def _begin(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()


class _Write:
    """One group on its way to the disk."""

    __slots__ = ("file", "future", "loop", "offset", "parts", "size_bytes", "took_ms", "zeros")

    def __init__(
        self, file: DataFile, zeros: _ZeroAhead, parts: Sequence[memoryview], offset: int
    ) -> None:
        self.file = file
        self.zeros = zeros
        self.parts = parts
        self.offset = offset
        self.size_bytes = sum(map(len, parts))
        self.took_ms = 0.0
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def run(self) -> None:
        """Write and sync. Raises: OSError."""
        self.zeros.take(self.offset + self.size_bytes)
        at = self.offset
        for first in range(0, len(self.parts), MAX_PARTS):
            at = _write_all(self.file, self.parts[first : first + MAX_PARTS], at)
        self.file.sync()

    def settle(self, error: OSError | None) -> None:
        """In the loop's thread."""
        self.parts = ()
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class _Writer:
    """Writes in order, and nothing any more after a failure: by one thread, or in the loop's (``put``)."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._at_thread = 0  # writes that it has and that are not settled
        self._usual_bytes = 0.0  # largest of the last writes; falls slowly
        self._pace = Pace()
        self._now_ms = SystemRuntime().monotonic_ms  # a real disk has the real time

    def put(self, write: _Write) -> asyncio.Future[None]:
        if self._may_block(write):
            self._run(write)
            self._settle(write, self._error)
            return write.future
        self._at_thread += 1
        if self._thread is None:
            # a daemon: a disk that hangs must not keep the process from ending
            self._thread = threading.Thread(
                target=self._serve, name="woodpecker-journal", daemon=True
            )
            self._thread.start()
        self._queue.put(write)
        return write.future

    async def close(self) -> None:
        """Return when what was put before is done."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
            self._thread = None

    def _serve(self) -> None:
        while True:
            write = self._queue.get()
            if write is None:
                return
            self._run(write)
            post(write.loop, self._thread_settled, write, self._error)
            del write  # it holds buffers; the next may be long in coming

    def _may_block(self, write: _Write) -> bool:
        """Whether the loop may wait for this write."""
        self._usual_bytes = max(write.size_bytes, self._usual_bytes * 7 / 8)
        return (
            self._usual_bytes <= INLINE_BYTES
            and not self._at_thread
            and write.zeros.cover(write.offset + write.size_bytes)
            and self._pace.allows_inline(self._now_ms())
        )

    def _run(self, write: _Write) -> None:
        if self._error is not None:
            return
        began_ms = self._now_ms()
        try:
            write.run()
        except OSError as error:
            self._error = error
        write.took_ms = self._now_ms() - began_ms

    def _thread_settled(self, write: _Write, error: OSError | None) -> None:
        self._at_thread -= 1
        self._settle(write, error)

    def _settle(self, write: _Write, error: OSError | None) -> None:
        """In the loop's thread."""
        if write.size_bytes <= INLINE_BYTES:
            self._pace.took(write.took_ms, self._now_ms())
        if error is None and write.size_bytes <= ZERO_FOR_BYTES:
            write.zeros.ask(write.offset + write.size_bytes)
        write.settle(error)


class _ZeroAhead:
    """Zeros in front of the groups of one file, written by another thread while groups are small."""

    def __init__(self, file: DataFile, threads: Threads) -> None:
        self._file = file
        self._threads = threads
        self._lock = threading.Lock()
        self._is_asked = False
        self._is_off = not file.is_direct  # in the page cache an overwrite gains nothing
        self._end = 0  # everything below holds zeros or groups: no zeros are written there any more
        self._limit = file.size

    def take(self, end: int) -> None:
        """Before a group is written up to ``end``: no zeros will be written there, nor are now."""
        if end > self._end:
            with self._lock:
                self._end = max(self._end, end)

    def cover(self, end: int) -> bool:
        """Whether a write up to ``end`` meets what was written before."""
        return self._is_off or end <= self._end

    def ask(self, position: int) -> None:
        """After a small group that ends at ``position``: see to it that the next ones meet zeros."""
        if not self._is_off and not self._is_asked and position + ZEROS_BYTES // 2 > self._end:
            self._is_asked = True
            self._threads.put(self._zero)

    def close(self) -> None:
        with self._lock:
            self._is_off = True

    def _zero(self) -> None:
        with self._lock:
            count = min(ZEROS_BYTES, self._limit - self._end)
            if count > 0 and not self._is_off:
                try:
                    self._file.write(_ZEROS[:count], self._end)
                    self._end += count
                except OSError:
                    self._is_off = True  # the write of a group will meet the same and report it
        self._is_asked = False


def _write_all(file: DataFile, parts: Sequence[memoryview], offset: int) -> int:
    """Write the parts one behind the other; returns where they end. Raises: OSError."""
    flags = 0 if file.is_direct else os.RWF_DSYNC
    left = list(parts)
    while left:
        count = os.pwritev(file.fd, left, offset, flags)
        count -= count % UNIT_BYTES  # after a short write: go on from a whole unit
        if count <= 0:
            raise OSError(errno.EIO, "the file system takes no more bytes")
        offset += count
        left = _without(left, count)
    return offset


def _without(parts: list[memoryview], count: int) -> list[memoryview]:
    """What is left of the parts behind their first ``count`` bytes."""
    for index, part in enumerate(parts):
        if count < len(part):
            return [part[count:], *parts[index + 1 :]]
        count -= len(part)
    return []


def _lock(path: Path) -> int:
    """Descriptor of the lock file, locked. Raises: Unavailable: it is held. OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise Unavailable(
            f"{path.parent} is in use by another node (pid {holder or 'unknown'}): "
            "end that one, or choose another directory"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _replace(directory: Path, name: str, data: bytes) -> None:
    new = directory / (name + _NEW)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        written = os.write(fd, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(directory / name)
    _sync_directory(directory)


def _create(path: Path, size_bytes: int) -> DataFile:
    new = path.with_name(path.name + _NEW)
    file = DataFile.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.posix_fallocate(file.fd, 0, size_bytes)
        os.fsync(file.fd)
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the journal file is there already", str(path))
        new.rename(path)
        _sync_directory(path.parent)
    except BaseException:
        file.close()
        with suppress(OSError):
            new.unlink()
        raise
    return DataFile(file.fd, path, is_direct=file.is_direct)


def _open(path: Path) -> DataFile:
    file = DataFile.open(path, os.O_RDWR)
    os.fdatasync(file.fd)
    file.drop_cache()  # what is read must come from the disk
    return file


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
