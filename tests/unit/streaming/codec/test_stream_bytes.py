"""Stream columns and checkpoints as bytes: torn and flipped anywhere, they are refused or are others."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.streaming.core.stories import acts, played

from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.streaming.codec.checkpoint import (
    ROWS_A_STEP,
    decode_checkpoint,
    decoding,
    digest_of,
    encode_checkpoint,
    encoding,
)
from woodpecker.streaming.codec.column import (
    FORMAT,
    MAX_NUMBER,
    REQUIRED,
    decode_column,
    encode_column,
    entry_headers,
    split_headers,
)
from woodpecker.streaming.core.facts import (
    AbortTxn,
    Body,
    Broadcast,
    Close,
    Create,
    Data,
    Delete,
    Grant,
    Limit,
    Null,
    StreamColumn,
    TableLimits,
    Term,
    Trim,
)
from woodpecker.streaming.core.fold import Fold, Vchannel

BODIES: list[Body] = [
    Data(producer="p", epoch=3, sequence=9, size_bytes=100, type="t"),
    Data(producer="", epoch=0, sequence=0, txn=7, number=1, begin=True, commit=True, join=True,
         hollow=True, entries=3, keep_alive_ms=1000),
    Data(producer="é", epoch=MAX_NUMBER, sequence=1, txn=0, number=0, abort=True),
    Term(incarnation="i", features=2, limits=TableLimits(sessions=5)),
    Close(),
    Limit(),
    Create(name="a", retention_age_s=5),
    Create(name="a", retention_bytes=0),
    Delete(),
    Trim(before=9),
    Grant(producer="p"),
    AbortTxn(txn=5, reason="late"),
    Broadcast(id=5, floor=3, type="x"),
    Null(),
]  # fmt: skip
COLUMNS = [StreamColumn(term=4, limit=99, low=2, vcid=1, body=body) for body in BODIES]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: type(column.body).__name__)
def test_a_column_comes_back_and_torn_or_flipped_ones_do_no_harm(column: StreamColumn) -> None:
    data = encode_column(column)
    assert len(data) < 120
    assert decode_column(data) == column
    for end in range(len(data)):
        with pytest.raises(Corrupt):
            decode_column(data[:end])
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                other = decode_column(bytes(flipped))
            except (Corrupt, InvalidRequest):
                continue
            assert other.term >= 0
            assert encode_column(other)


def test_every_kind_of_body_is_tried() -> None:
    assert {type(body) for body in BODIES} == set(Body.__args__)


@given(
    data=st.binary(max_size=60), front=st.sampled_from([b"", b"\x01\x80", b"\x01\x81", b"\x01\x0a"])
)
@settings(deadline=None)
def test_any_bytes(data: bytes, front: bytes) -> None:
    try:
        decode_column(front + data)
    except (Corrupt, InvalidRequest):
        return


def test_deep_nonsense_is_refused() -> None:
    with pytest.raises(Corrupt):
        decode_column(b"\x01\x0a" + b"\x91" * 100_000)


def test_kinds_of_later_versions() -> None:
    row = msgspec.msgpack.encode([4, 99, 2, 1, "more", {"a": 1}])
    passed = decode_column(bytes((FORMAT, 0x33)) + row)
    assert passed == StreamColumn(term=4, limit=99, low=2, vcid=1, body=Null())
    with pytest.raises(InvalidRequest, match="kind 51"):
        decode_column(bytes((FORMAT, 0x33 | REQUIRED)) + row)
    with pytest.raises(InvalidRequest, match="format 2"):
        decode_column(b"\x02\x80" + row)


def test_numbers_that_do_not_fit_are_not_written() -> None:
    with pytest.raises(InvalidRequest):
        encode_column(StreamColumn(term=1 << 70, limit=1, low=0, body=Null()))
    with pytest.raises(InvalidRequest):
        encode_column(StreamColumn(term=1, limit=1, low=0, body=Grant(producer="\ud800")))


def test_keys_and_types_travel_in_headers() -> None:
    own = ((b"a", b"1"), (b"", b"2"))
    for key in (b"", b"k"):
        for type_ in ("", "é"):
            headers = entry_headers(own, key, type_)
            assert split_headers(headers) == (own, key, type_ or None)
    assert entry_headers(()) == ()
    assert split_headers(((b"\x00new", b"x"), *own)) == (own, b"", None)
    with pytest.raises(InvalidRequest):
        entry_headers(((b"\x00k", b"forged"),))
    with pytest.raises(Corrupt):
        split_headers(((b"\x00t", b"\xff"),))


@given(story=acts, at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_checkpoint_torn_or_flipped_is_refused(
    story: list[tuple[str, int, int]], at: int, bit: int
) -> None:
    data = encode_checkpoint(played(story).fold)
    assert digest_of(data) == digest_of(memoryview(data))
    at %= len(data)
    flipped = bytearray(data)
    flipped[at] ^= 1 << bit
    for wrong in (bytes(flipped), data[:at], data + b"x"):
        with pytest.raises((Corrupt, InvalidRequest)):
            decode_checkpoint(wrong)


@pytest.mark.parametrize("count", [0, 15, 16, 17, 1000, 65_535, 65_536])
def test_a_large_checkpoint_is_made_and_read_in_steps(count: int) -> None:
    fold = Fold(next_seq=count)
    for n in range(count):
        fold.vchannels[n] = Vchannel(name=f"c{n}", seq=n, tick=n)
    assert sum(1 for _ in encoding(fold)) == count // ROWS_A_STEP
    data = encode_checkpoint(fold)
    assert sum(1 for _ in decoding(data)) == count // ROWS_A_STEP
    assert decode_checkpoint(data) == fold
    body = msgspec.msgpack.decode(data[21:])  # the same bytes as in one go
    assert msgspec.msgpack.encode(body) == data[21:]
