"""Group commit at work: drafts are cut into blocks, sent, acknowledged in order.

``core/batcher.py`` says when to cut; ``mover.py`` opens and rolls segments and stops the pump meanwhile.
The first failure after a seq was given out ends everything: nothing later is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

from woodpecker.client.environment import Environment
from woodpecker.client.mover import Mover
from woodpecker.client.queue import Pending, Queue, Result
from woodpecker.client.room import RoomLine
from woodpecker.client.segment_chain import SegmentChain
from woodpecker.client.sessions import Sessions
from woodpecker.client.takeover import TakenOver
from woodpecker.codec.block import Block, PackedBlock
from woodpecker.core.batcher import may_cut
from woodpecker.core.costs import budget, due_ms, paid_until
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.manifest import End
from woodpecker.core.register import BlockFacts, Register, fold
from woodpecker.core.timestamps import raised
from woodpecker.errors import (
    Closed,
    Fenced,
    LogEnded,
    NotWritten,
    OutcomeUnknown,
    WoodpeckerError,
)
from woodpecker.observability.base import SILENT
from woodpecker.observability.names import Counter, Event, Gauge, Histogram
from woodpecker.segments.base import SegmentWriter

BLOCK_OVERHEAD_BYTES = 8192  # header and padding of one more block


@dataclass(slots=True, kw_only=True, eq=False)
class _InFlight:
    """A block handed to its segment and not answered yet."""

    draft: Pending
    block: PackedBlock
    sent_ms: float
    segment_seq: int  # base_seq of its segment
    facts: BlockFacts | None  # what the block changes in the register, if anything
    is_stranded: bool = False  # its segment is being closed as a stranger would: no answer counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Entries of unknown outcome, and the segment they were packed for."""

    first_seq: int
    count: int
    segment_id: int
    segment_seq: int  # where that segment begins: it may have been closed far below ``first_seq``


class Stranded:
    """Blocks whose segment cannot confirm them any more, and what is to become of them. One outcome."""

    def __init__(self, pump: Pump, blocks: tuple[_InFlight, ...]) -> None:
        self._pump = pump
        self._blocks = blocks

    def register(self, before: Register, end: End | None) -> Register:
        """The register at E: that of all acknowledged blocks, and those of these that lie up to E."""
        last = NO_BLOCK if end is None else end.block
        facts = [s.facts for s in self._blocks if s.facts and s.block.header.number <= last]
        return fold(before, facts)

    def settle(self, end: End | None, time_us: int) -> None:
        """E is fixed: see ``Pump.settle_stranded``."""
        self._pump.settle_stranded(self._blocks, end, time_us)

    def fail(self, cause: WoodpeckerError) -> None:
        """Nothing is known: see ``Pump.fail_stranded``."""
        self._pump.fail_stranded(self._blocks, cause)


class Pump:
    """The moving parts of one writer; used from its event loop only."""

    def __init__(self, env: Environment, name: str, taken: TakenOver) -> None:
        manifest = taken.manifest
        self.name = name
        self.env = env
        self.loop = asyncio.get_running_loop()
        self.chain = SegmentChain(env, name, taken)
        self.queue = Queue(
            next_seq=manifest.next_seq,
            last_timestamp_us=manifest.timestamp_us,
            max_bytes=manifest.options.queue_max_bytes,
            cut_bytes=self.chain.cut_bytes,
            policy=manifest.options.timestamps,
            now_us=env.runtime.now_us,
            now_ms=env.runtime.monotonic_ms,
        )
        self.room = RoomLine(self.queue)
        self.sessions = Sessions(taken.register, manifest.options.max_producers)
        self.visible = manifest.next_seq
        self.error: WoodpeckerError | None = None  # what has ended the writer
        self._shut: WoodpeckerError | None = None
        self.doubts: list[Doubt] = []
        self.is_kicked = False
        self._mover = Mover(self)
        self._in_flight: deque[_InFlight] = deque()
        self._last_timestamp_us = manifest.timestamp_us
        self._linger_timer: asyncio.TimerHandle | None = None
        self._linger_due_ms = 0.0
        self._paid_until_ms = env.runtime.monotonic_ms()
        self._segment: SegmentWriter | None = None  # the one that ``settle`` saw last
        self._drained: asyncio.Future[None] | None = None  # waiting for the blocks in flight
        self._is_gone = False
        self._show_levels()

    @property
    def shut(self) -> WoodpeckerError | None:
        """Why nothing more is taken, if it is so."""
        return self._shut

    @shut.setter
    def shut(self, refusal: WoodpeckerError) -> None:
        self.queue.close_quick_way()
        self._shut = refusal

    def kick(self) -> None:
        """Look once, at the end of this turn of the loop, what can be cut."""
        if not self.is_kicked:
            self.is_kicked = True
            self.loop.call_soon(self.run)

    def run(self) -> None:
        """Cut and send what may be sent now."""
        self.is_kicked = False
        while self.queue.drafts and self.error is None and not self._mover.is_stopped:
            segment = self.chain.current
            if segment is None:
                self._mover.open()
                return
            draft = self.queue.drafts[0]
            if not may_cut(
                full=self.queue.is_full(),
                in_flight=len(self._in_flight),
                slots=segment.slots,
                partial_slots=segment.partial_slots,
                flushing=draft.is_urgent,
                linger_over=self._is_linger_over(draft),
            ):
                return
            self._send(self.queue.pop())
            self._mover.look_ahead()

    def _is_linger_over(self, draft: Pending) -> bool:
        options = self.chain.options
        if not options.linger_ms and budget(options) is None:
            return True
        due = due_ms(options, draft.first_ms, self._paid_until_ms)
        left_ms = due - self.env.runtime.monotonic_ms()
        if left_ms <= 0:
            return True
        if self._linger_timer is not None and due < self._linger_due_ms:  # options were altered
            self._linger_timer.cancel()
            self._linger_timer = None
        if self._linger_timer is None:
            self._linger_due_ms = due
            self._linger_timer = self.loop.call_later(left_ms / 1000, self._linger_ended)
        return False

    def _linger_ended(self) -> None:
        self._linger_timer = None
        self.kick()

    def _send(self, draft: Pending) -> None:
        """Pack a draft into the next block and hand it to the segment."""
        block = self._pack(draft)
        if block is None:
            return
        self._last_timestamp_us = max(self._last_timestamp_us, block.last_timestamp_us)
        sent = _InFlight(
            draft=draft,
            block=block,
            sent_ms=self.env.runtime.monotonic_ms(),
            segment_seq=self.chain.base_seq,
            facts=Block.parse(block.buffer).facts() if block.header.has_facts else None,
        )
        self._in_flight.append(sent)
        dollars = budget(self.chain.options)
        if dollars is not None:
            self._paid_until_ms = paid_until(self._paid_until_ms, sent.sent_ms, dollars)
        self._show_levels()
        try:
            future = self.chain.submit(block)
        except BaseException as error:
            self._in_flight.remove(sent)
            self._failed(sent, self.broken(error))
            raise
        if future.done():
            self._answered(sent, future)
        else:
            future.add_done_callback(partial(self._answered, sent))

    def _pack(self, draft: Pending) -> PackedBlock | None:
        """The draft's block; None: it was refused and the writer has ended."""
        time_us = self._last_timestamp_us
        if draft.count:  # a block without entries has no time of its own: it must not raise theirs
            time_us = max(self.env.runtime.now_us(), time_us)
        try:
            if draft.timestamps is not None:
                draft.timestamps = raised(draft.timestamps, self._last_timestamp_us)
            return self.chain.pack(draft, base_timestamp_us=time_us, lac=self.visible - 1)
        except BaseException as error:  # a limit of the format that admission did not see, or a bug
            self.queue.release(draft)
            draft.fail(NotWritten(f"log {self.name!r}: {error}"))
            if isinstance(error, WoodpeckerError):
                self.end(error)
                return None
            self.end(self.broken(error))
            raise

    def broken(self, error: BaseException) -> WoodpeckerError:
        """What to tell those who wait when a bug has ended the writer; the bug itself is raised."""
        return OutcomeUnknown(
            f"log {self.name!r}: the writer has ended on an internal error: {error!r}; open a new one"
        )

    # --- answers ---

    def _answered(self, sent: _InFlight, future: asyncio.Future[None]) -> None:
        """A block is durable, as are all before it; or it has failed, perhaps before an older one."""
        if sent.is_stranded:
            if not future.cancelled():
                future.exception()  # looked at, though it does not count: nobody else will
            return
        self._in_flight.remove(sent)
        if future.cancelled():
            self._failed(sent, OutcomeUnknown(f"log {self.name!r}: a write was cancelled"))
            return
        error = future.exception()
        if error is None:
            self._acknowledge(sent)
        elif isinstance(error, WoodpeckerError):
            self._failed(sent, error)
        else:
            self._failed(sent, self.broken(error))
            raise error  # a bug: nothing swallows it

    def _acknowledge(self, sent: _InFlight) -> None:
        self.visible = sent.block.header.end_seq
        self.queue.release(sent.draft)
        sent.draft.resolve()
        if sent.facts is not None:
            self.sessions.acknowledged(sent.draft.batches, sent.facts)
        if self.env.observer is not SILENT:
            self._observe(sent)
            self._show_levels()
        self.room.let_in()
        if not self._in_flight:
            self._wake_drained()
        if self.queue.drafts:
            self.kick()

    def _observe(self, sent: _InFlight) -> None:
        kind, observer = str(self.chain.kind), self.env.observer
        observer.count(Counter.APPENDS, sent.draft.count, kind=kind)
        observer.count(Counter.APPENDED_BYTES, sent.draft.payload_bytes, kind=kind)
        observer.count(Counter.BLOCKS, kind=kind)
        observer.count(Counter.BLOCK_BYTES, sent.block.header.size_bytes, kind=kind)
        observer.observe(Histogram.BLOCK_SIZE, sent.block.header.size_bytes, kind=kind)
        latency_ms = self.env.runtime.monotonic_ms() - sent.sent_ms
        observer.observe(Histogram.APPEND_LATENCY, latency_ms, kind=kind)

    def _show_levels(self) -> None:
        """This writer's share of the gauges; all zero once it has let go."""
        if self.env.observer is SILENT:
            return
        levels, is_open = self.env.levels, not self._is_gone
        levels.put(self, Gauge.OPEN_WRITERS, int(is_open))
        levels.put(self, Gauge.QUEUE_BYTES, self.queue.taken_bytes if is_open else 0)
        in_flight = len(self._in_flight) if is_open else 0
        levels.put(self, Gauge.IN_FLIGHT_BLOCKS, in_flight, kind=str(self.chain.kind))

    def _failed(self, sent: _InFlight, cause: WoodpeckerError) -> None:
        """Each block in flight has an answer of its own; the first one ends the writer."""
        self.queue.release(sent.draft)
        is_unknown = isinstance(cause, OutcomeUnknown) or (
            isinstance(cause, Fenced) and cause.outcome == "unknown"
        )
        if is_unknown:
            header = sent.block.header
            doubt = Doubt(
                first_seq=header.base_seq,
                count=header.count,
                segment_id=header.segment_id,
                segment_seq=sent.segment_seq,
            )
            self.doubts.append(doubt)
        sent.draft.fail(cause)
        self.end(cause)

    def end(self, cause: WoodpeckerError) -> None:
        """Nothing is sent any more; what was never handed to a store is NotWritten."""
        if self.error is not None:
            return
        self.error = cause
        refusal = self.not_handed_over(cause)
        self.shut = self.shut or refusal
        is_fenced = isinstance(cause, Fenced)
        if is_fenced:
            self.env.observer.count(Counter.FENCED)
            self.env.observer.event(Event.WRITER_FENCED, log=self.name, epoch=self.epoch)
        else:
            self.env.observer.event(
                Event.WRITER_FAILED, log=self.name, epoch=self.epoch, error=str(cause)
            )
        self.queue.refuse_all(refusal)
        self._wake_drained()
        self.room.open_up()

    def refuse_waiting(self, error: NotWritten) -> None:
        """What waits cannot be written now and was never handed over; the writer lives on."""
        self.queue.refuse_all(error)
        self.sessions.rewind(sent.facts for sent in self._in_flight if sent.facts is not None)
        self.room.let_in()

    def not_handed_over(self, cause: WoodpeckerError) -> WoodpeckerError:
        """What to tell about an entry that no store ever got, when ``cause`` ended the writer."""
        if isinstance(cause, Fenced):
            return Fenced(str(cause), outcome="not_written")
        if isinstance(cause, (LogEnded, Closed)):
            return cause
        error = NotWritten(
            f"log {self.name!r}: never sent, for this writer has ended: {cause}; open a new writer"
        )
        error.retryable = False  # not on this writer: the instance says so, for loops that retry
        return error

    # --- waiting ---

    async def flush(self) -> None:
        """Wait until everything put in so far is durable. Raises: what has ended the writer."""
        if self.error is not None:
            raise copy(self.error)
        waiting: asyncio.Future[Result] = self.loop.create_future()
        if self.queue.drafts:
            self.queue.attach(waiting)
        elif self._in_flight:
            self._in_flight[-1].draft.attach(waiting, 0)
        else:
            return
        self.flush_soon()
        try:
            await waiting
        except WoodpeckerError:
            if self.error is not None:
                raise copy(self.error) from None
            raise

    def flush_soon(self) -> None:
        """Cut what is there without linger."""
        if self.queue.drafts:
            self.queue.drafts[-1].is_urgent = True  # those before it are full
            self.kick()

    async def drain(self) -> None:
        """Wait until no block is in flight; nothing must be sent meanwhile."""
        while self._in_flight and self.error is None:
            if self._drained is None or self._drained.done():
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)

    def strand(self) -> Stranded:
        """No answer to a block in flight counts any more: its segment is closed as a stranger would."""
        for sent in self._in_flight:
            sent.is_stranded = True
        return Stranded(self, tuple(self._in_flight))

    def settle_stranded(self, blocks: Sequence[_InFlight], end: End | None, time_us: int) -> None:
        """The CAS has fixed E: blocks up to it are in the log, the others are packed anew.

        ``time_us``: of the last entry up to E; what is packed anew may have that time, or a later one.
        """
        last = NO_BLOCK if end is None else end.block
        self._last_timestamp_us = time_us
        self.queue.put_back([s.draft for s in blocks if s.block.header.number > last])
        self._in_flight.clear()
        for sent in blocks:
            if sent.block.header.number <= last:
                self._acknowledge(sent)
        self._wake_drained()

    def fail_stranded(self, blocks: Sequence[_InFlight], cause: WoodpeckerError) -> None:
        """The segment could not be closed, or it is not known whether it was."""
        if isinstance(cause, Fenced):
            cause = Fenced(str(cause), outcome="unknown")
        elif not isinstance(cause, OutcomeUnknown):
            cause = OutcomeUnknown(
                f"{cause}; ask writer.resolve() what became of the entries that were sent"
            )
        self._in_flight.clear()
        for sent in blocks:
            self._failed(sent, cause)

    def _wake_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- for the mover ---

    def settle(self) -> None:
        """The segment moved, or could not: what waits goes on."""
        if self.error is None and self.chain.current is not self._segment:
            self._segment = self.chain.current
            self._take_options()
            if self.queue.drafts:
                try:
                    self.chain.reserve(self.queue.taken_bytes)  # admitted under the segment before
                except NotWritten as error:
                    self.refuse_waiting(error)
        self.room.let_in()
        self.kick()

    def _take_options(self) -> None:
        """Options may have been altered; they count from this segment on."""
        options, queue = self.chain.options, self.queue
        queue.close_quick_way()
        queue.cut_bytes = self.chain.cut_bytes
        queue.max_bytes = options.queue_max_bytes
        self.sessions.limit = options.max_producers
        if queue.policy != options.timestamps:
            queue.policy = options.timestamps
            queue.last_timestamp_us = max(queue.last_timestamp_us, self._last_timestamp_us)

    def reserve(self, size_bytes: int) -> None:
        """Room on the disk for all that waits, this, and the rest of the draft it begins.

        Raises: NotWritten: there is none; nothing has happened.
        """
        slack = self.queue.cut_bytes + BLOCK_OVERHEAD_BYTES * (1 + len(self.queue.drafts))
        self.chain.reserve(self.queue.taken_bytes + size_bytes + slack)

    @property
    def epoch(self) -> int:
        """The writer's epoch."""
        return self.chain.owner.epoch

    async def close(self) -> None:
        """Drain, close the segment if the writer is sound, let go. ``shut`` says that nothing comes more.

        Raises: what makes entries fail that were put in before.
        """
        assert self.shut is not None
        self.room.open_up()
        failure: WoodpeckerError | None = None
        is_drained = False
        try:
            try:
                if self.error is None:
                    await self.flush()
            except WoodpeckerError as error:
                failure = error
            await self.drain()  # what was refused meanwhile may have had blocks before it
            is_drained = True
        finally:
            await self._let_go(is_drained=is_drained)
        if failure is not None:
            raise failure

    async def _let_go(self, *, is_drained: bool) -> None:
        self._is_gone = True
        self._show_levels()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        await self._mover.stop(at_once=not is_drained)
        self.queue.refuse_all(
            NotWritten(f"log {self.name!r}: never sent, for the writer was closed meanwhile")
        )
        clean = is_drained and self.error is None
        try:
            await self.chain.close(self.sessions.settled(), clean=clean)
        except (
            WoodpeckerError
        ) as error:  # all entries are durable: the next opener closes the segment
            self.end(error)
