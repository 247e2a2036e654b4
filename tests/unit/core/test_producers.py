"""Producer sessions judged: next, repeat, gap, old epoch, unknown, too old; who is forgotten."""

from __future__ import annotations

import pytest

from woodpecker.core.producers import Fresh, Rejected, Repeat, admit, evictable
from woodpecker.core.register import (
    EMPTY_REGISTER,
    KEPT_RESULTS,
    BatchResult,
    BlockFacts,
    DropProducer,
    EndLog,
    GrantProducer,
    ProducerBatch,
    ProducerState,
    fold,
)


def state(last: int, epoch: int = 3) -> ProducerState:
    kept = range(max(0, last + 1 - KEPT_RESULTS), last + 1)
    results = tuple(BatchResult(sequence=n, seq=10 * n, count=10) for n in kept)
    return ProducerState(epoch=epoch, last_sequence=last, results=results)


def test_the_next_batch_is_fresh():
    assert admit(state(-1), producer="p", epoch=3, sequence=0) == Fresh()
    assert admit(state(7), producer="p", epoch=3, sequence=8) == Fresh()


@pytest.mark.parametrize("sequence", range(5, 21))
def test_a_kept_batch_is_a_repeat(sequence: int):
    verdict = admit(state(20), producer="p", epoch=3, sequence=sequence)
    assert verdict == Repeat(result=BatchResult(sequence=sequence, seq=10 * sequence, count=10))


@pytest.mark.parametrize(
    ("known", "epoch", "sequence", "word"),
    [
        (None, 3, 0, "unknown"),
        (state(20), 3, 4, "older than the results kept"),
        (state(20), 3, 22, "gap"),
        (state(20), 2, 21, "newer session"),
        (state(20), 4, 21, "epoch"),
        (state(20), 2, 20, "newer session"),
    ],
)
def test_what_is_rejected_and_why(known, epoch: int, sequence: int, word: str):
    verdict = admit(known, producer="p", epoch=epoch, sequence=sequence)
    assert isinstance(verdict, Rejected)
    assert word in verdict.reason
    assert "'p'" in verdict.reason


def test_as_many_are_forgotten_as_make_room_for_one():
    assert evictable([], limit=1) == []
    assert evictable(["a"], limit=2) == []
    assert evictable(["a", "b"], limit=2) == ["a"]
    assert evictable(["a", "b", "c", "d"], limit=2) == ["a", "b", "c"]  # the limit was lowered


def batch(sequence: int, *, epoch: int = 0, producer: str = "p") -> ProducerBatch:
    return ProducerBatch(
        id=producer, epoch=epoch, sequence=sequence, seq=sequence, count=1, timestamp_us=sequence
    )


def test_a_new_epoch_keeps_sequence_and_results():
    facts = [
        BlockFacts(controls=(GrantProducer(id="p", epoch=0),), batches=(batch(0), batch(1))),
        BlockFacts(controls=(GrantProducer(id="p", epoch=1),)),
    ]
    known = fold(EMPTY_REGISTER, facts).producer("p")
    assert known is not None
    assert (known.epoch, known.last_sequence, len(known.results)) == (1, 1, 2)
    assert isinstance(admit(known, producer="p", epoch=1, sequence=1), Repeat)


def test_a_dropped_producer_begins_anew():
    facts = [
        BlockFacts(controls=(GrantProducer(id="p", epoch=0),), batches=(batch(0),)),
        BlockFacts(controls=(DropProducer(id="p"), GrantProducer(id="p", epoch=0))),
    ]
    assert fold(EMPTY_REGISTER, facts).producer("p") == ProducerState(epoch=0)


def test_only_the_newest_results_are_kept():
    facts = [BlockFacts(batches=(batch(n),)) for n in range(40)]
    known = fold(EMPTY_REGISTER, facts).producer("p")
    assert known is not None
    assert [r.sequence for r in known.results] == list(range(40 - KEPT_RESULTS, 40))


def test_the_end_stays():
    register = fold(EMPTY_REGISTER, [BlockFacts(controls=(EndLog(),))])
    assert register.ended
    assert fold(register, [BlockFacts()]).ended
