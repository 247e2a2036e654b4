"""Aligned memory for journal writes and reads, used again once nobody looks at it any more.

A buffer is shared without being copied: the transport receives into it, the journal writes it to the disk,
the tail cache keeps it, answers to readers are sent from it. Whoever holds a view keeps the buffer alive;
so the number of references tells when it is free, and nobody has to say so. What that number is, is
measured; an interpreter that does not count views gets a new buffer each time.
"""

from __future__ import annotations

import sys
from collections import deque
from mmap import mmap

from woodpecker.codec.journal import RECORD_BYTES, padded

SMALLEST_BYTES = 64 << 10
_SLACK_BYTES = 8 << 10  # a block at a target size, with its headers and lengths, fits that size
_LARGEST_POOLED_BYTES = 4 << 20
_TRIES = 4  # oldest buffers looked at before a new one is made


class Place(mmap):
    """A page-aligned buffer of one pool."""

    pool: Buffers


def _references(pool: deque[Place]) -> int:
    """To the newest buffer of a pool, as this interpreter counts them."""
    return sys.getrefcount(pool[-1])


def _references_unused() -> int:
    """How many there are when nobody looks at a buffer; 0 if a view of it is not counted as one more."""
    pool = deque([Place(-1, 4096)])
    unused = _references(pool)
    view = memoryview(pool[-1])[1:2]
    seen = _references(pool)
    del view
    return unused if (seen, _references(pool)) == (unused + 1, unused) else 0


_UNUSED = _references_unused()


class Buffers:
    """Pool of buffers. ``keep_bytes``: how much it remembers at most, in use or not.

    A pool from which blocks are handed out by ``for_block`` hands nothing else out that could come back.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._pools: dict[int, deque[Place]] = {}

    @property
    def size_bytes(self) -> int:
        """Of all buffers remembered, in use or not."""
        return self._bytes

    def take(self, size_bytes: int) -> Place:
        """A buffer of at least so many bytes, in whole units; its bytes are arbitrary."""
        size = _class_of(size_bytes)
        if size > _LARGEST_POOLED_BYTES + _SLACK_BYTES or not _UNUSED:
            return self._new(padded(size_bytes))
        pool = self._pools.setdefault(size, deque())
        for _ in range(min(_TRIES, len(pool))):
            pool.rotate(-1)
            if _references(pool) == _UNUSED:
                return pool[-1]
        return self._make(pool, size)

    def for_block(self, size_bytes: int) -> memoryview:
        """Room for a block of exactly this size, at the right distance from the buffer's beginning."""
        place = self.take(RECORD_BYTES + size_bytes)
        return memoryview(place)[RECORD_BYTES : RECORD_BYTES + size_bytes]

    def owns(self, block: memoryview) -> bool:
        """Whether it came from ``for_block`` of this pool."""
        return isinstance(block.obj, Place) and block.obj.pool is self

    def _new(self, size_bytes: int) -> Place:
        place = Place(-1, size_bytes)
        place.pool = self
        return place

    def _make(self, pool: deque[Place], size: int) -> Place:
        if self._bytes + size > self._keep_bytes:
            self._forget_oldest()
        place = self._new(size)
        if self._bytes + size <= self._keep_bytes:
            pool.append(place)
            self._bytes += size
        return place

    def _forget_oldest(self) -> None:
        """Let others look after the oldest buffers: those that are unused are freed at once."""
        for size, pool in self._pools.items():
            for _ in range(len(pool) // 2):
                pool.popleft()
                self._bytes -= size


def _class_of(size_bytes: int) -> int:
    """Sizes are powers of two, and a little more."""
    power = max(SMALLEST_BYTES, 1 << max(0, size_bytes - _SLACK_BYTES - 1).bit_length())
    return power + _SLACK_BYTES
