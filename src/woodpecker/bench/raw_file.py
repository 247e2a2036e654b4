"""The limit of a disk: synced writes without any log around them, and plain reads.

Writes go into blocks that were written before, which is the quickest state a file can be in; the best
of block size and method counts. RWF_DSYNC writes go through the page cache, the others around it. What
new blocks take, as those of a log that grows are, is measured beside it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import cpu_seconds, now

BLOCK_SIZES = (1 << 20, 4 << 20, 8 << 20)
SMALL_BYTES = 4096
FILE_BYTES = 128 << 20
TRY_SECONDS = 0.15
DIRECT, DSYNC = "O_DIRECT+fdatasync", "RWF_DSYNC"


class SyncedFile:
    """One file, and the ways to write it durably here. Everything blocks.

    Args:
        is_fresh: its blocks are allocated but were never written, as in a log that grows; else they were
            written before, which is the quickest state of all.
    Attributes:
        methods: those that this file system can do.
    """

    def __init__(self, path: Path, *, size_bytes: int = FILE_BYTES, is_fresh: bool = False) -> None:
        self.path = path
        self._size = size_bytes
        self._at = 0
        self._is_fresh = is_fresh
        self._descriptors = {DIRECT: _open(path, direct=True), DSYNC: _open(path, direct=False)}
        for method in [name for name, fd in self._descriptors.items() if fd < 0]:
            del self._descriptors[method]
        self.methods = tuple(self._descriptors)
        self._begin()

    def write(self, method: str, data: memoryview) -> None:
        """Write and sync, behind the last write or at the beginning again. Whole, aligned pages only."""
        if self._at + len(data) > self._size:
            self._at = 0
            if self._is_fresh:
                self._begin()
        fd = self._descriptors[method]
        if method == DSYNC:
            os.pwritev(fd, [data], self._at, os.RWF_DSYNC)
        else:
            os.pwrite(fd, data, self._at)
            os.fdatasync(fd)
        self._at += len(data)

    def close(self) -> None:
        """Close and remove the file."""
        for fd in self._descriptors.values():
            os.close(fd)
        self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        fd = next(iter(self._descriptors.values()))
        if self._is_fresh:
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, self._size)
            os.fsync(fd)
            return
        zeros = mmap.mmap(-1, 1 << 20)  # aligned
        for at in range(0, self._size, len(zeros)):
            os.pwrite(fd, memoryview(zeros)[: self._size - at], at)
        os.fsync(fd)


class RawFile:
    """A scratch file written before, and one with new blocks. Everything blocks."""

    def __init__(self, path: Path, *, size_bytes: int = FILE_BYTES) -> None:
        self._size = size_bytes
        self._buffer = mmap.mmap(-1, max(BLOCK_SIZES))
        self._buffer.write(os.urandom(len(self._buffer)))
        self._view = memoryview(self._buffer)
        self._file = SyncedFile(path, size_bytes=size_bytes)
        new = path.with_name(f"{path.name}-new")
        self._new = SyncedFile(new, size_bytes=size_bytes, is_fresh=True)
        self._large = self._growing = ("", 0)
        self._small = ""

    def choose(self) -> str:
        """Find the best method and size; returns what was found, for people."""
        self._large, self._growing = self._best(self._file), self._best(self._new)
        small = {
            method: _write(self._file, method, self._view[:SMALL_BYTES], TRY_SECONDS).entries
            for method in self._file.methods
        }
        self._small = max(small, key=small.__getitem__)
        (method, size), (grows, grown) = self._large, self._growing
        return (
            f"limit: {method}, {size >> 20} MiB, into blocks written before (new blocks: {grows}, "
            f"{grown >> 20} MiB); one at a time: {self._small}, 4 KiB"
        )

    def throughput(self, seconds: float) -> Slice:
        """Large synced writes for a while, by the best method."""
        method, size = self._large
        return _write(self._file, method, self._view[:size], seconds)

    def growing(self, seconds: float) -> Slice:
        """The same into blocks that were never written, making room for them included."""
        method, size = self._growing
        return _write(self._new, method, self._view[:size], seconds)

    def latency(self, seconds: float) -> Slice:
        """Synced writes of 4 KiB, one at a time."""
        return _write(self._file, self._small, self._view[:SMALL_BYTES], seconds)

    def close(self) -> None:
        """Close and remove the files."""
        self._file.close()
        self._new.close()
        self._view.release()
        self._buffer.close()

    def _best(self, file: SyncedFile) -> tuple[str, int]:
        tried = {
            (method, size): _write(file, method, self._view[:size], TRY_SECONDS).mb_s
            for method in file.methods
            for size in BLOCK_SIZES
            if size <= self._size
        }
        return max(tried, key=tried.__getitem__)


def _write(file: SyncedFile, method: str, data: memoryview, seconds: float) -> Slice:
    done = Slice()
    cpu, begin = cpu_seconds(), now()
    end = last = begin
    while end - begin < seconds:
        file.write(method, data)
        end = now()
        done.entries += 1
        done.bytes += len(data)
        done.latencies.append(end - last)
        last = end
    done.seconds, done.cpu_seconds = end - begin, cpu_seconds() - cpu
    return done


def _open(path: Path, *, direct: bool) -> int:
    """A descriptor, or -1 where the file system refuses direct writes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)
    try:
        return os.open(path, flags, 0o600)
    except OSError:
        if not direct:
            raise
        return -1


def read_files(paths: list[Path], *, direct: bool, size: int = 4 << 20) -> Slice:
    """Read whole files once, one read after the other, into one buffer."""
    buffer = mmap.mmap(-1, size)
    done, cpu, begin = Slice(), cpu_seconds(), now()
    for path in paths:
        done.bytes += sum(_reads(path, buffer, direct=direct))
    done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
    buffer.close()
    return done


def _reads(path: Path, buffer: mmap.mmap, *, direct: bool) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        at = 0
        while (count := os.preadv(fd, [buffer], at)) > 0:
            yield count
            at += count
    finally:
        os.close(fd)


def forget_cache(paths: list[Path]) -> None:
    """Have the next buffered reads of these files come from the disk."""
    for path in paths:
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
