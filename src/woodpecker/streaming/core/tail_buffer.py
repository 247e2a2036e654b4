"""The tail buffer of a pchannel: acknowledged batches and ephemerals in memory (rules, section 9).

A reader at n attaches iff first <= n <= next; an empty buffer has first = next, so an idle channel
attaches without a write. Slots have numbers of their own, so ephemerals have a place between batches. Evicted
is only what log readers are guaranteed to see, oldest first. **P**
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from woodpecker.streaming.core.facts import Facts

Content = TypeVar("Content")

SWEEP = 1024  # evicted slots are cut off the list so many at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot(Generic[Content]):
    """One acknowledged batch, or (``facts`` None) an ephemeral at ``tick`` on ``vcid``."""

    number: int
    end: int  # seq after all batches up to this slot
    content: Content | None  # None: an ephemeral that was dropped
    size_bytes: int
    facts: Facts | None
    vcid: int
    tick: int


class TailBuffer(Generic[Content]):
    """Slots of one pchannel.

    Attributes:
        first: seq of the oldest batch kept; ``next`` if there is none.
        next: seq after the newest acknowledged batch.
        size_bytes: of all slots. ephemeral_bytes: of those without a seq.
    """

    def __init__(self, next_seq: int) -> None:
        """An empty buffer of a log whose acknowledged end is ``next_seq``."""
        self.first = self.next = next_seq
        self.size_bytes = self.ephemeral_bytes = 0
        self._slots: list[Slot[Content]] = []  # the slot ``number`` is at [number - _base]
        self._base = 0
        self._head = 0  # slots before it in the list were evicted
        self._lost = 0  # batches were evicted below this number
        self._ephemerals: deque[int] = deque()  # numbers of those not dropped

    def append(self, facts: Facts, content: Content, size_bytes: int) -> None:
        """The next acknowledged batch."""
        assert facts.seq == self.next, f"batch {facts.seq} where {self.next} must follow"
        self.next = facts.end
        self._add(content, size_bytes, facts, facts.column.vcid, facts.tick)

    def append_ephemeral(
        self, vcid: int, tick: int, content: Content, size_bytes: int, *, most_bytes: int
    ) -> int:
        """An ephemeral after all so far; the oldest ones go while all take more than ``most_bytes``.

        Returns: how many were dropped.
        """
        self._ephemerals.append(self._add(content, size_bytes, None, vcid, tick))
        self.ephemeral_bytes += size_bytes
        dropped = 0
        while self.ephemeral_bytes > most_bytes:
            at = self._ephemerals.popleft() - self._base
            slot = self._slots[at]
            self._slots[at] = replace(slot, content=None, size_bytes=0)
            self.size_bytes -= slot.size_bytes
            self.ephemeral_bytes -= slot.size_bytes
            dropped += 1
        return dropped

    def attach(self, seq: int) -> int | None:
        """Number of the slot that a reader whose next seq is ``seq`` reads first; None: it must catch up.

        The check and the answer are one step. **P**
        """
        if not self.first <= seq <= self.next:
            return None
        return self._base + bisect_right(self._slots, seq, lo=self._head, key=_end_of)

    def read(self, number: int) -> Slot[Content] | None:
        """The first slot at or after ``number``; None: nothing yet. Go on at its number + 1.

        Raises: KeyError: batches at or after ``number`` were evicted: catch up from your next seq.
        """
        if number < self._lost:
            raise KeyError(number)
        for at in range(max(number - self._base, self._head), len(self._slots)):
            slot = self._slots[at]
            if slot.content is not None:
                return slot
        return None

    def evict(self, *, visible: int, excess_bytes: int) -> int:
        """Drop oldest slots that end at or below ``visible`` until ``excess_bytes`` are free, or none is left.

        ``visible`` is the writer's: what every reader of the log is guaranteed to see. **P**
        Returns: bytes freed.
        """
        freed = 0
        while self._head < len(self._slots) and freed < excess_bytes:
            slot = self._slots[self._head]
            if slot.facts is not None and slot.end > visible:
                break
            self._slots[self._head] = replace(slot, content=None)  # only the list waits for a sweep
            self._head += 1
            freed += slot.size_bytes
            if slot.facts is not None:
                self.first, self._lost = slot.end, slot.number + 1
            elif slot.content is not None:
                self._ephemerals.popleft()
                self.ephemeral_bytes -= slot.size_bytes
        self.size_bytes -= freed
        if self._head >= max(SWEEP, len(self._slots) // 2):
            del self._slots[: self._head]
            self._base, self._head = self._base + self._head, 0
        return freed

    def _add(
        self, content: Content, size_bytes: int, facts: Facts | None, vcid: int, tick: int
    ) -> int:
        number = self._base + len(self._slots)
        self.size_bytes += size_bytes
        self._slots.append(
            Slot(
                number=number,
                end=self.next,
                content=content,
                size_bytes=size_bytes,
                facts=facts,
                vcid=vcid,
                tick=tick,
            )
        )
        return number


def _end_of(slot: Slot[Content]) -> int:
    return slot.end
