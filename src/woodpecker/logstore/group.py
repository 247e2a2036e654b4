"""One group of the journal while it is put together: what one write and one sync make durable.

Small records are packed one behind the other into a stage of aligned memory; a block that lies in a place
of its own (``buffers.py``) is written from there. Parts are whole units.
"""

from __future__ import annotations

from collections.abc import Callable

from woodpecker.codec.compression import Buffer
from woodpecker.codec.journal import (
    RECORD_BYTES,
    UNIT_BYTES,
    aligned,
    begin_group,
    padded,
)
from woodpecker.logstore.buffers import Buffers, Place

STAGE_BYTES = 256 << 10

Done = Callable[[Exception | None], None]
"""Told when a group is on the disk (None), or that it never will be."""


class Stage:
    """Where small records are packed. Groups follow one another in it; a full one is replaced."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.view = memoryview(b"")
        self.free_at = 0  # whole units

    def ensure(self, size_bytes: int) -> None:
        """Have room for so many bytes from ``free_at`` on."""
        if self.free_at + size_bytes > len(self.view):
            self.view = memoryview(self._buffers.take(max(STAGE_BYTES, size_bytes)))
            self.free_at = 0


class Group:
    """Records on their way to ``offset`` of journal file ``file``."""

    __slots__ = ("_at", "_from", "_head", "_stage", "_view", "done", "file", "offset", "parts",
                 "payload_bytes", "records", "records_at", "size_bytes")  # fmt: skip

    def __init__(self, file: int, offset: int, stage: Stage) -> None:
        self.file = file
        self.offset = offset
        self.records_at = (
            offset  # where the first record lies: behind the file header, if it has one
        )
        self.parts: list[memoryview] = []
        self.size_bytes = 0  # of ``parts``, records only
        self.payload_bytes = 0  # handed over by callers, for flow control
        self.records = 0
        self.done: list[Done] = []
        self._stage = stage
        self._view: memoryview | None = None  # of the stage, while a part is open in it
        self._from = self._at = 0
        self._head: tuple[memoryview, int] | None = None

    @property
    def total_bytes(self) -> int:
        """Of all records so far, in whole units."""
        return self.size_bytes + padded(self._at - self._from)

    def put_header(self, unit: Buffer) -> None:
        """Begin the file with this header; before any record."""
        stage = self._stage
        stage.ensure(UNIT_BYTES)
        part = stage.view[stage.free_at : stage.free_at + UNIT_BYTES]
        part[:] = unit
        stage.free_at += UNIT_BYTES
        self.parts.append(part)
        self.records_at += UNIT_BYTES

    def grown_by(self, payload_bytes: int, *, in_place: bool) -> int:
        """Size in whole units with one record more."""
        if in_place:
            return self.total_bytes + padded(RECORD_BYTES + payload_bytes)
        return self.total_bytes + padded(aligned(RECORD_BYTES + payload_bytes)) + UNIT_BYTES

    def small(self, payload: Buffer) -> tuple[memoryview, int, int]:
        """Put a payload behind room for its record's header: (memory, where in it, offset in the file)."""
        size = RECORD_BYTES + len(payload)
        view = self._open(aligned(size))
        at = self._at
        view[at + RECORD_BYTES : at + size] = payload
        self._at = at + aligned(size)
        if self._at > at + size:
            view[at + size : self._at] = bytes(self._at - at - size)
        if self._head is None:
            self._head = view, at
        return view, at, self.records_at + self.size_bytes + at - self._from

    def in_place(self, place: Place, payload_bytes: int) -> tuple[memoryview, int, int]:
        """A block that lies in ``place`` behind room for its record's header; as ``small``."""
        self._close()
        size = RECORD_BYTES + payload_bytes
        whole = padded(size)
        place[size:whole] = bytes(whole - size)
        view = memoryview(place)
        if self._head is None:
            self._head = view, 0
        offset = self.records_at + self.size_bytes
        self.parts.append(view[:whole])
        self.size_bytes += whole
        return view, 0, offset

    def finish(self, seed: int) -> None:
        """No record is added any more."""
        self._close()
        assert self._head is not None, "a group of nothing"
        begin_group(*self._head, seed, self.size_bytes // UNIT_BYTES)
        self._head = None

    def _open(self, size_bytes: int) -> memoryview:
        """The stage, with room for so many bytes at ``_at``."""
        view = self._view
        if view is not None and self._at + size_bytes <= len(view):
            return view
        self._close()
        self._stage.ensure(size_bytes)
        view = self._view = self._stage.view
        self._from = self._at = self._stage.free_at
        return view

    def _close(self) -> None:
        """End the part that is open in the stage."""
        view = self._view
        if view is None:
            return
        end = self._from + padded(self._at - self._from)
        view[self._at : end] = bytes(end - self._at)
        self.parts.append(view[self._from : end])
        self.size_bytes += end - self._from
        self._stage.free_at = end
        self._view = None
        self._from = self._at = 0
