"""The acknowledged tail of segments that this very process writes: readers need not ask the bucket.

A writer publishes each acknowledged block; the newest are kept, bounded in bytes for all logs
together. Readers of the same process wait on the tail instead of polling.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from woodpecker.codec.block import PackedBlock
from woodpecker.core.manifest import Segment

KEPT_BYTES = 32 << 20


class ObjectTail:
    """Tail of one segment: blocks [0, count) are acknowledged, entries below ``end_seq`` visible."""

    def __init__(self, tails: Tails, key: tuple[str, int], base_seq: int) -> None:
        self._tails = tails
        self.key = key
        self.count = 0
        self.end_seq = base_seq
        self.is_closed = False
        self._moved = asyncio.Event()

    def publish(self, block: PackedBlock) -> None:
        """The next block is acknowledged."""
        self.count += 1
        self.end_seq = block.header.end_seq
        self._tails.keep((*self.key, block.header.number), block.buffer)
        self._wake()

    def close(self) -> None:
        """The writer is gone; the manifest tells what follows."""
        self.is_closed = True
        self._tails.forget(self)
        self._wake()

    def recent(self, number: int) -> memoryview | None:
        """The bytes of an acknowledged block, if still kept."""
        return self._tails.recent((*self.key, number))

    async def moved(self) -> None:
        """Wait for the next ``publish`` or ``close``."""
        await self._moved.wait()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


class Tails:
    """All tails of one store in this process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], ObjectTail] = {}
        self._recent: OrderedDict[tuple[str, int, int], memoryview] = OrderedDict()
        self._bytes = 0

    def open(self, log_id: str, segment: Segment) -> ObjectTail:
        """Tail of a segment about to be written."""
        key = (log_id, segment.id)
        tail = self._open[key] = ObjectTail(self, key, segment.base_seq)
        return tail

    def find(self, log_id: str, segment_id: int) -> ObjectTail | None:
        """The tail of a segment written here, or None."""
        return self._open.get((log_id, segment_id))

    def keep(self, key: tuple[str, int, int], buffer: memoryview) -> None:
        """Remember the newest block, forget the oldest ones beyond the bound."""
        self._recent[key] = buffer
        self._bytes += len(buffer)
        while self._bytes > KEPT_BYTES:
            _, old = self._recent.popitem(last=False)
            self._bytes -= len(old)

    def recent(self, key: tuple[str, int, int]) -> memoryview | None:
        """Bytes of a block that is still remembered."""
        return self._recent.get(key)

    def forget(self, tail: ObjectTail) -> None:
        """The tail's writer is gone; a newer tail of the same segment is left alone."""
        if self._open.get(tail.key) is tail:
            del self._open[tail.key]
