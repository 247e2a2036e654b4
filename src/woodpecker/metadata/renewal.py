"""Keeping one lease alive in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from woodpecker.errors import Conflict, WoodpeckerError
from woodpecker.runtime.runtime import Runtime

RENEWALS_PER_TTL = 3
RETRIES_PER_TTL = 12

_log = logging.getLogger(__name__)


class Renewal:
    """Renews every third of the ttl, more often after a failure, and knows when the lease is lost.

    Args:
        runtime: clock and tasks.
        name: of the lease, for messages.
        ttl_ms: how long a renewal holds, from before it was sent.
        sent_ms: monotonic time before the request that took the lease was sent.
        renew: renews once; returns the monotonic time before its request was sent. Raises Conflict
            if somebody else has the lease, any other of our errors if that is not known.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        ttl_ms: int,
        sent_ms: float,
        renew: Callable[[], Awaitable[float]],
    ) -> None:
        self._runtime = runtime
        self._name = name
        self._ttl_ms = ttl_ms
        self._until_ms = sent_ms + ttl_ms
        self._renew = renew
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        """True once the lease may have passed to somebody else; stays true."""
        self._lost = self._lost or self._runtime.monotonic_ms() >= self._until_ms
        return self._lost

    def start(self) -> None:
        """Begin to renew."""
        self._task = self._runtime.spawn(self._run(), f"lease {self._name}")

    async def stop(self) -> None:
        """End the renewal; the lease runs out by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def give_up(self) -> None:
        """From now on the lease counts as lost."""
        self._lost = True

    async def _run(self) -> None:
        pause_ms = self._ttl_ms / RENEWALS_PER_TTL
        why = "another process has it"
        while True:
            await self._runtime.sleep_ms(pause_ms)
            if self.lost:
                why = f"it was not renewed within {self._ttl_ms / 1000:g} s (a pause of this process?)"
                break
            try:
                self._until_ms = await self._renew() + self._ttl_ms
                pause_ms = self._ttl_ms / RENEWALS_PER_TTL
            except Conflict:
                self._lost = True
                break
            except WoodpeckerError as error:
                _log.warning("lease %s not renewed, trying again: %s", self._name, error)
                pause_ms = self._ttl_ms / RETRIES_PER_TTL
        _log.warning("lease %s is lost: %s; what needs it waits until it is free", self._name, why)
