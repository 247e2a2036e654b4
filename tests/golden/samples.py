"""The values behind the golden files: one of each format, with every field and column in use.

Values never change once their file is checked in: a new case gets a new name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.golden import journal_sample, stream_samples

from woodpecker.codec import endmark, records
from woodpecker.codec.block import PackedBlock, pack
from woodpecker.codec.sealed import IndexBuilder, encode_tail
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import (
    Anchor,
    Claim,
    End,
    Ensemble,
    FilePlace,
    Manifest,
    Member,
    Options,
    PageRef,
    Sealed,
    Segment,
)
from woodpecker.core.membership import Load, NodeRecord, NodeState
from woodpecker.core.node_disk import DiskState
from woodpecker.core.register import (
    BatchResult,
    DropProducer,
    EndLog,
    GrantProducer,
    ProducerState,
    Register,
)
from woodpecker.streaming.codec.checkpoint import encode_checkpoint

LOG_ID = "0123456789abcdef" * 2
TOKEN = "fedcba9876543210" * 2
DIGEST = "00112233445566778899aabbccddeeff"


def draft_of(payloads: list[bytes], base_seq: int = 0) -> Draft:
    """A draft that holds ``payloads`` and nothing else."""
    draft = Draft(base_seq)
    draft.payloads = list(payloads)
    draft.payload_bytes = sum(map(len, payloads))
    return draft


def full_draft(base_seq: int = 1000) -> Draft:
    """A draft with every column."""
    draft = draft_of([b"first", b"", b"third " * 20, bytes(range(256))], base_seq)
    draft.headers = [(), ((b"k", b"v"), (b"k", b""), (b"", b"w")), (), ((b"trace", b"\x00\xff"),)]
    draft.timestamps = [1_700_000_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_007, 2**62]
    draft.batches = [
        BatchMark(
            first=0, count=2, producer="prodücer", producer_epoch=3, sequence=17, column=b"c\0"
        ),
        BatchMark(first=3, count=1, column=b"opaque"),
    ]
    draft.controls = [GrantProducer(id="a", epoch=2), DropProducer(id="b"), EndLog()]
    return draft


def packed(
    draft: Draft, *, number: int = 0, prev: bytes = bytes(16), compression: str = "none"
) -> PackedBlock:
    """A block of segment 7, epoch 3."""
    return pack(
        draft,
        log_id=LOG_ID,
        segment_id=7,
        epoch=3,
        number=number,
        prev_digest=prev,
        base_timestamp_us=1_700_000_000_000_000,
        lac=draft.base_seq - 1,
        compression=compression,
    )


def plain_blocks() -> list[PackedBlock]:
    """Three blocks in a chain; the second has no entry."""
    control = draft_of([], base_seq=2)
    control.controls = [GrantProducer(id="p", epoch=1)]
    blocks = [packed(draft_of([b"a", b"bc"]))]
    blocks.append(packed(control, number=1, prev=blocks[-1].header.digest))
    blocks.append(packed(draft_of([b"def"], base_seq=2), number=2, prev=blocks[-1].header.digest))
    return blocks


REGISTER = Register(
    ended=True,
    producers=(
        ("a", ProducerState(epoch=2)),
        (
            "prodücer",
            ProducerState(
                epoch=3,
                last_sequence=17,
                results=(
                    BatchResult(sequence=16, seq=900, count=5),
                    BatchResult(sequence=17, seq=1000, count=2),
                ),
                timestamp_us=1_700_000_000_000_000,
            ),
        ),
    ),
)


def sealed_object(*, padding: int = 0) -> bytes:
    """The blocks of ``plain_blocks`` sealed, each followed by ``padding`` zero bytes."""
    builder, data = IndexBuilder(), bytearray()
    blocks = plain_blocks()
    for block in blocks:
        builder.add(block.header, len(data))
        data += bytes(block.buffer) + bytes(padding)
    last_us = blocks[-1].last_timestamp_us
    tail = encode_tail(builder, REGISTER, last_timestamp_us=last_us, offset=len(data))
    return bytes(data + tail)


SEGMENT = Segment(
    id=7,
    kind=Kind.FILE,
    state=State.SEALED,
    epoch=3,
    token=TOKEN,
    base_seq=0,
    prev_digest=ZERO_DIGEST,
    storage=1,
    place=FilePlace(host="host", boot="boot", buffer="buffer"),
    end=End(block=2, seq=3, digest=DIGEST),
    sealed=Sealed(key="the/key", size=4096, checksum=DIGEST),
    bytes=1234,
    first_timestamp_us=1_700_000_000_000_000,
    last_timestamp_us=1_700_000_000_000_001,
    opened_at_ms=1_700_000_000_000,
    closed_at_ms=1_700_000_000_001,
)

OPEN_SEGMENT = Segment(
    id=8,
    kind=Kind.OBJECT,
    state=State.OPEN,
    epoch=4,
    token=TOKEN,
    base_seq=3,
    prev_digest=DIGEST,
)

PAGE_REF = PageRef(
    key="pages/key",
    level=1,
    first_segment=0,
    last_segment=6,
    base_seq=0,
    end_seq=3,
    bytes=99,
    last_timestamp_us=1_700_000_000_000_000,
    digest=DIGEST,
)

MANIFEST = Manifest(
    name="orders",
    log_id=LOG_ID,
    created_at_ms=1_700_000_000_000,
    nonce=TOKEN,
    epoch=4,
    token=TOKEN,
    claim=Claim(number=12, holder="node-1"),
    options=Options(mode=Kind.OBJECT, compression="zstd", retention_age_s=86_400),
    attributes={"owner": "Zoë"},
    storages=("", "s3://other/prefix"),
    storage=1,
    next_segment_id=9,
    next_seq=3,
    digest=DIGEST,
    timestamp_us=1_700_000_000_000_001,
    register=REGISTER,
    anchor=Anchor(first_segment=0, seq=0, digest=ZERO_DIGEST),
    trim_point=1,
    trim_pending=2,
    pages=(PAGE_REF,),
    segments=(SEGMENT, OPEN_SEGMENT),
)

QUORUM_MANIFEST = Manifest(
    name="trades",
    log_id=LOG_ID,
    created_at_ms=1_700_000_000_000,
    epoch=1,
    token=TOKEN,
    options=Options(
        mode=Kind.QUORUM,
        replicas=5,
        placement="multi-az-single-rg",
        affinity="hard",
        placement_zones="a,b,c",
        placement_groups="fast",
    ),
    next_segment_id=1,
    segments=(
        Segment(
            id=0,
            kind=Kind.QUORUM,
            state=State.OPEN,
            epoch=1,
            token=TOKEN,
            base_seq=0,
            prev_digest=ZERO_DIGEST,
            ensemble=Ensemble(
                members=(
                    Member(node="n1", incarnation=LOG_ID),
                    Member(node="n2", incarnation=TOKEN),
                ),
                acks=2,
            ),
        ),
    ),
)

COST_MANIFEST = Manifest(
    name="cheap",
    log_id=LOG_ID,
    created_at_ms=1_700_000_000_000,
    options=Options(linger_ms=5_000, max_cost_per_month=20),
)

NODE = NodeRecord(
    node="n1",
    boot=7,
    token=TOKEN,
    incarnation=LOG_ID,
    past=(DIGEST,),
    address="n1.example:7100",
    http="n1.example:7200",
    zone="a",
    group="fast",
    version="0.1.0",
    state=NodeState.DRAINING,
    is_up=False,
    beat=12345,
    load=Load(pressure=1, unsealed_segments=3, unsealed_bytes=123_456_789, is_safe=True),
    started_at_ms=1_700_000_000_000,
    beat_at_ms=1_700_000_000_001,
)

END_MARK = endmark.EndMark(log_id=LOG_ID, segment_id=7, epoch=3, token=TOKEN)
CURSOR = records.Cursor(
    position=42, generation=7, nonce=TOKEN, data=b"\x00opaque\xff", updated_at_ms=1_700_000_000_000
)
STORE_MARKER = records.StoreMarker(store_id=LOG_ID)
PAGE = (SEGMENT,)
UPPER_PAGE = (PAGE_REF,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden file: its name, how its bytes are made now, and the value they stand for."""

    file: str
    make: Callable[[], bytes]
    value: object


def _block(compression: str) -> Callable[[], bytes]:
    return lambda: bytes(
        packed(full_draft(), number=5, prev=b"p" * 16, compression=compression).buffer
    )


DISK = DiskState(
    node="node-1",
    incarnations=(LOG_ID, TOKEN),
    boot=9,
    scars=((3, 4096), (7, 88)),
    joints=((3, 120), (8, 999)),
    closed=(9, 8192, 1234),
)


def journal_block() -> bytes:
    """Block 5 of segment 7."""
    return bytes(packed(draft_of([b"journal", b""], base_seq=90), number=5, prev=b"p" * 16).buffer)


BINARY = [
    Golden(file="block-none.v1", make=_block("none"), value=full_draft()),
    Golden(file="block-zstd.v1", make=_block("zstd"), value=full_draft()),
    Golden(file="block-lz4.v1", make=_block("lz4"), value=full_draft()),
    Golden(file="sealed.v1", make=sealed_object, value=REGISTER),
    Golden(file="sealed-in-place.v1", make=lambda: sealed_object(padding=100), value=REGISTER),
    Golden(
        file="endmark.v1",
        make=lambda: endmark.encode(log_id=LOG_ID, segment_id=7, epoch=3, token=TOKEN),
        value=END_MARK,
    ),
    Golden(
        file="journal.v1",
        make=lambda: journal_sample.journal_file(journal_block(), 5, 7),
        value=journal_sample.expected(journal_block(), 5, 7),
    ),
    Golden(
        file="stream-columns.v1",
        make=stream_samples.encode_columns,
        value=stream_samples.COLUMNS,
    ),
    Golden(
        file="stream-checkpoint.v1",
        make=lambda: encode_checkpoint(stream_samples.FOLD),
        value=stream_samples.FOLD,
    ),
]

JSON = [
    Golden(file="manifest.v1.json", make=lambda: records.encode_manifest(MANIFEST), value=MANIFEST),
    Golden(file="page.v1.json", make=lambda: records.encode_page(PAGE), value=PAGE),
    Golden(
        file="upper-page.v1.json", make=lambda: records.encode_page(UPPER_PAGE), value=UPPER_PAGE
    ),
    Golden(file="register.v1.json", make=lambda: records.encode_register(REGISTER), value=REGISTER),
    Golden(file="cursor.v1.json", make=lambda: records.encode_cursor(CURSOR), value=CURSOR),
    Golden(
        file="store.v1.json",
        make=lambda: records.encode_store_marker(STORE_MARKER),
        value=STORE_MARKER,
    ),
    Golden(
        file="manifest-quorum.v1.json",
        make=lambda: records.encode_manifest(QUORUM_MANIFEST),
        value=QUORUM_MANIFEST,
    ),
    Golden(
        file="manifest-cost.v2.json",
        make=lambda: records.encode_manifest(COST_MANIFEST),
        value=COST_MANIFEST,
    ),
    Golden(file="node.v1.json", make=lambda: records.encode_node(NODE), value=NODE),
    Golden(file="disk.v1.json", make=lambda: records.encode_disk(DISK), value=DISK),
]
