"""Blocks: the unit of write, checksum, replication and read (log protocol, section 3).

128 bytes of header, then the body: lengths of the payloads, optional columns, payloads joined. All of
it is laid out in docs/formats.md. Work is done per block, not per entry: no Python loop runs over small
entries when a block is packed or read.

The digest (XXH3-128 of bytes 24 to the end as stored) is checksum and chain link at once: the previous
block's digest lies inside the range. It protects against accidents, not against a forger.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from xxhash import xxh3_128_digest

from woodpecker.codec import columns
from woodpecker.codec.compression import code_of, compress, decompress
from woodpecker.codec.columns import Buffer, Headers, Input, numbers
from woodpecker.codec.splitting import split
from woodpecker.core.batcher import BatchMark, Draft
from woodpecker.core.register import BlockFacts, Control, ProducerBatch
from woodpecker.errors import Corrupt, InvalidRequest

MAGIC = b"WPBLOCK\n"
VERSION = 1
HEADER_BYTES = 128
DIGEST_BYTES = 16
MAX_BODY_BYTES = 128 << 20  # of payloads, before compression
MAX_COLUMN_BYTES = 128 << 20  # of lengths and optional columns, before compression
MAX_ENTRIES = 4 << 20
MAX_BLOCK_BYTES = HEADER_BYTES + MAX_BODY_BYTES + MAX_COLUMN_BYTES

COMPRESSION_MASK = 0b11
HAS_TIMESTAMPS = 1 << 2
HAS_HEADERS = 1 << 3
HAS_BATCHES = 1 << 4
HAS_PRODUCERS = 1 << 5  # some batch has a producer: the register must see this block
HAS_CONTROLS = 1 << 6
FACTS_BEFORE = 1 << 7  # an earlier block of this segment changes the register: recovery must look back
KNOWN_FLAGS = (1 << 8) - 1

_DIGEST_AT, _CHAINED_AT, _CRC_AT = 8, 24, 124
_HEADER = struct.Struct("<8s16s16sHHI16sQQQQIIQqII")
_MAGIC_CRC = crc32(MAGIC)
_LIMIT = 1 << 63  # seqs, numbers and times stay below, so that they fit signed fields everywhere
_COPY_ONCE_BYTES = 8 << 10  # mean payload from which copying each beats join and copy


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """Header of one block. ``lac`` is inclusive, -1 for none; ``body_bytes`` is as stored."""

    log_id: str
    segment_id: int
    epoch: int
    number: int
    base_seq: int
    count: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """A block ready to be written: ``buffer`` is exactly its bytes and must not change any more."""

    header: BlockHeader
    buffer: memoryview
    last_timestamp_us: int


Allocate = Callable[[int], memoryview | None]


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
    timestamps = draft.timestamps
    first_us = timestamps[0] if timestamps else base_timestamp_us
    column_bytes = sum(map(len, parts))
    raw_bytes = 4 * draft.count + column_bytes + draft.payload_bytes
    _check_size(draft, column_bytes)
    code = code_of(compression)
    lengths = array("I", map(len, draft.payloads))
    buffer = None
    if code:
        buffer = _fill_compressed(code, [lengths, *parts, *draft.payloads], raw_bytes, allocate)
        flags |= code if buffer is not None else 0
    if buffer is None:
        buffer = _fill(draft, [lengths, *parts], raw_bytes, allocate)
    try:
        _HEADER.pack_into(
            buffer, 0, MAGIC, b"", prev_digest, VERSION, flags, column_bytes, bytes.fromhex(log_id),
            segment_id, epoch, number, draft.base_seq, draft.count, len(buffer) - HEADER_BYTES,
            first_us, lac, raw_bytes, 0,
        )  # fmt: skip
    except (struct.error, ValueError) as error:
        raise InvalidRequest(f"block {number} of segment {segment_id}: {error}") from error
    struct.pack_into("<I", buffer, _CRC_AT, crc32(buffer[_CHAINED_AT:_CRC_AT], _MAGIC_CRC))
    digest = xxh3_128_digest(buffer[_CHAINED_AT:])
    buffer[_DIGEST_AT:_CHAINED_AT] = digest
    header = BlockHeader(
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
        body_bytes=len(buffer) - HEADER_BYTES,
        raw_body_bytes=raw_bytes,
        digest=digest,
        prev_digest=prev_digest,
    )
    last_us = timestamps[-1] if timestamps else first_us
    return PackedBlock(header=header, buffer=buffer, last_timestamp_us=last_us)


def _check_size(draft: Draft, column_bytes: int) -> None:
    if draft.count > MAX_ENTRIES:
        raise InvalidRequest(f"a block of {draft.count} entries: at most {MAX_ENTRIES} are allowed")
    if draft.payload_bytes > MAX_BODY_BYTES:
        raise InvalidRequest(
            f"a block of {draft.payload_bytes} bytes: at most {MAX_BODY_BYTES} are allowed"
        )
    if 4 * draft.count + column_bytes > MAX_COLUMN_BYTES:
        raise InvalidRequest(
            f"headers and other columns of {column_bytes} bytes in one block: "
            f"at most {MAX_COLUMN_BYTES} are allowed"
        )


def _columns(draft: Draft) -> tuple[list[bytes], int]:
    """Optional columns in their fixed order, and the flags that say which are there."""
    parts: list[bytes] = []
    flags = 0
    if draft.timestamps is not None:
        parts.append(array("Q", draft.timestamps).tobytes())
        flags |= HAS_TIMESTAMPS
    if draft.headers is not None:
        parts.append(columns.encode_headers(draft.headers))
        flags |= HAS_HEADERS
    if draft.batches:
        parts.append(columns.encode_batches(draft.batches))
        flags |= HAS_BATCHES
        flags |= HAS_PRODUCERS if any(batch.producer for batch in draft.batches) else 0
    if draft.controls:
        parts.append(columns.encode_controls(draft.controls))
        flags |= HAS_CONTROLS
    return parts, flags


def _fill(
    draft: Draft, front: list[Buffer | array[int]], raw_bytes: int, allocate: Allocate | None
) -> memoryview:
    """Body as it is, in the caller's buffer or one of our own; the header is left to be written."""
    buffer = allocate(HEADER_BYTES + raw_bytes) if allocate else None
    if buffer is None:
        buffer = memoryview(bytearray().join([bytes(HEADER_BYTES), *front, *draft.payloads]))
        _check_filled(len(buffer) - HEADER_BYTES, raw_bytes)
        return buffer
    buffer = buffer[: HEADER_BYTES + raw_bytes]
    if draft.payload_bytes < _COPY_ONCE_BYTES * draft.count:
        body = b"".join([*front, *draft.payloads])
        _check_filled(len(body), raw_bytes)
        buffer[HEADER_BYTES:] = body
        return buffer
    pos = HEADER_BYTES
    for part in (b"".join(front), *draft.payloads):
        end = pos + len(part)
        buffer[pos:end] = part
        pos = end
    _check_filled(pos - HEADER_BYTES, raw_bytes)
    return buffer


def _fill_compressed(
    code: int, parts: list[Buffer | array[int]], raw_bytes: int, allocate: Allocate | None
) -> memoryview | None:
    """Compressed body behind room for the header; None if it did not shrink."""
    raw = b"".join(parts)
    _check_filled(len(raw), raw_bytes)
    body = compress(code, raw)
    if len(body) >= raw_bytes:
        return None
    size = HEADER_BYTES + len(body)
    buffer = (allocate(size) if allocate else None) or memoryview(bytearray(size))
    buffer[HEADER_BYTES:size] = body
    return buffer[:size]


def _check_filled(actual: int, expected: int) -> None:
    if actual != expected:
        raise InvalidRequest(
            f"a draft says its body has {expected} bytes, its payloads make {actual}: "
            "payloads must be buffers of single bytes"
        )


def parse_header(buf: Buffer, *, where: str = "block header") -> BlockHeader:
    """Check and decode the header at the beginning of ``buf``; the body is not looked at.

    Raises:
        Corrupt: too short, wrong magic or CRC, impossible lengths.
        InvalidRequest: sound, but written by a newer version of Woodpecker.
    """
    if len(buf) < HEADER_BYTES:
        raise Corrupt(f"{where}: {len(buf)} bytes are too few for a block header", where=where)
    view = memoryview(buf)[:HEADER_BYTES]
    (
        magic, digest, prev_digest, version, flags, column_bytes, log_id, segment_id, epoch, number,
        base_seq, count, body_bytes, base_us, lac, raw_bytes, crc,
    ) = _HEADER.unpack(view)  # fmt: skip
    if magic != MAGIC:
        raise Corrupt(f"{where}: no block begins here (wrong magic)", where=where)
    if crc != crc32(view[_CHAINED_AT:_CRC_AT], _MAGIC_CRC):
        raise Corrupt(f"{where}: the block header fails its checksum", where=where)
    if version != VERSION or flags & ~KNOWN_FLAGS or flags & COMPRESSION_MASK == COMPRESSION_MASK:
        raise InvalidRequest(
            f"{where}: block format {version} with flags {flags:#x} was written by a newer version "
            "of Woodpecker; upgrade this one to read it"
        )
    header = BlockHeader(
        log_id=log_id.hex(),
        segment_id=segment_id,
        epoch=epoch,
        number=number,
        base_seq=base_seq,
        count=count,
        base_timestamp_us=base_us,
        lac=lac,
        flags=flags,
        column_bytes=column_bytes,
        body_bytes=body_bytes,
        raw_body_bytes=raw_bytes,
        digest=digest,
        prev_digest=prev_digest,
    )
    _check_header(header, where)
    return header


def _check_header(header: BlockHeader, where: str) -> None:
    front_bytes = 4 * header.count + header.column_bytes
    payload_bytes = header.raw_body_bytes - front_bytes
    compressed = bool(header.flags & COMPRESSION_MASK)
    sound = (
        header.count <= MAX_ENTRIES
        and front_bytes <= MAX_COLUMN_BYTES
        and 0 <= payload_bytes <= MAX_BODY_BYTES
        and (
            header.body_bytes < header.raw_body_bytes
            if compressed
            else header.body_bytes == header.raw_body_bytes
        )
        and max(header.segment_id, header.epoch, header.number, header.end_seq) < _LIMIT
        and header.base_timestamp_us < _LIMIT
        and header.lac >= -1
    )
    if not sound:
        raise Corrupt(f"{where}: the block header has impossible lengths or numbers", where=where)


def verify_digest(buf: Buffer) -> bool:
    """Whether the block that fills ``buf`` exactly has the digest its header states."""
    view = memoryview(buf)
    return bool(xxh3_128_digest(view[_CHAINED_AT:]) == view[_DIGEST_AT:_CHAINED_AT])


class Block:
    """One verified block over a buffer; columns are decoded when first asked for.

    The buffer must stay unchanged while the block is in use. Every property may raise Corrupt if the
    bytes, though their digest is right, make no sense.
    """

    __slots__ = ("_batches", "_body", "_headers", "_lengths", "_payloads", "_sections",
                 "_timestamps", "buffer", "header", "where")  # fmt: skip

    def __init__(self, header: BlockHeader, buffer: memoryview, where: str) -> None:
        self.header = header
        self.buffer = buffer
        self.where = where
        self._body: memoryview | None = None
        self._lengths: array[int] | None = None
        self._payloads: list[bytes] | None = None
        self._sections: dict[int, memoryview] | None = None
        self._timestamps: array[int] | None = None
        self._headers: list[Headers] | None = None
        self._batches: tuple[BatchMark, ...] | None = None

    @classmethod
    def parse(cls, buf: Buffer, *, where: str = "block") -> Block:
        """Check header and digest of the block that fills ``buf`` exactly.

        Raises:
            Corrupt: anything is wrong. InvalidRequest: written by a newer version of Woodpecker.
        """
        header = parse_header(buf, where=where)
        view = memoryview(buf)
        if len(view) != header.size_bytes:
            raise Corrupt(
                f"{where}: {len(view)} bytes for a block of {header.size_bytes}", where=where
            )
        if not verify_digest(view):
            raise Corrupt(f"{where}: the block fails its checksum", where=where)
        return cls(header, view, where)

    @property
    def count(self) -> int:
        """Entries in this block."""
        return self.header.count

    @property
    def body(self) -> memoryview:
        """The body, decompressed."""
        if self._body is None:
            stored = self.buffer[HEADER_BYTES:]
            code = self.header.flags & COMPRESSION_MASK
            if code:
                raw = self.header.raw_body_bytes
                stored = memoryview(decompress(code, stored, raw, where=self.where))
            self._body = stored
        return self._body

    @property
    def lengths(self) -> array[int]:
        """Bytes of each payload."""
        if self._lengths is None:
            header = self.header
            lengths = numbers("I", self.body[: 4 * header.count])
            if sum(lengths) != header.raw_body_bytes - self._payloads_at:
                raise Corrupt(f"{self.where}: payload lengths do not add up", where=self.where)
            self._lengths = lengths
        return self._lengths

    @property
    def _payloads_at(self) -> int:
        return 4 * self.header.count + self.header.column_bytes

    @property
    def payloads(self) -> list[bytes]:
        """All payloads, in order, as bytes of their own."""
        if self._payloads is None:
            self._payloads = self.payloads_from(0)
        return self._payloads

    def payloads_from(self, index: int) -> list[bytes]:
        """Payloads of the entries from ``index`` on; those before are not copied."""
        if self._payloads is not None:
            return self._payloads[index:]
        lengths = self.lengths
        start = self._payloads_at + sum(lengths[:index])
        return split(self.body[start:], lengths[index:])

    @property
    def timestamps(self) -> array[int] | None:
        """Time of each entry in us; None if all carry ``header.base_timestamp_us``."""
        if self._timestamps is None:
            section = self._section(HAS_TIMESTAMPS)
            if section is None:
                return None
            timestamps = numbers("Q", section)
            if timestamps and timestamps[0] != self.header.base_timestamp_us:
                raise Corrupt(f"{self.where}: timestamps do not begin at the base", where=self.where)
            self._timestamps = timestamps
        return self._timestamps

    def timestamp_of(self, index: int) -> int:
        """Time of entry ``index``, in us."""
        timestamps = self.timestamps
        return timestamps[index] if timestamps else self.header.base_timestamp_us

    @property
    def first_timestamp_us(self) -> int:
        """Time of the first entry."""
        return self.header.base_timestamp_us

    @property
    def last_timestamp_us(self) -> int:
        """Time of the last entry."""
        return self.timestamp_of(-1)

    @property
    def headers(self) -> list[Headers] | None:
        """Headers of each entry, in their order; None if no entry has any."""
        if self._headers is None:
            section = self._section(HAS_HEADERS)
            if section is None:
                return None
            self._headers = columns.decode_headers(Input(section, self.where), self.header.count)
        return self._headers

    @property
    def batches(self) -> tuple[BatchMark, ...]:
        """Marks of the batches in this block: whole, for readers that begin inside one, too."""
        if self._batches is None:
            section = self._section(HAS_BATCHES)
            self._batches = (
                ()
                if section is None
                else columns.decode_batches(Input(section, self.where), self.header.count)
            )
        return self._batches

    @property
    def controls(self) -> tuple[Control, ...]:
        """Controls; they take effect before the block's entries."""
        section = self._section(HAS_CONTROLS)
        return () if section is None else columns.decode_controls(Input(section, self.where))

    def facts(self) -> BlockFacts:
        """What the register needs to know of this block; payloads are not touched."""
        if not self.header.has_facts:
            return BlockFacts()
        batches = tuple(
            ProducerBatch(
                id=batch.producer,
                epoch=batch.producer_epoch,
                sequence=batch.sequence,
                seq=self.header.base_seq + batch.first,
                count=batch.count,
                timestamp_us=self.timestamp_of(batch.first + batch.count - 1),
            )
            for batch in self.batches
            if batch.producer
        )
        return BlockFacts(controls=self.controls, batches=batches)

    def _section(self, flag: int) -> memoryview | None:
        """Bytes of one optional column, or None if the block does not have it."""
        if self._sections is None:
            self._sections = self._find_sections()
        return self._sections.get(flag)

    def _find_sections(self) -> dict[int, memoryview]:
        header = self.header
        data = Input(self.body[4 * header.count : self._payloads_at], self.where)
        found: dict[int, memoryview] = {}
        if header.flags & HAS_TIMESTAMPS:
            found[HAS_TIMESTAMPS] = data.take(8 * header.count)
        for flag in (HAS_HEADERS, HAS_BATCHES, HAS_CONTROLS):
            if header.flags & flag:
                found[flag] = data.take(data.u32())
        data.done()
        return found
