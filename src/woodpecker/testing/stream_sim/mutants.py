"""Bugs planted in the drivers and rules of streaming (see ``woodpecker.testing.sim.mutants``)."""

# ruff: noqa: SLF001  it reaches into what it breaks

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from woodpecker.streaming.client import consumer as client_consumer
from woodpecker.streaming.client.flight import Flight
from woodpecker.streaming.core import admission, assembly
from woodpecker.streaming.core.acks import Acks
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.facts import Facts
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tail_buffer import TailBuffer
from woodpecker.streaming.core.ticks import Ticks
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node import checkpoints, life, starts, upkeep
from woodpecker.streaming.node.line import Line
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


@mutant("a term begins at the limit of the one before", STREAM)
def stream_term_starts_from_the_clock() -> Patches:
    def from_the_clock(*, limit: int, last_tick: int, clock_us: int) -> int:
        return max(last_tick + 1, clock_us) + 0 * limit

    return [
        (life, "start_of_term", from_the_clock),
    ]


@mutant("a signal lies below the first thing in flight", STREAM)
def stream_signals_what_is_in_flight() -> Patches:
    return [(Ticks, "signal", lambda self, _: self.last)]


@mutant("only what log readers are guaranteed to see is evicted", STREAM)
def stream_evicts_anything() -> Patches:
    evict = TailBuffer.evict

    def greedy(self: Any, *, visible: int, excess_bytes: int) -> int:
        return evict(self, visible=self.next, excess_bytes=excess_bytes + 0 * visible)

    return [(TailBuffer, "evict", greedy)]


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


@mutant("what was out when a stream ended is unknown", STREAM)
def stream_client_takes_cut_for_unwritten() -> Patches:
    on_break = Flight.on_break

    def hopeful(self: Any) -> Any:
        lost = on_break(self)
        for draft in self.flying:
            draft.was_cut = False
        return lost

    return [(Flight, "on_break", hopeful)]


@mutant("done never passes the unacknowledged", STREAM)
def stream_done_is_what_was_handed_out() -> Patches:
    return [(Acks, "done", property(lambda self: self._reached))]


@mutant("a checkpoint holds sessions and transactions", STREAM)
def stream_checkpoints_without_sessions() -> Patches:
    encode = vars(checkpoints)["encode_checkpoint"]

    def poor(fold: Fold) -> bytes:
        fold = fold.copy()
        fold.sessions, fold.open = {}, {}
        data: bytes = encode(fold)
        return data

    return [(checkpoints, "encode_checkpoint", poor)]


@mutant("a checkpoint holds only what is acknowledged", STREAM)
def stream_checkpoints_ahead() -> Patches:
    save = upkeep.Upkeep.write_checkpoint

    async def hasty(self: Any) -> Any:
        with patch.object(life.Life, "settled", _at_once):
            return await save(self)

    return [(upkeep.Upkeep, "write_checkpoint", hasty)]


async def _at_once(_: Any) -> None:
    return


@mutant("tables of a former life are not used again", STREAM)
def stream_sequences_go_on_after_a_failure() -> Patches:
    outcome = Line._outcome

    def stubborn(self: Any, waiting: Any) -> Any:
        refusal = outcome(self, waiting)
        if waiting.future is not None and refusal is not None and self._batches:
            return None  # as if it had been written
        return refusal

    return [(Line, "_outcome", stubborn)]
