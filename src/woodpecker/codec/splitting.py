"""Cutting joined payloads apart, fast. Which way is fastest depends on sizes (measured)."""

from __future__ import annotations

from array import array
from itertools import accumulate, chain, pairwise
from struct import Struct

_UNIFORM_STEP = 64  # entries per unpacking step: long enough to be fast, short enough to compile
_LARGE_BYTES = 4 << 10  # mean size from which one copy per entry beats copying all of them first


def split(data: memoryview, lengths: array[int]) -> list[bytes]:
    """Cut ``data`` into pieces of the given lengths, which add up to its own."""
    count = len(lengths)
    if not count:
        return []
    if lengths[0] and lengths.count(lengths[0]) == count:
        return _split_uniform(data, lengths[0], count)
    ends = list(accumulate(lengths, initial=0))
    if len(data) >= _LARGE_BYTES * count:
        return [bytes(data[start:end]) for start, end in pairwise(ends)]
    joined = bytes(data)
    return [joined[start:end] for start, end in pairwise(ends)]


def _split_uniform(data: memoryview, size: int, count: int) -> list[bytes]:
    whole = count - count % _UNIFORM_STEP
    steps = Struct(f"{size}s" * _UNIFORM_STEP).iter_unpack(data[: whole * size])
    pieces: list[bytes] = list(chain.from_iterable(steps))
    pieces.extend(Struct(f"{size}s" * (count - whole)).unpack(data[whole * size :]))
    return pieces
