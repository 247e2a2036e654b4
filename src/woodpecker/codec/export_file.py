"""Export files: one log as one portable file (docs/formats.md).

    magic, then frames: type (4 bytes), length of the payload (u64), payload.

    HEAD  manifest record: name, options, attributes, anchor; no segments
    REGI  register record: its value at the anchor
    SEGM  page record with one segment: its end, times and size; its blocks follow
    BLCK  one block, as written
    OBJC  object of a layer above: length of the name (u16), name, data
    CURS  cursor: length of the name (u16), name, cursor record
    LAST  register record: its value at the end
    TAIL  XXH3-128 of all bytes before this frame, manifest record with the totals; nothing follows

Blocks name their log and are chained: an import, which makes a new log, gives every block the new id
and links it anew (``rebase``); its body, seqs and numbers stay.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from woodpecker.codec.block import Block
from woodpecker.codec.checksum import Checksum
from woodpecker.codec.compression import Buffer
from woodpecker.codec.header import HEADER_BYTES, MAX_BLOCK_BYTES, seal_header
from woodpecker.codec.records import (
    MAX_RECORD_BYTES,
    MAX_REGISTER_BYTES,
    decode_manifest,
    encode_manifest,
)
from woodpecker.core.manifest import Anchor, Manifest
from woodpecker.core.register import EMPTY_REGISTER
from woodpecker.errors import Corrupt, InvalidRequest

MAGIC = b"WPEXPORT 1\n"
HEAD, REGISTER, SEGMENT, BLOCK = b"HEAD", b"REGI", b"SEGM", b"BLCK"
OBJECT, CURSOR, LAST, TAIL = b"OBJC", b"CURS", b"LAST", b"TAIL"
FRAME_BYTES = 12
DIGEST_BYTES = 16
MAX_OBJECT_BYTES = 1 << 30

_FRAME = struct.Struct("<4sQ")
_NAME = struct.Struct("<H")
_LIMITS = {
    HEAD: MAX_RECORD_BYTES,
    REGISTER: MAX_REGISTER_BYTES,
    SEGMENT: MAX_RECORD_BYTES,
    BLOCK: MAX_BLOCK_BYTES,
    OBJECT: MAX_OBJECT_BYTES,
    CURSOR: MAX_RECORD_BYTES,
    LAST: MAX_REGISTER_BYTES,
    TAIL: MAX_RECORD_BYTES,
}


def frame(kind: bytes, size_bytes: int) -> bytes:
    """Front of a frame. Raises: InvalidRequest: too large a payload."""
    if size_bytes > _LIMITS[kind]:
        raise InvalidRequest(
            f"{size_bytes} bytes in one {kind.decode()} frame of an export file: at most "
            f"{_LIMITS[kind]} are allowed"
        )
    return _FRAME.pack(kind, size_bytes)


def parse_frame(data: Buffer, *, where: str) -> tuple[bytes, int]:
    """Type and payload length. Raises: Corrupt."""
    if len(data) != FRAME_BYTES:
        raise Corrupt(f"{where}: the export file ends too early", where=where)
    kind, size = _FRAME.unpack(data)
    if kind not in _LIMITS or size > _LIMITS[kind]:
        raise Corrupt(f"{where}: no frame of an export file begins here", where=where)
    return kind, size


def pack_named(name: str, data: Buffer) -> bytes:
    """Payload of OBJC and CURS."""
    encoded = name.encode()
    return b"".join([_NAME.pack(len(encoded)), encoded, data])


def unpack_named(data: Buffer, *, where: str) -> tuple[str, memoryview]:
    """Name and data of OBJC and CURS. Raises: Corrupt."""
    view = memoryview(data)
    if len(view) < _NAME.size:
        raise Corrupt(f"{where}: too short for a name", where=where)
    end = _NAME.size + _NAME.unpack_from(view)[0]
    try:
        name = bytes(view[_NAME.size : end]).decode("ascii")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{where}: a name that is not ASCII", where=where) from error
    if end > len(view) or not name:
        raise Corrupt(f"{where}: the name does not fit its frame", where=where)
    return name, view[end:]


def encode_head(manifest: Manifest, anchor: Anchor) -> bytes:
    """The HEAD record: what describes the log, before its segments."""
    plain = replace(anchor, register=EMPTY_REGISTER, register_key=None)
    return encode_manifest(_bare(manifest, plain))


def encode_tail(manifest: Manifest, anchor: Anchor, checksum: Checksum) -> bytes:
    """The TAIL payload. ``manifest`` holds next_seq, digest, timestamp and end state at the end."""
    return checksum.bytes + encode_head(manifest, anchor)


def parse_tail(data: Buffer, checksum: bytes, *, where: str) -> Manifest:
    """Check the whole file's checksum; decode the totals. Raises: Corrupt."""
    view = memoryview(data)
    if bytes(view[:DIGEST_BYTES]) != checksum:
        raise Corrupt(f"{where}: the export file fails its checksum", where=where)
    return decode_manifest(view[DIGEST_BYTES:], where=where)


def _bare(manifest: Manifest, anchor: Anchor) -> Manifest:
    """Without anything that has a meaning only where the log is."""
    return Manifest(
        name=manifest.name,
        log_id=manifest.log_id,
        created_at_ms=manifest.created_at_ms,
        epoch=manifest.epoch,
        options=manifest.options,
        attributes=manifest.attributes,
        next_segment_id=manifest.next_segment_id,
        next_seq=manifest.next_seq,
        digest=manifest.digest,
        timestamp_us=manifest.timestamp_us,
        anchor=anchor,
        trim_point=manifest.trim_point,
        ended=manifest.ended,
        losses=manifest.losses,
    )


def rebase(block: Block, log_id: str, prev_digest: bytes) -> Block:
    """The block as one of another log, linked to ``prev_digest``. One copy of its bytes."""
    header = block.header
    buffer = memoryview(bytearray(block.buffer))
    fresh = seal_header(
        buffer,
        log_id=log_id,
        segment_id=header.segment_id,
        epoch=header.epoch,
        number=header.number,
        base_seq=header.base_seq,
        count=header.count,
        base_timestamp_us=header.base_timestamp_us,
        lac=header.lac,
        flags=header.flags,
        column_bytes=header.column_bytes,
        raw_body_bytes=header.raw_body_bytes,
        prev_digest=prev_digest,
    )
    assert len(buffer) == HEADER_BYTES + fresh.body_bytes
    return Block(fresh, buffer.toreadonly(), block.where)
