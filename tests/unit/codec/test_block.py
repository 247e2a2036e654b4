"""Blocks: what comes out is what went in, in every shape; wrong drafts and wrong bytes are refused."""

from __future__ import annotations

import struct
import zlib
from array import array
from typing import Any

import pytest
from tests.golden.samples import LOG_ID, draft_of, full_draft, packed
from tests.unit.codec.forging import resign_block

from woodpecker.codec import block as codec
from woodpecker.codec.block import Block, pack, parse_header, verify_digest
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.register import BlockFacts, EndLog, GrantProducer, ProducerBatch
from woodpecker.errors import Corrupt, InvalidRequest

US = 1_700_000_000_000_000
FIELDS: dict[str, Any] = {
    "log_id": LOG_ID,
    "segment_id": 7,
    "epoch": 3,
    "number": 0,
    "prev_digest": bytes(16),
    "base_timestamp_us": US,
    "lac": -1,
}
SHAPES = {
    "small": [b"abc", b"", b"x" * 100] * 50,
    "uniform": [bytes([i]) * 100 for i in range(200)],
    "large": [b"a" * 20_000, b"b" * 9_000],
    "mixed": [b"a" * 200_000, *[b"tiny"] * 10],
    "empty payloads": [b""] * 3,
    "one": [b"x"],
    "none": [],
}


@pytest.mark.parametrize("payloads", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("compression", ["none", "zstd", "lz4"])
def test_payloads_come_back(payloads: list[bytes], compression: str) -> None:
    block = Block.parse(packed(draft_of(payloads), compression=compression).buffer)
    assert block.payloads == payloads
    assert block.lengths.tolist() == [len(payload) for payload in payloads]
    assert [bytes(view) for view in block.views_from(0)] == payloads
    assert block.count == len(payloads)


@pytest.mark.parametrize("payloads", SHAPES.values(), ids=SHAPES)
def test_reading_may_begin_inside(payloads: list[bytes]) -> None:
    buffer = packed(draft_of(payloads)).buffer
    for index in {0, 1, len(payloads) // 2, len(payloads)}:
        fresh, used = Block.parse(buffer), Block.parse(buffer)
        assert used.payloads == payloads
        assert fresh.payloads_from(index) == used.payloads_from(index) == payloads[index:]
        assert [bytes(view) for view in fresh.views_from(index)] == payloads[index:]


@pytest.mark.parametrize("payloads", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_the_callers_buffer_gets_the_same_bytes(payloads: list[bytes], compression: str) -> None:
    asked: list[int] = []
    memory = memoryview(bytearray(b"\xee" * 400_000))

    def allocate(size_bytes: int) -> memoryview:
        asked.append(size_bytes)
        return memory

    draft = draft_of(payloads)
    block = pack(draft, **FIELDS, compression=compression, allocate=allocate)
    assert bytes(block.buffer) == bytes(packed(draft, compression=compression).buffer)
    assert asked == [len(block.buffer)]
    assert block.buffer.obj is memory.obj
    assert set(memory[len(block.buffer) :]) == {0xEE}


def test_no_buffer_to_be_had_is_no_harm() -> None:
    for compression in ("none", "zstd"):
        draft = draft_of([b"x" * 1000])
        block = pack(draft, **FIELDS, compression=compression, allocate=lambda _: None)
        assert Block.parse(block.buffer).payloads == [b"x" * 1000]


def test_payloads_may_be_any_buffer_of_bytes() -> None:
    draft = draft_of([])
    draft.payloads = [bytearray(b"ab"), memoryview(b"xcdx")[1:3], memoryview(bytes(20_000))]
    draft.payload_bytes = 20_004
    expected = [b"ab", b"cd", bytes(20_000)]
    assert Block.parse(pack(draft, **FIELDS).buffer).payloads == expected
    in_place = pack(draft, **FIELDS, allocate=lambda size: memoryview(bytearray(size)))
    assert Block.parse(in_place.buffer).payloads == expected


def test_every_column_comes_back_and_facts_are_made_of_them() -> None:
    draft = full_draft()
    block = Block.parse(packed(draft).buffer)
    assert block.headers == draft.headers
    assert block.timestamps is not None
    assert (
        draft.timestamps == block.timestamps.tolist() == [block.timestamp_of(i) for i in range(4)]
    )
    assert (block.first_timestamp_us, block.last_timestamp_us) == (US, 2**62)
    assert list(block.batches) == draft.batches
    assert list(block.controls) == draft.controls
    batch = ProducerBatch(
        id="prodücer", epoch=3, sequence=17, seq=1000, count=2, timestamp_us=draft.timestamps[1]
    )
    assert block.facts() == BlockFacts(controls=tuple(draft.controls), batches=(batch,))


def test_columns_are_read_without_the_payloads_making_sense() -> None:
    data = bytearray(packed(full_draft()).buffer)
    data[codec.HEADER_BYTES : codec.HEADER_BYTES + 4] = b"\xff" * 4  # length of the first payload
    block = Block.parse(resign_block(data))
    assert list(block.batches) == full_draft().batches
    assert block.headers == full_draft().headers
    with pytest.raises(Corrupt, match="lengths"):
        _ = block.payloads


def test_a_plain_block_has_no_columns() -> None:
    block = Block.parse(packed(draft_of([b"a", b"b"])).buffer)
    assert block.headers is None
    assert block.timestamps is None
    assert (block.batches, block.controls, block.facts()) == ((), (), BlockFacts())
    assert block.timestamp_of(1) == block.last_timestamp_us == US
    assert len(block.buffer) == codec.HEADER_BYTES + 2 * 4 + 2


def test_the_header_says_whether_there_are_facts() -> None:
    plain, opaque, producer, control = (draft_of([b"a"]) for _ in range(4))
    opaque.batches = [BatchMark(first=0, count=1, column=b"x")]
    producer.batches = [BatchMark(first=0, count=1, producer="p", producer_epoch=1)]
    control.controls = [GrantProducer(id="p", epoch=1)]
    headers = [packed(draft).header for draft in (plain, opaque, producer, control)]
    assert [header.has_facts for header in headers] == [False, False, True, True]
    assert Block.parse(packed(opaque).buffer).facts() == BlockFacts()
    later = pack(plain, **FIELDS, facts_before=True).header
    assert (later.facts_before, later.has_facts) == (True, False)
    assert not any(header.facts_before for header in headers)


def test_a_pure_control_block() -> None:
    draft = Draft(9)
    draft.controls = [EndLog()]
    draft.timestamps = []
    block = Block.parse(packed(draft).buffer)
    assert (block.header.count, block.header.base_seq, block.header.end_seq) == (0, 9, 9)
    assert (block.payloads, block.controls) == ([], (EndLog(),))
    assert block.last_timestamp_us == US


def test_finding_a_time_inside() -> None:
    times = Block.parse(packed(_timestamps(5, 9)).buffer)
    assert [times.index_at(time) for time in (0, 5, 6, 9, 10)] == [0, 0, 1, 1, 2]
    plain = Block.parse(packed(draft_of([b"a", b"b"])).buffer)
    assert [plain.index_at(time) for time in (US - 1, US, US + 1)] == [0, 0, 2]


def test_the_packed_header_is_the_parsed_header() -> None:
    block = packed(full_draft(), number=4, prev=b"q" * 16, compression="zstd")
    assert parse_header(block.buffer) == block.header
    assert block.header.size_bytes == len(block.buffer)
    assert block.last_timestamp_us == Block.parse(block.buffer).last_timestamp_us
    assert verify_digest(block.buffer)
    assert not verify_digest(bytes(block.buffer)[:-1] + b"?")


def test_a_body_that_does_not_shrink_is_stored_as_it_is() -> None:
    noise = zlib.compress(bytes(range(256)) * 4)
    for compression in ("zstd", "lz4"):
        plain = packed(draft_of([noise]))
        assert bytes(packed(draft_of([noise]), compression=compression).buffer) == bytes(
            plain.buffer
        )


def test_what_was_read_outlives_a_changed_buffer() -> None:
    memory = bytearray(packed(draft_of([b"abc", b"defg", b"x" * 9000])).buffer)
    block = Block.parse(memory)
    assert block.payloads is block.payloads
    memory[:] = bytes(len(memory))
    assert block.payloads == [b"abc", b"defg", b"x" * 9000]


def test_the_largest_block() -> None:
    half = bytes(64 << 20)
    block = packed(draft_of([half, half]))
    assert block.header.raw_body_bytes == codec.MAX_BODY_BYTES + 8
    assert len(Block.parse(block.buffer).views_from(1)[0]) == len(half)


def _timestamps(*values: int) -> Draft:
    draft = draft_of([b"a", b"b"])
    draft.timestamps = list(values)
    return draft


def _headers() -> Draft:
    draft = draft_of([b"a", b"b"])
    draft.headers = [()]
    return draft


def _batch(**fields: Any) -> Draft:
    draft = draft_of([b"a", b"b"])
    draft.batches = [BatchMark(**{"first": 0, "count": 1} | fields)]
    return draft


def _control(control: Any) -> Draft:
    draft = draft_of([b"a"])
    draft.controls = [control]
    return draft


def _says(payloads: list[Any], payload_bytes: int) -> Draft:
    draft = draft_of([])
    draft.payloads, draft.payload_bytes = payloads, payload_bytes
    return draft


def _overlap() -> Draft:
    draft = draft_of([b"a", b"b"])
    draft.batches = [BatchMark(first=0, count=2), BatchMark(first=1, count=1)]
    return draft


WRONG_DRAFTS = {
    "too few timestamps": _timestamps(1),
    "negative timestamp": _timestamps(-1, 0),
    "timestamp no number": _timestamps("x", 0),  # type: ignore[arg-type]
    "timestamp beyond 63 bits": _timestamps(1 << 63, 1 << 63),
    "too few headers": _headers(),
    "batch beyond the end": _batch(first=1, count=2),
    "batch of nothing": _batch(count=0),
    "batches overlap": _overlap(),
    "long producer": _batch(producer="é" * 101),
    "producer no text": _batch(producer="\ud800"),
    "long column": _batch(column=bytes((64 << 10) + 1)),
    "negative sequence": _batch(sequence=-1),
    "epoch too large": _batch(producer_epoch=1 << 64),
    "long granted producer": _control(GrantProducer(id="x" * 201, epoch=1)),
    "granted epoch too large": _control(GrantProducer(id="x", epoch=1 << 64)),
    "too large": _says([], codec.MAX_BODY_BYTES + 1),
    "too many entries": _says([b""] * (codec.MAX_ENTRIES + 1), 0),
    "bytes miscounted": _says([b"abc"], 4),
    "not single bytes": _says([memoryview(array("I", [1, 2]))], 2),
    "not single bytes, counted": _says([memoryview(array("I", [1, 2]))], 8),
    "not single bytes, large": _says([memoryview(array("I", range(20_000)))], 20_000),
}


@pytest.mark.parametrize("draft", WRONG_DRAFTS.values(), ids=WRONG_DRAFTS)
@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("own", [True, False])
def test_a_draft_that_cannot_be_a_block_is_refused(
    draft: Draft, compression: str, own: bool
) -> None:
    def allocate(size_bytes: int) -> memoryview:
        return memoryview(bytearray(size_bytes))

    with pytest.raises(InvalidRequest):
        pack(draft, **FIELDS, compression=compression, allocate=None if own else allocate)


def test_columns_have_a_limit_of_their_own() -> None:
    draft = draft_of([b"a"] * 3)
    draft.headers = [((b"", bytes(45 << 20)),)] * 3
    with pytest.raises(InvalidRequest, match="columns"):
        packed(draft)


@pytest.mark.parametrize(
    "wrong",
    [
        {"log_id": "ab"},
        {"log_id": "xy" * 16},
        {"prev_digest": b"short"},
        {"segment_id": -1},
        {"segment_id": 1 << 63},
        {"epoch": 1 << 64},
        {"number": -1},
        {"base_timestamp_us": -1},
        {"lac": -2},
        {"compression": "gzip"},
    ],
    ids=str,
)
def test_fields_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        pack(draft_of([b"a"]), **FIELDS | wrong)


def test_a_seq_beyond_63_bits_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        pack(draft_of([b"a"], base_seq=(1 << 63) - 1), **FIELDS)


def test_errors_say_where() -> None:
    with pytest.raises(Corrupt, match=r"^some/key: ") as caught:
        Block.parse(b"x" * 200, where="some/key")
    assert caught.value.where == "some/key"


@pytest.mark.parametrize(("offset", "value"), [(40, 2), (42, 0x8000), (42, 0b11)])
def test_a_newer_format_is_named_as_such(offset: int, value: int) -> None:
    data = bytearray(packed(draft_of([b"a"])).buffer)
    struct.pack_into("<H", data, offset, value)
    with pytest.raises(InvalidRequest, match="newer version of Woodpecker"):
        Block.parse(resign_block(data))


def test_more_or_fewer_bytes_than_the_block_has_are_refused() -> None:
    data = bytes(packed(draft_of([b"abc"])).buffer)
    for wrong in (data + b"\0", data[:-1]):
        assert parse_header(wrong).count == 1
        with pytest.raises(Corrupt, match="bytes for a block"):
            Block.parse(wrong)
