"""When a segment is made ready, rolled, and has grown too far; how often a log moves."""

from __future__ import annotations

import pytest

from woodpecker.core.manifest import Options
from woodpecker.core.rolling import (
    MOVE_EVERY_MS,
    MOVES_AT_ONCE,
    Moves,
    is_due,
    is_overgrown,
    moved,
    should_prepare,
)

OPTIONS = Options(segment_max_bytes=1000, segment_max_blocks=10, segment_max_age_s=60)


@pytest.mark.parametrize(
    ("size", "blocks", "age", "due"),
    [
        (999, 9, 59_999, False),
        (1000, 1, 0, True),
        (1, 10, 0, True),
        (1, 1, 60_000, True),
    ],
)
def test_due_by_size_blocks_or_age(size: int, blocks: int, age: float, due: bool):
    assert is_due(OPTIONS, size_bytes=size, blocks=blocks, age_ms=age) is due


def test_made_ready_before_it_is_due_and_overgrown_long_after():
    assert not should_prepare(OPTIONS, size_bytes=799, blocks=7)
    assert should_prepare(OPTIONS, size_bytes=800, blocks=1)
    assert should_prepare(OPTIONS, size_bytes=1, blocks=8)
    assert not is_overgrown(OPTIONS, size_bytes=3999, blocks=39)
    assert is_overgrown(OPTIONS, size_bytes=4000, blocks=1)
    assert is_overgrown(OPTIONS, size_bytes=1, blocks=40)


def test_some_moves_at_once_then_one_now_and_then():
    moves: Moves | None = Moves(at_ms=1000.0)
    for _ in range(MOVES_AT_ONCE):
        assert moves is not None
        moves = moved(moves, 1000.0)
    assert moves is not None
    assert moved(moves, 1000.0) is None
    assert moved(moves, 999.0 + MOVE_EVERY_MS) is None
    later = moved(moves, 1001.0 + MOVE_EVERY_MS)
    assert later is not None
    assert moved(later, 1002.0 + MOVE_EVERY_MS) is None


def test_what_is_not_used_is_not_saved_up_without_end():
    moves = moved(Moves(at_ms=0.0), 1000 * MOVE_EVERY_MS)
    assert moves == Moves(left=MOVES_AT_ONCE - 1, at_ms=1000 * MOVE_EVERY_MS)
