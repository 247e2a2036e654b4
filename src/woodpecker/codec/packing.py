"""Packing a draft into a block: no Python loop over small entries, every payload copied once or twice.

Small payloads are joined; large ones are copied one by one into the buffer the caller hands out.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from woodpecker.codec import columns
from woodpecker.codec.compression import Buffer, code_of, compress
from woodpecker.codec.header import (
    FACTS_BEFORE,
    HAS_BATCHES,
    HAS_CONTROLS,
    HAS_HEADERS,
    HAS_PRODUCERS,
    HAS_TIMESTAMPS,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_COLUMN_BYTES,
    MAX_ENTRIES,
    BlockHeader,
    seal_header,
)
from woodpecker.core.batcher import Draft
from woodpecker.errors import InvalidRequest

_COPY_ONCE_BYTES = 8 << 10  # mean payload from which copying each beats join and copy

Allocate = Callable[[int], memoryview | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """A block ready to be written: ``buffer`` is exactly its bytes, read-only: it never changes again.

    So a store may send it without a copy, even after the request was cancelled.
    """

    header: BlockHeader
    buffer: memoryview
    last_timestamp_us: int


def pack(
    draft: Draft,
    *,
    log_id: str,
    segment_id: int,
    epoch: int,
    number: int,
    prev_digest: bytes,
    base_timestamp_us: int,
    lac: int,
    compression: str = "none",
    facts_before: bool = False,
    allocate: Allocate | None = None,
) -> PackedBlock:
    """Turn a draft into a block.

    Args:
        draft: payloads are buffers of single bytes; not changed.
        prev_digest: 16 bytes, of the block before (of the log's anchor for the first).
        base_timestamp_us: time of all entries; if the draft has timestamps, its first one is taken.
        compression: "none", "zstd" or "lz4"; a body that does not shrink is stored as it is.
        facts_before: whether an earlier block of this segment changes the register.
        allocate: asked once for a buffer of the block's size; None from it: one is made here.
    Raises:
        InvalidRequest: above a limit of this format, or a field out of range.
    """
    parts, flags = _columns(draft)
    flags |= FACTS_BEFORE if facts_before else 0
    column_bytes = sum(map(len, parts))
    _check_limits(draft, 4 * draft.count + column_bytes)
    lengths = array("I", map(len, draft.payloads))
    _check_bytes("payloads", sum(lengths), draft.payload_bytes)
    raw_bytes = 4 * draft.count + column_bytes + draft.payload_bytes
    code = code_of(compression)
    buffer = None
    if code:
        buffer = _fill_compressed(code, [lengths, *parts, *draft.payloads], raw_bytes, allocate)
        flags |= code if buffer is not None else 0
    if buffer is None:
        buffer = _fill(draft, [lengths, *parts], raw_bytes, allocate)
    timestamps = draft.timestamps
    first_us = timestamps[0] if timestamps else base_timestamp_us
    header = seal_header(
        buffer,
        log_id=log_id,
        segment_id=segment_id,
        epoch=epoch,
        number=number,
        base_seq=draft.base_seq,
        count=draft.count,
        base_timestamp_us=first_us,
        lac=lac,
        flags=flags,
        column_bytes=column_bytes,
        raw_body_bytes=raw_bytes,
        prev_digest=prev_digest,
    )
    last_us = timestamps[-1] if timestamps else first_us
    return PackedBlock(header=header, buffer=buffer.toreadonly(), last_timestamp_us=last_us)


def _columns(draft: Draft) -> tuple[list[bytes], int]:
    """Optional columns in their fixed order, and the flags that say which are there."""
    parts: list[bytes] = []
    flags = 0
    if draft.timestamps is not None:
        parts.append(columns.encode_timestamps(draft.timestamps, draft.count))
        flags |= HAS_TIMESTAMPS
    if draft.headers is not None:
        parts.append(columns.encode_headers(draft.headers, draft.count))
        flags |= HAS_HEADERS
    if draft.batches:
        parts.append(columns.encode_batches(draft.batches, draft.count))
        flags |= HAS_BATCHES
        flags |= HAS_PRODUCERS if any(batch.producer for batch in draft.batches) else 0
    if draft.controls:
        parts.append(columns.encode_controls(draft.controls))
        flags |= HAS_CONTROLS
    return parts, flags


def _check_limits(draft: Draft, column_bytes: int) -> None:
    if draft.count > MAX_ENTRIES:
        raise InvalidRequest(f"a block of {draft.count} entries: at most {MAX_ENTRIES} are allowed")
    if draft.payload_bytes > MAX_BODY_BYTES:
        raise InvalidRequest(
            f"a block of {draft.payload_bytes} bytes: at most {MAX_BODY_BYTES} are allowed"
        )
    if column_bytes > MAX_COLUMN_BYTES:
        raise InvalidRequest(
            f"headers and other columns of {column_bytes} bytes in one block: "
            f"at most {MAX_COLUMN_BYTES} are allowed"
        )


def _fill(
    draft: Draft, front: list[Buffer | array[int]], raw_bytes: int, allocate: Allocate | None
) -> memoryview:
    """Body as it is, in the caller's buffer or one of our own; the header is left to be written."""
    buffer = allocate(HEADER_BYTES + raw_bytes) if allocate else None
    if buffer is None:
        buffer = memoryview(bytearray().join([bytes(HEADER_BYTES), *front, *draft.payloads]))
        _check_bytes("body", len(buffer) - HEADER_BYTES, raw_bytes)
        return buffer
    buffer = buffer[: HEADER_BYTES + raw_bytes]
    if draft.payload_bytes < _COPY_ONCE_BYTES * draft.count:
        body = b"".join([*front, *draft.payloads])
        _check_bytes("body", len(body), raw_bytes)
        buffer[HEADER_BYTES:] = body
        return buffer
    pos = HEADER_BYTES
    for part in (b"".join(front), *draft.payloads):
        flat = memoryview(part).cast("B")
        end = pos + len(part)
        _check_bytes("payload", flat.nbytes, len(part))
        buffer[pos:end] = flat
        pos = end
    return buffer


def _fill_compressed(
    code: int, parts: list[Buffer | array[int]], raw_bytes: int, allocate: Allocate | None
) -> memoryview | None:
    """Compressed body behind room for the header; None if it did not shrink."""
    raw = b"".join(parts)
    _check_bytes("body", len(raw), raw_bytes)
    body = compress(code, raw)
    if len(body) >= raw_bytes:
        return None
    size_bytes = HEADER_BYTES + len(body)
    buffer = allocate(size_bytes) if allocate else None
    if buffer is None:
        buffer = memoryview(bytearray(size_bytes))
    buffer[HEADER_BYTES:size_bytes] = body
    return buffer[:size_bytes]


def _check_bytes(what: str, actual: int, expected: int) -> None:
    """Lengths that disagree would make a block nobody can read: better no block."""
    if actual != expected:
        raise InvalidRequest(
            f"the {what} of a draft should have {expected} bytes but have {actual}: "
            "a payload must be a buffer of single bytes that does not change"
        )
