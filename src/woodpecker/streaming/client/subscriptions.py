"""Subscriptions: consuming under a durable cursor, which only its newest holder moves.

``core/acks.py`` says how far it is. Acknowledgements go to the cursor's record together: after a second, a
thousand of them, or at the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from woodpecker.core.ids import check_name
from woodpecker.errors import (
    Closed,
    Fenced,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.client.bell import Bell
from woodpecker.streaming.client.calls import ask_owner
from woodpecker.streaming.client.consumer import Asked
from woodpecker.streaming.client.consuming import ConsumeLane
from woodpecker.streaming.client.deliveries import Deliveries
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.client.places import start_at
from woodpecker.streaming.core.acks import Acks
from woodpecker.streaming.core.values import ANYTHING, NO_STOP, Position, Start, Where
from woodpecker.streaming.requests import Channel as ChannelInfo
from woodpecker.streaming.requests import CommitCursor, CursorState, OpenCursor

COMMIT_MS = 1_000.0
COMMIT_COUNT = 1_000
IDLE_COMMIT_MS = (
    30_000.0  # of a place that moved by itself: it only frees what is kept for the cursor
)

_log = logging.getLogger("woodpecker.streaming")


class Subscription:
    """Async iterator over the messages of a channel that its cursor has not seen acknowledged.

    Use it in ``async with``. What was delivered and not acknowledged is delivered again to whoever attaches
    next. Raises, while iterating: as ``Consumption``; Fenced: somebody else has attached.
    Cancellation: at any point, nothing is lost. Concurrency: one task iterates; any number acknowledge.
    """

    def __init__(
        self,
        env: Environment,
        lane: ConsumeLane,
        info: ChannelInfo,
        cursor: str,
        start: Start,
        where: Where | None,
    ) -> None:
        self.name = check_name(cursor, "cursor")
        self._env = env
        self._lane = lane
        self._info = info
        self._start = start
        self._where = where
        self._state: CursorState | None = None
        self._acks: Acks | None = None
        self._deliveries: Deliveries | None = None
        self._messages: Iterator[Message] = iter(())
        self._committed: Position | None = None
        self._count = 0  # acknowledgements that are not in the record
        self._bell = Bell()  # of the committer
        self._room = Bell()  # of an iteration that waits for acknowledgements
        self._waiting: list[tuple[Position, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._error: WoodpeckerError | None = None

    # --- opening and closing ---

    async def open(self) -> Self:
        """Take the cursor over; called by ``async with``. Idempotent.

        Raises: InvalidRequest: bad name, another filter than the cursor has; NotFound, Unavailable.
        """
        if self._state is not None:
            return self
        token = self._env.runtime.token()
        request = OpenCursor(
            pchannel=self._info.pchannel,
            vcid=self._info.vcid,
            cursor=self.name,
            start=self._start,
            holder=self._env.name or token,
            nonce=token,
            where=self._where or ANYTHING,
        )
        state = await ask_owner(
            self._env, self._info.pchannel, request, f"subscription {self.name!r}", changes=True
        )
        if self._where is not None and self._where != state.where:
            raise InvalidRequest(
                f"subscription {self.name!r} has another filter, {state.where}: "
                "give the same one, none, or another name"
            )
        self._state = state
        self._committed = state.done
        self._acks = Acks(
            done=state.done, ranges=state.ranges, most=self._env.settings.cursor_ranges
        )
        asked = Asked(
            vcid=self._info.vcid,
            start=start_at(state.done),
            stop=NO_STOP,
            where=state.where,
            ticks=False,
        )
        self._deliveries = Deliveries(self._lane, asked, None)
        self._deliveries.consumer.on_change = self._changed
        self._committer = self._env.runtime.spawn(self._commit_always(), "commit a cursor")
        return self

    async def close(self) -> None:
        """Store what was acknowledged, and let go. Idempotent.

        Raises: Fenced: somebody has taken the cursor over, and it was not stored. Unavailable.
        """
        if self._state is None or self._deliveries is None:
            return
        committer, self._committer = self._committer, None
        if committer is None:
            return
        committer.cancel()
        await asyncio.gather(committer, return_exceptions=True)
        try:
            if self._error is None:
                await self._commit()
        finally:
            self._over(Closed(f"subscription {self.name!r} is closed: open a new one"))
            self._deliveries.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            with suppress(WoodpeckerError):  # the block's own failure is the one to tell
                await self.close()

    # --- delivery ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        acks, deliveries = self._opened
        self._check()
        while (message := next(self._messages, None)) is None:
            self._check()
            if acks.is_full:
                await self._wait_for_acks(acks)
                continue
            delivery = await deliveries.next()
            if delivery is None:
                raise StopAsyncIteration
            self._messages = iter(self._take(acks, delivery.messages, delivery.place))
        return message

    def _take(self, acks: Acks, messages: list[Message], place: Position) -> list[Message]:
        """All of a delivery count as handed out at once, so no Progress behind them passes one."""
        fresh = []
        for message in messages:
            if message.is_ephemeral:
                fresh.append(message)
                continue
            position = message.position
            if not acks.is_known(position):
                fresh.append(message)
            acks.delivered(position)
        acks.progress(place)
        self._moved(acks)
        return fresh

    async def _wait_for_acks(self, acks: Acks) -> None:
        _log.warning(
            "subscription %r waits: %d messages are not acknowledged, with too many gaps between; "
            "acknowledge the oldest ones (from %s on)",
            self.name, acks.outstanding, acks.done,
        )  # fmt: skip
        await self._room.wait()

    def _changed(self) -> None:
        """Something came for the consumer: a place without messages counts even if nobody iterates."""
        acks, deliveries = self._opened
        consumer = deliveries.consumer
        place = consumer.take_place()
        if place is not None:
            acks.progress(place)
            self._moved(acks)
        consumer.bell.ring()

    # --- acknowledging ---

    async def ack(self, message: Message | Position) -> None:
        """This message is done with; it is stored within a second, or at the end. Again is no error.

        Raises: InvalidRequest: it did not come from this subscription. Fenced; Closed.
        """
        self._acknowledge(message, is_through=False)

    async def ack_through(self, message: Message | Position) -> None:
        """This message and all before it are done with. Else as ``ack``."""
        self._acknowledge(message, is_through=True)

    def _acknowledge(self, message: Message | Position, *, is_through: bool) -> None:
        acks, _ = self._opened
        self._check()
        if isinstance(message, Message) and message.is_ephemeral:
            return
        position = message if isinstance(message, Position) else message.position
        try:
            if is_through:
                acks.ack_through(position)
            else:
                acks.ack(position)
        except KeyError:
            text = f"{position} was not delivered by subscription {self.name!r} since it was opened"
            raise InvalidRequest(text) from None
        self._count += 1
        if self._count in (1, COMMIT_COUNT):
            self._bell.ring()
        self._moved(acks)

    def _moved(self, acks: Acks) -> None:
        if not acks.is_full:
            self._room.ring()
        done = acks.done
        for place, future in self._waiting:
            if place < done and not future.done():
                future.set_result(None)

    # --- looking ---

    @property
    def position(self) -> Position:
        """All below it is acknowledged; the next attach begins there."""
        return self._opened[0].done

    @property
    def lag(self) -> int:
        """Entries of the log between ``position`` and the newest end known; other channels' count too."""
        acks, deliveries = self._opened
        tail, done = deliveries.consumer.tail, acks.done
        is_behind_one = done.index > 0 and not acks.outstanding  # that one is done with, too
        return 0 if tail is None else max(0, tail.seq - done.seq - is_behind_one)

    async def wait_until(self, position: Position) -> None:
        """Wait until all up to ``position`` is acknowledged here: then one's own writes were applied.

        Somebody else has to iterate and acknowledge meanwhile. Raises: Fenced; Closed.
        """
        acks, _ = self._opened
        self._check()
        if position < acks.done:
            return
        self._lane.ask_progress()
        entry = (position, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        finally:
            self._waiting.remove(entry)

    # --- the record ---

    async def _commit_always(self) -> None:
        while True:
            if not self._count:
                await self._bell.wait(IDLE_COMMIT_MS)
            if 0 < self._count < COMMIT_COUNT:
                await self._bell.wait(COMMIT_MS)
            try:
                await self._commit()
            except Fenced as error:
                self._over(error)
                return
            except (Unavailable, OutcomeUnknown) as error:
                _log.warning("subscription %r is not stored: %s; trying again", self.name, error)
                self._count = max(1, self._count)
            except WoodpeckerError as error:
                self._over(error)
                return

    async def _commit(self) -> None:
        acks, _ = self._opened
        if not self._count and acks.done == self._committed:
            return
        assert self._state is not None
        counted, done = self._count, acks.done
        request = CommitCursor(
            pchannel=self._info.pchannel,
            vcid=self._info.vcid,
            cursor=self.name,
            generation=self._state.generation,
            done=done,
            ranges=acks.ranges,
        )
        what = f"subscription {self.name!r}"
        await ask_owner(self._env, self._info.pchannel, request, what, changes=True)
        self._count -= counted
        self._committed = done

    def _over(self, error: WoodpeckerError) -> None:
        """Nothing more is delivered or stored."""
        if self._error is None:
            self._error = error
        if self._deliveries is not None:
            self._deliveries.consumer.end(error)
        self._room.ring()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    @property
    def _opened(self) -> tuple[Acks, Deliveries]:
        if self._acks is None or self._deliveries is None:
            raise Closed(f"subscription {self.name!r} is not open: use it in 'async with'")
        return self._acks, self._deliveries
