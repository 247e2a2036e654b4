"""What keeps a journal going and small: files made ahead, checkpoints, files deleted, blocks moved forward.

- The next file is there before the current one is full, unless there is no room: then blocks are refused,
  and what is left of the current file is kept for fences, floors and repairs.
- Each new file is followed by a *checkpoint*: everything that stands, but for the blocks, is said again. It is
  written in pieces, between other records, and may take several files. Once it is complete, earlier files matter only for the blocks
  that still live in them.
- A file in which nothing lives is deleted, once what made it so is on the disk.
- Where little of an old file still lives, those blocks are written again, and the file can go.

One task does all of it, one step after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from woodpecker.codec.compression import Buffer
from woodpecker.codec.journal import Kind, encode_copy
from woodpecker.core.node_disk import DiskState
from woodpecker.errors import Corrupt, Unavailable
from woodpecker.logstore.block_index import Place
from woodpecker.logstore.copies import Copies, Copy, HeldLog
from woodpecker.logstore.disk import Disk
from woodpecker.logstore.journal import Journal
from woodpecker.logstore.reading import Reading
from woodpecker.logstore.settings import NodeSettings
from woodpecker.runtime.runtime import Runtime

TICK_S = 2.0
CHUNK_RECORDS = 256  # of a checkpoint, put at once
MOVE_BYTES, MOVE_BLOCKS = 4 << 20, 256  # moved at once: in one turn of the loop
OLD_FILES = 4  # files this far back are old enough to have their rest moved
LIVE_SHARE = 0.25  # at most so much of a file is moved
HURRIED_SHARE = 0.5  # ... above the soft watermark
WRITERS_RESERVE = 8  # one part in so many of the last file is kept for others than writers,
REPAIRS_RESERVE = 32  # ... and for others than writers and recoverers

FINE, SOFT, HARD = 0, 1, 2

_log = logging.getLogger("woodpecker.logstore")


class Upkeep:
    """See the module. Start ``run`` as a task.

    Attributes:
        pressure: as in ``Appended``.
        room_bytes, used_bytes: of the disk, for this journal; as last measured.
    """

    def __init__(
        self,
        disk: Disk,
        journal: Journal,
        copies: Copies,
        reading: Reading,
        state: DiskState,
        settings: NodeSettings,
        runtime: Runtime,
    ) -> None:
        self.pressure = FINE
        self.room_bytes = self.used_bytes = 0
        self._disk = disk
        self._journal = journal
        self._copies = copies
        self._reading = reading
        self._settings = settings
        self._runtime = runtime
        self._eras = {name: era for era, name in enumerate(state.incarnations)}
        self._wake = asyncio.Event()
        self._checkpointed = 0  # file in which the last complete checkpoint began
        self._checkpoint_end = 0  # ... and ended: one larger than a file must not call for the next
        self._is_short = False  # there was no room for the next file
        self._stuck: dict[int, None] = {}  # files with a block that can no longer be read

    def wake(self) -> None:
        """Something may be due: a file was begun, copies were dropped."""
        self._wake.set()

    async def begin(self) -> None:
        """Make the first files of this start and write its checkpoint. Raises: OSError, Unavailable."""
        await self._journal.prepare(ahead=False)
        await self._write_checkpoint()
        await (
            self._delete_dead()
        )  # every start makes a file: many short lives must not fill the disk
        await self._make_files()
        self._measure()

    async def run(self) -> None:
        """For as long as the node lives; ends when its journal has failed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except Unavailable:
                return  # the journal has failed: the node stops
            except OSError as error:
                _log.warning("journal upkeep failed and is tried again: %s", error)

    def admits(self, size_bytes: int) -> bool:
        """Whether there is room for a block of a writer."""
        share = WRITERS_RESERVE if self._is_short else REPAIRS_RESERVE
        return self.pressure < HARD and self._fits(size_bytes, share)

    def admits_repair(self, size_bytes: int) -> bool:
        """Whether there is room for a block that is repaired."""
        return self._fits(size_bytes, REPAIRS_RESERVE)

    def room_text(self) -> str:
        """Why there is no room, for people."""
        if self.pressure < HARD:
            return "the next file of its journal is not there yet"
        return (
            f"its disk is full up to the hard watermark ({self.used_bytes} of {self.room_bytes} bytes "
            "in use); it takes blocks again when segments have been sealed"
        )

    def _fits(self, size_bytes: int, reserve: int) -> bool:
        journal = self._journal
        return (
            journal.has_next
            or journal.room_bytes >= size_bytes + self._settings.file_bytes // reserve
        )

    # --- steps ---

    async def _work(self) -> None:
        self._measure()
        while await self._step():
            self._measure()

    async def _step(self) -> bool:
        """Do the most urgent thing; False: nothing is due."""
        if not self._journal.has_next and await self._make_files():
            return True
        if await self._delete_dead():
            return True
        if self._checkpoint_end < self._journal.current:
            await self._write_checkpoint()
            return True
        return await self._move_rest()

    async def _make_files(self) -> bool:
        """Whether the current and the next file are there now."""
        size = self._settings.file_bytes
        limit = self._settings.journal_max_bytes
        on_disk = sum(file.size_bytes for file in self._journal.files.values())
        free = self._disk.free_bytes()[0]
        fits = limit is None or on_disk + size <= limit
        ahead = fits and free - self._settings.spared_bytes >= size
        with contextlib.suppress(OSError):
            await self._journal.prepare(ahead=ahead)
        self._is_short = not self._journal.has_next
        return not self._is_short

    def _measure(self) -> None:
        """Set ``pressure`` by what is used of what could be used."""
        settings, journal = self._settings, self._journal
        on_disk = sum(file.size_bytes for file in journal.files.values())
        unused = journal.room_bytes if journal.current in journal.files else 0
        unused += settings.file_bytes if journal.has_next else 0
        self.used_bytes = on_disk - unused
        room = on_disk + max(0, self._disk.free_bytes()[0] - settings.spared_bytes)
        if settings.journal_max_bytes is not None:
            room = min(room, settings.journal_max_bytes)
        self.room_bytes = max(0, room - settings.file_bytes)  # one file is always kept ahead
        full = self.used_bytes / self.room_bytes if self.room_bytes else 1.0
        self.pressure = (
            HARD if full >= settings.hard_full else SOFT if full >= settings.soft_full else FINE
        )

    async def _write_checkpoint(self) -> None:
        begun = self._journal.current
        records = 0
        for log in list(self._copies.logs.values()):
            records += self._say(log)
            if records >= CHUNK_RECORDS:
                records = 0
                await self._synced()
                if not self._journal.has_next:
                    await self._make_files()
        self._journal.put(Kind.CHECKPOINT, segment_id=begun)
        ended = self._journal.current
        await self._synced()
        self._checkpointed, self._checkpoint_end = begun, ended

    def _say(self, log: HeldLog) -> int:
        """Put all that stands of one log; how many records that took."""
        put, log_id = self._journal.put, log.log_id
        if log.name:
            put(Kind.NAME, log.name.encode(), log_id=log_id)
        if log.floor:
            put(Kind.FLOOR, log_id=log_id, segment_id=log.floor)
        for copy in log.copies.values():
            replica = copy.replica
            put(
                Kind.COPY, encode_copy(replica), era=self._eras[replica.incarnation], log_id=log_id,
                segment_id=copy.segment_id, epoch=replica.epoch, block=replica.last,
            )  # fmt: skip
        return 2 + len(log.copies)

    async def _delete_dead(self) -> bool:
        numbers = self._dead()
        if not numbers:
            return False
        await self._synced()  # the floors and moves that made them so; what died meanwhile waits
        for number in numbers:
            file = self._journal.files.pop(number)
            self._copies.uses.pop(number, None)
            self._stuck.pop(number, None)
            await file.close()
            await self._disk.delete(number)
        return True

    def _dead(self) -> list[int]:
        return [number for number in self._finished() if not self._live_bytes(number)]

    def _finished(self) -> list[int]:
        """Files that matter only for the blocks in them."""
        before = min(self._checkpointed, self._journal.current)
        return sorted(number for number in self._journal.files if number < before)

    def _live_bytes(self, number: int) -> int:
        use = self._copies.uses.get(number)
        return 0 if use is None else use.live_bytes

    async def _move_rest(self) -> bool:
        """Write some blocks of a mostly dead file again; False: no file is worth it."""
        if self.pressure >= HARD:
            return False
        number = next(filter(self._is_worth_moving, self._finished()), None)
        if number is None:
            return False
        found = await self._pick(number)
        if not found:
            self._stuck[number] = None
            return True
        # all in one turn: they lie side by side, and so take less room than before
        put = [
            (copy, block, self._put_moved(copy, block, data))
            for copy, block, data in found
            if not copy.is_dropped
        ]
        await self._synced()
        for copy, block, place in put:  # from now on looked for in their new places
            if not copy.is_dropped and copy.index.file(block) == number:
                self._copies.moved(copy, block, place)
        return True

    def _is_worth_moving(self, number: int) -> bool:
        hurried = self.pressure >= SOFT
        if number in self._stuck or (number > self._journal.current - OLD_FILES and not hurried):
            return False
        share = HURRIED_SHARE if hurried else LIVE_SHARE
        return self._live_bytes(number) <= share * self._settings.file_bytes

    async def _pick(self, file: int) -> list[tuple[Copy, int, Buffer]]:
        """Blocks that live in a file, of as many copies as it takes; those that can be read."""
        found: list[tuple[Copy, int, Buffer]] = []
        size = 0
        for copy in list(self._copies.use(file).copies):
            index = copy.index
            for number in [n for n in range(len(index)) if index.file(n) == file]:
                try:
                    (data,) = await self._reading.load(copy, [number])
                except (Corrupt, OSError) as error:  # it stays where it is, and the file with it
                    _log.warning("block %d of %s is not moved: %s", number, copy.name, error)
                    continue
                except Unavailable:
                    break  # dropped meanwhile
                found.append((copy, number, data))
                size += len(data)
                if size >= MOVE_BYTES or len(found) == MOVE_BLOCKS:
                    return found
        return found

    def _put_moved(self, copy: Copy, number: int, block: Buffer) -> Place:
        replica = copy.replica
        return self._journal.put_block(
            Kind.MOVED, memoryview(block), _ignore, is_placed=False,
            era=self._eras[replica.incarnation], log_id=copy.log.log_id,
            segment_id=copy.segment_id, epoch=replica.epoch, block=number,
        )  # fmt: skip

    async def _synced(self) -> None:
        """Wait until all that was put is synced; make the file that it is for, if that is missing."""
        while self._journal.current not in self._journal.files:
            if not await self._make_files():
                await self._runtime.sleep_ms(TICK_S * 1000)
        await self._journal.synced()


def _ignore(_error: Exception | None) -> None:
    """Upkeep waits for the sync, not for single records."""
