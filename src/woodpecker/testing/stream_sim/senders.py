"""Who writes: producers, and those who delete channels while they are written to. They write down what they are told."""

from __future__ import annotations

import asyncio

from woodpecker.errors import (
    Aborted,
    Closed,
    Fenced,
    InvalidRequest,
    NotFound,
    NotWritten,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.client.producer import Producer
from woodpecker.streaming.core.values import Position
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.books import Book, Sent
from woodpecker.testing.stream_sim.town import AGAIN_S, Town, created

FOUNDING = 0.03  # chance that a producer goes on to a new channel first
ASKING = 0.15  # chance that it asks for a read point
PASSING = 0.2  # chance that something for listeners only goes with a few messages
TYPES = (None, "a", "b")
KEYS = (None, b"k")
BORNE = (NotWritten, OutcomeUnknown, Unavailable, Fenced, Overloaded, Closed)
UNWRITTEN = (NotWritten, Unavailable, Closed, Overloaded, NotFound, InvalidRequest)


class GivenUp(Exception):
    """The user changed his mind: the transaction is aborted."""


class Sender:
    """Sends to one channel, and writes down what becomes of it."""

    def __init__(self, town: Town, machine: Machine, book: Book) -> None:
        self.made = 0
        self.book = book
        self._town = town
        self._machine = machine

    def message(self) -> Message:
        """One that nobody else sends."""
        self.made += 1
        payload = f"{self._machine.name}:{next(self._town.numbers)}".encode()
        rng = self._machine.rng
        return Message(payload, type=rng.choice(TYPES), key=rng.choice(KEYS))

    async def send(self, producer: Producer, line: str) -> None:
        """A transaction, or a few messages."""
        if self._machine.rng.random() < self._town.plan.transactions:
            await self.transact(producer, line)
        else:
            await self.burst(producer, line)

    async def burst(self, producer: Producer, line: str) -> None:
        """Several messages under way at once, in their order. Raises: the first failure."""
        futures = []
        for _ in range(self._machine.rng.randint(1, self._town.plan.burst)):
            message = self.message()
            sent = Sent(line, [message.payload])
            futures.append((sent, producer.submit(message)))
            self.book.sent.append(sent)
        failed: WoodpeckerError | None = None
        if self._town.plan.ephemerals and self._machine.rng.random() < PASSING:
            try:
                await self._pass_by(producer)  # behind what is on its way
            except WoodpeckerError as error:
                failed = error
        for sent, future in futures:
            try:
                self._acked(sent, await future)
            except WoodpeckerError as error:
                self._failed(sent, error)
                failed = failed or error
        if failed is not None:
            raise failed

    async def transact(self, producer: Producer, line: str) -> None:
        """One transaction. Raises: its failure, if the producer has to go on with that."""
        rng = self._machine.rng
        messages = [self.message() for _ in range(rng.randint(1, 4))]
        sent = Sent(line, [message.payload for message in messages], is_txn=True)
        self.book.sent.append(sent)
        try:
            async with producer.transaction(keep_alive_s=rng.choice((1.0, 10.0))) as txn:
                for message in messages:
                    await txn.send(message)
                    if rng.random() < 0.1:
                        await asyncio.sleep(rng.random() * 3)
                if rng.random() < 0.2:
                    raise GivenUp
        except GivenUp:
            sent.outcome = "not written"
            self._town.coverage["transaction given up"] += 1
        except Aborted as error:
            sent.outcome = "not written"
            self._town.coverage[f"transaction aborted: {error.reason}"] += 1
        except WoodpeckerError as error:
            self._failed(sent, error)
            raise
        else:
            assert txn.position is not None
            self._acked(sent, txn.position)

    async def _pass_by(self, producer: Producer) -> None:
        """Something for those who listen now. Raises: its failure."""
        message = self.message()
        self.book.passing.add(message.payload)
        await producer.send_many([message], ephemeral=True)  # not held back, as a single one is
        self._town.coverage["ephemeral accepted"] += 1

    def _acked(self, sent: Sent, position: Position) -> None:
        sent.outcome, sent.position = "ack", position
        self.book.top = max(self.book.top, position.after())
        self._town.coverage["transaction committed" if sent.is_txn else "message acknowledged"] += 1

    def _failed(self, sent: Sent, error: WoodpeckerError) -> None:
        if isinstance(error, Fenced):
            is_known = error.outcome == "not_written"
        else:
            is_known = isinstance(error, UNWRITTEN)
        sent.outcome = "not written" if is_known else "unknown"
        self._town.coverage[f"send failed: {error.code}, {sent.outcome}"] += 1
        self._town.say(self._machine.name, f"{sent.payloads}: {sent.outcome}: {error}")


class ProducerUser:
    """Sends until its calls are made or it is told to end."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._name = name
        self._sender = Sender(town, machine, town.books[name])
        self._lines = 0

    async def main(self) -> None:
        plan = self._town.plan
        async with self._town.client(self._machine, timeout_s=plan.timeout_s) as client:
            channel = await created(self._town, client, self._name)
            while not self._is_over:
                try:
                    await self._produce(channel)
                    await self._found(client)
                except BORNE as error:
                    self._town.coverage[f"producer ended: {error.code}"] += 1
                    await asyncio.sleep(AGAIN_S)

    @property
    def _is_over(self) -> bool:
        return self._machine.is_over or self._sender.made >= self._town.plan.calls

    async def _produce(self, channel: Channel) -> None:
        rng, plan = self._machine.rng, self._town.plan
        slot = "all" if plan.rivals else self._machine.name.partition(".")[0]
        self._lines += 1
        line = f"{self._machine.name}/{self._lines}"
        async with channel.producer(f"producer-{slot}" if plan.named else None) as producer:
            while not self._is_over:
                if rng.random() < FOUNDING:
                    return
                if rng.random() < ASKING:
                    await self._ask(channel)
                await self._sender.send(producer, line)
                await asyncio.sleep(plan.pace_ms / 1000 * rng.random())

    async def _found(self, client: StreamingClient) -> None:
        """A new channel, and something in it: no owner of the past may say that it is not there."""
        name = f"x-{self._machine.name}-{self._lines}"
        channel = await created(self._town, client, name)
        book = self._town.books.setdefault(name, Book(name))
        async with channel.producer() as producer:
            await Sender(self._town, self._machine, book).burst(producer, name)

    async def _ask(self, channel: Channel) -> None:
        """S10: a read point covers everything that anybody was told is written."""
        needed = self._sender.book.top
        point = await channel.read_point()
        self._town.coverage["read point"] += 1
        if point < needed:
            self._town.fail("S10", f"read point {point}, acknowledged before: {needed}")


class DeleterUser:
    """Deletes its channel while it is written to, and makes another one of the same name."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._name = name
        self._lines = 0

    async def main(self) -> None:
        plan = self._town.plan
        async with self._town.client(self._machine, timeout_s=plan.timeout_s) as client:
            while not self._machine.is_over:
                try:
                    await self._round(client)
                except (*BORNE, NotFound) as error:
                    self._town.coverage[f"deleter ended: {error.code}"] += 1
                await asyncio.sleep(AGAIN_S)

    async def _round(self, client: StreamingClient) -> None:
        channel = await created(self._town, client, self._name)
        key = f"{self._name} {channel.vcid}"
        book = self._town.books.setdefault(key, Book(self._name, channel.vcid, is_deleted=True))
        self._lines += 1
        line = f"{self._machine.name}/{self._lines}"
        async with channel.producer() as producer:
            sender = Sender(self._town, self._machine, book)
            writing = asyncio.ensure_future(self._write(producer, sender, line))
            try:
                await asyncio.sleep(self._machine.rng.random() * 3)
                await client.delete_channel(self._name, missing_ok=True)
                self._town.coverage["channel deleted"] += 1
                again = await created(self._town, client, self._name)
            finally:
                writing.cancel()
                await asyncio.wait([writing])
            if again.vcid <= channel.vcid:
                self._town.fail("S16", f"{again} after {channel} was deleted")

    async def _write(self, producer: Producer, sender: Sender, line: str) -> None:
        """Until it is refused."""
        try:
            while not self._machine.is_over:
                await sender.send(producer, line)
                await asyncio.sleep(self._machine.rng.random() * 0.3)
        except (*BORNE, NotFound, InvalidRequest) as error:
            self._town.coverage[f"writing to what is deleted: {error.code}"] += 1
