"""Waiting for changes in etcd: all waits of one store share one watch stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Literal

from woodpecker.errors import WoodpeckerError
from woodpecker.metadata import etcd_pb2 as pb
from woodpecker.metadata.etcd_rpc import WATCH, EtcdConnection
from woodpecker.runtime.runtime import Runtime

LOOK_AGAIN_MS = 100

Outcome = Literal["changed", "look"]
Look = Callable[[str], Awaitable[tuple[str | None, int]]]

_log = logging.getLogger(__name__)


class EtcdWatches:
    """Waits for single keys, each from a revision on, so that no change falls between.

    Args:
        connection: to the cluster.
        runtime: time and tasks.
        look: reads a key: its version and the store's revision at that time.
    """

    def __init__(self, connection: EtcdConnection, runtime: Runtime, look: Look) -> None:
        self._connection = connection
        self._runtime = runtime
        self._look = look
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._requests: asyncio.Queue[pb.WatchRequest | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def changed(self, name: str, key: bytes, version: str | None) -> None:
        """Return when ``name`` (stored at ``key``) is no longer at ``version``.

        A stream that was lost, or history that was compacted away, is made good by a read.
        """
        start = int(version) + 1 if version and version.isdecimal() else None
        while True:
            if start is None:
                found, revision = await self._look(name)
                if found != version:
                    return
                start = revision + 1
            if await self._watch(key, start) == "changed":
                return
            start = None
            await self._runtime.sleep_ms(LOOK_AGAIN_MS)

    async def close(self) -> None:
        """Stop the stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, key: bytes, start: int) -> Outcome:
        self._last_id += 1
        watch_id = self._last_id
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[watch_id] = future
        create = pb.WatchCreateRequest(key=key, start_revision=start, watch_id=watch_id)
        if self._task is None:
            self._requests = asyncio.Queue()
            self._task = self._runtime.spawn(self._run(self._requests), "etcd watch")
        requests = self._requests
        requests.put_nowait(pb.WatchRequest(create_request=create))
        try:
            return await future
        finally:
            del self._waiting[watch_id]
            cancel = pb.WatchCancelRequest(watch_id=watch_id)
            requests.put_nowait(pb.WatchRequest(cancel_request=cancel))

    async def _run(self, requests: asyncio.Queue[pb.WatchRequest | None]) -> None:
        try:
            async with aclosing(self._connection.stream(WATCH, _drain(requests))) as responses:
                async for response in responses:
                    if not self._dispatch(response):
                        break
        except WoodpeckerError as error:
            _log.info("watch on etcd was lost, opening another: %s", error)
        finally:
            self._task = None
            requests.put_nowait(None)
            for future in self._waiting.values():
                _resolve(future, "look")

    def _dispatch(self, response: pb.WatchResponse) -> bool:
        """Tell who waits. False: the stream is of no more use (its login has run out)."""
        future = self._waiting.get(response.watch_id)
        if future is None or future.done():
            return True
        if response.events:
            _resolve(future, "changed")
        elif response.canceled:
            _resolve(future, "look")
            return bool(response.compact_revision)
        return True


async def _drain(requests: asyncio.Queue[pb.WatchRequest | None]) -> AsyncIterator[pb.WatchRequest]:
    """Requests until None: a task of grpc waits here, and stays when its stream breaks by itself."""
    while (request := await requests.get()) is not None:
        yield request


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
