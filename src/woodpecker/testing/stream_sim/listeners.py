"""Who reads: consumers, with and without a filter, and holders of cursors. They write down what they are shown."""

from __future__ import annotations

import asyncio

from woodpecker.errors import Fenced, OutcomeUnknown, OutOfRange, Unavailable
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.messages import Message, TickSignal
from woodpecker.streaming.client.subscriptions import Subscription
from woodpecker.streaming.core.values import Position, Where
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.books import (
    Book,
    Passing,
    Signal,
    Subscribed,
    View,
    shown,
)
from woodpecker.testing.stream_sim.town import AGAIN_S, Town, opened


class ConsumerUser:
    """Reads from the earliest on, through all owners."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._book: Book = town.books[name]
        self._type = "a" if town.plan.filters and machine.rng.random() < 0.5 else None

    def _new_view(self, *, is_first: bool) -> View:
        view = View(self._machine.name, self._type, is_first=is_first)
        self._book.views.append(view)
        return view

    async def main(self) -> None:
        is_kept = self._town.plan.retention_age_s is None
        view = self._new_view(is_first=is_kept)
        async with opened(self._town, self._machine, self._book.name) as channel:
            while not self._machine.is_over:
                try:
                    await self._read(channel, view)
                except (Unavailable, OutcomeUnknown):
                    pass
                except OutOfRange as error:
                    if is_kept:
                        self._town.fail("S9", f"{self._machine.name}: {error}")
                    self._town.coverage["consumer overtaken by a trim"] += 1
                    view.is_alive = False
                    view = self._new_view(is_first=False)
                await asyncio.sleep(AGAIN_S)

    async def _read(self, channel: Channel, view: View) -> None:
        got = view.got
        start: Position | str = got[-1].position.after() if got else "earliest"
        async for item in channel.consume(start, where=Where(type=self._type), ticks=True):
            if isinstance(item, TickSignal):
                view.events.append(Signal(item.tick))
            elif item.is_ephemeral:
                view.events.append(Passing(item.payload, item.tick))
                self._town.coverage["ephemeral shown"] += 1
            else:
                view.events.append(shown(item))


class SubscriberUser:
    """Reads under a cursor, acknowledges most of what it gets, some of it late. Others may take the cursor."""

    def __init__(self, town: Town, machine: Machine, name: str) -> None:
        self._town = town
        self._machine = machine
        self._book: Book = town.books[name]
        slot = machine.name.partition(".")[0]
        self._cursor = "mailer" if town.plan.rivals else f"mailer-{slot}"
        self._type = "a" if town.plan.filters and slot == "s1" and not town.plan.rivals else None

    async def main(self) -> None:
        async with opened(self._town, self._machine, self._book.name) as channel:
            while not self._machine.is_over:
                try:
                    await self._attend(channel)
                except (Unavailable, OutcomeUnknown, Fenced) as error:
                    self._town.coverage[f"subscriber ended: {error.code}"] += 1
                    if self._machine.name not in self._town.newest.values():
                        return  # it slept, and another one has taken the cursor over
                    await asyncio.sleep(self._machine.rng.random() * 5)
                except OutOfRange as error:
                    self._town.fail("S9", f"{self._machine.name}, {self._cursor}: {error}")
                    return
                await asyncio.sleep(AGAIN_S)

    async def _attend(self, channel: Channel) -> None:
        book, rng = self._book, self._machine.rng
        where = Where(type=self._type)
        async with channel.subscribe(self._cursor, where=where) as sub:
            record = book.cursors.setdefault(self._cursor, Subscribed(self._type))
            waiting: list[Message] = []
            mine: list[Message] = []
            async for message in sub:
                if message.is_ephemeral:
                    continue
                record.handed.add(message.payload)
                waiting.append(message)
                mine.append(message)
                if rng.random() < 0.7:
                    one = waiting.pop(rng.randrange(len(waiting)))
                    record.acked.add(one.payload)
                    await sub.ack(one)
                if len(waiting) > 20:
                    await self._ack_through(sub, record, mine, waiting.pop())
                    waiting.clear()
                if rng.random() < 0.02:
                    break

    async def _ack_through(
        self, sub: Subscription, record: Subscribed, mine: list[Message], last: Message
    ) -> None:
        record.acked |= {one.payload for one in mine if one.position <= last.position}
        await sub.ack_through(last)
