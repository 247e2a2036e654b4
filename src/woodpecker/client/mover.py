"""Opens, prepares, rolls and ages the segments of one writer; one such move at a time.

Sending goes on while the next segment is made ready. Only from the drain before a close until the
outcome of its CAS the pump stands still: nothing in that segment is acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING

from woodpecker.errors import Closed, NotWritten, Unavailable, WoodpeckerError
from woodpecker.observability.names import Event
from woodpecker.segments.base import Recovered

if TYPE_CHECKING:
    from woodpecker.client.pump import Pump

RETRY_MS = 500  # between tries to roll, or to open a segment, while a store is away
AGE_LOOK_MS = 1_000  # between tries to close an old segment
STRANDED_MS = 5_000  # what is in flight may take so long once the next segment is ready


class Mover:
    """See the module; ``is_stopped`` tells the pump to send nothing."""

    def __init__(self, pump: Pump) -> None:
        self.is_stopped = False
        self._pump = pump
        pump.chain.on_roll = self.look
        self._task: asyncio.Task[None] | None = None
        self._age_timer: asyncio.TimerHandle | None = None
        self._is_choosing_end = False  # the move must not be broken off
        self._is_closing = False
        self._trouble: WoodpeckerError | None = None  # why the next segment is not ready

    def open(self) -> None:
        """Something waits and no segment is open: open one."""
        self.is_stopped = True
        if self._task is None:
            self._move(self._open)

    def look_ahead(self) -> None:
        """After each block: make the next segment ready in time, roll when it is due."""
        chain = self._pump.chain
        if self._task is not None:
            if chain.is_overgrown():
                self.is_stopped = True  # the metadata store is away for too long: appends wait
        elif chain.is_roll_due():
            self._move(self._roll)
        elif chain.should_prepare():
            self._move(self._prepare)

    def look(self) -> None:
        """Roll if it is due though nothing is sent: the open segment's store wants to go on elsewhere."""
        pump = self._pump
        if self._task is None and not self._is_closing and pump.error is None:
            if pump.chain.is_roll_due():
                self._move(self._roll)
            else:
                pump.kick()

    async def stop(self, *, at_once: bool) -> None:
        """No further moves; unless ``at_once``, one that has begun to close a segment is waited for."""
        self._is_closing = True
        if self._age_timer is not None:
            self._age_timer.cancel()
        if self._task is not None:
            if at_once or not self._is_choosing_end:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _move(self, work: Callable[[], Awaitable[None]]) -> None:
        task = self._pump.env.runtime.spawn(self._guard(work), f"log {self._pump.name}: segment")
        self._task = task

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        pump = self._pump
        try:
            await work()
        except WoodpeckerError as error:
            pump.end(error)
        except asyncio.CancelledError:
            if not self._is_closing:  # the loop is being shut down: start nothing any more
                pump.end(Closed(f"log {pump.name!r}: this writer's task was cancelled"))
            raise
        except BaseException as error:
            pump.end(pump.broken(error))
            raise
        finally:
            self._task = None
            self.is_stopped = self._is_choosing_end = False
            if not self._is_closing:
                pump.settle()
                self.look()

    # --- the moves ---

    async def _open(self) -> None:
        """Open the next segment; while a store is away, as long as an append may wait."""
        runtime, options = self._pump.env.runtime, self._pump.chain.options
        until_ms = runtime.monotonic_ms() + options.append_timeout_ms
        while not await self._try_open(until_ms):
            await runtime.sleep_ms(RETRY_MS)

    async def _try_open(self, until_ms: float) -> bool:
        """True: open, or what waited was refused. Raises: what ends the writer."""
        pump = self._pump
        try:
            await pump.chain.open_next()
        except NotWritten as error:
            pump.refuse_waiting(error)  # no room: nothing was handed over, the writer lives
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            if pump.env.runtime.monotonic_ms() < until_ms and pump.queue.drafts:
                return False
            pump.refuse_waiting(NotWritten(f"log {pump.name!r}: {error}"))
        else:
            self._arm_age_timer()
        return True

    async def _prepare(self) -> None:
        """Have the next segment ready before it is needed; a failure is met again at the roll."""
        await self._is_ready()
        if self._pump.chain.is_roll_due():  # it became due meanwhile, and perhaps nothing follows
            await self._roll()

    async def _roll(self) -> None:
        """Live close: the next segment ready, then drain, fix E, close and open by one CAS."""
        pump = self._pump
        await self._wait_until_ready()
        self.is_stopped = self._is_choosing_end = True
        if not await self._is_drained():
            await self._close_as_a_stranger()
            return
        if pump.error is not None:
            return
        register = pump.sessions.settled()
        if register.ended:
            await pump.chain.close_open(register)  # nothing follows the end of the log
        else:
            await pump.chain.roll(register)
            self._arm_age_timer()

    async def _is_drained(self) -> bool:
        """Wait until nothing is in flight; False: that will not come about in this segment soon."""
        pump = self._pump
        if not pump.chain.can_be_stranded:
            await pump.drain()
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STRANDED_MS / 1000):
                await pump.drain()
                return True
        return pump.error is not None

    async def _close_as_a_stranger(self) -> None:
        """What was sent cannot be confirmed, but the next segment can be had (protocol, section 2).

        Fence, find E, close by one CAS. Nothing of the old segment is acknowledged before that; what lies
        above E is packed anew, with its seqs.
        """
        pump = self._pump
        chain, stranded = pump.chain, pump.strand()
        segment_id = chain.segment_id
        try:
            await chain.let_go()
            found = await self._recover()
            register = stranded.register(pump.sessions.settled(), found.end)
            await chain.close_recovered(found, register)
        except WoodpeckerError as error:
            stranded.fail(error)
            raise
        except BaseException as error:
            stranded.fail(pump.broken(error))
            raise
        stranded.settle(found.end, chain.timestamp_us)
        pump.env.observer.event(
            Event.SEGMENT_RECOVERED, log=pump.name, segment=segment_id, end_seq=chain.next_seq
        )
        self._arm_age_timer()

    async def _recover(self) -> Recovered:
        """The end of the open segment; while too few members answer, as long as an append may wait."""
        runtime, chain = self._pump.env.runtime, self._pump.chain
        until_ms = runtime.monotonic_ms() + chain.options.append_timeout_ms
        while True:
            try:
                return await chain.recover_open()
            except Unavailable:
                if runtime.monotonic_ms() >= until_ms:
                    raise
            await runtime.sleep_ms(RETRY_MS)

    async def _wait_until_ready(self) -> None:
        """Until the next segment is ready; what waits for it waits as long as an append may."""
        pump, runtime = self._pump, self._pump.env.runtime
        stopped_ms: float | None = None
        while not await self._is_ready():
            if self.is_stopped or pump.chain.is_stuck:
                now_ms = runtime.monotonic_ms()
                stopped_ms = now_ms if stopped_ms is None else stopped_ms
                if now_ms - stopped_ms >= pump.chain.options.append_timeout_ms:
                    pump.refuse_waiting(
                        NotWritten(
                            f"log {pump.name!r}: the open segment is full and the next one cannot "
                            f"be opened: {self._trouble}; try again later"
                        )
                    )
                    stopped_ms = None
            await runtime.sleep_ms(RETRY_MS)

    async def _is_ready(self) -> bool:
        """Whether the manifest answers and the next segment is there; else the open one grows on."""
        if self._pump.error is not None:
            raise copy(self._pump.error)
        try:
            await self._pump.chain.prepare()
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            self._trouble = error
            return False
        return True

    async def _close_aged(self) -> None:
        """The segment is old and nothing rolls it: close it, so that it can be sealed."""
        pump = self._pump
        try:
            await pump.chain.confirm()
        except WoodpeckerError as error:
            if not error.retryable:
                raise
            self._arm_age_timer()  # the metadata store is away: no end is chosen now
            return
        self.is_stopped = self._is_choosing_end = True
        if not await self._is_drained():
            await self._close_as_a_stranger()
        elif pump.error is None:
            await pump.chain.close_open(pump.sessions.settled())

    # --- age ---

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
        if self._task is None and chain.is_aged():
            self._move(self._close_aged)
        else:
            self._arm_age_timer()
