"""Redis: one server, one stream, the append-only file synced before every answer."""

from __future__ import annotations

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

KEY = "bench"
CONNECTIONS = 64


class _Stream:
    def __init__(self, redis: Any) -> None:  # noqa: ANN401  of a library without types
        self._redis = redis

    async def append(self, payload: bytes) -> object:
        return await self._redis.xadd(KEY, {b"p": payload})

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for payload in payloads:
                pipeline.xadd(KEY, {b"p": payload})
            return await pipeline.execute()


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    library = client_library("redis.asyncio", "redis")
    server = find_program("redis-server", "apt-get install redis-server")
    version = server_version(server).split()[2].removeprefix("v=")
    port, directory = free_port(), place.directory / "redis"
    directory.mkdir()
    flags = {
        "bind": HOST, "port": str(port), "dir": str(directory), "save": "",
        "appendonly": "yes", "appendfsync": "always",
    }  # fmt: skip
    argv = [server, *(word for name, value in flags.items() for word in (f"--{name}", value))]
    async with serving(argv, port, place.directory / "redis.log") as process:
        pool = library.BlockingConnectionPool(
            host=HOST, port=port, max_connections=CONNECTIONS, timeout=None
        )
        redis = library.Redis.from_pool(pool)
        yield [
            Peer(
                name="Redis stream",
                settings=f"{version}, 1 server, XADD, "
                "appendonly yes, appendfsync always (synced once a turn of its loop, before the answers); "
                f"redis-py, up to {CONNECTIONS} connections, pipelines for batches",
                log=_Stream(redis),
                pids=[process.pid],
            )
        ]
        await redis.aclose()
