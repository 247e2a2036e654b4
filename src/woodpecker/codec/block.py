"""Blocks: the unit of write, checksum, replication and read (log protocol, section 3).

128 bytes of header (``header.py``), then the body: lengths of the payloads, optional columns, payloads
joined. All of it is laid out in docs/formats.md. Work is done per block, not per entry: no Python loop
runs over small entries when a block is packed (``packing.py``) or read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate, pairwise

from woodpecker.codec import columns
from woodpecker.codec.columns import Headers, Input, numbers
from woodpecker.codec.compression import MASK, Buffer, decompress
from woodpecker.codec.header import (
    DIGEST_BYTES,
    FACTS_BEFORE,
    HAS_BATCHES,
    HAS_CONTROLS,
    HAS_HEADERS,
    HAS_TIMESTAMPS,
    HEADER_BYTES,
    MAX_BLOCK_BYTES,
    MAX_BODY_BYTES,
    MAX_COLUMN_BYTES,
    MAX_ENTRIES,
    BlockHeader,
    parse_header,
    verify_digest,
)
from woodpecker.codec.packing import Allocate, PackedBlock, pack
from woodpecker.codec.splitting import split
from woodpecker.core.batcher import BatchMark
from woodpecker.core.register import BlockFacts, Control, ProducerBatch
from woodpecker.errors import Corrupt

__all__ = [
    "DIGEST_BYTES",
    "FACTS_BEFORE",
    "HEADER_BYTES",
    "MAX_BLOCK_BYTES",
    "MAX_BODY_BYTES",
    "MAX_COLUMN_BYTES",
    "MAX_ENTRIES",
    "Allocate",
    "Block",
    "BlockHeader",
    "Buffer",
    "PackedBlock",
    "pack",
    "parse_header",
    "verify_digest",
]


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
            code = self.header.flags & MASK
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
            if sum(lengths) != header.raw_body_bytes - self.header.payloads_at:
                raise Corrupt(f"{self.where}: payload lengths do not add up", where=self.where)
            self._lengths = lengths
        return self._lengths

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
        start = self.header.payloads_at + sum(lengths[:index])
        return split(self.body[start:], lengths[index:])

    def views_from(self, index: int) -> list[memoryview]:
        """As ``payloads_from`` without a copy: the views keep the block's buffer alive."""
        lengths = self.lengths
        start = self.header.payloads_at + sum(lengths[:index])
        data = self.body[start:].toreadonly()
        ends = accumulate(lengths[index:], initial=0)
        return [data[begin:end] for begin, end in pairwise(ends)]

    @property
    def timestamps(self) -> array[int] | None:
        """Time of each entry in us; None if all carry ``header.base_timestamp_us``."""
        if self._timestamps is None:
            section = self._section(HAS_TIMESTAMPS)
            if section is None:
                return None
            timestamps = numbers("Q", section)
            if timestamps and timestamps[0] != self.header.base_timestamp_us:
                raise Corrupt(
                    f"{self.where}: timestamps do not begin at the base", where=self.where
                )
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

    def index_at(self, timestamp_us: int) -> int:
        """Index of the first entry of that time or later; ``count`` if there is none."""
        timestamps = self.timestamps
        if timestamps is not None:
            return bisect_left(timestamps, timestamp_us)
        return 0 if self.header.base_timestamp_us >= timestamp_us else self.count

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
        data = Input(self.body[4 * header.count : self.header.payloads_at], self.where)
        found: dict[int, memoryview] = {}
        if header.flags & HAS_TIMESTAMPS:
            found[HAS_TIMESTAMPS] = data.take(8 * header.count)
        for flag in (HAS_HEADERS, HAS_BATCHES, HAS_CONTROLS):
            if header.flags & flag:
                found[flag] = data.take(data.u32())
        data.done()
        return found
