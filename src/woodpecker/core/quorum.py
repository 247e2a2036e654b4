"""Arithmetic of ensembles: N members, A acknowledgements, and what follows from the two numbers.

A block is confirmed once A members have it on disk. Whoever wants to end a segment must stop N - A + 1
members (the fence cover): every set of A then has a stopped member in it, so nothing more can be
confirmed, and everything confirmed is known to at least one of those that were stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from woodpecker.core.ids import NO_BLOCK
from woodpecker.errors import InvalidRequest


def ack_quorum(members: int) -> int:
    """A for N members: 2 of 3, 3 of 5, and 2 of 2 while only two nodes live.

    Raises: InvalidRequest: fewer than two members keep no promise.
    """
    if members < 2:
        raise InvalidRequest(f"an ensemble of {members}: at least two nodes must hold each block")
    return members // 2 + 1


def fence_cover(members: int, acks: int) -> int:
    """How many members must be stopped so that no block can be confirmed any more: N - A + 1."""
    return members - acks + 1


def confirmed(acked: Sequence[int], acks: int) -> int:
    """The LAC: highest block that, with all before it, is on at least ``acks`` disks.

    Args:
        acked: for each member its last synced block; NO_BLOCK for none. Members take blocks in order,
            so having a block means having all before it.
    """
    return sorted(acked, reverse=True)[acks - 1] if len(acked) >= acks else NO_BLOCK
