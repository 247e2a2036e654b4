"""The pchannels of a store: as many as were ever wanted, each with its log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import WoodpeckerError
from woodpecker.streaming.codec.records import COUNTERS, PCHANNELS
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.core.records import Counters, PchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.metadata.store import Stored

MOST_PCHANNELS = 4096
RETRY_LIMIT_MS = 5_000.0

_log = logging.getLogger("woodpecker.streaming")


class Pchannels:
    """See the module. One event loop. ``adopt``: a pchannel was read or made."""

    def __init__(self, means: Means, adopt: Callable[[Stored[PchannelRecord]], None]) -> None:
        self._records = means.records
        self._runtime = means.runtime
        self._make_log = means.make_log
        self._first_count = means.settings.pchannels
        self._adopt = adopt
        self._known: set[str] = set()

    async def run(self) -> None:
        """Read all, and make those that are missing; again until it has worked."""
        attempt = 0
        while True:
            try:
                for name, stored in (await self._records.all(PCHANNELS)).items():
                    self._take(name, stored)
                counters = await self._records.change(COUNTERS, self._wanted)
                await self._make_missing(counters.record.pchannels)
            except WoodpeckerError as error:
                attempt += 1
                if attempt == 1:
                    _log.warning("pchannels cannot be read or made yet: %s", error)
                chance = self._runtime.random()
                await self._runtime.sleep_ms(delay_ms(attempt, chance, limit_ms=RETRY_LIMIT_MS))
                continue
            return

    async def add(self, count: int) -> None:
        """So many more. Raises: Refused(INVALID): too many; Unavailable, OutcomeUnknown: ask again."""
        target: int | None = None

        def more(before: Counters | None) -> Counters:
            nonlocal target
            counters = self._wanted(before)
            target = counters.pchannels + count if target is None else target
            if count < 1 or target > MOST_PCHANNELS:
                text = f"{target} pchannels: 1 to {MOST_PCHANNELS} are allowed, and none is ever removed"
                raise Refused(Refusal(kind=Class.INVALID, message=text))
            return replace(counters, pchannels=max(counters.pchannels, target))

        stored = await self._records.change(COUNTERS, more)
        await self._make_missing(stored.record.pchannels)

    def _wanted(self, before: Counters | None) -> Counters:
        before = before or Counters()
        return before if before.pchannels else replace(before, pchannels=self._first_count)

    async def _make_missing(self, count: int) -> None:
        for name in (f"p{number}" for number in range(count)):
            if name in self._known:
                continue
            log = f"stream.{name}"
            new = PchannelRecord(name=name, log=log, log_id=await self._make_log(log))
            decide = partial(_made, new)
            self._take(name, await self._records.change(PCHANNELS.key(name), decide))

    def _take(self, name: str, stored: Stored[PchannelRecord]) -> None:
        if name not in self._known:
            self._known.add(name)
            self._adopt(stored)


def _made(new: PchannelRecord, before: PchannelRecord | None) -> PchannelRecord:
    return before or new
