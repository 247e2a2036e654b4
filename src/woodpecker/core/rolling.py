"""When a segment is closed and the next one opened: by size, age and blocks; how often for other reasons."""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.core.manifest import Options

PREPARE_AT = 0.8  # part of the size at which the next segment is made ready
MOVES_AT_ONCE = 3  # times a log may go on elsewhere one after the other,
MOVE_EVERY_MS = 20_000.0  # and then once in so long, however often its nodes come and go
GROWTH_LIMIT = 4  # while the metadata store is away a segment may grow to this many times its size


def is_due(options: Options, *, size_bytes: int, blocks: int, age_ms: float) -> bool:
    """Whether a segment that holds at least one block should be rolled."""
    return (
        size_bytes >= options.segment_max_bytes
        or blocks >= options.segment_max_blocks
        or age_ms >= options.segment_max_age_s * 1000
    )


def is_overgrown(options: Options, *, size_bytes: int, blocks: int) -> bool:
    """Whether the segment has grown past what may wait for the metadata store to come back."""
    return (
        size_bytes >= options.segment_max_bytes * GROWTH_LIMIT
        or blocks >= options.segment_max_blocks * GROWTH_LIMIT
    )


def should_prepare(options: Options, *, size_bytes: int, blocks: int) -> bool:
    """Whether the next segment should be made ready ahead of the roll."""
    return (
        size_bytes >= options.segment_max_bytes * PREPARE_AT
        or blocks >= options.segment_max_blocks * PREPARE_AT
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """How often a log may still go on elsewhere now; grows back with time."""

    left: float = MOVES_AT_ONCE
    at_ms: float = 0.0


def moved(before: Moves, now_ms: float) -> Moves | None:
    """After one more move; None: not now, a node that comes and goes must not make a roll each time."""
    left = min(MOVES_AT_ONCE, before.left + (now_ms - before.at_ms) / MOVE_EVERY_MS)
    return Moves(left=left - 1, at_ms=now_ms) if left >= 1 else None
