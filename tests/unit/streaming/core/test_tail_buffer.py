"""The tail buffer, against a list that keeps everything."""

from __future__ import annotations

import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.streaming.core.kit import Pchannel

from woodpecker.streaming.core.facts import Facts, Null
from woodpecker.streaming.core.tail_buffer import SWEEP, TailBuffer


def batch(seq: int, count: int = 1) -> Facts:
    column = Pchannel().control(Null()).column
    return Facts(seq=seq, count=count, tick=seq, column=column)


def test_an_idle_buffer_attaches_at_its_end_only() -> None:
    buffer = TailBuffer[str](10)
    assert buffer.attach(9) is None
    assert buffer.attach(11) is None
    number = buffer.attach(10)
    assert number is not None
    assert buffer.read(number) is None
    buffer.append(batch(10, 3), "a", 5)
    slot = buffer.read(number)
    assert slot is not None
    assert (slot.content, slot.end, buffer.next) == ("a", 13, 13)


def test_attaching_inside_a_batch_finds_the_batch() -> None:
    buffer = TailBuffer[str](0)
    buffer.append(batch(0, 3), "a", 5)
    buffer.append(batch(3, 3), "b", 5)
    for seq in range(6):
        number = buffer.attach(seq)
        assert number is not None
        slot = buffer.read(number)
        assert slot is not None
        assert slot.content == ("a" if seq < 3 else "b")


def test_only_what_everybody_can_read_from_the_log_is_evicted() -> None:
    buffer = TailBuffer[str](0)
    for seq in range(3):
        buffer.append(batch(seq), "x", 10)
    assert buffer.evict(visible=2, excess_bytes=100) == 20
    assert (buffer.first, buffer.size_bytes) == (2, 10)
    assert buffer.attach(1) is None
    with pytest.raises(KeyError):
        buffer.read(0)
    assert buffer.evict(visible=3, excess_bytes=1) == 10
    assert buffer.first == buffer.next == 3
    assert buffer.attach(3) is not None


def test_ephemerals_have_their_own_share_and_the_oldest_go() -> None:
    buffer = TailBuffer[str](0)
    number = buffer.attach(0)
    assert number is not None
    assert buffer.append_ephemeral(1, 5, "e1", 10, most_bytes=20) == 0
    buffer.append(batch(0), "a", 10)
    assert buffer.append_ephemeral(1, 6, "e2", 10, most_bytes=20) == 0
    assert buffer.append_ephemeral(1, 7, "e3", 15, most_bytes=20) == 2
    seen = []
    while (slot := buffer.read(number)) is not None:
        seen.append(slot.content)
        number = slot.number + 1
    assert seen == ["a", "e3"]
    assert (buffer.size_bytes, buffer.ephemeral_bytes) == (25, 15)
    assert buffer.evict(visible=1, excess_bytes=100) == 25
    assert (buffer.size_bytes, buffer.ephemeral_bytes) == (0, 0)


def test_long_lives_do_not_keep_what_was_evicted() -> None:
    buffer = TailBuffer[int](0)
    for seq in range(5 * SWEEP):
        buffer.append(batch(seq), seq, 1)
        buffer.evict(visible=seq, excess_bytes=buffer.size_bytes - 10)
    assert buffer.size_bytes == 10
    assert len(buffer._slots) <= 2 * SWEEP + 20
    number = buffer.attach(5 * SWEEP - 3)
    assert number is not None
    slot = buffer.read(number)
    assert slot is not None
    assert slot.content == 5 * SWEEP - 3


acts = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("ephemeral"), st.integers(0, 3)),
        st.tuples(st.just("evict"), st.integers(0, 4)),
        st.tuples(st.just("attach"), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(0, 5)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(story=acts)
def test_readers_see_every_batch_once_in_order_or_are_told(story: list[tuple[str, int]]) -> None:
    buffer, next_seq = TailBuffer[int](0), 0
    readers: list[list[int]] = []  # (next seq, slot number)
    for act, number in story:
        if act == "add":
            buffer.append(batch(next_seq, number), next_seq, number)
            next_seq += number
        elif act == "ephemeral":
            buffer.append_ephemeral(1, 0, -1, number, most_bytes=5)
        elif act == "evict":
            buffer.evict(visible=max(0, next_seq - number), excess_bytes=number)
            assert buffer.first >= 0
        elif act == "attach":
            seq = max(0, next_seq - number)
            slot_number = buffer.attach(seq)
            assert (slot_number is not None) == (buffer.first <= seq <= buffer.next)
            if slot_number is not None:
                readers.append([seq, slot_number])
        for reader in readers if act == "read" else []:
            try:
                slot = buffer.read(reader[1])
            except KeyError:
                assert reader[0] < buffer.first
                reader[1] = buffer.attach(max(reader[0], buffer.first)) or 0
                reader[0] = max(reader[0], buffer.first)
                continue
            if slot is None:
                assert reader[0] == next_seq
            else:
                if slot.facts is not None:
                    assert slot.facts.seq <= reader[0] < slot.facts.end
                    reader[0] = slot.facts.end
                reader[1] = slot.number + 1


def test_what_is_evicted_is_let_go_at_once() -> None:
    """Batches may be of some MiB: their list is cut now and then, but they themselves must not wait for that."""

    class Content:
        pass

    buffer = TailBuffer[Content](0)
    watched = []
    for seq in range(10):
        buffer.append(batch(seq), Content(), 1)
        slot = buffer.read(seq)
        assert slot is not None
        assert slot.content is not None
        watched.append(weakref.ref(slot.content))
    slot = None
    assert buffer.evict(visible=10, excess_bytes=8) == 8
    assert [one() is None for one in watched] == [True] * 8 + [False] * 2
