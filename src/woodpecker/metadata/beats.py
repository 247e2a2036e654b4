"""The rhythm in which a process tells that it lives, whatever becomes of the metadata store meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime


async def beat_until_lost(
    runtime: Runtime,
    beat: Callable[[], Awaitable[str | None]],
    *,
    what: str,
    beat_ms: float,
    retry_first_ms: float,
    retry_limit_ms: float,
    log: logging.Logger,
) -> str:
    """Beat every ``beat_ms`` on average, sooner again after a beat that failed, which is logged once.

    Args:
        beat: tells it; returns why that is over, or None.
        what: lives, for the log: "node n1".
    Returns: why it is over.
    Cancellation: at any time; a beat may have been told.
    """
    failures = 0
    while True:
        pause_ms = beat_ms * (0.75 + runtime.random() / 2)
        if failures:
            pause_ms = delay_ms(
                failures, runtime.random(), first_ms=retry_first_ms, limit_ms=retry_limit_ms
            )
        await runtime.sleep_ms(pause_ms)
        try:
            lost = await beat()
        except WoodpeckerError as error:
            failures += 1
            if failures == 1:
                log.warning("%s cannot tell that it lives: %s", what, error)
            continue
        failures = 0
        if lost is not None:
            log.error("%s stops: %s", what, lost)
            return lost
