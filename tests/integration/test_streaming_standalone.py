"""A whole service in one process, over the transport in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import woodpecker as wp
from woodpecker.streaming.standalone import Standalone


@asynccontextmanager
async def served(directory):
    async with (
        asyncio.timeout(60),
        wp.connect(directory) as store,
        Standalone(store) as service,
        service.connect() as client,
    ):
        yield client


async def payloads(channel):
    return [message.payload async for message in channel.consume(end="tail")]


async def test_what_was_sent_is_there_after_a_restart(tmp_path):
    async with served(tmp_path) as client:
        channel = await client.create_channel("orders", exist_ok=True)
        async with channel.producer("billing") as producer:
            first = await producer.send(b"paid", key=b"7")
            await producer.send_many([b"packed", b"shipped"])
        assert first is not None
        assert await payloads(channel) == [b"paid", b"packed", b"shipped"]
    async with served(tmp_path) as client:
        channel = await client.open_channel("orders")
        async with channel.producer("billing") as producer:
            await producer.send(b"returned")
        assert await payloads(channel) == [b"paid", b"packed", b"shipped", b"returned"]
