"""The real client on the real service, while owners wander, streams break and processes are replaced."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.streaming.node.kit import Cluster

from woodpecker.errors import Aborted, WoodpeckerError
from woodpecker.streaming import Channel, Message, Position, StreamingClient
from woodpecker.streaming.member import Member, Roles
from woodpecker.streaming.requests import Move
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.streaming.transport.memory import MemoryNetwork, MemoryServer
from woodpecker.testing.virtual import run

SETTINGS = replace(
    DEFAULTS, pchannels=2, expected_nodes=2, beat_ms=500, session_ttl_ms=2_000,
    release_timeout_ms=1_000, chunk_from_bytes=10_000, chunk_bytes=3_000, checkpoint_age_ms=2_000,
)  # fmt: skip
NAMES = ("a", "b")
CLIENT = "client"


class Town:
    """Members on one store that come and go."""

    def __init__(self, seed: int) -> None:
        self.cluster = Cluster(seed)
        self.network: MemoryNetwork = self.cluster.network
        self.network.delay_ms = (0.0, 3.0)
        self.rng = random.Random(seed)
        self.members: dict[str, tuple[Member, MemoryServer]] = {}

    async def start(self, name: str) -> None:
        site = self.cluster.site()
        await site.client.open()
        roles = Roles(coordinator=name == "c", node="" if name == "c" else name)
        member = Member(
            site.client, self.network.dialer(name), roles, address=name, settings=SETTINGS
        )
        server = self.network.serve(name, member.services, runtime=site.runtime)
        await member.start()
        self.members[name] = (member, server)

    async def stop(self, name: str) -> None:
        member, server = self.members.pop(name)
        await member.stop()
        await server.close()

    async def nemesis(self, client: StreamingClient, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(self.rng.uniform(0.05, 2.0))
            name = self.rng.choice(NAMES)
            match self.rng.randrange(6):
                case 0 | 1:
                    self.network.snap(CLIENT, name)
                case 2 | 3:
                    await self._move()
                case 4:
                    self.network.hold(CLIENT, name)
                    await asyncio.sleep(self.rng.uniform(0.1, 4.0))
                    self.network.release(CLIENT, name)
                case 5:
                    await self.stop(name)
                    await asyncio.sleep(self.rng.uniform(0.0, 3.0))
                    await self.start(name)

    async def _move(self) -> None:
        request = Move(pchannel=f"p{self.rng.randrange(2)}", node=self.rng.choice(NAMES))
        with suppress(Exception):
            await self.network.dialer("admin").endpoint("c").call(request)


class Load:
    """Producers that write down what they were told, and consumers that write down what they saw."""

    def __init__(self, channel: Channel, rng: random.Random) -> None:
        self.channel = channel
        self.rng = rng
        self.told: dict[bytes, Position] = {}
        self.unknown: set[bytes] = set()
        self.never: set[bytes] = set()
        self.wholes: list[list[bytes]] = []
        self.is_over = False

    async def produce(self, name: str | None, number: int) -> None:
        count = 0
        while not self.is_over:
            producer = self.channel.producer(name)
            with suppress(WoodpeckerError):
                async with producer:
                    while not self.is_over:
                        count += 1
                        await self._one(producer, b"%d.%d" % (number, count))
                        await asyncio.sleep(self.rng.uniform(0, 0.05))

    async def _one(self, producer: Any, text: bytes) -> None:
        match self.rng.randrange(8):
            case 0:
                await self._transaction(producer, text)
            case 1:
                await self._note([text], producer.send(text + b"." + bytes(25_000)))
            case 2:
                many = [text + b".m%d" % n for n in range(3)]
                await self._note(many, producer.send_many(many))
            case 3:
                names = [text + b".f%d" % n for n in range(20)]
                futures = [producer.submit(name) for name in names]
                for name, future in zip(names, futures, strict=True):
                    await self._note([name], future)
            case _:
                await self._note([text], producer.send(text))

    async def _note(self, names: list[bytes], work: Any) -> None:
        try:
            result = await work
        except WoodpeckerError as error:
            self._failed(names, error)
            raise
        places = result if isinstance(result, list) else [result]
        for name, place in zip(names, places, strict=True):
            self.told[name] = place

    def _failed(self, names: list[bytes], error: WoodpeckerError) -> None:
        is_known = error.code in {"not_written", "overloaded", "aborted"} or (
            getattr(error, "outcome", "unknown") == "not_written"
        )
        (self.never if is_known else self.unknown).update(names)

    async def _transaction(self, producer: Any, text: bytes) -> None:
        names = [text + b".t%d" % n for n in range(3)]
        self.wholes.append(names)
        try:
            async with producer.transaction(keep_alive_s=2) as tx:
                for name in names:
                    await tx.send(name)
                    await asyncio.sleep(self.rng.uniform(0, 0.05))
                if self.rng.random() < 0.3:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            self.never.update(names)
        except Aborted:
            self.never.update(names)
        except WoodpeckerError as error:
            self._failed(names, error)
            raise
        else:
            for index, name in enumerate(names):
                self.told[name] = Position(tx.position.seq, index)

    async def consume(self, seen: list[tuple[Position, bytes]]) -> None:
        async for message in self.channel.consume():
            assert isinstance(message, Message)
            seen.append((message.position, message.payload))
            await asyncio.sleep(self.rng.uniform(0, 0.01))

    async def subscribe(self, seen: list[tuple[Position, bytes]]) -> None:
        """Acknowledge all; be replaced now and then."""
        while True:
            with suppress(WoodpeckerError):
                async with self.channel.subscribe("worker") as sub:
                    for _ in range(self.rng.randrange(1, 200)):
                        message = await anext(sub)
                        seen.append((message.position, message.payload))
                        await sub.ack(message)

    def check(self, seen: list[tuple[Position, bytes]]) -> None:
        places = [place for place, _ in seen]
        assert places == sorted(set(places)), "out of order, or twice"
        names = [_name_of(payload) for _, payload in seen]
        assert len(set(names)) == len(names), "a message is there twice"
        by_name = dict(zip(names, places, strict=True))
        missing = {name for name in self.told if name not in by_name}
        assert not missing, f"acknowledged and not seen: {sorted(missing)[:5]}"
        wrong = {name for name, place in self.told.items() if by_name[name] != place}
        assert not wrong, f"seen elsewhere: {sorted(wrong)[:5]}"
        assert not self.never & set(names), "told that it is not written, and seen"
        for whole in self.wholes:
            assert len(set(whole) & set(names)) in (0, 3), "part of a transaction"


def _name_of(payload: bytes) -> bytes:
    return payload[:-25_001] if len(payload) > 25_000 else payload


async def storm(seed: int, seconds: float) -> Load:
    town = Town(seed)
    async with AsyncExitStack() as stack:
        for name in ("c", *NAMES):
            await town.start(name)
        client = StreamingClient(
            town.network.dialer(CLIENT), ["c", *NAMES], timeout_s=30, runtime=town.cluster.site().runtime,
            settings=SETTINGS,
        )  # fmt: skip
        await stack.enter_async_context(client)
        channel = await client.create_channel("orders")
        load = Load(channel, random.Random(seed))
        all_seen: list[list[tuple[Position, bytes]]] = [[], [], []]
        readers = [
            asyncio.create_task(load.consume(all_seen[0])),
            asyncio.create_task(load.consume(all_seen[1])),
            asyncio.create_task(load.subscribe(all_seen[2])),
        ]
        writers = [
            asyncio.create_task(load.produce(name, number))
            for number, name in enumerate([None, None, "named"])
        ]
        await town.nemesis(client, seconds)
        load.is_over = True
        await asyncio.gather(*writers)
        end = await channel.read_point()
        for seen in all_seen:
            while not seen or seen[-1][0] < max(load.told.values()):
                await asyncio.sleep(1)
                for reader in readers:
                    assert not reader.done(), reader.result()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        anew = [(m.position, m.payload) async for m in channel.consume(end=end)]  # type: ignore[union-attr]
        for seen in all_seen[:2]:
            assert seen == anew[: len(seen)]
        load.check(anew)
        worker = list(dict.fromkeys(all_seen[2]))  # at least once
        assert sorted(worker) == anew[: len(worker)]
    for name in list(town.members):
        await town.stop(name)
    return load


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_or_seen_twice(seed: int) -> None:
    load = run(storm(seed, 15))
    assert len(load.told) > 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
def test_nothing_is_lost_or_seen_twice_in_long_storms(seed: int) -> None:
    load = run(storm(seed, 60))
    assert len(load.told) > 1000
