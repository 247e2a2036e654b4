"""Bounded retries for requests that may be repeated without harm: reads, listings, deletions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from woodpecker.errors import Unavailable
from woodpecker.runtime.runtime import Runtime

TRIES = 5
FIRST_DELAY_MS = 50.0
LONGEST_DELAY_MS = 2_000.0

T = TypeVar("T")


async def retry(runtime: Runtime, attempt: Callable[[], Awaitable[T]]) -> T:
    """Call ``attempt`` until it does not raise Unavailable, ``TRIES`` times at most.

    Between tries: a random part of a delay that doubles, so that many clients do not return at once.
    Raises:
        Unavailable: the last one; every other error at once.
    """
    for tried in range(1, TRIES + 1):
        try:
            return await attempt()
        except Unavailable:
            if tried == TRIES:
                raise
        await runtime.sleep_ms(delay_ms(tried, runtime.random()))
    raise AssertionError("unreachable")


def delay_ms(tried: int, chance: float) -> float:
    """Delay after ``tried`` failures, ``chance`` in [0, 1)."""
    return chance * float(min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2**tried))
