"""How much of a pchannel's log may go (rules, section 11)."""

from __future__ import annotations

from collections.abc import Iterable

from woodpecker.streaming.core.records import CheckpointsRecord


def trim_point(
    checkpoints: CheckpointsRecord, *, cursor_lows: Iterable[int], retention_low: int
) -> int:
    """The seq below which everything may go; 0: nothing.

    The *older* of two checkpoints must still be of use: the newer one may turn out unreadable. All
    arguments are ``low`` of what must stay readable, so no transaction is cut that anybody may still
    see. **P** (``low`` grows with seq: the least ``low`` is the ``low`` of the least place.)

    Args:
        cursor_lows: of all cursors within their hold, read after the checkpoints were.
        retention_low: ``low`` of the first batch that retention keeps.
    """
    kept = checkpoints.checkpoints[:2]
    if len(kept) < 2:
        return 0
    older = kept[1]
    return min(older.low, older.seq, retention_low, *cursor_lows)
