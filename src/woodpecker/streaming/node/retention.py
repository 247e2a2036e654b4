"""Trimming a pchannel's log: as far as checkpoints, cursors and retention let it go, never through a transaction.

``core/retention.py`` has the rule. The log's own trim looks at the cursors after it has published what it
means to do, so a cursor that comes to be meanwhile is seen or told. **P**
"""

from __future__ import annotations

import logging

from woodpecker import Cursor
from woodpecker.errors import Conflict
from woodpecker.streaming.codec.records import CHECKPOINTS
from woodpecker.streaming.core.records import CheckpointsRecord
from woodpecker.streaming.core.retention import trim_point
from woodpecker.streaming.node.cursors import vcid_of
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.starts import low_at, seq_at

EVERY_MS = 60_000.0

_log = logging.getLogger("woodpecker.streaming")


class Retention:
    """Of one life of an owner."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._next_ms = life.runtime.monotonic_ms() + EVERY_MS
        self._done_at = -1  # the tail when there was nothing left to expire

    def is_due(self) -> bool:
        """Whether it is time to look, and anything may go at all."""
        life = self._life
        if life.runtime.monotonic_ms() < self._next_ms:
            return False
        self._next_ms = life.runtime.monotonic_ms() + EVERY_MS
        return life.line.acked != self._done_at and self.age_us is not None

    @property
    def age_us(self) -> int | None:
        """How long the log keeps things: as long as the channel that wants it longest; None: for ever."""
        longest = 0
        for channel in self._life.line.fold.vchannels.values():
            if channel.retention_age_s is None:
                return None
            longest = max(longest, channel.retention_age_s)
        return longest * 1_000_000

    async def apply(self) -> None:
        """Trim what may go. Raises: Refused, WoodpeckerError: not now."""
        life, age_us, acked = self._life, self.age_us, self._life.line.acked
        if age_us is None:
            return
        found = (await life.tools.records.load(CHECKPOINTS.key(life.log.log_id))).record
        kept_from = await seq_at(life, life.line.clock_us - age_us)
        retention_low = await low_at(life, kept_from)
        point = trim_point(
            found or CheckpointsRecord(), cursor_lows=(), retention_low=retention_low
        )
        if point > life.earliest:
            await self._trim(point)
        if kept_from == acked and life.earliest >= point:
            self._done_at = acked  # all is old and gone: nothing more until something is written

    async def _trim(self, point: int) -> None:
        life = self._life
        await life.prove()  # only the owner trims
        report = await life.log.trim(point, hold=True)
        if report.trim_point < point and await self._let_go_of_old(point):
            report = await life.log.trim(point, hold=True)
        life.earliest = max(life.earliest, report.trim_point)

    async def _let_go_of_old(self, point: int) -> bool:
        """Cursors hold for so long only: those behind the bound let go; whether any did.

        Those of deleted channels go at once: one may have come to be beside the deletion.
        """
        life = self._life
        hold_us = life.settings.cursor_hold_s * 1_000_000
        bound = min(point, await low_at(life, await seq_at(life, life.line.clock_us - hold_us)))
        moved = False
        for cursor in await life.log.cursors():
            if vcid_of(cursor) in life.line.fold.deleted:
                await cursor.delete()
                moved = True
            elif cursor.position < bound:
                moved = await self._move(cursor, bound) or moved
        return moved

    async def _move(self, cursor: Cursor, bound: int) -> bool:
        """What is done stays in its data: its holder will be told what was trimmed."""
        _log.error(
            "%s: subscription %s stayed at seq %d for longer than a cursor may hold the log; what is below "
            "seq %d goes",
            self._life.name, cursor.name, cursor.position, bound,
        )  # fmt: skip
        try:
            await cursor.commit(bound, expect=cursor.data)
        except Conflict:
            return False
        return True
