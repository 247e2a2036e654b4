"""Damaged and forged blocks: an error of ours, never a crash, a wrong answer or a large allocation."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import lz4.block
import pytest
import zstandard
from tests.golden.samples import draft_of, full_draft, packed
from tests.unit.codec.forging import resign_block

from woodpecker.codec.block import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_COLUMN_BYTES,
    MAX_ENTRIES,
    Block,
    parse_header,
)
from woodpecker.errors import Corrupt, InvalidRequest

COMPRESSIONS = ["none", "zstd", "lz4"]


def read_all(data: bytes | bytearray) -> None:
    """Decode every column of a block."""
    block = Block.parse(data)
    block.facts()
    for part in (block.payloads, block.headers, block.timestamps, block.batches, block.controls):
        assert part is None or len(part) >= 0


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_at_every_byte(compression: str) -> None:
    data = bytes(packed(full_draft(), compression=compression).buffer)
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            Block.parse(data[:size])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_flipped_bit(compression: str) -> None:
    data = bytearray(packed(full_draft(), compression=compression).buffer)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            Block.parse(data)
        data[bit // 8] ^= 1 << bit % 8
    read_all(data)


def test_every_flipped_bit_of_a_header_is_found_without_the_body() -> None:
    data = bytearray(packed(full_draft()).buffer)[:HEADER_BYTES]
    for bit in range(8 * HEADER_BYTES):
        if 64 <= bit < 192:
            continue  # the digest is checked against the body
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            parse_header(data)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("value", [0, 1, 0x7F, 0xFF])
def test_any_byte_of_a_forged_body(value: int) -> None:
    data = bytes(packed(full_draft()).buffer)
    refused = 0
    for offset in range(HEADER_BYTES, len(data)):
        forged = bytearray(data)
        forged[offset] = value
        try:
            read_all(resign_block(forged))
        except Corrupt:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("value", [2**16, 2**31 - 1, 2**32 - 1])
def test_any_forged_length_is_refused_before_memory_is_taken_for_it(value: int) -> None:
    data = bytes(packed(full_draft()).buffer)
    refused = 0
    tracemalloc.start()
    for offset in range(42, len(data) - 3):
        forged = bytearray(data)
        struct.pack_into("<I", forged, offset, value)
        try:
            read_all(resign_block(forged))
        except (Corrupt, InvalidRequest):
            refused += 1
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 100
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    ("count", "column_bytes", "payload_bytes"),
    [(MAX_ENTRIES + 1, 0, 0), (0, MAX_COLUMN_BYTES + 1, 0), (0, 0, MAX_BODY_BYTES + 1), (2, 0, -1)],
)
def test_a_header_beyond_the_limits(count: int, column_bytes: int, payload_bytes: int) -> None:
    header = bytearray(packed(draft_of([])).buffer)
    body_bytes = 4 * count + column_bytes + payload_bytes
    for offset, value in ((44, column_bytes), (96, count), (100, body_bytes), (120, body_bytes)):
        struct.pack_into("<I", header, offset, value)
    with pytest.raises(Corrupt, match="impossible"):
        parse_header(resign_block(header))


def test_a_frame_that_claims_too_much_gets_no_memory() -> None:
    block = Block.parse(_body(1, _claiming((1 << 31) - 1), 1 << 17))
    tracemalloc.start()
    with pytest.raises(Corrupt):
        _ = block.body
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


def _body(code: int, stored: bytes, raw_bytes: int) -> bytearray:
    """A block of no entries and one column of 24 bytes, with any compressed body."""
    data = bytearray(packed(draft_of([])).buffer)[:HEADER_BYTES] + stored
    struct.pack_into("<H", data, 42, code)
    struct.pack_into("<I", data, 44, raw_bytes)
    struct.pack_into("<I", data, 100, len(stored))
    struct.pack_into("<I", data, 120, raw_bytes)
    return resign_block(data)


def _claiming(size: int) -> bytes:
    """A zstd frame whose header claims any size of content."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 17)))
    assert frame[4] >> 6 == 2  # four bytes of content size
    at = 5 if frame[4] & 0x20 else 6
    assert struct.unpack_from("<I", frame, at)[0] == 1 << 17
    struct.pack_into("<I", frame, at, size)
    return bytes(frame)


ZERO = bytes(4096)
FORGED_BODIES: dict[str, Callable[[], bytearray]] = {
    "zstd garbage": lambda: _body(1, b"garbage", 100),
    "zstd nothing": lambda: _body(1, b"", 100),
    "zstd longer": lambda: _body(1, zstandard.compress(ZERO), 4000),
    "zstd shorter": lambda: _body(1, zstandard.compress(ZERO), 5000),
    "zstd without its size": lambda: _body(
        1, zstandard.ZstdCompressor(write_content_size=False).compress(ZERO), 4096
    ),
    "zstd and more": lambda: _body(1, zstandard.compress(ZERO) + b"x", 4096),
    "zstd twice": lambda: _body(1, zstandard.compress(ZERO) * 2, 4096),
    "zstd cut": lambda: _body(1, zstandard.compress(ZERO)[:-1], 4096),
    "zstd claims too much": lambda: _body(1, _claiming((1 << 32) - 1), 1 << 17),
    "zstd lies as the header does": lambda: _body(1, _claiming(1 << 20), 1 << 20),
    "lz4 garbage": lambda: _body(2, b"\xff" * 50, 100),
    "lz4 nothing": lambda: _body(2, b"", 100),
    "lz4 longer": lambda: _body(2, lz4.block.compress(ZERO, store_size=False), 4000),
    "lz4 shorter": lambda: _body(2, lz4.block.compress(ZERO, store_size=False), 5000),
    "lz4 cut": lambda: _body(2, lz4.block.compress(ZERO, store_size=False)[:-1], 4096),
}


@pytest.mark.parametrize("forge", FORGED_BODIES.values(), ids=FORGED_BODIES)
def test_forged_compressed_bodies(forge: Callable[[], bytearray]) -> None:
    block = Block.parse(forge())
    with pytest.raises(Corrupt, match="body"):
        _ = block.body


def _with_headers(*numbers: int, text: bytes = b"") -> bytearray:
    """A block of two empty payloads and a headers column of any content."""
    column = struct.pack(f"<{len(numbers)}I", *numbers) + text
    return _with_column(1 << 3, column)


def _with_column(flag: int, column: bytes) -> bytearray:
    data = bytearray(packed(draft_of([b"", b""])).buffer)
    data += struct.pack("<I", len(column)) + column
    struct.pack_into("<H", data, 42, flag)
    struct.pack_into("<I", data, 44, len(column) + 4)
    for at in (100, 120):
        struct.pack_into("<I", data, at, len(data) - HEADER_BYTES)
    return resign_block(data)


def test_a_headers_column_in_order_is_read() -> None:
    data = _with_headers(2, 3, 0, 1, 1, 2, 1, 1, 0, 0, 0, 1, text=b"abc")
    assert Block.parse(data).headers == [((b"a", b"b"),), ((b"", b""), (b"", b"c"))]


@pytest.mark.parametrize(
    "forged",
    [
        _with_headers(1, 1, 2, 1, 0, 0),  # an entry that is not there
        _with_headers(2, 2, 1, 0, 1, 1, 0, 0, 0, 0),  # out of order
        _with_headers(2, 2, 0, 0, 1, 1, 0, 0, 0, 0),  # twice
        _with_headers(2, 1, 0, 1, 1, 0, 0, 0),  # an entry of no headers
        _with_headers(1, 2, 0, 1, 0, 0, 0, 0),  # counts do not add up
        _with_headers(1, 1, 0, 1, 1, 0),  # text missing
        _with_headers(1, 1, 0, 1, 0, 0, text=b"x"),  # text too long
    ],
)
def test_forged_headers(forged: bytearray) -> None:
    block = Block.parse(forged)
    with pytest.raises(Corrupt):
        _ = block.headers


def _batches(*rows: tuple[int, int, bytes, bytes], more: bytes = b"") -> bytes:
    data = struct.pack("<I", len(rows))
    for first, count, producer, column in rows:
        data += struct.pack("<IIQQII", first, count, 1, 2, len(producer), len(column))
    return data + b"".join(row[2] + row[3] for row in rows) + more


@pytest.mark.parametrize(
    "column",
    [
        _batches((0, 3, b"p", b"")),
        _batches((0, 0, b"p", b"")),
        _batches((1, 1, b"p", b""), (0, 1, b"p", b"")),
        _batches((0, 2, b"p", b""), (1, 1, b"p", b"")),
        _batches((0, 1, b"\xff", b"")),
        _batches((0, 1, b"p" * 201, b"")),
        _batches((0, 1, b"p", bytes((64 << 10) + 1))),
        _batches((0, 1, b"p", b""), more=b"x"),
        b"",
        struct.pack("<I", 1 << 31),
    ],
)
def test_forged_batches(column: bytes) -> None:
    block = Block.parse(_with_column(1 << 4, column))
    with pytest.raises(Corrupt):
        _ = block.batches


@pytest.mark.parametrize(
    "column",
    [
        struct.pack("<IIIQ", 1, 9, 0, 0),  # unknown kind
        struct.pack("<IIIQ", 1, 2, 201, 0) + b"x" * 201,
        struct.pack("<IIIQ", 1, 2, 1, 0) + b"\xff",
        struct.pack("<IIIQ", 1, 1, 0, 0) + b"x",
        struct.pack("<I", 1 << 31),
    ],
)
def test_forged_controls(column: bytes) -> None:
    block = Block.parse(_with_column(1 << 6, column))
    with pytest.raises(Corrupt):
        _ = block.controls


def test_columns_that_do_not_fill_their_room() -> None:
    data = bytearray(packed(draft_of([b"abcd", b""])).buffer)
    struct.pack_into("<I", data, 44, 4)  # four bytes of columns, though no flag names one
    struct.pack_into("<I", data, HEADER_BYTES, 0)
    block = Block.parse(resign_block(data))
    with pytest.raises(Corrupt):
        _ = block.batches


def test_timestamps_that_do_not_begin_at_the_base() -> None:
    draft = draft_of([b"a"])
    draft.timestamps = [5]
    data = bytearray(packed(draft).buffer)
    data[HEADER_BYTES + 4] = 6
    block = Block.parse(resign_block(data))
    with pytest.raises(Corrupt, match="timestamps"):
        block.timestamp_of(0)
