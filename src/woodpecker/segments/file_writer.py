"""Writer of one ``file`` segment, the side that lives in the event loop.

Blocks go to the segment's lane (a thread); a small one goes straight to the disk from the loop if the
disk is fast, nothing else is under way and no other log is being written: that saves the hop, a third
of the latency. It is the only blocking call made in the loop (``_append_inline``).
"""

from __future__ import annotations

import asyncio
import errno
import resource
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from mmap import mmap

from woodpecker.codec.block import PackedBlock
from woodpecker.core.file_rules import INLINE_MAX_BYTES, Pace, Step, padded
from woodpecker.core.manifest import End, Segment
from woodpecker.errors import (
    Closed,
    Fenced,
    NotWritten,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.runtime.runtime import Runtime
from woodpecker.runtime.threads import Lane, post
from woodpecker.segments.file_aligned import BUFFER_BYTES, SMALL_BYTES, Buffers
from woodpecker.segments.file_append import Appender
from woodpecker.segments.file_recovery import first_position

MAX_SEGMENT_BYTES = 1 << 40
_MARGIN_BYTES = 1 << 16  # headers and padding of what is reserved
MOST_OPEN_WRITERS = 1000
_TRIES = 4  # writers looked at for parking when one more opens its files
_LINE_MS = 5.0  # between looks of a writer that waits for descriptors
_TRIM_S = 0.05  # after a burst, between looks for writers that can be parked
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_ALONE_MS = 1000.0  # a writer that was silent for so long does not count as another one


class Disk:
    """What the writers of one buffer directory share (used in the loop only)."""

    def __init__(self, runtime: Runtime, *, open_writers: int) -> None:
        self.runtime = runtime
        self.pace = Pace()
        self._open_writers = open_writers
        self._open: OrderedDict[FileWriter, None] = OrderedDict()  # the least used first
        self._trimming: asyncio.TimerHandle | None = None
        self._last: object = None
        self._last_ms = -_ALONE_MS
        self._shared_ms = -_ALONE_MS

    def is_alone(self, writer: object, now_ms: float) -> bool:
        """Note that ``writer`` writes; tells whether no other one did lately."""
        if writer is not self._last:
            if now_ms - self._last_ms < _ALONE_MS:
                self._shared_ms = now_ms
            self._last = writer
        self._last_ms = now_ms
        return now_ms - self._shared_ms >= _ALONE_MS

    def used(self, writer: FileWriter) -> None:
        """``writer`` has its files open and uses them; others are parked if too many have."""
        self._open[writer] = None
        self._open.move_to_end(writer)
        self._park_down_to(self._open_writers)
        if len(self._open) > self._open_writers and self._trimming is None:
            loop = asyncio.get_running_loop()
            self._trimming = loop.call_later(_TRIM_S, self._trim, loop)

    def has_place(self) -> bool:
        """Whether one more parked writer may open its files; idle ones are parked for it."""
        self._park_down_to(self._open_writers - 1)
        return len(self._open) < self._open_writers

    def _park_down_to(self, limit: int) -> None:
        for _ in range(_TRIES):
            if len(self._open) <= limit:
                return
            oldest = next(iter(self._open))
            if oldest.park():
                del self._open[oldest]
            else:
                self._open.move_to_end(oldest)  # at work: try again later

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        """After a burst: park until no more are open than should be."""
        self._trimming = None
        for _ in range(len(self._open) // _TRIES):
            self._park_down_to(self._open_writers)
        if len(self._open) > self._open_writers:
            self._trimming = loop.call_later(_TRIM_S, self._trim, loop)

    def released(self, writer: FileWriter) -> None:
        """``writer`` has no files open any more, or never will again."""
        self._open.pop(writer, None)


def open_writers_limit() -> int:
    """How many writers may keep their files open: each takes three descriptors."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(8, min(MOST_OPEN_WRITERS, soft // 12))


@dataclass(frozen=True, slots=True)
class _Job:
    block: PackedBlock
    future: asyncio.Future[None]
    deadline_ms: float


class FileWriter:
    """See the port, ``SegmentWriter``. ``reserve`` counts all that is not submitted yet."""

    cut_bytes = BUFFER_BYTES
    slots = 2  # one is being synced, the next is packed or waits
    partial_slots = 1
    wants_roll = False
    on_roll: Callable[[], None] | None = None

    def __init__(
        self, appender: Appender, lane: Lane, disk: Disk, buffers: Buffers, *, timeout_ms: int
    ) -> None:
        self._appender = appender
        self._lane = lane
        self._disk = disk
        self._buffers = buffers
        self._timeout_ms = timeout_ms
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._held: deque[_Job] = deque()  # of these, not on the lane yet: waiting for descriptors
        self._in_line: asyncio.Task[None] | None = None
        self._submitted_bytes = appender.position.offset
        self.bytes_left = MAX_SEGMENT_BYTES
        self._failure: Callable[[], WoodpeckerError] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._has_begun = False
        self._is_released = False
        disk.used(self)

    def begin(self, segment: Segment) -> None:
        self._has_begun = True
        self._appender.begin(first_position(segment))

    # --- parking: ten thousand idle logs must not need thirty thousand descriptors ---

    def park(self) -> bool:
        """Let go of lock and descriptors until the next append; False: not now."""
        if self._jobs or not self._has_begun or self._is_released or not self._lane.is_idle:
            return False
        try:
            return self._appender.park()
        except OSError:
            return False

    def _unpark(self) -> None:
        """Take lock and descriptors back, or end: a taker-over was here. Raises: OSError."""
        if self._appender.is_parked and not self._appender.unpark():
            path = self._appender.file.path
            self._fail(
                lambda: Fenced(f"{path}: another writer took the log over", outcome="not_written")
            )
            self._disk.released(self)

    def allocate(self, size_bytes: int) -> memoryview | None:
        if size_bytes <= SMALL_BYTES:
            return None  # a copy on the way out costs less than a large buffer each
        return memoryview(self._buffers.take(size_bytes))[:size_bytes]

    def reserve(self, size_bytes: int) -> None:
        end = self._submitted_bytes + padded(size_bytes) + _MARGIN_BYTES
        try:
            self._make_usable()
            if self._failure is None:
                self._appender.room.ensure(end)
        except OSError as error:
            raise NotWritten(
                f"no room for {size_bytes} bytes in {self._appender.file.path}: {error.strerror}; "
                "free space on that disk and append again"
            ) from error

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        is_usable = self._try_to_use()
        if self._failure is not None:
            future.set_exception(self._failure())
            return future
        now_ms = self._disk.runtime.monotonic_ms()
        self._submitted_bytes += padded(len(block.buffer))
        self.bytes_left = MAX_SEGMENT_BYTES - self._submitted_bytes
        job = _Job(block, future, now_ms + self._timeout_ms)
        self._jobs.append(job)
        if not is_usable:
            self._stand_in_line(job)
        elif self._may_append_inline(block, now_ms):
            self._append_inline(job, now_ms)
        else:
            self._lane.put(lambda: self._append(job))
            self._see_to_deadlines()
        return future

    def _try_to_use(self) -> bool:
        """Have the files open for a block; False: there is no descriptor for them now, or we failed."""
        if self._held or (self._appender.is_parked and not self._disk.has_place()):
            return False
        try:
            self._make_usable()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS:
                self._appender.error = f"{self._appender.file.path}: {error.strerror}"
                self._fail(self._why(Step.FAILED))
            return False
        return self._failure is None

    def _stand_in_line(self, job: _Job) -> None:
        """More writers are at work than may have files open: this block waits for its turn."""
        self._held.append(job)
        self._see_to_deadlines()
        if self._in_line is None or self._in_line.done():
            self._in_line = self._disk.runtime.spawn(self._wait_in_line(), "file-descriptors")

    async def _wait_in_line(self) -> None:
        while self._held and self._failure is None:
            await self._disk.runtime.sleep_ms(_LINE_MS)
            held, self._held = self._held, deque()
            if not self._try_to_use():
                self._held = held
                continue
            for job in held:
                self._lane.put(partial(self._append, job))

    def _make_usable(self) -> None:
        """Have the files open, and be the last one to be parked. Raises: OSError."""
        if self._failure is None:
            self._unpark()
        if self._failure is None:
            self._disk.used(self)

    def _may_append_inline(self, block: PackedBlock, now_ms: float) -> bool:
        return (
            self._disk.is_alone(self, now_ms)
            and len(block.buffer) <= INLINE_MAX_BYTES
            and self._lane.is_idle
            and self._disk.pace.allows_inline(now_ms)
        )

    def _append_inline(self, job: _Job, now_ms: float) -> None:
        """Write, sync and acknowledge in the loop: the one place where the loop waits for a disk."""
        step = self._appender.append(job.block)
        self._settle(job, step, self._disk.runtime.monotonic_ms() - now_ms)
        self._appender.afterwards()
        if self._appender.is_hint_due:
            self._lane.put(self._appender.write_hint)

    def _append(self, job: _Job) -> None:
        """On the lane."""
        if self._appender.is_stopped:
            return
        begin_ms = self._disk.runtime.monotonic_ms()
        step = self._appender.append(job.block)
        took_ms = self._disk.runtime.monotonic_ms() - begin_ms
        if step is not Step.ACKNOWLEDGED:
            self._appender.is_stopped = True
        post(self._loop, self._settle, job, step, took_ms)
        if step is Step.ACKNOWLEDGED:
            self._appender.afterwards()
            if self._appender.is_hint_due:
                self._appender.write_hint()

    def _settle(self, job: _Job, step: Step, took_ms: float) -> None:
        """Resolve the oldest job, which is this one; a failure fails all that wait."""
        if self._failure is not None:
            return  # this job has failed with the others already
        if step is not Step.ACKNOWLEDGED:
            self._fail(self._why(step))
            return
        self._jobs.popleft()
        if not job.future.done():
            job.future.set_result(None)
        if len(job.block.buffer) <= INLINE_MAX_BYTES:
            self._disk.pace.took(took_ms, self._disk.runtime.monotonic_ms())
        else:
            self._take_back(job.block)

    def _take_back(self, block: PackedBlock) -> None:
        """Use the block's buffer again; blocks that failed keep theirs, to be packed anew."""
        own = block.buffer.obj
        if isinstance(own, mmap):
            self._buffers.give(own)

    def _why(self, step: Step) -> Callable[[], WoodpeckerError]:
        path, error = self._appender.file.path, self._appender.error
        if step is Step.FENCED:
            return lambda: Fenced(f"{path}: another writer took the log over", outcome="unknown")
        return lambda: OutcomeUnknown(
            f"the disk failed, and this writer ends: {error}; "
            "check the disk, open a new writer, then ask writer.resolve()"
        )

    def _fail(self, why: Callable[[], WoodpeckerError]) -> None:
        self._failure = why
        self._appender.is_stopped = True
        self._held.clear()
        while self._jobs:
            future = self._jobs.popleft().future
            if not future.done():
                future.set_exception(why())

    def _see_to_deadlines(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = self._disk.runtime.spawn(self._watch_deadlines(), "file-deadlines")

    async def _watch_deadlines(self) -> None:
        """Fail blocks that a hanging disk keeps for too long; ends when none waits."""
        while self._jobs:
            await self._disk.runtime.sleep_ms(min(1000.0, self._timeout_ms / 4))
            now_ms = self._disk.runtime.monotonic_ms()
            if self._jobs and now_ms >= self._jobs[0].deadline_ms:
                self._fail(self._too_late)

    def _too_late(self) -> WoodpeckerError:
        return OutcomeUnknown(
            f"{self._appender.file.path}: a write was not durable within {self._timeout_ms} ms, and this "
            "writer ends; check the disk, open a new writer, then ask writer.resolve()"
        )

    async def finish(self, end: End) -> None:
        assert not self._jobs, "finish() comes after the last acknowledgement"
        if self._failure is not None:
            raise self._failure()
        if self._is_released:
            raise Closed(f"{self._appender.file.path} was finished or abandoned before")
        self._come_back()
        self._fail(lambda: Closed(f"{self._appender.file.path} is closed at seq {end.seq}"))
        await self._release(lambda: self._finish(end))

    def _come_back(self) -> None:
        """Raises: Fenced, Unavailable."""
        try:
            self._unpark()
        except OSError as error:
            raise Unavailable(
                f"{self._appender.file.path}: {error.strerror}; close it as a taker-over would"
            ) from error
        if self._failure is not None:
            raise self._failure()

    def _finish(self, end: End) -> None:
        """On the lane: nothing was written after E, and after this nothing can be."""
        here = self._appender.position
        is_fenced = self._appender.side.is_fenced
        assert (here.block - 1, here.seq, here.digest.hex()) == (end.block, end.seq, end.digest)
        self._appender.write_hint()
        self._appender.close(trim=not is_fenced)
        if is_fenced:
            raise Fenced(f"{self._appender.file.path}: another writer took the log over")

    async def abandon(self) -> None:
        if self._is_released:
            return
        path = self._appender.file.path
        if self._failure is None:
            self._fail(lambda: OutcomeUnknown(f"{path}: the writer was abandoned while writing"))
        await self._release(lambda: self._appender.close(trim=False))

    async def _release(self, work: Callable[[], None]) -> None:
        self._is_released = True
        self._disk.released(self)
        for task in (self._watch, self._in_line):
            if task is not None:
                task.cancel()
        path = self._appender.file.path
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                await self._lane.start(work)
        except TimeoutError:
            # the lane does it as soon as the disk answers; until then the lock is held
            raise Unavailable(
                f"{path}: the disk did not answer within {self._timeout_ms} ms"
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{path}: {error.strerror}; close it as a taker-over would"
            ) from error
