"""Buffers of kind ``file``: a pool to pack blocks into, and a window to read through."""

from __future__ import annotations

from collections import deque
from mmap import mmap

from woodpecker.core.file_rules import UNIT_BYTES, padded
from woodpecker.direct_file import HUGE_BYTES, DataFile, make_buffer

BUFFER_BYTES = 4 << 20
SMALL_BYTES = (64 << 10) + UNIT_BYTES  # a block that may be synced inline, with its padding
_LARGE_BYTES = BUFFER_BYTES + HUGE_BYTES  # a block at the target size, and the entry that passed it
_KEPT = 3  # free large buffers kept: one is packed, one waits, one is written
_KEPT_SMALL = 8


class Buffers:
    """Pool of aligned buffers: those above the usual size are made for one block and given back."""

    def __init__(self) -> None:
        self._large: deque[mmap] = deque(maxlen=_KEPT)
        self._small: deque[mmap] = deque(maxlen=_KEPT_SMALL)

    def take(self, size_bytes: int) -> mmap:
        """A buffer of at least ``size_bytes``, in whole units; its bytes are arbitrary."""
        if size_bytes <= SMALL_BYTES:
            return self._reuse(self._small, SMALL_BYTES)
        if size_bytes <= _LARGE_BYTES:
            return self._reuse(self._large, _LARGE_BYTES)
        return make_buffer(padded(size_bytes))

    def give(self, buffer: mmap) -> None:
        """Take it back, to be handed out again. Nobody may use it any more."""
        if len(buffer) == SMALL_BYTES:
            self._small.append(buffer)
        elif len(buffer) == _LARGE_BYTES:
            self._large.append(buffer)

    @staticmethod
    def _reuse(free: deque[mmap], size_bytes: int) -> mmap:
        try:
            return free.pop()
        except IndexError:
            return make_buffer(size_bytes)


class Window:
    """Sequential reading through one buffer that is used again and again."""

    def __init__(self, file: DataFile, *, ahead_bytes: int = BUFFER_BYTES) -> None:
        self._file = file
        self._ahead = ahead_bytes
        self._buffer = make_buffer(2 * ahead_bytes)
        self._start = 0  # file offset of the first byte in the buffer
        self._size = 0

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes [offset, offset + size_bytes), fewer at the end of the file.

        ``offset`` is a whole unit and never less than in the call before. The view is good until the
        next call.
        """
        if offset + size_bytes > self._start + self._size:
            self._load(offset, padded(size_bytes))
        at = offset - self._start
        return memoryview(self._buffer)[at : min(at + size_bytes, self._size)]

    def _load(self, offset: int, size_bytes: int) -> None:
        kept = max(0, self._start + self._size - offset)
        kept -= kept % UNIT_BYTES  # what ends inside a unit was the end of the file then
        at = offset - self._start
        want = max(size_bytes, kept + self._ahead)
        if want > len(self._buffer):
            grown = make_buffer(want)
            grown[:kept] = self._buffer[at : at + kept]
            self._buffer = grown
        elif kept:
            self._buffer.move(0, at, kept)
        view = memoryview(self._buffer)[kept:want]
        self._start = offset
        self._size = kept + self._file.read(view, offset + kept)
