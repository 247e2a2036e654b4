"""Tail buffers of a node: what was acknowledged last, by reference, within one budget of bytes.

The budget holds for what is read again for consumers that are behind, too (``runs.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from woodpecker.observability.base import SILENT, Observer
from woodpecker.observability.names import Counter, Gauge
from woodpecker.streaming.core.tail_buffer import Slot, TailBuffer
from woodpecker.streaming.node.pieces import Ephemeral, Piece

Content = Piece | Ephemeral
EVICT_SHARE = 16  # this part of the budget is freed at once, so that not every batch looks for room


class Holder(Protocol):
    """Who holds bytes of the budget."""

    @property
    def size_bytes(self) -> int:
        """Of all that is held."""

    def evict(self, excess_bytes: int) -> int:
        """Drop so much, or all that may go; tell ``freed``. Returns: bytes freed."""


class TailBudget:
    """The bytes that tail buffers and runs of a node may hold together."""

    def __init__(self, limit_bytes: int, ephemeral_bytes: int, observer: Observer = SILENT) -> None:
        self.limit_bytes = limit_bytes
        self.ephemeral_bytes = ephemeral_bytes
        self.size_bytes = 0
        self.observer = observer
        self._holders: dict[int, Holder] = {}
        self._made = 0

    def open(self, next_seq: int, visible: Callable[[], int]) -> Tail:
        """A buffer for a log whose acknowledged end is ``next_seq``; ``visible``: what log readers see."""
        tail = Tail(self, self._made + 1, next_seq, visible)
        self.join(tail)
        return tail

    def join(self, holder: Holder) -> int:
        """From now on it may be told to evict. Returns: its number, for ``closed``."""
        self._made += 1
        self._holders[self._made] = holder
        return self._made

    def grew(self, by_bytes: int) -> None:
        """Make room, where most is held."""
        self.size_bytes += by_bytes
        if self.observer is not SILENT:
            self.observer.gauge(Gauge.STREAM_BUFFER_BYTES, self.size_bytes)
        if self.size_bytes <= self.limit_bytes:
            return
        excess = self.size_bytes - self.limit_bytes + self.limit_bytes // EVICT_SHARE
        for holder in sorted(self._holders.values(), key=lambda one: -one.size_bytes):
            excess -= holder.evict(excess)
            if excess <= 0:
                break

    def freed(self, by_bytes: int, *, is_evicted: bool = True) -> None:
        """Somebody let go."""
        self.size_bytes -= by_bytes
        if self.observer is SILENT:
            return
        self.observer.gauge(Gauge.STREAM_BUFFER_BYTES, self.size_bytes)
        if is_evicted:
            self.observer.count(Counter.STREAM_EVICTED_BYTES, by_bytes)

    def closed(self, number: int) -> None:
        """A holder has ended; what it held was told to ``freed``."""
        self._holders.pop(number, None)


class Tail:
    """The tail buffer of one owner's life."""

    def __init__(
        self, budget: TailBudget, number: int, next_seq: int, visible: Callable[[], int]
    ) -> None:
        self._budget = budget
        self._number = number
        self._visible = visible
        self._buffer: TailBuffer[Content] = TailBuffer(next_seq)
        self._next = 0  # number of the next slot
        self.ephemeral_dropped = 0

    @property
    def size_bytes(self) -> int:
        """Of all that is held."""
        return self._buffer.size_bytes

    def append(self, piece: Piece) -> Slot[Content]:
        """The next acknowledged batch; its slot."""
        self._buffer.append(piece.facts, piece, piece.size_bytes)
        slot = self._newest()
        assert slot is not None
        self._budget.grew(piece.size_bytes)
        return slot

    def append_ephemeral(self, ephemeral: Ephemeral) -> Slot[Content] | None:
        """Messages that are never written, after all so far; their slot, unless they are too large."""
        before = self._buffer.size_bytes
        self.ephemeral_dropped += self._buffer.append_ephemeral(
            ephemeral.vcid, ephemeral.tick, ephemeral, ephemeral.size_bytes,
            most_bytes=self._budget.ephemeral_bytes,
        )  # fmt: skip
        slot = self._newest()
        self._budget.grew(self._buffer.size_bytes - before)
        return slot

    def _newest(self) -> Slot[Content] | None:
        slot = self._buffer.read(self._next)
        if slot is not None:
            self._next = slot.number + 1
        return slot

    def attach(self, seq: int) -> int | None:
        """Number of the slot with which a reader goes on whose next seq is ``seq``; None: catch up."""
        return self._buffer.attach(seq)

    def read(self, number: int) -> Slot[Content] | None:
        """The first slot at or after ``number``. Raises: KeyError: evicted meanwhile: catch up."""
        return self._buffer.read(number)

    def evict(self, excess_bytes: int) -> int:
        """Drop the oldest; returns the bytes freed."""
        freed = self._buffer.evict(visible=self._visible(), excess_bytes=excess_bytes)
        self._budget.freed(freed)
        return freed

    def close(self) -> None:
        """Let everything go."""
        self._budget.freed(self._buffer.size_bytes, is_evicted=False)
        self._budget.closed(self._number)
        self._buffer = TailBuffer(0)
