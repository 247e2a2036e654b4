"""The tail buffer of a pchannel: acknowledged batches and ephemerals in memory (rules, section 9).

A reader at n attaches iff first <= n <= next. Slots have numbers of their own, so ephemerals have a
place between batches. Evicted is only what log readers are guaranteed to see, oldest first. **P**
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from woodpecker.streaming.core.facts import Facts

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot(Generic[Content]):
    """One acknowledged batch, or (``facts`` None) an ephemeral at ``tick`` on ``vcid``."""

    number: int
    content: Content
    size_bytes: int
    facts: Facts | None
    vcid: int
    tick: int


class TailBuffer(Generic[Content]):
    """Slots of one pchannel. ``next``: seq after the newest batch; ``first``: seq of the oldest one kept."""

    def __init__(self, next_seq: int) -> None:
        """An empty buffer of a log whose acknowledged end is ``next_seq``."""
        raise NotImplementedError

    def append(self, facts: Facts, content: Content, size_bytes: int) -> None:
        """The next acknowledged batch."""
        raise NotImplementedError

    def append_ephemeral(
        self, vcid: int, tick: int, content: Content, size_bytes: int, *, most_bytes: int
    ) -> int:
        """An ephemeral after all so far; the oldest ones go while all take more than ``most_bytes``.

        Returns: how many were dropped.
        """
        raise NotImplementedError

    def attach(self, seq: int) -> int | None:
        """Number of the slot that a reader whose next seq is ``seq`` reads first; None: it must catch up."""
        raise NotImplementedError

    def read(self, number: int) -> Slot[Content] | None:
        """The first slot at or after ``number``; None: nothing yet.

        Raises: KeyError: batches at or after ``number`` were evicted: catch up from your next seq.
        """
        raise NotImplementedError

    def evict(self, *, visible: int, excess_bytes: int) -> int:
        """Drop oldest slots that end at or below ``visible`` until ``excess_bytes`` are free, or none is left.

        Returns: bytes freed.
        """
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """Of all slots."""
        raise NotImplementedError
