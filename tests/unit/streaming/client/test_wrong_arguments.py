"""What cannot be meant is InvalidRequest at once, before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest

from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.requests import Channel as ChannelInfo
from woodpecker.streaming.transport.memory import MemoryNetwork
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


def a_client() -> StreamingClient:
    runtime = VirtualRuntime()
    network = MemoryNetwork(runtime)
    return StreamingClient(network.dialer("client"), ["nowhere"], runtime=runtime)


@pytest.mark.parametrize("name", [3, None, "", "a b", "\udcff", "x" * 1000])
@on_virtual_time
async def test_a_channel_name(name: Any):
    async with a_client() as client:
        with pytest.raises(InvalidRequest, match="channel name"):
            await client.create_channel(name)
        with pytest.raises(InvalidRequest, match="channel name"):
            await client.open_channel(name)
        with pytest.raises(InvalidRequest, match="channel name"):
            await client.create_channels(["orders", name])


@on_virtual_time
async def test_one_name_for_many():
    async with a_client() as client:
        with pytest.raises(InvalidRequest, match="several names"):
            await client.create_channels("orders")


@pytest.mark.parametrize("seconds", [0, -1, 1.5, "60", True, 2**70])
@on_virtual_time
async def test_a_retention(seconds: Any):
    async with a_client() as client:
        with pytest.raises(InvalidRequest, match="retention_age_s"):
            await client.create_channel("orders", retention_age_s=seconds)


@pytest.mark.parametrize("attributes", [{"a": 1}, {1: "a"}, {"a": "\udcff"}, ["a"]])
@on_virtual_time
async def test_attributes(attributes: Any):
    async with a_client() as client:
        with pytest.raises(InvalidRequest, match="attributes"):
            await client.create_channel("orders", attributes=attributes)


@pytest.mark.parametrize("where", ["x", None, {"type": "x"}])
@on_virtual_time
async def test_a_filter(where: Any):
    channel = Channel(None, None, ChannelInfo(name="orders", vcid=1, pchannel="p0"))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="where="):
        channel.consume(where=where)


@on_virtual_time
async def test_an_address_where_nobody_is():
    async with a_client() as client:
        with pytest.raises(Unavailable, match=r"nowhere.*does `woodpecker up`.*WOODPECKER_TLS_CA"):
            await client.list_channels()
        assert "nowhere" in client.trouble
