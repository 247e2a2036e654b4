"""Transactions of a producer: all of their messages are delivered together, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from woodpecker.errors import Aborted, Closed, InvalidRequest, WoodpeckerError
from woodpecker.streaming.client.flight import NO_TXN
from woodpecker.streaming.client.messages import Message, Payload, PropertyInput, Text, as_message
from woodpecker.streaming.core.values import Position

if TYPE_CHECKING:
    from woodpecker.streaming.client.producer import Producer

LEAST_KEEP_ALIVE_S, MOST_KEEP_ALIVE_S = 1.0, 60.0


class Transaction:
    """Messages of one channel that stand or fall together; use it in ``async with``.

    It commits at the end of the block, and aborts if an exception leaves it. It is alive while the block
    runs: signs of life are sent in the background, every third of ``keep_alive_s``.
    Concurrency: any number of tasks of one event loop.

    Attributes:
        position: of its first message, once committed; None before, and if it had no messages.
    """

    def __init__(self, producer: Producer, keep_alive_s: float) -> None:
        if not LEAST_KEEP_ALIVE_S <= keep_alive_s <= MOST_KEEP_ALIVE_S:
            raise InvalidRequest(f"keep_alive_s {keep_alive_s:g} is not between 1 and 60 seconds")
        self.position: Position | None = None
        self._producer = producer
        self._number = NO_TXN  # until its first batch
        self._keep_alive_ms = int(keep_alive_s * 1000)
        self._error: WoodpeckerError | None = None  # the first failure: nothing can be committed
        self._is_over = True  # not begun
        self._beats: asyncio.Task[None] | None = None

    @property
    def _has_begun(self) -> bool:
        return self._number != NO_TXN

    async def send(
        self,
        payload: Payload | Message,
        *,
        key: Text | None = None,
        properties: PropertyInput | None = None,
        type: str | None = None,
    ) -> None:
        """Add one message and wait until it is stored; it has no position before the commit.

        Raises: Aborted(reason=): run the transaction again whole. Others as ``Producer.send``.
        Cancellation: it may still be part of the transaction; let the cancellation leave the block.
        """
        message = self._producer.message(payload, key, properties, type)
        await self._send([message])

    async def send_many(self, messages: Iterable[Payload | Message]) -> None:
        """As ``send``, several."""
        await self._send([as_message(item) for item in messages])

    async def _send(self, messages: list[Message]) -> None:
        if not messages:
            return
        size_bytes = self._producer.check_batch(messages)
        await self._producer.session.room.enter(size_bytes)
        try:
            await self._put(messages, size_bytes)
        except WoodpeckerError as error:
            self._error = self._error or error
            raise

    def _put(
        self, messages: list[Message], size_bytes: int, *, commit: bool = False, abort: bool = False
    ) -> asyncio.Future[object]:
        session = self._producer.session
        if self._is_over and not (commit or abort):
            session.room.leave(size_bytes)
            raise Closed("this transaction is not open: use it in 'async with', begin a new one")
        draft = session.draft(messages, size_bytes)
        if not self._has_begun:
            self._number = session.number_transaction()
            draft.begin, draft.keep_alive_ms = True, self._keep_alive_ms
        draft.txn, draft.commit, draft.abort = self._number, commit, abort
        draft.is_open = not (commit or abort)
        return session.put(draft)  # type: ignore[return-value]  # whatever its result is

    async def __aenter__(self) -> Self:
        """Begin; waits while the producer has as many open transactions as it may have."""
        if self._beats is not None:
            raise InvalidRequest("a transaction is used once: begin a new one")
        await self._producer.session.begin_transaction()
        self._is_over = False
        self._beats = self._producer.spawn(self._beat(), "keep a transaction alive")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        try:
            if not self._has_begun:
                return
            if error is not None or self._error is not None:
                self._abort()
            if error is None:
                await self._commit()
        finally:
            await self._end()

    async def _commit(self) -> None:
        if self._error is not None:
            raise self._error
        try:
            position = await self._put([], 0, commit=True)
        except Aborted:
            raise
        except BaseException:
            self._abort()
            raise
        assert isinstance(position, Position)
        self.position = position

    def _abort(self) -> None:
        """Say so and do not wait: without it the transaction ends when its keep-alive has passed."""
        with suppress(WoodpeckerError):
            self._put([], 0, abort=True)

    async def _end(self) -> None:
        self._producer.session.end_transaction(self._number)
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await self._producer.sleep_ms(self._keep_alive_ms / 3)
            if self._has_begun:
                self._producer.keep_alive(self._number)
