"""The fixed header of a block: 128 bytes, two checksums, one link (docs/formats.md).

The header's own CRC lets a scan tell a block's beginning from other bytes and know its length before
its body is there. The digest (XXH3-128 of bytes 24 to the end as stored) is checksum and chain link at
once: the digest of the block before lies inside the range. Neither protects against a forger.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple
from zlib import crc32

from xxhash import xxh3_128_digest

from woodpecker.codec.compression import MASK, Buffer
from woodpecker.core.ids import NO_ENTRY
from woodpecker.errors import Corrupt, InvalidRequest

MAGIC = b"WPBLOCK\n"
VERSION = 1
HEADER_BYTES = 128
DIGEST_BYTES = 16
MAX_BODY_BYTES = 128 << 20  # of payloads, before compression
MAX_COLUMN_BYTES = 128 << 20  # of lengths and optional columns, before compression
MAX_ENTRIES = 4 << 20
MAX_BLOCK_BYTES = HEADER_BYTES + MAX_BODY_BYTES + MAX_COLUMN_BYTES

# flags; the two lowest bits are the code of the compression
HAS_TIMESTAMPS = 1 << 2
HAS_HEADERS = 1 << 3
HAS_BATCHES = 1 << 4
HAS_PRODUCERS = 1 << 5  # some batch has a producer: the register must see this block
HAS_CONTROLS = 1 << 6
FACTS_BEFORE = 1 << 7  # an earlier block of the segment changes the register: recovery looks back
KNOWN_FLAGS = (1 << 8) - 1

_DIGEST_AT, _CHAINED_AT, _CRC_AT = 8, 24, 124
_HEADER = struct.Struct("<8s16s16sHHI16sQQQQIIQqII")
_CRC = struct.Struct("<I")
_MAGIC_CRC = crc32(MAGIC)
_LIMIT = 1 << 63  # seqs, numbers and times stay below, so that they fit signed fields everywhere


class BlockHeader(NamedTuple):
    """Header of one block. ``lac`` is inclusive, -1 for none; ``body_bytes`` is as stored.

    A tuple, for one is made of every block wherever it passes.
    """

    log_id: str
    segment_id: int
    epoch: int
    number: int
    base_seq: int
    count: int  # type: ignore[assignment]  # hides ``tuple.count``, which nobody needs
    base_timestamp_us: int
    lac: int
    flags: int
    column_bytes: int
    body_bytes: int
    raw_body_bytes: int
    digest: bytes
    prev_digest: bytes

    @property
    def size_bytes(self) -> int:
        """Of the whole block as stored, without alignment padding."""
        return HEADER_BYTES + self.body_bytes

    @property
    def end_seq(self) -> int:
        """The seq after the block's last entry; ``base_seq`` if it has none."""
        return self.base_seq + self.count

    @property
    def has_facts(self) -> bool:
        """Whether the register changes by this block."""
        return bool(self.flags & (HAS_PRODUCERS | HAS_CONTROLS))

    @property
    def facts_before(self) -> bool:
        """Whether an earlier block of the segment changes the register."""
        return bool(self.flags & FACTS_BEFORE)

    @property
    def payloads_at(self) -> int:
        """Where in the decompressed body the payloads begin."""
        return 4 * self.count + self.column_bytes


def seal_header(
    buffer: memoryview,
    *,
    log_id: str,
    segment_id: int,
    epoch: int,
    number: int,
    base_seq: int,
    count: int,
    base_timestamp_us: int,
    lac: int,
    flags: int,
    column_bytes: int,
    raw_body_bytes: int,
    prev_digest: bytes,
) -> BlockHeader:
    """Write the header in front of the body that ``buffer`` holds already: the block is done.

    Raises:
        InvalidRequest: a number is out of range, or an id is not what it should be.
    """
    try:
        _HEADER.pack_into(
            buffer, 0, MAGIC, b"", _exactly_16(prev_digest), VERSION, flags, column_bytes,
            _exactly_16(bytes.fromhex(log_id)), segment_id, epoch, number, base_seq, count,
            len(buffer) - HEADER_BYTES, base_timestamp_us, lac, raw_body_bytes, 0,
        )  # fmt: skip
    except (struct.error, ValueError) as error:
        raise InvalidRequest(f"block {number} of segment {segment_id}: {error}") from error
    _CRC.pack_into(buffer, _CRC_AT, crc32(buffer[_CHAINED_AT:_CRC_AT], _MAGIC_CRC))
    buffer[_DIGEST_AT:_CHAINED_AT] = xxh3_128_digest(buffer[_CHAINED_AT:])
    header = _header(_HEADER.unpack_from(buffer))
    if not _is_sound(header):
        raise InvalidRequest(f"block {number} of segment {segment_id}: a number is out of range")
    return header


def parse_header(buf: Buffer, *, where: str = "block header") -> BlockHeader:
    """Check and decode the header at the beginning of ``buf``; the body is not looked at.

    Raises:
        Corrupt: too short, wrong magic or CRC, impossible lengths.
        InvalidRequest: sound, but written by a newer version of Woodpecker.
    """
    if len(buf) < HEADER_BYTES:
        raise Corrupt(f"{where}: {len(buf)} bytes are too few for a block header", where=where)
    view = memoryview(buf)[:HEADER_BYTES]
    if view[: len(MAGIC)] != MAGIC:
        raise Corrupt(f"{where}: no block begins here (wrong magic)", where=where)
    if crc32(view[_CHAINED_AT:_CRC_AT], _MAGIC_CRC) != _CRC.unpack_from(view, _CRC_AT)[0]:
        raise Corrupt(f"{where}: the block header fails its checksum", where=where)
    fields = _HEADER.unpack(view)
    version, flags = fields[3], fields[4]
    if version != VERSION or flags & ~KNOWN_FLAGS or flags & MASK == MASK:
        raise InvalidRequest(
            f"{where}: block format {version} with flags {flags:#x} was written by a newer version "
            "of Woodpecker; upgrade this one to read it"
        )
    header = _header(fields)
    if not _is_sound(header):
        raise Corrupt(f"{where}: the block header has impossible lengths or numbers", where=where)
    return header


def verify_digest(buf: Buffer) -> bool:
    """Whether the block that fills ``buf`` exactly has the digest its header states."""
    view = memoryview(buf)
    return bool(xxh3_128_digest(view[_CHAINED_AT:]) == view[_DIGEST_AT:_CHAINED_AT])


def _header(fields: tuple[Any, ...]) -> BlockHeader:
    """Header from its unpacked fields; magic, version and CRC are looked at by the caller."""
    (
        _, digest, prev_digest, _, flags, column_bytes, log_id, segment_id, epoch, number,
        base_seq, count, body_bytes, base_us, lac, raw_bytes, _,
    ) = fields  # fmt: skip
    return BlockHeader(
        log_id.hex(), segment_id, epoch, number, base_seq, count, base_us, lac, flags,
        column_bytes, body_bytes, raw_bytes, digest, prev_digest,
    )  # fmt: skip


def _is_sound(header: BlockHeader) -> bool:
    """Whether lengths fit one another and the limits, and numbers stay in range."""
    payload_bytes = header.raw_body_bytes - header.payloads_at
    if header.flags & MASK:
        body_fits = header.body_bytes < header.raw_body_bytes
    else:
        body_fits = header.body_bytes == header.raw_body_bytes
    numbers = (header.segment_id, header.epoch, header.number, header.end_seq)
    return (
        body_fits
        and header.count <= MAX_ENTRIES
        and header.payloads_at <= MAX_COLUMN_BYTES
        and 0 <= payload_bytes <= MAX_BODY_BYTES
        and max(*numbers, header.base_timestamp_us) < _LIMIT
        and header.lac >= NO_ENTRY
    )


def _exactly_16(value: bytes) -> bytes:
    if len(value) != DIGEST_BYTES:
        raise ValueError(f"an id or digest of {len(value)} bytes instead of {DIGEST_BYTES}")
    return value
