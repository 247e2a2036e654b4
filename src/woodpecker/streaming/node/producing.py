"""Produce streams: one per client and pchannel, with any number of producers on it.

Frames are taken one after another; each is judged, sequenced and put in the writer's queue without an
await. Waiting is done before: while too much of this stream is unanswered, nothing more is received.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from woodpecker.errors import InvalidRequest, NotWritten, WoodpeckerError
from woodpecker.streaming import frames
from woodpecker.streaming.core.admission import (
    Admit,
    Asked,
    Refuse,
    Repeat,
    gone,
    judge,
    open_txn,
    too_large,
)
from woodpecker.streaming.core.facts import Data
from woodpecker.streaming.core.orders import AttachedAs, attach, grant, granted
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.tables import Result
from woodpecker.streaming.node.columns import batch_type, headers_of, problem_of
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.line import Answer, Line, moved, refusal_of
from woodpecker.streaming.node.outbox import FRAME_BYTES, Outbox
from woodpecker.streaming.node.pieces import ENTRY_OVERHEAD_BYTES, Ephemeral, size_of
from woodpecker.streaming.ports import Stream

CREDIT_BYTES = 16 << 20  # unanswered on one stream, and as much in answers that are not sent
LATER_MS = 100
PRODUCER_MAX_CHARS = 200

_log = logging.getLogger("woodpecker.streaming")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """A producer on this stream."""

    producer: str
    epoch: int


class Production:
    """One Produce stream on the life that serves it."""

    def __init__(self, life: Life, stream: Stream[frames.ProduceDown, frames.ProduceUp]) -> None:
        self._life = life
        self._stream = stream
        self._outbox: Outbox[frames.ProduceDown] = Outbox(stream)
        self._sessions: dict[int, _Session] = {}
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._answered = asyncio.Event()
        self._is_closing = False
        self._doubts: list[Answer] = []  # refusals that only the owner may give
        self._proving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the stream ends."""
        settings = self._life.settings
        self._outbox.put(
            frames.ProduceReady(
                credit_bytes=CREDIT_BYTES,
                rate_bytes_s=self._life.rate.frame_value,
                batch_max_bytes=settings.batch_max_bytes,
                message_max_bytes=settings.message_max_bytes,
            )
        )
        number = self._life.join(self)
        receiving = self._life.runtime.spawn(self._receive(), "receive a Produce stream")
        try:
            await self._outbox.run()
        finally:
            self._life.part(number)
            tasks = [receiving, *([self._proving] if self._proving else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- what the life says ---

    def leave(self, last: frames.Moved) -> None:
        """The life has ended and everything is answered that can be."""
        if self._unanswered:
            self._stream.cut()  # what became of the rest is not known
        self._outbox.end(last, frames.Closed())

    def tell_rate(self, rate_bytes_s: int) -> None:
        """How fast producers may send from now on."""
        self._outbox.put(frames.Rate(rate_bytes_s=rate_bytes_s))

    # --- receiving ---

    async def _receive(self) -> None:
        try:
            await self._receive_all()
        except Refused:  # the client has gone
            self._outbox.end()
        except Exception:  # noqa: BLE001  the log says why, the client sees a cut
            _log.exception("a Produce stream of %s failed", self._life.name)
            self._stream.cut()
            self._outbox.end()

    async def _receive_all(self) -> None:
        while (frame := await self._stream.receive()) is not None:
            while self._unanswered_bytes > CREDIT_BYTES:
                self._answered.clear()
                await self._answered.wait()
            await self._outbox.wait_below(CREDIT_BYTES)  # the client has to read, too
            if isinstance(frame, frames.Batch):
                await self._life.wait_for_room(_cost_of(frame))
            self._take(frame)
            if self._is_closing:
                break
        self._is_closing = True
        self._close_if_answered()

    def _take(self, frame: frames.ProduceUp) -> None:
        match frame:
            case frames.Batch():
                self._batch(frame)
            case frames.Attach():
                self._attach(frame)
            case frames.KeepAlive():
                self._keep_alive(frame)
            case frames.Close():
                self._is_closing = True

    def _close_if_answered(self) -> None:
        if self._is_closing and not self._unanswered:
            self._outbox.end(frames.Closed())

    def _reply(
        self, session: int, sequence: int, cost: int, say: Callable[[], frames.ProduceDown]
    ) -> Answer:
        """The one answer to a batch or Attach, for the line to give: what ``say`` gives, or a refusal."""
        self._unanswered += 1
        self._unanswered_bytes += cost + FRAME_BYTES

        def answer(refusal: Refusal | None) -> None:
            self._unanswered -= 1
            self._unanswered_bytes -= cost + FRAME_BYTES
            self._outbox.put(say() if refusal is None else _refused(session, sequence, refusal))
            self._answered.set()
            self._close_if_answered()

        return answer

    def _refuse(self, session: int, sequence: int, refusal: Refusal, cost: int = 0) -> None:
        """Refuse in order: after the answers to all that came before."""
        refused = _refused(session, sequence, refusal)
        self._life.line.after_all(self._reply(session, sequence, cost, lambda: refused))

    def _refuse_if_owner(self, session: int, sequence: int, refuse: Refuse, cost: int = 0) -> None:
        """Refuse by what is *not* in the fold: a replaced owner must not say so. **P**"""
        if not refuse.needs_proof:
            self._refuse(session, sequence, refuse.refusal, cost)
            return
        refused = _refused(session, sequence, refuse.refusal)
        answer = self._reply(session, sequence, cost, lambda: refused)

        def settled(instead: Refusal | None) -> None:
            if instead is not None:
                answer(instead)
                return
            self._doubts.append(answer)
            if self._proving is None:
                self._proving = self._life.runtime.spawn(self._prove(), "prove refusals")

        self._life.line.after_all(settled)

    async def _prove(self) -> None:
        while self._doubts:
            doubts, self._doubts = self._doubts, []
            refusal = None
            try:
                await self._life.prove()
            except Refused as error:
                refusal = error.refusal
                if refusal.kind is not Class.MOVED:
                    refusal = Refusal(kind=Class.LATER, message=refusal.message, after_ms=LATER_MS)
            for answer in doubts:
                answer(refusal)
        self._proving = None

    # --- batches ---

    def _batch(self, batch: frames.Batch) -> None:
        """Judge, sequence, fold, submit: one step. The hot path."""
        life, messages = self._life, batch.messages
        cost = _cost_of(batch)
        size = cost - ENTRY_OVERHEAD_BYTES * len(messages)
        session = self._sessions.get(batch.session)
        problem, malformed = life.refusal, problem_of(messages, life.settings)
        if session is None:
            problem = Refusal(
                kind=Class.INVALID, message=f"session {batch.session} was not attached"
            )
        elif batch.sequence < 0 and not batch.ephemeral:
            problem = Refusal(kind=Class.INVALID, message=f"sequence {batch.sequence}: from 0 on")
        elif batch.ephemeral:
            problem = malformed or too_large(size, _largest(messages), life.settings) or problem
        if problem is not None or session is None:
            assert problem is not None
            self._refuse(batch.session, batch.sequence, problem, cost)
            return
        if batch.ephemeral:
            self._ephemeral(batch, cost)
            return
        asked = _asked(batch, session, size)
        line = life.line
        judged = judge(
            line.fold, asked, tick=line.next_tick, pressure=life.pressure, settings=life.settings
        )
        match judged:
            case Repeat(result=result):  # before its form: what was written once was right
                life.counts.repeat()
                ack = _ack(batch, result)
                answer = self._reply(batch.session, batch.sequence, cost, lambda: ack)
                line.after_all(answer, is_repeat=True)
            case _ if malformed is not None:
                self._refuse(batch.session, batch.sequence, malformed, cost)
            case Admit():
                self._write(batch, judged, size, cost)
            case Refuse():
                life.counts.refused(judged.refusal)
                self._refuse_if_owner(batch.session, batch.sequence, judged, cost)

    def _write(self, batch: frames.Batch, admit: Admit, size: int, cost: int) -> None:
        life, data = self._life, admit.data
        sent_ms = life.runtime.monotonic_ms()

        def say() -> frames.Ack:
            life.counts.ack(size, life.runtime.monotonic_ms() - sent_ms)
            return ack

        answer = self._reply(batch.session, batch.sequence, cost, say)
        try:
            headers = headers_of(batch.messages, data.type)
            facts = life.line.write(admit, batch.messages, size, answer, headers)
        except WoodpeckerError as error:
            refusal = _refusal_of(error, life.line)
            life.line.after_all(lambda _: answer(refusal))
            return
        ack = _ack(batch, life.line.fold.sessions[data.producer].results[-1])
        written = facts.column.body
        if isinstance(written, Data) and written.number >= 0:
            life.timers.wrote(written)

    def _ephemeral(self, batch: frames.Batch, cost: int) -> None:
        """Ticked, shown when all before it is acknowledged, never written."""
        life, line = self._life, self._life.line
        if batch.vcid not in line.fold.vchannels:
            refuse = Refuse(refusal=gone(batch.vcid), rests_on=line.fold.next_seq)
            self._refuse_if_owner(batch.session, batch.sequence, refuse, cost)
            return
        tick = self._unpersisted_tick(batch.session, batch.sequence, cost)
        if tick is None:
            return
        count = len(batch.messages)
        ack = frames.Ack(
            session=batch.session, sequence=batch.sequence, seq=-1, tick=tick, count=count
        )

        def show() -> frames.Ack:
            ephemeral = Ephemeral(
                vcid=batch.vcid, tick=tick, seq=line.acked, messages=batch.messages, size_bytes=cost
            )
            life.show_ephemeral(ephemeral)
            return ack

        line.after_all(self._reply(batch.session, batch.sequence, cost, show), tick=tick)

    def _unpersisted_tick(self, session: int, sequence: int, cost: int = 0) -> int | None:
        """A tick for something that is not written; None: it was refused."""
        try:
            tick = self._life.line.unpersisted_tick()
        except WoodpeckerError as error:
            self._refuse(session, sequence, _refusal_of(error, self._life.line), cost)
            return None
        if tick is None:
            self._refuse(session, sequence, moved("this owner leaves"), cost)
        return tick

    # --- sessions ---

    def _attach(self, frame: frames.Attach) -> None:
        line = self._life.line
        if self._life.refusal is not None:
            self._refuse(frame.session, -1, self._life.refusal)
        elif len(frame.producer) > PRODUCER_MAX_CHARS:
            text = f"a producer id of {len(frame.producer)} characters; allowed are {PRODUCER_MAX_CHARS}"
            self._refuse(frame.session, -1, Refusal(kind=Class.INVALID, message=text))
        elif frame.producer and frame.epoch < 0:
            self._grant(frame)
        elif frame.producer:
            found = attach(line.fold, frame.producer, frame.epoch)
            if isinstance(found, Refuse):
                self._refuse_if_owner(frame.session, -1, found)
            else:
                self._attached(frame.session, found)
        else:
            self._grant_anonymous(frame)

    def _grant(self, frame: frames.Attach) -> None:
        """A named producer's next epoch: durable before it is told."""
        line = self._life.line
        body = grant(line.fold, frame.producer, tick=line.next_tick)
        if isinstance(body, Refuse):
            self._refuse(frame.session, -1, body.refusal)
            return
        try:
            line.write_control(body)
        except WoodpeckerError as error:
            self._refuse(frame.session, -1, _refusal_of(error, line))
            return
        self._life.timers.decided()
        self._attached(frame.session, granted(line.fold, frame.producer))

    def _grant_anonymous(self, frame: frames.Attach) -> None:
        """A new id, in memory alone: its first batch introduces it."""
        tick = self._unpersisted_tick(frame.session, -1)
        if tick is None:
            return
        seq = self._life.line.fold.next_seq
        producer = self._life.runtime.token()
        fresh = AttachedAs(producer=producer, epoch=0, next_sequence=0, rests_on=seq)
        self._attached(frame.session, fresh, tick)

    def _attached(self, session: int, found: AttachedAs, grant_tick: int = -1) -> None:
        self._sessions[session] = _Session(producer=found.producer, epoch=found.epoch)
        said = frames.Attached(
            session=session,
            producer=found.producer,
            epoch=found.epoch,
            next_sequence=found.next_sequence,
            grant_tick=grant_tick,
        )
        answer = self._reply(session, -1, 0, lambda: said)
        self._life.line.after_all(answer, tick=grant_tick if grant_tick >= 0 else None)
        if len(self._sessions) > self._life.settings.sessions_per_pchannel:
            self._is_closing = True  # nobody says which ones are over: a new stream has the others
            self._close_if_answered()

    def _keep_alive(self, frame: frames.KeepAlive) -> None:
        session = self._sessions.get(frame.session)
        if session is None:
            return
        fold = self._life.line.fold
        txn = open_txn(fold, session.producer, frame.txn_number)
        if txn is not None and fold.open[txn].epoch == session.epoch:
            self._life.timers.touch(txn)


def _asked(batch: frames.Batch, session: _Session, size: int) -> Asked:
    messages = batch.messages
    return Asked(
        producer=session.producer,
        epoch=session.epoch,
        sequence=batch.sequence,
        vcid=batch.vcid,
        count=len(messages),
        size_bytes=size,
        largest_bytes=_largest(messages),
        number=batch.txn_number,
        begin=batch.begin,
        commit=batch.commit,
        abort=batch.abort,
        join=batch.join,
        keep_alive_ms=batch.keep_alive_ms,
        grant_tick=batch.grant_tick,
        type=batch_type(messages),
    )


def _largest(messages: frames.Messages) -> int:
    return max(map(len, messages.payloads), default=0)


def _cost_of(batch: frames.Batch) -> int:
    return size_of(batch.messages) + ENTRY_OVERHEAD_BYTES * len(batch.messages)


def _ack(batch: frames.Batch, result: Result) -> frames.Ack:
    return frames.Ack(
        session=batch.session,
        sequence=batch.sequence,
        seq=result.seq,
        tick=result.tick,
        count=result.count,
        low=result.low,
    )


def _refused(session: int, sequence: int, refusal: Refusal) -> frames.BatchRefused:
    return frames.BatchRefused(session=session, sequence=sequence, refusal=refusal)


def _refusal_of(error: WoodpeckerError, line: Line) -> Refusal:
    """Of a batch that was not taken by the line."""
    if isinstance(error, NotWritten) and line.ended is None:  # no room in the queue or on the disk
        return Refusal(kind=Class.LATER, message=str(error), after_ms=LATER_MS)
    if isinstance(error, InvalidRequest):
        return Refusal(kind=Class.INVALID, message=str(error))
    return refusal_of(error)
