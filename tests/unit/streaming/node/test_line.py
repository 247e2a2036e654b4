"""The line over a writer that can be told what becomes of its batches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from woodpecker.errors import Fenced, InvalidRequest, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.streaming.core.facts import Create, Grant, Limit, Term
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.ticks import Ticks
from woodpecker.streaming.node.line import Line
from woodpecker.testing.virtual import START_US, VirtualRuntime, on_virtual_time


class Writer:
    """Gives seqs out and keeps futures; a test resolves them."""

    def __init__(self) -> None:
        self.next_seq = 0
        self.futures: list[asyncio.Future[Any]] = []
        self.refuses: WoodpeckerError | None = None

    def reserve(self, size_bytes: int) -> int:
        return self.next_seq

    def submit_many(self, entries: Any, **columns: Any) -> asyncio.Future[Any]:
        if self.refuses is not None:
            raise self.refuses
        self.next_seq += len(entries)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


class Story:
    """A line, and what it told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.writer = Writer()
        self.line = Line(
            self.writer,  # type: ignore[arg-type]
            VirtualRuntime(),
            Fold(),
            Ticks(last=START_US, limit=0, acked=START_US),
            step_us=5_000_000,
            on_acked=lambda piece: self.told.append(("acked", piece.facts.seq)),
            on_settled=lambda: None,
            on_end=lambda error: self.told.append(type(error)),
        )
        self.line.write_control(Term(incarnation="i"), term=1, answer=self.answer("term"))

    def answer(self, name: str) -> Any:
        def told(refusal: Refusal | None) -> None:
            self.told.append((name, None if refusal is None else refusal.kind))

        return told

    def write(self, name: str) -> None:
        self.line.write_control(Limit(), answer=self.answer(name))

    async def resolve(self, index: int, error: WoodpeckerError | None = None) -> None:
        if error is None:
            self.writer.futures[index].set_result(None)
        else:
            self.writer.futures[index].set_exception(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@on_virtual_time
async def test_answers_come_in_order_whatever_is_ready_first() -> None:
    story = Story()
    story.write("a")
    story.line.after_all(story.answer("note"))
    story.write("b")
    await story.resolve(2)
    await story.resolve(1)
    assert story.told == []
    await story.resolve(0)
    assert story.told == [
        ("acked", 0), ("term", None), ("acked", 1), ("a", None), ("note", None), ("acked", 2),
        ("b", None),
    ]  # fmt: skip
    story.line.after_all(story.answer("at once"))
    assert story.told[-1] == ("at once", None)


@on_virtual_time
async def test_the_first_failure_ends_it_and_each_is_answered_by_its_own_outcome() -> None:
    story = Story()
    for name in "abc":
        story.write(name)
    story.line.after_all(story.answer("repeat"), is_repeat=True)
    story.line.after_all(story.answer("refused"))
    await story.resolve(0)
    await story.resolve(1, OutcomeUnknown("?"))
    await story.resolve(2, Fenced("f", outcome="unknown"))
    await story.resolve(3, Fenced("f", outcome="not_written"))
    assert story.told[2:] == [
        OutcomeUnknown, ("a", Class.UNKNOWN), ("b", Class.UNKNOWN), ("c", Class.MOVED),
        ("repeat", Class.UNKNOWN), ("refused", Class.MOVED),
    ]  # fmt: skip
    with pytest.raises(OutcomeUnknown):
        story.write("d")
    story.line.after_all(story.answer("late"))
    assert story.told[-1] == ("late", Class.MOVED)


@on_virtual_time
async def test_nothing_is_written_over_what_the_writer_gave_up() -> None:
    story = Story()
    story.write("a")
    story.writer.futures[1].set_exception(NotWritten("no room, the writer lives on"))
    story.writer.next_seq = 1  # seqs are given out again, before anybody was told
    with pytest.raises(NotWritten):
        story.write("b")
    assert len(story.writer.futures) == 2


@on_virtual_time
async def test_a_refusal_of_the_writer_after_the_fold_ends_the_life() -> None:
    story = Story()
    story.writer.refuses = InvalidRequest("too large")
    with pytest.raises(InvalidRequest):
        story.write("a")
    assert story.line.ended is not None


@on_virtual_time
async def test_what_does_not_fit_beside_a_batch_is_refused_before_the_fold() -> None:
    story = Story()
    before = story.line.fold.copy()
    with pytest.raises(InvalidRequest):
        story.line.write_control(Create(name="x" * 70_000), vcid=1)
    with pytest.raises(InvalidRequest):
        story.line.write_control(Grant(producer="\ud800"))
    assert story.line.fold == before
    assert story.line.ended is None


@on_virtual_time
async def test_signals_stay_below_what_is_in_flight() -> None:
    story = Story()
    await story.resolve(0)
    line = story.line
    shown = line.unpersisted_tick()
    assert shown is not None
    assert line.signal == shown
    story.write("a")
    first = story.line.fold.last_tick
    assert line.signal < first
    late = line.unpersisted_tick()
    line.after_all(story.answer("ephemeral"), tick=late)
    assert line.signal < first
    await story.resolve(1)
    assert line.signal == late
