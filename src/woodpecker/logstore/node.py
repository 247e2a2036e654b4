"""A LogStore node: takes requests to the part that serves them, and is what others in its process hold.

All of it runs in one event loop; only the disk has threads. ``writing.py`` and ``reading.py`` serve, the
journal makes durable, ``upkeep.py`` keeps the journal going, ``replay.py`` reads it back at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from woodpecker.codec.journal import Kind
from woodpecker.codec.messages import (
    Advance,
    Append,
    Done,
    Fence,
    Find,
    GetObject,
    GetStatus,
    ListSegments,
    Object,
    Ping,
    Read,
    Repair,
    Request,
    Status,
    Tell,
    Upload,
    Welcome,
)
from woodpecker.core.replica import Identity, new_floor
from woodpecker.errors import InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.logstore.answers import by_error
from woodpecker.logstore.base import HeldSegment, Keeper, Unsealed
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.copies import HeldLog
from woodpecker.logstore.disk import Disk
from woodpecker.logstore.journal import LARGE_BYTES, Journal
from woodpecker.logstore.reading import Reading
from woodpecker.logstore.replay import Replayed, replay, store_identity
from woodpecker.logstore.settings import NodeSettings
from woodpecker.logstore.status import Facts, segments_of, status_of
from woodpecker.logstore.tail_cache import TailCache
from woodpecker.logstore.upkeep import Upkeep
from woodpecker.logstore.writing import Writing
from woodpecker.observability.base import SILENT, Observer
from woodpecker.observability.names import Event
from woodpecker.rpc.base import Responder
from woodpecker.runtime.runtime import Runtime

SPARE_BUFFER_BYTES = 32 << 20  # beside what waits for the disk and what is cached
CLOSE_S = 10.0

Serve = Callable[[Any, memoryview, Responder], None]


class Node:
    """Implements ``rpc.base.Handler`` and ``logstore.base.Holder``. Made by ``open``.

    Attributes:
        identity: name and incarnations. boot: number of this start, durable.
        lost: why this start made the last incarnation past; "" if it did not.
        failure: set once the journal has failed: nothing is served any more.
    """

    def __init__(
        self,
        disk: Disk,
        runtime: Runtime,
        settings: NodeSettings,
        replayed: Replayed,
        observer: Observer,
    ) -> None:
        state = self._state = replayed.start.state
        self.identity: Identity = state.identity
        self.boot = state.boot
        self.lost = replayed.start.lost
        self.failure: Unavailable | None = None
        self.copies = replayed.copies
        self.cache = TailCache(settings.cache_bytes)
        self.buffers = Buffers(settings.cache_bytes + settings.queue_max_bytes + SPARE_BUFFER_BYTES)
        self.journal = Journal(
            disk, runtime, self.buffers, state,
            file_bytes=settings.file_bytes, files=replayed.files, next_file=replayed.next_file,
            next_record=replayed.next_record, on_rotate=self._rotated, on_failure=self._failed,
        )  # fmt: skip
        self.reading = Reading(
            self.copies, self.cache, replayed.files, self.identity, settings, runtime, observer
        )
        self.upkeep = Upkeep(
            disk, self.journal, self.copies, self.reading, state, settings, runtime
        )
        self.writing = Writing(
            state, settings, runtime, self.copies, self.cache, self.buffers, self.journal,
            self.upkeep, self.reading, self._tell_keeper,
        )  # fmt: skip
        self._disk = disk
        self._runtime = runtime
        self._settings = settings
        self._observer = observer
        self._keeper: Keeper | None = None
        self._stopped = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._serve: dict[type, Serve] = {
            Append: self.writing.append,
            Advance: self.writing.advance,
            Fence: self.writing.fence,
            Repair: self.writing.repair,
            Read: lambda request, _, responder: self.reading.read(request, responder),
            Find: lambda request, _, responder: self.reading.find(request, responder),
            Upload: self._upload,
            GetObject: self._get_object,
            Tell: self._tell,
            GetStatus: lambda _, __, responder: _reply_json(responder, self.status()),
            ListSegments: self._list_segments,
            Ping: lambda _, __, responder: responder.reply(Done()),
        }

    @classmethod
    async def open(
        cls,
        disk: Disk,
        runtime: Runtime,
        *,
        settings: NodeSettings,
        boot_seen: int | None = None,
        observer: Observer = SILENT,
    ) -> Node:
        """Read the journal of a disk and be ready to serve; from then on the disk is the node's to close.

        Args:
            boot_seen: boot number in the node's session record; None: there is none.
        Raises: InvalidRequest: the disk is another node's, or a newer version's. Corrupt: it cannot be
            understood. Unavailable: it fails, or has no room for a journal file.
        Cancellation: nothing is left open but the disk.
        """
        try:
            replayed = await replay(disk, runtime, settings.node, boot_seen=boot_seen or 0)
        except OSError as error:
            raise _disk_failed(settings.node, error) from error
        node = cls(disk, runtime, settings, replayed, observer)
        try:
            await node.upkeep.begin()
        except BaseException as error:
            await node._close_files()
            if isinstance(error, OSError):
                raise _disk_failed(settings.node, error) from error
            raise
        node._spawn(node.upkeep.run(), "journal upkeep")
        node._report(replayed.damage)
        return node

    def attach(self, keeper: Keeper) -> None:
        """From now on ``keeper`` is told of logs that appear here and of segments that are fenced."""
        self._keeper = keeper

    async def wait_stopped(self) -> None:
        """Return when the node has failed or was closed."""
        await self._stopped.wait()

    async def close(self, *, clean: bool = True) -> None:
        """Stop serving, close the journal and the disk.

        ``clean``: sync what is queued, and note where the journal ends, so that the next start would see if
        something were missing. Otherwise only let go of everything, as after a failure.
        """
        was_sound = self.failure is None
        self.failure = self.failure or Unavailable(f"node {self.identity.node} stops")
        await self.reading.close(self.failure)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if clean and was_sound:
            await self._note_end()
        await self._close_files()
        await self._disk.close()
        self._stopped.set()

    # --- Handler ---

    def welcome(self) -> Welcome:
        """Who this node is."""
        settings = self._settings
        return Welcome(
            node=self.identity.node,
            incarnation=self.identity.incarnation,
            store_id=settings.store_id,
            storage_url=settings.storage_url,
            metadata_url=settings.metadata_url,
            zone=settings.zone,
            max_payload_bytes=settings.max_block_bytes,
        )

    def allocate(self, size_bytes: int) -> memoryview | None:
        """An aligned buffer for a large block, from which it is written to the disk."""
        if LARGE_BYTES <= size_bytes <= self._settings.max_block_bytes:
            return self.buffers.for_block(size_bytes)
        return None

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        """Serve one request. What it raises of ``woodpecker.errors`` is answered as ``Refused``."""
        try:
            if self.failure is not None:
                raise self.failure
            self._serve[type(request)](request, payload, responder)
        except WoodpeckerError as error:
            self.writing.refused += 1
            responder.reply(by_error(error))

    # --- Holder, for the keeper ---

    @property
    def pressure(self) -> int:
        """0 fine, 1 soft watermark, 2 hard watermark: blocks are refused."""
        return self.upkeep.pressure

    def held_logs(self) -> Sequence[tuple[str, str]]:
        """(log id, name) of each log with copies here; a fence without blocks counts as one."""
        return [(log.log_id, log.name) for log in self.copies.logs.values() if log.copies]

    def held_segments(self, log_id: str) -> Sequence[HeldSegment]:
        """Copies of one log, by segment id; empty if there are none."""
        log = self.copies.logs.get(log_id)
        now_ms = self.now_ms()
        return [
            HeldSegment(
                segment_id=segment_id,
                incarnation=copy.replica.incarnation,
                size_bytes=copy.size_bytes,
                idle_ms=now_ms - copy.heard_ms,
            )
            for segment_id, copy in sorted(log.copies.items() if log is not None else ())
        ]

    def unsealed(self) -> Unsealed:
        """Running totals: cheap."""
        return Unsealed(
            segments=self.copies.unsealed_segments, size_bytes=self.copies.unsealed_bytes
        )

    async def set_floor(self, log_id: str, floor: int) -> None:
        """Forget the copies of segments below ``floor``, for ever (``core.replica.new_floor``).

        Returns when the floor is synced; it holds from the call on. Raises: Unavailable: the node stops.
        """
        if self.failure is not None:
            raise self.failure
        if new_floor(self.copies.floor(log_id), floor) > self.copies.floor(log_id):
            self.journal.put(Kind.FLOOR, log_id=log_id, segment_id=floor)
            for copy in self.copies.raise_floor(self.copies.log(log_id), floor):
                self.cache.forget(copy)
            self.reading.floor_raised(log_id, floor)
            self.upkeep.wake()
        await self.journal.synced()

    def set_end(self, log_id: str, segment_id: int, end_block: int) -> None:
        """A manifest shows the segment closed at this block. Idempotent. Raises: Unavailable."""
        if self.failure is not None:
            raise self.failure
        copy = self.copies.get(log_id, segment_id)
        if copy is not None and copy.replica.end is None:
            self.writing.set_end(copy, end_block)

    def refuse_new(self, *, refuse: bool) -> None:
        """Whether to refuse blocks of segments without any block here."""
        self.writing.refuses_new = refuse

    # --- for people and metrics ---

    def status(self) -> Facts:
        """How the node fares, as plain values."""
        return status_of(self)

    def segments(self, log_id: str = "", segment_id: int = -1, limit: int = 1000) -> list[Facts]:
        """Copies from that one on, by log id and segment."""
        return segments_of(self, log_id, segment_id, limit)

    def now_ms(self) -> float:
        """The monotonic clock of ``Copy.heard_ms``."""
        return self._runtime.monotonic_ms()

    # --- requests that others serve ---

    def _tell(self, request: Tell, _payload: memoryview, responder: Responder) -> None:
        if self._keeper is not None:
            self._keeper.tell(request.name)
        responder.reply(Done())

    def _upload(self, request: Upload, _payload: memoryview, responder: Responder) -> None:
        keeper, target = self._needed_keeper(), request.target

        async def work() -> None:
            await keeper.upload(request.name, target.log_id, target.segment_id, request.end)
            responder.reply(Done())

        self._spawn(_answered(work(), responder), f"upload of {request.name}")

    def _get_object(self, request: GetObject, _payload: memoryview, responder: Responder) -> None:
        keeper = self._needed_keeper()

        async def work() -> None:
            size, data = await keeper.get_object(
                request.storage, request.key, request.start, request.length
            )
            responder.reply(Object(size=size), data)

        self._spawn(_answered(work(), responder), f"read of {request.key}")

    def _list_segments(
        self, request: ListSegments, _payload: memoryview, responder: Responder
    ) -> None:
        if request.limit < 1:
            raise InvalidRequest(f"limit={request.limit}: ask for at least one segment")
        _reply_json(responder, self.segments(request.log_id, request.segment_id, request.limit))

    def _needed_keeper(self) -> Keeper:
        if self._keeper is None:
            raise Unavailable(f"node {self.identity.node} has no object store yet; try again")
        return self._keeper

    # --- inner works ---

    def _tell_keeper(self, log: HeldLog) -> None:
        if self._keeper is not None:
            self._keeper.tell(log.name)

    def _rotated(self) -> None:
        self.upkeep.wake()

    def _failed(self, error: OSError) -> None:
        """The journal cannot be written: nothing is acknowledged any more."""
        self.failure = self.journal.failure or Unavailable(str(error))
        self.reading.stop(self.failure)
        self._observer.event(Event.NODE_STOPPED, node=self.identity.node, error=str(error))
        self._stopped.set()

    def _report(self, damage: Sequence[str]) -> None:
        if self.lost:
            self._observer.event(Event.NODE_LOST, node=self.identity.node, reason=self.lost)
        for what in damage:
            self._observer.event(Event.CORRUPT, log="", where=f"{self.identity.node}: {what}")

    async def _note_end(self) -> None:
        """Sync what is queued; the identity says where the journal ends."""
        with contextlib.suppress(TimeoutError, WoodpeckerError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self.journal.synced()
                await store_identity(self._disk, replace(self._state, closed=self.journal.end))

    async def _close_files(self) -> None:
        for file in self.journal.files.values():
            with contextlib.suppress(OSError):
                await file.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._runtime.spawn(work, f"{self.identity.node}: {name}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a task of the node ended", "exception": task.exception()}
            )


async def _answered(work: Coroutine[Any, Any, None], responder: Responder) -> None:
    try:
        await work
    except WoodpeckerError as error:
        responder.reply(by_error(error))


def _reply_json(responder: Responder, facts: object) -> None:
    responder.reply(Status(text=json.dumps(facts).encode()))


def _disk_failed(node: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"node {node} cannot start: its disk failed ({error}); make room or replace the disk, then "
        "start it again"
    )
