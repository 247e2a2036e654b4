"""This node's wall clock, as it is told to coordinators.

Coordinators give nothing to a node whose clock is wrong; one that jumps would be used before they know. So no
term begins by a clock that has just jumped: the ticks of a log never go back again.
"""

from __future__ import annotations

from woodpecker.runtime.runtime import Runtime

MOST_JUMP_US = 60_000_000  # a minute, between two looks
SETTLED_US = 5_000_000  # by then coordinators have heard of it


class ToldClock:
    """Of one node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ahead_us: int | None = None  # of the monotonic clock, when last looked at
        self._jumped_us = 0
        self._until_us = 0  # on the monotonic clock: not to be used before

    def tell(self) -> int:
        """The wall clock, microseconds, for a coordinator."""
        now_us, monotonic_us = self._runtime.now_us(), int(self._runtime.monotonic_ms() * 1000)
        ahead_us = now_us - monotonic_us
        jumped_us = 0 if self._ahead_us is None else ahead_us - self._ahead_us
        if abs(jumped_us) > MOST_JUMP_US:
            self._jumped_us, self._until_us = jumped_us, monotonic_us + SETTLED_US
        elif monotonic_us >= self._until_us:
            self._jumped_us = 0
        self._ahead_us = ahead_us
        return now_us

    @property
    def jumped_us(self) -> int:
        """How far it has just jumped; 0: not so far that it matters, or coordinators have heard, or none is there."""
        if self._ahead_us is not None:
            self.tell()
        return self._jumped_us
