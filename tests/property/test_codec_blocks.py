"""Blocks against a second decoder, written from docs/formats.md as slowly and plainly as can be."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import Any

import lz4.block
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.codec.forging import resign_block

from woodpecker.codec.block import Block, PackedBlock, pack
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.register import Control, DropProducer, EndLog, GrantProducer
from woodpecker.errors import Corrupt, InvalidRequest

U63 = (1 << 63) - 1
names = st.text(max_size=20)
u64 = st.integers(0, (1 << 64) - 1)
pairs = st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=9)), max_size=3)
controls = st.one_of(
    st.just(EndLog()),
    st.builds(GrantProducer, id=names, epoch=u64),
    st.builds(DropProducer, id=names),
)
payload_lists = st.one_of(
    st.lists(st.binary(max_size=40), max_size=80),
    st.integers(0, 30).flatmap(
        lambda size: st.lists(st.binary(min_size=size, max_size=size), max_size=200)
    ),
    st.lists(st.integers(0, 30_000).map(bytes), max_size=4),
)


@st.composite
def batches(draw: st.DrawFn, count: int) -> list[BatchMark]:
    """Batches one after another, with or without entries between them."""
    cuts = sorted(draw(st.sets(st.integers(0, count), max_size=6)))
    marks = []
    for first, end in pairwise(cuts):
        if draw(st.booleans()):
            mark = BatchMark(
                first=first,
                count=end - first,
                producer=draw(names),
                producer_epoch=draw(u64),
                sequence=draw(u64),
                column=draw(st.binary(max_size=9)),
            )
            marks.append(mark)
    return marks


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """Drafts of every shape."""
    draft = Draft(draw(st.integers(0, U63 - 1000)))
    draft.payloads = list(draw(payload_lists))
    draft.payload_bytes = sum(map(len, draft.payloads))
    count = draft.count
    if draw(st.booleans()):
        draft.headers = [draw(pairs) if draw(st.booleans()) else () for _ in range(count)]
    if draw(st.booleans()):
        times = st.lists(st.integers(0, U63), min_size=count, max_size=count)
        draft.timestamps = sorted(draw(times))
    draft.batches = draw(batches(count))
    draft.controls = draw(st.lists(controls, max_size=3))
    return draft


def packed(draft: Draft, compression: str, **fields: Any) -> PackedBlock:
    """Pack with some fields that do not matter here."""
    base: dict[str, Any] = {
        "log_id": "ab" * 16,
        "segment_id": 1,
        "epoch": 2,
        "number": 3,
        "lac": -1,
    }
    base |= {"prev_digest": b"p" * 16, "base_timestamp_us": 7}
    return pack(draft, **base | fields, compression=compression)


class Slow:
    """The second decoder: one value after another, nothing clever, no checks but of checksums."""

    def __init__(self, data: bytes) -> None:
        self.data, self.pos = data, 0
        assert self.take(8) == b"WPBLOCK\n"
        assert self.take(16) == xxhash.xxh3_128(data[24:]).digest()
        self.prev_digest = self.take(16)
        version, self.flags, column_bytes = self.number(2), self.number(2), self.number(4)
        self.log_id = self.take(16).hex()
        self.segment, self.epoch, self.block, self.base_seq = (self.number(8) for _ in range(4))
        self.count, stored_bytes = self.number(4), self.number(4)
        self.base_us, self.lac = self.number(8), self.number(8, signed=True)
        raw_bytes, crc = self.number(4), self.number(4)
        assert (version, self.pos) == (1, 128)
        assert crc == zlib.crc32(data[:8] + data[24:124])
        assert stored_bytes == len(data) - 128
        if self.flags & 3 == 1:
            self.data = zstandard.decompress(data[128:])
        elif self.flags & 3 == 2:
            self.data = lz4.block.decompress(data[128:], uncompressed_size=raw_bytes)
        else:
            self.data = data[128:]
        assert len(self.data) == raw_bytes
        self.pos = 0
        self.read_body(column_bytes)

    def read_body(self, column_bytes: int) -> None:
        lengths = [self.number(4) for _ in range(self.count)]
        has = [bool(self.flags & 1 << bit) for bit in range(16)]
        self.times = [self.number(8) if has[2] else self.base_us for _ in range(self.count)]
        self.headers: list[list[tuple[bytes, bytes]]] = [[] for _ in range(self.count)]
        if has[3]:
            self.read_headers()
        self.batches = self.read_batches() if has[4] else []
        self.controls = self.read_controls() if has[6] else []
        assert has[5] == any(batch.producer for batch in self.batches)
        assert self.pos == 4 * self.count + column_bytes
        self.payloads = [self.take(length) for length in lengths]
        assert self.pos == len(self.data)

    def read_headers(self) -> None:
        end = self.number(4) + self.pos
        owner_count, pair_count = self.number(4), self.number(4)
        owners = [self.number(4) for _ in range(owner_count)]
        counts = [self.number(4) for _ in range(owner_count)]
        lengths = [(self.number(4), self.number(4)) for _ in range(pair_count)]
        found = [(self.take(name), self.take(value)) for name, value in lengths]
        for owner, count in zip(owners, counts, strict=True):
            self.headers[owner], found = found[:count], found[count:]
        assert self.pos == end

    def read_batches(self) -> list[BatchMark]:
        end = self.number(4) + self.pos
        rows = [[self.number(n) for n in (4, 4, 8, 8, 4, 4)] for _ in range(self.number(4))]
        marks = [
            BatchMark(
                first=first,
                count=count,
                producer=self.take(id_bytes).decode(),
                producer_epoch=epoch,
                sequence=sequence,
                column=self.take(caller_bytes),
            )
            for first, count, epoch, sequence, id_bytes, caller_bytes in rows
        ]
        assert self.pos == end
        return marks

    def read_controls(self) -> list[Control]:
        end = self.number(4) + self.pos
        result: list[Control] = []
        for _ in range(self.number(4)):
            kind, id_bytes, epoch = self.number(4), self.number(4), self.number(8)
            producer = self.take(id_bytes).decode()
            made: dict[int, Control] = {
                1: EndLog(),
                2: GrantProducer(id=producer, epoch=epoch),
                3: DropProducer(id=producer),
            }
            result.append(made[kind])
        assert self.pos == end
        return result

    def take(self, size: int) -> bytes:
        self.pos += size
        assert self.pos <= len(self.data)
        return self.data[self.pos - size : self.pos]

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)


@given(drafts(), st.sampled_from(["none", "zstd", "lz4"]))
@settings(max_examples=300, deadline=None)
def test_both_decoders_read_what_was_packed(draft: Draft, compression: str) -> None:
    data = bytes(packed(draft, compression).buffer)
    slow, block = Slow(data), Block.parse(data)
    assert slow.payloads == block.payloads == draft.payloads
    headers = [tuple(found) for found in draft.headers or [()] * draft.count]
    assert [tuple(found) for found in slow.headers] == headers
    assert (block.headers or [()] * draft.count) == headers
    assert (block.headers is None) == (draft.headers is None)
    times = draft.timestamps or [7] * draft.count
    assert slow.times == times == [block.timestamp_of(i) for i in range(draft.count)]
    assert slow.batches == list(block.batches) == draft.batches
    assert slow.controls == list(block.controls) == draft.controls


@given(
    log_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    prev_digest=st.binary(min_size=16, max_size=16),
    segment_id=st.integers(0, U63),
    epoch=st.integers(0, U63),
    number=st.integers(0, U63),
    base_seq=st.integers(0, U63),
    base_timestamp_us=st.integers(0, U63),
    lac=st.integers(-1, U63),
)
@settings(deadline=None)
def test_header_fields_keep_their_whole_range(base_seq: int, **fields: Any) -> None:
    block = packed(Draft(base_seq), "none", **fields)
    slow, header = Slow(bytes(block.buffer)), Block.parse(block.buffer).header
    assert {name: getattr(header, name) for name in fields} == fields
    assert header.base_seq == slow.base_seq == base_seq
    assert fields == {
        "log_id": slow.log_id,
        "prev_digest": slow.prev_digest,
        "segment_id": slow.segment,
        "epoch": slow.epoch,
        "number": slow.block,
        "base_timestamp_us": slow.base_us,
        "lac": slow.lac,
    }


@given(drafts(), st.sampled_from(["none", "zstd", "lz4"]))
@settings(max_examples=100, deadline=None)
def test_the_callers_buffer_makes_no_difference(draft: Draft, compression: str) -> None:
    own = packed(draft, compression)
    given_ = packed(draft, compression, allocate=lambda size: memoryview(bytearray(size + 50)))
    assert given_.buffer == own.buffer
    assert given_.header == own.header


@given(drafts(), st.sampled_from(["none", "zstd", "lz4"]), st.data())
@settings(max_examples=300, deadline=None)
def test_a_forged_block_is_read_or_refused(
    draft: Draft, compression: str, data: st.DataObject
) -> None:
    forged = bytearray(packed(draft, compression).buffer)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(40, len(forged) - 1))
        room = len(forged) - at
        value = data.draw(st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([
            struct.pack("<I", n) for n in (0, 1, len(forged), 2**31, 2**32 - 1)
        ])))[:room]  # fmt: skip
        forged[at : at + len(value)] = value
    try:
        block = Block.parse(resign_block(forged))
        assert len(block.payloads) == len(block.lengths) == block.count
        assert block.headers is None or len(block.headers) == block.count
        assert all(batch.first + batch.count <= block.count for batch in block.batches)
        block.facts()
        assert block.last_timestamp_us >= 0
    except (Corrupt, InvalidRequest):
        pass
