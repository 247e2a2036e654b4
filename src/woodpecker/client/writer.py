"""The writer of one log, as the user sees it.

The way of an append: ``append`` -> ``queue.put`` (the seq is given out) -> ``pump.run`` cuts a draft ->
``codec.pack`` makes a block -> ``SegmentWriter.submit`` makes it durable -> the future gets its seq.
Rules are in ``core``: ``batcher`` (when to cut), ``rolling``, ``producers``, ``timestamps``, ``outcomes``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Self

from woodpecker.client.entry import Entry, HeaderInput, as_headers
from woodpecker.client.environment import Environment
from woodpecker.client.pump import Pump
from woodpecker.client.queue import ENTRY_OVERHEAD_BYTES, Result, as_payload, columns_of, cost_of
from woodpecker.client.takeover import TakenOver
from woodpecker.codec.columns import MAX_CALLER_COLUMN_BYTES, Headers
from woodpecker.core.batcher import BatchMark
from woodpecker.core.outcomes import Known, judge
from woodpecker.core.register import Control, DropProducer, EndLog
from woodpecker.errors import (
    Closed,
    Conflict,
    InvalidRequest,
    LogEnded,
    NotWritten,
    OutcomeUnknown,
    WoodpeckerError,
)
from woodpecker.runtime.forks import refuse_after_fork

Payload = bytes | bytearray | memoryview


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
        self._pump = Pump(env, name, taken)
        self._queue = self._pump.queue
        self._put_plain = self._queue.put_plain
        self._new_future: Callable[[], asyncio.Future[Any]]
        self._new_future = partial(asyncio.Future, loop=self._pump.loop)  # without a Python frame
        self._sessions = self._pump.sessions
        self._producer = producer
        self._producer_epoch = 0
        self._closed: asyncio.Future[None] | None = None
        self._foreign: Closed | None = None  # set in a forked child
        refuse_after_fork(self)

    # --- appending ---

    async def append(
        self,
        payload: Payload,
        *,
        headers: HeaderInput | None = None,
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
        if headers is None and timestamp_us is None and expect_seq is None:
            future = self._submit_plain(payload)
            if future is not None:
                quick: int = await future
                return quick
        data = as_payload(payload)
        if headers is not None:
            headers = as_headers(headers)
        size = cost_of(len(data), 1, None if headers is None else [headers])
        if not self._pump.room.is_open(size):
            await self._wait_for_room(size)
        seq: int = await self._submit(data, headers, timestamp_us, expect_seq)
        return seq

    def submit(
        self,
        payload: Payload,
        *,
        headers: HeaderInput | None = None,
        timestamp_us: int | None = None,
        expect_seq: int | None = None,
    ) -> asyncio.Future[Any]:
        """Put one entry in the queue; the future gives its seq once durable. First in, first out.

        Raises:
            Overloaded: the queue is full; await ``ready()``. Others as ``append``; the future fails
            with what ``append`` would raise after the seq was given out.
        Cancellation of the future: the entry may still become durable.
        """
        if headers is None and timestamp_us is None and expect_seq is None:
            future = self._submit_plain(payload)
            if future is not None:
                return future
        data = as_payload(payload)
        if self._pump.room.is_crowded and self._pump.shut is None:  # nobody overtakes who waits
            pairs = None if headers is None else [as_headers(headers)]
            raise self._queue.overloaded(cost_of(len(data), 1, pairs))
        return self._submit(data, headers, timestamp_us, expect_seq)

    def _submit_plain(self, payload: Payload) -> asyncio.Future[Any] | None:
        """Put one entry in the quick way, or None: it has to be looked at. The hot path."""
        if type(payload) is not bytes:
            return None
        future = self._new_future()
        if not self._put_plain(payload, future):
            return None
        if not self._pump.is_kicked:
            self._pump.kick()
        return future

    def _submit(
        self,
        data: bytes,
        headers: HeaderInput | None,
        timestamp_us: int | None,
        expect_seq: int | None,
    ) -> asyncio.Future[Any]:
        if self._pump.shut is not None:
            raise copy(self._pump.shut)
        future = self._new_future()
        self._check_expected(expect_seq)
        self._pump.reserve(len(data))
        self._queue.put(
            [data],
            future,
            payload_bytes=len(data),
            result=self._queue.next_seq,
            headers=None if headers is None else [as_headers(headers)],
            timestamps=None if timestamp_us is None else [timestamp_us],
        )
        self._pump.kick()
        return future

    async def append_many(
        self,
        entries: Iterable[Payload | Entry],
        *,
        expect_seq: int | None = None,
        sequence: int | None = None,
        producer: str | None = None,
        producer_epoch: int | None = None,
        column: bytes = b"",
    ) -> range:
        """Append entries that belong together: contiguous, all or nothing, one block.

        Args:
            entries: payloads or ``Entry`` values; at most 128 MiB together; may be empty if it has
                neither ``sequence`` nor ``column``.
            sequence: number of this batch in the producer's session; a repeat returns the first result.
            producer, producer_epoch: of another session granted by ``grant_producer``.
            column: opaque bytes kept with the batch, at most 64 KiB.
        Returns:
            Their seqs.
        Raises, Cancellation: as ``append``; Conflict too for a gap, an older epoch, an unknown producer.
        """
        payloads, size, headers, stamps = columns_of(entries)
        mark = self._mark(len(payloads), sequence, producer, producer_epoch, column)
        cost = cost_of(size, len(payloads), headers)
        if not self._pump.room.is_open(cost):
            await self._wait_for_room(cost)
        future = self._submit_many(payloads, size, headers, stamps, expect_seq, mark)
        result = await future
        assert isinstance(result, range)
        return result

    def submit_many(
        self,
        entries: Iterable[Payload | Entry],
        *,
        headers: Sequence[Headers] | None = None,
        timestamps_us: Sequence[int] | None = None,
        column: bytes = b"",
    ) -> asyncio.Future[Any]:
        """As ``append_many``, put in the queue at once; the future gives the range once durable.

        The entries get the seqs from ``next_seq`` on, as it was before the call.

        Args:
            headers, timestamps_us: one for each of ``entries``, which are payloads then; a ``range`` of
                timestamps costs next to nothing.
            column: as for ``append_many``.
        Raises: Overloaded: the queue is full; await ``ready()``. Others as ``append_many``.
        Cancellation of the future: the entries may still become durable.
        """
        payloads, size, own_headers, own_stamps = columns_of(entries)
        pairs = own_headers if headers is None else list(headers)
        stamps = own_stamps if timestamps_us is None else timestamps_us
        for given in (pairs, stamps):
            if given is not None and len(given) != len(payloads):
                raise InvalidRequest(
                    f"{len(given)} headers or timestamps for {len(payloads)} entries: one for each"
                )
        mark = self._mark(len(payloads), None, None, None, column)
        if self._pump.room.is_crowded and self._pump.shut is None:  # nobody overtakes who waits
            raise self._queue.overloaded(cost_of(size, len(payloads), pairs))
        return self._submit_many(payloads, size, pairs, stamps, None, mark)

    def _submit_many(
        self,
        payloads: Sequence[bytes],
        size: int,
        headers: list[Headers] | None,
        stamps: Sequence[int | None] | None,
        expect_seq: int | None,
        mark: BatchMark | None,
    ) -> asyncio.Future[Result]:
        if self._pump.shut is not None:
            raise copy(self._pump.shut)
        future: asyncio.Future[Result] = self._pump.loop.create_future()
        base = self._queue.next_seq
        is_produced = mark is not None and mark.producer != ""
        if mark is not None and is_produced:
            first = self._sessions.repeat_of(mark)
            if isinstance(first, asyncio.Future):
                return asyncio.shield(first)
            if first is not None:
                future.set_result(first)
                return future
        self._check_expected(expect_seq)
        if not payloads:
            future.set_result(range(base, base))
            return future
        self._pump.reserve(size)
        self._queue.put(
            payloads,
            future,
            payload_bytes=size,
            result=range(base, base + len(payloads)),
            headers=headers,
            timestamps=stamps,
            mark=mark,
        )
        self._pump.kick()
        if mark is None or not is_produced:
            return future
        self._sessions.accept(mark, base, future)
        return asyncio.shield(future)  # who gives up waiting must not take it from a repeat

    def _mark(
        self,
        count: int,
        sequence: int | None,
        producer: str | None,
        producer_epoch: int | None,
        column: bytes,
    ) -> BatchMark | None:
        if not count and (sequence is not None or column):
            raise InvalidRequest("a batch with sequence= or column= needs at least one entry")
        if len(column) > MAX_CALLER_COLUMN_BYTES:
            raise InvalidRequest(
                f"column= of {len(column)} bytes: at most {MAX_CALLER_COLUMN_BYTES} (64 KiB)"
            )
        if sequence is None:
            if producer is not None or producer_epoch is not None:
                raise InvalidRequest("a producer's batch needs sequence=")
            return BatchMark(first=0, count=count, column=column) if column else None
        who = producer if producer is not None else self._producer
        if not who:
            raise InvalidRequest("sequence= needs a session: open_writer(producer='id')")
        epoch = producer_epoch if producer_epoch is not None else self._producer_epoch
        if not isinstance(sequence, int) or not 0 <= sequence < 1 << 63:
            raise InvalidRequest(f"sequence={sequence!r}: batches are numbered 0, 1, 2, ...")
        return BatchMark(
            first=0,
            count=count,
            producer=who,
            producer_epoch=epoch,
            sequence=sequence,
            column=column,
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
        controls, epoch = self._sessions.grant(producer)
        await self._append_controls(controls)
        return epoch

    async def drop_producer(self, producer: str) -> None:
        """Forget a producer session; its batches are refused from here on. Decided by the caller."""
        await self._append_controls([DropProducer(id=producer)])

    async def open_session(self) -> None:
        """Grant the session named at ``open_writer(producer=)``, if one was."""
        if self._producer is not None:
            self._producer_epoch = await self.grant_producer(self._producer)

    async def _append_controls(self, controls: Sequence[Control]) -> None:
        for future in self._put_controls(controls):
            await future

    def _put_controls(self, controls: Sequence[Control]) -> list[asyncio.Future[Result]]:
        if self._pump.shut is not None:
            raise copy(self._pump.shut)
        self._pump.reserve(0)
        futures: list[asyncio.Future[Result]] = []
        for control in controls:
            futures.append(self._pump.loop.create_future())
            self._queue.put_control(control, futures[-1])
            self._sessions.sent(control)
        self._pump.flush_soon()
        return futures

    # --- waiting ---

    async def ready(self) -> None:
        """Wait until ``submit`` would take what it refused last. Raises: what has ended the writer."""
        refused, self._queue.refused_bytes = self._queue.refused_bytes, ENTRY_OVERHEAD_BYTES
        await self._wait_for_room(refused)

    async def flush(self) -> None:
        """Wait until everything put in so far is durable; linger is cut short.

        Raises: what has ended the writer. Cancellation: nothing changes.
        """
        await self._pump.flush()

    def reserve(self, size_bytes: int) -> int:
        """Make sure that ``submit`` of ``size_bytes`` would be admitted now; return the seq it would get.

        Raises: Overloaded, NotWritten, Closed and what has ended the writer.
        """
        if self._pump.shut is not None:
            raise copy(self._pump.shut)
        cost = cost_of(size_bytes, 1)
        if self._pump.room.is_crowded:
            raise self._queue.overloaded(cost)
        self._queue.check_room(cost)
        self._pump.reserve(size_bytes)
        return self._queue.next_seq

    async def _wait_for_room(self, size_bytes: int) -> None:
        if self._pump.shut is None:
            await self._pump.room.enter(size_bytes)
        if self._pump.shut is not None:
            raise copy(self._pump.shut)

    # --- state ---

    @property
    def visible(self) -> int:
        """The seq after the last entry that every reader is guaranteed to see."""
        return self._pump.visible

    @property
    def next_seq(self) -> int:
        """The seq that the next entry put in will get."""
        return self._queue.next_seq

    @property
    def next_sequence(self) -> int:
        """The sequence that the next batch of this writer's own producer session must have.

        Raises: InvalidRequest: the writer was opened without ``producer=``.
        """
        if self._producer is None:
            raise InvalidRequest("no producer session: open_writer(producer='id')")
        return self._sessions.next_sequence_of(self._producer)

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._pump.epoch

    @property
    def ended_by(self) -> WoodpeckerError | None:
        """What has ended this writer, or None: then it takes appends until it is closed."""
        return self._pump.error

    async def still_owner(self) -> bool:
        """Whether the log is still this writer's, by one linearizable read begun after the call.

        One read serves all who wait. Raises: Unavailable: nothing is known.
        """
        self._check_process()
        return await self._pump.chain.still_owner()

    # --- ends ---

    async def resolve(self) -> dict[int, int | NotWritten | OutcomeUnknown]:
        """What became of the entries whose outcome was unknown; only reads, fences nobody.

        Returns:
            By the seq each entry was given: its seq if it is in the log, ``NotWritten`` if it never
            will be, ``OutcomeUnknown`` while nobody has closed the segment (ask again later). It
            speaks of the entry that has the seq: one whose future was cancelled may have been
            refused since, without a word, and its seq given to another.
        Raises: Unavailable, NotFound: nothing is known now.
        """
        self._check_process()
        answers: dict[int, int | NotWritten | OutcomeUnknown] = {}
        for doubt in self._pump.doubts:
            segment = await self._pump.chain.find(doubt.segment_id, doubt.segment_seq)
            for seq in range(doubt.first_seq, doubt.first_seq + doubt.count):
                match judge(segment, token=self._pump.chain.owner.token, seq=seq):
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
        end = self._put_controls([EndLog()])
        self._pump.shut = LogEnded(f"log {self.name!r}: it is being ended; nothing can follow")
        try:
            await end[0]
        finally:
            await self.close()
        if self._pump.error is not None:  # the end stands, but the manifest does not say so yet
            raise copy(self._pump.error)
        return self._pump.visible

    async def close(self) -> None:
        """Drain, close the segment, let go. Idempotent; a writer that has ended just lets go.

        A segment that cannot be closed now is left to the next opener: what it holds is durable.
        Raises: what makes the entries put in so far fail, if they do.
        Cancellation: nothing acknowledged is lost; the next opener recovers the segment.
        """
        if self._foreign is not None:
            return  # tasks, sockets and the segment are the parent's
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = self._pump.loop.create_future()
        closed = Closed(f"log {self.name!r}: this writer is closed; open a new one")
        self._pump.shut = self._pump.shut or closed
        try:
            await self._pump.close()
        finally:
            self._closed.set_result(None)

    def on_fork(self) -> None:
        """In a forked child: this writer belongs to the parent, segment and tasks too."""
        self._foreign = Closed("this writer belongs to the process that opened it: open one here")
        self._pump.error = self._pump.shut = self._foreign

    def _check_process(self) -> None:
        if self._foreign is not None:
            raise copy(self._foreign)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
