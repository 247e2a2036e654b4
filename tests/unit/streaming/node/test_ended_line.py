"""What a line that has ended still says of time and place: nothing that a batch without outcome could contradict."""

from __future__ import annotations

from tests.unit.streaming.node.test_line import Story

from woodpecker.errors import OutcomeUnknown
from woodpecker.streaming.core.facts import AbortTxn, Create, Data
from woodpecker.testing.virtual import on_virtual_time


@on_virtual_time
async def test_a_batch_without_outcome_may_still_be_delivered_by_the_next_owner() -> None:
    story = Story()
    line = story.line
    line.write_control(Create(name="ch"), vcid=1)
    begin = line.write_control(
        Data(producer="p", epoch=0, sequence=0, txn=2, number=0, begin=True), vcid=1
    )
    for index in range(3):
        await story.resolve(index)
    last = line.write_control(AbortTxn(txn=begin.seq, reason="late"), vcid=1)
    await story.resolve(3, OutcomeUnknown("no answer"))
    assert line.acked == last.seq
    assert line.signal < last.tick, "it may still come"
    assert line.low == begin.seq, "who resumes at its place needs what was open before it"
