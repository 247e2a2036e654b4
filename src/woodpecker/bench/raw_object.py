"""The limit of an object store: plain PUTs and GETs by the same SDK, settings and concurrency."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import obstore

from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import cpu_seconds, now
from woodpecker.storage import cloud_config
from woodpecker.storage.url import StoreSettings

PUT_BYTES = 4 << 20
AT_ONCE = 8


class RawStore:
    """The SDK's store for the same bucket; keys under a prefix of its own."""

    def __init__(self, settings: StoreSettings, env: Mapping[str, str]) -> None:
        self._store = cloud_config.open_store(settings, env, retries=0)
        self._prefix = "/".join(part for part in (settings.path, "raw") if part)
        self._bodies = [os.urandom(PUT_BYTES) for _ in range(AT_ONCE)]
        self._small = os.urandom(1024)
        self._number = 0

    async def puts(self, seconds: float) -> Slice:
        """PUTs of 4 MiB, 8 at once."""

        async def one(lane: int) -> int:
            await self._put(self._bodies[lane])
            return PUT_BYTES

        return await repeated(one, AT_ONCE, seconds)

    async def small_puts(self, seconds: float) -> Slice:
        """PUTs of 1 KiB, one at a time."""

        async def one(_lane: int) -> int:
            await self._put(self._small)
            return len(self._small)

        return await repeated(one, 1, seconds)

    async def reads(self, objects: Mapping[str, int]) -> Slice:
        """Ranged GETs of 4 MiB, 8 at once, over whole objects (size by key) once."""
        ranges = [
            (key, start, min(start + PUT_BYTES, size))
            for key, size in objects.items()
            for start in range(0, size, PUT_BYTES)
        ]
        waiting = iter(ranges)

        async def lane() -> int:
            done = 0
            for key, start, end in waiting:
                data = await obstore.get_range_async(self._store, key, start=start, end=end)
                done += len(data)
            return done

        cpu, begin = cpu_seconds(), now()
        sizes = await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
        return Slice(bytes=sum(sizes), seconds=now() - begin, cpu_seconds=cpu_seconds() - cpu)

    async def _put(self, body: bytes) -> None:
        self._number += 1
        key = f"{self._prefix}/{self._number}"
        await obstore.put_async(self._store, key, body, mode="create", use_multipart=False)


async def repeated(
    one: Callable[[int], Coroutine[Any, Any, int]], at_once: int, seconds: float
) -> Slice:
    """Repeat ``one(lane)`` (returns bytes) in lanes until the time is over; what began is finished."""
    done, cpu, begin = Slice(), cpu_seconds(), now()

    async def lane(number: int) -> None:
        last = begin
        while last - begin < seconds:
            size = await one(
                number
            )  # not in one statement with +=: that reads the sum before it waits
            end = now()
            done.bytes += size
            done.entries += 1
            done.latencies.append(end - last)
            last = end

    await asyncio.gather(*(lane(number) for number in range(at_once)))
    done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
    return done
