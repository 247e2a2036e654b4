"""How long to wait before another try."""

from __future__ import annotations


def delay_ms(
    attempt: int, chance: float, *, first_ms: float = 20.0, limit_ms: float = 2_000.0
) -> float:
    """Exponential delay with full jitter in its upper half.

    Args:
        attempt: 1 for the first repetition.
        chance: uniform in [0, 1), drawn by the caller.
    """
    full = min(limit_ms, first_ms * 2.0 ** min(attempt - 1, 30))
    return full * (0.5 + chance / 2)
