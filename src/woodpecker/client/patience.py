"""How long a reader bears a store that is away, or a state that should not last."""

from __future__ import annotations

import logging

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import Unavailable, WoodpeckerError
from woodpecker.runtime.runtime import Runtime

PATIENCE_MS = 60_000
LIMIT_MS = 5_000.0
WARN_AFTER = 3  # failed tries; the first ones are often the race with a background job

_log = logging.getLogger("woodpecker.reader")


class Patience:
    """Counts what goes wrong between two successes.

    Args:
        what: shown in messages.
        bound_ms: give up after this time without success; None: never (followers).
    """

    def __init__(self, runtime: Runtime, what: str, bound_ms: int | None) -> None:
        self._runtime = runtime
        self._what = what
        self._bound_ms = bound_ms
        self._since_ms: float | None = None  # first failure after the last success
        self._attempts = 0

    def success(self) -> None:
        """Something went well: start counting anew."""
        if self._attempts > WARN_AFTER:
            _log.info("%s: going on after %d failed tries", self._what, self._attempts)
        self._since_ms = None
        self._attempts = 0

    async def bear(self, error: WoodpeckerError) -> None:
        """Pause after ``error``, longer each time. Raises: ``error``, once the bound is passed."""
        now_ms = self._runtime.monotonic_ms()
        if self._since_ms is None:
            self._since_ms = now_ms
        if self._attempts == WARN_AFTER:
            _log.warning("%s: %s; still trying", self._what, error)
        if self._bound_ms is not None and now_ms - self._since_ms >= self._bound_ms:
            raise error
        self._attempts += 1
        pause = delay_ms(self._attempts, self._runtime.random(), limit_ms=LIMIT_MS)
        await self._runtime.sleep_ms(pause)


class Waiting:
    """Bounds a wait that nobody need ever end, for a reader that does not follow."""

    def __init__(self, runtime: Runtime, what: str, bound_ms: int | None) -> None:
        self._runtime = runtime
        self._what = what
        self._bound_ms = bound_ms
        self._since_ms = runtime.monotonic_ms()

    def progress(self) -> None:
        """The reader moved."""
        self._since_ms = self._runtime.monotonic_ms()

    def check(self, seq: int) -> None:
        """Raises: Unavailable: entries that were seen as written stay away."""
        waited_ms = self._runtime.monotonic_ms() - self._since_ms
        if self._bound_ms is not None and waited_ms >= self._bound_ms:
            raise Unavailable(
                f"{self._what}: entries from seq {seq} were written but could not be read for "
                f"{waited_ms / 1000:.0f} s; try again, or open a writer to recover the log"
            )
