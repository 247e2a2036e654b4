"""Bugs planted in the drivers and rules of streaming (see ``woodpecker.testing.sim.mutants``)."""

# ruff: noqa: SLF001  it reaches into what it breaks

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

from woodpecker.core import transitions
from woodpecker.streaming.client import consumer as client_consumer
from woodpecker.streaming.client.flight import Draft
from woodpecker.streaming.coordinator import broadcasting
from woodpecker.streaming.coordinator.broadcasting import BroadcastDesk
from woodpecker.streaming.core import admission, assembly, broadcasts, orders
from woodpecker.streaming.core.acks import Acks
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.cursors import CursorRecord
from woodpecker.streaming.core.facts import Delete, Facts
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.records import CheckpointsRecord
from woodpecker.streaming.core.tail_buffer import TailBuffer
from woodpecker.streaming.core.ticks import Ticks
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node import answers, checkpoints, life, retention, starts
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.line import Line
from woodpecker.streaming.node.transactions import Timers
from woodpecker.streaming.node.upkeep import Upkeep
from woodpecker.testing.sim.mutants import Patches, mutant

STREAM = "stream"


@mutant("a batch is acknowledged when it is durable", STREAM)
def stream_acks_when_sequenced() -> Patches:
    submit = Line._submit

    def hasty(
        self: Any, facts: Facts, messages: Any, size_bytes: int, answer: Any, headers: Any
    ) -> Facts:
        done = submit(self, facts, messages, size_bytes, None, headers)
        if answer is not None:
            asyncio.get_running_loop().call_soon(answer, None)
        return done

    return [(Line, "_submit", hasty)]


@mutant("a repeat gets the first result", STREAM)
def stream_repeats_are_new() -> Patches:
    known = admission._known

    def forgetful(session: Any, asked: Any) -> Any:
        verdict = known(session, asked)
        return None if isinstance(verdict, admission.Repeat) else verdict

    return [
        (admission, "_known", forgetful),
        (Fold, "_check_session", lambda *_: None),
    ]


@mutant("a signal lies below the first thing in flight", STREAM)
def stream_signals_what_is_in_flight() -> Patches:
    return [(Ticks, "signal", lambda self, _: self.last)]


@mutant("a reader attaches at first or above", STREAM)
def stream_attaches_one_below() -> Patches:
    attach = TailBuffer.attach

    def near(self: Any, seq: int) -> int | None:
        return attach(self, self.first if seq == self.first - 1 else seq)

    return [(TailBuffer, "attach", near)]


@mutant("suppressed is by effective position", STREAM)
def stream_suppresses_by_own_seq() -> Patches:
    hold = Assembly._hold

    def skips(self: Any, txn: Any, facts: Facts, size_bytes: int, content: Any) -> None:
        hold(self, txn, facts, size_bytes, content)
        if facts.seq < self._start.seq:
            txn.pieces.pop()

    deliver = Assembly._delivered

    def counted(self: Any, delivery: Any) -> Any:
        if delivery.is_txn and not delivery.is_joined:
            count = sum(piece.facts.messages for piece in delivery.pieces)
            delivery = replace(delivery, count=count)
        return deliver(self, delivery)

    return [(Assembly, "_hold", skips), (Assembly, "_delivered", counted)]


@mutant("reading begins at low", STREAM)
def stream_reads_from_the_position() -> Patches:
    def late(start: Position, *, earliest: int) -> int:
        return max(earliest, start.seq)

    return [(starts, "read_from", late), (assembly, "read_from", late)]


@mutant("a consumer goes on at its index within a transaction", STREAM)
def stream_client_forgets_the_index() -> Patches:
    start_at = vars(client_consumer)["start_at"]

    def rough(position: Position, **more: Any) -> Any:
        return replace(start_at(position, **more), index=0)

    return [(client_consumer, "start_at", rough)]


@mutant("done never passes the unacknowledged", STREAM)
def stream_done_is_what_was_handed_out() -> Patches:
    return [(Acks, "done", property(lambda self: self._reached))]


@mutant("a checkpoint holds sessions and transactions", STREAM)
def stream_checkpoints_without_sessions() -> Patches:
    encode = vars(checkpoints)["encoding"]

    def poor(fold: Fold) -> Generator[None, None, bytes]:
        fold = fold.copy()
        fold.sessions, fold.open = {}, {}
        work: Generator[None, None, bytes] = encode(fold)
        return work

    return [(checkpoints, "encoding", poor)]


@mutant("what became of a batch that was under way when its stream ended is unknown", STREAM)
def stream_client_takes_cut_for_unwritten() -> Patches:
    return [(Draft, "was_cut", property(lambda _: False, lambda *_: None))]


@mutant("a refusal waits for what it rests on, and for a proof of ownership", STREAM)
def stream_refuses_at_once() -> Patches:
    return [(admission, "_resting", lambda _, refusal: admission.Refuse(refusal=refusal))]


@mutant("a commit that comes again is answered as before", STREAM)
def stream_judges_the_transaction_first() -> Patches:
    known = admission._known

    def strict(session: Any, asked: Any) -> Any:
        verdict = known(session, asked)
        is_new = asked.number < 0 or not asked.commit or not isinstance(verdict, admission.Repeat)
        return verdict if is_new else admission._not_open(session, asked)

    return [(admission, "_known", strict)]


@mutant("after its Delete nothing is written into a channel", STREAM)
def stream_writes_into_what_is_deleted() -> Patches:
    apply = Fold.apply

    def keeps(self: Any, facts: Facts) -> None:
        channel = self.vchannels.get(facts.column.vcid)
        apply(self, facts)
        if isinstance(facts.column.body, Delete) and channel is not None:
            self.vchannels[facts.column.vcid] = channel

    return [(Fold, "apply", keeps)]


@mutant("a log takes a broadcast once", STREAM)
def stream_broadcasts_repeats() -> Patches:
    def naive(_: Fold, vcid: int, broadcast: Any) -> Any:
        return orders.Write(body=broadcast, vcid=vcid)

    return [(answers, "judge_broadcast", naive)]


@mutant("the floor is the lowest unfinished broadcast", STREAM)
def stream_broadcast_floor_is_too_high() -> Patches:
    return [(broadcasts, "floor", lambda counters: counters.next_broadcast)]


@mutant("locks are made again before a new coordinator takes anything", STREAM)
def stream_broadcast_locks_are_not_rebuilt() -> Patches:
    async def hasty(self: Any) -> None:
        await self._change(partial(broadcasting._fenced, self._epoch))
        self._is_ready = True

    return [(BroadcastDesk, "_rebuild", hasty)]


@mutant("an ephemeral message waits for what is in flight", STREAM)
def stream_ephemerals_overtake() -> Patches:
    after_all = Line.after_all

    def at_once(self: Any, answer: Any, *, tick: int | None = None, **more: Any) -> None:
        if tick is not None and self.ended is None:
            answer(None)
        else:
            after_all(self, answer, tick=tick, **more)

    return [(Line, "after_all", at_once)]


@mutant("who answers what an owner alone knows proves that it is the owner", STREAM)
def stream_owners_prove_nothing() -> Patches:
    async def believed(_: Any) -> None:
        pass

    return [(Life, "prove", believed)]


@mutant("a term starts above the limit in the log", STREAM)
def stream_terms_start_at_the_clock() -> Patches:
    def bare(*, limit: int, last_tick: int, clock_us: int) -> int:
        del limit
        return max(last_tick + 1, clock_us)

    return [(life, "start_of_term", bare)]


@mutant("what readers of the log do not see yet is not evicted", STREAM)
def stream_evicts_what_only_it_has() -> Patches:
    evict = TailBuffer.evict

    def careless(self: Any, *, visible: int, excess_bytes: int) -> int:
        del visible
        return evict(self, visible=1 << 60, excess_bytes=excess_bytes)

    return [(TailBuffer, "evict", careless)]


@mutant("the log is trimmed to the older checkpoint", STREAM)
def stream_trims_to_the_newer_checkpoint() -> Patches:
    trim_point = vars(retention)["trim_point"]

    def greedy(found: CheckpointsRecord, **more: Any) -> Any:
        return trim_point(CheckpointsRecord(checkpoints=found.checkpoints[:1] * 2), **more)

    return [(retention, "trim_point", greedy)]


@mutant("a cursor holds what a resume has to read", STREAM)
def stream_cursors_hold_done() -> Patches:
    return [(CursorRecord, "low", property(lambda self: self.done.seq))]


@mutant("a checkpoint holds what is acknowledged", STREAM)
def stream_checkpoints_run_ahead() -> Patches:
    write = Upkeep.write_checkpoint

    async def settled() -> None:
        pass

    async def at_once(self: Any) -> CheckpointsRecord | None:
        self._life.settled = settled
        try:
            return await write(self)
        finally:
            del self._life.settled

    return [(Upkeep, "write_checkpoint", at_once)]


@mutant("a new owner gives open transactions their time anew", STREAM)
def stream_timers_are_not_armed_again() -> Patches:
    init = Timers.__init__

    def idle(self: Any, *of: Any, **more: Any) -> None:
        init(self, *of, **more)
        self._expiry.keep_only({})

    return [(Timers, "__init__", idle)]


@mutant("the log is opened under a claim", STREAM)
def stream_opens_without_a_claim() -> Patches:
    return [(transitions, "_claim_allows", lambda *_: True)]
