"""Ports between a node, which holds copies, and its keeper, which knows the cluster around it.

``Keeper`` is implemented by ``keeper.py`` with a client of its own, ``Holder`` by the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from woodpecker.codec.compression import Buffer
from woodpecker.core.manifest import End
from woodpecker.core.replica import Identity


class Keeper(Protocol):
    """Looks after what a node holds: seals it, finds out what may go."""

    def tell(self, name: str) -> None:
        """The manifest of log ``name`` has moved, or a copy of it appeared here. Returns at once."""

    async def upload(self, name: str, log_id: str, segment_id: int, end: End) -> None:
        """Write the sealed object of a segment that ends at ``end``, from this node's copy.

        Raises: NotFound, Conflict: the manifest has moved on. Unavailable, OutcomeUnknown, Corrupt.
        """

    async def get_object(
        self, storage: str, key: str, start: int, length: int | None
    ) -> tuple[int | None, Buffer]:
        """Size (None: not there) and bytes of a sealed object, page or register.

        Perhaps fewer bytes than asked for: 8 MiB at most. ``start`` below 0 counts from the end.
        Raises: InvalidRequest: another kind of key. Unavailable.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSegment:
    """A copy on this node that is not below its log's floor."""

    segment_id: int
    incarnation: str  # of the node, that it was written under
    size_bytes: int  # of its blocks as stored; 0: only a fence
    idle_ms: float  # since its writer was last heard of: a block, an Advance


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsealed:
    """Totals over all copies with blocks that are not below their log's floor, queued ones included."""

    segments: int
    size_bytes: int


class Holder(Protocol):
    """What a keeper needs of its node. All calls from the loop's thread."""

    @property
    def identity(self) -> Identity:
        """Name and incarnations of the node."""

    @property
    def pressure(self) -> int:
        """0 fine, 1 soft watermark, 2 hard watermark: blocks are refused."""

    def held_logs(self) -> Sequence[tuple[str, str]]:
        """(log id, name) of each log with copies here, a fence without blocks counts as one."""

    def held_segments(self, log_id: str) -> Sequence[HeldSegment]:
        """Copies of one log, by segment id; empty if there are none."""

    def unsealed(self) -> Unsealed:
        """Running totals: cheap, asked for with every beat of the session."""

    async def set_floor(self, log_id: str, floor: int) -> None:
        """Forget the copies of segments below ``floor``, for ever (``core.replica.new_floor``).

        Returns when the floor is in the journal and synced. Raises: Unavailable: the node stops.
        """

    def set_end(self, log_id: str, segment_id: int, end_block: int) -> None:
        """A manifest shows the segment closed at this block (``Replica.end``). Idempotent."""

    def refuse_new(self, *, refuse: bool) -> None:
        """Whether to refuse blocks, a writer's or a recoverer's, of segments without any block here.

        A drained node does: what is said to be safe to end must stay so. Refused with ``unavailable``.
        """
