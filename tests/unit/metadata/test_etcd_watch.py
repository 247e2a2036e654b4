"""The shared watch stream of etcd, when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from woodpecker.errors import Unavailable
from woodpecker.metadata.etcd_watch import EtcdWatches
from woodpecker.runtime.runtime import SystemRuntime


class Breaking:
    """A connection whose streams break; as in grpc, a task of its own still waits for requests."""

    def __init__(self) -> None:
        self.pollers: list[asyncio.Task[None]] = []

    async def stream(self, method: object, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async def poll() -> None:
            async for _ in requests:
                pass

        self.pollers.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)
        raise Unavailable("the stream broke")
        yield


async def test_a_broken_stream_leaves_nobody_waiting_for_requests() -> None:
    connection = Breaking()
    versions = iter(["1", "2"])

    async def look(_: str) -> tuple[str | None, int]:
        return next(versions), 7

    watches = EtcdWatches(connection, SystemRuntime(), look)  # type: ignore[arg-type]
    await watches.changed("key", b"key", "1")
    async with asyncio.timeout(10):
        await asyncio.gather(*connection.pollers)
    assert len(connection.pollers) > 0
    await watches.close()
