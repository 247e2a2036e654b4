"""The pace of work that nobody waits for."""

from __future__ import annotations

from woodpecker.runtime.runtime import Runtime

STEP_BYTES = 1 << 20
REST_SHARE = 2.0  # of the time that was worked
REST_LIMIT_MS = 10.0  # what takes longer waits for something itself, and holds nobody up


class Pace:
    """Lets others have the event loop, the processor and the disk in between: for each MiB of work a rest.

    Args:
        is_hurried: what is done is needed: others get their turn, and no more.
    """

    def __init__(self, runtime: Runtime, *, is_hurried: bool) -> None:
        self._runtime = runtime
        self._share = 0.0 if is_hurried else REST_SHARE
        self._bytes = 0
        self._since_ms = runtime.monotonic_ms()

    async def did(self, size_bytes: int) -> None:
        """So many bytes more are done; perhaps it is time for a rest. Cancellation: at any time."""
        self._bytes += size_bytes
        if self._bytes < STEP_BYTES:
            return
        worked_ms = self._runtime.monotonic_ms() - self._since_ms
        await self._runtime.sleep_ms(min(worked_ms * self._share, REST_LIMIT_MS))
        self._bytes, self._since_ms = 0, self._runtime.monotonic_ms()
