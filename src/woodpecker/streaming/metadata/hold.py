"""The hold of one process on one record: taken once, then a beat every few seconds until somebody else has it.

All writes are compare-and-swaps, decided by what the record then shows. An outage of the metadata store
ends nothing: only a record that is another process's does. Others may change the record meanwhile (an
administrator drains a node); the next beat goes on from what they wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from woodpecker.errors import Conflict, WoodpeckerError
from woodpecker.metadata.beats import beat_until_lost
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.codec.records import Key
from woodpecker.streaming.metadata.store import StreamRecords

RETRY_FIRST_MS, RETRY_LIMIT_MS = 100.0, 1_000.0
GOODBYE_S = 3.0

_log = logging.getLogger("woodpecker.streaming")

R = TypeVar("R")


class Hold(Generic[R]):
    """See the module. One event loop.

    Args:
        what: of the record, for the log: "node n1".
        is_mine: whether a record is this process's.
        beaten: the record with its next beat.
        on_change: the record was found to be changed by somebody else, and still is ours.
        on_lost: it is another process's. Called once, with the reason; nothing is written afterwards.
        beat_ms: between beats, on average.
    """

    def __init__(
        self,
        records: StreamRecords,
        runtime: Runtime,
        key: Key[R],
        *,
        what: str,
        is_mine: Callable[[R], bool],
        beaten: Callable[[R], R],
        on_change: Callable[[R], None],
        on_lost: Callable[[str], None],
        beat_ms: float,
    ) -> None:
        self._records = records
        self._runtime = runtime
        self._key = key
        self._what = what
        self._is_mine = is_mine
        self._beaten = beaten
        self._on_change = on_change
        self._on_lost = on_lost
        self._beat_ms = beat_ms
        self._record: R | None = None
        self._version = ""
        self._is_unsure = False  # what was written last may have taken effect, or the version moved
        self._proven_ms = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def record(self) -> R:
        """The record as last written or read."""
        assert self._record is not None, "not taken"
        return self._record

    @property
    def proof_age_ms(self) -> float:
        """Time since the newest beat that was surely written had been sent: nobody saw us silent for longer."""
        return self._runtime.monotonic_ms() - self._proven_ms

    async def take(self, decide: Callable[[R | None], R]) -> R:
        """Make the record this process's, as ``StreamRecords.change`` does, and begin to beat.

        Raises: as ``StreamRecords.change``, and what ``decide`` raises.
        """
        sent_ms = self._runtime.monotonic_ms()
        taken = await self._records.change(self._key, decide)
        self._record, self._version, self._proven_ms = taken.record, taken.version, sent_ms
        self._task = self._runtime.spawn(self._run(), f"beats of {self._what}")
        return taken.record

    async def stop(self, farewell: Callable[[R], R] | None = None) -> None:
        """End the beats; with ``farewell`` leave that record behind, if the metadata store answers soon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._record is None or farewell is None:
            return
        with contextlib.suppress(WoodpeckerError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._write(farewell)

    async def _run(self) -> None:
        lost = await beat_until_lost(
            self._runtime,
            lambda: self._write(self._beaten),
            what=self._what,
            beat_ms=self._beat_ms,
            retry_first_ms=RETRY_FIRST_MS,
            retry_limit_ms=RETRY_LIMIT_MS,
            log=_log,
        )
        self._on_lost(lost)

    async def _write(self, make: Callable[[R], R]) -> str | None:
        """Write what follows the record; returns why that is lost, or None. Raises: try again."""
        while True:
            lost = await self._look_again() if self._is_unsure else None
            if lost is not None:
                return lost
            next_, sent_ms = make(self.record), self._runtime.monotonic_ms()
            self._is_unsure = True
            try:
                version = await self._records.put(self._key, next_, expect=self._version)
            except Conflict:
                continue  # somebody else wrote
            self._record, self._version, self._proven_ms = next_, version, sent_ms
            self._is_unsure = False
            return None

    async def _look_again(self) -> str | None:
        """Read the record and go on from it, if it still is ours."""
        seen = await self._records.load(self._key)
        if seen.record is None or seen.version is None:
            return "its record is removed, as after a day of silence, or the metadata store was replaced"
        if not self._is_mine(seen.record):
            return f"its record is another process's: {seen.record}"
        is_changed = seen.record not in (self._record, self._beaten(self.record))
        self._record, self._version, self._is_unsure = seen.record, seen.version, False
        if is_changed:
            self._on_change(seen.record)
        return None
