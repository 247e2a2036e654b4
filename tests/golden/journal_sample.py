"""A journal file of a LogStore node with one record of each kind, in two groups."""

from __future__ import annotations

from typing import Any

from woodpecker.codec.journal import (
    BLOCK_KINDS,
    RECORD_BYTES,
    UNIT_BYTES,
    FileHeader,
    Kind,
    RecordHeader,
    aligned,
    begin_group,
    decode_copy,
    decode_fence,
    encode_copy,
    encode_fence,
    encode_file_header,
    item_digest,
    padded,
    parse_file_header,
    put_record,
    seed_of,
)
from woodpecker.codec.journal_walk import Ask, walk
from woodpecker.core.replica import FenceMark, Replica

LOG_ID = HOME = "0123456789abcdef" * 2
CURRENT = "fedcba9876543210" * 2
EPOCH = 3
HEADER = FileHeader(
    node="node-1", home=HOME, incarnation=CURRENT, era=1, number=42, size_bytes=6 * UNIT_BYTES,
    first_record=1000,
)  # fmt: skip
FENCE = FenceMark(epoch=4, token=CURRENT, reason="another writer took over")
COPY = Replica(
    incarnation=HOME, epoch=EPOCH, fence=FENCE, is_fence_synced=True, end=17, lac=12, is_unsure=True
)  # fmt: skip

Sample = list[tuple[Kind, dict[str, Any], bytes]]


def journal_file(block: bytes, number: int, segment_id: int) -> bytes:
    """The file: ``block`` is block ``number`` of that segment, in epoch 3."""
    data = bytearray(HEADER.size_bytes)
    data[:UNIT_BYTES] = encode_file_header(HEADER)
    at, record = UNIT_BYTES, HEADER.first_record
    for group in _groups(block, number, segment_id):
        begin = at
        for kind, fields, payload in group:
            digest = bytes(16) if kind in BLOCK_KINDS else item_digest(payload)
            put_record(
                memoryview(data), at, seed_of(HOME, HEADER.number), kind, record, len(payload),
                log_id=bytes.fromhex(LOG_ID if kind is not Kind.CHECKPOINT else "00" * 16),
                digest=digest, **fields,
            )  # fmt: skip
            data[at + RECORD_BYTES : at + RECORD_BYTES + len(payload)] = payload
            at += aligned(RECORD_BYTES + len(payload))
            record += 1
        at = padded(at)
        units = (at - begin) // UNIT_BYTES
        begin_group(memoryview(data), begin, seed_of(HOME, HEADER.number), units)
    return bytes(data)


def _groups(block: bytes, number: int, segment_id: int) -> list[Sample]:
    copy = {"segment_id": segment_id, "epoch": EPOCH}
    return [
        [
            (Kind.NAME, {}, b"orders"),
            (Kind.FLOOR, {"segment_id": 5}, b""),
            (Kind.COPY, copy | {"era": 0, "block": 17}, encode_copy(COPY)),
            (Kind.CHECKPOINT, {"segment_id": 42}, b""),
        ],
        [
            (kind, copy | {"era": 1, "block": number}, block)
            for kind in (Kind.BLOCK, Kind.REPAIRED, Kind.MOVED)
        ]
        + [
            (Kind.FENCE, copy | {"era": 1}, encode_fence(FENCE)),
            (Kind.END, copy | {"era": 1, "block": 17}, b""),
        ],
    ]


def read_journal(data: bytes) -> list[object]:
    """What it says: header, then kind and content of each record."""
    steps = walk(len(data), seed_of(HOME, 42), 1000, limit=None, is_last=True)
    said: list[object] = [parse_file_header(data, where="golden")]
    answer = memoryview(b"")
    try:
        step = next(steps)
        while True:
            if isinstance(step, Ask):
                answer = memoryview(data)[step.offset : step.offset + step.size_bytes]
            else:
                assert step.is_sound
                content = _content(step.header, step.payload)
                said.append((step.header.kind, _place(step.header), content))
            step = steps.send(answer)
    except StopIteration as stop:
        return [*said, stop.value.scars]


def expected(block: bytes, number: int, segment_id: int) -> list[object]:
    """As ``read_journal`` must find it."""
    said: list[object] = [HEADER]
    for kind, fields, payload in (
        record for group in _groups(block, number, segment_id) for record in group
    ):
        content: object = {Kind.COPY: COPY, Kind.FENCE: FENCE}.get(kind, payload)
        place = tuple(fields.get(name, default) for name, default in
                      (("segment_id", 0), ("epoch", 0), ("block", -1), ("era", 0)))  # fmt: skip
        said.append((kind, place, content))
    return [*said, ()]


def _place(header: RecordHeader) -> tuple[int, ...]:
    return header.segment_id, header.epoch, header.block, header.era


def _content(header: RecordHeader, payload: memoryview) -> object:
    if header.kind is Kind.COPY:
        return decode_copy(payload, incarnation=HOME, epoch=header.epoch, where="golden")
    if header.kind is Kind.FENCE:
        return decode_fence(payload, where="golden")
    return bytes(payload)
