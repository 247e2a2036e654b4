"""A node's start: its journal read back, synced, judged; the identity it goes on with, made durable.

Nothing is answered before this has ended. What was read is synced first: it may be in the disk's cache only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import zip_longest

from woodpecker.codec import records
from woodpecker.codec.journal import FileHeader, parse_file_header, seed_of
from woodpecker.codec.journal_walk import Ask, Ending, Walk, is_zero, walk
from woodpecker.core.node_disk import NO_JOURNAL, Closing, DiskState, Scar, Start, new_disk, started
from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.logstore.copies import Copies
from woodpecker.logstore.disk import UNIT_BYTES, Disk, JournalFile
from woodpecker.logstore.rebuild import Rebuild
from woodpecker.runtime.runtime import Runtime

IDENTITY = "identity"
WINDOW_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a node starts with. ``damage``: what was lost of single copies, in words."""

    start: Start
    copies: Copies
    files: dict[int, JournalFile]
    next_file: int
    next_record: int
    damage: tuple[str, ...]


async def disk_boot(disk: Disk) -> int:
    """Boot number of the last node that ran on the disk; 0: none did. Raises: Corrupt, OSError."""
    state = await _load(disk)
    return 0 if state is None else state.boot


async def replay(disk: Disk, runtime: Runtime, node: str, *, boot_seen: int) -> Replayed:
    """See the module. The new identity is durable when this returns.

    Raises: InvalidRequest: the disk is another node's, or a newer version wrote it. Corrupt: the identity
    cannot be read, or is gone and the journal is not. OSError.
    """
    state = await _load(disk)
    numbers = list(await disk.files())
    if state is None and numbers:
        raise Corrupt(
            f"node {node}: there is a journal, but the disk's identity is gone: remove the whole directory "
            "to start as a new node",
            where=IDENTITY,
        )
    if state is not None and state.node != node:
        raise InvalidRequest(
            f"this disk belongs to node {state.node}, not to {node}: give each node its own directory"
        )
    reading = _Reading(disk, runtime, state)
    try:
        if state is not None:
            await reading.run(numbers)
        return await reading.finish(node, boot_seen)
    except BaseException:
        for file in reading.files.values():
            await file.close()
        raise


async def store_identity(disk: Disk, state: DiskState) -> None:
    """Make the state durable. Raises: OSError."""
    await disk.store(IDENTITY, records.encode_disk(state))


async def _load(disk: Disk) -> DiskState | None:
    data = await disk.load(IDENTITY)
    return None if data is None else records.decode_disk(data, where=IDENTITY)


class _Reading:
    def __init__(self, disk: Disk, runtime: Runtime, state: DiskState | None) -> None:
        self.files: dict[int, JournalFile] = {}
        self._disk = disk
        self._runtime = runtime
        self._state = state
        self._rebuild = Rebuild(state.incarnations if state else ())
        self._scars: list[Scar] = []
        self._end: Closing = NO_JOURNAL
        self._next_record = 1

    async def run(self, numbers: list[int]) -> None:
        """Read all files, oldest first."""
        windows = [_Window(await self._open(number), self._runtime) for number in numbers]
        try:
            await self._drop_blank(windows)
            for window, after in zip_longest(windows, windows[1:]):
                await self._read(window, after)
                await window.close()
                await window.file.sync()
        finally:
            for window in windows:
                await window.close()

    async def _drop_blank(self, windows: list[_Window]) -> None:
        """Delete the last files as long as they are blank: made ahead, never used."""
        while windows and await windows[-1].is_blank():
            file = windows.pop().file
            await self.files.pop(file.number).close()
            await self._disk.delete(file.number)

    async def finish(self, node: str, boot_seen: int) -> Replayed:
        """Judge, and make the outcome durable."""
        token = self._runtime.token()
        if self._state is None:
            start = new_disk(node, token, boot_seen)
        else:
            start = started(
                self._state, token=token, boot_seen=boot_seen, files=self.files,
                scars=self._scars, end=self._end,
            )  # fmt: skip
        await store_identity(self._disk, start.state)
        copies, damage = self._rebuild.finish(self._runtime.monotonic_ms())
        return Replayed(
            start=start,
            copies=copies,
            files=self.files,
            next_file=1 + max((*self.files, *(file for file, _ in start.state.joints)), default=0),
            next_record=self._next_record,
            damage=tuple(damage),
        )

    async def _open(self, number: int) -> JournalFile:
        file = self.files[number] = await self._disk.open(number)
        return file

    async def _read(self, window: _Window, after: _Window | None) -> None:
        """One file; ``after``: the next one that is there."""
        assert self._state is not None
        number = window.file.number
        header = await self._header(window)
        if header is None:
            self._scars.append((number, 0))
        limit = dict(self._state.joints).get(number)
        if limit is None and after is not None and after.file.number == number + 1:
            following = await self._header(after)
            limit = None if following is None else following.first_record
        steps = walk(
            window.file.size_bytes,
            seed_of(self._state.incarnations[0], number),
            None if header is None else header.first_record,
            limit=limit,
            is_last=after is None,
        )
        ending = await self._walk(window, steps)
        self._scars += [(number, offset) for offset in ending.scars]
        if ending.next_record is not None:
            self._next_record = max(self._next_record, ending.next_record)
        self._end = number, ending.offset, self._next_record

    async def _header(self, window: _Window) -> FileHeader | None:
        """None: it is damaged."""
        number = window.file.number
        try:
            header = parse_file_header(
                await window.view(0, UNIT_BYTES), where=f"journal file {number}"
            )
        except Corrupt:
            return None
        assert self._state is not None
        if header.number != number or header.home != self._state.incarnations[0]:
            raise Corrupt(
                f"journal file {number} is file {header.number} of another disk: put the directory back "
                "as it was, or remove all of it to start as a new node",
                where=f"journal file {number}",
            )
        return header

    async def _walk(self, window: _Window, steps: Walk) -> Ending:
        answer = memoryview(b"")
        try:
            step = next(steps)
            while True:
                if isinstance(step, Ask):
                    answer = await window.view(step.offset, step.size_bytes)
                else:
                    self._rebuild.take(window.file.number, step)
                step = steps.send(answer)
        except StopIteration as stop:
            ending: Ending = stop.value
            return ending


class _Window:
    """Sequential reading of one file; the next bytes are read while these are looked at."""

    def __init__(self, file: JournalFile, runtime: Runtime) -> None:
        self.file = file
        self._runtime = runtime
        self._start = 0
        self._data = memoryview(b"")
        self._ahead: asyncio.Task[memoryview] | None = None

    async def view(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes of the file, fewer at its end. ``offset`` and size are whole units."""
        end = min(offset + size_bytes, self.file.size_bytes)
        if not self._start <= offset <= end <= self._start + len(self._data):
            await self._load(offset, end)
        at = offset - self._start
        return self._data[at : at + end - offset]

    async def is_blank(self) -> bool:
        """Whether there are only zeros."""
        for offset in range(0, self.file.size_bytes, WINDOW_BYTES):
            if not is_zero(await self.view(offset, WINDOW_BYTES)):
                return False
        return True

    async def _load(self, offset: int, end: int) -> None:
        ahead, self._ahead = self._ahead, None
        after = self._start + len(self._data)  # where the bytes that were read ahead begin
        more = memoryview(b"") if ahead is None else await ahead
        if self._start <= offset <= after and end <= after + len(more):
            kept = self._data[offset - self._start :]
            data = memoryview(b"".join((kept, more))) if kept else more
        else:
            data = await self.file.read(offset, max(WINDOW_BYTES, end - offset))
        self._start, self._data = offset, data
        after = offset + len(data)
        if after < self.file.size_bytes:
            self._ahead = self._runtime.spawn(
                self.file.read(after, WINDOW_BYTES), f"read journal file {self.file.number}"
            )

    async def close(self) -> None:
        """Nothing is read any more."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
