"""Handing lines to a producer, many in flight, and counting what became durable."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from woodpecker.cli.cutting import Lines
from woodpecker.cli.feed import Feed
from woodpecker.cli.produce import Form
from woodpecker.cli.stream_records import key_in, message_from_json
from woodpecker.client.entry import Entry
from woodpecker.errors import Overloaded, WoodpeckerError
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.client.producer import Producer
from woodpecker.streaming.client.transactions import Transaction
from woodpecker.streaming.core.values import Position

CHUNK_BYTES = 256 << 10
LARGE_BYTES = 1 << 20  # above it a message is waited for by itself
BATCH_BYTES = 8 << 20  # of one call within a transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be sent, and how."""

    name: str
    file: str
    form: Form
    key_from: str | None
    type: str | None
    transaction: bool
    producer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a message was written."""

    seq: int
    index: int
    tick: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What was sent durably, and by whom; of a transaction, ``first`` and ``last`` are its place."""

    count: int
    first: Place | None
    last: Place | None
    producer: str
    epoch: int
    transaction: int | None = None  # its number


async def send_input(client: StreamingClient, request: Request) -> Produced:
    """Send the whole input. Raises: what makes it fail, with what was durable before in the text."""
    channel = await client.open_channel(request.name)
    feed = Feed(request.file, CHUNK_BYTES)
    async with AsyncExitStack() as stack:
        stack.callback(feed.close)
        producer = await stack.enter_async_context(channel.producer(request.producer))
        if request.transaction:
            return await in_transaction(producer, feed, request)
        sender = _Sender(producer)
        try:
            async for messages in _messages(feed, request):
                await sender.put(messages)
            return await sender.finish()
        except WoodpeckerError as error:
            error.args = (f"{error} ({_so_far(sender.durable())})",)
            raise
        except asyncio.CancelledError:
            print(f"woodpecker: stopped; {_so_far(sender.durable())}", file=sys.stderr)
            raise


class _Sender:
    """Submits messages in order; the queue of the producer bounds what is in flight."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._session = producer.session
        self._in_flight: deque[asyncio.Future[Position]] = deque()
        self._first: Position | None = None
        self._last: Position | None = None
        self._count = 0

    async def put(self, messages: Sequence[Message]) -> None:
        """Pass them on; waits for room. Raises: what makes an earlier one fail."""
        for message in messages:
            if len(message.payload) > LARGE_BYTES:
                await self._settle()
                self._note(await self._producer.send(message))
            else:
                await self._submit(message)
        while self._in_flight and self._in_flight[0].done():
            self._note(self._in_flight.popleft().result())

    async def finish(self) -> Produced:
        """Wait for all."""
        await self._settle()
        return self.durable()

    def durable(self) -> Produced:
        """What is known to be durable."""
        while self._in_flight and self._in_flight[0].done():
            future = self._in_flight.popleft()
            if future.cancelled() or future.exception() is not None:
                break
            self._note(future.result())
        return Produced(
            count=self._count,
            first=_place(self._first),
            last=_place(self._last),
            producer=self._session.producer,
            epoch=self._session.epoch,
        )

    async def _submit(self, message: Message) -> None:
        while True:
            try:
                self._in_flight.append(self._producer.submit(message))
            except Overloaded:
                await self._producer.ready()
            else:
                return

    async def _settle(self) -> None:
        while self._in_flight:
            self._note(await self._in_flight[0])
            self._in_flight.popleft()

    def _note(self, position: Position | None) -> None:
        self._count += 1
        self._first = self._first or position
        self._last = position


async def in_transaction(producer: Producer, feed: Feed, request: Request) -> Produced:
    """Send the whole input as one transaction. Cancellation: what becomes of it is told on stderr."""
    count = 0
    transaction, session = producer.transaction(), producer.session
    fate = "nothing of the transaction will be seen"
    try:
        async with transaction:
            async for messages in _messages(feed, request):
                await _send_parts(transaction, messages)
                count += len(messages)
            txn = f"{request.name} {session.producer} {session.epoch} 0"
            fate = f"`woodpecker txn describe {txn}` tells whether it was committed"
    except asyncio.CancelledError:
        print(f"woodpecker: stopped; {fate}", file=sys.stderr)
        raise
    place = _place(transaction.position)
    return Produced(
        count=count,
        first=place,
        last=place,
        producer=session.producer,
        epoch=session.epoch,
        transaction=0,  # the first one of this producer
    )


async def _send_parts(transaction: Transaction, messages: Sequence[Message]) -> None:
    part: list[Message] = []
    size_bytes = 0
    for message in messages:
        if part and size_bytes + message.size_bytes > BATCH_BYTES:
            await transaction.send_many(part)
            part, size_bytes = [], 0
        part.append(message)
        size_bytes += message.size_bytes
    await transaction.send_many(part)


async def _messages(feed: Feed, request: Request) -> AsyncIterator[list[Message]]:
    lines, number = Lines(), 0
    while chunk := await feed.read():
        cut = lines.cut(chunk)
        yield [_message(line, number + at, request) for at, line in enumerate(cut, 1)]
        number += len(cut)
    rest = [entry.payload for entry in lines.rest() if isinstance(entry, Entry)]
    yield [_message(line, number + 1, request) for line in rest]


def _message(line: bytes, number: int, request: Request) -> Message:
    if request.form is Form.JSONL:
        message = message_from_json(line, number)
        return message if request.type is None else _with_type(message, request.type)
    key = None if request.key_from is None else key_in(line, request.key_from, number)
    return Message(line, key=key, type=request.type)


def _with_type(message: Message, type_: str) -> Message:
    return Message(message.payload, key=message.key, properties=message.pairs, type=type_)


def _place(position: Position | None) -> Place | None:
    if position is None:
        return None
    return Place(seq=position.seq, index=position.index, tick=position.tick)


def _so_far(done: Produced) -> str:
    if done.first is None or done.last is None:
        return "nothing was acknowledged"
    return f"sent so far: {done.count} messages, seq {done.first.seq} .. {done.last.seq}"
