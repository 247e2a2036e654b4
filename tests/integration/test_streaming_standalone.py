"""A whole service in one process, over the transport in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

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


async def test_the_transaction_that_was_opened_last_may_begin_first(tmp_path):
    async with served(tmp_path) as client:
        channel = await client.create_channel("orders")
        async with channel.producer() as producer:
            async with producer.transaction() as first, producer.transaction() as second:
                await second.send(b"second")
                await first.send(b"first")
            assert second.position < first.position
        assert await payloads(channel) == [b"second", b"first"]


async def test_many_channels_are_made_at_once(tmp_path):
    names = [f"many-{number:03}" for number in range(300)]
    async with served(tmp_path) as client:
        made = await client.create_channels(names, retention_age_s=60, attributes={"of": "many"})
        assert [channel.name for channel in made] == names
        assert len({channel.vcid for channel in made}) == len(names)
        assert await client.list_channels() == names
        with pytest.raises(wp.AlreadyExists):
            await client.create_channels(["other", *names[:200]])
        again = await client.create_channels(["other", *names], exist_ok=True)
        assert [channel.vcid for channel in again[1:]] == [channel.vcid for channel in made]
        assert await client.create_channels([]) == []
