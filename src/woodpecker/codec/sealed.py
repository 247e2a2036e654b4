"""Sealed segments: the blocks of one closed segment as one immutable object (log protocol, section 8).

Blocks as written (zero padding between them where the segment was sealed in place), then an index, the
register at the end E, and a footer of fixed size at the very end. Everything in it follows from the
blocks and the register before them: whoever seals the same segment writes the same bytes, up to padding.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import add, eq, le
from zlib import crc32

from xxhash import xxh3_128_digest

from woodpecker.codec.columns import numbers
from woodpecker.codec.compression import Buffer
from woodpecker.codec.header import HEADER_BYTES, MAX_BLOCK_BYTES, BlockHeader
from woodpecker.codec.records import MAX_REGISTER_BYTES, decode_register, encode_register
from woodpecker.core.register import Register
from woodpecker.errors import Corrupt, InvalidRequest

MAGIC = b"WPSEALED"
VERSION = 1
FOOTER_BYTES = 256
INDEX_ROW_BYTES = 40  # of each block, over all columns of the index
MAX_BLOCKS = 4 << 20

_FOOTER = struct.Struct("<8sHHI16sQQQQQQQQQQQ8x16s16s16s16s60xI")
_CRC_AT = FOOTER_BYTES - 4
_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """Last bytes of a sealed object: what it is, and where in it the rest lies. Digests as bytes."""

    log_id: str
    segment_id: int
    epoch: int
    block_count: int
    base_seq: int
    end_seq: int
    block_bytes: int  # of all blocks as stored, without padding
    raw_body_bytes: int  # of all bodies, decompressed
    first_timestamp_us: int
    last_timestamp_us: int
    index_offset: int
    index_bytes: int
    register_bytes: int
    prev_digest: bytes  # what the first block links to
    digest: bytes  # the chain digest at E
    index_digest: bytes
    register_digest: bytes

    @property
    def register_offset(self) -> int:
        """Where the register begins; it ends where the footer begins."""
        return self.index_offset + self.index_bytes

    @property
    def tail_bytes(self) -> int:
        """Index, register and footer together: the part to read from the end."""
        return self.index_bytes + self.register_bytes + FOOTER_BYTES

    @property
    def size_bytes(self) -> int:
        """Of the whole object."""
        return self.index_offset + self.tail_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedIndex:
    """Columns with one item per block, in order. ``timestamps`` never fall: first of each block.

    A block whose time is before that of an earlier one has the earlier one's here.
    """

    offsets: array[int]
    base_seqs: array[int]
    timestamps: array[int]
    numbers: array[int]
    counts: array[int]
    sizes: array[int]
    end_seq: int

    def __len__(self) -> int:
        return len(self.offsets)

    def find_seq(self, seq: int) -> int:
        """Index of the block that holds ``seq``; ``len(self)`` if all are below it.

        For a seq before the first block: 0.
        """
        if seq >= self.end_seq:
            return len(self)
        return max(0, bisect_right(self.base_seqs, seq) - 1)

    def find_time(self, timestamp_us: int) -> int:
        """Index of the first block that may hold an entry of ``timestamp_us`` or later.

        The entry is in that block or, if all of its entries are older, in the one after it.
        """
        return max(0, bisect_left(self.timestamps, timestamp_us) - 1)

    def run(self, first: int, max_bytes: int) -> int:
        """End (exclusive) of the longest run of blocks from ``first`` within ``max_bytes``, at least one."""
        limit = self.offsets[first] + max_bytes
        last = bisect_right(self.offsets, limit, lo=first + 1) - 1
        while last > first and self.offsets[last] + self.sizes[last] > limit:
            last -= 1
        return last + 1

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Offset and length in bytes of the blocks ``first`` to ``end`` (exclusive), padding included."""
        start = self.offsets[first]
        return start, self.offsets[end - 1] + self.sizes[end - 1] - start


class IndexBuilder:
    """Collects the blocks of one segment, in order, and checks that they are one chain."""

    def __init__(self) -> None:
        self.first: BlockHeader | None = None
        self.last: BlockHeader | None = None
        self.end_offset = 0  # behind the last block so far
        self.block_bytes = 0
        self.raw_body_bytes = 0
        self.columns: tuple[array[int], ...] = tuple(array(code) for code in "QQQQII")

    def add(self, header: BlockHeader, offset: int) -> None:
        """Add the next block, which lies at ``offset`` of the sealed object.

        Raises:
            Corrupt: it does not follow the block before; the segment cannot be sealed like this.
        """
        self._check_follows(header, offset)
        offsets, base_seqs, timestamps, block_numbers, counts, sizes = self.columns
        offsets.append(offset)
        base_seqs.append(header.base_seq)
        timestamps.append(max(header.base_timestamp_us, timestamps[-1] if timestamps else 0))
        block_numbers.append(header.number)
        counts.append(header.count)
        sizes.append(header.size_bytes)
        self.first = self.first or header
        self.last = header
        self.end_offset = offset + header.size_bytes
        self.block_bytes += header.size_bytes
        self.raw_body_bytes += header.raw_body_bytes

    def _check_follows(self, header: BlockHeader, offset: int) -> None:
        last = self.last
        if last is None:
            follows = header.number == 0
        else:
            follows = (
                (header.log_id, header.segment_id, header.epoch)
                == (last.log_id, last.segment_id, last.epoch)
                and header.number == last.number + 1
                and header.base_seq == last.end_seq
                and header.prev_digest == last.digest
            )
        if not follows or offset < self.end_offset:
            where = f"{header.log_id} segment {header.segment_id} block {header.number}"
            before = f"block {last.number}" if last else "the beginning of its segment"
            raise Corrupt(f"{where} at offset {offset} does not follow {before}", where=where)


def encode_tail(
    builder: IndexBuilder, register: Register, *, last_timestamp_us: int, offset: int | None = None
) -> bytes:
    """Index, register and footer, to be written behind the blocks.

    Args:
        register: its value at E.
        last_timestamp_us: time of the last block's last entry.
        offset: where the tail will lie; None: right behind the last block. Between, only zeros.
    Raises:
        InvalidRequest: no block was added, or more than fit.
    """
    first, last = builder.first, builder.last
    start = builder.end_offset if offset is None else offset
    if first is None or last is None or len(builder.columns[0]) > MAX_BLOCKS:
        raise InvalidRequest(
            f"{len(builder.columns[0])} blocks: a sealed object has 1 to {MAX_BLOCKS}"
        )
    if start < builder.end_offset:
        raise InvalidRequest(f"a tail at {start} would overwrite blocks up to {builder.end_offset}")
    index = b"".join(builder.columns)
    register_data = encode_register(register)
    timestamps = builder.columns[2]
    footer = _FOOTER.pack(
        MAGIC, VERSION, 0, len(timestamps), bytes.fromhex(last.log_id), last.segment_id,
        last.epoch, first.base_seq, last.end_seq, builder.block_bytes, builder.raw_body_bytes,
        timestamps[0], max(last_timestamp_us, timestamps[-1]), start, len(index),
        len(register_data), first.prev_digest, last.digest, xxh3_128_digest(index),
        xxh3_128_digest(register_data), 0,
    )[:_CRC_AT]  # fmt: skip
    return b"".join([index, register_data, footer, struct.pack("<I", crc32(footer))])


def parse_footer(
    last_bytes: Buffer, *, object_bytes: int | None = None, where: str = "sealed object"
) -> Footer:
    """Check and decode the footer at the very end of ``last_bytes``.

    Args:
        object_bytes: size of the whole object where known; checked against what the footer says.
    Raises:
        Corrupt: no footer, or a damaged one. InvalidRequest: written by a newer version of Woodpecker.
    """
    view = memoryview(last_bytes)[-FOOTER_BYTES:]
    if len(view) < FOOTER_BYTES or view[: len(MAGIC)] != MAGIC:
        raise Corrupt(f"{where}: it does not end with the footer of a sealed object", where=where)
    (
        _, version, flags, block_count, log_id, segment_id, epoch, base_seq, end_seq, block_bytes,
        raw_body_bytes, first_us, last_us, index_offset, index_bytes, register_bytes, prev_digest,
        digest, index_digest, register_digest, crc,
    ) = _FOOTER.unpack(view)  # fmt: skip
    if crc != crc32(view[:_CRC_AT]):
        raise Corrupt(f"{where}: the footer fails its checksum", where=where)
    if version != VERSION or flags:
        raise InvalidRequest(
            f"{where}: sealed format {version} with flags {flags:#x} was written by a newer version "
            "of Woodpecker; upgrade this one to read it"
        )
    footer = Footer(
        log_id=log_id.hex(),
        segment_id=segment_id,
        epoch=epoch,
        block_count=block_count,
        base_seq=base_seq,
        end_seq=end_seq,
        block_bytes=block_bytes,
        raw_body_bytes=raw_body_bytes,
        first_timestamp_us=first_us,
        last_timestamp_us=last_us,
        index_offset=index_offset,
        index_bytes=index_bytes,
        register_bytes=register_bytes,
        prev_digest=prev_digest,
        digest=digest,
        index_digest=index_digest,
        register_digest=register_digest,
    )
    if not _is_sound(footer) or object_bytes not in (None, footer.size_bytes):
        raise Corrupt(f"{where}: the footer has impossible lengths or numbers", where=where)
    return footer


def _is_sound(footer: Footer) -> bool:
    return (
        0 < footer.block_count <= MAX_BLOCKS
        and footer.index_bytes == INDEX_ROW_BYTES * footer.block_count
        and footer.register_bytes <= MAX_REGISTER_BYTES
        and HEADER_BYTES * footer.block_count <= footer.block_bytes <= footer.index_offset
        and footer.base_seq <= footer.end_seq
        and footer.first_timestamp_us <= footer.last_timestamp_us
        and max(footer.segment_id, footer.epoch, footer.end_seq, footer.index_offset) < _LIMIT
    )


def parse_index(buf: Buffer, footer: Footer, *, where: str = "sealed object") -> SealedIndex:
    """Check and decode the index: ``buf`` is ``footer.index_bytes`` from ``footer.index_offset``.

    Raises: Corrupt.
    """
    if len(buf) != footer.index_bytes or xxh3_128_digest(buf) != footer.index_digest:
        raise Corrupt(f"{where}: the index fails its checksum", where=where)
    view, n = memoryview(buf), footer.block_count
    index = SealedIndex(
        offsets=numbers("Q", view[: 8 * n]),
        base_seqs=numbers("Q", view[8 * n : 16 * n]),
        timestamps=numbers("Q", view[16 * n : 24 * n]),
        numbers=numbers("Q", view[24 * n : 32 * n]),
        counts=numbers("I", view[32 * n : 36 * n]),
        sizes=numbers("I", view[36 * n :]),
        end_seq=footer.end_seq,
    )
    if not _is_chain(index, footer):
        raise Corrupt(f"{where}: the index does not fit its segment", where=where)
    return index


def _is_chain(index: SealedIndex, footer: Footer) -> bool:
    """Whether blocks follow one another in bytes, numbers, seqs and time, within the footer's bounds."""
    next_seqs = [*index.base_seqs[1:], footer.end_seq]
    next_offsets = [*index.offsets[1:], footer.index_offset]
    return (
        index.base_seqs[0] == footer.base_seq
        and all(map(eq, map(add, index.base_seqs, index.counts), next_seqs))
        and all(map(le, map(add, index.offsets, index.sizes), next_offsets))
        and list(index.numbers) == list(range(len(index)))
        and all(map(le, index.timestamps, index.timestamps[1:]))
        and min(index.sizes) >= HEADER_BYTES
        and max(index.sizes) <= MAX_BLOCK_BYTES
        and sum(index.sizes) == footer.block_bytes
    )


def parse_register(buf: Buffer, footer: Footer, *, where: str = "sealed object") -> Register:
    """Check and decode the register at E: ``footer.register_bytes`` from ``footer.register_offset``.

    Raises: Corrupt, or InvalidRequest if a newer version of Woodpecker wrote it.
    """
    if len(buf) != footer.register_bytes or xxh3_128_digest(buf) != footer.register_digest:
        raise Corrupt(f"{where}: the register fails its checksum", where=where)
    return decode_register(buf, where=where)
