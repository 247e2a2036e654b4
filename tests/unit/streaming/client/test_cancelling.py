"""Cancelled at any moment: nothing leaks, nothing is written in part, and all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.streaming.client.kit import serving

from woodpecker.streaming import Channel, Position, StreamingClient
from woodpecker.testing.virtual import run

Story = Callable[[StreamingClient, Channel], Awaitable[None]]


async def create(client: StreamingClient, channel: Channel) -> None:
    await client.create_channel("orders", exist_ok=True)


async def send(client: StreamingClient, channel: Channel) -> None:
    async with channel.producer() as producer:
        await producer.send(b"x")


async def send_large(client: StreamingClient, channel: Channel) -> None:
    async with channel.producer() as producer:
        await producer.send(bytes(5000))


async def transaction(client: StreamingClient, channel: Channel) -> None:
    async with channel.producer("named") as producer, producer.transaction() as tx:
        await tx.send(b"t1")
        await tx.send_many([b"t2", b"t3"])


async def consume(client: StreamingClient, channel: Channel) -> None:
    async with channel.consume() as messages:
        async for _ in messages:
            break


async def subscribe(client: StreamingClient, channel: Channel) -> None:
    async with channel.subscribe("mailer") as subscription:
        await subscription.ack(await anext(subscription))
        await subscription.wait_until(Position(0))


async def read_point(client: StreamingClient, channel: Channel) -> None:
    await channel.read_point()


STORIES = [create, send, send_large, transaction, consume, subscribe, read_point]


@pytest.mark.parametrize("story", STORIES)
def test_cancelled_at_any_moment(story: Story) -> None:
    async def cancelled_after(delay_ms: float) -> bool:
        async with serving() as (service, client):
            service.put(b"first")
            channel = await client.open_channel("orders")
            service.network.delay_ms = (4.0, 4.0)
            task = asyncio.ensure_future(story(client, channel))
            await asyncio.sleep(delay_ms / 1000)
            was_done = task.done()
            task.cancel()
            before = asyncio.get_running_loop().time()
            await asyncio.gather(task, return_exceptions=True)
            assert asyncio.get_running_loop().time() - before < 0.1  # nobody waits to be let go
            await send(client, channel)
            await subscribe(client, channel)
            found = [message.payload async for message in channel.consume(end="tail")]  # type: ignore[union-attr]
            assert found[0] == b"first"
            assert found[-1] == b"x"
            texts = [payload for payload in found if payload.startswith(b"t")]
            assert texts in ([], [b"t1", b"t2", b"t3"])
            assert all(len(payload) in (1, 2, 5, 5000) for payload in found)
            return was_done

    delay_ms = 0
    while not run(cancelled_after(delay_ms)):
        delay_ms += 1
    assert delay_ms > 5
