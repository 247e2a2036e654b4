"""When the owner gives a transaction up (rules, section 8). Verdicts are records; readers know no clock."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

SLOW_US = 1_000_000  # while the oldest unacknowledged batch is older than this, timers stand still
STILL_US = 2_000_000  # of the time between two looks no more counts: the process stood still
KEEP_ALIVE_OVER, TOO_OLD = "expired", "too old"  # reasons, as errors.Aborted has them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timer:
    keep_alive_us: int
    begun_us: int  # of running time
    alive_us: int


class Expiry:
    """Timers of the open transactions of one life of an owner; monotonic, and still while appends are slow.

    After a take-over make a new one and ``begin`` everything found open: each gets its keep-alive anew.
    """

    def __init__(self, *, max_age_ms: int, monotonic_us: int) -> None:
        """Args: monotonic_us: now."""
        self._max_age_us = max_age_ms * 1000
        self._now_us = monotonic_us
        self._running_us = 0  # time that counted
        self._timers: dict[int, _Timer] = {}

    def advance(self, monotonic_us: int, oldest_unacked_us: int | None) -> None:
        """Let time pass. ``oldest_unacked_us``: age of the oldest unacknowledged batch; None: there is none.

        Call it at least once a second, and before every other method.
        """
        passed = min(max(0, monotonic_us - self._now_us), STILL_US)
        slow = max(0, (oldest_unacked_us or 0) - SLOW_US)
        self._running_us += max(0, passed - slow)
        self._now_us = max(self._now_us, monotonic_us)

    def begin(self, txn: int, keep_alive_ms: int) -> None:
        """A transaction was begun, or found open at a take-over: full keep-alive, age 0."""
        now = self._running_us
        self._timers[txn] = _Timer(keep_alive_us=keep_alive_ms * 1000, begun_us=now, alive_us=now)

    def touch(self, txn: int) -> None:
        """A body or KeepAlive came. Unknown ones are passed over."""
        timer = self._timers.get(txn)
        if timer is not None:
            self._timers[txn] = replace(timer, alive_us=self._running_us)

    def keep_only(self, still_open: Collection[int]) -> None:
        """Forget all others: they are decided. ``still_open``: ``fold.open``."""
        for txn in [txn for txn in self._timers if txn not in still_open]:
            del self._timers[txn]

    def due(self) -> list[tuple[int, str]]:
        """(transaction, reason) of those to be given up now; they stay due until they are decided."""
        found = []
        for txn, timer in self._timers.items():
            if self._running_us - timer.begun_us >= self._max_age_us:
                found.append((txn, TOO_OLD))
            elif self._running_us - timer.alive_us >= timer.keep_alive_us:
                found.append((txn, KEEP_ALIVE_OVER))
        return found

    def next_due_us(self) -> int | None:
        """How long until one may be due, microseconds of running time; None: none is open."""
        ends = [
            min(timer.begun_us + self._max_age_us, timer.alive_us + timer.keep_alive_us)
            for timer in self._timers.values()
        ]
        return max(0, min(ends) - self._running_us) if ends else None
