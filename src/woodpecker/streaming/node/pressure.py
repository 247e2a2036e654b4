"""What presses on a pchannel, measured; ``core/rates.py`` says what producers are told."""

from __future__ import annotations

from collections.abc import Sequence

from woodpecker.streaming.core.rates import Load
from woodpecker.streaming.node.life import Life

SOFT_AGE_S, HARD_AGE_S = 1.0, 5.0  # of the oldest unacknowledged batch
SOFT_UNSAVED_BYTES, HARD_UNSAVED_BYTES = 256 << 20, 1 << 30


def loads_of(life: Life, uncheckpointed_bytes: int) -> Sequence[Load]:
    """All sources of pressure now."""
    queue = life.settings.queue_bytes
    age_s = (life.line.oldest_unacked_us or 0) / 1e6
    return (
        Load(name="queue", value=life.line.queued_bytes, soft=queue * 0.75, hard=queue * 0.95),
        Load(name="oldest unacknowledged", value=age_s, soft=SOFT_AGE_S, hard=HARD_AGE_S),
        Load(
            name="uncheckpointed",
            value=uncheckpointed_bytes,
            soft=SOFT_UNSAVED_BYTES,
            hard=HARD_UNSAVED_BYTES,
        ),
    )
