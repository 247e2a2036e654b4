"""The newest blocks of a node in memory, for readers at the tail: bounded in bytes, oldest out first."""

from __future__ import annotations

from collections import deque

from woodpecker.codec.compression import Buffer
from woodpecker.logstore.copies import Copy

_COST_BYTES = 400  # of the objects around each block
_SLACK = 1024  # entries of dropped copies that may stay in line


class TailCache:
    """Blocks by copy and number, whether synced or not: what may be shown is not decided here."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._order: deque[tuple[Copy, int]] = deque()
        self._blocks: dict[Copy, dict[int, Buffer]] = {}
        self._count = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._count

    def put(self, copy: Copy, number: int, block: Buffer) -> None:
        """Keep a block that has just come; once for each number."""
        blocks = self._blocks.get(copy)
        if blocks is None:
            blocks = self._blocks[copy] = {}
        blocks[number] = block
        self._order.append((copy, number))
        self._count += 1
        self.size_bytes += len(block) + _COST_BYTES
        while self.size_bytes > self._limit_bytes:
            self._drop(*self._order.popleft())

    def get(self, copy: Copy, number: int) -> Buffer | None:
        """The block, if it is here."""
        blocks = self._blocks.get(copy)
        return None if blocks is None else blocks.get(number)

    def forget(self, copy: Copy) -> None:
        """The copy is dropped."""
        blocks = self._blocks.pop(copy, {})
        self._count -= len(blocks)
        self.size_bytes -= sum(map(len, blocks.values())) + _COST_BYTES * len(blocks)
        if len(self._order) > 2 * self._count + _SLACK:
            self._order = deque(item for item in self._order if item[0] in self._blocks)

    def _drop(self, copy: Copy, number: int) -> None:
        blocks = self._blocks.get(copy)
        block = None if blocks is None else blocks.pop(number, None)
        if block is None or blocks is None:
            return  # its copy was dropped
        self._count -= 1
        self.size_bytes -= len(block) + _COST_BYTES
        if not blocks:
            del self._blocks[copy]
