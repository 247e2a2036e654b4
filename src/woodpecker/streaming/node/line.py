"""The line of one owner's life: everything it sequences, and every answer, in the order of the log.

A batch gets seq and tick, goes into the fold and into the writer's queue in one step. Answers wait in
the line behind all that they rest on: what is written is answered when it is acknowledged, what is not
written (a refusal, a repeat, an ephemeral) when all before it is. The first failure ends the line: the fold
holds what the log may not hold, so nothing of it is used again. **P**
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from woodpecker import LogWriter
from woodpecker.errors import Fenced, InvalidRequest, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.codec.column import encode_column
from woodpecker.streaming.core.admission import Admit, data_facts, facts_of
from woodpecker.streaming.core.facts import Body, Close, Facts, Limit
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.ticks import TickClock, Ticks, next_limit
from woodpecker.streaming.core.values import Properties
from woodpecker.streaming.frames import Messages
from woodpecker.streaming.node.pieces import ENTRY_OVERHEAD_BYTES, Piece, type_of

Answer = Callable[[Refusal | None], None]
"""Called once: with None when it is so, or with what became of it instead."""

COLUMN_MAX_BYTES = 64 << 10  # what the log takes beside a batch
NOTHING = Messages(payloads=[b""])  # the entry of a batch without messages


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """A batch that is not acknowledged yet, or (``future`` None) an answer behind such batches."""

    answer: Answer | None
    future: asyncio.Future[Any] | None = None
    piece: Piece | None = None
    sent_us: int = 0
    tick: int = 0  # of the first thing it shows
    is_repeat: bool = False


class Line:
    """See the module. One event loop; nothing here awaits.

    Args:
        fold: up to the writer's next seq. It is the line's from here on.
        ticks: as the term begins.
        on_acked: a batch is durable; called in order, before its own answer.
        on_settled: some were, and nothing more can be answered in this turn of the loop.
        on_end: the first failure.
    """

    def __init__(
        self,
        writer: LogWriter,
        runtime: Runtime,
        fold: Fold,
        ticks: Ticks,
        *,
        step_us: int,
        on_acked: Callable[[Piece], None],
        on_settled: Callable[[], None],
        on_end: Callable[[WoodpeckerError], None],
    ) -> None:
        self.fold = fold
        self.ticks = ticks
        self.acked = fold.next_seq  # all below is acknowledged
        self.queued_bytes = 0
        self.proven_us = self.monotonic_us_of(runtime)  # the log was surely ours then
        self.ended: WoodpeckerError | None = None
        self.refused = ""  # why the newest batch was refused by a log without room; "": it was not
        self._writer = writer
        self._runtime = runtime
        self._clock = TickClock(at_us=ticks.last + 1, monotonic_us=self.proven_us)
        self._step_us = step_us
        self._on_acked = on_acked
        self._on_settled = on_settled
        self._on_end = on_end
        self._lost: Facts | None = None  # first batch that the fold holds, and the log perhaps
        self._waiting: deque[_Waiting] = deque()
        self._batches: deque[_Waiting] = deque()  # those of them that are written

    # --- time ---

    @staticmethod
    def monotonic_us_of(runtime: Runtime) -> int:
        """The monotonic clock in microseconds."""
        return int(runtime.monotonic_ms() * 1000)

    @property
    def monotonic_us(self) -> int:
        """Now."""
        return self.monotonic_us_of(self._runtime)

    @property
    def clock_us(self) -> int:
        """The clock that ticks come from."""
        return self._clock.read(self.monotonic_us)

    def slew(self) -> None:
        """Lead the clock a little towards the wall; call it now and then."""
        self._clock = self._clock.slewed(self.monotonic_us, self._runtime.now_us())

    @property
    def next_tick(self) -> int:
        """Of the first entry of a batch sequenced now."""
        return self.ticks.first(self.clock_us)

    @property
    def wait_ms(self) -> float:
        """How long to wait with what is to be sequenced: ticks must not run away from the clock."""
        return self.ticks.wait_us(self.clock_us) / 1000

    @property
    def oldest_unacked_us(self) -> int | None:
        """Age of the oldest batch that is not acknowledged; None: there is none."""
        return self.monotonic_us - self._batches[0].sent_us if self._batches else None

    @property
    def low(self) -> int:
        """Where reading must begin to see whole all that is delivered at ``acked`` or later."""
        first = self._batches[0].piece if self._batches else None
        open_ended = [self._lost, None if first is None else first.facts]
        return min(
            (facts.column.low for facts in open_ended if facts is not None), default=self.fold.low
        )

    @property
    def signal(self) -> int:
        """The tick at or below which nothing can come any more; after the end not even what was given away."""
        if self.ended is not None:
            return self.ticks.acked
        return self.ticks.signal(self._waiting[0].tick if self._waiting else None)

    # --- sequencing ---

    def write(
        self, admit: Admit, messages: Messages, size_bytes: int, answer: Answer,
        headers: Sequence[Properties] | None = None,
    ) -> Facts:  # fmt: skip
        """Sequence an admitted batch. Raises: WoodpeckerError: nothing has happened, or the line has ended."""
        clock_us = self.clock_us
        tick = self.ticks.first(clock_us)
        limit = self._limit(tick + admit.count - 1, clock_us)
        facts = data_facts(self.fold, admit, tick=tick, limit=limit)
        return self._submit(facts, messages or NOTHING, size_bytes, answer, headers)

    def write_control(
        self, body: Body, *, vcid: int = 0, payload: bytes = b"", answer: Answer | None = None,
        term: int = 0, step_us: int = 0,
    ) -> Facts:  # fmt: skip
        """Sequence a control batch of one entry. Raises: as ``write``."""
        clock_us = self.clock_us
        tick = self.ticks.first(clock_us)
        if isinstance(body, Close):
            limit = tick + 1  # exact: nothing un-persisted is ticked any more
        else:
            limit = self._limit(tick, clock_us, step_us)
        facts = facts_of(self.fold, body, tick=tick, limit=limit, term=term, vcid=vcid)
        type_ = type_of(facts)
        messages = Messages(payloads=[payload], types=[type_] if type_ else ())
        return self._submit(facts, messages, len(payload), answer, None)

    def after_all(
        self, answer: Answer, *, tick: int | None = None, is_repeat: bool = False
    ) -> None:
        """Answer when all sequenced so far is acknowledged: at once, or in the line.

        Args:
            tick: an un-persisted one that the answer shows.
            is_repeat: it tells of a batch in the line: if the line ends before, that is UNKNOWN, not MOVED.
        """
        if not self._waiting and self.ended is None:
            answer(None)
            return
        shown = self.ticks.last if tick is None else tick
        self._waiting.append(_Waiting(answer=answer, tick=shown, is_repeat=is_repeat))
        if self.ended is not None:
            self._settle()

    def unpersisted_tick(self) -> int | None:
        """Give away a tick for something that is not written; None: the owner is closing.

        Raises: as ``write``.
        """
        tick = self.ticks.unpersisted(self.clock_us)
        if tick is None and not self.ticks.is_closed:
            self.write_control(Limit())
            tick = self.ticks.unpersisted(self.clock_us)
        if tick is not None:
            self.ticks = self.ticks.took(tick)
        return tick

    def end(self, cause: WoodpeckerError) -> None:
        """Nothing is sequenced any more. What is in flight is still answered by its own outcome."""
        if self.ended is None:
            self.ended = cause
            self._on_end(cause)

    # --- inside ---

    def _limit(self, last_tick: int, clock_us: int, step_us: int = 0) -> int:
        return next_limit(
            limit=self.ticks.limit,
            last_tick=last_tick,
            clock_us=clock_us,
            step_us=step_us or self._step_us,
        )

    def _submit(
        self,
        facts: Facts,
        messages: Messages,
        size_bytes: int,
        answer: Answer | None,
        headers: Sequence[Properties] | None,
    ) -> Facts:
        if self.ended is not None:
            raise self.ended
        if self._writer.next_seq != facts.seq:  # the writer gave up what the fold already holds
            self.end(NotWritten("batches before this one were refused by the writer"))
            raise NotWritten("this owner's life has ended; a new one begins")
        column = encode_column(facts.column)
        if len(column) > COLUMN_MAX_BYTES:
            raise InvalidRequest(f"names in this batch take {len(column)} bytes: shorten them")
        try:
            self._writer.reserve(size_bytes)
        except NotWritten as error:
            self.refused = str(error)
            raise
        self.refused = ""
        size_bytes += ENTRY_OVERHEAD_BYTES * facts.count
        self.fold.apply(
            facts
        )  # before it can be in the log: what cannot be folded must not get there
        try:
            future = self._writer.submit_many(
                messages.payloads,
                headers=headers,
                timestamps_us=range(facts.tick, facts.last_tick + 1),
                column=column,
            )
        except WoodpeckerError as error:
            self._lost = facts
            self.end(error)  # the fold holds it
            raise
        waiting = _Waiting(
            answer=answer,
            future=future,
            piece=Piece(facts, size_bytes, messages),
            sent_us=self.monotonic_us,
            tick=facts.tick,
        )
        self._waiting.append(waiting)
        self._batches.append(waiting)
        self.queued_bytes += size_bytes
        is_close = isinstance(facts.column.body, Close)
        self.ticks = self.ticks.sequenced(facts.last_tick, facts.column.limit, is_close=is_close)
        future.add_done_callback(self._answered)
        return facts

    def _answered(self, _: asyncio.Future[Any]) -> None:
        try:
            self._settle()
        except Exception as error:  # a bug: nothing more is told, streams are cut
            self.end(OutcomeUnknown(f"internal error: {error!r}"))
            raise

    def _settle(self) -> None:
        """Give all answers that are due, in order."""
        while self._waiting and self._is_due(self._waiting[0]):
            waiting = self._waiting.popleft()
            refusal = self._outcome(waiting)
            if waiting.answer is not None:
                waiting.answer(refusal)
        self._on_settled()

    @staticmethod
    def _is_due(waiting: _Waiting) -> bool:
        return waiting.future is None or waiting.future.done()

    def _outcome(self, waiting: _Waiting) -> Refusal | None:
        if waiting.future is None:
            if self.ended is None:
                self.ticks = self.ticks.acknowledged(waiting.tick)
                return None
            return unknown(self.ended) if waiting.is_repeat else moved(str(self.ended))
        piece = waiting.piece
        assert piece is not None
        self._batches.popleft()
        self.queued_bytes -= piece.size_bytes
        error = _error_of(waiting.future)
        if error is not None:
            if self._lost is None or piece.facts.seq < self._lost.seq:
                self._lost = piece.facts
            self.end(error)
            return refusal_of(error)
        self.acked = piece.facts.end
        self.proven_us = max(self.proven_us, waiting.sent_us)
        self.ticks = self.ticks.acknowledged(piece.facts.last_tick)
        self._on_acked(piece)
        return None


def _error_of(future: asyncio.Future[Any]) -> WoodpeckerError | None:
    if future.cancelled():
        return OutcomeUnknown("a write was cancelled")
    error = future.exception()
    if error is None or isinstance(error, WoodpeckerError):
        return error
    return OutcomeUnknown(f"a write failed on an internal error: {error!r}")


def refusal_of(error: WoodpeckerError) -> Refusal:
    """What to tell about a batch whose write failed so."""
    is_unwritten = isinstance(error, NotWritten) or (
        isinstance(error, Fenced) and error.outcome == "not_written"
    )
    return moved(str(error)) if is_unwritten else unknown(error)


def moved(why: str, *, term: int = 0, address: str = "") -> Refusal:
    """Not here (any more): ask for a newer map, send the same again."""
    return Refusal(kind=Class.MOVED, message=why, term=term, address=address)


def unknown(error: WoodpeckerError) -> Refusal:
    """It may be in the log: the session answers a repeat."""
    return Refusal(
        kind=Class.UNKNOWN,
        message=f"it is not known whether it was written: {error}; send it again",
    )
