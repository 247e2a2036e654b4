"""Bytes of a LogStore node's journal: file headers, groups of records, records (docs/formats.md).

A file is a header of one unit, then groups. A group is what one write and one sync make durable: it
begins on a unit of its own, and its first record tells its size. Records lie one behind the other; where
the rest of a unit is left over, it is zero.

The CRC of a record's header is seeded with disk and file number, so that a record of another file, or a
journal kept as somebody's payload, is none. The payload of a block is guarded by the block's own digest,
every other one by the digest in the record's header: a record whose payload is damaged can still tell
what it was about.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

import msgspec
from xxhash import xxh3_128_digest

from woodpecker.codec.compression import Buffer
from woodpecker.codec.header import HEADER_BYTES as BLOCK_HEADER_BYTES
from woodpecker.codec.header import MAX_BLOCK_BYTES
from woodpecker.core.ids import MAX_NAME_CHARS, NO_BLOCK
from woodpecker.core.replica import FenceMark, Replica
from woodpecker.errors import Corrupt, InvalidRequest

UNIT_BYTES = 4096
RECORD_BYTES = 88  # of a record's header
ALIGN_BYTES = 8  # of a record
MAX_ITEM_BYTES = 64 << 10  # payload of a record that is no block
MAX_REASON_CHARS = 1000
VERSION = 1

FILE_MAGIC = b"WPJOURN\n"
RECORD_MAGIC = b"WPR1"
NO_DIGEST = bytes(16)
NO_LOG = bytes(16)

_FILE = struct.Struct("<8sHHI16s16sQQQ200sI")
_FILE_CRC_AT = _FILE.size - 4
_RECORD = struct.Struct("<4sBBHQIII16sQQq16sI")
_CRC_AT = RECORD_BYTES - 4
_GROUP_AT = 16
_U32 = struct.Struct("<I")
_LIMIT = 1 << 63


class Kind(IntEnum):
    """What a record says. The first three carry a block."""

    BLOCK = 1  # of the segment's writer
    REPAIRED = 2  # of a recoverer
    MOVED = 3  # the same block again, so that the file it was in can go
    FENCE = 4
    FLOOR = 5  # ``segment_id``: copies below are forgotten for ever
    END = 6  # ``block``: last block of the segment, as its manifest says
    NAME = 7  # of the log
    COPY = 8  # all that is to be known of a copy, but for its blocks; ``block``: its last
    CHECKPOINT = 9  # all that stands was said again since the head of file ``segment_id``


BLOCK_KINDS = frozenset({Kind.BLOCK, Kind.REPAIRED, Kind.MOVED})
_KINDS = frozenset(Kind)
_BARE = frozenset({Kind.FLOOR, Kind.END, Kind.CHECKPOINT})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """Head of a journal file. ``first_record``: number of its first record."""

    node: str
    home: str  # first incarnation of this disk, 32 hex digits
    incarnation: str  # current one
    era: int  # its place among all incarnations of this disk: 0 is ``home``
    number: int
    size_bytes: int
    first_record: int


class RecordHeader(NamedTuple):
    """Header of one record; ``group_units`` is 0 but for the first record of a group."""

    kind: Kind
    number: int
    group_units: int
    payload_bytes: int
    era: int  # which incarnation of the node a copy is of
    log_id: str
    segment_id: int
    epoch: int  # of the segment
    block: int
    digest: bytes

    @property
    def size_bytes(self) -> int:
        """Of the whole record, without what aligns the next one."""
        return RECORD_BYTES + self.payload_bytes


def seed_of(home: str, file_number: int) -> int:
    """What the CRCs of a file's records begin with."""
    return crc32(file_number.to_bytes(8, "little"), crc32(bytes.fromhex(home)))


def padded(size_bytes: int) -> int:
    """Rounded up to whole units."""
    return -(-size_bytes // UNIT_BYTES) * UNIT_BYTES


def aligned(size_bytes: int) -> int:
    """Rounded up to where the next record may begin."""
    return -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES


# --- file headers ---


def encode_file_header(header: FileHeader) -> bytes:
    """One unit. Raises: InvalidRequest: a field does not fit."""
    name = header.node.encode()
    try:
        if len(name) > MAX_NAME_CHARS:
            raise ValueError(f"the node's name has {len(name)} bytes")
        fields = _FILE.pack(
            FILE_MAGIC, VERSION, len(name), header.era, _exactly_16(header.home),
            _exactly_16(header.incarnation), header.number, header.first_record,
            header.size_bytes, name, 0,
        )  # fmt: skip
    except (struct.error, ValueError) as error:
        raise InvalidRequest(f"journal file {header.number}: {error}") from error
    covered = fields[:_FILE_CRC_AT]
    return (covered + _U32.pack(crc32(covered))).ljust(UNIT_BYTES, b"\0")


def parse_file_header(unit: Buffer, *, where: str) -> FileHeader:
    """Check and decode. Raises: Corrupt. InvalidRequest: written by a newer version of Woodpecker."""
    view = memoryview(unit)[: _FILE.size]
    if len(view) < _FILE.size or view[: len(FILE_MAGIC)] != FILE_MAGIC:
        raise Corrupt(f"{where}: no journal file begins here", where=where)
    (_, version, name_bytes, era, home, incarnation, number, first, size, name, crc) = _FILE.unpack(
        view
    )
    if crc != crc32(view[:_FILE_CRC_AT]):
        raise Corrupt(f"{where}: the file header fails its checksum", where=where)
    if version != VERSION:
        raise InvalidRequest(
            f"{where}: journal format {version} was written by a newer version of Woodpecker; "
            "upgrade this one to read it"
        )
    try:
        node = name[:name_bytes].decode()
    except UnicodeDecodeError as error:
        raise Corrupt(f"{where}: the node's name is no text", where=where) from error
    return FileHeader(
        node=node, home=home.hex(), incarnation=incarnation.hex(), era=era, number=number,
        size_bytes=size, first_record=first,
    )  # fmt: skip


# --- records ---


def put_record(
    buffer: memoryview, at: int, seed: int, kind: Kind, number: int, payload_bytes: int, *,
    era: int = 0, log_id: bytes = NO_LOG, segment_id: int = 0, epoch: int = 0,
    block: int = NO_BLOCK, digest: bytes = NO_DIGEST,
) -> None:  # fmt: skip
    """Write a record's header at ``at``; not the first of its group (``begin_group`` makes it so)."""
    _RECORD.pack_into(
        buffer, at, RECORD_MAGIC, kind, 0, 0, number, 0, payload_bytes, era, log_id, segment_id,
        epoch, block, digest, 0,
    )  # fmt: skip
    _U32.pack_into(buffer, at + _CRC_AT, crc32(buffer[at : at + _CRC_AT], seed))


def begin_group(buffer: memoryview, at: int, seed: int, units: int) -> None:
    """Make the record at ``at`` the first of a group of so many units."""
    _U32.pack_into(buffer, at + _GROUP_AT, units)
    _U32.pack_into(buffer, at + _CRC_AT, crc32(buffer[at : at + _CRC_AT], seed))


def parse_record(buf: Buffer, seed: int, at: int = 0) -> RecordHeader | None:
    """The header of the record at ``at``; None: no record of this file begins there."""
    view = memoryview(buf)[at : at + RECORD_BYTES]
    if len(view) < RECORD_BYTES or view[:4] != RECORD_MAGIC:
        return None
    if crc32(view[:_CRC_AT], seed) != _U32.unpack_from(view, _CRC_AT)[0]:
        return None
    (
        _, kind, flags, _, number, units, payload_bytes, era, log_id, segment_id, epoch, block,
        digest, _,
    ) = _RECORD.unpack(view)  # fmt: skip
    if kind not in _KINDS or flags or max(number, segment_id, epoch) >= _LIMIT or block < NO_BLOCK:
        return None
    header = RecordHeader(
        Kind(kind), number, units, payload_bytes, era, log_id.hex(), segment_id, epoch, block,
        digest,
    )  # fmt: skip
    return header if _fits(header) else None


def _fits(header: RecordHeader) -> bool:
    size = header.payload_bytes
    if header.kind in BLOCK_KINDS:
        return BLOCK_HEADER_BYTES <= size <= MAX_BLOCK_BYTES and header.block != NO_BLOCK
    return size == 0 if header.kind in _BARE else size <= MAX_ITEM_BYTES


def item_digest(payload: Buffer) -> bytes:
    """What guards the payload of a record that carries no block."""
    return xxh3_128_digest(payload) if len(payload) else NO_DIGEST


def is_sound(header: RecordHeader, payload: Buffer) -> bool:
    """Whether the payload of a record that carries no block is what was written."""
    return len(payload) == header.payload_bytes and item_digest(payload) == header.digest


# --- payloads of records without a block ---


class _Fence(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    token: str
    reason: str

    def mark(self) -> FenceMark:
        return FenceMark(epoch=self.epoch, token=self.token, reason=self.reason)


class _Copy(msgspec.Struct, frozen=True, array_like=True):
    fence: _Fence | None
    end: int | None
    is_unsure: bool
    lac: int


_encode = msgspec.msgpack.Encoder().encode
_decode_fence = msgspec.msgpack.Decoder(_Fence).decode
_decode_copy = msgspec.msgpack.Decoder(_Copy).decode


def encode_fence(mark: FenceMark) -> bytes:
    """Payload of a FENCE record."""
    return _encode(_fence(mark))


def decode_fence(payload: Buffer, *, where: str) -> FenceMark:
    """Undo ``encode_fence``. Raises: Corrupt."""
    try:
        return _decode_fence(payload).mark()
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{where}: no fence: {error}", where=where) from error


def encode_copy(replica: Replica) -> bytes:
    """Payload of a COPY record: state of a copy, but for its blocks and what its header says."""
    fence = None if replica.fence is None else _fence(replica.fence)
    return _encode(_Copy(fence, replica.end, replica.is_unsure, replica.lac))


def decode_copy(payload: Buffer, *, incarnation: str, epoch: int, where: str) -> Replica:
    """The copy as it was, without blocks, everything synced. Raises: Corrupt."""
    try:
        item = _decode_copy(payload)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{where}: no copy: {error}", where=where) from error
    return Replica(
        incarnation=incarnation,
        epoch=epoch,
        fence=None if item.fence is None else item.fence.mark(),
        is_fence_synced=item.fence is not None,
        end=item.end,
        lac=item.lac,
        is_unsure=item.is_unsure,
    )


def _fence(mark: FenceMark) -> _Fence:
    return _Fence(mark.epoch, mark.token, mark.reason[:MAX_REASON_CHARS])


def _exactly_16(text: str) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != 16:
        raise ValueError(f"{text!r} is no id of 32 hex digits")
    return value
