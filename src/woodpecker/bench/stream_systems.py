"""What carries messages from a producer to a consumer at the tail: channels, the log beneath them, NATS JetStream."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from woodpecker.app_streaming import connect
from woodpecker.bench import loads
from woodpecker.bench.peers import nats
from woodpecker.bench.peers.base import PeerPlace
from woodpecker.bench.processes import HOST, free_port, serving
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.errors import Overloaded
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.client.producer import Producer


class Carrier(Protocol):
    """One ordered stream with one producer."""

    name: str
    settings: str

    async def send(self, payload: bytes) -> asyncio.Future[Any]:
        """One message, as soon as there is room; the future is done when it is acknowledged."""

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        """Several, acknowledged."""

    def arrivals(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        """How many messages come together, from now on, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service of one process, and a client of it."""

    client: StreamingClient
    address: str
    pid: int


@asynccontextmanager
async def service(store: str, directory: Path) -> AsyncIterator[Service]:
    """``woodpecker up`` on a scratch store, in a process of its own; its output goes to ``directory``."""
    port = free_port()
    address = f"{HOST}:{port}"
    argv = [sys.executable, "-m", "woodpecker", "--store", store, "up", "--port", str(port)]
    async with (
        serving(argv, port, directory / "up.log") as process,
        connect(address, timeout_s=120) as client,
    ):
        yield Service(client=client, address=address, pid=process.pid)


class ChannelCarrier:
    """A channel of the service, over gRPC."""

    name = "channel"

    def __init__(self, channel: Channel, producer: Producer, settings: str) -> None:
        self.settings = settings
        self.channel = channel
        self._producer = producer

    async def send(self, payload: bytes) -> asyncio.Future[Any]:
        while True:
            try:
                return self._producer.submit(payload)
            except Overloaded:
                await self._producer.ready()

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        return await self._producer.send_many(payloads)

    @asynccontextmanager
    async def arrivals(self) -> AsyncIterator[AsyncIterator[int]]:
        """See ``Carrier``."""
        start = await self.channel.read_point()

        async def counts() -> AsyncIterator[int]:
            async for batch in self.channel.consume_batches(start=start):
                yield len(batch)

        yield counts()


class LogCarrier:
    """A log of the same store, written and followed in this process."""

    name = "log"

    def __init__(self, log: Log, writer: LogWriter) -> None:
        self.settings = "the log layer alone, written and read in this process"
        self._log = log
        self._writer = writer
        self._send = loads.submitting(writer)

    async def send(self, payload: bytes) -> asyncio.Future[Any]:
        return await self._send(payload)

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        return await self._writer.append_many(payloads)

    @asynccontextmanager
    async def arrivals(self) -> AsyncIterator[AsyncIterator[int]]:
        """See ``Carrier``."""
        await self._writer.flush()
        start = self._writer.next_seq

        async def counts() -> AsyncIterator[int]:
            async for batch in self._log.read_batches(start=start, follow=True):
                yield len(batch)

        yield counts()


class NatsCarrier:
    """A stream of JetStream with a pull consumer."""

    def __init__(self, name: str, running: nats.Running) -> None:
        self.name = name
        self.settings = running.settings
        self._running = running

    async def send(self, payload: bytes) -> asyncio.Future[Any]:
        return await self._running.publish(payload)

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        return await self._running.append_many(payloads)

    @asynccontextmanager
    async def arrivals(self) -> AsyncIterator[AsyncIterator[int]]:
        """See ``Carrier``."""
        arrived: asyncio.Queue[int] = asyncio.Queue()
        async with self._running.subscribed(lambda: arrived.put_nowait(1)):

            async def counts() -> AsyncIterator[int]:
                while True:
                    yield await arrived.get()

            yield counts()


@asynccontextmanager
async def nats_carriers(directory: Path) -> AsyncIterator[list[NatsCarrier]]:
    """Two servers: one that syncs, and one that acknowledges from memory. Raises: NotHere."""
    place = PeerPlace(directory=directory, cache=directory)
    async with nats.running(place) as synced, nats.running(place, is_synced=False) as cached:
        yield [
            NatsCarrier(nats.NAME, synced),
            NatsCarrier(f"{nats.NAME}, page cache", cached),
        ]
