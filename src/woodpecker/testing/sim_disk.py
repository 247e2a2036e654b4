"""A node's disk in memory, for the virtual loop: it loses, tears, flips, fills up, slows down and fails.

``SimDisk`` is the hardware; ``open`` gives the ``Disk`` of one process. ``crash`` ends that process and
the power with it: of the write under way any part may be on the disk, sector by sector; of those that
wait behind it, nothing. A process that was killed while the power stayed is ``kill``.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

from woodpecker.errors import Unavailable
from woodpecker.logstore.disk import UNIT_BYTES

SECTOR_BYTES = 512


class SimDisk:
    """One disk.

    Attributes:
        sync_ms: least and most time of one write with its sync.
        capacity_bytes: journal files in all; ``create`` fails above.
        fail_write_in: the so-manyth write from now on fails with EIO; None: none does.
        syncs, bytes_written: what was done, for tests that must not be idle.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        capacity_bytes: int = 1 << 30,
        sync_ms: tuple[float, float] = (0.1, 0.5),
    ) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.sync_ms = sync_ms
        self.fail_write_in: int | None = None
        self.syncs = 0
        self.bytes_written = 0
        self.journal: dict[int, bytearray] = {}
        self.small: dict[str, bytes] = {}
        self._process: SimProcessDisk | None = None

    def open(self) -> SimProcessDisk:
        """Hand it to a process. Raises: Unavailable: another one has it."""
        if self._process is not None:
            raise Unavailable("the simulated disk is in use by another node")
        self._process = SimProcessDisk(self)
        return self._process

    def crash(self) -> None:
        """Power is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(is_torn=True)

    def kill(self) -> None:
        """The process is gone; what it handed over is written."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(is_torn=False)

    def flip(self, number: int, offset: int, mask: int = 1) -> None:
        """Change bits of one byte of a journal file."""
        self.journal[number][offset] ^= mask

    def wipe(self) -> None:
        """Another disk is put in its place: an empty one."""
        assert self._process is None
        self.journal.clear()
        self.small.clear()

    def used_bytes(self) -> int:
        """Of all journal files."""
        return sum(map(len, self.journal.values()))

    def release(self, process: SimProcessDisk) -> None:
        """The process has closed it."""
        if self._process is process:
            self._process = None


class SimProcessDisk:
    """``Disk`` of one process."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Write] = deque()
        self._is_stopped = False
        self._error: OSError | None = None

    async def load(self, name: str) -> bytes | None:
        await self._step()
        return self._disk.small.get(name)

    async def store(self, name: str, data: bytes) -> None:
        await self._step()
        self._disk.small[name] = bytes(data)
        await self._step()

    async def files(self) -> Sequence[int]:
        await self._step()
        return sorted(self._disk.journal)

    async def create(self, number: int, size_bytes: int) -> SimJournalFile:
        await self._step()
        if number in self._disk.journal:
            raise FileExistsError(errno.EEXIST, f"journal file {number}")
        if self._disk.used_bytes() + size_bytes > self._disk.capacity_bytes:
            raise OSError(errno.ENOSPC, "No space left on the simulated disk")
        self._disk.journal[number] = bytearray(size_bytes)
        await self._step()
        return SimJournalFile(self, number, self._disk.journal[number])

    async def open(self, number: int) -> SimJournalFile:
        await self._step()
        try:
            return SimJournalFile(self, number, self._disk.journal[number])
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, f"journal file {number}") from None

    async def delete(self, number: int) -> None:
        await self._step()
        self._disk.journal.pop(number, None)

    def free_bytes(self) -> tuple[int, int]:
        capacity = self._disk.capacity_bytes
        return max(0, capacity - self._disk.used_bytes()), capacity

    async def close(self) -> None:
        await self.drain()
        self._is_stopped = True
        self._disk.release(self)

    # --- for files ---

    def put(
        self, data: bytearray, parts: Sequence[memoryview], offset: int
    ) -> asyncio.Future[None]:
        """Write behind all writes before."""
        write = _Write(self._loop.create_future(), data, parts, offset)
        self._queue.append(write)
        if len(self._queue) == 1:
            self._begin()
        return write.future

    async def step(self, work: Callable[[], memoryview] | None = None) -> memoryview:
        """Some time passes, then ``work`` is done, unless the process was stopped meanwhile."""
        await self._step()
        return memoryview(b"") if work is None else work()

    async def drain(self, data: bytearray | None = None) -> None:
        """Return when nothing is being written any more, or nothing to the file of these bytes."""
        while not self._is_stopped:
            left = [write.future for write in self._queue if data is None or write.data is data]
            if not left:
                return
            await asyncio.wait(left)

    def stop(self, *, is_torn: bool) -> None:
        """The process is gone."""
        self._is_stopped = True
        for index, write in enumerate(self._queue):
            if not is_torn:
                write.apply()
            elif index == 0:
                write.tear(self._disk.rng)
        self._queue.clear()

    async def _step(self) -> None:
        await asyncio.sleep(self._disk.rng.uniform(*self._disk.sync_ms) / 1000)
        if self._is_stopped:
            self._never()

    def _never(self) -> NoReturn:
        raise OSError(errno.EIO, "the simulated process is gone")

    def _begin(self) -> None:
        delay_ms = self._disk.rng.uniform(*self._disk.sync_ms)
        self._loop.call_later(delay_ms / 1000, self._finish)

    def _finish(self) -> None:
        if self._is_stopped:
            return
        write = self._queue.popleft()
        self._count_down()
        if self._error is None:
            write.apply()
            self._disk.syncs += 1
            self._disk.bytes_written += sum(map(len, write.parts))
            write.settle(None)
        else:
            write.tear(self._disk.rng)
            write.settle(self._error)
        if self._queue:
            self._begin()

    def _count_down(self) -> None:
        left = self._disk.fail_write_in
        if left is not None:
            self._disk.fail_write_in = left - 1 if left > 1 else None
            if left <= 1:
                self._error = OSError(errno.EIO, "Input/output error (simulated)")


class SimJournalFile:
    """``JournalFile`` of a simulated disk."""

    def __init__(self, disk: SimProcessDisk, number: int, data: bytearray) -> None:
        self.number = number
        self.size_bytes = len(data)
        self._disk = disk
        self._data = data
        self._is_closed = False

    def write(self, parts: Sequence[memoryview], offset: int) -> asyncio.Future[None]:
        size = sum(map(len, parts))
        assert not offset % UNIT_BYTES and not any(len(part) % UNIT_BYTES for part in parts)
        assert offset + size <= self.size_bytes and not self._is_closed
        return self._disk.put(self._data, parts, offset)

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        assert not offset % UNIT_BYTES and not size_bytes % UNIT_BYTES
        if self._is_closed:
            raise OSError(errno.EBADF, f"journal file {self.number} is closed")
        return await self._disk.step(
            lambda: memoryview(bytes(self._data[offset : offset + size_bytes]))
        )

    async def sync(self) -> None:
        await self._disk.step()

    async def close(self) -> None:
        await self._disk.drain(self._data)
        self._is_closed = True


class _Write:
    def __init__(
        self,
        future: asyncio.Future[None],
        data: bytearray,
        parts: Sequence[memoryview],
        offset: int,
    ) -> None:
        self.future = future
        self.data = data
        self.parts = parts
        self.offset = offset

    def apply(self) -> None:
        at = self.offset
        for part in self.parts:
            self.data[at : at + len(part)] = part
            at += len(part)

    def tear(self, rng: random.Random) -> None:
        """Some sectors are written: none, all, the first ones, or any."""
        new = b"".join(self.parts)
        sectors = range(0, len(new), SECTOR_BYTES)
        first = rng.randrange(len(sectors) + 1)
        chance = rng.random()
        kept = {0: sectors[:0], 1: sectors, 2: sectors[:first]}.get(
            rng.randrange(4), [at for at in sectors if rng.random() < chance]
        )
        for at in kept:
            place = self.offset + at
            self.data[place : place + SECTOR_BYTES] = new[at : at + SECTOR_BYTES]

    def settle(self, error: OSError | None) -> None:
        if not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
