"""Who uses the service: producers, consumers, subscribers, an operator. They write down what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from woodpecker.errors import (
    Aborted,
    Closed,
    Fenced,
    NotWritten,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.client.messages import TickSignal
from woodpecker.streaming.client.producer import Producer
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.requests import Drain, Move
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.town import AGAIN_S, Book, Sent, SlotDialer, Town, View

FOUNDING = 0.03  # chance that a producer goes on to a new channel first
ASKING = 0.05  # chance that it asks for a read point
BORNE = (NotWritten, OutcomeUnknown, Unavailable, Fenced, Overloaded, Closed)


class GivenUp(Exception):
    """The user changed his mind: the transaction is aborted."""


@asynccontextmanager
async def opened(town: Town, machine: Machine, name: str) -> AsyncIterator[Channel]:
    """A client of its own, and the channel."""
    async with town.client(machine) as client:
        yield await _created(client, name)


async def _created(client: StreamingClient, name: str) -> Channel:
    while True:
        try:
            return await client.create_channel(name, exist_ok=True)
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(AGAIN_S)


class ProducerUser:
    """Sends until its calls are made or it is told to end."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._name = name
        self._book: Book = town.books[name]
        self._made = 0
        self._lines = 0

    async def main(self) -> None:
        async with self._town.client(self._machine) as client:
            channel = await _created(client, self._name)
            while not self._is_over:
                try:
                    await self._produce(channel)
                    await self._found(client)
                except BORNE as error:
                    self._town.coverage[f"producer ended: {error.code}"] += 1
                    await asyncio.sleep(AGAIN_S)

    @property
    def _is_over(self) -> bool:
        return self._machine.is_over or self._made >= self._town.plan.calls

    async def _produce(self, channel: Channel) -> None:
        slot = self._machine.name.partition(".")[0]
        name = f"producer-{slot}" if self._town.plan.named else None
        self._lines += 1
        line = f"{self._machine.name}/{self._lines}"
        async with channel.producer(name) as producer:
            while not self._is_over:
                if self._machine.rng.random() < FOUNDING:
                    return
                if self._machine.rng.random() < ASKING:
                    await self._ask(channel)
                if self._machine.rng.random() < self._town.plan.transactions:
                    await self._transact(producer, line)
                else:
                    await self._burst(producer, line)
                await asyncio.sleep(self._town.plan.pace_ms / 1000 * self._machine.rng.random())

    async def _found(self, client: StreamingClient) -> None:
        """A new channel, and the first message in it: no owner of the past may say that it is not there."""
        name = f"x-{self._machine.name}-{self._lines}"
        channel = await _created(client, name)
        book = self._town.books.setdefault(name, Book(name))
        sent = Sent(f"{self._machine.name}/{name}", [self._message()])
        book.sent.append(sent)
        try:
            async with channel.producer() as producer:
                position = await producer.send(sent.payloads[0])
        except WoodpeckerError as error:
            self._failed(sent, error)
            raise
        assert position is not None
        self._acked(book, sent, position)

    async def _ask(self, channel: Channel) -> None:
        """S10: a read point covers everything that anybody was told is written."""
        needed = self._book.top
        point = await channel.read_point()
        self._town.coverage["read point"] += 1
        if point < needed:
            self._town.fail("S10", f"read point {point}, acknowledged before: {needed}")

    def _message(self) -> bytes:
        self._made += 1
        return f"{self._machine.name}:{self._made}".encode()

    async def _burst(self, producer: Producer, line: str) -> None:
        """Several messages under way at once, in their order."""
        futures = []
        for _ in range(self._machine.rng.randint(1, self._town.plan.burst)):
            sent = Sent(line, [self._message()])
            futures.append((sent, producer.submit(sent.payloads[0])))
            self._book.sent.append(sent)
        failed: WoodpeckerError | None = None
        for sent, future in futures:
            try:
                self._acked(self._book, sent, await future)
            except WoodpeckerError as error:
                self._failed(sent, error)
                failed = failed or error
        if failed is not None:
            raise failed

    async def _transact(self, producer: Producer, line: str) -> None:
        rng = self._machine.rng
        sent = Sent(line, [self._message() for _ in range(rng.randint(1, 4))], is_txn=True)
        self._book.sent.append(sent)
        try:
            async with producer.transaction(keep_alive_s=rng.choice((1.0, 10.0))) as txn:
                for payload in sent.payloads:
                    await txn.send(payload)
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
            self._acked(self._book, sent, txn.position)

    def _acked(self, book: Book, sent: Sent, position: Position) -> None:
        sent.outcome, sent.position = "ack", position
        book.top = max(book.top, position.after())
        self._town.coverage["transaction committed" if sent.is_txn else "message acknowledged"] += 1

    def _failed(self, sent: Sent, error: WoodpeckerError) -> None:
        if isinstance(error, Fenced):
            is_known = error.outcome == "not_written"
        else:
            is_known = isinstance(error, NotWritten | Unavailable | Closed | Overloaded)
        sent.outcome = "not written" if is_known else "unknown"
        self._town.coverage[f"send failed: {error.code}, {sent.outcome}"] += 1
        self._town.say(self._machine.name, f"{sent.payloads}: {sent.outcome}: {error}")


class ConsumerUser:
    """Reads from the earliest on, through all owners, and looks at the order."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._name = name
        self.view = View(machine.name)
        town.books[name].views.append(self.view)

    async def main(self) -> None:
        async with opened(self._town, self._machine, self._name) as channel:
            start: Position | str = "earliest"
            while not self._machine.is_over:
                try:
                    async for item in channel.consume(start, ticks=True):
                        if isinstance(item, TickSignal):
                            self._signal = item.tick
                            continue
                        self._take(item.position, item.tick, item.payload)
                        start = item.position.after()
                except (Unavailable, OutcomeUnknown):
                    await asyncio.sleep(AGAIN_S)

    _signal = -1

    def _take(self, position: Position, tick: int, payload: bytes) -> None:
        got = self.view.got
        if got and position <= got[-1][0]:
            self._town.fail(
                "S1", f"{self._machine.name} got {payload!r} at {position} after {got[-1]}"
            )
        if got and tick < got[-1][0].tick:
            self._town.fail("S3", f"{self._machine.name}: tick {tick} after {got[-1][0].tick}")
        if tick <= self._signal:
            self._town.fail(
                "S4", f"{self._machine.name}: tick {tick} after the signal {self._signal}"
            )
        got.append((position, payload))


class SubscriberUser:
    """Reads under a cursor, acknowledges most of what it gets, some of it late."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._name = name
        self._book: Book = town.books[name]

    async def main(self) -> None:
        async with opened(self._town, self._machine, self._name) as channel:
            while not self._machine.is_over:
                try:
                    async with channel.subscribe("mailer") as sub:
                        waiting = []
                        async for message in sub:
                            self._book.seen.add(message.payload)
                            waiting.append(message)
                            if self._machine.rng.random() < 0.7:
                                one = waiting.pop(self._machine.rng.randrange(len(waiting)))
                                await sub.ack(one)
                            if len(waiting) > 20:
                                await sub.ack_through(waiting.pop())
                                waiting.clear()
                            if self._machine.rng.random() < 0.02:
                                break
                except BORNE as error:
                    self._town.coverage[f"subscriber ended: {error.code}"] += 1
                    if self._machine.name not in self._town.newest.values():
                        return  # it slept, and another one has taken the cursor over
                await asyncio.sleep(AGAIN_S)


class OperatorUser:
    """Moves pchannels and drains nodes, without asking why."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._dialer = SlotDialer(town, machine.name)

    async def main(self) -> None:
        rng, plan = self._machine.rng, self._town.plan
        while not self._machine.is_over:
            await asyncio.sleep(rng.expovariate(0.25))
            address = rng.choice(self._town.addresses)
            node = f"n{rng.randrange(plan.members)}"
            drain = rng.random() < 0.3
            try:
                endpoint = self._dialer.endpoint(address)
                if drain:
                    await endpoint.call(Drain(node=node, draining=rng.random() < 0.5))
                else:
                    await endpoint.call(Move(pchannel=f"p{rng.randrange(2)}", node=node))
                self._town.coverage["operator: drain" if drain else "operator: move"] += 1
            except Refused:
                continue


User = ProducerUser | ConsumerUser | SubscriberUser | OperatorUser
USERS: dict[str, type[User]] = {
    "p": ProducerUser, "r": ConsumerUser, "s": SubscriberUser, "o": OperatorUser,
}  # fmt: skip
