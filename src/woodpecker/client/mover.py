"""Opens, prepares, rolls and ages the segments of one writer; one such move at a time.

Sending goes on while the next segment is made ready. Only from the drain before a close until the
outcome of its CAS the pump stands still: nothing in that segment is acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from woodpecker.errors import NotWritten, WoodpeckerError

if TYPE_CHECKING:
    from woodpecker.client.pump import Pump

RETRY_MS = 500  # between tries to roll, or to open a segment, while a store is away
AGE_LOOK_MS = 100


class Mover:
    """See the module; ``is_stopped`` tells the pump to send nothing."""

    def __init__(self, pump: Pump) -> None:
        self.is_stopped = False
        self._pump = pump
        self._task: asyncio.Task[None] | None = None
        self._age_timer: asyncio.TimerHandle | None = None
        self._is_closing = False

    def open(self) -> None:
        """Something waits and no segment is open: open one."""
        self.is_stopped = True
        if self._task is None:
            self._move(self._open())

    def look_ahead(self) -> None:
        """After each block: make the next segment ready in time, roll when it is due."""
        chain = self._pump.chain
        if self._task is not None:
            if chain.is_overgrown():
                self.is_stopped = True  # the metadata store is away for too long: appends wait
        elif chain.is_roll_due():
            self._move(self._roll())
        elif chain.should_prepare():
            self._move(self._prepare())

    async def stop(self) -> None:
        """No further moves; one that has begun to close a segment is waited for."""
        self._is_closing = True
        if self._age_timer is not None:
            self._age_timer.cancel()
        if self._task is not None:
            if not self.is_stopped:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _move(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._pump.env.runtime.spawn(self._guard(work), f"log {self._pump.name}: segment")
        self._task = task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except WoodpeckerError as error:
            self._pump.end(error)
        finally:
            self._task = None
            self.is_stopped = False
            self._pump.settle()

    async def _open(self) -> None:
        """Open the next segment; while a store is away, as long as an append may wait."""
        runtime, options = self._pump.env.runtime, self._pump.chain.options
        until_ms = runtime.monotonic_ms() + options.append_timeout_ms
        while not await self._try_open(until_ms):
            await runtime.sleep_ms(RETRY_MS)

    async def _try_open(self, until_ms: float) -> bool:
        """True: open, or what waited was refused. Raises: what ends the writer."""
        queue = self._pump.queue
        try:
            await self._pump.chain.open_next()
        except NotWritten as error:
            queue.refuse_all(error)  # no room: nothing was handed over, the writer lives
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            if self._pump.env.runtime.monotonic_ms() < until_ms and queue.drafts:
                return False
            queue.refuse_all(NotWritten(f"log {self._pump.name!r}: {error}"))
        else:
            self._arm_age_timer()
        return True

    async def _prepare(self) -> None:
        """Have the next segment ready before it is needed; a failure is met again at the roll."""
        try:
            await self._pump.chain.prepare()
        except WoodpeckerError as error:
            if not error.retryable:
                raise

    async def _roll(self) -> None:
        """Live close: the next segment ready, then drain, fix E, close and open by one CAS."""
        pump = self._pump
        while not await self._is_ready():
            await pump.env.runtime.sleep_ms(RETRY_MS)
        self.is_stopped = True
        await pump.drain()
        if pump.error is None:
            await pump.chain.roll(pump.sessions.settled())
            self._arm_age_timer()

    async def _is_ready(self) -> bool:
        """Whether the manifest answers and the next segment is there; else the open one grows on."""
        if self._pump.error is not None:
            raise self._pump.error
        try:
            await self._pump.chain.prepare()
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            return False
        return True

    async def _close_aged(self) -> None:
        """The segment is old and nothing rolls it: close it, so that it can be sealed."""
        pump = self._pump
        self.is_stopped = True
        await pump.drain()
        if pump.error is None:
            await pump.chain.close_open(pump.sessions.settled())

    def _arm_age_timer(self) -> None:
        if self._age_timer is not None:
            self._age_timer.cancel()
        left_ms = max(self._pump.chain.age_left_ms(), AGE_LOOK_MS)
        self._age_timer = self._pump.loop.call_later(left_ms / 1000, self._aged)

    def _aged(self) -> None:
        self._age_timer = None
        chain = self._pump.chain
        if self._pump.error is not None or self._is_closing or chain.current is None:
            return
        if self._task is None and chain.has_blocks and chain.is_roll_due():
            self._move(self._close_aged())
        else:
            self._arm_age_timer()
