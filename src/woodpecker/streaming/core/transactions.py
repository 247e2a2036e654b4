"""When the owner gives a transaction up (rules, section 8). Verdicts are records; readers know no clock."""

from __future__ import annotations

from collections.abc import Iterable

SLOW_US = 1_000_000  # while the oldest unacknowledged batch is older than this, timers stand still
KEEP_ALIVE_OVER = "keep-alive"
TOO_OLD = "max age"


class Expiry:
    """Timers of the open transactions of one life of an owner; monotonic, and still while appends are slow."""

    def __init__(self, *, max_age_ms: int, monotonic_us: int) -> None:
        """Args: monotonic_us: now."""
        raise NotImplementedError

    def advance(self, monotonic_us: int, oldest_unacked_us: int | None) -> None:
        """Let time pass. ``oldest_unacked_us``: age of the oldest unacknowledged batch; None: there is none.

        Call it at least once a second, and before every other method.
        """
        raise NotImplementedError

    def begin(self, txn: int, keep_alive_ms: int) -> None:
        """A transaction was begun, or found open at a take-over: full keep-alive, age 0."""
        raise NotImplementedError

    def touch(self, txn: int) -> None:
        """A body or KeepAlive came. Unknown ones are passed over."""
        raise NotImplementedError

    def end(self, txn: int) -> None:
        """It is decided."""
        raise NotImplementedError

    def keep_only(self, open_: Iterable[int]) -> None:
        """Forget all others: they were decided otherwise (epoch, deletion)."""
        raise NotImplementedError

    def due(self) -> list[tuple[int, str]]:
        """(transaction, reason) of those to be given up now; they stay due until ``end``."""
        raise NotImplementedError

    def next_due_us(self) -> int | None:
        """How long until one may be due, microseconds of running time; None: none is open."""
        raise NotImplementedError
