"""What ``consume`` returns: asynchronous iterators over the messages of a channel."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from woodpecker.errors import Closed, InvalidRequest
from woodpecker.runtime.threads import post
from woodpecker.streaming.client.consumer import Asked, Consumer, Delivery
from woodpecker.streaming.client.consuming import ConsumeLane
from woodpecker.streaming.client.messages import Message, TickSignal


class Deliveries:
    """Deliveries to one consumer, which is opened when the first one is asked for. For one task."""

    def __init__(self, lane: ConsumeLane, asked: Asked, credit_bytes: int | None) -> None:
        self._lane = lane
        self._asked = asked
        self._credit_bytes = credit_bytes
        self._consumer: Consumer | None = None
        self._given: Delivery | None = None  # handed out, and not known to be done with
        self._is_busy = False
        self._is_closed = False
        self._drop: weakref.finalize[..., Deliveries] | None = None

    @property
    def consumer(self) -> Consumer:
        """Its state; opens it."""
        if self._consumer is None:
            self._consumer = self._lane.open(self._asked, self._credit_bytes)
            loop = asyncio.get_running_loop()
            self._drop = weakref.finalize(self, post, loop, self._lane.leave, self._consumer)
            self._drop.atexit = False
        return self._consumer

    async def next(self) -> Delivery | None:
        """The next delivery, or None: the end bound is reached. What was given before is done with.

        Raises: what has ended the consumer. Closed, InvalidRequest: another task waits here.
        Cancellation: nothing is lost; call again.
        """
        if self._is_closed:
            raise Closed("this consumer is closed: open a new one")
        if self._is_busy:
            raise InvalidRequest("another task is waiting in this consumer: give each its own")
        consumer = self.consumer
        if self._given is not None:
            consumer.give_back(self._given)
            self._given = None
            self._lane.wake(consumer)
        self._is_busy = True
        try:
            while (delivery := consumer.take()) is None:
                if consumer.is_over:
                    self._lane.leave(consumer)
                    if consumer.error is not None:
                        raise consumer.error
                    return None
                await consumer.bell.wait()
                if self._is_closed:
                    raise Closed("this consumer was closed meanwhile")
        finally:
            self._is_busy = False
        self._given = delivery
        return delivery

    def close(self) -> None:
        """Take the consumer off. Idempotent."""
        self._is_closed = True
        if self._drop is not None:
            self._drop.detach()
        if self._consumer is not None:
            self._lane.leave(self._consumer)
            self._consumer.bell.ring()


class Consumption:
    """Async iterator over messages; what ``channel.consume`` returns.

    Leaving the loop and dropping it releases everything; ``aclose`` (or ``async with``) does it at once.
    It waits for as long as it takes: for messages, and for somebody to serve the channel.
    Raises, while iterating:
        OutOfRange: the start, or what comes next, is not kept any more (``earliest``).
        NotFound: the channel was deleted. Corrupt: stored bytes fail their checks.
    Cancellation: at any point, nothing is lost: go on with the same iterator.
    Concurrency: one task at a time.
    """

    def __init__(self, lane: ConsumeLane, asked: Asked, credit_bytes: int | None) -> None:
        self._deliveries = Deliveries(lane, asked, credit_bytes)
        self._messages: Iterator[Message] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | TickSignal:
        message = next(self._messages, None)
        while message is None:
            delivery = await self._deliveries.next()
            if delivery is None:
                raise StopAsyncIteration
            if delivery.signal is not None:
                return delivery.signal
            self._messages = iter(delivery.messages)
            message = next(self._messages, None)
        return message

    async def aclose(self) -> None:
        """Stop and release everything. Idempotent."""
        self._messages = iter(())
        self._deliveries.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class BatchConsumption:
    """As ``Consumption``, giving lists: what was written together, or of one transaction. Never empty."""

    def __init__(self, lane: ConsumeLane, asked: Asked, credit_bytes: int | None) -> None:
        self._deliveries = Deliveries(lane, asked, credit_bytes)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        while True:
            delivery = await self._deliveries.next()
            if delivery is None:
                raise StopAsyncIteration
            if delivery.messages:
                return delivery.messages

    async def aclose(self) -> None:
        """Stop and release everything. Idempotent."""
        self._deliveries.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
