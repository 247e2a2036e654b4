"""End marks: the small object that ends every segment of kind object (log protocol, section 5).

A mark has one fixed size, smaller than any block, so a listing tells marks from blocks by size alone.
It says who put it, and decides nothing by itself: the manifest does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

from woodpecker.codec.compression import Buffer
from woodpecker.errors import Corrupt, InvalidRequest

END_MARK_BYTES = 96
MAGIC = b"WPENDMK\n"
VERSION = 1

_MARK = struct.Struct("<8sH6x16sQQ16s28xI")
_CRC_AT = END_MARK_BYTES - 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EndMark:
    """Who ended which segment. ``token`` (32 hex digits) tells two of one epoch apart."""

    log_id: str
    segment_id: int
    epoch: int
    token: str


def encode(*, log_id: str, segment_id: int, epoch: int, token: str) -> bytes:
    """Bytes of a mark. Raises: InvalidRequest."""
    try:
        ids = bytes.fromhex(log_id), bytes.fromhex(token)
        if any(len(value) != 16 for value in ids):
            raise ValueError("log id and token must have 32 hex digits")
        data = _MARK.pack(MAGIC, VERSION, ids[0], segment_id, epoch, ids[1], 0)
    except (struct.error, ValueError) as error:
        raise InvalidRequest(f"end mark of segment {segment_id}: {error}") from error
    return data[:_CRC_AT] + struct.pack("<I", crc32(data[:_CRC_AT]))


def parse(data: Buffer, *, where: str = "end mark") -> EndMark:
    """Check and decode a mark.

    Raises:
        Corrupt: not the bytes of a mark. InvalidRequest: written by a newer version of Woodpecker.
    """
    view = memoryview(data)
    if len(view) != END_MARK_BYTES or view[:8] != MAGIC:
        raise Corrupt(f"{where}: this is no end mark", where=where)
    _, version, log_id, segment_id, epoch, token, crc = _MARK.unpack(view)
    if crc != crc32(view[:_CRC_AT]):
        raise Corrupt(f"{where}: the end mark fails its checksum", where=where)
    if version != VERSION:
        raise InvalidRequest(
            f"{where}: end mark format {version} was written by a newer version of Woodpecker; "
            "upgrade this one to read it"
        )
    return EndMark(log_id=log_id.hex(), segment_id=segment_id, epoch=epoch, token=token.hex())


def is_mark_size(size_bytes: int) -> bool:
    """Whether an object of this size is an end mark: no block is this small."""
    return size_bytes == END_MARK_BYTES
