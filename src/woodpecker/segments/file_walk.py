"""Walking through a data file: headers only, to find a place; whole verified blocks, to read.

Runs in threads. What lies below ``Bound`` was acknowledged: anything there that is not the block
that must be there is damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from woodpecker.codec.block import HEADER_BYTES, Block, BlockHeader, parse_header
from woodpecker.codec.header import verify_digest
from woodpecker.core.file_rules import UNIT_BYTES, Identity, Position, padded
from woodpecker.direct_file import DataFile, make_buffer
from woodpecker.errors import Corrupt
from woodpecker.segments.file_aligned import BUFFER_BYTES, Window
from woodpecker.segments.file_index import Index

_STEP_BYTES = 256 << 10  # of one read while walking over small blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How far reading may go: a byte of the file (OPEN), or a block number (CLOSED). Exclusive."""

    offset: int | None = None
    block: int | None = None

    def allows(self, place: Position) -> bool:
        """Whether the block at ``place`` may be seen."""
        if self.offset is not None:
            return place.offset < self.offset
        return self.block is not None and place.block < self.block


class Walk:
    """Places and headers of one file, in order."""

    def __init__(self, file: DataFile, identity: Identity, index: Index) -> None:
        self._file = file
        self._identity = identity
        self._index = index

    def headers(self, start: Position, bound: Bound) -> Iterator[tuple[Position, BlockHeader]]:
        """Place and header of each block from ``start`` on. Raises: OSError, Corrupt."""
        window = Window(self._file, ahead_bytes=_STEP_BYTES)
        place = start
        while bound.allows(place):
            header = self.check(place, window.view(place.offset, HEADER_BYTES))
            yield place, header
            place = place.after(header)

    def check(self, place: Position, view: memoryview) -> BlockHeader:
        """The header that must be at ``place``. Raises: Corrupt: it is not."""
        where = f"{self._file.path}@{place.offset}"
        header = parse_header(view, where=where)
        if not self._identity.owns(header) or not place.is_followed_by(header):
            raise Corrupt(
                f"{where}: another block than number {place.block} (seq {place.seq}) is here",
                where=where,
            )
        self._index.note(place, header.base_timestamp_us)
        return header

    def verified(self, start: Position, bound: Bound) -> Iterator[tuple[BlockHeader, memoryview]]:
        """Each block from ``start`` on, verified, with its padding; a view is good until the next.

        Raises: OSError, Corrupt.
        """
        window = Window(self._file)
        place = start
        while bound.allows(place):
            header = self.check(place, window.view(place.offset, UNIT_BYTES))
            view = window.view(place.offset, padded(header.size_bytes))
            self._block(place, header, view[: header.size_bytes])
            yield header, view
            place = place.after(header)

    def read(
        self, place: Position, bound: Bound, expect_bytes: int
    ) -> tuple[list[Block], Position]:
        """Some whole verified blocks from ``place`` on, in a buffer of their own; and the place after.

        ``expect_bytes``: size of the next block, if a guess is at hand: saves a second read.
        Raises: OSError, Corrupt.
        """
        if not bound.allows(place):
            return [], place
        size = padded(expect_bytes) or BUFFER_BYTES
        size *= max(1, BUFFER_BYTES // size)  # whole blocks, if they are all alike
        if bound.offset is not None:
            size = min(size, bound.offset - place.offset)
        buffer, got = self._load(place.offset, size)
        blocks: list[Block] = []
        at = 0
        while bound.allows(place) and at + HEADER_BYTES <= got:
            header = self.check(place, buffer[at : min(got, at + UNIT_BYTES)])
            end = at + header.size_bytes
            if end > got:
                if blocks:
                    break
                buffer, got = self._load(place.offset, padded(header.size_bytes))
                end = min(header.size_bytes, got)
            blocks.append(self._block(place, header, buffer[at:end]))
            place = place.after(header)
            at += padded(header.size_bytes)
        if not blocks:
            self.check(place, buffer[:got])  # too short for a header: says so
        return blocks, place

    def _block(self, place: Position, header: BlockHeader, view: memoryview) -> Block:
        """As ``Block.parse``, of a block whose header was checked. Raises: Corrupt."""
        where = f"{self._file.path}@{place.offset}"
        if len(view) != header.size_bytes or not verify_digest(view):
            raise Corrupt(f"{where}: the block is cut short or fails its checksum", where=where)
        return Block(header, view, where)

    def _load(self, offset: int, size_bytes: int) -> tuple[memoryview, int]:
        buffer = memoryview(make_buffer(size_bytes))[:size_bytes]
        return buffer, self._file.read(buffer, offset)
