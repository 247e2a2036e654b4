"""Sealed objects: found by seq and time, the same bytes whoever writes them, damage is found."""

from __future__ import annotations

import struct

import pytest
from tests.golden.samples import LOG_ID, REGISTER, draft_of, packed, plain_blocks, sealed_object
from tests.unit.codec.forging import resign_end
from xxhash import xxh3_128_digest

from woodpecker.codec import sealed
from woodpecker.codec.block import Block, PackedBlock
from woodpecker.codec.sealed import FOOTER_BYTES, Footer, IndexBuilder, SealedIndex, encode_tail
from woodpecker.core.register import EMPTY_REGISTER, Register
from woodpecker.errors import Corrupt, InvalidRequest

US = 1_700_000_000_000_000


def read_tail(data: bytes | bytearray) -> tuple[Footer, SealedIndex, Register]:
    """Everything behind the blocks, checked."""
    view = memoryview(data)
    footer = sealed.parse_footer(view, object_bytes=len(view), where="key")
    index = sealed.parse_index(view[footer.index_offset : footer.register_offset], footer)
    register = sealed.parse_register(view[footer.register_offset : -FOOTER_BYTES], footer)
    return footer, index, register


def chain(counts: list[int], times: list[int] | None = None) -> list[PackedBlock]:
    """Blocks of so many entries each, with those base times."""
    blocks: list[PackedBlock] = []
    seq, prev = 100, b"p" * 16
    for number, count in enumerate(counts):
        draft = draft_of([b"x"] * count, seq)
        draft.timestamps = [times[number]] * count if times and count else None
        blocks.append(packed(draft, number=number, prev=prev))
        seq, prev = seq + count, blocks[-1].header.digest
    return blocks


def index_of(blocks: list[PackedBlock]) -> SealedIndex:
    builder, data = IndexBuilder(), bytearray()
    for block in blocks:
        builder.add(block.header, len(data))
        data += block.buffer
    return read_tail(data + encode_tail(builder, EMPTY_REGISTER, last_timestamp_us=0))[1]


@pytest.mark.parametrize("padding", [0, 4096])
def test_a_sealed_object_is_read_from_its_end(padding: int) -> None:
    data, blocks = sealed_object(padding=padding), plain_blocks()
    footer, index, register = read_tail(data)
    assert register == REGISTER
    assert (footer.log_id, footer.segment_id, footer.epoch) == (LOG_ID, 7, 3)
    assert (footer.base_seq, footer.end_seq, footer.block_count) == (0, 3, 3)
    assert (footer.first_timestamp_us, footer.last_timestamp_us) == (US, US)
    assert (footer.prev_digest, footer.digest) == (bytes(16), blocks[-1].header.digest)
    assert footer.block_bytes == sum(len(block.buffer) for block in blocks)
    assert footer.raw_body_bytes == sum(block.header.raw_body_bytes for block in blocks)
    assert footer.size_bytes == len(data)
    assert sealed.parse_footer(data[-footer.tail_bytes :]) == footer
    for i, block in enumerate(blocks):
        start, size = index.span(i, i + 1)
        assert Block.parse(data[start : start + size]).header == block.header


def test_it_does_not_matter_who_seals() -> None:
    assert sealed_object() == sealed_object()


def test_finding_a_seq() -> None:
    index = index_of(chain([2, 0, 3, 1, 0]))  # seqs 100-101, -, 102-104, 105, -
    found = {seq: index.find_seq(seq) for seq in range(98, 108)}
    assert found == {
        98: 0, 99: 0, 100: 0, 101: 0, 102: 2, 103: 2, 104: 2, 105: 3, 106: 5, 107: 5,
    }  # fmt: skip


def test_finding_a_time() -> None:
    index = index_of(chain([1, 1, 1, 1], times=[10, 20, 20, 30]))
    found = {time: index.find_time(time) for time in (0, 10, 11, 20, 21, 30, 31)}
    # the block before the first that begins in time: its later entries may be in time already
    assert found == {0: 0, 10: 0, 11: 0, 20: 0, 21: 2, 30: 2, 31: 3}


def test_a_time_that_falls_is_kept_from_misleading_the_search() -> None:
    index = index_of(chain([1, 1, 1], times=[10, 5, 20]))
    assert index.timestamps.tolist() == [10, 10, 20]
    assert index.find_time(7) == 0


def test_runs_of_blocks_for_ranged_reads() -> None:
    index = index_of(chain([1] * 10))
    size = index.sizes[0]
    assert index.run(0, 3 * size) == 3
    assert index.run(0, 3 * size + size - 1) == 3
    assert index.run(4, 1) == 5
    assert index.run(0, 1 << 30) == len(index) == 10
    assert index.run(9, 1) == 10
    assert index.span(2, 5) == (2 * size, 3 * size)


def test_cut_anywhere() -> None:
    data = sealed_object()
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            read_tail(data[:size])


@pytest.mark.parametrize("padding", [0, 10])
def test_every_flipped_bit_of_the_tail(padding: int) -> None:
    data = bytearray(sealed_object(padding=padding))
    tail_at = read_tail(data)[0].index_offset
    for bit in range(8 * tail_at, 8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            read_tail(data)
        data[bit // 8] ^= 1 << bit % 8


def test_a_footer_of_another_object_is_told_by_the_size() -> None:
    data = sealed_object()
    with pytest.raises(Corrupt, match="impossible"):
        sealed.parse_footer(data, object_bytes=len(data) + 1)


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32 - 1])
def test_forged_numbers_in_the_footer(value: int) -> None:
    data = sealed_object()
    for offset in range(len(data) - FOOTER_BYTES + 8, len(data) - 4):
        forged = bytearray(data)
        struct.pack_into("<I", forged, offset, value)
        try:
            footer, index, _ = read_tail(resign_end(forged, FOOTER_BYTES))
        except (Corrupt, InvalidRequest):
            continue
        assert len(index) == footer.block_count == 3


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (48, 1),  # base seq: not that of the first block
        (64, 3 * 128),  # bytes of all blocks: not their sum
        (64, 1 << 40),  # more than lie before the index
        (64, 100),  # less than their headers
        (80, 1 << 62),  # the first time after the last
        (104, 39),
    ],
)
def test_a_forged_footer(offset: int, value: int) -> None:
    data = bytearray(sealed_object())
    struct.pack_into("<Q", data, len(data) - FOOTER_BYTES + offset, value)
    with pytest.raises(Corrupt, match=r"impossible|does not fit"):
        read_tail(resign_end(data, FOOTER_BYTES))


@pytest.mark.parametrize(("offset", "value"), [(64, 1 << 40), (64, 383), (112, (64 << 20) + 1)])
def test_a_footer_is_judged_before_anything_it_names_is_read(offset: int, value: int) -> None:
    footer = bytearray(sealed_object()[-FOOTER_BYTES:])
    struct.pack_into("<Q", footer, offset, value)
    with pytest.raises(Corrupt, match="impossible"):
        sealed.parse_footer(resign_end(footer, FOOTER_BYTES))


def _forge_index(offset: int, value: int) -> bytearray:
    """A sealed object with one number of its index changed and every checksum right."""
    data = bytearray(sealed_object())
    footer = read_tail(data)[0]
    struct.pack_into("<I", data, footer.index_offset + offset, value)
    digest = xxh3_128_digest(bytes(data[footer.index_offset : footer.register_offset]))
    at = bytes(data).index(footer.index_digest)
    data[at : at + 16] = digest
    return resign_end(data, FOOTER_BYTES)


# three blocks: offsets at 0, base seqs at 24, times at 48, numbers at 72, counts at 96, sizes at 108
@pytest.mark.parametrize(
    "offset", [8, 12, 16, 24, 32, 40, 48, 56, 72, 80, 92, 96, 100, 104, 108, 112]
)
def test_a_forged_index(offset: int) -> None:
    with pytest.raises(Corrupt, match="does not fit"):
        read_tail(_forge_index(offset, 0xFFFFFFF0))


def test_a_newer_format_is_named_as_such() -> None:
    for offset in (8, 10):
        data = bytearray(sealed_object())
        struct.pack_into("<H", data, len(data) - FOOTER_BYTES + offset, 2)
        with pytest.raises(InvalidRequest, match="newer version of Woodpecker"):
            read_tail(resign_end(data, FOOTER_BYTES))


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 2},
        {"base_seq": 3},
        {"prev_digest": b"x" * 16},
        {"segment_id": 8},
        {"epoch": 4},
        {"log_id": "ab" * 16},
    ],
    ids=str,
)
def test_only_a_chain_can_be_sealed(wrong: dict[str, object]) -> None:
    first, second, _ = plain_blocks()
    builder = IndexBuilder()
    builder.add(first.header, 0)
    with pytest.raises(Corrupt, match="does not follow block 0"):
        builder.add(second.header._replace(**wrong), len(first.buffer))  # type: ignore[arg-type]
    with pytest.raises(Corrupt):
        builder.add(second.header, len(first.buffer) - 1)
    builder.add(second.header, len(first.buffer))


def test_a_segment_begins_with_block_0() -> None:
    with pytest.raises(Corrupt, match="the beginning of its segment"):
        IndexBuilder().add(plain_blocks()[1].header, 0)


def test_a_tail_needs_blocks_and_lies_behind_them() -> None:
    builder = IndexBuilder()
    with pytest.raises(InvalidRequest, match="0 blocks"):
        encode_tail(builder, EMPTY_REGISTER, last_timestamp_us=0)
    builder.add(plain_blocks()[0].header, 0)
    with pytest.raises(InvalidRequest, match="overwrite"):
        encode_tail(builder, EMPTY_REGISTER, last_timestamp_us=0, offset=10)
