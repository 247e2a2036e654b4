"""Asking the owner of a pchannel, whoever that is by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from woodpecker.core.backoff import delay_ms
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.core.records import Assignment, PchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import Request

PATIENCE_MS = 8_000  # below the 10 s after which whoever asks the coordinator would not hear why
LEAST_CALL_MS = 1_000
NOBODY = (
    "no streaming node serves it: start one with `woodpecker node serve`, or see in `woodpecker cluster status` "
    "what it waits for"
)
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

        Raises: Refused: by the owner, with a class that asking again does not change; UNKNOWN: no owner has
        answered within ``patience_ms``, and what was asked may have been done.
        Cancellation: it may have been done.
        """
        until_ms = self._runtime.monotonic_ms() + patience_ms
        attempt = 0
        while True:
            record, reason = self._record(pchannel), NOBODY
            left_ms = until_ms - self._runtime.monotonic_ms()
            if record is not None and record.owner and record.state is Assignment.ASSIGNED:
                endpoint = self._dialer.endpoint(record.owner.address)
                try:
                    return await endpoint.call(
                        make(record.term), timeout_ms=max(int(left_ms), LEAST_CALL_MS)
                    )
                except Refused as error:
                    if error.refusal.kind not in ASK_AGAIN:
                        raise
                    reason = str(error)
            if self._runtime.monotonic_ms() >= until_ms:
                text = f"pchannel {pchannel} could not be asked for {patience_ms / 1000:.0f} s: {reason}"
                raise Refused(Refusal(kind=Class.UNKNOWN, message=text, after_ms=1_000))
            attempt += 1
            chance = self._runtime.random()
            await self._runtime.sleep_ms(delay_ms(attempt, chance, limit_ms=500.0))
