"""Asking the owner of a pchannel, whoever that is by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from woodpecker.core.backoff import delay_ms
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.core.records import Assignment, PchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import Request

CALL_TIMEOUT_MS = 10_000
PATIENCE_MS = 25_000
ASK_AGAIN = (Class.MOVED, Class.LATER, Class.UNKNOWN, Class.UNAVAILABLE)

Reply = TypeVar("Reply")


class Owners:
    """See the module. ``record``: the newest known record of a pchannel. Any number of tasks."""

    def __init__(self, means: Means, record: Callable[[str], PchannelRecord | None]) -> None:
        self._runtime = means.runtime
        self._dialer = means.dialer
        self._record = record

    async def call(
        self,
        pchannel: str,
        make: Callable[[int], Request[Reply]],
        *,
        patience_ms: float = PATIENCE_MS,
    ) -> Reply:
        """The owner's reply to what ``make`` gives for its term; it must be safe to ask twice.

        Raises: Refused: by the owner, with a class that asking again does not change; LATER: no owner has
        answered within ``patience_ms``, and what was asked may have been done.
        Cancellation: it may have been done.
        """
        until_ms = self._runtime.monotonic_ms() + patience_ms
        attempt, reason = 0, "it has no owner"
        while True:
            record = self._record(pchannel)
            if record is not None and record.owner and record.state is Assignment.ASSIGNED:
                endpoint = self._dialer.endpoint(record.owner.address)
                try:
                    return await endpoint.call(make(record.term), timeout_ms=CALL_TIMEOUT_MS)
                except Refused as error:
                    if error.refusal.kind not in ASK_AGAIN:
                        raise
                    reason = str(error)
            if self._runtime.monotonic_ms() >= until_ms:
                text = f"pchannel {pchannel} could not be asked for {patience_ms / 1000:.0f} s: {reason}"
                raise Refused(Refusal(kind=Class.LATER, message=text, after_ms=1_000))
            attempt += 1
            chance = self._runtime.random()
            await self._runtime.sleep_ms(delay_ms(attempt, chance, limit_ms=500.0))
