"""Bugs planted in the drivers and rules of streaming (see ``woodpecker.testing.sim.mutants``)."""

# ruff: noqa: SLF001  it reaches into what it breaks

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from woodpecker.streaming.client import consumer as client_consumer
from woodpecker.streaming.core import admission, assembly
from woodpecker.streaming.core.acks import Acks
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.facts import Facts
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tail_buffer import TailBuffer
from woodpecker.streaming.core.ticks import Ticks
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node import checkpoints, starts
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
    encode = vars(checkpoints)["encode_checkpoint"]

    def poor(fold: Fold) -> bytes:
        fold = fold.copy()
        fold.sessions, fold.open = {}, {}
        data: bytes = encode(fold)
        return data

    return [(checkpoints, "encode_checkpoint", poor)]
