"""What a drain costs those who produce and consume: on virtual time, so only what is waited for counts."""

from __future__ import annotations

import asyncio

from tests.unit.streaming.client.test_storms import CLIENT, SETTINGS, Town

from woodpecker.streaming import Channel, StreamingClient
from woodpecker.streaming.requests import Drain
from woodpecker.testing.virtual import run

GAP_S = 0.1


class Watch:
    """The longest time between two events since ``begin``."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.longest_s = 0.0
        self._last_s = asyncio.get_running_loop().time()

    def seen(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s


async def _produce(channel: Channel, watch: Watch) -> None:
    async with channel.producer() as producer:
        while True:
            await producer.send(b"x")
            watch.seen()
            await asyncio.sleep(0.005)


async def _consume(channel: Channel, watch: Watch) -> None:
    async for _ in channel.consume(start="latest"):
        watch.seen()


async def _drained(town: Town, client: StreamingClient) -> list[float]:
    channels = await client.create_channels([f"orders-{number}" for number in range(4)])
    watches = [Watch() for _ in range(2 * len(channels))]
    users = [
        asyncio.create_task(use(channel, watches[2 * number + side]))
        for number, channel in enumerate(channels)
        for side, use in enumerate((_produce, _consume))
    ]
    await asyncio.sleep(3)
    for watch in watches:
        watch.begin()
    node = town.members["a"][0].node
    assert node is not None
    assert any(owner.serving for owner in node.owners.values())
    admin = town.network.dialer("admin").endpoint("c")
    await admin.call(Drain(node="a"))
    while any(owner.serving for owner in node.owners.values()):
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    for user in users:
        user.cancel()
    await asyncio.gather(*users, return_exceptions=True)
    return [watch.longest_s for watch in watches]


async def _drain() -> list[float]:
    town = Town(1)
    town.network.delay_ms = (0.2, 1.0)
    for name in ("c", "a", "b"):
        await town.start(name)
    client = StreamingClient(
        town.network.dialer(CLIENT), ["c"], runtime=town.cluster.site().runtime, settings=SETTINGS
    )
    async with client:
        gaps = await _drained(town, client)
    for name in list(town.members):
        await town.stop(name)
    return gaps


def test_nobody_waits_for_a_clock_while_a_node_is_drained() -> None:
    gaps = run(_drain())
    assert 0.005 < max(gaps) < GAP_S, gaps
