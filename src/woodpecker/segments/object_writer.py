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
    Fenced,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import ReadManifest
from woodpecker.segments.object_tail import ObjectTail
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

    def __init__(
        self,
        objects: ObjectStore,
        runtime: Runtime,
        *,
        log_id: str,
        segment: Segment,
        tail: ObjectTail,
        read_manifest: ReadManifest,
        timeout_ms: int,
    ) -> None:
        self._objects = objects
        self._runtime = runtime
        self._log_id = log_id
        self._segment = segment
        self._tail = tail
        self._read_manifest = read_manifest
        self._timeout_ms = timeout_ms
        self._pipeline = rules.Pipeline()
        self._sent: dict[int, _Sent] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_trouble = ""
        self._is_watched = False

    def begin(self, segment: Segment) -> None:
        """Blocks carry base_seq and prev_digest themselves; nothing here depends on them."""

    def allocate(self, size_bytes: int) -> memoryview | None:
        """The packer's own buffer serves: it is handed to the store as it is."""
        return None

    def reserve(self, size_bytes: int) -> None:
        """A bucket is never full."""

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Start creating the next block (see the port)."""
        number = block.header.number
        if self._pipeline.failed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(self._fenced(number, number))  # it is not handed to the store
            return future
        future = self._hand_over(number, block.buffer, block)
        self._advance(rules.Submit(number=number))
        return future

    async def finish(self, end: End) -> None:
        """Create the end mark at E + 1; on return no block can follow, whoever sends it."""
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
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tail.close()
        gone = OutcomeUnknown(f"{self._where()}: the writer was abandoned before an answer came")
        self._fail_from(0, lambda _number: gone)

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
                self._sent.popitem()[1].future.set_result(None)
            case rules.Fail(first=first, until=until, not_written_from=proven):
                self._fail_from(first, lambda number: self._fenced(number, proven))

    def _acknowledge(self, sent: _Sent) -> None:
        assert sent.block is not None
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
        data, attempt = self._sent[number].data, 0
        while True:
            try:
                await self._objects.create(self._key(number), data)
            except (AlreadyExists, OutcomeUnknown) as error:
                self._last_trouble = str(error)
                self._advance(rules.Unclear(number=number))
                return
            except (Unavailable, InvalidRequest, NotFound) as error:
                # certainly not sent (store away, rights or bucket gone): the same create again
                self._last_trouble = str(error)
                attempt += 1
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
            else:
                self._advance(rules.Stored(number=number))
                return

    async def _judge(self, number: int) -> None:
        """Read the object, and the manifest after it; both until they answer or the time is over."""
        found = await self._patiently(lambda: self._look(number))
        fate = None
        if found is not rules.Found.MINE:
            manifest = await self._patiently(self._read_manifest)
            fate = self._fate(manifest)
            if found is rules.Found.NOTHING:  # a repeated create must not spin
                await self._runtime.sleep_ms(delay_ms(2, self._runtime.random()))
        self._advance(rules.Judged(number=number, found=found, fate=fate))

    async def _look(self, number: int) -> rules.Found:
        sent = self._sent[number]
        try:
            data, info = await self._objects.get(self._key(number), start=0, length=HEADER_BYTES)
        except NotFound:
            return rules.Found.NOTHING
        head = memoryview(sent.data)[:HEADER_BYTES]
        if info.size == len(sent.data) and memoryview(data) == head:
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

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            try:
                return await ask()
            except (Unavailable, OutcomeUnknown) as error:
                self._last_trouble = str(error)
                attempt += 1
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))

    async def _watch(self) -> None:
        """Give up when the oldest block has been without an answer for too long."""
        while self._sent:
            oldest = next(iter(self._sent.values()))
            left_ms = oldest.since_ms + self._timeout_ms - self._runtime.monotonic_ms()
            if left_ms <= 0:
                self._give_up()
                break
            await self._runtime.sleep_ms(left_ms)
        self._is_watched = False

    def _give_up(self) -> None:
        error = OutcomeUnknown(
            f"{self._where()}: no answer within {self._timeout_ms} ms"
            + (f"; last trouble: {self._last_trouble}" if self._last_trouble else "")
            + "; ask writer.resolve() what became of the entries"
        )
        self._pipeline = replace(self._pipeline, limit=self._pipeline.acked)
        self._fail_from(0, lambda _number: error)

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
