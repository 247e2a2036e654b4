"""When is the end of a quorum segment decided, and what is it: the rules by themselves."""

from __future__ import annotations

import pytest

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.quorum_recovery import (
    Contradiction,
    Decided,
    Undecided,
    decide,
    is_safe,
    to_repair,
)
from woodpecker.core.replica import Tip, Vote


def vote(number: int, *, complete: bool = True, lac: int = NO_BLOCK, digest: int = 0) -> Vote:
    tip = Tip(number=number, end_seq=number + 1, digest=bytes([number + 1 + digest]) * 16)
    return Vote(tip=tip if number >= 0 else None, is_complete=complete, lac=lac)


def test_fewer_answers_than_a_fence_cover_decide_nothing() -> None:
    assert decide(3, 2, {}) == Undecided(missing=(0, 1, 2))
    assert decide(3, 2, {1: vote(5)}) == Undecided(missing=(0, 2))
    assert decide(5, 3, {0: vote(5), 4: vote(5)}) == Undecided(missing=(1, 2, 3))


def test_the_end_is_the_last_block_that_any_of_a_cover_has() -> None:
    decided = decide(3, 2, {0: vote(3), 2: vote(5)})
    assert isinstance(decided, Decided)
    assert (decided.number, decided.holders) == (5, (2,))
    assert to_repair(2, decided, {0: vote(3), 2: vote(5)}) == (0,)
    assert not is_safe(2, decided, 0) and is_safe(2, decided, 1)


def test_a_segment_without_any_block_needs_nobody_to_hold_it() -> None:
    decided = decide(2, 2, {0: vote(NO_BLOCK)})
    assert isinstance(decided, Decided)
    assert decided.tip is None and decided.number == NO_BLOCK and is_safe(2, decided, 0)


def test_lower_bounds_count_only_once_all_have_answered() -> None:
    votes = {0: vote(3), 1: vote(2, complete=False)}
    assert decide(3, 2, votes) == Undecided(missing=(2,))
    decided = decide(3, 2, {**votes, 2: vote(4, complete=False)})
    assert isinstance(decided, Decided) and decided.number == 4


def test_different_blocks_of_one_number_are_damage() -> None:
    with pytest.raises(Contradiction, match="different blocks of number 3"):
        decide(3, 2, {0: vote(3), 1: vote(3, digest=9)})


def test_no_end_lies_below_what_a_member_was_told_to_be_acknowledged() -> None:
    """Two members have silently forgotten block 5: the third may still have it, so it must be asked."""
    votes = {0: vote(4, lac=5), 1: vote(3)}
    assert decide(3, 2, votes) == Undecided(missing=(2,))
    decided = decide(3, 2, {**votes, 2: vote(5)})
    assert isinstance(decided, Decided) and decided.number == 5
    with pytest.raises(Contradiction, match="block 5 was acknowledged"):
        decide(3, 2, {**votes, 2: vote(4)})
    with pytest.raises(Contradiction, match="block 0 was acknowledged"):
        decide(2, 2, {0: vote(NO_BLOCK, lac=0), 1: vote(NO_BLOCK)})
