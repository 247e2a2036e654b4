"""Following one segment block by block: is it the chain that the manifest names, up to exactly E?"""

from __future__ import annotations

from collections.abc import Sequence

from woodpecker.codec.block import Block, BlockHeader
from woodpecker.codec.sealed import IndexBuilder, encode_tail
from woodpecker.core.manifest import Segment
from woodpecker.core.register import BlockFacts, Register, fold
from woodpecker.errors import Corrupt


class ChainScan:
    """Takes the blocks of one closed segment in order; keeps headers and register facts only.

    Args:
        segment: with its end; an OPEN one can be followed too, but never completed.
        where: names log and segment in messages.
    """

    def __init__(self, log_id: str, segment: Segment, where: str) -> None:
        self.segment = segment
        self.where = where
        self.headers: list[BlockHeader] = []
        self.facts: list[BlockFacts] = []
        self.last_timestamp_us = 0
        self.next_seq = segment.base_seq
        self.bytes = 0
        self._log_id = log_id
        self._digest = bytes.fromhex(segment.prev_digest)

    def add(self, block: Block) -> None:
        """Take the next block. Raises: Corrupt: it does not follow the one before."""
        header = block.header
        found = (
            header.log_id, header.segment_id, header.epoch, header.number, header.base_seq,
            header.prev_digest,
        )  # fmt: skip
        wanted = (
            self._log_id, self.segment.id, self.segment.epoch, len(self.headers), self.next_seq,
            self._digest,
        )  # fmt: skip
        if found != wanted:
            raise Corrupt(
                f"{block.where}: {self.where}: the chain breaks at block {len(self.headers)} "
                f"(seq {self.next_seq}): found {_shown(found)}, expected {_shown(wanted)}",
                where=block.where,
            )
        if header.has_facts:
            self.facts.append(block.facts())
        self.headers.append(header)
        self.last_timestamp_us = max(self.last_timestamp_us, block.last_timestamp_us)
        self.next_seq = header.end_seq
        self.bytes += header.size_bytes
        self._digest = header.digest

    @property
    def is_complete(self) -> bool:
        """Whether E has been reached."""
        end = self.segment.end
        return end is not None and len(self.headers) == end.block + 1

    def finish(self) -> None:
        """Check that the last block taken is E. Raises: Corrupt."""
        end = self.segment.end
        found = (len(self.headers) - 1, self.next_seq, self._digest.hex())
        if end is None or found != (end.block, end.seq, end.digest):
            raise Corrupt(
                f"{self.where}: block {found[0]} ends at seq {found[1]} with digest {found[2]}; "
                f"the manifest closed the segment at {end}",
                where=self.where,
            )

    def register(self, before: Register) -> Register:
        """The register after the blocks taken, given its value before the segment."""
        return fold(before, self.facts) if self.facts else before

    def tail(self, before: Register, offsets: Sequence[int], at: int) -> bytes:
        """Index, register and footer for a sealed object with the blocks at these offsets."""
        builder = IndexBuilder()
        for header, offset in zip(self.headers, offsets, strict=True):
            builder.add(header, offset)
        return encode_tail(
            builder,
            self.register(before),
            last_timestamp_us=self.last_timestamp_us,
            offset=at,
        )


def _shown(facts: tuple[object, ...]) -> str:
    return " ".join(fact.hex() if isinstance(fact, bytes) else str(fact) for fact in facts)
