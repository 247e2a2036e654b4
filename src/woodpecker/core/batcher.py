"""Group commit: collecting entries into drafts of blocks, and when to cut one (protocol, section 4).

There is no tick. A full draft is cut as soon as a slot is free; a partial one only when the store is
idle enough, or its linger has ended, or a flush waits. So at low load an append is flushed at once,
and under load blocks grow by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from woodpecker.core.register import Control

HeaderList = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMark:
    """A batch inside a draft: ``count`` entries from index ``first``; producer columns if it has any.

    ``producer`` is "" for a batch that only carries an opaque caller ``column``.
    """

    first: int
    count: int
    producer: str = ""
    producer_epoch: int = 0
    sequence: int = 0
    column: bytes = b""


class Draft:
    """Entries of one block to be, in order; mutable, owned by one writer.

    Columns other than payloads stay None until an entry needs them, so the plain case costs two list
    appends and an addition. ``headers`` and ``timestamps`` have one item per entry once they exist.
    """

    __slots__ = (
        "base_seq",
        "batches",
        "controls",
        "headers",
        "payload_bytes",
        "payloads",
        "timestamps",
    )

    def __init__(self, base_seq: int) -> None:
        self.base_seq = base_seq
        self.payloads: list[bytes | bytearray | memoryview] = []
        self.payload_bytes = 0
        self.headers: list[HeaderList] | None = None
        self.timestamps: list[int] | None = None  # as to be stored, never decreasing
        self.batches: list[BatchMark] = []
        self.controls: list[Control] = []

    @property
    def count(self) -> int:
        """Entries so far; 0 for a pure control block."""
        return len(self.payloads)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write at all."""
        return not self.payloads and not self.controls


def may_cut(
    *,
    full: bool,
    in_flight: int,
    slots: int,
    partial_slots: int,
    flushing: bool,
    linger_over: bool,
) -> bool:
    """Whether the oldest draft may be cut into a block now."""
    if in_flight >= slots:
        return False
    if full or flushing:
        return True
    return linger_over and in_flight < partial_slots
