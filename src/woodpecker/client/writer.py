"""The writer of one log: seqs, group commit, acknowledgement, rolling, outcomes.

The way of an append: ``append`` -> ``queue.put`` (the seq is given out) -> ``_pump`` cuts a draft ->
``codec.pack`` makes a block -> ``SegmentWriter.submit`` makes it durable -> ``_acknowledge``.
Rules are in ``core``: ``batcher`` (when to cut), ``rolling``, ``producers``, ``outcomes``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from woodpecker.client.entry import NO_TIME, Entry, as_headers
from woodpecker.client.environment import Environment
from woodpecker.client.queue import Pending, Queue, Result, as_payload
from woodpecker.client.room import RoomLine
from woodpecker.client.segment_chain import SegmentChain
from woodpecker.client.sessions import Sessions
from woodpecker.client.takeover import TakenOver
from woodpecker.codec.block import Block, PackedBlock
from woodpecker.core.batcher import BatchMark, may_cut
from woodpecker.core.ids import MAX_BATCH_BYTES
from woodpecker.core.outcomes import Known, judge
from woodpecker.core.register import BlockFacts, Control, EndLog
from woodpecker.core.timestamps import raised
from woodpecker.errors import (
    Closed,
    Conflict,
    Fenced,
    InvalidRequest,
    LogEnded,
    NotWritten,
    OutcomeUnknown,
    Overloaded,
    WoodpeckerError,
)
from woodpecker.observability.base import SILENT
from woodpecker.observability.names import Counter, Event, Histogram
from woodpecker.runtime.forks import refuse_after_fork

Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


@dataclass(slots=True, kw_only=True)
class _InFlight:
    """A block handed to its segment and not answered yet."""

    draft: Pending
    block: PackedBlock
    sent_ms: float
    facts: BlockFacts | None  # what the block changes in the register, if anything


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """Entries of unknown outcome: where they were packed."""

    first_seq: int
    count: int
    segment_id: int


class LogWriter:
    """The one writer of a log, until another one opens.

    Concurrency: any number of tasks of one event loop; not thread-safe. Entries get their seqs in the
    order of the calls. The first failure after a seq was given out ends the writer; refusals before
    that (size, ``expect_seq``, a full queue or disk) do not.
    """

    def __init__(
        self, env: Environment, name: str, taken: TakenOver, *, producer: str | None = None
    ) -> None:
        self.name = name
        self._env = env
        self._loop = asyncio.get_running_loop()
        options = taken.manifest.options
        self._chain = SegmentChain(env, name, taken)
        self._queue = Queue(
            next_seq=taken.manifest.next_seq,
            last_timestamp_us=taken.manifest.timestamp_us,
            max_bytes=options.queue_max_bytes,
            cut_bytes=self._chain.cut_bytes,
            policy=options.timestamps,
            now_us=env.runtime.now_us,
            now_ms=env.runtime.monotonic_ms,
        )
        self._sessions = Sessions(taken.register, options.max_producers)
        self._producer = producer
        self._producer_epoch = 0
        self._in_flight: deque[_InFlight] = deque()
        self._visible = taken.manifest.next_seq
        self._last_timestamp_us = taken.manifest.timestamp_us
        self._room = RoomLine(self._queue)  # appends waiting for the queue, in order
        self._idle: list[asyncio.Future[None]] = []  # waiting until all that was put in is durable
        self._drained: asyncio.Future[None] | None = None  # a roll waiting for the blocks in flight
        self._is_kicked = False
        self._is_stopped = False  # nothing is sent: a segment is being opened or closed
        self._flush_until = 0  # seqs below are flushed without linger
        self._linger_timer: asyncio.TimerHandle | None = None
        self._age_timer: asyncio.TimerHandle | None = None
        self._moving: asyncio.Task[None] | None = None  # opening or rolling a segment
        self._error: WoodpeckerError | None = None
        self._doubts: list[_Doubt] = []
        self._is_closing = False
        refuse_after_fork(self)

    # --- appending ---

    async def append(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        headers: Headers | None = None,
        timestamp_us: int | None = None,
        expect_seq: int | None = None,
    ) -> int:
        """Append one entry and wait until it is durable.

        Args:
            payload: 0 to 64 MiB.
            headers: mapping or list of pairs; str is taken as UTF-8.
            timestamp_us: microseconds since 1970, see the log's option ``timestamps``.
            expect_seq: refuse unless the entry gets exactly this seq.
        Returns:
            Its seq.
        Raises:
            InvalidRequest, Conflict(actual=), LogEnded, Closed: refused; the writer stays usable.
            NotWritten: no room (disk full). OutcomeUnknown, Fenced(outcome=): the writer has ended.
        Cancellation: the entry may still become durable; the writer stays usable.
        """
        data = as_payload(payload)
        if not self._room.is_open(len(data)):
            await self._wait_for_room(len(data))
        return await self.submit(
            data, headers=headers, timestamp_us=timestamp_us, expect_seq=expect_seq
        )

    def submit(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        headers: Headers | None = None,
        timestamp_us: int | None = None,
        expect_seq: int | None = None,
    ) -> asyncio.Future[Any]:
        """Put one entry in the queue; the future gives its seq once durable. First in, first out.

        Raises:
            Overloaded: the queue is full; await ``ready()``. Others as ``append``; the future fails
            with what ``append`` would raise after the seq was given out.
        Cancellation of the future: the entry may still become durable.
        """
        if self._error is not None or self._is_closing:
            raise self._refusal()
        data = payload if type(payload) is bytes and len(payload) < 1 << 20 else as_payload(payload)
        future: asyncio.Future[Result] = self._loop.create_future()
        if (
            headers is not None
            or timestamp_us is not None
            or expect_seq is not None
            or not self._queue.put_plain(data, future)
        ):
            self._put_one(data, future, headers, timestamp_us, expect_seq)
        if not self._is_kicked:
            self._is_kicked = True
            self._loop.call_soon(self._pump)
        return future

    def _put_one(
        self,
        data: bytes,
        future: asyncio.Future[Result],
        headers: Headers | None,
        timestamp_us: int | None,
        expect_seq: int | None,
    ) -> None:
        self._check_expected(expect_seq)
        self._reserve(len(data))
        self._queue.put(
            [data],
            future,
            result=self._queue.next_seq,
            headers=None if headers is None else [as_headers(headers)],
            timestamps=None if timestamp_us is None else [timestamp_us],
        )

    async def append_many(
        self,
        entries: Sequence[bytes | bytearray | memoryview | Entry],
        *,
        expect_seq: int | None = None,
        sequence: int | None = None,
        producer: str | None = None,
        producer_epoch: int | None = None,
        column: bytes = b"",
    ) -> range:
        """Append entries that belong together: contiguous, all or nothing, one block.

        Args:
            entries: payloads or ``Entry`` values; at most 128 MiB together; may be empty.
            sequence: number of this batch in the producer's session; a repeat returns the first result.
            producer, producer_epoch: of another session granted by ``grant_producer``.
            column: opaque bytes kept with the batch, at most 64 KiB.
        Returns:
            Their seqs.
        Raises, Cancellation: as ``append``; Conflict too for a gap, an older epoch, an unknown producer.
        """
        payloads, headers, stamps = _columns(entries)
        size = sum(map(len, payloads))
        if size > MAX_BATCH_BYTES:
            raise InvalidRequest(
                f"a batch of {size} bytes: at most {MAX_BATCH_BYTES} (128 MiB); split it"
            )
        if not self._room.is_open(size):
            await self._wait_for_room(size)
        mark = self._mark(len(payloads), sequence, producer, producer_epoch, column)
        future = self._submit_many(payloads, headers, stamps, expect_seq, mark)
        result = await future
        assert isinstance(result, range)
        return result

    def _submit_many(
        self,
        payloads: Sequence[bytes],
        headers: list[Any] | None,
        stamps: list[int | None] | None,
        expect_seq: int | None,
        mark: BatchMark | None,
    ) -> asyncio.Future[Result]:
        if self._error is not None or self._is_closing:
            raise self._refusal()
        future: asyncio.Future[Result] = self._loop.create_future()
        if mark is not None and mark.producer:
            first = self._sessions.admit(mark, self._queue.next_seq, future)
            if first is not None:
                return first
        try:
            self._check_expected(expect_seq)
            if not payloads and mark is None:
                future.set_result(range(self._queue.next_seq, self._queue.next_seq))
                return future
            self._reserve(sum(map(len, payloads)))
            base = self._queue.next_seq
            self._queue.put(
                payloads,
                future,
                result=range(base, base + len(payloads)),
                headers=headers,
                timestamps=stamps,
                mark=mark,
            )
        except WoodpeckerError:
            if mark is not None and mark.producer:
                self._sessions.withdraw(mark)
            raise
        self._kick()
        return future

    def _mark(
        self,
        count: int,
        sequence: int | None,
        producer: str | None,
        producer_epoch: int | None,
        column: bytes,
    ) -> BatchMark | None:
        if sequence is None:
            if producer is not None or producer_epoch is not None:
                raise InvalidRequest("a producer's batch needs sequence=")
            return BatchMark(first=0, count=count, column=column) if column else None
        who = producer if producer is not None else self._producer
        if who is None:
            raise InvalidRequest("sequence= needs a session: open_writer(producer='id')")
        epoch = producer_epoch if producer_epoch is not None else self._producer_epoch
        if not isinstance(sequence, int) or not 0 <= sequence < 1 << 63:
            raise InvalidRequest(f"sequence={sequence!r}: batches are numbered 0, 1, 2, ...")
        return BatchMark(
            first=0, count=count, producer=who, producer_epoch=epoch, sequence=sequence, column=column
        )

    def _check_expected(self, expect_seq: int | None) -> None:
        actual = self._queue.next_seq
        if expect_seq is not None and expect_seq != actual:
            raise Conflict(
                f"log {self.name!r}: expected seq {expect_seq}, the next one is {actual}; "
                "nothing was written",
                actual=actual,
            )

    async def grant_producer(self, producer: str) -> int:
        """Open a producer session on this writer; return its epoch, durable before it is given out.

        Sequences go on after the newest batch of that producer; older epochs are refused from here on.
        """
        for control in self._sessions.grant(producer):
            await self._append_control(control)
        return self._sessions.epoch_of(producer)

    async def drop_producer(self, producer: str) -> None:
        """Forget a producer session; its batches are refused from here on. Decided by the caller."""
        await self._append_control(self._sessions.drop(producer))

    async def open_session(self) -> None:
        """Grant the session named at ``open_writer(producer=)``, if one was."""
        if self._producer is not None:
            self._producer_epoch = await self.grant_producer(self._producer)

    async def _append_control(self, control: Control) -> None:
        if self._error is not None or self._is_closing:
            raise self._refusal()
        future: asyncio.Future[Result] = self._loop.create_future()
        self._reserve(0)
        self._queue.put_control(control, future)
        self._flush_until = max(self._flush_until, self._queue.next_seq + 1)
        self._kick()
        await future

    # --- waiting ---

    async def ready(self) -> None:
        """Wait until ``submit`` would take one more entry. Raises: what has ended the writer."""
        await self._wait_for_room(0)

    async def flush(self) -> None:
        """Wait until everything put in so far is durable; linger is cut short.

        Raises: what has ended the writer. Cancellation: nothing changes.
        """
        if self._error is not None:
            raise self._error
        self._flush_until = max(self._flush_until, self._queue.next_seq + 1)
        self._kick()
        while self._queue.drafts or self._in_flight:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiting)
            await waiting
            if self._error is not None:
                raise self._error

    def reserve(self, size_bytes: int) -> int:
        """Make sure that ``submit`` of ``size_bytes`` would be admitted now; return the seq it would get.

        Raises: Overloaded, NotWritten, Closed and what has ended the writer.
        """
        if self._error is not None or self._is_closing:
            raise self._refusal()
        if not self._queue.has_room(size_bytes):
            raise Overloaded("the writer's queue is full; wait with writer.ready()")
        self._reserve(size_bytes)
        return self._queue.next_seq

    async def _wait_for_room(self, size_bytes: int) -> None:
        if self._error is None and not self._is_closing:
            await self._room.enter(size_bytes)
        if self._error is not None or self._is_closing:
            raise self._refusal()

    def _reserve(self, size_bytes: int) -> None:
        """Room on the disk for all that waits, this, and the rest of the draft it begins."""
        slack = self._queue.cut_bytes + BLOCK_OVERHEAD_BYTES * (1 + len(self._queue.drafts))
        self._chain.reserve(self._queue.bytes + size_bytes + slack)

    # --- state ---

    @property
    def visible(self) -> int:
        """The seq after the last entry that every reader is guaranteed to see."""
        return self._visible

    @property
    def next_seq(self) -> int:
        """The seq that the next entry put in will get."""
        return self._queue.next_seq

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._chain.owner.epoch

    async def still_owner(self) -> bool:
        """Whether the log is still this writer's, by one linearizable read begun after the call.

        One read serves all who wait. Raises: Unavailable: nothing is known.
        """
        return await self._chain.still_owner()

    # --- the pump: drafts to blocks ---

    def _kick(self) -> None:
        if not self._is_kicked:
            self._is_kicked = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Cut and send what may be sent now."""
        self._is_kicked = False
        while self._queue.drafts and self._error is None and not self._is_stopped:
            segment = self._chain.current
            if segment is None:
                self._is_stopped = True
                self._move(self._open_segment())
                return
            draft = self._queue.drafts[0]
            if not may_cut(
                full=self._queue.is_full(),
                in_flight=len(self._in_flight),
                slots=segment.slots,
                partial_slots=segment.partial_slots,
                flushing=draft.base_seq < self._flush_until,
                linger_over=self._is_linger_over(draft),
            ):
                return
            self._send(self._queue.pop())
            self._look_ahead()

    def _is_linger_over(self, draft: Pending) -> bool:
        linger_ms = self._chain.options.linger_ms
        if not linger_ms:
            return True
        left_ms = draft.first_ms + linger_ms - self._env.runtime.monotonic_ms()
        if left_ms <= 0:
            return True
        if self._linger_timer is None:
            self._linger_timer = self._loop.call_later(left_ms / 1000, self._linger_ended)
        return False

    def _linger_ended(self) -> None:
        self._linger_timer = None
        self._kick()

    def _send(self, draft: Pending) -> None:
        """Pack a draft into the next block and hand it to the segment."""
        now_us = max(self._env.runtime.now_us(), self._last_timestamp_us)
        if draft.timestamps is not None:
            draft.timestamps = raised(draft.timestamps, self._last_timestamp_us)
        block = self._chain.pack(draft, base_timestamp_us=now_us, lac=self._visible - 1)
        self._last_timestamp_us = max(self._last_timestamp_us, block.last_timestamp_us)
        sent = _InFlight(
            draft=draft,
            block=block,
            sent_ms=self._env.runtime.monotonic_ms(),
            facts=Block.parse(block.buffer).facts() if block.header.has_facts else None,
        )
        self._in_flight.append(sent)
        future = self._chain.submit(block)
        if future.done():
            self._answered(future)
        else:
            future.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[None]) -> None:
        """The oldest block in flight is durable, or has failed; answers come in order."""
        if not self._in_flight:
            return  # the writer has ended and has given every entry its answer
        sent = self._in_flight.popleft()
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            self._block_failed(sent, error)
        else:
            self._acknowledge(sent)

    def _acknowledge(self, sent: _InFlight) -> None:
        header = sent.block.header
        self._visible = header.end_seq
        self._queue.release(sent.draft)
        sent.draft.resolve()
        if sent.facts is not None:
            self._sessions.acknowledged(sent.draft.batches, sent.facts)
        if self._env.observer is not SILENT:
            self._observe(sent)
        self._room.let_in()
        if not self._in_flight:
            self._wake_drained()
            if self._idle and not self._queue.drafts:
                self._wake_idle()
        if self._queue.drafts:
            self._kick()

    def _observe(self, sent: _InFlight) -> None:
        kind, observer = str(self._chain.kind), self._env.observer
        observer.count(Counter.APPENDS, sent.draft.count, kind=kind)
        observer.count(Counter.APPENDED_BYTES, sent.draft.payload_bytes, kind=kind)
        observer.count(Counter.BLOCKS, kind=kind)
        observer.count(Counter.BLOCK_BYTES, sent.block.header.size_bytes, kind=kind)
        observer.observe(Histogram.BLOCK_SIZE, sent.block.header.size_bytes, kind=kind)
        latency_ms = self._env.runtime.monotonic_ms() - sent.sent_ms
        observer.observe(Histogram.APPEND_LATENCY, latency_ms, kind=kind)

    def _wake_idle(self) -> None:
        idle, self._idle = self._idle, []
        for waiting in idle:
            if not waiting.done():
                waiting.set_result(None)

    def _wake_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- segments ---

    def _look_ahead(self) -> None:
        """Make the next segment ready in time, and roll when it is due; sending goes on meanwhile."""
        if self._moving is not None:
            if self._chain.is_overgrown():
                self._is_stopped = True  # the metadata store is away for too long: appends wait
        elif self._chain.is_roll_due():
            self._move(self._roll())
        elif self._chain.should_prepare():
            self._move(self._prepare())

    def _move(self, work: Any) -> None:
        """One opening, preparing or rolling at a time."""
        self._moving = self._env.runtime.spawn(work, f"log {self.name}: segment")

    async def _open_segment(self) -> None:
        try:
            await self._chain.open_next()
            self._arm_age_timer()
        except NotWritten as error:
            self._queue.refuse_all(error)  # no room: nothing was handed over, the writer lives
        except OutcomeUnknown as error:
            self._end(error)
        except WoodpeckerError as error:
            if error.retryable:
                self._queue.refuse_all(NotWritten(f"log {self.name!r}: {error}"))
            else:
                self._end(error)
        finally:
            self._settle()

    async def _prepare(self) -> None:
        """Have the next segment ready before it is needed; a failure is met again at the roll."""
        try:
            await self._chain.prepare()
        except WoodpeckerError as error:
            if not error.retryable:
                self._end(error)
        finally:
            self._settle()

    async def _roll(self) -> None:
        """Live close: the next segment ready, then drain, fix E, close and open by one CAS."""
        try:
            while not await self._is_ready_to_roll():
                await self._env.runtime.sleep_ms(ROLL_RETRY_MS)
            self._is_stopped = True
            await self._drain()
            if self._error is None:
                await self._chain.roll(self._sessions.settled())
                self._arm_age_timer()
        except WoodpeckerError as error:
            self._end(error)
        finally:
            self._settle()

    async def _is_ready_to_roll(self) -> bool:
        """Whether the manifest answers and the next segment is there; else the open one grows on."""
        if self._error is not None:
            raise self._error
        try:
            await self._chain.prepare()
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            return False
        return True

    async def _close_aged(self) -> None:
        """The segment is old and nothing is being written: close it, so that it can be sealed."""
        try:
            self._is_stopped = True
            await self._drain()
            if self._error is None:
                await self._chain.close_open(self._sessions.settled())
        except WoodpeckerError as error:
            self._end(error)
        finally:
            self._settle()

    def _arm_age_timer(self) -> None:
        if self._age_timer is not None:
            self._age_timer.cancel()
        self._age_timer = self._loop.call_later(
            self._chain.age_left_ms() / 1000 + 0.001, self._aged
        )

    def _aged(self) -> None:
        self._age_timer = None
        if self._error is None and not self._is_closing and self._chain.current is not None:
            if self._moving is None and self._chain.is_roll_due():
                self._move(self._close_aged() if self._chain.has_blocks else _nothing())
            else:
                self._arm_age_timer()

    def _settle(self) -> None:
        """The segment moved, or could not: what waits goes on."""
        self._moving = None
        self._is_stopped = False
        self._queue.cut_bytes = self._chain.cut_bytes
        if self._queue.drafts and self._error is None and self._chain.current is not None:
            try:
                self._chain.reserve(self._queue.bytes)  # admitted under the segment before
            except NotWritten as error:
                self._queue.refuse_all(error)
        self._room.let_in()
        if not self._queue.drafts and not self._in_flight:
            self._wake_idle()
        self._kick()

    async def _drain(self) -> None:
        if self._in_flight and self._error is None:
            self._drained = self._loop.create_future()
            await self._drained

    # --- ends ---

    def _block_failed(self, sent: _InFlight, error: BaseException | None) -> None:
        """The first failure ends the writer; each block in flight has an answer of its own."""
        cause = error if isinstance(error, WoodpeckerError) else OutcomeUnknown(f"{error!r}")
        self._queue.release(sent.draft)
        self._remember_doubt(sent, cause)
        sent.draft.fail(cause)
        self._end(cause)

    def _remember_doubt(self, sent: _InFlight, cause: WoodpeckerError) -> None:
        is_unknown = isinstance(cause, OutcomeUnknown) or (
            isinstance(cause, Fenced) and cause.outcome == "unknown"
        )
        if is_unknown:
            header = sent.block.header
            self._doubts.append(
                _Doubt(
                    first_seq=header.base_seq, count=header.count, segment_id=header.segment_id
                )
            )

    def _end(self, cause: WoodpeckerError) -> None:
        """Nothing is sent any more; what was never handed to a store is NotWritten."""
        if self._error is not None:
            return
        self._error = cause
        self._env.observer.count(Counter.FENCED, int(isinstance(cause, Fenced)))
        event = Event.WRITER_FENCED if isinstance(cause, Fenced) else Event.WRITER_FAILED
        fields = {} if isinstance(cause, Fenced) else {"error": str(cause)}
        self._env.observer.event(event, log=self.name, epoch=self.epoch, **fields)
        self._queue.refuse_all(self._not_handed_over(cause))
        self._wake_idle()
        self._wake_drained()
        self._room.open_up()

    def _not_handed_over(self, cause: WoodpeckerError) -> WoodpeckerError:
        if isinstance(cause, Fenced):
            return Fenced(str(cause), outcome="not_written")
        if isinstance(cause, (LogEnded, Closed)):
            return cause
        return NotWritten(f"log {self.name!r}: never sent, for the writer ended: {cause}")

    def _refusal(self) -> WoodpeckerError:
        if self._error is None:
            return Closed(f"log {self.name!r}: this writer is closed; open a new one")
        return self._not_handed_over(self._error)

    async def resolve(self) -> dict[int, int | NotWritten | OutcomeUnknown]:
        """What became of the entries whose outcome was unknown; only reads, fences nobody.

        Returns:
            By the seq each entry was given: its seq if it is in the log, ``NotWritten`` if it never
            will be, ``OutcomeUnknown`` while nobody has closed the segment (ask again later).
        Raises: Unavailable, NotFound: nothing is known now.
        """
        answers: dict[int, int | NotWritten | OutcomeUnknown] = {}
        for doubt in self._doubts:
            segment = await self._chain.find(doubt.segment_id, doubt.first_seq)
            for seq in range(doubt.first_seq, doubt.first_seq + doubt.count):
                match judge(segment, token=self._chain.owner.token, seq=seq):
                    case Known.WRITTEN:
                        answers[seq] = seq
                    case Known.NOT_WRITTEN:
                        answers[seq] = NotWritten(f"seq {seq} of this writer is not in the log")
                    case Known.UNKNOWN:
                        answers[seq] = OutcomeUnknown(
                            f"seq {seq}: its segment is not closed yet, or gone from the manifest"
                        )
        return answers

    async def end_log(self) -> int:
        """Write the end block and close: nothing can be appended to the log ever again.

        Returns: the log's final next seq.
        """
        await self._append_control(EndLog())
        await self.close()
        return self._visible

    async def close(self) -> None:
        """Drain, close the segment, let go. Idempotent; a writer that has ended just lets go.

        Raises: what makes the entries put in so far fail, if they do.
        Cancellation: nothing acknowledged is lost; the next opener recovers the segment.
        """
        if self._is_closing:
            return
        error = self._error
        try:
            if error is None:
                await self.flush()
        finally:
            self._is_closing = True
            self._room.open_up()
            for timer in (self._age_timer, self._linger_timer):
                if timer is not None:
                    timer.cancel()
            if self._moving is not None:
                self._moving.cancel() if not self._is_stopped else None
                await asyncio.gather(self._moving, return_exceptions=True)
            await self._chain.close(self._sessions.settled(), clean=self._error is None)

    def on_fork(self) -> None:
        """In a forked child: this writer belongs to the parent."""
        self._error = Closed("this writer belongs to the process that opened it: open one here")

    async def __aenter__(self) -> LogWriter:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


BLOCK_OVERHEAD_BYTES = 8192  # header and padding of one more block
ROLL_RETRY_MS = 500


async def _nothing() -> None:
    return


def _columns(
    entries: Sequence[Any],
) -> tuple[list[bytes], list[Any] | None, list[int | None] | None]:
    """Payloads, headers and timestamps of a batch; the plain case is one type check per entry in C."""
    if isinstance(entries, (bytes, bytearray, memoryview, str)):
        raise InvalidRequest("append_many takes a list of payloads, not one payload")
    kinds = set(map(type, entries))
    if kinds <= {bytes}:
        payloads = entries if isinstance(entries, list) else list(entries)
        if payloads and max(map(len, payloads)) >= 1 << 20:
            payloads = [as_payload(p) for p in payloads]
        return payloads, None, None
    if Entry not in kinds:
        return [as_payload(p) for p in entries], None, None
    items = [e if isinstance(e, Entry) else Entry(e) for e in entries]
    headers = [e.headers for e in items] if any(e.headers for e in items) else None
    stamps = [None if e.timestamp_us == NO_TIME else e.timestamp_us for e in items]
    has_stamps = any(s is not None for s in stamps)
    return [as_payload(e.payload) for e in items], headers, stamps if has_stamps else None

