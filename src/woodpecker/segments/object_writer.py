"""Writer of one segment of kind ``object``: carries out the effects of ``core/object_append.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from woodpecker.codec import endmark, keys
from woodpecker.codec.block import HEADER_BYTES, PackedBlock
from woodpecker.core import object_append as rules
from woodpecker.core.backoff import delay_ms
from woodpecker.core.manifest import End, Manifest, Segment
from woodpecker.errors import (
    AlreadyExists,
    Closed,
    Fenced,
    NotFound,
    NotWritten,
    OutcomeUnknown,
    WoodpeckerError,
)
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import ReadManifest
from woodpecker.segments.object_tail import ObjectTail, Tails
from woodpecker.storage.base import Buffer, ObjectStore

T = TypeVar("T")

CUT_BYTES = 4 << 20
SLOTS = 8
NO_LIMIT_BYTES = 1 << 62  # a bucket has no size of its own


@dataclass(slots=True)
class _Sent:
    """A block (or our end mark, without ``block``) handed to the store and not yet acknowledged."""

    data: Buffer
    future: asyncio.Future[None]
    block: PackedBlock | None
    since_ms: float


class ObjectSegmentWriter:
    """Creates blocks with several requests under way, acknowledges in order, ends with a mark."""

    cut_bytes = CUT_BYTES
    slots = SLOTS
    partial_slots = 1
    bytes_left = NO_LIMIT_BYTES
    wants_roll = False
    on_roll: Callable[[], None] | None = None

    def __init__(
        self,
        objects: ObjectStore,
        runtime: Runtime,
        *,
        log_id: str,
        segment: Segment,
        tails: Tails,
        read_manifest: ReadManifest,
        timeout_ms: int,
    ) -> None:
        self._objects = objects
        self._runtime = runtime
        self._log_id = log_id
        self._segment = segment
        self._tails = tails
        self._tail: ObjectTail | None = None  # from ``begin`` on
        self._read_manifest = read_manifest
        self._timeout_ms = timeout_ms
        self._pipeline = rules.Pipeline()
        self._sent: dict[int, _Sent] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_trouble = ""
        self._ended: WoodpeckerError | None = None  # what blocks submitted later fail with
        self._is_watched = False

    def begin(self, segment: Segment) -> None:
        """Readers of this process may follow from here on: only now the segment is surely ours."""
        self._tail = self._tails.open(self._log_id, segment)

    def allocate(self, size_bytes: int) -> memoryview | None:
        """The packer's own buffer serves: it is handed to the store as it is."""
        return None

    def reserve(self, size_bytes: int) -> None:
        """A bucket is never full."""

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Start creating the next block (see the port)."""
        number = block.header.number
        if self._ended is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(self._ended)  # it is not handed to the store
            return future
        future = self._hand_over(number, block.buffer, block)
        self._advance(rules.Submit(number=number))
        return future

    async def finish(self, end: End) -> None:
        """Create the end mark at E + 1; on return no block can follow, whoever sends it."""
        if self._ended is not None:
            raise self._ended
        number = end.block + 1
        mark = endmark.encode(
            log_id=self._log_id,
            segment_id=self._segment.id,
            epoch=self._segment.epoch,
            token=self._segment.token,
        )
        future = self._hand_over(number, mark, None)
        self._advance(rules.Finish(number=number))
        try:
            await future
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Stop; requests under way are cancelled and may still take effect."""
        gone = OutcomeUnknown(f"{self._where()}: the writer was abandoned before an answer came")
        self._end(self._pipeline.acked, NotWritten(f"{self._where()}: the writer was abandoned"))
        self._fail_from(0, lambda _number: gone)
        if self._tail is not None:
            self._tail.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- effects ---

    def _hand_over(
        self, number: int, data: Buffer, block: PackedBlock | None
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent[number] = _Sent(data, future, block, self._runtime.monotonic_ms())
        if not self._is_watched:
            self._is_watched = True
            self._spawn(self._watch(), "watch")
        return future

    def _advance(self, event: rules.Event) -> None:
        self._pipeline, effects = rules.step(self._pipeline, event)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: rules.Effect) -> None:
        match effect:
            case rules.Create(number=number):
                self._spawn(self._create(number), f"create {number}")
            case rules.Judge(number=number):
                self._spawn(self._judge(number), f"judge {number}")
            case rules.Acknowledge(first=first, until=until):
                for number in range(first, until):
                    self._acknowledge(self._sent.pop(number))
            case rules.Marked():
                future = self._sent.popitem()[1].future
                if not future.done():
                    future.set_result(None)
            case rules.Fail(first=first, not_written_from=proven):
                self._ended = self._ended or self._fenced(first, first)
                self._fail_from(first, lambda number: self._fenced(number, proven))

    def _acknowledge(self, sent: _Sent) -> None:
        assert sent.block is not None and self._tail is not None
        self._tail.publish(sent.block)
        if not sent.future.done():
            sent.future.set_result(None)

    def _fenced(self, number: int, proven: int | None) -> Fenced:
        outcome = "not_written" if proven is not None and number >= proven else "unknown"
        return Fenced(
            f"{self._where()}: another writer took the log over; open a new writer to go on",
            outcome=outcome,  # type: ignore[arg-type]
        )

    async def _create(self, number: int) -> None:
        """Until there is an answer that means something; what it means, ``core`` says."""
        attempt = 0
        while number in self._sent:  # else it has failed meanwhile
            try:
                await self._objects.create(self._key(number), self._sent[number].data)
            except (AlreadyExists, OutcomeUnknown) as error:
                self._last_trouble = str(error)
                self._advance(rules.Unclear(number=number))
                return
            except WoodpeckerError as error:
                # certainly not sent (store away, rights or bucket gone): the same create again
                attempt += 1
                await self._bear(error, attempt)
            else:
                self._advance(rules.Stored(number=number))
                return

    async def _judge(self, number: int) -> None:
        """Read the object, and the manifest after it; both until they answer or the time is over."""
        found = await self._patiently(number, lambda: self._look(number))
        fate = None
        if found is None:
            return
        if found is not rules.Found.MINE:
            manifest = await self._patiently(number, self._read_manifest)
            if manifest is None:
                return
            fate = self._fate(manifest)
            if found is rules.Found.NOTHING:  # a repeated create must not spin
                await self._runtime.sleep_ms(delay_ms(2, self._runtime.random()))
        self._advance(rules.Judged(number=number, found=found, fate=fate))

    async def _look(self, number: int) -> rules.Found:
        sent = self._sent[number].data
        try:
            data, info = await self._objects.get(self._key(number), start=0, length=HEADER_BYTES)
        except NotFound:
            return rules.Found.NOTHING
        head = memoryview(sent)[:HEADER_BYTES]
        if info.size == len(sent) and memoryview(data) == head:
            return rules.Found.MINE  # the head holds digest, or token: it is ours to the last byte
        return rules.Found.MARK if endmark.is_mark_size(info.size) else rules.Found.FOREIGN

    def _fate(self, manifest: Manifest) -> rules.Fate:
        mine = manifest.owned_by(self._log_id, self._segment.epoch, self._segment.token)
        if manifest.log_id == self._log_id and not manifest.is_tombstone:
            for segment in manifest.segments:
                if segment.id == self._segment.id:
                    end = None if segment.end is None else segment.end.block
                    return rules.Fate(state=segment.state, mine=mine, end_block=end)
        return rules.Fate(state=None, mine=False)

    async def _patiently(self, number: int, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer, however long it takes; None: block ``number`` has failed meanwhile.

        Whatever cannot be read is unknown, never an answer: a manifest of a newer format, too.
        """
        attempt = 0
        while number in self._sent:
            try:
                return await ask()
            except WoodpeckerError as error:
                attempt += 1
                await self._bear(error, attempt)
        return None

    async def _bear(self, error: WoodpeckerError, attempt: int) -> None:
        """Pause before the next try; the watch ends it all when the time is over."""
        self._last_trouble = str(error)
        if isinstance(error, Closed):
            self._give_up(f"{self._where()}: the client was closed before its writer")
            return
        await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))

    async def _watch(self) -> None:
        """Give up when the oldest block has been without an answer for too long."""
        while self._sent:
            oldest = next(iter(self._sent.values()))
            left_ms = oldest.since_ms + self._timeout_ms - self._runtime.monotonic_ms()
            if left_ms <= 0:
                self._give_up(f"{self._where()}: no answer within {self._timeout_ms} ms")
                break
            await self._runtime.sleep_ms(left_ms)
        self._is_watched = False

    def _give_up(self, what: str) -> None:
        if self._last_trouble:
            what += f"; last trouble: {self._last_trouble}"
        self._end(self._pipeline.acked, NotWritten(f"{what}; nothing later was sent"))
        error = OutcomeUnknown(f"{what}; ask writer.resolve() what became of the entries")
        self._fail_from(0, lambda _number: error)

    def _end(self, limit: int, error: WoodpeckerError) -> None:
        """Send nothing any more; blocks from ``limit`` on are no longer waited for."""
        self._ended = self._ended or error
        self._pipeline = replace(self._pipeline, limit=limit)

    def _fail_from(self, first: int, error_of: Callable[[int], WoodpeckerError]) -> None:
        for number in [n for n in self._sent if n >= first]:
            future = self._sent.pop(number).future
            if not future.done():
                error: WoodpeckerError = error_of(number)
                future.set_exception(error)
                future.exception()  # a writer that is being dropped need not look at each

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._runtime.spawn(work, f"segment {self._segment.id}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _key(self, number: int) -> str:
        return keys.block(self._log_id, self._segment.id, number)

    def _where(self) -> str:
        return f"{self._objects.url}: log {self._log_id}, segment {self._segment.id}"
