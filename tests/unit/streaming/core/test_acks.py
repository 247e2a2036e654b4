"""Acknowledgements, against sets that are looked at whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.streaming.core.acks import Acks, Range
from woodpecker.streaming.core.values import Position


def at(seq: int) -> Position:
    return Position(seq, low=seq - 1)


def test_done_is_the_oldest_message_not_acknowledged() -> None:
    acks = Acks(done=at(0))
    for seq in (2, 4, 6):
        acks.delivered(at(seq))
    assert acks.done == at(2)
    acks.ack(at(4))
    assert (acks.done, acks.ranges, acks.outstanding) == (at(2), ((at(4), at(4)),), 2)
    acks.ack(at(2))
    assert (acks.done, acks.done.low) == (at(6), 5)
    acks.ack(at(6))
    acks.ack(at(6))
    assert (acks.done, acks.done.low, acks.ranges) == (Position(6, 1), 5, ())
    acks.progress(at(9))
    assert acks.done == at(9)


def test_progress_does_not_pass_what_is_outstanding() -> None:
    acks = Acks(done=at(0))
    acks.delivered(at(3))
    acks.progress(at(9))
    assert acks.done == at(3)
    acks.ack_through(at(3))
    assert acks.done == at(9)


def test_what_was_never_handed_out_cannot_be_acknowledged() -> None:
    acks = Acks(done=at(3))
    with pytest.raises(KeyError):
        acks.ack(at(5))
    with pytest.raises(KeyError):
        acks.ack_through(at(5))
    acks.ack(at(1))


def test_ranges_of_the_record_are_not_handed_out_again() -> None:
    acks = Acks(done=at(1), ranges=((at(2), at(3)), (at(6), at(8))))
    assert [acks.is_known(at(seq)) for seq in range(1, 10)] == [
        False, True, True, False, False, True, True, True, False,
    ]  # fmt: skip
    for seq in range(1, 8):
        acks.delivered(at(seq))
    assert acks.outstanding == 3
    assert acks.ranges == ((at(2), at(3)), (at(6), at(7)), (Position(7, 1), at(8)))
    acks.ack_through(at(5))
    assert acks.done == Position(7, 1)


def test_full_means_too_many_ranges() -> None:
    acks = Acks(done=at(0), most=2)
    for seq in range(5):
        acks.delivered(at(seq))
    acks.ack(at(1))
    assert not acks.is_full
    acks.ack(at(3))
    assert acks.is_full
    acks.ack(at(2))
    assert not acks.is_full
    acks.ack(at(0))
    assert (acks.done, acks.ranges) == (at(4), ())


def test_a_record_full_of_ranges_is_gone_on_with() -> None:
    """Nobody can acknowledge what was not handed out: with nothing outstanding it is never full."""
    acks = Acks(done=at(0), ranges=((at(1), at(1)), (at(3), at(3))), most=2)
    assert not acks.is_full
    acks.delivered(at(0))
    assert acks.is_full
    acks.ack(at(0))
    acks.delivered(at(1))
    assert (acks.done, acks.is_full) == (Position(1, 1), False)


acts = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 3)),
        st.tuples(st.just("progress"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["ack", "through"]), st.integers(0, 30)),
    ),
    max_size=40,
)


def covered(done: Position, ranges: tuple[Range, ...], position: Position) -> bool:
    return position < done or any(first <= position <= last for first, last in ranges)


@settings(deadline=None)
@given(story=acts, restart=st.integers(0, 40))
def test_nothing_unacknowledged_is_passed_and_nothing_acknowledged_comes_again(
    story: list[tuple[str, int]], restart: int
) -> None:
    acks, reached = Acks(done=at(0)), 0
    delivered: set[Position] = set()
    acked: set[Position] = set()
    for number, (act, value) in enumerate(story):
        if number == restart:  # a new holder: what is not acknowledged comes again
            acks = Acks(done=acks.done, ranges=acks.ranges)
            for position in sorted(delivered):
                if position >= acks.done:
                    assert acks.is_known(position) == (position in acked)
                    acks.delivered(position)
            acks.progress(at(reached))
        if act == "deliver":
            reached += value
            acks.delivered(at(reached - 1))
            delivered.add(at(reached - 1))
        elif act == "progress":
            reached += value
            acks.progress(at(reached))
        elif delivered:
            chosen = sorted(delivered)[value % len(delivered)]
            if act == "ack":
                acks.ack(chosen)
                acked.add(chosen)
            else:
                acks.ack_through(chosen)
                acked |= {one for one in delivered if one <= chosen}
        for position in delivered:
            assert covered(acks.done, acks.ranges, position) == (position in acked)
        waiting = delivered - acked
        assert acks.outstanding == len(waiting)
        if waiting:
            assert acks.done == min(waiting)
        assert acks._runs == len([one for one in acks.ranges if one[1] < acks._reached])
