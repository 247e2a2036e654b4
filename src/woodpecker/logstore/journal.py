"""The journal of a node: one sequence of records for all its copies, synced in groups.

What is put while a group is being written forms the next one. Groups are written one after another, each
synced before the next begins, so "synced up to here" covers everything before; whoever put a record is
told in the order of the records. Two groups may be handed to the disk, so that it need not wait for the
event loop; the second one only when it is full.

A failed write or sync is final: nothing is written after it, and everybody who waits is told.

Files: one is being written, the next one is there already (``prepare``). A file that was begun is finished
or left; nothing is ever written again where something was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from woodpecker.codec.compression import Buffer
from woodpecker.codec.journal import (
    NO_LOG,
    RECORD_BYTES,
    UNIT_BYTES,
    FileHeader,
    Kind,
    encode_file_header,
    item_digest,
    padded,
    put_record,
    seed_of,
)
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.node_disk import Closing, DiskState
from woodpecker.errors import Unavailable
from woodpecker.logstore.block_index import Place as RecordPlace
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.disk import Disk, JournalFile
from woodpecker.logstore.group import Done, Group, Stage
from woodpecker.runtime.runtime import Runtime

GROUP_BYTES = 8 << 20  # a group is not added to above this
FULL_BYTES = 1 << 20  # a group that may wait behind the one being written
GROUPS_AT_DISK = 2
LARGE_BYTES = 64 << 10  # a block from this size on gets a place of its own
_LATENCIES = 1024


class Journal:
    """See the module. One event loop.

    Args:
        files: those that are there already, open for reading.
        next_file, next_record: numbers that were never used.
        on_rotate: told when a new file has been begun; something must then call ``prepare`` soon.
        on_failure: told once, with the error that ended the journal.
    """

    def __init__(
        self,
        disk: Disk,
        runtime: Runtime,
        buffers: Buffers,
        state: DiskState,
        *,
        file_bytes: int,
        files: dict[int, JournalFile],
        next_file: int,
        next_record: int,
        on_rotate: Callable[[], None],
        on_failure: Callable[[OSError], None],
    ) -> None:
        self.files = files
        self.current = next_file  # the file that records are put into
        self.failure: Unavailable | None = None
        self.queued_bytes = 0  # payloads put and not yet synced
        self.queued_records = 0
        self.syncs = 0
        self.latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._disk = disk
        self._runtime = runtime
        self._buffers = buffers
        self._state = state
        self._file_bytes = file_bytes
        self._next_record = next_record
        self._end = 0  # offset in the current file behind all groups; 0: it was not begun
        self._seed = seed_of(state.incarnations[0], next_file)
        self._stage = Stage(buffers)
        self._open: Group | None = None
        self._waiting: deque[Group] = deque()  # the open one is the last of them
        self._at_disk: deque[Group] = deque()
        self._telling: list[Done] | None = None  # of a synced group, while they are being told
        self._is_scheduled = False
        self._on_rotate = on_rotate
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()

    # --- putting records ---

    def put(
        self, kind: Kind, payload: Buffer = b"", done: Done | None = None, *, era: int = 0,
        log_id: str = "", segment_id: int = 0, epoch: int = 0, block: int = NO_BLOCK,
    ) -> None:  # fmt: skip
        """Put a record that carries no block. Raises: Unavailable: the journal has failed."""
        group = self._group(len(payload), in_place=False)
        view, at, _ = group.small(payload)
        put_record(
            view, at, self._seed, kind, self._take_number(), len(payload), era=era,
            log_id=bytes.fromhex(log_id) if log_id else NO_LOG, segment_id=segment_id,
            epoch=epoch, block=block, digest=item_digest(payload),
        )  # fmt: skip
        self._added(group, len(payload), done)

    def put_block(
        self, kind: Kind, payload: memoryview, done: Done, *, is_placed: bool, era: int,
        log_id: str, segment_id: int, epoch: int, block: int,
    ) -> RecordPlace:  # fmt: skip
        """Put a block; returns where its record will lie.

        ``is_placed``: the payload is a view from ``Buffers.for_block`` that nobody will write to any more:
        it is not copied, and what lies around it is overwritten.

        Raises: Unavailable: the journal has failed.
        """
        size = len(payload)
        in_place = size >= LARGE_BYTES
        if in_place and not is_placed:
            place = self._buffers.for_block(size)
            place[:] = payload
            payload = place
        group = self._group(size, in_place=in_place)
        if in_place:
            view, at, offset = group.in_place(payload.obj, size)  # type: ignore[arg-type]
        else:
            view, at, offset = group.small(payload)
        put_record(
            view, at, self._seed, kind, self._take_number(), size, era=era,
            log_id=bytes.fromhex(log_id), segment_id=segment_id, epoch=epoch, block=block,
        )  # fmt: skip
        self._added(group, size, done)
        return group.file, offset

    def when_synced(self, done: Done) -> None:
        """Call ``done`` when all that was put so far is synced, and all before were told: at once if so."""
        if self.failure is not None:
            done(self.failure)
        elif self._waiting:
            self._waiting[-1].done.append(done)
        elif self._at_disk:
            self._at_disk[-1].done.append(done)
        elif self._telling is not None:
            self._telling.append(done)  # behind those of the group who were not told yet
        else:
            done(None)

    async def synced(self) -> None:
        """Return when all that was put so far is synced. Raises: Unavailable: it never will be."""
        future = self._loop.create_future()
        self.when_synced(partial(_resolve, future))
        await future

    # --- room ---

    @property
    def room_bytes(self) -> int:
        """What still fits into the current file."""
        return self._file_bytes - (self._end + self._open_bytes)

    @property
    def has_next(self) -> bool:
        """Whether the current file and the one after it are there."""
        return self.current in self.files and self.current + 1 in self.files

    @property
    def end(self) -> Closing:
        """Where the journal ends once all is synced."""
        return self.current, self._end + self._open_bytes, self._next_record

    async def prepare(self, *, ahead: bool) -> None:
        """Have the current file made, and the next one if ``ahead``. Raises: OSError: no room."""
        for number in (self.current, self.current + 1)[: 2 if ahead else 1]:
            if number not in self.files:
                self.files[number] = await self._disk.create(number, self._file_bytes)
                self._start_writing()

    # --- inner works ---

    @property
    def _open_bytes(self) -> int:
        return 0 if self._open is None else self._open.total_bytes

    def _take_number(self) -> int:
        number = self._next_record
        self._next_record = number + 1
        return number

    def _group(self, payload_bytes: int, *, in_place: bool) -> Group:
        """The group that a record goes into."""
        if self.failure is not None:
            raise self.failure
        group = self._open
        if group is not None:
            size = group.grown_by(payload_bytes, in_place=in_place)
            if size <= GROUP_BYTES and self._end + size <= self._file_bytes:
                return group
            self._finish_open()
        if self._end + padded(RECORD_BYTES + payload_bytes) + UNIT_BYTES > self._file_bytes:
            self._begin_next_file()
        group = self._open = Group(self.current, self._end, self._stage)
        if not self._end:
            group.put_header(self._file_header())
            self._end = UNIT_BYTES
        self._waiting.append(group)
        return group

    def _finish_open(self) -> None:
        group, self._open = self._open, None
        if group is not None:
            group.finish(self._seed)
            self._end = group.records_at + group.size_bytes

    def _begin_next_file(self) -> None:
        self.current += 1
        self._end = 0
        self._seed = seed_of(self._state.incarnations[0], self.current)
        self._on_rotate()

    def _file_header(self) -> bytes:
        incarnations = self._state.incarnations
        return encode_file_header(
            FileHeader(
                node=self._state.node,
                home=incarnations[0],
                incarnation=incarnations[-1],
                era=len(incarnations) - 1,
                number=self.current,
                size_bytes=self._file_bytes,
                first_record=self._next_record,
            )
        )

    def _added(self, group: Group, payload_bytes: int, done: Done | None) -> None:
        group.payload_bytes += payload_bytes
        group.records += 1
        self.queued_bytes += payload_bytes
        self.queued_records += 1
        if done is not None:
            group.done.append(done)
        if not self._is_scheduled and (not self._at_disk or group.total_bytes >= FULL_BYTES):
            self._is_scheduled = True
            self._loop.call_soon(self._scheduled)

    def _scheduled(self) -> None:
        """At the end of a turn of the loop: all that came in it goes together."""
        self._is_scheduled = False
        self._start_writing()

    def _start_writing(self) -> None:
        while self._waiting and len(self._at_disk) < GROUPS_AT_DISK and self.failure is None:
            group = self._waiting[0]
            file = self.files.get(group.file)
            if file is None or (self._at_disk and group.total_bytes < FULL_BYTES):
                return
            if group is self._open:
                self._finish_open()
            self._waiting.popleft()
            self._at_disk.append(group)
            future = file.write(group.parts, group.offset)
            group.parts = []
            future.add_done_callback(partial(self._written, group, self._runtime.monotonic_ms()))

    def _written(self, group: Group, began_ms: float, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if self.failure is not None:
            return
        if future.cancelled() or error is not None:
            self._fail(error if isinstance(error, OSError) else OSError(f"write ended: {error!r}"))
            return
        self.latencies_ms.append(self._runtime.monotonic_ms() - began_ms)
        self.syncs += 1
        self._at_disk.popleft()
        self.queued_bytes -= group.payload_bytes
        self.queued_records -= group.records
        self._start_writing()  # before answers are sent: the disk works meanwhile
        self._tell(group, None)

    def _fail(self, error: OSError) -> None:
        self.failure = Unavailable(
            f"node {self._state.node} stops: its journal could not be written ({error}); what is on its "
            "disk is judged when it starts again"
        )
        groups = [*self._at_disk, *self._waiting]
        self._at_disk.clear()
        self._waiting.clear()
        self._open = None
        for group in groups:
            self._tell(group, self.failure)
        self._on_failure(error)

    def _tell(self, group: Group, error: Exception | None) -> None:
        """What became of a group. Who raises does not keep the others from being told."""
        self._telling = group.done
        for done in group.done:  # more may come while they are told
            try:
                done(error)
            except Exception as bug:  # noqa: BLE001
                self._loop.call_exception_handler(
                    {"message": "who was told of a journal group raised", "exception": bug}
                )
        self._telling = None


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
