"""One life of an owner: from the log taken over to the writer's end. Nothing of it is used again. **P**

It holds what serves a pchannel: the line (writer and fold), the tail buffer, runs of the log, timers,
and whoever is connected. ``owner.py`` begins and ends lives.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from woodpecker import Log, LogWriter
from woodpecker.errors import NotWritten, OutOfRange, WoodpeckerError
from woodpecker.observability.base import Observer
from woodpecker.observability.names import Counter
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import frames
from woodpecker.streaming.core.admission import Pressure
from woodpecker.streaming.core.facts import AbortTxn, Close, Data, Facts, Limit, TableLimits, Term
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.rates import Mode, RateState
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.ticks import IdleSteps, Ticks, start_of_term
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.audience import Audience
from woodpecker.streaming.node.counting import Counts
from woodpecker.streaming.node.line import Line, moved
from woodpecker.streaming.node.pieces import Ephemeral, Piece
from woodpecker.streaming.node.runs import Runs
from woodpecker.streaming.node.tail import TailBudget
from woodpecker.streaming.node.told_clock import ToldClock
from woodpecker.streaming.node.transactions import Timers
from woodpecker.streaming.settings import StreamSettings

_ROOMY_BYTES = 1 << 62
_NAP_MS = 100.0
FEATURES = 1  # the newest level this version writes

_log = logging.getLogger("woodpecker.streaming")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all lives of a node share."""

    runtime: Runtime
    records: StreamRecords
    observer: Observer
    settings: StreamSettings
    budget: TailBudget
    clock: ToldClock
    node: str
    incarnation: str


class Connected(Protocol):
    """A stream that this life serves."""

    def leave(self, last: frames.Moved) -> None:
        """This life has ended; say so, after all that is answered."""

    def tell_rate(self, rate_bytes_s: int) -> None:
        """Producers may send so fast from now on."""


class Life:
    """See the module; it is ``Serving`` for consumers. One event loop.

    Args:
        fold: up to the writer's next seq.
        earliest: the first seq that can be read.
    """

    def __init__(
        self,
        tools: Tools,
        name: str,
        term: int,
        log: Log,
        writer: LogWriter,
        fold: Fold,
        earliest: int,
    ) -> None:
        settings, runtime = tools.settings, tools.runtime
        start = start_of_term(limit=fold.limit, last_tick=fold.last_tick, clock_us=runtime.now_us())
        self.name = name
        self.term = term
        self.log = log
        self.writer = writer
        self.runtime = runtime
        self.settings = settings
        self.earliest = earliest
        self.tools = tools
        self.ended = asyncio.Event()
        self.line = Line(
            writer,
            runtime,
            fold,
            Ticks(last=start - 1, limit=fold.limit, acked=start - 1),
            step_us=settings.tick_step_us,
            on_acked=self._acked,
            on_settled=self._settled,
            on_end=self._on_end,
        )
        self.tail = tools.budget.open(fold.next_seq, lambda: writer.visible)
        self.runs = Runs(log, runtime, tools.budget)
        self.timers = Timers(self.line, runtime, max_age_ms=settings.transaction_max_age_ms)
        self.audience = Audience()
        self.rate = RateState()
        self.counts = Counts(tools.observer, name)
        self.consumers = 0  # of all streams, also those that are about to begin
        self.reading = 0  # those of them that read the log
        self.written_bytes = 0  # acknowledged since the life began
        self._first_steps = IdleSteps(step_us=settings.tick_step_us, most_us=settings.tick_ahead_us)
        self._steps = self._first_steps
        self._streams: dict[int, Connected] = {}
        self._joined = 0
        self._closing: Refusal | None = None
        self._is_closed = False
        self._signalled = -1
        self._room = asyncio.Event()

    # --- begin and end ---

    async def record_term(self) -> None:
        """Write the term record; once it is acknowledged the life serves. Raises: what has ended the writer."""
        limits = TableLimits(sessions=self.settings.sessions_per_pchannel)
        body = Term(incarnation=self.tools.incarnation, features=FEATURES, limits=limits)
        await self.written(self.line.write_control(body, term=self.term))

    async def record_close(self) -> None:
        """Write the close record: when it is acknowledged, so is all before it. Raises: as ``record_term``."""
        self.stop_admitting("this owner leaves")
        await self.written(self.line.write_control(Close()))

    async def written(self, facts: Facts) -> None:
        """Wait until all up to ``facts`` is acknowledged. Raises: NotWritten, OutcomeUnknown, Fenced."""
        try:
            await self.settled()
        except Refused:
            if self.line.acked < facts.end:
                raise (self.line.ended or NotWritten("this life has ended")) from None

    async def settled(self) -> None:
        """Wait until all sequenced so far is acknowledged. Raises: Refused: MOVED."""
        done: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()

        def answer(refusal: Refusal | None) -> None:
            if not done.done():
                done.set_result(refusal)

        self.line.after_all(answer)
        refusal = await done
        if refusal is not None:
            raise Refused(refusal)

    def stop_admitting(self, why: str) -> None:
        """Everything that comes from now on is told to go elsewhere."""
        self._closing = self._closing or moved(why)

    def leave(self, term: int, address: str = "") -> None:
        """Tell everybody connected to go elsewhere."""
        last = frames.Moved(pchannel=self.name, term=term, address=address)
        for stream in list(self._streams.values()):
            stream.leave(last)

    async def close(self) -> None:
        """Let go of everything but the writer."""
        self._is_closed = True
        self.counts.add(Counter.STREAM_EPHEMERAL_DROPPED, self.tail.ephemeral_dropped)
        self.counts.hide()
        self.tail.close()
        await self.runs.close()

    @property
    def memory_bytes(self) -> int:
        """What it holds of messages, about."""
        return self.tail.size_bytes + self.runs.size_bytes + self.line.queued_bytes

    # --- who is connected ---

    def join(self, stream: Connected) -> int:
        """A stream is served from now on. Returns: its number, to part with."""
        self._joined += 1
        self._streams[self._joined] = stream
        return self._joined

    def part(self, number: int) -> None:
        """A stream has ended."""
        self._streams.pop(number, None)

    # --- admission ---

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing is admitted; None: it serves."""
        if self.line.ended is not None:
            return moved(str(self.line.ended))
        return self._closing

    @property
    def pressure(self) -> Pressure:
        """What speaks against a batch now, beside its own state. An empty queue takes any batch."""
        settings, queued = self.settings, self.line.queued_bytes
        room = settings.queue_bytes - queued if queued else _ROOMY_BYTES
        return Pressure(
            is_rejecting=self.rate.mode is Mode.REJECT,
            room_bytes=room,
            control_room_bytes=room + settings.control_bytes,
        )

    async def wait_for_room(self, size_bytes: int) -> None:
        """Wait until clock and queue take so much more, before anything is judged."""
        line, most = self.line, self.settings.queue_bytes
        while not line.ended:
            if line.wait_ms > 0:
                await self.runtime.sleep_ms(min(line.wait_ms, _NAP_MS))
            elif line.queued_bytes and line.queued_bytes + size_bytes > most:
                self._room.clear()
                await self._room.wait()
            else:
                return

    def set_rate(self, rate: RateState) -> None:
        """Producers are told when it changes."""
        before, self.rate = self.rate, rate
        if rate.frame_value != before.frame_value:
            for stream in list(self._streams.values()):
                stream.tell_rate(rate.frame_value)

    # --- for consumers ---

    @property
    def position(self) -> Position:
        """All below it is acknowledged."""
        line = self.line
        return Position(line.acked, tick=line.ticks.acked, low=line.low, term=self.term)

    @property
    def proof_age_ms(self) -> int:
        """Time since the log was surely ours."""
        return (self.line.monotonic_us - self.line.proven_us) // 1000

    async def prove(self) -> None:
        """Return when the log was this owner's at some time after the call; one read serves all who wait.

        Raises: Refused: MOVED: it is not. UNAVAILABLE: nothing is known.
        """
        begun_us = self.line.monotonic_us
        try:
            is_mine = await self.writer.still_owner()
        except WoodpeckerError as error:
            self.counts.add(Counter.STREAM_OWNERSHIP_CHECKS, result="unknown")
            text = f"it cannot be proven now that {self.name} is served here: {error}"
            raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text)) from error
        result = "owner" if is_mine else "replaced"
        self.counts.add(Counter.STREAM_OWNERSHIP_CHECKS, result=result)
        if not is_mine:
            self.line.end(NotWritten("another owner has taken the log over"))
        if self.line.ended is not None:
            raise Refused(moved(f"{self.name} is served elsewhere: {self.line.ended}"))
        self.line.proven_us = max(self.line.proven_us, begun_us)

    def trimmed(self, seq: int, error: OutOfRange) -> Refusal:
        """What to tell a reader whose next seq is gone."""
        self.earliest = max(self.earliest, error.earliest or 0)
        text = f"seq {seq} of {self.name} was trimmed; the earliest is {self.earliest}"
        return Refusal(kind=Class.OUT_OF_RANGE, message=text, earliest=self.earliest)

    def count_reading(self, by: int) -> None:
        """So many consumers more are reading the log."""
        self.reading += by

    def show_ephemeral(self, ephemeral: Ephemeral) -> None:
        """Everything before it is acknowledged: show it to those who are there."""
        slot = self.tail.append_ephemeral(ephemeral)
        if slot is not None:
            self.audience.show(slot)

    def signal(self) -> int:
        """A tick at or below which nothing can come any more, as new as can be had.

        Idle at its limit, and somebody wants signals: one Limit batch makes room for some time.
        """
        line = self.line
        if line.ended is None and self._closing is None and line.oldest_unacked_us is None:
            tick = line.ticks.unpersisted(line.clock_us)
            if tick is not None:
                line.ticks = line.ticks.took(tick)
                self.counts.add(Counter.STREAM_SIGNALS, persisted="no")
            elif self.audience.wants_ticks:
                self._write_limit()
                self._steps = self._steps.doubled()
        self._signalled = max(self._signalled, line.signal)  # what was true stays true
        return self._signalled

    def _write_limit(self) -> None:
        try:
            self.line.write_control(Limit(), step_us=self._steps.step_us)
            self.counts.add(Counter.STREAM_SIGNALS, persisted="yes")
        except WoodpeckerError:
            return  # the line has ended, or has no room: the next time

    # --- what the line says ---

    def _acked(self, piece: Piece) -> None:
        if self._is_closed:
            return  # late, after a stop that could not wait
        self.written_bytes += piece.size_bytes
        match piece.facts.column.body:
            case Data() as data:
                self._steps = self._first_steps  # no longer idle
                if data.commit:
                    self.counts.add(Counter.STREAM_TXN_COMMITTED)
                elif data.abort:
                    self.counts.add(Counter.STREAM_TXN_ABORTED, reason="producer")
            case AbortTxn():
                self.counts.add(Counter.STREAM_TXN_ABORTED, reason="owner")
        self.audience.show(self.tail.append(piece))

    def _settled(self) -> None:
        self._room.set()

    def _on_end(self, cause: WoodpeckerError) -> None:
        level = logging.WARNING if self._closing is None else logging.INFO  # it leaves anyhow
        _log.log(level, "%s: the owner's life under term %d ends: %s", self.name, self.term, cause)
        self.ended.set()
        self._room.set()
