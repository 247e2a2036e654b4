"""Bytes of subscriptions: there and back, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.errors import Corrupt
from woodpecker.streaming.codec.cursors import decode_cursor, encode_cursor
from woodpecker.streaming.core.cursors import CursorRecord
from woodpecker.streaming.core.values import Position, Where

RECORD = CursorRecord(
    done=Position(7, 1, 70, 5, 2),
    generation=3,
    holder="h",
    nonce="n",
    ranges=((Position(9), Position(9, 2)),),
    where=Where(type="t", key=b"k", properties=((b"a", b"b"),)),
)


def test_there_and_back() -> None:
    for record in (RECORD, CursorRecord(done=Position(0, low=0))):
        found = decode_cursor(encode_cursor(record), position=5, where="c")
        assert found == record
        assert (found.done.low, found.done.term) == (record.done.low, record.done.term)


def test_a_cursor_without_data_is_new() -> None:
    found = decode_cursor(b"", position=5, where="c")
    assert (found.done, found.done.low, found.generation) == (Position(5), 5, 0)


@given(st.binary(min_size=1))
def test_anything_else_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_cursor(data, position=0, where="c")


@given(st.integers(0, 60))
def test_torn_bytes_are_corrupt(count: int) -> None:
    data = encode_cursor(RECORD)
    if 0 < count < len(data):
        with pytest.raises(Corrupt):
            decode_cursor(data[:count], position=0, where="c")
