"""What a serving owner does besides serving: clock, expiry, rates, checkpoints, retention."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any

from woodpecker.errors import OutcomeUnknown, WoodpeckerError
from woodpecker.observability.names import Counter
from woodpecker.streaming.core import rates
from woodpecker.streaming.core.records import CheckpointsRecord
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.node.checkpoints import name_of, sweep_checkpoints, write_checkpoint
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.pressure import loads_of
from woodpecker.streaming.node.retention import Retention

LOOK_MS = 1000.0
LAG_MS = 5 * 60_000.0  # a store has to be asked for all cursors

_log = logging.getLogger("woodpecker.streaming")


class Upkeep:
    """The tasks of one life. Stop it before the life is closed.

    Args:
        on_lost: the life has ended by itself; called once.
    """

    def __init__(self, life: Life, on_lost: Callable[[], None]) -> None:
        self._life = life
        self._on_lost = on_lost
        self._saved_seq = 0  # of the newest checkpoint of this life
        self._saved_bytes = 0
        self._is_swept = False  # once in a life: what openers before it left behind
        self._changed_ms: float | None = None  # since when there is something to save
        self._retention = Retention(life)
        self.bytes_s = 0
        self.uncheckpointed_bytes = 0
        self._cursor_lag = 0  # entries
        self._said = ""  # why nothing could be saved; once is enough
        spawn = life.runtime.spawn
        self._saving: asyncio.Task[None] | None = None
        self._tasks = [
            spawn(self._guarded(life.timers.run()), f"transaction timers of {life.name}"),
            spawn(self._guarded(self._run()), f"upkeep of {life.name}"),
            spawn(self._watch(), f"end of {life.name}"),
        ]
        if not life.counts.is_silent:
            work = self._guarded(self._measure_cursors())
            self._tasks.append(spawn(work, f"cursor lag of {life.name}"))

    async def stop(self) -> None:
        """End all of it."""
        tasks = [*self._tasks, *([self._saving] if self._saving else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write_checkpoint(self) -> CheckpointsRecord | None:
        """Save the fold as it is, once it is acknowledged; None: nothing has changed.

        Raises: Refused, WoodpeckerError: it is not saved.
        """
        life = self._life
        fold = life.line.fold.copy()
        written = life.written_bytes
        if fold.next_seq == self._saved_seq:
            return None
        await life.settled()
        name = name_of(fold.next_seq, life.runtime.token())
        record = await write_checkpoint(
            life.tools.records, life.log, life.runtime, fold, name, is_first=not self._saved_seq
        )
        self._saved_seq, self._saved_bytes = fold.next_seq, written
        life.counts.add(Counter.STREAM_CHECKPOINTS)
        return record

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A bug ends the life, not just its upkeep."""
        try:
            await work
        except Exception as error:
            self._life.line.end(OutcomeUnknown(f"internal error: {error!r}"))
            raise

    async def _watch(self) -> None:
        await self._life.ended.wait()
        self._on_lost()

    async def _run(self) -> None:
        life = self._life
        before = life.written_bytes
        while True:
            await life.runtime.sleep_ms(LOOK_MS)
            life.line.slew()
            self.bytes_s, before = life.written_bytes - before, life.written_bytes
            self.uncheckpointed_bytes = life.written_bytes - self._saved_bytes
            loads = loads_of(life, self.uncheckpointed_bytes)
            life.set_rate(rates.step(life.rate, loads, measured_bytes_s=self.bytes_s))
            self._show()
            if self._saving is None and (self._is_save_due() or self._retention.is_due()):
                self._saving = life.runtime.spawn(self._save(), f"checkpoint of {life.name}")

    async def _measure_cursors(self) -> None:
        life = self._life
        while True:
            try:
                cursors = await life.log.cursors()
                tail = life.line.acked
                self._cursor_lag = max((tail - each.position for each in cursors), default=0)
            except WoodpeckerError as error:
                _log.warning("%s: how far cursors are behind is not known: %s", life.name, error)
            await life.runtime.sleep_ms(LAG_MS)

    def _show(self) -> None:
        life = self._life
        life.counts.tell()
        if not life.counts.is_silent:
            life.counts.show(
                life.line.fold,
                life.line.ticks,
                life.rate,
                now_us=life.runtime.now_us(),
                unsaved_bytes=self.uncheckpointed_bytes,
                cursor_lag=self._cursor_lag,
                tail=life.audience.count - life.reading,
                catchup=life.reading,
            )

    def _is_save_due(self) -> bool:
        life, settings = self._life, self._life.settings
        if life.line.fold.next_seq == self._saved_seq:
            self._changed_ms = None
            return False
        if self._changed_ms is None:
            self._changed_ms = life.runtime.monotonic_ms()
        return (
            self.uncheckpointed_bytes >= settings.checkpoint_bytes
            or life.runtime.monotonic_ms() - self._changed_ms >= settings.checkpoint_age_ms
        )

    async def _save(self) -> None:
        life = self._life
        try:
            if self._is_save_due():
                record = await self.write_checkpoint()
                self._changed_ms = None
                if record is not None and not self._is_swept:
                    await sweep_checkpoints(life.log, record)
                    self._is_swept = True
            await self._retention.apply()
            self._said = ""
        except (WoodpeckerError, Refused) as error:
            reason = re.sub(r"\d+", "", str(error))  # sizes differ each time
            if reason != self._said:
                _log.warning("%s: no checkpoint or trim, tried again: %s", life.name, error)
            self._said = reason
            await life.runtime.sleep_ms(5 * LOOK_MS)
        finally:
            self._saving = None
