"""Waking one task that waits for something to do, or for some time to pass."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings are kept: one that came before the wait ends it at once. For one task."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """End the wait, present or next."""
        self._event.set()

    async def wait(self, timeout_ms: float | None = None) -> None:
        """Return after a ring, or after ``timeout_ms``."""
        if timeout_ms is None:
            await self._event.wait()
        else:
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._event.wait()
            except TimeoutError:
                return
        self._event.clear()
