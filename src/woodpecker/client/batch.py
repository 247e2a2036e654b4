"""Batches: what readers hand out. A run of entries of one verified block, decoded when asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat

from woodpecker.client.entry import Entry
from woodpecker.codec.block import Block
from woodpecker.codec.columns import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerColumn:
    """What a caller attached to one appended batch: the whole batch's range, also outside of this one."""

    first_seq: int
    count: int
    data: bytes


# made from ready fields, past Entry.__new__: everything about an entry then runs in C
_entry: Callable[[tuple[bytes, Headers, int, int]], Entry] = partial(
    tuple.__new__,
    Entry,
)


class Batch:
    """Entries ``first_seq`` up to ``end_seq`` (exclusive) of one log; never empty.

    The block they came in has passed its checks. It stays in memory while the batch is in use.
    Every property may raise Corrupt for a block that was written wrong.
    """

    __slots__ = ("_begin", "_block", "_end", "_payloads")

    def __init__(self, block: Block, begin: int = 0, end: int | None = None) -> None:
        self._block = block
        self._begin = begin
        self._end = block.count if end is None else end
        self._payloads: list[bytes] | None = None

    @property
    def first_seq(self) -> int:
        """Seq of the first entry."""
        return self._block.header.base_seq + self._begin

    @property
    def end_seq(self) -> int:
        """The seq after the last entry: where to go on reading."""
        return self._block.header.base_seq + self._end

    def __len__(self) -> int:
        return self._end - self._begin

    def head(self, count: int) -> Batch:
        """The first ``count`` entries (at least one), or all if there are not more."""
        return Batch(self._block, self._begin, min(self._end, self._begin + max(count, 1)))

    @property
    def payloads(self) -> list[bytes]:
        """Payloads in order, cut out of the block when first asked for."""
        if self._payloads is None:
            self._payloads = self._block.payloads_from(self._begin)[: len(self)]
        return self._payloads

    @property
    def views(self) -> list[memoryview]:
        """Payloads in order without any copy: read-only views into the block."""
        return self._block.views_from(self._begin)[: len(self)]

    @property
    def payload_bytes(self) -> int:
        """Size of all payloads together."""
        return sum(self._block.lengths[self._begin : self._end])

    @property
    def has_headers(self) -> bool:
        """Whether any entry of the block they came in has headers; costs next to nothing."""
        return self._block.headers is not None

    @property
    def headers(self) -> list[Headers]:
        """Headers of each entry: ordered pairs of bytes."""
        headers = self._block.headers
        return [()] * len(self) if headers is None else headers[self._begin : self._end]

    @property
    def timestamps_us(self) -> Sequence[int]:
        """Time of each entry, microseconds since 1970, never falling."""
        timestamps = self._block.timestamps
        if timestamps is None:
            return array("Q", [self._block.header.base_timestamp_us]) * len(self)
        return timestamps[self._begin : self._end]

    @property
    def columns(self) -> list[CallerColumn]:
        """Columns of the appended batches that reach into this one; payloads are not touched."""
        base = self._block.header.base_seq
        return [
            CallerColumn(first_seq=base + mark.first, count=mark.count, data=mark.column)
            for mark in self._block.batches
            if mark.column and mark.first < self._end and mark.first + mark.count > self._begin
        ]

    def __iter__(self) -> Iterator[Entry]:
        """The entries, made one by one."""
        block = self._block
        headers: Iterable[Headers] = repeat(()) if block.headers is None else self.headers
        times: Iterable[int] = self.timestamps_us
        if block.timestamps is None:
            times = repeat(block.header.base_timestamp_us)
        seqs = range(self.first_seq, self.end_seq)
        return map(_entry, zip(self.payloads, headers, times, seqs, strict=False))

    def __repr__(self) -> str:
        return f"Batch(first_seq={self.first_seq}, {len(self)} entries)"
