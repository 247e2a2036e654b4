"""Random payloads: enough different ones that neither caches nor compression flatter anybody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, islice, repeat

POOL_BYTES = 64 << 20
POOL_MOST = 65_536


def make_pool(size_bytes: int, *, pool_bytes: int = POOL_BYTES) -> list[bytes]:
    """Different random payloads of one size, at most ``pool_bytes`` of them together."""
    count = max(2, min(POOL_MOST, pool_bytes // max(1, size_bytes)))
    joined = os.urandom(count * size_bytes)
    return [joined[at * size_bytes : (at + 1) * size_bytes] for at in range(count)]


class Payloads:
    """Endless turns through a pool."""

    def __init__(self, size_bytes: int, *, pool_bytes: int = POOL_BYTES) -> None:
        self.size_bytes = size_bytes
        self._pool = make_pool(size_bytes, pool_bytes=pool_bytes)
        self._endless = chain.from_iterable(repeat(self._pool))

    def next(self) -> bytes:
        """The next payload."""
        return next(self._endless)

    def take(self, count: int) -> Sequence[bytes]:
        """The next ``count`` payloads."""
        return list(islice(self._endless, count))
