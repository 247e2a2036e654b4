"""End marks: one size, below any block's; damaged ones are refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tests.golden.samples import END_MARK, LOG_ID, TOKEN
from tests.unit.codec.forging import resign_end

from woodpecker.codec import endmark
from woodpecker.codec.block import HEADER_BYTES
from woodpecker.errors import Corrupt, InvalidRequest

FIELDS: dict[str, Any] = {"log_id": LOG_ID, "segment_id": 7, "epoch": 3, "token": TOKEN}


def test_a_mark_comes_back() -> None:
    data = endmark.encode(**FIELDS)
    assert endmark.parse(data) == END_MARK
    assert endmark.is_mark_size(len(data))


def test_no_block_has_the_size_of_a_mark() -> None:
    assert endmark.END_MARK_BYTES < HEADER_BYTES
    assert not any(endmark.is_mark_size(size) for size in range(HEADER_BYTES, 2 * HEADER_BYTES))


def test_cut_at_every_byte_or_longer() -> None:
    data = endmark.encode(**FIELDS)
    for wrong in [*(data[:size] for size in range(len(data))), data + b"\0"]:
        with pytest.raises(Corrupt, match="key: "):
            endmark.parse(wrong, where="key")


def test_every_flipped_bit() -> None:
    data = bytearray(endmark.encode(**FIELDS))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            endmark.parse(data)
        data[bit // 8] ^= 1 << bit % 8


def test_a_newer_format_is_named_as_such() -> None:
    data = bytearray(endmark.encode(**FIELDS))
    struct.pack_into("<H", data, 8, 2)
    with pytest.raises(InvalidRequest, match="newer version of Woodpecker"):
        endmark.parse(resign_end(data, len(data)))


@pytest.mark.parametrize(
    "wrong",
    [{"log_id": "ab"}, {"token": "x" * 32}, {"token": ""}, {"segment_id": -1}, {"epoch": 1 << 64}],
    ids=str,
)
def test_fields_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        endmark.encode(**FIELDS | wrong)
